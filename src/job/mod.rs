//! One-shot sandbox runs: a program in a root of its own, its output caught, everything thrown away afterwards.
//!
//! ```text
//! Jobs::run: directory + lock ── root cloned ── network ── start ──> streams caught, clock, disk watched
//!                                                              └─> exit | a limit ──> kill, unmount, destroy ──> Outcome
//! ```
//!
//! A job is a replica of nothing: it bears a replica's name, in the namespace [`NAMESPACE`], and uses a replica's
//! directories, but has no replica's record. So the daemon's sweep at its start takes away what a crash left of a
//! job, by the code that sweeps replicas. A job that another process of this realm runs meanwhile
//! (`faas-jails build` beside the daemon) is left alone: it holds a lock ([`is_running`]).
//!
//! Nothing of the host is in a job: its environment, files and mounts are what [`Job`] says. Its limits hold in any case:
//! wall time and output by this module, disk by the storage's quota where it has one and by looking at it in between,
//! memory, processors and processes by the sandbox.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::fault::{Context, Fault, Kind, Result};
use crate::files;
use crate::function::{FunctionKey, Realm, ReplicaName};
use crate::image::Layer;
use crate::network::Link;
use crate::platform::Platform;
use crate::sandbox::{Exit, Mount, Personality, User};

mod capture;
mod disk;
mod run;
#[cfg(test)]
mod tests;

pub use capture::{Captured, Stream};

/// The namespace of jobs' names.
pub const NAMESPACE: &str = "faas-jails-jobs";

/// Who jobs run as: a number that no system gives to a user of its own, so that no host process shares it.
pub const NOBODY: u32 = 64_321;

/// Runs jobs of one realm.
pub struct Jobs {
    root: PathBuf,
    realm: Realm,
    platform: Platform,
    stopping: AtomicBool,
}

/// Everything needed to run one job.
#[derive(Debug)]
pub struct Job {
    /// From [`Jobs::name`].
    pub name: ReplicaName,
    /// What its root is cloned from, lowest first; none for an empty root.
    pub layers: Vec<Layer>,
    /// Whether its root is read-only, with a fresh writable /tmp.
    pub read_only: bool,
    /// Directories of the host that it sees.
    pub mounts: Vec<Mount>,
    /// Files placed in its root before it starts, by absolute path.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// Its link, with addresses that the caller holds until the run has ended; no network at all when absent.
    pub link: Option<Link>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Working directory inside.
    pub workdir: PathBuf,
    /// Who it runs as.
    pub user: User,
    /// Which system's programs its root holds.
    pub personality: Personality,
    /// What it reads as its standard input.
    pub input: Option<Vec<u8>>,
    /// What it may use.
    pub limits: Limits,
}

impl Job {
    /// A job with an empty root, no network, no environment, as [`NOBODY`].
    pub fn new(name: ReplicaName, argv: Vec<String>, limits: Limits) -> Self {
        Self {
            name,
            layers: Vec::new(),
            read_only: false,
            mounts: Vec::new(),
            files: BTreeMap::new(),
            link: None,
            argv,
            env: BTreeMap::new(),
            workdir: "/".into(),
            user: User { uid: NOBODY, gid: NOBODY, groups: Vec::new() },
            personality: Personality::Native,
            input: None,
            limits,
        }
    }
}

/// What a job may use at most.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Time from start to end.
    pub wall: Duration,
    /// Bytes of each of its two output streams; printing more ends it.
    pub output: usize,
    /// Bytes that it may add to its root and its writable mounts together.
    pub disk: Option<u64>,
    /// The rest, which the sandbox enforces.
    pub sandbox: crate::sandbox::Limits,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, or for its memory.
    Exited(Exit),
    /// It was ended because its time was up.
    TimedOut,
    /// It was ended because it printed too much.
    Flooded,
    /// It was ended because it wrote too much.
    DiskFull,
    /// It was ended because this process is stopping.
    Stopped,
}

/// What became of a job.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// What it printed, up to its limit.
    pub stdout: Captured,
    /// What it complained of, up to its limit.
    pub stderr: Captured,
    /// How long it ran.
    pub took: Duration,
    /// How long it took to get there.
    pub before: Before,
}

/// How long the steps before a job's start took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Before {
    /// Cloning its root.
    pub clone: Duration,
    /// Its network and its sandbox.
    pub start: Duration,
}

impl Outcome {
    /// Whether it ended by itself with status 0.
    pub fn succeeded(&self) -> bool {
        self.end == End::Exited(Exit::Code(0))
    }
}

impl Limits {
    /// How a job under these limits ended, for people: `ran longer than 5s, its limit`.
    pub fn describe(&self, end: End) -> String {
        match end {
            End::Exited(exit) => exit.to_string(),
            End::TimedOut => format!("ran longer than {:?}, its limit, and was ended", self.wall),
            End::Flooded => format!("printed more than {} bytes, its limit, and was ended", self.output),
            End::DiskFull => {
                format!("wrote more than {} bytes, its limit, and was ended", self.disk.unwrap_or_default())
            }
            End::Stopped => "was ended because faas-jails is stopping".into(),
        }
    }
}

/// Hears of output while it comes.
pub type Listener<'a> = &'a (dyn Fn(Stream, &[u8]) + Sync);

impl Jobs {
    /// Jobs with their directories under `root`, the daemon's state directory.
    pub fn new(root: &Path, realm: &Realm, platform: Platform) -> Self {
        Self { root: root.to_owned(), realm: realm.clone(), platform, stopping: AtomicBool::new(false) }
    }

    /// A new name for a job; `kind`, a DNS label, is what people see of it in process and jail lists.
    pub fn name(&self, kind: &str) -> Result<ReplicaName> {
        let key = FunctionKey { namespace: NAMESPACE.parse()?, name: kind.parse()? };
        Ok(ReplicaName::new(&self.realm, &key))
    }

    /// Runs a job to its end; `listen` hears of its output meanwhile. Whatever happens, nothing of it is left: if
    /// something could not be taken away, that is part of the failure, or logged when the job itself ended well.
    pub fn run(&self, job: Job, listen: Option<Listener<'_>>) -> Result<Outcome> {
        let name = job.name.clone();
        let dir = self.dir(&name);
        let _held = hold(&dir)?;
        match (self.attempt(job, listen), self.discard(&name)) {
            (Err(fault), discarded) => Err(fault.and_cleanup(discarded)),
            (Ok(outcome), Ok(())) => Ok(outcome),
            (Ok(outcome), Err(fault)) => {
                tracing::error!(%fault, "something of a job is left; the next start of faas-jails tries again");
                Ok(outcome)
            }
        }
    }

    /// Ends every job that this process runs, soon, and lets no other begin.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    fn dir(&self, name: &ReplicaName) -> PathBuf {
        self.root.join("replicas").join(name.to_string())
    }

    /// Tries every step; already gone is success.
    fn discard(&self, name: &ReplicaName) -> Result<()> {
        let steps = [
            self.platform.sandbox.remove(name),
            self.platform.network.detach(name),
            self.platform.storage.destroy_root(name),
            files::remove_tree(&self.root.join("run").join(name.to_string())).map(drop),
            files::remove_tree(&self.dir(name)).map(drop),
        ];
        let mut failed = steps.into_iter().filter_map(Result::err);
        let Some(first) = failed.next() else { return Ok(()) };
        Err(failed
            .fold(first, |fault, other| fault.and_cleanup(Err(other)))
            .within(format!("cannot remove job {name}")))
    }
}

const LOCK: &str = "job.lock";

fn hold(dir: &Path) -> Result<std::fs::File> {
    let path = dir.join(LOCK);
    let what = || format!("cannot make {}", path.display());
    std::fs::create_dir_all(dir).context(what)?;
    let file = std::fs::File::create_new(&path).context(what)?;
    file.try_lock().map_err(|e| Fault::new(Kind::Busy, e.to_string())).context(what)?;
    Ok(file)
}

/// Whether a process runs the job whose directory (`replicas/<name>` in the state directory) this is.
pub fn is_running(dir: &Path) -> bool {
    std::fs::File::open(dir.join(LOCK)).is_ok_and(|file| file.try_lock_shared().is_err())
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stream::Output => "stdout",
            Stream::Errors => "stderr",
        })
    }
}
