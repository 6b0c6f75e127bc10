//! Load from wrk: one thread, some connections, for some time.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process;

/// What wrk sends.
#[derive(Clone, Copy)]
pub struct Load {
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// For how long.
    pub time: Duration,
    /// Bytes of body of a POST; GET without.
    pub body: Option<usize>,
    /// A new connection for every request.
    pub close: bool,
}

/// What came of it.
#[derive(Clone, Copy)]
pub struct Outcome {
    /// Requests a second.
    pub rate: f64,
    /// Half of the answers took at most so many microseconds.
    pub p50: f64,
    /// 99 of 100 took at most so many.
    pub p99: f64,
    /// Microseconds of processor time that a request cost the processes asked about.
    pub cpu: f64,
}

impl Load {
    /// Loads a URL, and notes what the processes `pids` spend on it. Any answer but 2xx ends the benchmark.
    pub fn on(&self, url: &str, pids: &[u32], scratch: &Path) -> Outcome {
        let mut command = Command::new("wrk");
        command.args(["--threads", "1", "--latency", "--timeout", "10s"]);
        command.args(["--connections", &self.connections.to_string()]);
        command.args(["--duration", &format!("{}s", self.time.as_secs().max(1))]);
        if self.close {
            command.args(["--header", "Connection: close"]);
        }
        if let Some(length) = self.body {
            let script = scratch.join("post.lua");
            let text = format!("wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {length})\n");
            fs::write(&script, text).expect("writing wrk's script");
            command.arg("--script").arg(script);
        }
        let cpu = || pids.iter().map(|pid| process::cpu(*pid)).sum::<Duration>();
        let before = cpu();
        let output = command.arg(url).output().expect("running wrk; tools/setup.sh bench installs it");
        let spent = cpu().saturating_sub(before);
        let text = String::from_utf8_lossy(&output.stdout);
        let broken = text.contains("Non-2xx") || (text.contains("Socket errors") && !self.close);
        assert!(output.status.success() && !broken, "wrk on {url}:\n{text}");
        parse(&text, spent).unwrap_or_else(|| panic!("wrk's output is not understood:\n{text}"))
    }
}

fn parse(text: &str, spent: Duration) -> Option<Outcome> {
    let after = |word: &str| text.lines().find_map(|line| line.trim().strip_prefix(word).map(str::trim));
    let requests: f64 = text.lines().find_map(|l| l.trim().split_once(" requests in")?.0.parse().ok())?;
    Some(Outcome {
        rate: after("Requests/sec:")?.parse().ok()?,
        p50: microseconds(after("50%")?)?,
        p99: microseconds(after("99%")?)?,
        cpu: spent.as_secs_f64() * 1e6 / requests,
    })
}

/// wrk's `12.30us`, `4.56ms`, `7.89s`.
fn microseconds(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return None,
    };
    Some(digits.parse::<f64>().ok()? * unit)
}
