//! A program's pages in memory before it runs. On a ZFS filesystem that has just been mounted every page is copied out
//! of ZFS's own cache at the first touch, which takes several times as long as the rest of a program's start.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::super::spawn;
use super::super::sys::check;
use super::super::tree::Tree;
use crate::fault::Result;
use crate::sandbox::Plan;

/// Most bytes of a program that are brought into memory.
const MOST: u64 = 64 << 20;

/// Brings the program that `plan` runs from `root` into memory. One that is reached through a link is left alone, and
/// so is one that cannot be brought: it is read when it runs.
pub fn warm(plan: &Plan, root: &Path) -> Result<()> {
    let tree = Tree::open(root)?;
    for candidate in spawn::programs(plan)? {
        if let Ok(path) = tree.existing_file(&candidate) {
            if let Err(error) = touch(&path) {
                tracing::debug!("{} is read when it runs: {error}", path.display());
            }
            break;
        }
    }
    Ok(())
}

/// Wires the file's pages and lets them go again, which leaves them in memory. Unlike a read of mapped memory, mlock(2)
/// gives an error, not a signal, where the disk cannot be read.
fn touch(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let length = file.metadata()?.len().min(MOST) as usize;
    if length == 0 {
        return Ok(());
    }
    // SAFETY: a new mapping at an address of the kernel's choice, of an open file, which nothing here reads; it is
    // unmapped before the return.
    unsafe {
        let pages = libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0);
        if pages == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let wired = check(libc::mlock(pages, length)).map(drop);
        libc::munmap(pages, length);
        wired
    }
}
