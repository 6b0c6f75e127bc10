//! `faas-jails top`: a live table of functions, what they have to do and what that makes of their replicas.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::client::{Choice, Client};
use super::ps;
use super::stats::CLEAR;
use super::table::{Reader, Side, print, table};
use crate::api::FunctionLoad;
use crate::config::Config;
use crate::fault::{Fault, Result};

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

/// One function between two looks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Measured {
    name: String,
    namespace: String,
    wanted: u32,
    ready: usize,
    starting: usize,
    frozen: usize,
    requests_per_second: f64,
    /// Milliseconds to the answer's head; absent when nothing was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<f64>,
    in_flight: usize,
    waiting: usize,
    cold_starts: u64,
}

struct Sample {
    at: Instant,
    functions: HashMap<(String, String), FunctionLoad>,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<()> {
    let client = Client::new(config)?;
    let mut last = look(&client, &arguments.choice)?;
    loop {
        std::thread::sleep(Duration::from_secs(arguments.interval));
        let now = look(&client, &arguments.choice)?;
        let measured = measure(&last, &now);
        last = now;
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

fn look(client: &Client, choice: &Choice) -> Result<Sample> {
    let all = client.loads(choice)?;
    let functions = all.into_iter().map(|f| ((f.namespace.clone(), f.name.clone()), f)).collect();
    Ok(Sample { at: Instant::now(), functions })
}

/// The busiest first.
fn measure(last: &Sample, now: &Sample) -> Vec<Measured> {
    let elapsed = now.at.duration_since(last.at).as_secs_f64();
    let one = |(key, function): (&(String, String), &FunctionLoad)| {
        let before = last.functions.get(key);
        let came = function.invocations.saturating_sub(before.map_or(0, |b| b.invocations));
        let answers = since(before.map_or(&[], |b| &b.latency), &function.latency);
        Measured {
            name: function.name.clone(),
            namespace: function.namespace.clone(),
            wanted: function.wanted,
            ready: function.ready,
            starting: function.starting,
            frozen: function.frozen,
            requests_per_second: (came as f64 / elapsed * 10.0).round() / 10.0,
            p50_ms: quantile(&answers, 0.5),
            p99_ms: quantile(&answers, 0.99),
            in_flight: function.in_flight,
            waiting: function.waiting,
            cold_starts: function.cold_starts,
        }
    };
    let mut all: Vec<Measured> = now.functions.iter().map(one).collect();
    all.sort_by(|a, b| {
        let busier = b.requests_per_second.total_cmp(&a.requests_per_second);
        busier.then_with(|| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)))
    });
    all
}

/// Answers that came between two looks. Numbers that fell are of a function that was deployed anew.
fn since(before: &[(u64, u64)], now: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let before: HashMap<u64, u64> = before.iter().copied().collect();
    now.iter().map(|(bound, count)| (*bound, count.saturating_sub(before.get(bound).copied().unwrap_or(0)))).collect()
}

/// Milliseconds within which this part of the answers came.
fn quantile(answers: &[(u64, u64)], part: f64) -> Option<f64> {
    let all: u64 = answers.iter().map(|(_, count)| count).sum();
    let mut left = (all as f64 * part).ceil() as u64;
    let bound = answers.iter().filter(|(_, count)| *count > 0).find(|(_, count)| {
        let here = *count >= left;
        left = left.saturating_sub(*count);
        here
    });
    bound.map(|(micros, _)| *micros as f64 / 1e3)
}

fn show(measured: &[Measured]) -> String {
    let columns = [
        ("FUNCTION", Side::Left),
        ("READY", Side::Right),
        ("FROZEN", Side::Right),
        ("REQ/S", Side::Right),
        ("P50 MS", Side::Right),
        ("P99 MS", Side::Right),
        ("SERVING", Side::Right),
        ("WAITING", Side::Right),
        ("COLD STARTS", Side::Right),
    ];
    let millis = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
    let row = |m: &Measured| {
        vec![
            format!("{}.{}", m.name, m.namespace),
            format!("{}/{}", m.ready, m.wanted),
            m.frozen.to_string(),
            format!("{:.1}", m.requests_per_second),
            millis(m.p50_ms),
            millis(m.p99_ms),
            m.in_flight.to_string(),
            m.waiting.to_string(),
            m.cold_starts.to_string(),
        ]
    };
    table(&columns, &measured.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_came_in_between() {
        let answers = since(&[(100, 50), (400, 1)], &[(100, 149), (400, 2), (9000, 0)]);
        assert_eq!(answers, [(100, 99), (400, 1), (9000, 0)]);
        assert_eq!(quantile(&answers, 0.5), Some(0.1));
        assert_eq!(quantile(&answers, 0.99), Some(0.1));
        assert_eq!(quantile(&answers, 1.0), Some(0.4));
        assert_eq!(quantile(&since(&[(100, 5)], &[(100, 5)]), 0.99), None);
    }
}
