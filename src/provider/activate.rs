//! A replica for a request: at once when one is free, otherwise after waiting in the function's line, which is also
//! what starts a function at zero. However many wait, one start happens.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Provider;
use super::catalog::Function;
use super::elastic::{Step, Why};
use super::lease::{Gate, Lease, Replica};
use crate::fault::{Fault, Kind, Result};
use crate::function::FunctionKey;

/// Why a request got no replica.
#[derive(Debug)]
pub enum Unserved {
    /// The function has been deleted.
    Gone(Fault),
    /// As many requests as may be are waiting already.
    Full(Fault),
    /// None became free in time, or none can be started now.
    Nobody {
        /// What happened.
        fault: Fault,
        /// When it is worth trying again.
        retry_after: Duration,
    },
}

/// What a request that waits may hope for.
enum Outlook {
    /// A replica becomes free or ready, or the function is looked after; then the line is rung.
    Hope,
    /// Nothing that it does would bring a replica now.
    None(Unserved),
}

impl Provider {
    /// A replica for one request, if one is free and nobody has waited longer. Takes no lock.
    pub fn lease_now(&self, function: &Function) -> Option<Lease> {
        function.line.is_empty().then(|| function.pick()).flatten()
    }

    /// A replica for one request, waited for in line for at most `ready_wait`.
    pub async fn lease(self: &Arc<Self>, function: &Arc<Function>) -> Result<Lease, Unserved> {
        let begun = Instant::now();
        let waited = self.wait_in_line(function, begun + self.config.ready_wait).await;
        let outcome = match &waited {
            Ok(_) => "served",
            Err(Unserved::Gone(_)) => "deleted",
            Err(_) => "refused",
        };
        self.waits.ended(outcome, begun.elapsed());
        waited
    }

    async fn wait_in_line(self: &Arc<Self>, function: &Arc<Function>, deadline: Instant) -> Result<Lease, Unserved> {
        let most = self.config.elastic.queue;
        let Some(place) = function.line.join(most) else {
            let text = format!("{most} requests wait for a replica of {} already; try again later", function.key);
            return Err(Unserved::Full(Fault::new(Kind::Exhausted, text)));
        };
        let mut rung = place.is_first() || function.rules().max_inflight == usize::MAX;
        loop {
            if let Some(lease) = rung.then(|| function.pick()).flatten() {
                return Ok(lease);
            }
            if self.catalog.get(&function.key).is_none() {
                return Err(Unserved::Gone(Fault::not_found(format!("function {} does not exist", function.key))));
            }
            if let Outlook::None(why) = self.outlook(function) {
                return Err(why);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, place.rung()).await.is_err() {
                return Err(self.nobody(function, Duration::from_secs(1)));
            }
            rung = true;
        }
    }

    /// Sees to it that something comes of the waiting, or says why nothing will.
    fn outlook(self: &Arc<Self>, function: &Arc<Function>) -> Outlook {
        if !function.frozen().is_empty() {
            self.bring(function, |provider, function| provider.thaw(function));
            return Outlook::Hope;
        }
        // In this order: what ends first is asked first, so that nothing is missed in between.
        if function.is_busy() || self.may_become_ready(function) {
            return Outlook::Hope;
        }
        let (wait, scheduled) = {
            let state = function.state();
            (state.backoff(), state.scheduled)
        };
        match (function.wanted(), wait) {
            (0, Duration::ZERO) => {
                self.bring(function, |provider, function| {
                    if let Err(fault) = provider.wake(&function.key) {
                        tracing::error!(function = %function.key, %fault, "a function at zero cannot be started");
                    }
                });
                Outlook::Hope
            }
            (1.., Duration::ZERO) if scheduled => Outlook::Hope,
            _ => Outlook::None(self.nobody(function, wait)),
        }
    }

    /// Has something done that brings a replica, unless that is under way already.
    fn bring(self: &Arc<Self>, function: &Arc<Function>, work: fn(&Self, &Function)) {
        if function.activating.swap(true, Ordering::SeqCst) {
            return;
        }
        let (provider, function, busy) = (Arc::clone(self), Arc::clone(function), function.busy());
        self.background.spawn_blocking(move || {
            work(&provider, &function);
            function.activating.store(false, Ordering::SeqCst);
            drop(busy);
        });
    }

    /// Starts a function that is at zero, unless it has failed to just now. Nothing is written down: see [`super::elastic`].
    fn wake(&self, key: &FunctionKey) -> Result<()> {
        let lock = self.locks.of(key);
        let _held = lock.hold();
        let function = self.find(key)?;
        if function.wanted() > 0 || !function.state().backoff().is_zero() {
            return Ok(());
        }
        let step = Step { to: function.out_of_zero(), why: Why::Called };
        function.want(step.to);
        self.decided(&function, 0, step);
        self.start_missing(&function).inspect_err(|_| {
            // The next call tries again, once the backoff has passed.
            if function.replicas().is_empty() {
                function.want(0);
            }
        })
    }

    /// Whether there is a replica that will be free, or one that has not used up its patience to become ready.
    fn may_become_ready(&self, function: &Function) -> bool {
        let hopeful = |replica: &Arc<Replica>| match replica.gate() {
            Gate::Open | Gate::Frozen => true,
            Gate::Starting | Gate::Doubted => replica.asked().elapsed() < self.config.ready_wait,
            Gate::Retired => false,
        };
        function.replicas().iter().any(|replica| replica.exit().is_none() && hopeful(replica))
    }

    /// Takes a replica that has refused or reset a connection out, until it accepts one again.
    pub fn doubt(self: &Arc<Self>, function: &Arc<Function>, lease: &Lease, why: &str) {
        let replica = lease.replica();
        *replica.asked() = Instant::now();
        if !replica.turn(&[Gate::Open], Gate::Doubted) {
            return;
        }
        tracing::debug!(replica = %replica.name, why, "a replica gets no requests until it accepts connections again");
        function.publish();
        self.probe_until_ready(function, replica, &function.deployed(), None);
    }

    fn nobody(&self, function: &Function, retry_after: Duration) -> Unserved {
        let why = function.last_failure().map(|why| format!(" ({why})")).unwrap_or_default();
        let fault = Fault::new(Kind::Exhausted, format!("No endpoints available for: {}.{why}", function.key));
        Unserved::Nobody { fault, retry_after }
    }
}
