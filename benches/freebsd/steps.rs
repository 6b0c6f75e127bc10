//! How long each step of a start takes: the program marks them as spans, and this listens.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

static TAKEN: Mutex<BTreeMap<&'static str, Duration>> = Mutex::new(BTreeMap::new());

/// From now on spans are timed.
pub fn listen() {
    tracing::subscriber::set_global_default(Registry::default().with(Timer)).expect("nobody else listens");
}

/// Times `act` as a step of its own.
pub fn step<T>(name: &'static str, act: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = act();
    add(name, begun.elapsed());
    result
}

/// What the steps took since the last time somebody asked.
pub fn taken() -> BTreeMap<&'static str, Duration> {
    std::mem::take(&mut TAKEN.lock().unwrap_or_else(PoisonError::into_inner))
}

fn add(name: &'static str, time: Duration) {
    *TAKEN.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += time;
}

struct Timer;

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Timer {
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Instant::now());
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        if let Some(span) = context.span(&id)
            && let Some(begun) = span.extensions().get::<Instant>()
        {
            add(span.name(), begun.elapsed());
        }
    }
}
