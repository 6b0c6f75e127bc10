//! Frozen replicas: stopped in place when idle, their memory left to the pager, going on when a request comes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::decide::{Step, Why};
use crate::fault::Result;
use crate::provider::{Function, Gate, Provider, Replica};

/// What is known of a replica that is frozen.
#[derive(Debug, Clone, Copy)]
pub struct Frozen {
    /// Since when.
    pub since: Instant,
    /// Bytes of memory that it had then.
    pub bytes: u64,
}

impl Provider {
    /// Freezes a function's replicas, unless a request comes meanwhile.
    pub(super) fn freeze(&self, function: &Function) {
        for replica in function.ready() {
            if let Err(fault) = self.freeze_one(function, &replica) {
                tracing::warn!(replica = %replica.name, %fault, "a replica cannot be frozen");
            }
        }
        self.shrink_frozen();
    }

    fn freeze_one(&self, function: &Function, replica: &Replica) -> Result<()> {
        let mut frozen = replica.frozen();
        if !replica.turn(&[Gate::Open], Gate::Frozen) {
            return Ok(());
        }
        function.publish();
        // A request that was faster is counted by now, and none gets it from here on.
        let stopped = match replica.inflight() {
            0 => self.platform.sandbox.freeze(&replica.name).map(|()| true),
            _ => Ok(false),
        };
        if !matches!(stopped, Ok(true)) {
            replica.turn(&[Gate::Frozen], Gate::Open);
            function.publish();
            return stopped.map(drop);
        }
        let bytes = self.platform.sandbox.usage(&replica.name).map_or(0, |usage| usage.memory);
        *frozen = Some(Frozen { since: Instant::now(), bytes });
        tracing::info!(replica = %replica.name, bytes, "frozen");
        Ok(())
    }

    /// Lets a function's frozen replicas go on.
    pub(in crate::provider) fn thaw(&self, function: &Function) {
        for replica in function.frozen() {
            if let Err(fault) = self.thaw_one(&replica) {
                tracing::error!(replica = %replica.name, %fault, "a frozen replica does not go on; it is replaced");
                let killed = self.platform.sandbox.signal(&replica.name, crate::sandbox::Signal::Kill);
                killed.unwrap_or_else(|fault| tracing::error!(%fault, "and cannot be killed"));
            }
            function.publish();
        }
    }

    /// Lets a replica go on, whatever becomes of it then. Nothing happens to one that is not frozen.
    pub(in crate::provider) fn thaw_one(&self, replica: &Replica) -> Result<()> {
        let mut frozen = replica.frozen();
        if frozen.is_some() {
            self.platform.sandbox.thaw(&replica.name)?;
            *frozen = None;
        }
        replica.awake();
        Ok(())
    }

    /// Bytes that frozen replicas occupy together.
    pub fn frozen_bytes(&self) -> u64 {
        self.frozen_functions().iter().map(|(_, frozen)| frozen.bytes).sum()
    }

    /// Removes what was frozen longest until the rest keeps to the limit.
    fn shrink_frozen(&self) {
        let mut all = self.frozen_functions();
        all.sort_by_key(|(_, frozen)| frozen.since);
        let mut bytes: u64 = all.iter().map(|(_, frozen)| frozen.bytes).sum();
        for (function, frozen) in all {
            if bytes <= self.config.elastic.frozen_bytes {
                return;
            }
            bytes -= frozen.bytes;
            self.remove_frozen(&function);
        }
    }

    /// Removes the function that was frozen longest; `false` when there is none.
    pub(super) fn remove_oldest_frozen(&self) -> bool {
        let oldest = self.frozen_functions().into_iter().min_by_key(|(_, frozen)| frozen.since);
        oldest.map(|(function, _)| self.remove_frozen(&function)).is_some()
    }

    /// Functions of which something is frozen: since when, and all their frozen bytes.
    fn frozen_functions(&self) -> Vec<(Arc<Function>, Frozen)> {
        let whole = |function: &Arc<Function>| {
            let all = function.frozen();
            let known: Vec<Frozen> = all.iter().filter_map(|replica| *replica.frozen()).collect();
            let since = known.iter().map(|frozen| frozen.since).min()?;
            Some((Arc::clone(function), Frozen { since, bytes: known.iter().map(|frozen| frozen.bytes).sum() }))
        };
        self.catalog.snapshot().values().filter_map(whole).collect()
    }

    /// Takes a function's frozen replicas away: it is at zero then, unless others serve.
    fn remove_frozen(&self, function: &Arc<Function>) {
        let lock = self.locks.of(&function.key);
        let _held = lock.hold();
        let frozen = function.frozen().len() as u32;
        let from = function.wanted();
        if frozen == 0 || from == 0 {
            return;
        }
        let _busy = function.busy();
        let step = Step { to: from.saturating_sub(frozen), why: Why::Memory };
        function.want(step.to);
        self.decided(function, from, step);
        self.drop_surplus(function, Duration::MAX);
    }
}
