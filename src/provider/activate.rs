//! Making a replica ready because a request waits for one. However many wait, one start happens.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Provider;
use super::catalog::{Function, Lease, Replica};
use crate::fault::{Fault, Kind, Result};

impl Provider {
    /// A replica for one request: at once when one is ready; otherwise after a start, or after the start that is
    /// under way. `except` has just failed this request.
    pub async fn lease(self: &Arc<Self>, function: &Arc<Function>, except: Option<&Replica>) -> Result<Lease> {
        if let Some(lease) = function.pick(except) {
            return Ok(lease);
        }
        self.lease_slowly(function, except).await
    }

    async fn lease_slowly(self: &Arc<Self>, function: &Arc<Function>, except: Option<&Replica>) -> Result<Lease> {
        let deadline = Instant::now() + self.config.ready_wait;
        let mut changes = function.subscribe();
        loop {
            if let Some(lease) = function.pick(except) {
                return Ok(lease);
            }
            if function.deployed().spec.replicas == 0 {
                self.activate(function);
            } else if !function.activating.load(Ordering::Acquire) && !self.may_become_ready(function) {
                return Err(self.nobody(function));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || tokio::time::timeout(left, changes.changed()).await.is_err() {
                return Err(self.nobody(function));
            }
            if self.catalog.get(&function.key).is_none() {
                return Err(Fault::not_found(format!("function {} does not exist", function.key)));
            }
        }
    }

    /// Starts a function at zero, unless that is under way already.
    fn activate(self: &Arc<Self>, function: &Arc<Function>) {
        if function.activating.swap(true, Ordering::AcqRel) {
            return;
        }
        let (provider, function) = (Arc::clone(self), Arc::clone(function));
        self.background.spawn(async move {
            let key = function.key.clone();
            if let Err(fault) = provider.run(move |p| p.wake(&key)).await {
                tracing::error!(function = %function.key, %fault, "a function at zero cannot be started");
            }
            function.activating.store(false, Ordering::Release);
            function.publish();
        });
    }

    /// A replica that is starting and has not used up its patience.
    fn may_become_ready(&self, function: &Function) -> bool {
        let young = |r: &Arc<Replica>| r.exit().is_none() && r.since.elapsed() < self.config.ready_wait;
        function.replicas().iter().any(|r| !r.is_ready() && young(r))
    }

    fn nobody(&self, function: &Function) -> Fault {
        let why = function.last_failure().map(|why| format!(" ({why})")).unwrap_or_default();
        Fault::new(Kind::Exhausted, format!("No endpoints available for: {}.{why}", function.key))
    }
}
