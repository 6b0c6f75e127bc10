//! [`Track`]: what the loop remembers of one function from one second to the next.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::decide::{History, Now};
use super::rules::Measure;
use crate::function::ReplicaName;
use crate::provider::{Function, Provider};

/// Rates are means over so many seconds: a single second says little of a few requests.
const SECONDS: usize = 3;

/// What is remembered of one function.
#[derive(Debug)]
pub struct Track {
    /// What was due.
    pub history: History,
    /// When it was last seen to have something to do.
    active: Duration,
    invocations: u64,
    wanted: u32,
    /// Requests under way, seen several times a second.
    samples: Vec<usize>,
    /// Requests, or milliseconds of processor time, of the last seconds.
    amounts: VecDeque<(Duration, f64)>,
    cpu: HashMap<ReplicaName, Duration>,
    looked: Duration,
}

/// Requests that a function is serving or that wait for it.
pub fn under_way(function: &Function) -> usize {
    let serving: usize = function.replicas().iter().map(|replica| replica.inflight()).sum();
    serving + function.line.len()
}

impl Track {
    /// Of a function seen for the first time.
    pub fn new(at: Duration, function: &Function) -> Self {
        Self {
            history: History::default(),
            active: at,
            invocations: function.invocations.load(Ordering::Relaxed),
            wanted: 0,
            samples: Vec::new(),
            amounts: VecDeque::new(),
            cpu: HashMap::new(),
            looked: at,
        }
    }

    /// Notes how many requests are under way.
    pub fn sample(&mut self, function: &Function) {
        self.samples.push(under_way(function));
    }

    /// What is known of the function now, for a decision.
    pub fn look(&mut self, at: Duration, provider: &Provider, function: &Function) -> Now {
        let invocations = function.invocations.load(Ordering::Relaxed);
        let came = invocations - self.invocations;
        self.invocations = invocations;
        let wanted = function.wanted();
        if wanted != self.wanted {
            // Somebody else has changed it: a person, a deploy, a call at zero.
            self.history.note(at, wanted);
            self.wanted = wanted;
            self.active = at;
        }
        if came > 0 || under_way(function) > 0 {
            self.active = at;
        }
        let load = match function.rules().load.as_ref().map(|load| load.measure) {
            None => 0.0,
            Some(Measure::Capacity) => self.mean_sample(function),
            Some(Measure::Rps) => self.rate(at, came as f64),
            Some(Measure::Cpu) => {
                let used = self.used(provider, function);
                self.rate(at, used)
            }
        };
        self.looked = at;
        Now { at, wanted, load, idle: at.saturating_sub(self.active) }
    }

    /// A change of its own is no surprise the next time.
    pub fn changed(&mut self, wanted: u32) {
        self.wanted = wanted;
    }

    fn mean_sample(&mut self, function: &Function) -> f64 {
        self.sample(function);
        let samples = std::mem::take(&mut self.samples);
        samples.iter().sum::<usize>() as f64 / samples.len() as f64
    }

    /// The amount a second, over the last few.
    fn rate(&mut self, at: Duration, amount: f64) -> f64 {
        self.amounts.push_back((at.saturating_sub(self.looked), amount));
        if self.amounts.len() > SECONDS {
            self.amounts.pop_front();
        }
        let (time, sum) = self.amounts.iter().fold((Duration::ZERO, 0.0), |(t, s), (dt, a)| (t + *dt, s + a));
        if time.is_zero() { 0.0 } else { sum / time.as_secs_f64() }
    }

    /// Milliseconds of processor time that its replicas have used since the last look.
    fn used(&mut self, provider: &Provider, function: &Function) -> f64 {
        let usage = |name: &ReplicaName| provider.platform.sandbox.usage(name).ok().map(|usage| usage.cpu);
        let now: HashMap<ReplicaName, Duration> =
            function.replicas().iter().filter_map(|r| Some((r.name.clone(), usage(&r.name)?))).collect();
        let since = |(name, cpu): (&ReplicaName, &Duration)| {
            cpu.saturating_sub(self.cpu.get(name).copied().unwrap_or_default()).as_secs_f64() * 1e3
        };
        let used = now.iter().map(since).sum();
        self.cpu = now;
        used
    }
}
