//! The loop: looks at every function once a second, decides, and has it done in the background.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::decide::{Step, decide};
use super::rules::Measure;
use super::track::Track;
use crate::fault::{Context, Result};
use crate::function::FunctionKey;
use crate::provider::{Function, Provider};

/// Between two decisions.
const SECOND: Duration = Duration::from_secs(1);
/// Between two looks at the number of requests under way.
const SAMPLE: Duration = Duration::from_millis(100);

/// Starts the loop. It ends by itself once the provider is gone.
pub(in crate::provider) fn start(provider: &Arc<Provider>) -> Result<()> {
    let provider = Arc::downgrade(provider);
    let thread = std::thread::Builder::new().name("elastic".into());
    thread.spawn(move || run(&provider)).context(|| "cannot start the thread that decides about replicas")?;
    Ok(())
}

fn run(provider: &Weak<Provider>) {
    let mut pulse = Pulse { begun: Instant::now(), watched: HashMap::new() };
    let mut next = SECOND;
    loop {
        let pause = next.saturating_sub(pulse.begun.elapsed());
        std::thread::sleep(if pulse.samples() { pause.min(SAMPLE) } else { pause });
        let Some(provider) = provider.upgrade() else { return };
        if pulse.begun.elapsed() < next {
            pulse.sample();
            continue;
        }
        pulse.beat(&provider);
        // Not in the past, should this machine have slept.
        next = (next + SECOND).max(pulse.begun.elapsed() + SECOND / 2);
    }
}

struct Pulse {
    begun: Instant,
    watched: HashMap<FunctionKey, Watched>,
}

struct Watched {
    function: Arc<Function>,
    track: Track,
    /// Whether requests under way are its load.
    sampled: bool,
    /// A change is being made.
    acting: Arc<AtomicBool>,
}

impl Pulse {
    fn samples(&self) -> bool {
        self.watched.values().any(|watched| watched.sampled)
    }

    fn sample(&mut self) {
        for watched in self.watched.values_mut().filter(|watched| watched.sampled) {
            watched.track.sample(&watched.function);
        }
    }

    fn beat(&mut self, provider: &Arc<Provider>) {
        let at = self.begun.elapsed();
        provider.keep_reserve();
        let functions = provider.catalog.snapshot();
        self.watched.retain(|key, watched| {
            functions.get(&key.to_string()).is_some_and(|function| Arc::ptr_eq(function, &watched.function))
        });
        for function in functions.values() {
            let rules = function.rules();
            if function.wanted() == 0 || (rules.load.is_none() && rules.zero.is_none() && rules.freeze.is_none()) {
                self.watched.remove(&function.key);
                continue;
            }
            let watched = self.watched.entry(function.key.clone()).or_insert_with(|| Watched {
                function: Arc::clone(function),
                track: Track::new(at, function),
                sampled: false,
                acting: Arc::default(),
            });
            watched.sampled = rules.load.as_ref().is_some_and(|load| load.measure == Measure::Capacity);
            watched.beat(at, provider);
        }
    }
}

impl Watched {
    fn beat(&mut self, at: Duration, provider: &Arc<Provider>) {
        let now = self.track.look(at, provider, &self.function);
        if self.acting.load(Ordering::SeqCst) {
            return;
        }
        let rules = self.function.rules();
        if let Some(step) = decide(&rules, &mut self.track.history, now) {
            self.track.changed(step.to);
            self.act(provider, move |provider, function| provider.resize(function, now.wanted, step));
        } else if rules.freeze.is_some_and(|after| now.idle >= after) && !self.function.ready().is_empty() {
            self.act(provider, |provider, function| provider.freeze(function));
        }
    }

    /// Has something done that takes longer than a beat may.
    fn act(&self, provider: &Arc<Provider>, work: impl FnOnce(&Provider, &Arc<Function>) + Send + 'static) {
        let (provider, function, acting) = (Arc::clone(provider), Arc::clone(&self.function), Arc::clone(&self.acting));
        acting.store(true, Ordering::SeqCst);
        provider.background.clone().spawn_blocking(move || {
            work(&provider, &function);
            acting.store(false, Ordering::SeqCst);
        });
    }
}

impl Provider {
    /// Makes a change that was decided when `from` replicas were wanted; if that has changed meanwhile, or a
    /// function that was idle is not any more, nothing happens.
    fn resize(&self, function: &Arc<Function>, from: u32, step: Step) {
        let lock = self.locks.of(&function.key);
        let _held = lock.hold();
        let here = self.catalog.get(&function.key).is_some_and(|known| Arc::ptr_eq(&known, function));
        let busy = step.to == 0 && super::track::under_way(function) > 0;
        if !here || busy || function.wanted() != from || self.stopping.load(Ordering::SeqCst) {
            return;
        }
        let _busy = function.busy();
        function.want(step.to);
        self.decided(function, from, step);
        if step.to > from {
            // A failure is in the function's state and log, and is tried again.
            let _ = self.start_missing(function);
        } else {
            self.drop_surplus(function, Duration::MAX);
        }
    }

    /// Tells of a decision: a line in the log, and a count.
    pub(in crate::provider) fn decided(&self, function: &Function, from: u32, step: Step) {
        tracing::info!(function = %function.key, from, to = step.to, why = %step.why, "replicas");
        function.decisions.count(step.why);
    }
}
