//! `faas-jails ps`: the replicas that run.

use std::time::Duration;

use super::client::{Choice, Client};
use super::table::{Side, print, table};
use crate::api::{ReplicaState, ReplicaStatus};
use crate::config::Config;
use crate::fault::{Fault, Result};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    choice: Choice,
    /// Print what the daemon answers, as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<()> {
    let replicas = Client::new(config)?.replicas(&arguments.choice, false)?;
    if arguments.json {
        return print(&json(&replicas)?).map(drop);
    }
    let columns = [
        ("FUNCTION", Side::Left),
        ("REPLICA", Side::Left),
        ("STATE", Side::Left),
        ("ADDRESS", Side::Left),
        ("REQUESTS", Side::Right),
        ("UP", Side::Right),
        ("IMAGE", Side::Left),
    ];
    let row = |replica: &ReplicaStatus| {
        let up = jiff::Timestamp::now().duration_since(replica.since);
        vec![
            format!("{}.{}", replica.name, replica.namespace),
            replica.instance.clone(),
            state(replica.state).to_owned(),
            replica.address.clone(),
            replica.in_flight.to_string(),
            age(up.try_into().unwrap_or_default()),
            replica.image.clone(),
        ]
    };
    print(&table(&columns, &replicas.iter().map(row).collect::<Vec<_>>())).map(drop)
}

/// A list, as JSON for people and programs alike.
pub fn json(value: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Fault::invalid(e.to_string()))?;
    Ok(text + "\n")
}

fn state(state: ReplicaState) -> &'static str {
    match state {
        ReplicaState::Starting => "starting",
        ReplicaState::Ready => "ready",
        ReplicaState::Frozen => "frozen",
        ReplicaState::Ended => "ended",
    }
}

/// A time span in its two largest units.
fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units() {
        let shown: Vec<String> =
            [0, 59, 60, 3599, 3600, 90_061].into_iter().map(|s| age(Duration::from_secs(s))).collect();
        assert_eq!(shown, ["0s", "59s", "1m0s", "59m59s", "1h0m", "1d1h"]);
    }
}
