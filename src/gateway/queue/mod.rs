//! Calls that are answered before they are made: a durable queue and those who deliver from it.
//!
//! ```text
//!  POST /async-function ─> accept ─> writer ─> segment file, synced ─> 202
//!                                      │
//!                            line of the function, by time ─> delivery ─> callback ─> done
//!                                      ^                          │
//!                                      └──── tried, later again ──┘
//! ```
//!
//! Every call that was answered 202 is delivered at least once, whatever happens to this process: it is on the disk
//! before the answer, and counts as done only afterwards. Bodies stay on the disk until they are delivered.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use super::config;
use crate::fault::{Fault, Kind, Result};

mod callback;
mod deliver;
mod log;
mod record;
mod retry;
mod writer;

pub use callback::Target;
use log::Place;
pub use record::Call;
use record::Tried;
use writer::Writer;

/// A call on the disk that waits for its time or is being delivered.
#[derive(Debug, Clone, Copy)]
struct Ticket {
    sequence: u64,
    place: Place,
    attempts: u32,
}

/// One function's calls.
#[derive(Default)]
struct Line {
    /// By the time at which they are due, then in the order they came.
    waiting: BTreeMap<(Instant, u64), Ticket>,
    delivering: usize,
}

#[derive(Default)]
struct State {
    lines: HashMap<String, Line>,
    calls: usize,
    bytes: u64,
    closed: bool,
}

/// How many calls of a function there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Those that wait.
    pub waiting: usize,
    /// Those that are being delivered.
    pub delivering: usize,
}

/// The queue.
pub struct Queue {
    settings: config::Queue,
    dir: PathBuf,
    writer: Writer,
    state: Mutex<State>,
    sequence: AtomicU64,
    /// Something may be due, or has ended.
    changed: Notify,
}

/// What is to be done next.
enum Next {
    Deliver(String, Ticket),
    Wait(Option<Instant>),
    /// Closed, and nothing is under way.
    End,
}

impl Queue {
    /// Opens the queue in `dir` with what earlier processes left there.
    pub fn open(dir: &Path, settings: config::Queue) -> Result<Self> {
        let (writer, left) = Writer::start(dir)?;
        let mut state = State::default();
        let mut last = 0;
        if !left.is_empty() {
            tracing::info!(calls = left.len(), "calls in the queue that an earlier run accepted are delivered now");
        }
        let now = Instant::now();
        for left in left {
            let sequence = left.call.sequence;
            last = last.max(sequence);
            state.calls += 1;
            state.bytes += left.place.length;
            let ticket = Ticket { sequence, place: left.place, attempts: left.attempts };
            state.lines.entry(left.call.function).or_default().waiting.insert((now, sequence), ticket);
        }
        Ok(Self {
            settings,
            dir: dir.to_owned(),
            writer,
            state: Mutex::new(state),
            sequence: AtomicU64::new(last),
            changed: Notify::new(),
        })
    }

    /// Most bytes that a call's body may have.
    pub fn body_max(&self) -> usize {
        self.settings.body
    }

    /// Takes a call; returns when it is on the disk. `Busy` when the queue is full, `Exhausted` when the disk refuses.
    pub async fn accept(self: &Arc<Self>, call: Call, body: Bytes) -> Result<()> {
        let room = (body.len() + call.path.len()) as u64;
        self.reserve(room)?;
        let queue = Arc::clone(self);
        // A task of its own: a caller that goes away must not leave a call on the disk that nobody delivers.
        let kept = actix_web::rt::spawn(async move { queue.keep(call, &body, room).await });
        kept.await.unwrap_or_else(|e| Err(Fault::new(Kind::System, format!("the queue stopped: {e}"))))
    }

    async fn keep(&self, mut call: Call, body: &[u8], room: u64) -> Result<()> {
        call.sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let (function, sequence) = (call.function.clone(), call.sequence);
        let written = self.writer.accept(call, body).await;
        let mut state = self.state();
        state.bytes -= room;
        let place = written.inspect_err(|_| state.calls -= 1)?;
        state.bytes += place.length;
        let ticket = Ticket { sequence, place, attempts: 0 };
        state.lines.entry(function).or_default().waiting.insert((Instant::now(), sequence), ticket);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    fn reserve(&self, room: u64) -> Result<()> {
        let mut state = self.state();
        if state.closed {
            return Err(Fault::new(Kind::Exhausted, "the queue takes no calls any more: this program is stopping"));
        }
        if state.calls >= self.settings.calls || state.bytes.saturating_add(room) > self.settings.bytes {
            return Err(Fault::new(
                Kind::Busy,
                format!(
                    "the queue is full ({} calls, {} bytes); later again, or raise calls and bytes in [gateway.queue]",
                    state.calls, state.bytes
                ),
            ));
        }
        state.calls += 1;
        state.bytes += room;
        Ok(())
    }

    /// How many calls each function has in the queue; functions without any are left out.
    pub fn depths(&self) -> BTreeMap<String, Depth> {
        let depth = |line: &Line| Depth { waiting: line.waiting.len(), delivering: line.delivering };
        self.state().lines.iter().map(|(name, line)| (name.clone(), depth(line))).collect()
    }

    /// Bytes of all calls in the queue.
    pub fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// Takes no calls any more and begins no delivery.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }

    /// Writes down what is to be written. What is being delivered then is delivered again by the next process.
    pub fn stop(&self) {
        self.close();
        self.writer.stop();
    }

    fn next(&self) -> Next {
        let now = Instant::now();
        let mut state = self.state();
        if state.closed {
            return match state.lines.values().all(|line| line.delivering == 0) {
                true => Next::End,
                false => Next::Wait(None),
            };
        }
        let mut first: Option<Instant> = None;
        for (name, line) in &mut state.lines {
            let Some(((due, _), _)) = line.waiting.first_key_value() else { continue };
            if line.delivering >= self.settings.max_inflight {
                continue;
            }
            if *due <= now {
                let (_, ticket) = line.waiting.pop_first().expect("looked at just now");
                line.delivering += 1;
                return Next::Deliver(name.clone(), ticket);
            }
            first = Some(first.map_or(*due, |first| first.min(*due)));
        }
        Next::Wait(first)
    }

    /// A delivery in vain: the call waits again.
    fn again(&self, function: &str, mut ticket: Ticket, pause: Duration) {
        ticket.attempts += 1;
        self.writer.tried(Tried { sequence: ticket.sequence, attempts: ticket.attempts });
        let mut state = self.state();
        let line = state.lines.entry(function.to_owned()).or_default();
        line.delivering -= 1;
        line.waiting.insert((Instant::now() + pause, ticket.sequence), ticket);
        drop(state);
        self.changed.notify_one();
    }

    /// A call that needs nothing more.
    fn done(&self, function: &str, ticket: Ticket) {
        self.writer.done(ticket.sequence);
        let mut state = self.state();
        state.calls -= 1;
        state.bytes -= ticket.place.length;
        if let Some(line) = state.lines.get_mut(function) {
            line.delivering -= 1;
            if line.delivering == 0 && line.waiting.is_empty() {
                state.lines.remove(function);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Delivers what is due until the queue is closed and what was under way has ended. Runs on the caller's thread.
pub async fn deliver_all(gateway: Arc<super::Gateway>, shared: crate::api::Shared) {
    loop {
        let queue = &gateway.queue;
        let changed = queue.changed.notified();
        match queue.next() {
            Next::Deliver(function, ticket) => {
                actix_web::rt::spawn(deliver::deliver(Arc::clone(&gateway), shared.clone(), function, ticket));
            }
            Next::Wait(Some(due)) => drop(tokio::time::timeout_at(due.into(), changed).await),
            Next::Wait(None) => changed.await,
            Next::End => return,
        }
    }
}
