//! [`NamespaceSandbox`]: a replica is a process in pid, mount, uts, ipc, cgroup and network namespaces of its own,
//! in a cgroup that bears its name.
//!
//! ```text
//! start: cgroup with limits -> clone3 -> [child: steps of `sequence`, exec] -> report pipe closes -> monitor
//! remove: kill pid 1 (the kernel kills the rest of its pid namespace) -> wait -> rmdir cgroup
//! ```
//!
//! Everything else that a replica has, its mounts, host name, queues and shared memory, belongs to its namespaces and
//! goes with its last process: the host's mount table never shows any of it, and the run directory stays empty.
//! A replica is not tied to this process: no parent-death signal, no pipe. The program is pid 1 inside, as in any
//! container without an init: a signal that it does not handle is ignored, SIGKILL excepted (pid_namespaces(7)).

mod exec;
mod monitor;
mod seccomp;
mod sequence;
mod spawn;
mod step;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::mount::OpenTreeFlags;
use rustix::process::{Pid, PidfdFlags};
use seccompiler::BpfProgram;

use self::monitor::Monitor;
use self::sequence::Tools;
use self::spawn::Birth;
use super::cgroup::Cgroups;
use super::sealed;
use crate::fault::{Context, Fault, Kind, Result};
use crate::function::{Realm, ReplicaName};
use crate::network::Attachment;
use crate::sandbox::{Exit, Found, Plan, Program, Sandbox, Signal, Usage};
use crate::storage::Root;

/// How long the end of a killed process may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Replicas of one realm, in namespaces. Needs root.
pub struct NamespaceSandbox {
    cgroups: Arc<Cgroups>,
    monitor: Monitor,
    filters: Vec<BpfProgram>,
    /// Replicas whose cgroup is there already.
    prepared: Mutex<HashSet<ReplicaName>>,
}

impl NamespaceSandbox {
    /// Finds this host's cgroups, compiles the system call filters and starts the thread that waits for replicas.
    pub fn new(realm: Realm) -> Result<Self> {
        Self::with(Cgroups::detect(realm)?)
    }

    fn with(cgroups: Cgroups) -> Result<Self> {
        let cgroups = Arc::new(cgroups);
        Ok(Self {
            monitor: Monitor::start(Arc::clone(&cgroups))?,
            cgroups,
            filters: seccomp::filters()?,
            prepared: Mutex::default(),
        })
    }

    fn prepared(&self) -> MutexGuard<'_, HashSet<ReplicaName>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, plan: &Plan) -> Result<()> {
        let is_prepared = self.prepared().remove(&plan.replica);
        let group = match is_prepared {
            true => self.cgroups.group(&plan.replica)?,
            false => self.cgroups.create(&plan.replica, &plan.limits, &plan.run_dir)?,
        };
        let shown = prepare(plan).and_then(|()| detach(plan));
        let spawned = shown.and_then(|(secrets, mounts)| {
            let tools = Tools {
                tasks: group.tasks(),
                secrets: secrets.as_ref().map(AsFd::as_fd),
                mounts: &mounts,
                filters: &self.filters,
                show_cgroup: self.cgroups.is_unified(),
            };
            let steps = sequence::sequence(plan, &tools)?;
            let birth = Birth { cgroup: group.directory(), new_network: matches!(plan.network, Attachment::None) };
            spawn::spawn(&birth, &steps)
        });
        drop(group);
        let result = spawned.and_then(|pidfd| {
            let pidfd = Arc::new(pidfd);
            self.monitor.add(&plan.replica, Arc::clone(&pidfd)).inspect_err(|_| spawn::end(&pidfd))
        });
        result.map_err(|fault| fault.and_cleanup(self.cgroups.remove(&plan.replica)))
    }

    /// The replica's first process, whoever started it.
    fn first_process(&self, replica: &ReplicaName) -> Option<Arc<OwnedFd>> {
        self.monitor.pidfd(replica).or_else(|| {
            let pid = self.cgroups.init(replica)?;
            let pidfd = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
            // The number may have been given to another process in between; the descriptor keeps it from now on.
            (self.cgroups.init(replica) == Some(pid)).then(|| Arc::new(pidfd))
        })
    }

    /// Makes sure that the monitor waits for it, if it runs.
    fn adopt(&self, replica: &ReplicaName) -> Result<()> {
        if self.monitor.pidfd(replica).is_some() {
            return Ok(());
        }
        self.first_process(replica).map_or(Ok(()), |pidfd| self.monitor.add(replica, pidfd))
    }
}

impl Sandbox for NamespaceSandbox {
    /// Its cgroup: namespaces last no longer than a process.
    fn prepare(&self, plan: &Plan) -> Result<()> {
        self.cgroups
            .create(&plan.replica, &plan.limits, &plan.run_dir)
            .context(|| format!("cannot prepare a replica of {}", plan.replica.function()))?;
        self.prepared().insert(plan.replica.clone());
        Ok(())
    }

    fn start(&self, plan: &Plan) -> Result<()> {
        prepare(plan).and_then(|()| self.spawn(plan)).context(|| format!("cannot start {}", plan.replica.function()))
    }

    fn signal(&self, replica: &ReplicaName, signal: Signal) -> Result<()> {
        let signal = match signal {
            Signal::Term => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
        };
        let Some(pidfd) = self.first_process(replica) else { return Ok(()) };
        match rustix::process::pidfd_send_signal(&*pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno).context(|| format!("cannot signal {replica}")),
        }
    }

    fn remove(&self, replica: &ReplicaName) -> Result<()> {
        self.prepared().remove(replica);
        self.adopt(replica)?;
        self.signal(replica, Signal::Kill)?;
        // In a frozen cgroup of version 1 even a killed process waits.
        self.cgroups.thaw(replica)?;
        // Its status, and whether it ran out of memory, are read before the cgroup goes.
        if !self.monitor.wait(replica, PATIENCE) {
            return Err(Fault::new(
                Kind::Busy,
                format!(
                    "{replica} was killed {} seconds ago and has not ended; its first process is stuck in the kernel",
                    PATIENCE.as_secs()
                ),
            ));
        }
        self.cgroups.remove(replica).context(|| format!("cannot remove {replica}"))?;
        self.monitor.forget(replica);
        Ok(())
    }

    /// The call comes from the thread that waits for all replicas: it must hand work over, not do it.
    fn watch(&self, replica: &ReplicaName, on_exit: Box<dyn FnOnce(Exit) + Send>) -> Result<()> {
        self.adopt(replica)?;
        self.monitor.on_exit(replica, on_exit)
    }

    fn list(&self) -> Result<Vec<Found>> {
        let replicas = self.cgroups.replicas()?;
        let found = replicas.into_iter().map(|replica| {
            let number = self.cgroups.init(&replica);
            Found { replica, alive: number.is_some(), number }
        });
        Ok(found.collect())
    }

    fn freeze(&self, replica: &ReplicaName) -> Result<()> {
        self.cgroups.freeze(replica)
    }

    fn thaw(&self, replica: &ReplicaName) -> Result<()> {
        self.cgroups.thaw(replica)
    }

    fn usage(&self, replica: &ReplicaName) -> Result<Usage> {
        self.cgroups.usage(replica).context(|| format!("cannot read the usage of {replica}"))
    }

    fn exec(&self, replica: &ReplicaName, program: &Program) -> Result<Exit> {
        let stopped = || Fault::not_found(format!("replica {replica} does not run"));
        if !sealed::is_sealed() {
            let sentence = "programs enter replicas only from a copy of faas-jails that nobody can change";
            return Err(Fault::new(Kind::Denied, sentence));
        }
        let first = self.first_process(replica).ok_or_else(stopped)?;
        let group = self.cgroups.group(replica)?;
        let tools =
            Tools { tasks: group.tasks(), secrets: None, mounts: &[], filters: &self.filters, show_cgroup: false };
        let (steps, outside) = sequence::joining(program, first.as_fd(), &tools)?;
        let pidfd = spawn::join(group.directory(), &steps, outside)
            .context(|| format!("cannot run {} in {replica}", program.argv[0]))?;
        drop(group);
        let status = spawn::wait(&pidfd).context(|| "cannot wait for the program")?;
        Ok(status
            .and_then(|s| s.exit_status().map(Exit::Code).or_else(|| s.terminating_signal().map(Exit::Signal)))
            .unwrap_or(Exit::Unknown))
    }

    /// The cgroups that replicas share go with the last of them.
    fn teardown(&self) -> Result<()> {
        Ok(())
    }
}

/// What must be so before the child starts, and can be done with care for errors here.
fn prepare(plan: &Plan) -> Result<()> {
    if let Root::Overlay { upper: Some((_, work)), .. } = &plan.root {
        // A root that was in use before. The mark says that a crash of the host may have lost writes in it;
        // then no replica survived either, and roots of dead replicas are not started again.
        match std::fs::remove_dir_all(work.join("work/incompat")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(|| format!("cannot reuse {}", work.display()));
            }
            _ => {}
        }
    }
    if plan.user.uid != 0 {
        // A program that opens /dev/stdout opens this file anew, as itself.
        let owner = rustix::fs::Uid::from_raw(plan.user.uid);
        for stream in std::iter::once(&plan.output).chain(&plan.errors) {
            rustix::fs::fchown(stream, Some(owner), None).context(|| "cannot hand over its output file")?;
        }
    }
    Ok(())
}

/// The host's directories that the plan shows: secrets, and its mounts.
fn detach(plan: &Plan) -> Result<(Option<OwnedFd>, Vec<OwnedFd>)> {
    let secrets = plan.secrets.as_deref().map(detached).transpose()?;
    let mounts = plan.mounts.iter().map(|shown| detached(&shown.source)).collect::<Result<_>>()?;
    Ok((secrets, mounts))
}

/// A directory as a mount of its own that is nowhere yet (open_tree(2)).
fn detached(dir: &Path) -> Result<OwnedFd> {
    let context = || format!("cannot show {}", dir.display());
    let dir = File::open(dir).context(context)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(&dir, "", flags).context(context)
}
