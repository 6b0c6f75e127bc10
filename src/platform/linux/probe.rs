//! What this host offers, for people to read, and what it lacks, as one sentence with the way out.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;

use super::cgroup::Cgroups;
use crate::fault::{Context, Fault, Kind, Result};
use crate::function::Realm;

/// The kernel that everything used here is in: close_range(2) and clone3(2) into a cgroup, overlayfs's volatile mounts.
const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// Facts about this host, name and value, in the order of showing.
pub fn probe() -> Vec<(String, String)> {
    let system = rustix::system::uname();
    let cgroups = Cgroups::detect(Realm::default()).map_or_else(|fault| fault.to_string(), |c| c.describe());
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let translator = ["nft", "iptables"].into_iter().find_map(find_program);
    [
        ("kernel", system.release().to_string_lossy().into_owned()),
        ("machine", system.machine().to_string_lossy().into_owned()),
        ("root", yes(rustix::process::geteuid().is_root())),
        ("cgroups", cgroups),
        ("overlayfs", yes(has_filesystem("overlay"))),
        ("zfs", yes(has_filesystem("zfs"))),
        ("seccomp filters", yes(has_filters())),
        ("address translation", translator.map_or("neither nft nor iptables".to_owned(), |p| p.display().to_string())),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Says what is missing to run replicas with their roots under `storage`, a directory that exists.
pub fn check(storage: &Path) -> Result<()> {
    let lacks = |sentence: String| Err(Fault::new(Kind::Unsupported, sentence));
    if !rustix::process::geteuid().is_root() {
        let message = "faas-jails makes namespaces and mounts, which needs root; start it with sudo or as a service";
        return Err(Fault::new(Kind::Denied, message));
    }
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    if version(&release).is_some_and(|version| version < OLDEST_KERNEL) {
        let (major, minor) = OLDEST_KERNEL;
        return lacks(format!("kernel {release} is too old; Linux {major}.{minor} or newer is needed"));
    }
    if !has_filters() {
        return lacks(
            "this kernel has no seccomp filters (CONFIG_SECCOMP_FILTER), without which no function is run".into(),
        );
    }
    Cgroups::detect(Realm::default())?;
    try_overlay(storage)
}

/// Mounts an overlay on `storage` where nobody sees it: not every filesystem can be below one.
fn try_overlay(storage: &Path) -> Result<()> {
    let scratch = scratch_in(storage)?;
    let dir = scratch.clone();
    let trial = move || -> std::io::Result<()> {
        // SAFETY: affects this thread only, which runs nothing but this closure.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }?;
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        // This thread's own directory since FS was unshared.
        rustix::process::chdir(&dir)?;
        rustix::mount::mount(
            "overlay",
            "root",
            "overlay",
            MountFlags::empty(),
            Some(c"lowerdir=lower,upperdir=upper,workdir=work"),
        )?;
        Ok(())
    };
    let thread = std::thread::Builder::new().name("overlay-trial".into()).spawn(trial);
    let result = thread.and_then(|t| t.join().unwrap_or_else(|_| Err(std::io::Error::other("the thread panicked"))));
    let removed = fs::remove_dir_all(&scratch).context(|| format!("cannot remove {}", scratch.display()));
    let result = result.context(|| {
        format!(
            "overlayfs does not work on {}; load the module (modprobe overlay), and keep storage on ext4, xfs or btrfs, not on another overlay or a network filesystem",
            storage.display()
        )
    });
    match result {
        Ok(()) => removed,
        Err(fault) => Err(fault.and_cleanup(removed)),
    }
}

fn scratch_in(storage: &Path) -> Result<PathBuf> {
    let scratch = storage.join(format!("trial.{}", uuid::Uuid::new_v4().simple()));
    for dir in ["root", "lower", "upper", "work"] {
        fs::create_dir_all(scratch.join(dir)).context(|| format!("cannot write to {}", storage.display()))?;
    }
    Ok(scratch)
}

fn has_filters() -> bool {
    fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").is_ok_and(|actions| actions.contains("errno"))
}

/// Loaded or built in. What is a module loads at its first mount.
fn has_filesystem(name: &str) -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.lines().any(|line| line.split_whitespace().last() == Some(name))
}

fn find_program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// `6.1.0-18-amd64` is (6, 1).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.10"), Some((5, 10)));
        assert!(version("5.9.16-arch1") < Some(OLDEST_KERNEL));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn the_facts_name_the_kernel_that_runs() {
        let facts = probe();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(facts[0], ("kernel".to_owned(), kernel.trim().to_owned()));
    }
}
