//! The zfs-fuse that the tests start is mended (tools/zfs-fuse.c): what made it hang does so no more.

use std::fs::{self, File};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::zpool::{Pool, zfs};

/// zfs-fuse, stopped until this is dropped.
struct Stopped(i32);

impl Stopped {
    fn new() -> Option<Self> {
        let text = fs::read_to_string("/run/lock/faas-jails-test-zfs-fuse.pid").ok()?;
        let pid = text.trim().parse().expect("the pid of zfs-fuse");
        if fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim() != "zfs-fuse" {
            return None;
        }
        // SAFETY: plain integers; the process is the zfs-fuse that a test run has started.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGSTOP) }, 0);
        let stopped = Self(pid);
        within_a_minute("every thread of zfs-fuse stops", || {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            let mut states = threads.map(|thread| fs::read_to_string(thread.unwrap().path().join("status")).unwrap());
            states.all(|status| status.contains("\nState:\tT"))
        });
        Some(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::kill(self.0, libc::SIGCONT) };
    }
}

fn within_a_minute(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn succeeds(command: &[&str]) -> bool {
    Command::new("timeout").args(["-k", "1", "10"]).args(command).output().unwrap().status.success()
}

#[test]
fn an_unmount_that_overtakes_the_closing_of_a_file_does_not_hang_it() {
    let Some(pool) = Pool::new(128) else { return };
    let (dataset, point) = (format!("{}/r", pool.name()), pool.dir().join("m"));
    zfs(&["create", "-o", &format!("mountpoint={}", point.display()), &dataset]);
    let path = point.join("file");
    fs::write(&path, "text").unwrap();
    let file = File::open(&path).unwrap();
    let Some(stopped) = Stopped::new() else {
        eprintln!("SKIPPED: is about the zfs-fuse that a test run starts");
        drop(file);
        return pool.finish();
    };
    // The kernel drops what zfs-fuse has not read of a filesystem that is unmounted.
    drop(file);
    assert!(succeeds(&["umount", "-l", point.to_str().unwrap()]));
    drop(stopped);
    within_a_minute("zfs-fuse lets go of it", || succeeds(&["flock", "/run/zfs", "zfs", "mount", &dataset]));
    assert!(succeeds(&["cat", path.to_str().unwrap()]), "zfs-fuse hangs");
    pool.finish();
}
