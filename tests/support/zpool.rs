//! A throw-away ZFS pool in a temporary file, for tests that want the real thing: OpenZFS where the kernel has
//! it, zfs-fuse otherwise. Installs nothing. Needs root.
//!
//! There is one zfs-fuse per machine and several test runs may share it, so it is started under a lock, its users
//! are counted by shared locks on a file, and the last one ends it if a test run has started it.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A pool. [`Pool::finish`] destroys it and checks that nothing is left; dropping destroys it too.
pub struct Pool {
    name: String,
    dir: Option<tempfile::TempDir>,
    _daemon: Daemon,
}

impl Pool {
    /// A new pool of this many MiB. `None`, loudly, where that is not possible.
    pub fn new(mebibytes: u64) -> Option<Self> {
        // SAFETY: no arguments, cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            return skip("needs root");
        }
        if Command::new("zpool").arg("-?").output().is_err() {
            return skip("needs zpool and zfs (Debian: apt-get install zfs-fuse)");
        }
        let daemon = match Daemon::join() {
            Ok(daemon) => daemon,
            Err(reason) => return skip(&reason),
        };
        let dir = tempfile::Builder::new().prefix("faas-jails-zpool").tempdir().unwrap();
        let name = format!("fjt{}x{:x}", std::process::id(), rand::random::<u32>());
        let file = dir.path().join("vdev");
        File::create(&file).unwrap().set_len(mebibytes << 20).unwrap();
        let options = ["create", "-o", "cachefile=none", "-m", "none", &name];
        run("zpool", &[&options[..], &[file.to_str().unwrap()]].concat());
        Some(Self { name, dir: Some(dir), _daemon: daemon })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A temporary directory that lives as long as the pool, in which things may be mounted.
    pub fn dir(&self) -> PathBuf {
        self.dir.as_ref().unwrap().path().canonicalize().unwrap()
    }

    /// All filesystems and snapshots in it.
    pub fn datasets(&self) -> Vec<String> {
        let listed = run("zfs", &["list", "-H", "-r", "-t", "filesystem,snapshot", "-o", "name", &self.name]);
        listed.lines().map(str::to_owned).collect()
    }

    /// Mounts of its datasets that this process can see.
    pub fn mounts(&self) -> Vec<String> {
        mounts().into_iter().filter(|line| line.contains(&self.name)).collect()
    }

    /// Destroys it, and fails if it, or a mount or file below its directory, is still there.
    pub fn finish(mut self) {
        let dir = self.dir();
        run("zpool", &["destroy", &self.name]);
        self.dir.take().unwrap().close().unwrap();
        assert!(!run("zpool", &["list", "-H", "-o", "name"]).lines().any(|pool| pool == self.name));
        assert_eq!(self.mounts(), Vec::<String>::new());
        assert!(!dir.exists(), "{} is left", dir.display());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.dir.is_some() {
            let _ = Command::new("zpool").args(["destroy", "-f", &self.name]).output();
        }
    }
}

fn skip<T>(reason: &str) -> Option<T> {
    eprintln!("SKIPPED: {reason}");
    None
}

/// The mount table, a line each.
pub fn mounts() -> Vec<String> {
    run("mount", &[]).lines().map(str::to_owned).collect()
}

/// Runs a command that must succeed and returns what it wrote.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {error}", arguments.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `zfs`, which must succeed. As the program does it: zfs-fuse hangs when it mounts two filesystems at once.
pub fn zfs(arguments: &[&str]) -> String {
    let _turn = File::open("/run/zfs").and_then(|directory| directory.lock().map(|()| directory));
    run("zfs", arguments)
}

/// One user of the ZFS that runs on this machine.
struct Daemon {
    /// Shared lock: somebody uses zfs-fuse. None where ZFS is in the kernel.
    users: Option<File>,
}

const STATE: &str = "/run/lock";

impl Daemon {
    /// Starts zfs-fuse if it is needed and not there.
    fn join() -> Result<Self, String> {
        if cfg!(target_os = "freebsd") || Path::new("/dev/zfs").exists() {
            return Ok(Self { users: None });
        }
        if !Path::new("/dev/fuse").exists() {
            return Err("needs ZFS in the kernel, or /dev/fuse for zfs-fuse".to_owned());
        }
        let _starting = locked("start", libc::LOCK_EX)?;
        let users = locked("users", libc::LOCK_SH)?;
        if !answers() {
            let pid_file = pid_file();
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/zfs-fuse.sh");
            let started = Command::new(script).arg("start").arg(&pid_file).output();
            started.map_err(|error| format!("needs zfs-fuse: {error}"))?;
            if !within(Duration::from_secs(10), answers) {
                return Err("zfs-fuse does not answer".to_owned());
            }
        }
        Ok(Self { users: Some(users) })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let Some(users) = self.users.take() else { return };
        let Ok(_starting) = locked("start", libc::LOCK_EX) else { return };
        // SAFETY: the descriptor is open.
        let last = unsafe { libc::flock(users.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0;
        let pid = std::fs::read_to_string(pid_file()).ok().and_then(|text| text.trim().parse::<i32>().ok());
        let (true, Some(pid)) = (last, pid) else { return };
        let ours = || std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "zfs-fuse");
        if ours() {
            // SAFETY: plain integers; the process is the zfs-fuse that a test run has started.
            unsafe { libc::kill(pid, libc::SIGTERM) };
            within(Duration::from_secs(10), || !ours());
        }
        let _ = std::fs::remove_file(pid_file());
    }
}

fn pid_file() -> PathBuf {
    Path::new(STATE).join("faas-jails-test-zfs-fuse.pid")
}

/// Opens one of the lock files and waits for the lock.
fn locked(name: &str, operation: libc::c_int) -> Result<File, String> {
    let path = Path::new(STATE).join(format!("faas-jails-test-zfs-fuse.{name}"));
    let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(|error| format!("needs to write {}: {error}", path.display()))?;
    // SAFETY: the descriptor is open.
    match unsafe { libc::flock(file.as_raw_fd(), operation) } {
        0 => Ok(file),
        _ => Err(format!("cannot lock {}", path.display())),
    }
}

fn answers() -> bool {
    Command::new("timeout")
        .args(["-k", "1", "20", "zpool", "list", "-H"])
        .output()
        .is_ok_and(|output| output.status.success())
}

fn within(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !done() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    true
}
