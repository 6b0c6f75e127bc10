//! What is kept between builds, and who may write to it.
//!
//! ```text
//! builder/modules/            every module fetched; root's, shown read-only (see modules)
//! builder/std/<key>/          compiled standard library; made by a job that sees nobody's source, then root's
//! builder/owners/<hash>/      one for each owner of builds
//!     mod/                    modules unpacked     \ written by this owner's builds,
//!     build-<key>/            compiled packages    / and shown to no other's
//! builder/results/<hash>.json what came out of which inputs
//! ```
//!
//! A build cache is not proof against its writers: Go believes what is filed under an action's hash. So what one owner's
//! builds compiled is for that owner only, and what all share is made without any of them. A new owner's cache starts
//! as hard links to the shared one, whose files a build cannot change: they are root's, and read-only.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::fault::{Context, Fault, Kind, Result};
use crate::files;
use crate::image::Digest;

use super::workspace::{Workspace, private, writable};

/// The caches of one builder.
#[derive(Debug)]
pub struct Caches {
    dir: PathBuf,
}

/// One owner's caches.
#[derive(Debug)]
pub struct Owned {
    /// GOMODCACHE.
    pub modules: PathBuf,
    /// GOCACHE.
    pub compiled: PathBuf,
}

impl Caches {
    /// Below `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The shared compiled standard library for `key` (Go version and target), if it has been made.
    pub fn standard(&self, key: &str) -> Option<PathBuf> {
        Some(self.dir.join("std").join(key)).filter(|dir| dir.exists())
    }

    /// Takes a cache that a job has filled with the standard library for everybody.
    pub fn keep_standard(&self, key: &str, filled: &Path) -> Result<()> {
        let std = self.dir.join("std");
        private(&std)?;
        seal(filled).context(|| format!("cannot keep {}", filled.display()))?;
        match fs::rename(filled, std.join(key)) {
            // Another process made it meanwhile.
            Err(_) if std.join(key).exists() => Ok(()),
            other => other.context(|| format!("cannot keep {}", filled.display())),
        }
    }

    /// The caches of `owner`, made and filled from the shared one if they are new.
    pub fn owned(&self, owner: &str, key: &str) -> Result<Owned> {
        let home = self.dir.join("owners").join(&Digest::of(owner).hex()[..32]);
        private(&home)?;
        // Remembers when it was used last.
        fs::write(home.join("owner"), owner).context(|| format!("cannot write in {}", home.display()))?;
        let owned = Owned { modules: home.join("mod"), compiled: home.join(format!("build-{key}")) };
        writable(&owned.modules)?;
        if !owned.compiled.exists() {
            let staging = Workspace::make(&self.dir.join("work"))?;
            let fresh = staging.writable("cache")?;
            if let Some(standard) = self.standard(key) {
                link(&standard, &fresh).context(|| "cannot fill a build cache")?;
            }
            match fs::rename(&fresh, &owned.compiled) {
                // Another build of this owner made it meanwhile.
                Err(_) if owned.compiled.exists() => {}
                other => other.context(|| format!("cannot make {}", owned.compiled.display()))?,
            }
        }
        Ok(owned)
    }

    /// Removes what no build has used for `keep`.
    pub fn expire(&self, keep: Duration) -> Result<()> {
        let owners = self.dir.join("owners");
        for name in files::names(&owners)? {
            let home = owners.join(&name);
            if older(&home.join("owner"), keep) {
                files::remove_tree(&home)?;
            }
        }
        let results = self.dir.join("results");
        for name in files::names(&results)? {
            if older(&results.join(&name), keep) {
                files::remove(&results.join(&name))?;
            }
        }
        Ok(())
    }

    /// What came out of these inputs, if it is remembered.
    pub fn result(&self, inputs: &Digest) -> Result<Option<Digest>> {
        files::read_json(&self.result_path(inputs))
    }

    /// Remembers what came out.
    pub fn keep_result(&self, inputs: &Digest, manifest: &Digest) -> Result<()> {
        files::replace_json(&self.result_path(inputs), manifest)
    }

    fn result_path(&self, inputs: &Digest) -> PathBuf {
        self.dir.join("results").join(format!("{}.json", inputs.hex()))
    }
}

fn older(file: &Path, keep: Duration) -> bool {
    let modified = fs::metadata(file).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > keep))
}

/// Makes a tree root's, its files read-only. Nobody writes to it any more; links in it are an error.
fn seal(tree: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(tree)?;
    if metadata.is_symlink() {
        return Err(Fault::new(Kind::System, format!("{} is a link", tree.display())));
    }
    chown(tree, Some(0), Some(0))?;
    fs::set_permissions(tree, fs::Permissions::from_mode(if metadata.is_dir() { 0o755 } else { 0o444 }))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(tree)? {
            seal(&entry?.path())?;
        }
    }
    Ok(())
}

/// The same tree again: directories of its own, files by hard links.
fn link(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            writable(&target)?;
            link(&entry.path(), &target)?;
        } else {
            fs::hard_link(entry.path(), &target)?;
        }
    }
    Ok(())
}
