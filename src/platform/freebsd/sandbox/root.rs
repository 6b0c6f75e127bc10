//! A replica's root: its mounts, and what is put into the tree before its program runs.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::super::devfs;
use super::super::mount::Mount;
use super::super::tree::Tree;
use super::lent::Lent;
use super::root_of;
use crate::fault::{Context, Fault, Kind, Result};
use crate::sandbox::{Access, Personality, Plan};
use crate::storage::Root;

/// Where secrets are shown.
const SECRETS: &str = "/var/openfaas/secrets";
/// Directories that something is mounted on. `/proc` and `/sys` are for Linux programs.
pub const TARGETS: [&str; 5] = ["/dev", "/tmp", "/proc", "/sys", SECRETS];
/// Most bytes of a memory file system when the plan limits no memory.
const MEMORY_FS: u64 = 256 << 20;

/// Whether things can still be made in a mounted root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Surface {
    Open,
    Sealed,
}

/// Mounts all of `plan`'s root and gives its path on the host.
pub fn mount(plan: &Plan, lent: &Lent) -> Result<PathBuf> {
    let root = root_of(&plan.run_dir);
    make_directory(&root)?;
    let surface = mount_tree(plan, &root, lent)?;
    let tree = Tree::open(&root)?;
    let at = |inside: &Path| match surface {
        Surface::Open => tree.directory(inside),
        Surface::Sealed => tree.existing(inside).map_err(unfurnished),
    };
    let place = |inside: &str| at(Path::new(inside));
    if surface == Surface::Open {
        furnish(&tree, plan)?;
        if let (true, Root::Zfs(dataset)) = (plan.read_only, &plan.root) {
            // The targets are there; from here on nobody writes.
            targets(plan).into_iter().try_for_each(|target| at(target).map(drop))?;
            Mount::zfs(dataset)?.read_only().update(&root)?;
        }
    } else {
        cover_files(plan, &tree)?;
    }
    let dev = place("/dev")?;
    Mount::devfs(devfs::RULESET)?.at(&dev)?;
    match plan.personality {
        Personality::Native => Mount::fdescfs().at(&dev.join("fd"))?,
        Personality::Linux => {
            Mount::fdescfs_linux().at(&dev.join("fd"))?;
            Mount::tmpfs(memory_fs(plan), 0o1777)?.at(&dev.join("shm"))?;
            Mount::linprocfs().at(&place("/proc")?)?;
            Mount::linsysfs().at(&place("/sys")?)?;
        }
    }
    if plan.read_only {
        Mount::tmpfs(memory_fs(plan), 0o1777)?.at(&place("/tmp")?)?;
    }
    for shown in &plan.mounts {
        let mount = Mount::nullfs(&shown.source)?;
        let mount = if shown.access == Access::Read { mount.read_only() } else { mount };
        mount.at(&at(&shown.target)?)?;
    }
    if let Some(secrets) = &plan.secrets {
        Mount::nullfs(secrets)?.read_only().no_exec().at(&place(SECRETS)?)?;
    }
    Ok(root)
}

/// Mounts the tree itself.
fn mount_tree(plan: &Plan, root: &Path, lent: &Lent) -> Result<Surface> {
    match &plan.root {
        Root::Zfs(snapshot) if snapshot.contains('@') => {
            if !plan.read_only {
                let message = format!("{} would write to snapshot {snapshot}; give it a clone", plan.replica);
                return Err(Fault::invalid(message));
            }
            lent.lend(snapshot, root)?;
            Ok(Surface::Sealed)
        }
        Root::Zfs(dataset) => {
            Mount::zfs(dataset)?.at(root)?;
            Ok(Surface::Open)
        }
        Root::Directory(dir) if plan.read_only => {
            // nullfs cannot become read-only later, so what is missing is made underneath, before.
            let tree = Tree::open(dir)?;
            furnish(&tree, plan)?;
            targets(plan).into_iter().try_for_each(|target| tree.directory(target).map(drop))?;
            Mount::nullfs(dir)?.read_only().at(root)?;
            Ok(Surface::Sealed)
        }
        Root::Directory(dir) => {
            Mount::nullfs(dir)?.at(root)?;
            Ok(Surface::Open)
        }
        Root::Overlay { .. } => Err(Fault::new(
            Kind::Unsupported,
            format!("{} has an overlay root, which FreeBSD has not; use ZFS storage", plan.replica),
        )),
    }
}

/// The directories that this plan mounts something on.
fn targets(plan: &Plan) -> Vec<&Path> {
    let linux = plan.personality == Personality::Linux;
    let wanted = |target: &&str| match *target {
        "/tmp" => plan.read_only,
        "/proc" | "/sys" => linux,
        SECRETS => plan.secrets.is_some(),
        _ => true,
    };
    let fixed = TARGETS.into_iter().filter(wanted).map(Path::new);
    fixed.chain(plan.mounts.iter().map(|shown| shown.target.as_path())).collect()
}

/// Puts the plan's files and its working directory into a tree.
fn furnish(tree: &Tree, plan: &Plan) -> Result<()> {
    for (path, content) in &plan.files {
        tree.file(path, content)?;
    }
    // As container engines do, a working directory that the image lacks is made. One that leads through a
    // link is the image's own, and is entered from inside.
    match tree.directory(&plan.workdir) {
        Err(fault) if tree.has_link(&plan.workdir) => {
            tracing::debug!("working directory left to the image: {fault}");
            Ok(())
        }
        other => other.map(drop),
    }
}

/// Shows the plan's files over those of a tree that cannot be written to. A plain directory was furnished
/// before it was mounted.
fn cover_files(plan: &Plan, tree: &Tree) -> Result<()> {
    if matches!(plan.root, Root::Directory(_)) {
        return Ok(());
    }
    let kept = plan.run_dir.join("files");
    make_directory(&kept)?;
    for (number, (path, content)) in plan.files.iter().enumerate() {
        let source = kept.join(number.to_string());
        std::fs::write(&source, content).context(|| format!("cannot write {}", source.display()))?;
        let target = tree.existing_file(path).map_err(unfurnished)?;
        Mount::nullfs(&source)?.read_only().no_exec().at(&target)?;
    }
    Ok(())
}

fn unfurnished(fault: Fault) -> Fault {
    fault.within("the image's snapshot lacks a place that a read-only replica needs; run it on a clone instead, or load the image again")
}

fn memory_fs(plan: &Plan) -> u64 {
    plan.limits.memory.unwrap_or(MEMORY_FS)
}

fn make_directory(path: &Path) -> Result<()> {
    match std::fs::DirBuilder::new().mode(0o755).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(e).context(|| format!("cannot make {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes what [`mount`] made in the replica's own directory; what is mounted there must be gone, as a
/// directory that still has something in it stays.
pub fn remove_directories(run_dir: &Path) -> Result<()> {
    let kept = run_dir.join("files");
    let results = [std::fs::remove_dir(root_of(run_dir)), std::fs::remove_dir_all(&kept)];
    for result in results {
        match result {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(e).context(|| format!("cannot clean {}", run_dir.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
