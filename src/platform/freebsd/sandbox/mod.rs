//! Replicas as jails: [`JailSandbox`].
//!
//! ```text
//!  prepare: root ── mounts below it ── rctl rules ── jail ── VNET link
//!  start:  the same, unless prepared ── fork, attach, exec ── watch
//!  remove: kill by jail_remove, wait ── unmount, last first ── rctl rules ── directories ── forget
//! ```
//! A start that fails runs the removal; so do a delete and the sweep after a crash. All of it is found by the
//! replica's name: the jail bears it, the rules name it, and its mounts are below `run_root/name`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::debug_span;

use super::jail::policy::{self, Known};
use super::jail::{self, Jail, Jid, View};
use super::monitor::Monitor;
use super::network::control::Control;
use super::network::inside;
use super::spawn::Program;
use super::{devfs, freezer, mount, process, rctl, sysctl};
use crate::fault::{Context, Fault, Kind, Result};
use crate::function::{Realm, ReplicaName};
use crate::network::Attachment;
use crate::sandbox::{self, Exit, Found, Personality, Plan, Sandbox, Signal, Usage};

mod crowd;
mod lent;
mod root;
mod warm;

pub use root::TARGETS;

const NO_LINUX: &str = "its image holds Linux programs, and this kernel does not run them; \
                        run: sysrc linux_enable=YES && service linux start";

/// How long a removal waits for a jail's processes to be gone; they have had SIGKILL.
const REMOVAL_LIMIT: Duration = Duration::from_secs(20);

/// What a sandbox is made from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose replicas.
    pub realm: Realm,
    /// Holds one directory per replica, named as it is: [`Plan::run_dir`] is `run_root/name`.
    pub run_root: PathBuf,
    /// What to do with a plan that has limits when the kernel does not count resources.
    pub uncounted: Uncounted,
}

/// What to do with limits that this kernel cannot enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uncounted {
    /// Refuse to start.
    Refuse,
    /// Start without, and say so in the log.
    Warn,
}

/// Starts, watches and removes replicas as jails.
pub struct JailSandbox {
    settings: Settings,
    known: Known,
    monitor: Monitor,
    lent: lent::Lent,
    /// Jails that wait for their program, by the replica's name.
    prepared: Mutex<HashMap<String, Jid>>,
    _crowd: Option<crowd::Crowd>,
}

impl JailSandbox {
    /// Asks the kernel what it knows, makes the devfs ruleset and starts the thread that waits for exits.
    pub fn open(settings: Settings) -> Result<Self> {
        devfs::setup()?;
        if !rctl::enabled() {
            let effect = match settings.uncounted {
                Uncounted::Refuse => "functions with limits are refused",
                Uncounted::Warn => "functions run without their limits",
            };
            tracing::warn!("this host does not count resources, so {effect}; {}", rctl::REMEDY);
        }
        let lent = lent::Lent::new(&settings.run_root);
        lent.sweep()?;
        let crowd = crowd::Crowd::watch(settings.realm.clone())?;
        let monitor = Monitor::start(Box::new(reason_of_kill))?;
        Ok(Self { settings, known: Known::ask()?, monitor, lent, prepared: Mutex::default(), _crowd: crowd })
    }

    fn run_dir(&self, name: &str) -> PathBuf {
        self.settings.run_root.join(name)
    }

    fn check(&self, plan: &Plan) -> Result<()> {
        let name = plan.replica.to_string();
        jail::check_name(&name)?;
        let expected = self.run_dir(&name);
        if plan.run_dir != expected {
            let message = format!("{name} must run in {}, not in {}", expected.display(), plan.run_dir.display());
            return Err(Fault::invalid(message));
        }
        // Asked anew each time: the module may have been loaded since.
        if plan.personality == Personality::Linux && !sysctl::exists("security.jail.param.linux") {
            return Err(Fault::new(Kind::Unsupported, NO_LINUX));
        }
        if jail::find(&name)?.is_some() {
            return Err(Fault::new(Kind::Busy, format!("jail {name} is running already; remove it first")));
        }
        Ok(())
    }

    fn limit(&self, plan: &Plan, name: &str) -> Result<()> {
        match rctl::limit(name, &plan.limits) {
            Err(fault) if fault.kind() == Kind::Unsupported && self.settings.uncounted == Uncounted::Warn => {
                tracing::warn!("{name} runs without its limits: {fault}");
                Ok(())
            }
            other => other,
        }
    }

    fn prepared(&self) -> MutexGuard<'_, HashMap<String, Jid>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The steps of a start before its program; the caller undoes them. Each is a span, so that it can be seen what
    /// takes how long.
    fn build(&self, plan: &Plan, name: &str) -> Result<Jid> {
        let root = debug_span!("mounts").in_scope(|| root::mount(plan, &self.lent))?;
        debug_span!("rctl").in_scope(|| self.limit(plan, name))?;
        let host = policy::Host { known: &self.known, devfs_ruleset: devfs::RULESET };
        let jid = debug_span!("jail_set").in_scope(|| jail::create(policy::params(plan, &root, host)?))?;
        if let Some(cpus) = &plan.limits.cpus {
            jail::pin(jid, cpus)?;
        }
        debug_span!("link").in_scope(|| connect(plan, jid))?;
        Ok(jid)
    }

    /// The last step of a start; the caller undoes all of them.
    fn run(&self, plan: &Plan, name: &str, jid: Jid) -> Result<()> {
        let network = match &plan.network {
            Attachment::Vnet { interface, addresses, .. } => inside::steps(interface, addresses)?,
            _ => Vec::new(),
        };
        let program = Program::prepare(plan, jid, network)?;
        let spawned = debug_span!("fork-exec").in_scope(|| program.spawn());
        let process = spawned.context(|| format!("{name} does not start"))?;
        if plan.user.uid != 0 {
            jail::drop_root(jid).context(|| format!("cannot take root's privileges from jail {name}"))?;
        }
        self.monitor.own(name, process)
    }

    /// The jail that waits for this replica's program. One that somebody has removed is cleared away.
    fn take_prepared(&self, name: &str) -> Result<Option<Jid>> {
        let Some(jid) = self.prepared().remove(name) else { return Ok(None) };
        if jail::find(name)?.is_some_and(|jail| jail.jid == jid) {
            return Ok(Some(jid));
        }
        self.clear(name).map(|()| None)
    }

    /// Takes away all that there is of `name`: attempts every step and reports every failure.
    fn clear(&self, name: &str) -> Result<()> {
        self.prepared().remove(name);
        self.monitor.expect_kill(name);
        let run_dir = self.run_dir(name);
        let steps = [
            remove_jail(name),
            mount::unmount_all(&run_dir),
            // A snapshot that stayed mounted could not be destroyed with its image.
            self.lent.sweep(),
            rctl::remove(name),
            root::remove_directories(&run_dir),
        ];
        self.monitor.forget(name);
        let mut faults = steps.into_iter().filter_map(Result::err);
        match faults.next() {
            None => Ok(()),
            Some(first) => Err(faults.fold(first, |fault, next| fault.and_cleanup(Err(next)))),
        }
    }

    /// Makes the monitor know a replica that an earlier daemon has started.
    fn adopt(&self, name: &str) -> Result<()> {
        if self.monitor.knows(name) {
            return Ok(());
        }
        let Some(jail) = jail::find(name)? else {
            self.monitor.gone(name);
            return Ok(());
        };
        match process::first(jail.jid)? {
            None => self.monitor.gone(name),
            Some(first) => self
                .monitor
                .adopt(name, first.pid, || Ok(process::first(jail.jid)?.is_some_and(|again| again.pid == first.pid)))?,
        }
        Ok(())
    }

    fn replica(&self, name: &str) -> Option<ReplicaName> {
        name.parse().ok().filter(|replica: &ReplicaName| replica.realm() == &self.settings.realm)
    }

    /// Names of replicas that left mounts or rules behind.
    fn remains(&self) -> Result<BTreeSet<String>> {
        let below = |mounted: mount::Mounted| {
            let inside = mounted.on.strip_prefix(&self.settings.run_root).ok()?;
            inside.components().next().map(|first| first.as_os_str().to_string_lossy().into_owned())
        };
        let mut names: BTreeSet<String> = mount::list(&self.settings.run_root)?.into_iter().filter_map(below).collect();
        names.extend(rctl::jails()?);
        Ok(names)
    }
}

impl Sandbox for JailSandbox {
    fn prepare(&self, plan: &Plan) -> Result<()> {
        self.check(plan)?;
        let name = plan.replica.to_string();
        let built = self.build(plan, &name).and_then(|jid| {
            warm::warm(plan, &root_of(&plan.run_dir))?;
            Ok(jid)
        });
        let jid = built.map_err(|fault| fault.and_cleanup(self.clear(&name)))?;
        self.prepared().insert(name, jid);
        Ok(())
    }

    fn start(&self, plan: &Plan) -> Result<()> {
        let name = plan.replica.to_string();
        let built = match self.take_prepared(&name)? {
            Some(jid) => Ok(jid),
            None => {
                self.check(plan)?;
                self.build(plan, &name)
            }
        };
        let started = built.and_then(|jid| self.run(plan, &name, jid));
        started.map_err(|fault| fault.and_cleanup(self.clear(&name)))
    }

    fn signal(&self, replica: &ReplicaName, signal: Signal) -> Result<()> {
        let name = replica.to_string();
        self.adopt(&name)?;
        let number = match signal {
            Signal::Term => libc::SIGTERM,
            Signal::Kill => libc::SIGKILL,
        };
        self.monitor.signal(&name, number).unwrap_or(Ok(())).context(|| format!("cannot signal {name}"))
    }

    fn remove(&self, replica: &ReplicaName) -> Result<()> {
        self.clear(&replica.to_string())
    }

    fn watch(&self, replica: &ReplicaName, on_exit: Box<dyn FnOnce(Exit) + Send>) -> Result<()> {
        let name = replica.to_string();
        self.adopt(&name)?;
        self.monitor.on_exit(&name, on_exit)
    }

    fn list(&self) -> Result<Vec<Found>> {
        let mut found: BTreeMap<ReplicaName, Option<Jid>> = BTreeMap::new();
        for name in self.remains()? {
            found.extend(self.replica(&name).map(|replica| (replica, None)));
        }
        let populated = process::jails()?;
        for Jail { name, jid, .. } in jail::list(View::Alive)? {
            let alive = populated.contains(&jid) && self.monitor.ended(&name) != Some(true);
            found.extend(self.replica(&name).map(|replica| (replica, alive.then_some(jid))));
        }
        Ok(found.into_iter().map(|(replica, number)| Found { replica, alive: number.is_some(), number }).collect())
    }

    fn freeze(&self, replica: &ReplicaName) -> Result<()> {
        freezer::freeze(&replica.to_string())
    }

    fn thaw(&self, replica: &ReplicaName) -> Result<()> {
        freezer::thaw(&replica.to_string())
    }

    fn usage(&self, replica: &ReplicaName) -> Result<Usage> {
        let name = replica.to_string();
        let Some(jail) = jail::find(&name)? else {
            return Err(Fault::not_found(format!("no jail {name} is running")));
        };
        let living = process::usage(jail.jid)?;
        if !rctl::enabled() {
            return Ok(living);
        }
        // The kernel's account knows what ended processes used, but in whole seconds, and looks at memory once
        // in a second.
        Ok(Usage { cpu: living.cpu.max(rctl::usage(&name)?.cpu), ..living })
    }

    fn exec(&self, replica: &ReplicaName, program: &sandbox::Program) -> Result<Exit> {
        let name = replica.to_string();
        let jail = jail::find(&name)?.ok_or_else(|| Fault::not_found(format!("no jail {name} is running")))?;
        let process = Program::beside(program, jail.jid)?.spawn();
        let process = process.context(|| format!("cannot run {} in jail {name}", program.argv[0]))?;
        process.wait().context(|| "cannot wait for the program")
    }

    /// Snapshots that are lent are all that is shared.
    fn teardown(&self) -> Result<()> {
        self.lent.sweep()
    }
}

/// Gives the jail its end of the link.
fn connect(plan: &Plan, jid: Jid) -> Result<()> {
    let Attachment::Vnet { interface, closed, .. } = &plan.network else { return Ok(()) };
    if *closed && plan.user.uid == 0 {
        let message = "network none is not for an image whose user is root: with a stack of its own, root could take \
                       another address; use an image with another USER, or network vnet";
        return Err(Fault::invalid(message));
    }
    let control = Control::open().context(|| "cannot open a socket")?;
    control.give(interface, jid).context(|| format!("cannot move {interface} into jail {}", plan.replica))
}

fn remove_jail(name: &str) -> Result<()> {
    let Some(jail) = jail::find(name)? else { return Ok(()) };
    jail::remove(jail.jid)?;
    wait_until_empty(&jail)
}

/// A removed jail lingers for as long as anything (a closing socket, say) refers to it, invisible and
/// harmless; what must be gone are its processes, so that nobody uses its mounts.
fn wait_until_empty(jail: &Jail) -> Result<()> {
    let begin = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let gone = jail::find_jid(jail.jid, View::WithDying)?.is_none_or(|found| found.name != jail.name);
        if gone || process::of_jail(jail.jid)?.is_empty() {
            return Ok(());
        }
        if begin.elapsed() > REMOVAL_LIMIT {
            let message =
                format!("processes of jail {} do not die; they wait in the kernel (see procstat -k)", jail.name);
            return Err(Fault::new(Kind::Busy, message));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// A SIGKILL that this daemon did not send comes from the rule on memory, if there is one and the jail lives.
fn reason_of_kill(name: &str) -> Exit {
    let limited = rctl::present(name).is_ok_and(|rules| rules.iter().any(|rule| rule.contains(":memoryuse:sigkill=")));
    let alive = jail::find(name).is_ok_and(|jail| jail.is_some());
    if limited && alive { Exit::OutOfMemory } else { Exit::Signal(libc::SIGKILL) }
}

/// The directory below a replica's own where its root is mounted.
fn root_of(run_dir: &Path) -> PathBuf {
    run_dir.join("root")
}
