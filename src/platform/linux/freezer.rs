//! Stopping a replica in place: `cgroup.freeze` of version 2 (cgroup-v2.rst), the freezer controller of version 1
//! (cgroup-v1/freezer-subsystem.rst). Neither can be seen from inside, or refused.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::cgroup::Cgroups;
use super::hierarchy::Version;
use crate::fault::{Context, Fault, Kind, Result};
use crate::function::ReplicaName;

/// How long a process may take to stop; one that sits in the kernel stops when it comes out.
const PATIENCE: Duration = Duration::from_secs(2);

impl Cgroups {
    /// Stops every process of the replica, those that it is about to fork included. On failure all go on.
    pub(super) fn freeze(&self, replica: &ReplicaName) -> Result<()> {
        let Some((version, dir)) = self.freezer(replica) else {
            let text = "this host's cgroups cannot freeze: mount the freezer controller, or run a kernel of 5.2 or newer with version 2";
            return Err(Fault::new(Kind::Unsupported, text));
        };
        let done = write_state(version, &dir, true).and_then(|()| wait_until_frozen(version, &dir));
        done.context(|| format!("cannot freeze {replica}")).map_err(|fault| fault.and_cleanup(self.thaw(replica)))
    }

    /// Lets every process of the replica go on. Not frozen, or gone, is success.
    pub(super) fn thaw(&self, replica: &ReplicaName) -> Result<()> {
        let Some((version, dir)) = self.freezer(replica) else { return Ok(()) };
        match write_state(version, &dir, false) {
            // ENODEV: the cgroup is being taken away.
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            result => result.context(|| format!("cannot thaw {replica}")),
        }
    }

    fn freezer(&self, replica: &ReplicaName) -> Option<(Version, PathBuf)> {
        let unified = || self.directory(replica, |h| h.version == Version::Two);
        self.directory(replica, |h| h.controllers.contains("freezer")).or_else(unified)
    }
}

fn write_state(version: Version, dir: &std::path::Path, frozen: bool) -> io::Result<()> {
    match (version, frozen) {
        (Version::One, true) => fs::write(dir.join("freezer.state"), "FROZEN"),
        (Version::One, false) => fs::write(dir.join("freezer.state"), "THAWED"),
        (Version::Two, frozen) => fs::write(dir.join("cgroup.freeze"), if frozen { "1" } else { "0" }),
    }
}

fn wait_until_frozen(version: Version, dir: &std::path::Path) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        let frozen = match version {
            // Reading it also makes the kernel look again.
            Version::One => fs::read_to_string(dir.join("freezer.state"))?.trim() == "FROZEN",
            Version::Two => fs::read_to_string(dir.join("cgroup.events"))?.lines().any(|line| line == "frozen 1"),
        };
        if frozen {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "a process of it does not stop"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
