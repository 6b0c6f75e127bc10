//! [`decide`]: how many replicas a function should have, from what is known of it. Pure; its tests are its table.
//!
//! As the paid autoscaler does it: replicas = ceil(load of all / (target × proportion)), between the least and the
//! most. Load never brings a function to zero, only idleness does. Up goes at once, down to the highest number that
//! was due within the window.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Rules;

/// What is known of a function now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Now {
    /// The clock, from any beginning.
    pub at: Duration,
    /// Replicas that it should have until now.
    pub wanted: u32,
    /// Load of all replicas together, in the unit of its rules.
    pub load: f64,
    /// How long no request has come and none was under way.
    pub idle: Duration,
}

/// A change that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Replicas from now on.
    pub to: u32,
    /// Why.
    pub why: Why,
}

/// Why the number of replicas changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// A request came for a function at zero.
    Called,
    /// Nobody has called for long enough.
    Idle,
    /// Load is above the target.
    MoreLoad,
    /// Load has been below the target for the whole window.
    LessLoad,
    /// Frozen replicas had to go: they, or the host, had too little memory.
    Memory,
}

impl Why {
    /// All of them.
    pub const ALL: [Why; 5] = [Why::Called, Why::Idle, Why::MoreLoad, Why::LessLoad, Why::Memory];
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Called => "called",
            Why::Idle => "idle",
            Why::MoreLoad => "more load",
            Why::LessLoad => "less load",
            Why::Memory => "memory",
        })
    }
}

/// How often each reason has changed something.
#[derive(Debug, Default)]
pub struct Decisions([AtomicU64; Why::ALL.len()]);

impl Decisions {
    pub(in crate::provider) fn count(&self, why: Why) {
        self.0[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often a call has brought the function from zero.
    pub fn cold_starts(&self) -> u64 {
        self.0[Why::Called as usize].load(Ordering::Relaxed)
    }

    /// Every reason with its number.
    pub fn by_reason(&self) -> impl Iterator<Item = (Why, u64)> {
        Why::ALL.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// Numbers that were due within the window, of which only those count that none later exceeds.
#[derive(Debug, Default)]
pub struct History(VecDeque<(Duration, u32)>);

impl History {
    /// Notes a number that is due, or that a person has asked for.
    pub fn note(&mut self, at: Duration, due: u32) {
        while self.0.back().is_some_and(|(_, earlier)| *earlier <= due) {
            self.0.pop_back();
        }
        self.0.push_back((at, due));
    }

    /// The highest number within `window` before `at`.
    fn highest(&mut self, at: Duration, window: Duration) -> u32 {
        while self.0.front().is_some_and(|(then, _)| *then + window < at) {
            self.0.pop_front();
        }
        self.0.front().map_or(0, |(_, highest)| *highest)
    }
}

/// The change that is due now, if any.
pub fn decide(rules: &Rules, history: &mut History, now: Now) -> Option<Step> {
    if now.wanted == 0 {
        return None;
    }
    if rules.zero.is_some_and(|after| now.idle >= after) {
        return Some(Step { to: 0, why: Why::Idle });
    }
    let load = rules.load.as_ref()?;
    let due = (now.load / load.per_replica).ceil().clamp(f64::from(rules.min), f64::from(rules.max)) as u32;
    history.note(now.at, due);
    let highest = history.highest(now.at, load.window);
    match now.wanted {
        wanted if due > wanted => Some(Step { to: due, why: Why::MoreLoad }),
        wanted if highest < wanted => Some(Step { to: highest, why: Why::LessLoad }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Settings;
    use super::*;

    fn rules(labels: &[(&str, &str)]) -> Rules {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(k, v)| (format!("com.openfaas.scale.{k}"), v.to_string())).collect();
        Rules::read(&labels, &BTreeMap::new(), &Settings::default()).unwrap()
    }

    fn now(at: u64, wanted: u32, load: f64, idle: u64) -> Now {
        Now { at: Duration::from_secs(at), wanted, load, idle: Duration::from_secs(idle) }
    }

    /// One look at a function: labels; replicas, load, seconds idle; what is due.
    #[test]
    fn the_decision_table() {
        type Row<'a> = (&'a [(&'a str, &'a str)], (u32, f64, u64), Option<(u32, Why)>);
        let table: &[Row] = &[
            // Nothing said, nothing done, whatever the load.
            (&[], (1, 9999.0, 0), None),
            (&[("min", "2")], (2, 9999.0, 0), None),
            // rps, 50 × 0.9 = 45 a replica.
            (&[("max", "10")], (1, 45.0, 0), None),
            (&[("max", "10")], (1, 45.1, 0), Some((2, Why::MoreLoad))),
            (&[("max", "10")], (1, 225.0, 0), Some((5, Why::MoreLoad))),
            (&[("max", "10")], (1, 1e9, 0), Some((10, Why::MoreLoad))),
            (&[("max", "10")], (10, 1e9, 0), None),
            (&[("max", "10")], (4, 100.0, 0), Some((3, Why::LessLoad))),
            (&[("max", "10")], (4, 0.0, 0), Some((1, Why::LessLoad))),
            (&[("max", "10"), ("min", "3")], (4, 0.0, 0), Some((3, Why::LessLoad))),
            // A person may have asked for more than the most, or less than the least.
            (&[("max", "3")], (7, 0.0, 0), Some((1, Why::LessLoad))),
            (&[("max", "3")], (7, 1e9, 0), Some((3, Why::LessLoad))),
            (&[("max", "9"), ("min", "4")], (2, 0.0, 0), Some((4, Why::MoreLoad))),
            // The other measures differ in the unit only.
            (&[("type", "capacity"), ("target", "10")], (1, 9.0, 0), None),
            (&[("type", "capacity"), ("target", "10")], (1, 10.0, 0), Some((2, Why::MoreLoad))),
            (
                &[("type", "cpu"), ("target", "500"), ("target-proportion", "1")],
                (1, 1600.0, 0),
                Some((4, Why::MoreLoad)),
            ),
            (&[("target", "100"), ("target-proportion", "0.5")], (1, 51.0, 0), Some((2, Why::MoreLoad))),
            // min == max turns load off.
            (&[("min", "2"), ("max", "2")], (2, 1e9, 0), None),
            // To zero by idleness only, and never up from there.
            (&[("zero", "true")], (1, 0.0, 899), None),
            (&[("zero", "true")], (1, 0.0, 900), Some((0, Why::Idle))),
            (&[("zero", "true"), ("zero-duration", "10s")], (3, 0.0, 10), Some((0, Why::Idle))),
            (&[("zero", "true"), ("zero-duration", "10s"), ("min", "2")], (2, 0.0, 11), Some((0, Why::Idle))),
            (&[("zero", "false"), ("zero-duration", "10s")], (1, 0.0, 99), None),
            (&[("zero", "true"), ("max", "5")], (0, 1e9, 9999), None),
            (&[("max", "5")], (0, 0.0, 9999), None),
        ];
        for (labels, (wanted, load, idle), due) in table {
            let step = decide(&rules(labels), &mut History::default(), now(1000, *wanted, *load, *idle));
            assert_eq!(step.map(|s| (s.to, s.why)), *due, "{labels:?} {wanted} {load} {idle}");
        }
    }

    /// Down goes to the highest of the window, and in steps if the load fell in steps.
    #[test]
    fn down_waits_for_the_window() {
        let rules = rules(&[("max", "10"), ("target", "10"), ("target-proportion", "1"), ("down.window", "30s")]);
        let (mut history, mut wanted, mut seen) = (History::default(), 1, Vec::new());
        for second in 0..100 {
            let load = match second {
                0..10 => 5.0,
                10..20 => 75.0,
                20..40 => 35.0,
                // One peak starts the window anew.
                60 => 22.0,
                _ => 1.0,
            };
            if let Some(step) = decide(&rules, &mut history, now(second, wanted, load, 0)) {
                wanted = step.to;
                seen.push((second, step.to));
            }
        }
        assert_eq!(seen, [(10, 8), (50, 4), (70, 3), (91, 1)]);
    }

    #[test]
    fn what_a_person_asked_for_holds_for_a_window() {
        let rules = rules(&[("max", "10")]);
        let mut history = History::default();
        history.note(Duration::from_secs(5), 6);
        assert_eq!(decide(&rules, &mut history, now(60, 6, 0.0, 0)), None);
        assert_eq!(decide(&rules, &mut history, now(66, 6, 0.0, 0)), Some(Step { to: 1, why: Why::LessLoad }));
    }
}
