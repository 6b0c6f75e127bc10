//! Deleting trees that hostile code wrote: no link is followed, and no depth of nesting exhausts stack or descriptors.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::fault::{Context, Result};

/// A directory, on the same filesystem as what it deletes, where trees go to be deleted. What a crash leaves
/// in it is deleted by [`Trash::empty`].
#[derive(Debug)]
pub(super) struct Trash {
    dir: PathBuf,
    prefix: String,
}

impl Trash {
    /// Uses `dir`, which must exist; its own entries in it start with `prefix`.
    pub fn new(dir: PathBuf, prefix: String) -> Self {
        Self { dir, prefix }
    }

    /// Takes `tree` out of sight in one step, then deletes it. Already gone is success.
    pub fn delete(&self, tree: &Path) -> Result<()> {
        self.take(tree)?.map_or(Ok(()), |taken| self.finish(taken))
    }

    /// Takes `tree` out of sight in one step, for [`Trash::finish`]. `None`: gone already.
    pub fn take(&self, tree: &Path) -> Result<Option<PathBuf>> {
        let place = self.place();
        match fs::rename(tree, &place) {
            Ok(()) => Ok(Some(place)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(|| format!("cannot delete {}", tree.display())),
        }
    }

    /// Deletes what [`Trash::take`] took.
    pub fn finish(&self, taken: PathBuf) -> Result<()> {
        let shown = taken.clone();
        self.erase(taken).context(|| format!("cannot delete {}", shown.display()))
    }

    /// Deletes what an interrupted run left here.
    pub fn empty(&self) -> Result<()> {
        for entry in fs::read_dir(&self.dir).context(|| format!("cannot read {}", self.dir.display()))? {
            let entry = entry.context(|| format!("cannot read {}", self.dir.display()))?;
            if entry.file_name().to_string_lossy().starts_with(&self.prefix) {
                self.finish(entry.path())?;
            }
        }
        Ok(())
    }

    fn place(&self) -> PathBuf {
        self.dir.join(format!("{}{}", self.prefix, Uuid::new_v4().simple()))
    }

    /// Works off a list instead of recursing: a directory with something in it moves up here and waits for its turn.
    fn erase(&self, tree: PathBuf) -> io::Result<()> {
        let mut waiting = vec![tree];
        while let Some(dir) = waiting.pop() {
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                if !entry.file_type()?.is_dir() {
                    fs::remove_file(entry.path())?;
                } else if fs::remove_dir(entry.path()).is_err() {
                    let place = self.place();
                    fs::rename(entry.path(), &place)?;
                    waiting.push(place);
                }
            }
            fs::remove_dir(&dir)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_any_descriptor_table_is_deleted_and_links_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let outside = temp.path().join("outside");
        fs::create_dir_all(outside.join("kept")).unwrap();
        let trash = Trash::new(temp.path().join("trash"), "t.".into());
        fs::create_dir(temp.path().join("trash")).unwrap();
        // Built from the innermost outwards, because no path may be as long.
        let mut tree = temp.path().join("level");
        fs::create_dir(&tree).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
        for _ in 0..3000 {
            let next = temp.path().join("next");
            fs::create_dir(&next).unwrap();
            fs::rename(&tree, next.join("d")).unwrap();
            fs::rename(&next, &tree).unwrap();
        }
        tree = temp.path().join("level");
        trash.delete(&tree).unwrap();
        trash.delete(&tree).unwrap();
        assert!(outside.join("kept").is_dir());
        assert_eq!(fs::read_dir(temp.path().join("trash")).unwrap().count(), 0);
        assert!(!tree.exists());
    }

    #[test]
    fn only_its_own_leavings_are_emptied() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["a.1", "b.1"] {
            fs::create_dir_all(temp.path().join(name).join("x/y")).unwrap();
        }
        Trash::new(temp.path().to_owned(), "a.".into()).empty().unwrap();
        assert!(!temp.path().join("a.1").exists() && temp.path().join("b.1/x/y").exists());
    }
}
