//! A daemon's own dataset, below the one that `FAAS_JAILS_TEST_DATASET` names: then every daemon under test keeps its
//! images and roots on ZFS. tools/with-pool.sh makes a pool for that, and tools/freebsd-test.sh does.

use std::collections::BTreeSet;
use std::env;
use std::process::Command;

/// The variable that names the dataset below which each daemon has its own.
pub const PARENT: &str = "FAAS_JAILS_TEST_DATASET";

/// A dataset. One that was made here goes with everything in it when this is dropped.
pub struct Dataset {
    name: String,
    made: bool,
}

impl Dataset {
    /// The one that the test names, or a new one where this run is on ZFS.
    pub fn for_daemon(realm: &str, given: Option<&str>) -> Option<Self> {
        if let Some(name) = given {
            return Some(Self { name: name.to_owned(), made: false });
        }
        let name = format!("{}/{realm}", env::var(PARENT).ok()?);
        // A test run that was killed may have left one of the same name.
        let _ = Command::new("zfs").args(["destroy", "-Rf", &name]).output();
        zfs(&["create", "-o", "canmount=off", &name]).unwrap_or_else(|said| panic!("{said}"));
        Some(Self { name, made: true })
    }

    /// How many layers are in it: each has one snapshot.
    pub fn layers(&self) -> usize {
        let listed =
            Command::new("zfs").args(["list", "-H", "-t", "snapshot", "-o", "name", "-r", &self.name]).output();
        let listed = String::from_utf8_lossy(&listed.expect("running zfs").stdout).into_owned();
        listed.lines().filter(|name| name.ends_with("@layer")).count()
    }

    /// The configuration's table for it.
    pub fn table(&self) -> String {
        format!("[zfs]\ndataset = \"{}\"\n", self.name)
    }
}

impl Drop for Dataset {
    fn drop(&mut self) {
        if !self.made {
            return;
        }
        if let Err(said) = zfs(&["destroy", "-R", &self.name]) {
            assert!(std::thread::panicking(), "{said}");
            eprintln!("{said}");
        }
    }
}

/// Datasets of a realm's roots, where this run is on ZFS.
pub fn roots(realm: &str) -> BTreeSet<String> {
    let Ok(parent) = env::var(PARENT) else { return BTreeSet::new() };
    let listed = Command::new("zfs").args(["list", "-H", "-o", "name", "-r", &format!("{parent}/{realm}")]).output();
    let listed = String::from_utf8_lossy(&listed.expect("running zfs").stdout).into_owned();
    let place = format!("/{realm}/roots/");
    listed.lines().filter(|name| name.contains(&place)).map(str::to_owned).collect()
}

fn zfs(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("zfs").args(arguments).output().expect("running zfs");
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("zfs {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr))),
    }
}
