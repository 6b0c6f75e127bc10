//! The catalog: every function and its replicas, in memory, read without locks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::timing::Restarts;
use crate::function::{FunctionKey, FunctionSpec, ReplicaName};
use crate::image::Image;
use crate::sandbox::Exit;

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
    pub(super) deployed: ArcSwap<Deployed>,
    ready: ArcSwap<Vec<Arc<Replica>>>,
    turn: AtomicUsize,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    pub(super) activating: AtomicBool,
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

/// One running copy of a function.
#[derive(Debug)]
pub struct Replica {
    /// Its name.
    pub name: ReplicaName,
    /// Unlike its address, never used again in this process.
    pub serial: u64,
    /// Where it serves.
    pub address: SocketAddr,
    /// Which revision of the spec it runs.
    pub revision: u64,
    /// When it was started or adopted.
    pub since: Instant,
    /// Requests it is serving.
    inflight: AtomicUsize,
    retired: AtomicBool,
    ready: AtomicBool,
    exit: OnceLock<Exit>,
    pub(super) cpu: Mutex<(Instant, Duration)>,
}

impl Replica {
    pub(super) fn new(name: ReplicaName, address: SocketAddr, revision: u64) -> Self {
        static SERIALS: AtomicU64 = AtomicU64::new(0);
        Self {
            name,
            serial: SERIALS.fetch_add(1, Ordering::Relaxed),
            address,
            revision,
            since: Instant::now(),
            inflight: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            exit: OnceLock::new(),
            cpu: Mutex::new((Instant::now(), Duration::ZERO)),
        }
    }

    /// Whether it takes requests.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && self.exit.get().is_none() && !self.retired.load(Ordering::Acquire)
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        self.exit.get().copied()
    }

    /// Requests it is serving.
    pub fn inflight(&self) -> usize {
        self.inflight.load(Ordering::Acquire)
    }

    pub(super) fn set_exit(&self, exit: Exit) {
        let _ = self.exit.set(exit);
    }

    pub(super) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// No new request gets it from now on.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::SeqCst);
    }
}

/// A replica held for one request. Dropping it gives it back.
#[derive(Debug)]
pub struct Lease(Arc<Replica>);

impl Lease {
    fn take(replica: &Arc<Replica>) -> Option<Self> {
        replica.inflight.fetch_add(1, Ordering::SeqCst);
        let lease = Self(Arc::clone(replica));
        // Counted first, asked second: whoever retires it afterwards waits for this request.
        (!replica.retired.load(Ordering::SeqCst)).then_some(lease)
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
    }
}

impl Function {
    pub(super) fn new(deployed: Deployed) -> Arc<Self> {
        Arc::new(Self {
            key: deployed.spec.key.clone(),
            full: deployed.spec.key.to_string(),
            invocations: AtomicU64::new(0),
            restarts: Restarts::default(),
            deployed: ArcSwap::from_pointee(deployed),
            ready: ArcSwap::default(),
            turn: AtomicUsize::new(0),
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            activating: AtomicBool::new(false),
        })
    }

    /// Its name with its namespace, `name.namespace`.
    pub fn full_name(&self) -> &str {
        &self.full
    }

    /// Its spec and image.
    pub fn deployed(&self) -> Arc<Deployed> {
        self.deployed.load_full()
    }

    /// How many replicas take requests.
    pub fn available(&self) -> usize {
        self.ready.load().len()
    }

    /// Its replicas that take requests.
    pub fn ready(&self) -> Arc<Vec<Arc<Replica>>> {
        self.ready.load_full()
    }

    /// The replica with the fewest requests, but not `except`.
    pub fn pick(&self, except: Option<&Replica>) -> Option<Lease> {
        // A replica that retires between being seen and being taken makes one more round; there are as many
        // rounds as replicas at most, since none comes back.
        loop {
            let ready = self.ready.load();
            let from = if ready.len() > 1 { self.turn.fetch_add(1, Ordering::Relaxed) % ready.len() } else { 0 };
            let turned = ready[from..].iter().chain(&ready[..from]);
            let allowed = turned.filter(|r| except.is_none_or(|e| e.name != r.name));
            let least = allowed.min_by_key(|r| r.inflight.load(Ordering::Relaxed))?;
            if let Some(lease) = Lease::take(least) {
                return Some(lease);
            }
            self.publish();
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the invoke path which replicas are ready, and wakes whoever waits for a change.
    pub(super) fn publish(&self) {
        let state = self.state();
        self.ready.store(Arc::new(state.replicas.iter().filter(|r| r.is_ready()).cloned().collect()));
        drop(state);
        self.changed.send_replace(());
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
