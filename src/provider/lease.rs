//! [`Replica`]: one running copy of a function as the invoke path sees it, and the [`Lease`] that a request holds on it.
//!
//! ```text
//!             accepts connections        idle, by annotation
//!  Starting ────────────────────> Open <────────────────────> Frozen
//!     │                           │  ^
//!     │                  refuses  v  │ accepts connections
//!     │                         Doubted
//!     └──────────────> Retired <── from any of them, for good
//! ```

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::elastic::{Frozen, Line};
use crate::function::ReplicaName;
use crate::sandbox::Exit;

/// Whether a replica takes requests, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Gate {
    /// It has not accepted a connection yet.
    Starting,
    /// It takes requests.
    Open,
    /// It has refused a connection, and is asked until it accepts one.
    Doubted,
    /// Stopped in place.
    Frozen,
    /// It is being drained and removed.
    Retired,
}

const GATES: [Gate; 5] = [Gate::Starting, Gate::Open, Gate::Doubted, Gate::Frozen, Gate::Retired];

/// One running copy of a function.
#[derive(Debug)]
pub struct Replica {
    /// Its name.
    pub name: ReplicaName,
    /// Where it serves.
    pub address: SocketAddr,
    /// Which revision of the spec it runs.
    pub revision: u64,
    /// When it was started or adopted.
    pub since: Instant,
    /// An earlier daemon has started it. One that ends right away was perhaps not all there when that daemon died.
    pub(super) adopted: AtomicBool,
    /// Most requests at once.
    room: usize,
    /// Where requests of its function wait.
    line: Arc<Line>,
    serial: AtomicU64,
    inflight: AtomicUsize,
    gate: AtomicU8,
    exit: OnceLock<Exit>,
    /// It serves no more: it has ended, or is about to.
    over: watch::Sender<bool>,
    /// Since when it is asked whether it accepts connections.
    asked: Mutex<Instant>,
    /// Set while it is frozen; held while it is being frozen or thawed.
    frozen: Mutex<Option<Frozen>>,
    pub(super) cpu: Mutex<(Instant, Duration)>,
}

/// Never the same twice in this process.
fn next_serial() -> u64 {
    static SERIALS: AtomicU64 = AtomicU64::new(0);
    SERIALS.fetch_add(1, Ordering::Relaxed)
}

impl Replica {
    pub(super) fn new(name: ReplicaName, address: SocketAddr, revision: u64, room: usize, line: Arc<Line>) -> Self {
        Self {
            name,
            address,
            revision,
            since: Instant::now(),
            adopted: AtomicBool::new(false),
            room,
            line,
            serial: AtomicU64::new(next_serial()),
            inflight: AtomicUsize::new(0),
            gate: AtomicU8::new(Gate::Starting as u8),
            exit: OnceLock::new(),
            over: watch::Sender::new(false),
            asked: Mutex::new(Instant::now()),
            frozen: Mutex::default(),
            cpu: Mutex::new((Instant::now(), Duration::ZERO)),
        }
    }

    /// Connections belong to this number. Unlike the address it is never used again, and a replica that was frozen
    /// gets a new one: what was kept open to it before is not trusted.
    pub fn serial(&self) -> u64 {
        self.serial.load(Ordering::Acquire)
    }

    /// Whether it takes requests.
    pub fn is_ready(&self) -> bool {
        self.gate() == Gate::Open && self.exit.get().is_none()
    }

    /// Whether it is stopped in place and can go on.
    pub fn is_frozen(&self) -> bool {
        self.gate() == Gate::Frozen && self.exit.get().is_none()
    }

    /// Whether it takes requests, and if not, why.
    pub fn gate(&self) -> Gate {
        GATES[usize::from(self.gate.load(Ordering::SeqCst))]
    }

    /// Moves it from one state to another; `false` when it was in neither of them.
    pub(super) fn turn(&self, from: &[Gate], to: Gate) -> bool {
        let turned =
            |from: &Gate| self.gate.compare_exchange(*from as u8, to as u8, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        from.iter().any(turned)
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        self.exit.get().copied()
    }

    /// Requests it is serving.
    pub fn inflight(&self) -> usize {
        self.inflight.load(Ordering::SeqCst)
    }

    /// Requests that it can take besides.
    pub(super) fn free(&self) -> usize {
        self.room.saturating_sub(self.inflight())
    }

    /// Since when it is asked whether it accepts connections.
    pub(super) fn asked(&self) -> MutexGuard<'_, Instant> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_exit(&self, exit: Exit) {
        let _ = self.exit.set(exit);
        self.over.send_replace(true);
    }

    /// It accepts connections.
    pub(super) fn set_ready(&self) {
        self.turn(&[Gate::Starting, Gate::Doubted], Gate::Open);
    }

    /// No new request gets it from now on.
    pub(super) fn retire(&self) {
        self.gate.store(Gate::Retired as u8, Ordering::SeqCst);
        self.over.send_replace(true);
    }

    /// Turns true when it serves no more: what is open to it and idle should be closed then.
    pub fn over(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }

    /// What is known of its being frozen; whoever holds it may freeze or thaw it.
    pub(super) fn frozen(&self) -> MutexGuard<'_, Option<Frozen>> {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It goes on after having been frozen.
    pub(super) fn awake(&self) {
        self.serial.store(next_serial(), Ordering::Release);
        self.turn(&[Gate::Frozen], Gate::Open);
    }

    fn enter(&self) -> bool {
        if self.room == usize::MAX {
            self.inflight.fetch_add(1, Ordering::SeqCst);
            return true;
        }
        // Never above the limit, not even for a moment: somebody who sees it full goes to wait, and is woken only
        // by a request that ends.
        let more = |inflight| (inflight < self.room).then_some(inflight + 1);
        self.inflight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }
}

/// A replica held for one request. Dropping it gives it back.
#[derive(Debug)]
pub struct Lease(Arc<Replica>);

/// Why a replica could not be had.
pub(super) enum Refusal {
    /// It serves as many requests as it may.
    Full,
    /// It takes no requests any more.
    Closed,
}

impl Lease {
    pub(super) fn take(replica: &Arc<Replica>) -> Result<Self, Refusal> {
        if !replica.enter() {
            return Err(Refusal::Full);
        }
        let lease = Self(Arc::clone(replica));
        // Counted first, asked second: whoever closes it afterwards sees this request.
        if replica.gate() == Gate::Open { Ok(lease) } else { Err(Refusal::Closed) }
    }

    /// The replica itself.
    pub(super) fn replica(&self) -> &Arc<Replica> {
        &self.0
    }
}

impl std::ops::Deref for Lease {
    type Target = Replica;
    fn deref(&self) -> &Replica {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.inflight.fetch_sub(1, Ordering::SeqCst);
        self.0.line.ring(1);
    }
}
