//! `faas-jails logs`: what a function's replicas print.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::time::Duration;

use super::client::{Chosen, Client};
use super::table::{Reader, print};
use crate::config::{self, Config};
use crate::fault::{Context, Fault, Kind, Result};
use crate::logs::Message;

/// A stream that ended is asked for again from this long before its last line, as the marks that settle lines'
/// times are a fifth of a second apart.
const OVERLAP: jiff::SignedDuration = jiff::SignedDuration::from_secs(2);
/// The pause before a stream that ended is asked for again.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    chosen: Chosen,
    /// Go on with what is printed from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// At most so many of the last lines
    #[arg(long, value_name = "COUNT")]
    lines: Option<u32>,
    /// Lines of this long ago and later, such as 90s, 5m or 1h30m [default: 5m, or all if --lines is given]
    #[arg(long, value_name = "DURATION")]
    since: Option<String>,
    /// Print each line with its time
    #[arg(short, long)]
    timestamps: bool,
    /// Print what the daemon answers, a JSON object a line
    #[arg(long)]
    json: bool,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<()> {
    let client = Client::new(config)?;
    let key = arguments.chosen.key(config)?;
    let ago = arguments.since.as_deref().map(config::parse_duration).transpose()?;
    let mut since = ago.map(|ago| jiff::Timestamp::now() - ago);
    let mut lines = arguments.lines;
    let mut printed = Printed::default();
    loop {
        let mut path =
            format!("/system/logs?name={}&namespace={}&follow={}", key.name, key.namespace, arguments.follow);
        path.extend(arguments.chosen.instance.as_ref().map(|id| format!("&instance={id}")));
        path.extend(lines.map(|count| format!("&tail={count}")));
        path.extend(since.map(|time| format!("&since={time}")));
        if copy(client.stream(&path)?, arguments, &mut printed)? == Reader::Gone || !arguments.follow {
            return Ok(());
        }
        // The daemon ends every stream in time for its clients; the next one begins where this one ended.
        since = Some(printed.last().unwrap_or_else(jiff::Timestamp::now) - OVERLAP);
        lines = None;
        std::thread::sleep(PAUSE);
    }
}

/// Prints a stream to its end.
fn copy(stream: impl std::io::Read, arguments: &Arguments, printed: &mut Printed) -> Result<Reader> {
    printed.repeat();
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else {
            // A daemon that ends in the middle of a line; the next one has it whole.
            return Ok(Reader::There);
        };
        let message: Message = serde_json::from_str(&line)
            .map_err(|e| Fault::new(Kind::System, e.to_string()))
            .context(|| "the daemon sent a line that this version does not understand")?;
        if printed.has(&message) {
            continue;
        }
        let text = match (arguments.json, arguments.timestamps) {
            (true, _) => format!("{line}\n"),
            (false, true) => format!("{} {} {}\n", message.timestamp, message.instance, message.text),
            (false, false) => format!("{}\n", message.text),
        };
        if print(&text)? == Reader::Gone {
            return Ok(Reader::Gone);
        }
        printed.note(message);
    }
    Ok(Reader::There)
}

/// The last lines that were printed, so that a stream that overlaps with the one before repeats none.
#[derive(Default)]
struct Printed {
    recent: VecDeque<Message>,
    /// Of those, the ones that the present stream may show again.
    again: Vec<Message>,
}

impl Printed {
    fn last(&self) -> Option<jiff::Timestamp> {
        self.recent.iter().map(|message| message.timestamp).max()
    }

    /// A new stream begins.
    fn repeat(&mut self) {
        self.again = self.recent.iter().cloned().collect();
    }

    /// Whether it was printed from an earlier stream. Equal lines are as many as they were. A line's time is not yet
    /// final when it is first told: the mark that settles it may be written a moment later.
    fn has(&mut self, message: &Message) -> bool {
        let is_same = |earlier: &Message| {
            earlier.instance == message.instance
                && earlier.text == message.text
                && earlier.timestamp.duration_since(message.timestamp).abs() < OVERLAP
        };
        let found = self.again.iter().position(is_same);
        found.map(|at| self.again.remove(at)).is_some()
    }

    fn note(&mut self, message: Message) {
        self.recent.push_back(message);
        let Some(newest) = self.last() else { return };
        while self.recent.front().is_some_and(|first| newest.duration_since(first.timestamp) > OVERLAP * 2) {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(second: i64, text: &str) -> Message {
        Message {
            name: "f".into(),
            namespace: "n".into(),
            instance: "i".into(),
            timestamp: jiff::Timestamp::from_second(second).unwrap(),
            text: text.into(),
        }
    }

    #[test]
    fn overlapping_streams_repeat_no_line_and_lose_none() {
        let mut printed = Printed::default();
        let mut shown = Vec::new();
        for stream in [vec![(1, "a"), (9, "b"), (10, "c"), (10, "c")], vec![(9, "b"), (10, "c"), (10, "c"), (10, "c")]]
        {
            printed.repeat();
            for (second, text) in stream {
                if !printed.has(&message(second, text)) {
                    shown.push(text);
                    printed.note(message(second, text));
                }
            }
        }
        assert_eq!(shown, ["a", "b", "c", "c", "c"]);
        assert!(printed.recent.len() < 5, "old lines are forgotten");
    }
}
