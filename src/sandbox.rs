//! The isolation of one replica: the sandbox capability, as plain data.
//!
//! ```text
//!  start(plan) ──> running ──(exit, signal)──> exited ──> remove ──> nothing left
//!       │ fails                                              ▲
//!       └── undoes its own steps, reports errno and stage    │ also for what a dead daemon left behind
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

mod cpus;

pub use cpus::Cpus;

use crate::fault::Result;
use crate::function::ReplicaName;
use crate::network::Attachment;
use crate::storage::Root;

/// Starts, watches and removes replicas. A replica outlives the daemon that started it.
pub trait Sandbox: Send + Sync {
    /// Makes all of a replica but its program, so that [`Sandbox::start`] has less to do: of the plan that it is
    /// given then, only input, output and errors may be others. Nobody but this process knows that it is there for a
    /// reason, and [`Sandbox::remove`] takes it away. A failure leaves nothing.
    fn prepare(&self, plan: &Plan) -> Result<()>;

    /// Starts the plan's program. On return it has been exec'ed (or the call failed and left nothing).
    fn start(&self, plan: &Plan) -> Result<()>;

    /// Sends a signal to the replica's first process. Gone is success.
    fn signal(&self, replica: &ReplicaName, signal: Signal) -> Result<()>;

    /// Kills every process of it, waits until they are gone, and takes away its mounts and limits.
    /// Already gone is success.
    fn remove(&self, replica: &ReplicaName) -> Result<()>;

    /// Calls `on_exit` once, from another thread, when the replica's first process ends; at once if it has.
    /// Works for adopted replicas too; their exit status may be unknown.
    fn watch(&self, replica: &ReplicaName, on_exit: Box<dyn FnOnce(Exit) + Send>) -> Result<()>;

    /// Replicas of this realm that the kernel knows, running or half removed.
    fn list(&self) -> Result<Vec<Found>>;

    /// Stops every process of it where it is. [`crate::fault::Kind::Unsupported`] where this host cannot; on
    /// failure all go on.
    fn freeze(&self, replica: &ReplicaName) -> Result<()>;

    /// Lets its processes go on. Not frozen, or gone, is success; also of one that an earlier daemon has frozen.
    /// [`Sandbox::remove`] needs it not.
    fn thaw(&self, replica: &ReplicaName) -> Result<()>;

    /// What the replica uses now.
    fn usage(&self, replica: &ReplicaName) -> Result<Usage>;

    /// Runs one more program in a live replica, confined as its first one is, and waits for its end. It ends with
    /// this process. [`crate::fault::Kind::NotFound`] when the replica does not run.
    fn exec(&self, replica: &ReplicaName, program: &Program) -> Result<Exit>;

    /// Takes away what all replicas of the realm share, if none is left. Already gone is success.
    fn teardown(&self) -> Result<()>;
}

/// Everything needed to start one replica.
#[derive(Debug)]
pub struct Plan {
    /// Its name: of the jail, of the cgroup.
    pub replica: ReplicaName,
    /// Its root filesystem; the sandbox mounts it.
    pub root: Root,
    /// Mount the root read-only and give it a fresh writable /tmp.
    pub read_only: bool,
    /// Its network.
    pub network: Attachment,
    /// Host name inside, usually the function's name.
    pub hostname: String,
    /// Program and arguments. The program is looked up in the environment's PATH inside the root.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Working directory inside.
    pub workdir: PathBuf,
    /// Who it runs as, already resolved to numbers.
    pub user: User,
    /// Directory of secret files to show read-only at /var/openfaas/secrets.
    pub secrets: Option<PathBuf>,
    /// Files the sandbox places in the root before anything runs, by absolute path inside: /etc/hosts, /etc/resolv.conf.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// What it may use at most.
    pub limits: Limits,
    /// Which system's programs the image holds.
    pub personality: Personality,
    /// Directories of the host that it sees, mounted in this order over what its root has there.
    pub mounts: Vec<Mount>,
    /// What it reads as its standard input; nothing when absent.
    pub input: Option<OwnedFd>,
    /// Where its standard output and error go: opened for appending, or a pipe.
    pub output: OwnedFd,
    /// Where its standard error goes when it is kept apart from its output.
    pub errors: Option<OwnedFd>,
    /// Where the sandbox keeps what it needs for this replica (mount points); made by the caller, emptied by `remove`.
    pub run_dir: PathBuf,
}

/// A directory of the host shown inside a sandbox. Neither setuid programs nor devices work in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The host's directory; what else is mounted below it is not shown.
    pub source: PathBuf,
    /// Where it is seen, an absolute path outside /dev, /proc, /sys and /tmp; made when the root lacks it.
    pub target: PathBuf,
    /// What may be done with it.
    pub access: Access,
}

/// What may be done with a directory of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing in it can be changed.
    Read,
    /// Its files' owners and modes decide.
    Write,
}

/// A program for [`Sandbox::exec`].
#[derive(Debug)]
pub struct Program {
    /// Program and arguments. The program is looked up in the environment's PATH inside the root.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Working directory inside.
    pub workdir: PathBuf,
    /// Who it runs as.
    pub user: User,
    /// Files it may have open at once, if limited.
    pub open_files: Option<u64>,
    /// Standard input, output and error.
    pub stdio: [OwnedFd; 3],
}

/// Which system's programs an image holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Personality {
    /// The host's own.
    #[default]
    Native,
    /// Linux programs on a FreeBSD host.
    Linux,
}

/// A user inside a sandbox, in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// What a replica may use at most. `None` is no limit.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Limits {
    /// Bytes of memory, swap included; beyond it the replica is killed.
    pub memory: Option<u64>,
    /// Thousandths of one processor.
    pub cpu_millis: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Open files per process.
    pub open_files: Option<u64>,
    /// Input and output.
    pub io: Rates,
    /// The processors that it runs on; `None` is all.
    pub cpus: Option<Cpus>,
}

/// What a replica may read from disks and write to them, a second. `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Bytes written.
    pub write_bytes: Option<u64>,
    /// Reads.
    pub read_ops: Option<u64>,
    /// Writes.
    pub write_ops: Option<u64>,
}

/// The signals a supervisor needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Please end.
    Term,
    /// End.
    Kill,
}

/// How a replica's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It called exit with this status.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It was killed for using more memory than its limit.
    OutOfMemory,
    /// It ended, and this daemon was not its parent.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exited with status {code}"),
            Exit::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Exit::OutOfMemory => write!(f, "was killed for using more memory than its limit"),
            Exit::Unknown => write!(f, "ended"),
        }
    }
}

/// A replica that the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub replica: ReplicaName,
    /// Whether its first process is alive. `false`: something of it remains to be removed.
    pub alive: bool,
    /// The number by which this system's own tools know it, while it is alive: a jail's jid; on Linux the process id of
    /// its first process.
    pub number: Option<i32>,
}

/// What a replica uses.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Usage {
    /// Processor time since its start.
    pub cpu: Duration,
    /// Bytes of memory resident now.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u64,
}
