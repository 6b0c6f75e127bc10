//! How much a job has written, for storage that has no quota and directories that are not the job's alone.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Least time between two looks; a look that takes long makes the next one later.
const PAUSE: Duration = Duration::from_millis(500);

/// Looks at the directories that a job writes to.
pub struct Watch {
    dirs: Vec<PathBuf>,
    most: u64,
    before: u64,
    next: Instant,
}

impl Watch {
    /// Over `dirs`, in which the job may add `most` bytes together.
    pub fn new(dirs: Vec<PathBuf>, most: u64) -> Self {
        let started = Instant::now();
        let before = used(&dirs);
        Self { dirs, most, before, next: Instant::now() + PAUSE.max(started.elapsed() * 20) }
    }

    /// Whether it has added more, if it is time for a look.
    pub fn exceeded(&mut self) -> bool {
        let started = Instant::now();
        if started < self.next {
            return false;
        }
        let now = used(&self.dirs);
        self.next = Instant::now() + PAUSE.max(started.elapsed() * 20);
        now.saturating_sub(self.before) > self.most
    }
}

fn used(dirs: &[PathBuf]) -> u64 {
    dirs.iter().map(|dir| tree(dir)).sum()
}

/// Bytes that a tree occupies, each file once; what vanishes meanwhile counts nothing. Follows no link.
fn tree(top: &Path) -> u64 {
    let mut bytes = 0;
    let mut seen = HashSet::new();
    let mut waiting = vec![top.to_owned()];
    while let Some(dir) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.nlink() == 1 || seen.insert(metadata.ino()) {
                bytes += metadata.blocks() * 512;
            }
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    bytes
}
