//! One replica: how it is started, retired and taken away, step by step.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::catalog::{Deployed, Function};
use super::lease::Replica;
use super::ready::Made;
use super::timing::Cause;
use super::{Annotations, Provider, Rules, supervise};
use crate::fault::{Context, Fault, Result};
use crate::files;
use crate::function::{Quantity, ReplicaName};
use crate::logs::Last;
use crate::network::{Link, ipam};
use crate::sandbox::{Limits, Personality, Plan, Signal};
use crate::storage::Root;

/// The port that a function serves on (of-watchdog and classic-watchdog: fixed).
pub const PORT: u16 = 8080;

/// The PATH of an image that sets none; Docker's.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The file with a replica's [`Record`]. A replica that is being retired has none.
pub(super) const RECORD: &str = "replica.json";

/// The file with a replica's [`Link`], there until the replica is gone.
pub(super) const LINK: &str = "link.json";

/// What is written down of a replica, so that the next daemon can adopt it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Where it serves; another port than [`PORT`] where it shares the host's.
    pub serves_at: SocketAddr,
    pub revision: u64,
}

/// A replica that has all it needs but its sandbox.
pub(super) struct Built {
    pub link: Link,
    pub record: Record,
    /// Without its output.
    pub plan: Plan,
}

/// What a function's replicas use together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// Thousandths of a processor, on average since the last time somebody asked.
    pub cpu_millis: f64,
    /// Bytes of memory.
    pub memory: f64,
}

impl Provider {
    pub(super) fn replica_dir(&self, name: &ReplicaName) -> PathBuf {
        self.config.root.join("replicas").join(name.to_string())
    }

    fn run_dir(&self, name: &ReplicaName) -> PathBuf {
        self.config.root.join("run").join(name.to_string())
    }

    /// Starts one replica, or leaves nothing behind. It is not ready yet, and in no function's state yet.
    pub(super) fn start_replica(&self, function: &Arc<Function>, deployed: &Deployed) -> Result<Arc<Replica>> {
        let _slot = self.slot().context(|| format!("cannot start a replica of {}", deployed.spec.key))?;
        let (name, made) = match self.take_ready(deployed)? {
            Some(spare) => (spare.name, Some(spare.made)),
            None => (ReplicaName::new(&self.config.realm, &deployed.spec.key), None),
        };
        match self.try_start(&name, made, function, deployed) {
            Ok(replica) => {
                self.make_ready(&deployed.spec.key);
                Ok(replica)
            }
            Err(fault) => Err(fault
                .within(format!("cannot start a replica of {}", deployed.spec.key))
                .and_cleanup(self.discard(&name))),
        }
    }

    /// `made` is what of it has been made ahead.
    fn try_start(
        &self,
        name: &ReplicaName,
        made: Option<Made>,
        function: &Arc<Function>,
        deployed: &Deployed,
    ) -> Result<Arc<Replica>> {
        let cause = if function.activating.load(Ordering::Acquire) { Cause::Request } else { Cause::Ahead };
        let mut start = self.timing.start(cause);
        let Built { link, record, mut plan } = match made {
            Some(Made::Whole(built)) => *built,
            Some(Made::Root(root)) => self.build(name, Some(root), deployed, |step| start.done(step))?,
            None => self.build(name, None, deployed, |step| start.done(step))?,
        };
        let dir = self.replica_dir(name);
        // Only a replica that lives is adopted, and none outlives the machine.
        files::replace_json_until_reboot(&dir.join(LINK), &link)?;
        files::replace_json_until_reboot(&dir.join(RECORD), &record)?;
        self.place_secrets(name, deployed)?;
        plan.output = self.logs.open(name)?.into();
        self.platform.sandbox.start(&plan)?;
        start.done("sandbox");
        let replica = self.replica(function, deployed, name, record.serves_at);
        self.watch(function, &replica)?;
        self.probe_until_ready(function, &replica, deployed, Some(start));
        Ok(replica)
    }

    /// What a replica needs before its sandbox is made; `root` where it is there already. `done` hears of each step.
    pub(super) fn build(
        &self,
        name: &ReplicaName,
        root: Option<Root>,
        deployed: &Deployed,
        mut done: impl FnMut(&str),
    ) -> Result<Built> {
        let Deployed { spec, image } = deployed;
        let limits = self.limits(deployed)?;
        let dir = self.replica_dir(name);
        fs::create_dir_all(&dir).context(|| format!("cannot make {}", dir.display()))?;
        let link = self.link(name, spec)?;
        let record = Record { serves_at: serves_at(&link)?, revision: spec.revision };
        done("prepare");
        let root = match root {
            Some(root) => root,
            None => self.clone_root(name, deployed, Annotations::read(&spec.annotations)?.disk)?,
        };
        done("root");
        self.close(name, &link)?;
        let network = self.platform.network.attach(name, &link)?;
        done("network");
        let nothing = fs::File::open("/dev/null").context(|| "cannot open /dev/null")?;
        let plan = Plan {
            replica: name.clone(),
            root,
            read_only: spec.read_only_root,
            personality: personality(&image.platform),
            network,
            hostname: spec.key.name.to_string(),
            argv: image.run.argv.clone(),
            env: environment_at(deployed, record.serves_at),
            workdir: PathBuf::from(&image.run.workdir),
            user: image.run.user.clone(),
            secrets: (!spec.secrets.is_empty()).then(|| self.secrets_dir(name)),
            files: self.network_files(&link, spec.key.name.as_str()),
            limits,
            mounts: Vec::new(),
            input: None,
            output: nothing.into(),
            errors: None,
            run_dir: self.run_dir(name),
        };
        fs::create_dir_all(&plan.run_dir).context(|| format!("cannot make {}", plan.run_dir.display()))?;
        Ok(Built { link, record, plan })
    }

    fn secrets_dir(&self, name: &ReplicaName) -> PathBuf {
        self.replica_dir(name).join("secrets")
    }

    /// Puts the function's secrets, as they are now, where the replica sees them.
    pub(super) fn place_secrets(&self, name: &ReplicaName, deployed: &Deployed) -> Result<()> {
        let Deployed { spec, image } = deployed;
        if spec.secrets.is_empty() {
            return Ok(());
        }
        self.secrets.place(&spec.key.namespace, &spec.secrets, &self.secrets_dir(name), &image.run.user)
    }

    /// A replica of that version of the function, as the invoke path will see it.
    pub(super) fn replica(
        &self,
        function: &Function,
        deployed: &Deployed,
        name: &ReplicaName,
        serves_at: SocketAddr,
    ) -> Arc<Replica> {
        let Deployed { spec, .. } = deployed;
        // Checked at the deploy; the function's own rules may be those of another version.
        let rules = Rules::read(&spec.labels, &spec.annotations, &self.config.elastic);
        let room = rules.map_or(usize::MAX, |rules| rules.max_inflight);
        let line = Arc::clone(&function.line);
        Arc::new(Replica::new(name.clone(), serves_at, spec.revision, room, line))
    }

    fn limits(&self, deployed: &Deployed) -> Result<Limits> {
        let limits = deployed.spec.limits.as_ref();
        let read = |text: Option<&String>| text.map(|t| t.parse::<Quantity>()).transpose();
        let Annotations { io, cpus, .. } = Annotations::read(&deployed.spec.annotations)?;
        Ok(Limits {
            memory: read(limits.and_then(|l| l.memory.as_ref()))?.map(Quantity::units),
            cpu_millis: read(limits.and_then(|l| l.cpu.as_ref()))?.map(Quantity::millis),
            pids: Some(self.config.limits.pids),
            open_files: Some(self.config.limits.open_files),
            io,
            cpus,
        })
    }

    /// What a sandbox with this link has in /etc.
    pub fn network_files(&self, link: &Link, hostname: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost\n".to_owned();
        for address in &link.addresses {
            hosts += &format!("{}\t{hostname}\n{}\tgateway\n", address.ip(), ipam::gateway(*address));
        }
        let servers = name_servers(&self.config.network.dns);
        let resolv: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        [("/etc/hosts", hosts), ("/etc/resolv.conf", resolv), ("/etc/hostname", format!("{hostname}\n"))]
            .into_iter()
            .map(|(path, text)| (PathBuf::from(path), text.into_bytes()))
            .collect()
    }

    /// Takes away all there is of a replica: processes, mounts, links, root, address, files. Tries every step;
    /// already gone is success, so it serves a failed start, a removal, and the sweep after a crash alike.
    pub fn discard(&self, name: &ReplicaName) -> Result<()> {
        let dir = self.replica_dir(name);
        let steps = [
            self.platform.sandbox.remove(name),
            self.platform.network.detach(name),
            self.platform.storage.destroy_root(name),
            files::remove_tree(&self.run_dir(name)).map(|_| ()),
            files::remove_tree(&dir).map(|_| ()),
        ];
        self.logs.close(name);
        let mut failed = steps.into_iter().filter_map(Result::err);
        let Some(first) = failed.next() else {
            // Only now may another replica have the address.
            self.addresses().give_back(name);
            self.policy.open(name);
            self.enforce_soon();
            return Ok(());
        };
        Err(failed.fold(first, |fault, other| fault.and_cleanup(Err(other))).within(format!("cannot remove {name}")))
    }

    /// [`Provider::discard`] where nobody waits for its outcome.
    pub(super) fn discard_or_say(&self, name: &ReplicaName) {
        if let Err(fault) = self.discard(name) {
            tracing::error!(%fault, "something of a replica is left; the next start of faas-jails tries again");
        }
    }

    /// Lets a replica finish its requests for as long as `drain`, asks it to end, and removes it after `grace`, in
    /// the background. The caller has taken it out of its function's state and published that.
    pub(super) fn retire(&self, replica: Arc<Replica>, drain: Duration, grace: Duration) {
        let provider = self.me();
        replica.retire();
        // Should this daemon die now, the next one must not take it for a replica that is wanted.
        if let Err(fault) = files::remove(&self.replica_dir(&replica.name).join(RECORD)) {
            tracing::warn!(replica = %replica.name, %fault, "cannot mark a replica as retired");
        }
        self.retiring.fetch_add(1, Ordering::Relaxed);
        self.background.spawn(async move {
            wait_until(drain, || replica.inflight() == 0 || replica.exit().is_some()).await;
            let ending = Arc::clone(&replica);
            let end = move |p: &Provider| {
                // A frozen one would not notice.
                p.thaw_one(&ending)?;
                p.platform.sandbox.signal(&ending.name, Signal::Term)
            };
            if let Err(fault) = provider.run(end).await {
                tracing::warn!(replica = %replica.name, %fault, "cannot ask a replica to end");
            }
            wait_until(grace, || replica.exit().is_some()).await;
            let name = replica.name.clone();
            if let Err(fault) = provider.run(move |p| p.discard(&name)).await {
                tracing::error!(%fault, "something of a replica is left; the next start of faas-jails tries again");
            }
            provider.retiring.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// How long a function's replicas may take to end: the image's `grace_period`, or `stop_wait`.
    pub(super) fn grace(&self, deployed: &Deployed) -> Duration {
        let env = environment(deployed);
        let set = env.get("grace_period").and_then(|text| crate::config::parse_duration(text).ok());
        set.unwrap_or(self.config.stop_wait)
    }

    /// What a function's replicas use together now.
    pub fn usage(&self, function: &Function) -> Usage {
        let mut sum = Usage::default();
        for replica in function.replicas() {
            let Ok(usage) = self.platform.sandbox.usage(&replica.name) else { continue };
            let mut last = replica.cpu.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let now = Instant::now();
            let elapsed = now.duration_since(last.0).as_secs_f64().max(1e-3);
            sum.cpu_millis += usage.cpu.saturating_sub(last.1).as_secs_f64() * 1000.0 / elapsed;
            sum.memory += usage.memory as f64;
            *last = (now, usage.cpu);
        }
        sum
    }

    /// The failure of a replica that ended before it was ready, with the last it said.
    pub(super) fn ended_early(&self, replica: &Replica) -> Fault {
        let how = replica.exit().map_or_else(|| "is not ready".to_owned(), |exit| exit.to_string());
        let function = replica.name.function();
        let said = self.logs.reader(function, Some(replica.name.id().to_owned())).next(Last::WithPartial);
        let said: Vec<String> = said.unwrap_or_default().into_iter().map(|line| line.text).collect();
        let last = said.iter().rev().find(|line| !line.starts_with(crate::logs::NOTE) && !line.is_empty());
        let last = last.map_or_else(|| "it printed nothing".to_owned(), |line| format!("it printed: {line}"));
        Fault::invalid(format!(
            "replica {} of {function} {how} before it accepted connections on port {}; {last}",
            replica.name.id(),
            replica.address.port()
        ))
    }

    fn watch(&self, function: &Arc<Function>, replica: &Arc<Replica>) -> Result<()> {
        let (provider, function, watched) = (self.me.clone(), Arc::clone(function), Arc::clone(replica));
        let on_exit = move |exit| supervise::exited(&provider, &function, &watched, exit);
        self.platform.sandbox.watch(&replica.name, Box::new(on_exit))
    }

    /// Watches a replica that an earlier daemon started.
    pub(super) fn adopt_replica(&self, function: &Arc<Function>, replica: &Arc<Replica>) -> Result<()> {
        replica.adopted.store(true, Ordering::Relaxed);
        self.logs.open(&replica.name)?;
        self.watch(function, replica)?;
        self.probe_until_ready(function, replica, &function.deployed(), None);
        Ok(())
    }
}

/// Whether an image for `os/architecture` holds the host's own programs.
fn personality(platform: &str) -> Personality {
    match platform.split('/').next() {
        Some("linux") if std::env::consts::OS != "linux" => Personality::Linux,
        _ => Personality::Native,
    }
}

/// The whole environment of a replica: the image's, under this program's, under the user's.
pub fn environment(deployed: &Deployed) -> BTreeMap<String, String> {
    let Deployed { spec, image } = deployed;
    let mut env = BTreeMap::from([("PATH".to_owned(), DEFAULT_PATH.to_owned())]);
    let home = if image.run.user.uid == 0 { "/root" } else { "/" };
    env.insert("HOME".into(), home.into());
    env.extend(image.run.env.clone());
    env.insert("HOSTNAME".into(), spec.key.name.to_string());
    env.insert("OPENFAAS_NAME".into(), spec.key.name.to_string());
    env.insert("OPENFAAS_NAMESPACE".into(), spec.key.namespace.to_string());
    if let Some(process) = spec.env_process.as_ref().filter(|p| !p.is_empty()) {
        env.insert("fprocess".into(), process.clone());
    }
    env.extend(spec.env.clone());
    env
}

/// The same, where the port is another than [`PORT`] with the variable by which watchdogs are told.
fn environment_at(deployed: &Deployed, serves_at: SocketAddr) -> BTreeMap<String, String> {
    let mut env = environment(deployed);
    if serves_at.port() != PORT {
        env.insert("port".into(), serves_at.port().to_string());
    }
    env
}

/// Where a replica with this link serves.
fn serves_at(link: &Link) -> Result<SocketAddr> {
    Ok(match link.addresses.first() {
        Some(address) => SocketAddr::new(address.ip(), PORT),
        None => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), free_port()?),
    })
}

/// A port of the host that nobody listens on now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context(|| "cannot find a free port")?;
    Ok(listener.local_addr().context(|| "cannot find a free port")?.port())
}

/// The configured name servers, or the host's own that a replica can reach.
fn name_servers(configured: &[IpAddr]) -> Vec<IpAddr> {
    if !configured.is_empty() {
        return configured.to_vec();
    }
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    servers.filter(|server| !server.is_loopback()).collect()
}

/// Waits until `done`, or until `at_most` has passed.
async fn wait_until(at_most: Duration, done: impl Fn() -> bool) {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(2);
    while !done() && begun.elapsed() < at_most {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
