//! Published ports, and replicas that may begin nothing: what the packet filter is told, as one whole, each time
//! something in it changes. It is made from the catalog, so that a daemon that starts puts the same in force.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::annotations::{NETWORK, PUBLISH};
use super::catalog::Function;
use super::{Annotations, Desired, Provider};
use crate::fault::{Fault, Kind, Result};
use crate::function::{FunctionKey, ReplicaName};
use crate::network::{Link, Mode, Policy, Port, Protocol, Published};

/// What is in force, and what is to be.
#[derive(Default)]
pub(super) struct Current {
    /// Ports that deploys under way will have.
    claims: Mutex<HashMap<FunctionKey, Vec<Port>>>,
    /// Replicas that may begin nothing.
    closed: Mutex<BTreeMap<ReplicaName, Vec<IpAddr>>>,
    /// `None`: nobody knows what an earlier daemon left in force.
    applied: Mutex<Option<Policy>>,
    /// Whether there has ever been something to enforce: almost always not, and then changes cost nothing.
    used: AtomicBool,
}

impl Current {
    /// What was in force is so no more: networks have changed.
    pub fn forget(&self) {
        *lock(&self.applied) = None;
    }

    /// Notes a replica that may begin nothing.
    pub fn close(&self, replica: &ReplicaName, link: &Link) {
        self.used.store(true, Ordering::Release);
        lock(&self.closed).insert(replica.clone(), link.addresses.iter().map(|address| address.ip()).collect());
    }

    /// Notes that a replica is gone.
    pub fn open(&self, replica: &ReplicaName) {
        lock(&self.closed).remove(replica);
    }
}

/// Ports that a deploy will have. Dropping it, when the catalog has the function or the deploy failed, ends the claim.
pub(super) struct Claim<'a> {
    current: &'a Current,
    key: FunctionKey,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        lock(&self.current.claims).remove(&self.key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Provider {
    /// Says whether a function may be connected and published as it wants to be; its ports are its own afterwards.
    pub(super) fn accept(&self, desired: &Desired) -> Result<Claim<'_>> {
        let annotations = Annotations::read(&desired.annotations)?;
        let mode = self.mode(&annotations).map_err(|fault| fault.within(format!("annotation {NETWORK}")))?;
        let within = |fault: Fault| fault.within(format!("annotation {PUBLISH}"));
        if !annotations.publish.is_empty() {
            check_mode(mode).map_err(within)?;
            self.policy.used.store(true, Ordering::Release);
        }
        let mut claims = lock(&self.policy.claims);
        for port in &annotations.publish {
            let free =
                self.check_free(&claims, &desired.key, port).and_then(|()| self.check_unheard(&desired.key, port));
            free.map_err(within)?;
        }
        claims.insert(desired.key.clone(), annotations.publish);
        Ok(Claim { current: &self.policy, key: desired.key.clone() })
    }

    /// No other function has it.
    fn check_free(&self, claims: &HashMap<FunctionKey, Vec<Port>>, key: &FunctionKey, port: &Port) -> Result<()> {
        let deployed = self.catalog.all().into_iter().map(|function| (function.key.clone(), ports(&function)));
        let all = deployed.chain(claims.iter().map(|(key, ports)| (key.clone(), ports.clone())));
        match all.into_iter().find(|(other, ports)| other != key && ports.iter().any(|p| p.collides(port))) {
            None => Ok(()),
            Some((other, _)) => Err(Fault::new(
                Kind::Busy,
                format!("port {}/{} of the host is published by function {other} already", port.host, port.protocol),
            )),
        }
    }

    /// No program of the host listens there, which would then be cut off.
    fn check_unheard(&self, key: &FunctionKey, port: &Port) -> Result<()> {
        let own = |f: &Function| ports(f).iter().any(|p| p.collides(port));
        if self.catalog.get(key).is_some_and(|function| own(&function)) || !is_heard(port) {
            return Ok(());
        }
        Err(Fault::new(
            Kind::Busy,
            format!("a program of this host listens on port {}/{}; publish another one", port.host, port.protocol),
        ))
    }

    /// Closes a replica that may begin nothing, before it starts.
    pub(super) fn close(&self, replica: &ReplicaName, link: &Link) -> Result<()> {
        if link.mode != Mode::None {
            return Ok(());
        }
        self.policy.close(replica, link);
        self.enforce_now()
    }

    /// Puts in force what follows from the catalog now.
    pub(super) fn enforce_now(&self) -> Result<()> {
        let mut applied = lock(&self.policy.applied);
        if applied.is_some() && !self.policy.used.load(Ordering::Acquire) {
            return Ok(());
        }
        let wanted = self.wanted_policy();
        if applied.as_ref() != Some(&wanted) {
            self.platform.network.enforce(&wanted)?;
            *applied = Some(wanted);
        }
        Ok(())
    }

    /// The same in the background, where something may have changed.
    pub(super) fn enforce_soon(&self) {
        if !self.policy.used.load(Ordering::Acquire) {
            return;
        }
        let provider = self.me();
        self.background.spawn(async move {
            if let Err(fault) = provider.run(|p| p.enforce_now()).await {
                tracing::error!(%fault, "published ports do not lead where they should");
            }
        });
    }

    fn wanted_policy(&self) -> Policy {
        let mut published: Vec<Published> = Vec::new();
        for function in self.catalog.all() {
            let ports = ports(&function);
            if ports.is_empty() {
                continue;
            }
            self.policy.used.store(true, Ordering::Release);
            let targets = targets(&function);
            published.extend(ports.into_iter().map(|port| Published { port, targets: targets.clone() }));
        }
        published.sort();
        Policy { published, closed: lock(&self.policy.closed).values().flatten().copied().collect() }
    }
}

/// The ports that a function has. Its annotations were read before it was deployed.
fn ports(function: &Function) -> Vec<Port> {
    let deployed = function.deployed();
    let text = deployed.spec.annotations.get(PUBLISH);
    text.and_then(|text| Port::list(text).ok()).unwrap_or_default()
}

/// Where its ports lead: to the replicas that serve; to those that live while none does, as after a restart.
fn targets(function: &Function) -> Vec<IpAddr> {
    let alive = function.replicas().into_iter().filter(|replica| replica.exit().is_none()).collect::<Vec<_>>();
    let ready: Vec<IpAddr> = alive.iter().filter(|r| r.is_ready()).map(|r| r.address.ip()).collect();
    let mut targets = if ready.is_empty() { alive.iter().map(|r| r.address.ip()).collect() } else { ready };
    targets.sort();
    targets
}

fn check_mode(mode: Mode) -> Result<()> {
    match mode {
        Mode::None => {
            Err(Fault::invalid("a function with network none is reached by calls only, and publishes nothing"))
        }
        Mode::Inherit => Err(Fault::invalid("a function with network inherit has the host's ports already")),
        Mode::Bridge | Mode::Alias | Mode::Vnet => Ok(()),
    }
}

/// Whether the kernel refuses this port of the host because somebody has it.
fn is_heard(port: &Port) -> bool {
    let address = std::net::SocketAddr::from(([0, 0, 0, 0], port.host));
    let tried = match port.protocol {
        // Unlike std's listener, without SO_REUSEADDR: a listener on one address of the host is in the way too.
        Protocol::Tcp => tokio::net::TcpSocket::new_v4().and_then(|socket| socket.bind(address)),
        Protocol::Udp => std::net::UdpSocket::bind(address).map(drop),
    };
    tried.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}
