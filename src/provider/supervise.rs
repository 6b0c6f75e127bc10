//! Keeps as many replicas running as are wanted: readiness, exits, restarts with backoff.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Provider;
use super::catalog::{Deployed, Function, State};
use super::lease::Replica;
use super::timing::Start;
use crate::fault::{Fault, Kind, Result};
use crate::function::FunctionKey;
use crate::sandbox::Exit;

/// Annotation: a replica is ready once this path answers 2xx.
pub const READY_PATH: &str = "com.openfaas.ready.http.path";

/// A replica that lived this long was not a failure to start.
const LIVED: Duration = Duration::from_secs(10);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// The wait before the next start after so many failures in a row.
pub(super) fn backoff(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => FIRST_BACKOFF.saturating_mul(1 << (n - 1).min(20)).min(LONGEST_BACKOFF),
    }
}

/// A replica's first process has ended: it serves no more, and its function is looked after.
pub(super) fn exited(provider: &Weak<Provider>, function: &Arc<Function>, replica: &Arc<Replica>, exit: Exit) {
    let Some(provider) = provider.upgrade() else { return };
    provider.logs.note(&replica.name, &format!("replica {} {exit}", replica.name.id()));
    tracing::info!(replica = %replica.name, %exit, "a replica ended");
    // Before it counts as ended: whoever waits is not turned away until the function has been looked after.
    let busy = function.busy();
    replica.set_exit(exit);
    function.publish();
    provider.enforce_soon();
    // One that is being retired is in no state; reconciling then finds nothing to do.
    provider.look_after(function);
    drop(busy);
}

impl Provider {
    /// Reconciles a function in the background, now.
    pub(super) fn look_after(&self, function: &Arc<Function>) {
        let (provider, key, busy) = (self.me(), function.key.clone(), function.busy());
        self.background.spawn_blocking(move || {
            provider.reconcile(&key);
            drop(busy);
        });
    }

    /// Reconciles a function in the background, after `delay`.
    fn reconcile_soon(&self, key: &FunctionKey, delay: Duration) {
        let (provider, key) = (self.me(), key.clone());
        self.background.spawn(async move {
            tokio::time::sleep(delay).await;
            tokio::task::spawn_blocking(move || provider.reconcile(&key));
        });
    }

    /// Removes what ended and starts what is missing, unless it is too soon.
    pub(super) fn reconcile(&self, key: &FunctionKey) {
        let lock = self.locks.of(key);
        let _held = lock.hold();
        if self.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Some(function) = self.catalog.get(key) else { return };
        let _busy = function.busy();
        self.bury(&function);
        let wait = {
            let mut state = function.state();
            state.scheduled = false;
            let missing = (function.wanted() as usize).saturating_sub(state.replicas.len());
            (missing > 0).then(|| state.backoff())
        };
        match wait {
            None => {}
            Some(Duration::ZERO) => {
                // Failures are remembered in the state, which sets the next try.
                let _ = self.start_missing(&function);
            }
            Some(wait) => self.try_again(&function, wait),
        }
    }

    fn try_again(&self, function: &Function, wait: Duration) {
        let mut state = function.state();
        if !std::mem::replace(&mut state.scheduled, true) {
            self.reconcile_soon(&function.key, wait);
        }
    }

    /// Takes replicas that ended out of the state, and away.
    fn bury(&self, function: &Function) {
        let dead: Vec<Arc<Replica>> = {
            let mut state = function.state();
            let (dead, live) = std::mem::take(&mut state.replicas).into_iter().partition(|r| r.exit().is_some());
            state.replicas = live;
            for replica in &dead {
                let replica: &Arc<Replica> = replica;
                function.restarts.count(replica.exit().unwrap_or(Exit::Unknown));
                let lived = replica.since.elapsed() >= LIVED || replica.adopted.load(Ordering::Relaxed);
                note_failure(&mut state, lived, self.ended_early(replica).to_string());
            }
            dead
        };
        for replica in dead {
            self.discard_or_say(&replica.name);
        }
    }

    /// Starts as many replicas as are missing, side by side. The caller holds the function's lock.
    pub(super) fn start_missing(&self, function: &Arc<Function>) -> Result<()> {
        let deployed = function.deployed();
        let missing = (function.wanted() as usize).saturating_sub(function.state().replicas.len());
        if missing == 0 {
            return Ok(());
        }
        let (started, failed) = self.start_many(function, &deployed, missing);
        function.state().replicas.extend(started);
        function.publish();
        self.enforce_soon();
        let Some(fault) = failed else {
            return Ok(());
        };
        tracing::error!(function = %function.key, %fault, "a replica did not start");
        let wait = {
            let mut state = function.state();
            note_failure(&mut state, false, fault.to_string());
            backoff(state.failures)
        };
        self.try_again(function, wait);
        Err(fault)
    }

    /// Starts `count` replicas side by side: those that started, and the first failure.
    pub(super) fn start_many(
        &self,
        function: &Arc<Function>,
        deployed: &Deployed,
        count: usize,
    ) -> (Vec<Arc<Replica>>, Option<Fault>) {
        if self.stopping.load(Ordering::SeqCst) && count > 0 {
            return (Vec::new(), Some(Fault::new(Kind::Busy, "faas-jails is being stopped and starts no replica")));
        }
        let (mut started, mut failed) = (Vec::new(), None);
        let mut collect = |result| match result {
            Ok(replica) => started.push(replica),
            Err(fault) => failed = failed.take().or(Some(fault)),
        };
        let at_once = self.config.elastic.starts.max(1);
        let mut left = count;
        while left > 0 {
            let batch = left.min(at_once);
            left -= batch;
            if batch == 1 {
                collect(self.start_replica(function, deployed));
                continue;
            }
            std::thread::scope(|scope| {
                let start = || self.start_replica(function, deployed);
                let threads: Vec<_> = (0..batch).map(|_| scope.spawn(start)).collect();
                for thread in threads {
                    let panicked = |_| Err(Fault::new(Kind::System, "starting a replica panicked"));
                    collect(thread.join().unwrap_or_else(panicked));
                }
            });
        }
        (started, failed)
    }

    /// Waits until `count` of these replicas are ready, one has ended, or time is up. `Ok(false)`: time is up.
    pub(super) fn wait_ready(
        &self,
        function: &Function,
        replicas: &[Arc<Replica>],
        count: usize,
        at_most: Duration,
    ) -> Result<bool> {
        let deadline = Instant::now() + at_most;
        let mut changes = function.subscribe();
        loop {
            if let Some(dead) = replicas.iter().find(|r| r.exit().is_some()) {
                return Err(self.ended_early(dead));
            }
            if replicas.iter().filter(|r| r.is_ready()).count() >= count {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let _ = self.background.block_on(async { tokio::time::timeout(left, changes.changed()).await });
        }
    }

    /// Asks a replica, more and more rarely, whether it accepts requests, until it does or ends.
    /// `start` is the start that this ends, if it is one.
    pub(super) fn probe_until_ready(
        &self,
        function: &Arc<Function>,
        replica: &Arc<Replica>,
        deployed: &Deployed,
        mut start: Option<Start>,
    ) {
        let (function, replica, logs) = (Arc::clone(function), Arc::clone(replica), Arc::clone(&self.logs));
        let provider = self.me.clone();
        let path = deployed.spec.annotations.get(READY_PATH).cloned();
        let patience = self.config.ready_wait;
        self.background.spawn(async move {
            let (begun, mut pause, mut told) = (Instant::now(), Duration::from_micros(500), false);
            while replica.exit().is_none() {
                if is_ready(replica.address, path.as_deref()).await {
                    replica.set_ready();
                    function.state().last_failure = None;
                    function.publish();
                    start.take().into_iter().for_each(Start::ready);
                    if let Some(provider) = provider.upgrade() {
                        provider.enforce_soon();
                    }
                    return;
                }
                if begun.elapsed() > patience && !std::mem::replace(&mut told, true) {
                    let asked =
                        path.as_deref().map_or("accept connections".to_owned(), |p| format!("answer {p} with 2xx"));
                    let text = format!(
                        "replica {} does not {asked} on {} after {}s; it gets no requests until it does",
                        replica.name.id(),
                        replica.address,
                        patience.as_secs()
                    );
                    logs.note(&replica.name, &text);
                    function.publish();
                }
                tokio::time::sleep(pause).await;
                let longest = Duration::from_millis(if told { 1000 } else { 50 });
                pause = (pause * 3 / 2).min(longest);
            }
        });
    }
}

/// One that had lived is replaced at once; those that fail to start are waited for, longer and longer.
fn note_failure(state: &mut State, lived: bool, why: String) {
    state.failures = if lived { 0 } else { state.failures.saturating_add(1) };
    state.not_before = Some(Instant::now() + backoff(state.failures));
    state.last_failure = Some(why);
}

/// One question: does it accept a connection, and if there is a path, does that answer 2xx.
async fn is_ready(address: SocketAddr, path: Option<&str>) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let Some(path) = path else { return Ok(true) };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut line = [0; 12];
        stream.read_exact(&mut line).await?;
        Ok::<bool, std::io::Error>(line.starts_with(b"HTTP/1.") && line[9] == b'2')
    };
    match tokio::time::timeout(Duration::from_secs(1), ask).await {
        Ok(Ok(ready)) => ready,
        Ok(Err(error)) => {
            debug_assert!(error.kind() != ErrorKind::InvalidInput, "{error}");
            false
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_and_ends_at_half_a_minute() {
        let millis: Vec<u128> = [0, 1, 2, 3, 9, 10, 1000].map(|n| backoff(n).as_millis()).into();
        assert_eq!(millis, [0, 100, 200, 400, 25_600, 30_000, 30_000]);
    }
}
