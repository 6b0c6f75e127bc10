//! The catalog: every function and its replicas, in memory, read without locks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::elastic::{Decisions, Latency, Line, Rules};
use super::lease::{Lease, Refusal, Replica};
use super::timing::Restarts;
use crate::function::{FunctionKey, FunctionSpec};
use crate::image::Image;

/// What a function's spec file holds: the spec, and the image that its reference meant when it was deployed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deployed {
    /// What the user asked for.
    pub spec: FunctionSpec,
    /// What its image was then; a restart uses the same.
    pub image: Image,
}

/// Every function, by its full name `name.namespace`. Readers take a snapshot; writers replace the map.
#[derive(Debug, Default)]
pub struct Catalog {
    functions: ArcSwap<HashMap<String, Arc<Function>>>,
}

impl Catalog {
    /// The function.
    pub fn get(&self, key: &FunctionKey) -> Option<Arc<Function>> {
        self.named(&key.to_string())
    }

    /// The function with this full name.
    pub fn named(&self, full: &str) -> Option<Arc<Function>> {
        self.functions.load().get(full).cloned()
    }

    /// Every function as the map is now.
    pub fn snapshot(&self) -> Arc<HashMap<String, Arc<Function>>> {
        self.functions.load_full()
    }

    /// Every function, sorted by name.
    pub fn all(&self) -> Vec<Arc<Function>> {
        let mut all: Vec<_> = self.functions.load().values().cloned().collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }

    pub(super) fn insert(&self, function: Arc<Function>) {
        self.functions.rcu(|map| {
            let mut map = HashMap::clone(map);
            map.insert(function.key.to_string(), Arc::clone(&function));
            map
        });
    }

    pub(super) fn remove(&self, key: &FunctionKey) {
        self.functions.rcu(|map| {
            let mut map = HashMap::clone(map);
            map.remove(&key.to_string());
            map
        });
    }
}

/// A deployed function.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub key: FunctionKey,
    full: String,
    /// Requests sent to it.
    pub invocations: AtomicU64,
    /// Replicas that ended unasked.
    pub restarts: Restarts,
    /// Requests that wait for a replica of it.
    pub line: Arc<Line>,
    /// How long its answers take.
    pub latency: Latency,
    /// Changes of the number of its replicas that nobody asked for.
    pub decisions: Decisions,
    deployed: ArcSwap<Deployed>,
    rules: ArcSwap<Rules>,
    wanted: AtomicU32,
    shown: ArcSwap<Shown>,
    turn: AtomicUsize,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    /// A request is having it started.
    pub(super) activating: AtomicBool,
    /// How many are changing its replicas just now, or are about to.
    busy: AtomicUsize,
}

/// Somebody changes a function's replicas: until this is dropped, requests wait rather than be turned away.
#[derive(Debug)]
pub(super) struct Busy(Arc<Function>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::SeqCst);
        self.0.publish();
    }
}

/// What the invoke path sees of a function's replicas.
#[derive(Debug, Default)]
struct Shown {
    ready: Vec<Arc<Replica>>,
    frozen: Vec<Arc<Replica>>,
}

/// What supervision knows of a function.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Replicas that count: starting, ready, or exited and not yet seen to.
    pub replicas: Vec<Arc<Replica>>,
    /// Failures in a row; the wait before the next start grows with it.
    pub failures: u32,
    /// No start before this.
    pub not_before: Option<Instant>,
    /// Why the last start failed.
    pub last_failure: Option<String>,
    /// A reconcile is already on its way.
    pub scheduled: bool,
}

impl State {
    /// How long no start is due.
    pub fn backoff(&self) -> Duration {
        self.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()))
    }
}

impl Function {
    pub(super) fn new(deployed: Deployed, rules: Rules) -> Arc<Self> {
        Arc::new(Self {
            key: deployed.spec.key.clone(),
            full: deployed.spec.key.to_string(),
            invocations: AtomicU64::new(0),
            restarts: Restarts::default(),
            line: Arc::default(),
            latency: Latency::default(),
            decisions: Decisions::default(),
            wanted: AtomicU32::new(deployed.spec.replicas),
            deployed: ArcSwap::from_pointee(deployed),
            rules: ArcSwap::from_pointee(rules),
            shown: ArcSwap::default(),
            turn: AtomicUsize::new(0),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            activating: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
        })
    }

    /// Says that its replicas are being changed.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::SeqCst);
        Busy(Arc::clone(self))
    }

    /// Whether its replicas are being changed.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst) > 0
    }

    /// Its name with its namespace, `name.namespace`.
    pub fn full_name(&self) -> &str {
        &self.full
    }

    /// Its spec and image.
    pub fn deployed(&self) -> Arc<Deployed> {
        self.deployed.load_full()
    }

    /// What its labels and annotations say about its replicas.
    pub fn rules(&self) -> Arc<Rules> {
        self.rules.load_full()
    }

    /// Puts another version in place.
    pub(super) fn install(&self, deployed: Deployed, rules: Rules) {
        self.rules.store(Arc::new(rules));
        self.deployed.store(Arc::new(deployed));
    }

    /// How many replicas it should have now: what was asked for, and what calls and load have made of it.
    pub fn wanted(&self) -> u32 {
        self.wanted.load(Ordering::SeqCst)
    }

    /// How many replicas it has when it comes from zero: its least, or what a person has asked for where load
    /// changes nothing.
    pub(super) fn out_of_zero(&self) -> u32 {
        let rules = self.rules();
        match self.deployed().spec.replicas {
            asked @ 1.. if rules.load.is_none() => asked,
            _ => rules.min,
        }
    }

    /// Changes that, and gives the number before. Whoever does it holds the function's lock.
    pub(super) fn want(&self, replicas: u32) -> u32 {
        self.wanted.swap(replicas, Ordering::SeqCst)
    }

    /// How many replicas take requests, or will at once: frozen ones do when a request comes.
    pub fn available(&self) -> usize {
        let shown = self.shown.load();
        shown.ready.len() + shown.frozen.len()
    }

    /// Its replicas that take requests now.
    pub fn ready(&self) -> Vec<Arc<Replica>> {
        self.shown.load().ready.clone()
    }

    /// Its replicas that are stopped in place.
    pub fn frozen(&self) -> Vec<Arc<Replica>> {
        self.shown.load().frozen.clone()
    }

    /// The replica with the fewest requests, if it may have one more.
    pub fn pick(&self) -> Option<Lease> {
        // A replica that closes between being seen and being taken makes one more round, without it.
        loop {
            let shown = self.shown.load();
            let ready = &shown.ready;
            let from = if ready.len() > 1 { self.turn.fetch_add(1, Ordering::Relaxed) % ready.len() } else { 0 };
            let turned = ready[from..].iter().chain(&ready[..from]);
            let least = turned.min_by_key(|replica| replica.inflight())?;
            match Lease::take(least) {
                Ok(lease) => return Some(lease),
                Err(Refusal::Closed) => self.publish(),
                // Full, and just now the least busy: another may have ended a request since.
                Err(Refusal::Full) if ready.iter().any(|replica| replica.free() > 0) => {}
                Err(Refusal::Full) => return None,
            }
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the invoke path which replicas there are, and wakes whoever waits for a change.
    pub(super) fn publish(&self) {
        let state = self.state();
        let those = |which: fn(&Replica) -> bool| state.replicas.iter().filter(|r| which(r)).cloned().collect();
        let shown = Shown { ready: those(Replica::is_ready), frozen: those(Replica::is_frozen) };
        let free = shown.ready.iter().map(|replica| replica.free()).fold(0, usize::saturating_add);
        // Without any, everybody who waits is to find out why.
        let served = if shown.ready.is_empty() { usize::MAX } else { free };
        self.shown.store(Arc::new(shown));
        drop(state);
        self.changed.send_replace(());
        self.line.ring(served);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Every replica that counts: starting and ready ones.
    pub fn replicas(&self) -> Vec<Arc<Replica>> {
        self.state().replicas.clone()
    }

    /// Why no replica is there, if a start failed.
    pub fn last_failure(&self) -> Option<String> {
        self.state().last_failure.clone()
    }
}
