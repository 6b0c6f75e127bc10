//! `faas-jails stats`: what replicas use, once or again and again.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::BinaryBytes;
use serde::Serialize;

use super::client::{Choice, Client};
use super::ps;
use super::table::{Reader, Side, print, table};
use crate::api::ReplicaStatus;
use crate::config::Config;
use crate::fault::{Fault, Result};
use crate::function::ReplicaName;

/// Cursor to the first line, and everything from there on cleared (ECMA-48, CUP and ED).
pub const CLEAR: &str = "\x1b[H\x1b[J";

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    choice: Choice,
    /// Show one measurement and end
    #[arg(long)]
    once: bool,
    /// Seconds between measurements
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Print JSON: with --once one list, else one list a line
    #[arg(long)]
    json: bool,
}

/// What one replica used between two looks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    name: String,
    namespace: String,
    instance: String,
    /// Of one processor, so that two busy ones are 200.
    cpu_percent: f64,
    memory_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_limit_bytes: Option<u64>,
    pids: u64,
    in_flight: usize,
}

/// Processor seconds of each replica, and when they were read.
struct Sample {
    at: Instant,
    cpu: HashMap<ReplicaName, f64>,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<()> {
    let client = Client::new(config)?;
    let mut last = look(&client, &arguments.choice)?.0;
    loop {
        std::thread::sleep(Duration::from_secs(arguments.interval));
        let (sample, replicas) = look(&client, &arguments.choice)?;
        let measured: Vec<Measured> =
            replicas.into_iter().filter_map(|replica| measure(replica, &last, &sample)).collect();
        last = sample;
        let text = match (arguments.json, arguments.once) {
            (true, true) => ps::json(&measured)?,
            (true, false) => serde_json::to_string(&measured).map_err(|e| Fault::invalid(e.to_string()))? + "\n",
            (false, once) => {
                let clear = if !once && std::io::stdout().is_terminal() { CLEAR } else { "" };
                format!("{clear}{}", show(&measured))
            }
        };
        if print(&text)? == Reader::Gone || arguments.once {
            return Ok(());
        }
    }
}

fn look(client: &Client, choice: &Choice) -> Result<(Sample, Vec<ReplicaStatus>)> {
    let replicas = client.replicas(choice, true)?;
    let cpu = replicas.iter().filter_map(|r| Some((r.replica.clone(), r.usage?.cpu_seconds))).collect();
    Ok((Sample { at: Instant::now(), cpu }, replicas))
}

fn measure(replica: ReplicaStatus, last: &Sample, now: &Sample) -> Option<Measured> {
    let usage = replica.usage?;
    // One that was not there before has used all it has used since.
    let used = usage.cpu_seconds - last.cpu.get(&replica.replica).copied().unwrap_or(0.0);
    let elapsed = now.at.duration_since(last.at).as_secs_f64();
    Some(Measured {
        name: replica.name,
        namespace: replica.namespace,
        instance: replica.instance,
        cpu_percent: (used.max(0.0) / elapsed * 1000.0).round() / 10.0,
        memory_bytes: usage.memory_bytes,
        memory_limit_bytes: replica.memory_limit_bytes,
        pids: usage.pids,
        in_flight: replica.in_flight,
    })
}

fn show(measured: &[Measured]) -> String {
    let columns = [
        ("FUNCTION", Side::Left),
        ("REPLICA", Side::Left),
        ("CPU", Side::Right),
        ("MEMORY", Side::Right),
        ("LIMIT", Side::Right),
        ("PIDS", Side::Right),
        ("REQUESTS", Side::Right),
    ];
    let row = |m: &Measured| {
        vec![
            format!("{}.{}", m.name, m.namespace),
            m.instance.clone(),
            format!("{:.1}%", m.cpu_percent),
            BinaryBytes(m.memory_bytes).to_string(),
            m.memory_limit_bytes.map_or_else(|| "-".into(), |bytes| BinaryBytes(bytes).to_string()),
            m.pids.to_string(),
            m.in_flight.to_string(),
        ]
    };
    table(&columns, &measured.iter().map(row).collect::<Vec<_>>())
}
