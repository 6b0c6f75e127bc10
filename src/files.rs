//! Small files that must survive a crash: written beside, synced, renamed. And trees that are taken away.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::fault::{Context, Fault, Result};

/// Replaces `path` by `bytes` in one step; after a crash either the old or the new file is there. Mode 0600.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    write_beside(path, bytes, Sync::Disk)
}

/// Whether a file has reached the disk when it is in place.
#[derive(PartialEq)]
enum Sync {
    Disk,
    Never,
}

/// The longest name to which five letters can be added (NAME_MAX of limits.h is 255).
const LONGEST: usize = 250;

fn write_beside(path: &Path, bytes: &[u8], sync: Sync) -> Result<()> {
    let what = || format!("cannot write {}", path.display());
    let parent = path.parent().ok_or_else(|| Fault::invalid("a path without a parent")).context(what)?;
    fs::create_dir_all(parent).context(what)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A leading dot cannot begin any name that is kept here, so a left-over is never read as one.
    let beside = parent.join(match name.len() {
        0..=LONGEST => format!(".{name}.new"),
        _ => format!(".{}.new", hex::encode(Sha256::digest(name.as_bytes()))),
    });
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        if sync == Sync::Never {
            return fs::rename(&beside, path);
        }
        file.sync_data()?;
        fs::rename(&beside, path)?;
        File::open(parent)?.sync_data()
    };
    write().context(what)
}

/// [`replace`] with a value as JSON.
pub fn replace_json(path: &Path, value: &impl Serialize) -> Result<()> {
    replace(path, &json(value)?)
}

/// [`replace_json`] without waiting for the disk: for what means nothing once the machine has gone down.
pub fn replace_json_until_reboot(path: &Path, value: &impl Serialize) -> Result<()> {
    write_beside(path, &json(value)?, Sync::Never)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|e| Fault::invalid(e.to_string()))
}

/// Reads a value that [`replace_json`] wrote; `None` when the file is not there.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let what = || format!("cannot read {}", path.display());
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| Fault::invalid(e.to_string())).context(what),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).context(what),
    }
}

/// Names in a directory, sorted, without those that begin with a dot; none when it is not there.
pub fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).context(|| format!("cannot list {}", dir.display())),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    Ok(names)
}

/// Removes a file; already gone is success and said so by `false`.
pub fn remove(path: &Path) -> Result<bool> {
    gone(fs::remove_file(path), path)
}

/// Removes a directory with all in it, following no link; already gone is success and said so by `false`.
pub fn remove_tree(path: &Path) -> Result<bool> {
    gone(fs::remove_dir_all(path), path)
}

fn gone(result: io::Result<()>, path: &Path) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).context(|| format!("cannot remove {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_length_that_the_file_system_takes_is_written() {
        let dir = tempfile::tempdir().unwrap();
        for length in [1, 250, 251, 255] {
            let path = dir.path().join("n".repeat(length));
            for text in ["first", "second"] {
                replace(&path, text.as_bytes()).unwrap_or_else(|fault| panic!("{length}: {fault}"));
            }
            assert_eq!(fs::read(&path).unwrap(), b"second");
        }
        assert_eq!(names(dir.path()).unwrap().len(), 4);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4, "nothing is left beside them");
    }
}
