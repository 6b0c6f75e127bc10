//! What users do to functions: create, update, scale, delete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::catalog::{Deployed, Function};
use super::elastic::Rules;
use super::lease::Replica;
use super::{Annotations, Provider, replica};
use crate::fault::{Fault, Kind, Result};
use crate::files;
use crate::function::{FunctionKey, FunctionSpec, Resources};
use crate::image::{Image, Reference};

/// What a user asks for, checked; the rest of a [`FunctionSpec`] is the provider's.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    /// The function.
    pub key: FunctionKey,
    /// Its image.
    pub image: Reference,
    /// See [`FunctionSpec::env_process`].
    pub env_process: Option<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Secrets.
    pub secrets: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Constraints.
    pub constraints: Vec<String>,
    /// Limits.
    pub limits: Option<Resources>,
    /// Requests.
    pub requests: Option<Resources>,
    /// Root read-only.
    pub read_only_root: bool,
}

impl Desired {
    fn into_spec(self, replicas: u32, created: jiff::Timestamp, revision: u64) -> FunctionSpec {
        FunctionSpec {
            key: self.key,
            image: self.image,
            env_process: self.env_process,
            env: self.env,
            secrets: self.secrets,
            labels: self.labels,
            annotations: self.annotations,
            constraints: self.constraints,
            limits: self.limits,
            requests: self.requests,
            read_only_root: self.read_only_root,
            replicas,
            created,
            revision,
        }
    }
}

impl Provider {
    /// Deploys a new function; `Busy` when the name is taken. Returns when its replicas are ready, or after
    /// `deploy_wait`. A failure leaves nothing behind.
    pub fn create(&self, desired: Desired) -> Result<()> {
        let key = desired.key.clone();
        let lock = self.locks.of(&key);
        let _held = lock.hold();
        if self.catalog.get(&key).is_some() {
            return Err(Fault::new(
                Kind::Busy,
                format!("function {key} already exists; update it with PUT, or delete it first"),
            ));
        }
        let _ports = self.accept(&desired)?;
        let image = self.image_for(&desired)?;
        let rules = Rules::read(&desired.labels, &desired.annotations, &self.config.elastic)?;
        let replicas = rules.deployed(&desired.labels, None);
        let spec = desired.into_spec(replicas, jiff::Timestamp::now(), 1);
        let function = Function::new(Deployed { spec, image }, rules);
        let deployed = function.deployed();
        let (started, failed) = self.start_many(&function, &deployed, replicas as usize);
        let ready = match failed {
            Some(fault) => Err(fault),
            None => self.wait_ready(&function, &started, started.len(), self.config.deploy_wait).map(|_| ()),
        };
        // A replica that ends before it serves is a broken image or a broken setting: better said now.
        let kept = ready.and_then(|()| files::replace_json(&self.spec_path(&key), &*deployed));
        if let Err(fault) = kept {
            let undone = self.discard_all(&started).and(self.logs.forget(&key));
            return Err(fault.and_cleanup(undone));
        }
        function.state().replicas = started.clone();
        function.publish();
        self.catalog.insert(Arc::clone(&function));
        if let Err(fault) = self.enforce_now() {
            self.catalog.remove(&key);
            let undone = files::remove(&self.spec_path(&key)).map(drop).and(self.discard_all(&started));
            return Err(fault.and_cleanup(undone.and(self.logs.forget(&key))));
        }
        // One that ended between being looked at and being listed.
        self.look_after(&function);
        tracing::info!(function = %key, image = %deployed.spec.image, replicas, "deployed");
        Ok(())
    }

    /// Replaces a function by what is desired: starts the new replicas, waits until they are ready, switches, and
    /// drains the old ones. A failure leaves nothing behind and the old ones serving.
    pub fn update(&self, desired: Desired) -> Result<()> {
        let key = desired.key.clone();
        let lock = self.locks.of(&key);
        let _held = lock.hold();
        let function = self.find(&key)?;
        let _ports = self.accept(&desired)?;
        let image = self.image_for(&desired)?;
        let old = function.deployed();
        let rules = Rules::read(&desired.labels, &desired.annotations, &self.config.elastic)?;
        let replicas = rules.deployed(&desired.labels, Some(function.wanted()));
        let spec = desired.into_spec(replicas, old.spec.created, old.spec.revision + 1);
        let deployed = Deployed { spec, image };
        let (started, failed) = self.start_many(&function, &deployed, replicas as usize);
        let ready = match failed {
            Some(fault) => Err(fault),
            None => self.wait_ready(&function, &started, started.len(), self.config.ready_wait),
        };
        let kept = match ready {
            Ok(true) => files::replace_json(&self.spec_path(&key), &deployed),
            Ok(false) => Err(Fault::invalid(format!(
                "the new version of {key} did not accept connections on port {} within {}s",
                replica::PORT,
                self.config.ready_wait.as_secs()
            ))),
            Err(fault) => Err(fault),
        };
        if let Err(fault) = kept {
            let undone = self.discard_all(&started);
            return Err(fault.within(format!("{key} is not updated, its previous version stays")).and_cleanup(undone));
        }
        function.install(deployed, rules);
        function.want(replicas);
        let replaced = {
            let mut state = function.state();
            state.failures = 0;
            state.not_before = None;
            state.last_failure = None;
            std::mem::replace(&mut state.replicas, started)
        };
        self.take_out(&function, &old, replaced, self.config.read_timeout);
        self.look_after(&function);
        self.enforce_now().map_err(|fault| fault.within(format!("{key} is updated, but not its published ports")))?;
        tracing::info!(function = %key, image = %old.spec.image, replicas, "updated");
        Ok(())
    }

    /// Sets how many replicas there are, as a person asked. Returns when those that were missing are ready, or after
    /// `deploy_wait`.
    pub fn scale(&self, key: &FunctionKey, replicas: u32) -> Result<()> {
        let lock = self.locks.of(key);
        let _held = lock.hold();
        let function = self.find(key)?;
        self.refresh_addresses()?;
        let room = self.addresses().capacity();
        if u128::from(replicas) > room {
            return Err(Fault::invalid(format!(
                "{replicas} replicas of {key} are more than the {room} addresses of the pool; add a network with: \
                 faas-jails address add NETWORK"
            )));
        }
        let _busy = function.busy();
        // No waiting for a backoff to end.
        function.state().not_before = None;
        let before = function.want(replicas);
        let started = self.start_missing(&function);
        // After the start, so that what comes up meanwhile does not wait for the disk.
        let mut deployed = Deployed::clone(&function.deployed());
        deployed.spec.replicas = replicas;
        if let Err(fault) = files::replace_json(&self.spec_path(key), &deployed) {
            function.want(before);
            self.drop_surplus(&function, self.config.read_timeout);
            return Err(fault);
        }
        function.install(deployed, Rules::clone(&function.rules()));
        self.drop_surplus(&function, self.config.read_timeout);
        started?;
        let all = function.replicas();
        self.wait_ready(&function, &all, all.len(), self.config.deploy_wait)?;
        tracing::info!(function = %key, replicas, "scaled");
        Ok(())
    }

    /// Takes out the replicas that are too many; each has `drain` to end its requests. The caller holds the
    /// function's lock.
    pub(super) fn drop_surplus(&self, function: &Arc<Function>, drain: Duration) {
        let surplus = {
            let mut state = function.state();
            // Those that serve stay; of them, those with the fewest requests go first.
            state.replicas.sort_by_key(|r| (!r.is_ready(), std::cmp::Reverse(r.inflight())));
            let keep = (function.wanted() as usize).min(state.replicas.len());
            state.replicas.split_off(keep)
        };
        self.take_out(function, &function.deployed(), surplus, drain);
        self.make_ready(&function.key);
    }

    /// Removes a function. Its replicas finish their requests in the background; its name is free at once.
    pub fn delete(&self, key: &FunctionKey) -> Result<()> {
        let lock = self.locks.of(key);
        let _held = lock.hold();
        let function = self.find(key)?;
        files::remove(&self.spec_path(key))?;
        self.catalog.remove(key);
        let replicas = std::mem::take(&mut function.state().replicas);
        self.take_out(&function, &function.deployed(), replicas, self.config.read_timeout);
        self.unmake_ready(key);
        self.enforce_now()?;
        self.logs.forget(key)?;
        tracing::info!(function = %key, "deleted");
        Ok(())
    }

    /// Retires replicas that have been taken out of the state.
    fn take_out(&self, function: &Function, deployed: &Deployed, replicas: Vec<Arc<Replica>>, drain: Duration) {
        // Published first: from then on no request is given to them.
        function.publish();
        let grace = self.grace(deployed);
        for replica in replicas {
            self.retire(replica, drain, grace);
        }
        self.enforce_soon();
    }

    fn discard_all(&self, replicas: &[Arc<Replica>]) -> Result<()> {
        let mut failed = replicas.iter().filter_map(|r| self.discard(&r.name).err());
        match failed.next() {
            Some(first) => Err(failed.fold(first, |fault, other| fault.and_cleanup(Err(other)))),
            None => Ok(()),
        }
    }

    fn image_for(&self, desired: &Desired) -> Result<Image> {
        let namespace = &desired.key.namespace;
        self.secrets.check(namespace, &desired.secrets)?;
        let secrets = self.secrets.values(namespace, &desired.secrets)?;
        let platform = Annotations::read(&desired.annotations)?.platform;
        let image = self.images.ensure(&desired.image, platform.as_ref(), &secrets);
        // Whatever is wrong with it, it is the deploy's image that is wrong.
        image.map_err(|fault| Fault::invalid(format!("unable to pull image {}", desired.image)).because(fault))
    }

    /// Ends every replica, those being drained too, and waits until nothing of them is left. Functions stay
    /// deployed, and none of them gets a replica from this provider any more.
    pub fn stop_all(&self) -> Result<()> {
        self.stopping.store(true, Ordering::SeqCst);
        for function in self.catalog.all() {
            // Whoever is starting replicas of it has finished when the lock is had; who comes later sees the mark.
            let lock = self.locks.of(&function.key);
            let _held = lock.hold();
            function.state().replicas.clear();
            function.publish();
        }
        self.ready.clear();
        let mut failed = self.replicas_anywhere()?.into_iter().filter_map(|name| self.discard(&name).err());
        match failed.next() {
            Some(first) => Err(failed.fold(first, |fault, other| fault.and_cleanup(Err(other)))),
            None => Ok(()),
        }
    }
}
