//! What `/api/v1/admin/api-stats` tells: requests by status and how long they took, in the form of thoas/stats, which
//! Sky Island uses.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

/// Counts requests since its making.
#[derive(Debug)]
pub struct Stats {
    begun: Instant,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Of the current second of uptime, which comes first.
    recent: (u64, BTreeMap<u16, u64>),
    total: BTreeMap<u16, u64>,
    time: Duration,
}

/// The answer, with thoas/stats' keys.
#[derive(Debug, Serialize)]
pub struct Data {
    pid: u32,
    uptime: String,
    uptime_sec: f64,
    time: String,
    unixtime: i64,
    status_code_count: BTreeMap<u16, u64>,
    total_status_code_count: BTreeMap<u16, u64>,
    count: u64,
    total_count: u64,
    total_response_time: String,
    total_response_time_sec: f64,
    average_response_time: String,
    average_response_time_sec: f64,
}

impl Default for Stats {
    fn default() -> Self {
        Self { begun: Instant::now(), counts: Mutex::default() }
    }
}

impl Stats {
    /// Counts one answer.
    pub fn count(&self, status: u16, took: Duration) {
        let second = self.begun.elapsed().as_secs();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.recent.0 != second {
            counts.recent = (second, BTreeMap::new());
        }
        *counts.recent.1.entry(status).or_default() += 1;
        *counts.total.entry(status).or_default() += 1;
        counts.time += took;
    }

    /// All counts now. Those without `total` are of the current second.
    pub fn data(&self) -> Data {
        let uptime = self.begun.elapsed();
        let now = Timestamp::now();
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = if counts.recent.0 == uptime.as_secs() { counts.recent.1.clone() } else { BTreeMap::new() };
        let total_count: u64 = counts.total.values().sum();
        let average = counts.time.checked_div(u32::try_from(total_count).unwrap_or(u32::MAX)).unwrap_or_default();
        Data {
            pid: std::process::id(),
            uptime: go_duration(uptime),
            uptime_sec: uptime.as_secs_f64(),
            time: format!("{} +0000 UTC m=+{:.9}", now.strftime("%Y-%m-%d %H:%M:%S%.9f"), uptime.as_secs_f64()),
            unixtime: now.as_second(),
            count: recent.values().sum(),
            status_code_count: recent,
            total_status_code_count: counts.total.clone(),
            total_count,
            total_response_time: go_duration(counts.time),
            total_response_time_sec: counts.time.as_secs_f64(),
            average_response_time: go_duration(average),
            average_response_time_sec: average.as_secs_f64(),
        }
    }
}

/// A duration as Go prints it (`time.Duration.String`).
fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let scaled = |unit: u128, name: &str| {
        let fraction = format!("{:0width$}", nanos % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{}{dot}{fraction}{name}", nanos / unit)
    };
    match nanos {
        0 => return "0s".into(),
        1..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => return scaled(1_000, "µs"),
        1_000_000..1_000_000_000 => return scaled(1_000_000, "ms"),
        _ => {}
    }
    let seconds = duration.as_secs();
    let rest = go_seconds(Duration::new(seconds % 60, duration.subsec_nanos()));
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => rest,
        (0, minutes) => format!("{minutes}m{rest}"),
        (hours, minutes) => format!("{hours}h{minutes}m{rest}"),
    }
}

/// Seconds and their fraction, without zeros at its end.
fn go_seconds(duration: Duration) -> String {
    match format!("{:09}", duration.subsec_nanos()).trim_end_matches('0') {
        "" => format!("{}s", duration.as_secs()),
        fraction => format!("{}.{fraction}s", duration.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_look_as_go_s() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (11_483_568, "11.483568ms"),
            (1_630_666_656, "1.630666656s"),
            (60_000_000_000, "1m0s"),
            (173_284_133_220_786, "48h8m4.133220786s"),
            (3_600_500_000_000, "1h0m0.5s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn answers_are_counted_by_status_with_every_key_of_the_original() {
        let stats = Stats::default();
        stats.count(200, Duration::from_millis(30));
        stats.count(200, Duration::from_millis(10));
        stats.count(403, Duration::from_millis(5));
        let data = serde_json::to_value(stats.data()).unwrap();
        assert_eq!(data["total_status_code_count"], serde_json::json!({"200": 2, "403": 1}));
        assert_eq!((data["total_count"].as_u64(), data["total_response_time"].as_str()), (Some(3), Some("45ms")));
        assert_eq!(data["average_response_time_sec"], 0.015);
        assert_eq!(data.as_object().unwrap().len(), 13);
    }
}
