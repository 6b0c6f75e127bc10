//! Puts a layer's entries into a directory.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, fchmod, fchown, futimens,
    linkat, mkdirat, mknodat, openat, symlinkat, utimensat,
};
use rustix::io::Errno;

use crate::fault::{Context, Fault, Result};
use crate::platform::xattr;
use crate::storage::{Staging, Whiteouts};

use super::entries::{Entry, EntryKind};
use super::path::Inside;
use super::sparse::Segment;
use super::stream::fault_inside;
use super::tree::{self, Missing, Tree, name};
use super::whiteout::Whiteout;

/// Bytes of directory names kept until the end, when their times are set. Beyond it times are lost, no more.
const LATE_NAMES_MAX: usize = 16 << 20;

/// A layer on its way into a staging directory.
pub struct Applier {
    tree: Tree,
    style: Whiteouts,
    made: Made,
    late: Vec<(Inside, (i64, u32))>,
    late_bytes: usize,
    files: u64,
    skipped: u64,
}

/// The paths that this layer has made, and the directories above them, as keyed hashes: what a whiteout must
/// leave alone.
struct Made {
    hasher: RandomState,
    paths: HashSet<u64>,
}

impl Made {
    fn insert(&mut self, mut path: &[u8]) {
        while !path.is_empty() && self.paths.insert(self.hasher.hash_one(path)) {
            path = path.iter().rposition(|b| *b == b'/').map_or(b"", |slash| &path[..slash]);
        }
    }

    fn contains(&self, path: &[u8]) -> bool {
        self.paths.contains(&self.hasher.hash_one(path))
    }
}

impl Applier {
    /// Starts in an empty staging directory (or one that holds the parent's files).
    pub fn new(staging: &Staging) -> Result<Self> {
        Ok(Self {
            tree: Tree::open(&staging.dir)?,
            style: staging.whiteouts,
            made: Made { hasher: RandomState::new(), paths: HashSet::new() },
            late: Vec::new(),
            late_bytes: 0,
            files: 0,
            skipped: 0,
        })
    }

    /// Applies one entry; `data` is what a file holds.
    pub fn apply(&mut self, entry: &Entry, data: &mut dyn BufRead) -> Result<()> {
        self.apply_inner(entry, data).map_err(|fault| fault.within(format!("entry {}", entry.path)))
    }

    fn apply_inner(&mut self, entry: &Entry, data: &mut dyn BufRead) -> Result<()> {
        if let Some(whiteout) = Whiteout::of(entry)? {
            return self.white_out(whiteout);
        }
        if entry.path.is_root() {
            return match entry.kind {
                EntryKind::Directory => self.root_attributes(entry),
                _ => Err(Fault::invalid("the layer replaces the image's root by something that is no directory")),
            };
        }
        if entry.kind == EntryKind::Special {
            self.skipped += 1;
            return Ok(());
        }
        self.make(entry, data)?;
        self.files += 1;
        // Only a tree that holds lower layers' files needs to tell them from this one's.
        if self.style == Whiteouts::Apply {
            self.made.insert(entry.path.as_bytes());
        }
        Ok(())
    }

    /// Sets what had to wait until every file was in place. Returns the entries made, and the devices left out.
    pub fn finish(mut self) -> Result<(u64, u64)> {
        for (path, mtime) in std::mem::take(&mut self.late).into_iter().rev() {
            let (parent, last) = path.split();
            // A later entry may have replaced the directory, or what it lay in.
            let Ok(Some(parent)) = self.tree.directory(parent, Missing::Report) else { continue };
            if path.is_root() {
                futimens(parent, &times(mtime)).map_err(io::Error::from).context(|| "cannot set the root's time")?;
            } else if let Ok(directory) = tree::open_directory(parent, last) {
                futimens(directory, &times(mtime)).map_err(io::Error::from).context(|| format!("entry {path}"))?;
            }
        }
        Ok((self.files, self.skipped))
    }

    fn root_attributes(&mut self, entry: &Entry) -> Result<()> {
        attributes(self.tree.root(), entry).context(|| "cannot set the root's attributes")?;
        self.set_time_late(entry);
        Ok(())
    }

    fn set_time_late(&mut self, entry: &Entry) {
        self.late_bytes += entry.path.as_bytes().len() + size_of::<(Inside, (i64, u32))>();
        if self.late_bytes <= LATE_NAMES_MAX {
            self.late.push((entry.path.clone(), entry.mtime));
        }
    }

    fn make(&mut self, entry: &Entry, data: &mut dyn BufRead) -> Result<()> {
        let (parent, last) = entry.path.split();
        match &entry.kind {
            EntryKind::Directory => {
                let opaque = self.clear_for_directory(&entry.path)?;
                let dir = self.parent(parent)?;
                make_directory(dir, last, entry, opaque)?;
                self.set_time_late(entry);
                Ok(())
            }
            EntryKind::Hardlink(target) => self.hard_link(&entry.path, target),
            EntryKind::Symlink(target) => {
                self.retry_cleared(&entry.path, |dir, last| Ok(symlinkat(name(target), dir, name(last))?))?;
                let dir = self.parent(parent)?;
                link_attributes(dir, last, entry).map_err(Fault::from)
            }
            EntryKind::File(_) => {
                let file = self.new_file(&entry.path)?;
                write_all(file.as_fd(), data)?;
                file_attributes(file.as_fd(), entry)
            }
            EntryKind::Sparse(size, map) => {
                let file = self.new_file(&entry.path)?;
                write_sparse(file.as_fd(), *size, map, data)?;
                file_attributes(file.as_fd(), entry)
            }
            EntryKind::Special => Ok(()),
        }
    }

    fn parent(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>> {
        self.tree.directory(path, Missing::Make)?.ok_or_else(|| Fault::not_found("its directory is missing"))
    }

    fn new_file(&mut self, path: &Inside) -> Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.retry_cleared(path, |dir, last| Ok(openat(dir, name(last), flags, Mode::from_raw_mode(0o600))?))
    }

    /// Makes something new at `path`; what stands there already is removed first.
    fn retry_cleared<T>(&mut self, path: &Inside, make: impl Fn(BorrowedFd<'_>, &[u8]) -> io::Result<T>) -> Result<T> {
        let (parent, last) = path.split();
        match make(self.parent(parent)?, last) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map_err(Fault::from),
        }
        self.tree.forget(path.as_bytes());
        let dir = self.parent(parent)?;
        tree::remove(dir, last).context(|| "cannot replace what is there")?;
        make(dir, last).map_err(Fault::from)
    }

    /// Readies `path` for a directory: another kind of file there goes. Returns whether the directory must
    /// hide what a lower layer has there, because a whiteout of this layer said so before.
    fn clear_for_directory(&mut self, path: &Inside) -> Result<bool> {
        let (parent, last) = path.split();
        let dir = self.parent(parent)?;
        let Some(stat) = tree::look(dir, last).map_err(Fault::from)? else { return Ok(false) };
        match tree::kind(&stat) {
            FileType::Directory => Ok(false),
            kind => {
                tree::remove(dir, last).context(|| "cannot replace what is there")?;
                Ok(kind == FileType::CharacterDevice)
            }
        }
    }

    fn hard_link(&mut self, path: &Inside, target: &Inside) -> Result<()> {
        if path == target {
            return Err(Fault::invalid("is a hard link to itself"));
        }
        let (target_parent, target_last) = target.split();
        let missing = || Fault::invalid(format!("is a hard link to {target}, which is not there"));
        let from = self.tree.directory(target_parent, Missing::Report)?.ok_or_else(missing)?;
        // The descriptor must outlive the walk to the new name's directory, which may close it.
        let from = from.try_clone_to_owned().map_err(Fault::from)?;
        match tree::look(from.as_fd(), target_last).map_err(Fault::from)?.map(|stat| tree::kind(&stat)) {
            Some(FileType::RegularFile | FileType::Symlink) => {}
            Some(_) => return Err(Fault::invalid(format!("is a hard link to {target}, which is no file"))),
            None => return Err(missing()),
        }
        // No AT_SYMLINK_FOLLOW: a link to a symbolic link is one more symbolic link.
        self.retry_cleared(path, |dir, last| Ok(linkat(&from, name(target_last), dir, name(last), AtFlags::empty())?))
    }

    fn white_out(&mut self, whiteout: Whiteout) -> Result<()> {
        match (whiteout, self.style) {
            (Whiteout::Nothing, _) => Ok(()),
            (Whiteout::Opaque(dir), Whiteouts::Apply) => self.remove_lower(&dir),
            (Whiteout::Opaque(dir), Whiteouts::Overlay) => {
                let fd = self.parent(&dir)?;
                xattr::set_overlay_opaque(fd).context(|| "cannot mark a directory as opaque")?;
                Ok(())
            }
            (Whiteout::File(dir, file), Whiteouts::Apply) => self.remove_whited_out(&dir, &file),
            (Whiteout::File(dir, file), Whiteouts::Overlay) => self.mark_whited_out(&dir, &file),
        }
    }

    /// overlayfs: a character device 0:0 hides the name below it. What this layer has made stays; a directory
    /// of its own then hides the lower one's contents.
    fn mark_whited_out(&mut self, dir: &[u8], file: &[u8]) -> Result<()> {
        let parent = self.parent(dir)?;
        match tree::look(parent, file).map_err(Fault::from)?.map(|stat| tree::kind(&stat)) {
            None => mknodat(parent, name(file), FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(io::Error::from)
                .context(|| "cannot make a whiteout")?,
            Some(FileType::Directory) => {
                let own = tree::open_directory(parent, file).map_err(Fault::from)?;
                xattr::set_overlay_opaque(own.as_fd()).context(|| "cannot mark a directory as opaque")?;
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn remove_whited_out(&mut self, dir: &[u8], file: &[u8]) -> Result<()> {
        let path = Inside::joined(dir, file);
        let Some(parent) = self.tree.directory(dir, Missing::Report)? else { return Ok(()) };
        if self.made.contains(path.as_bytes()) {
            // This layer's own file stays; of a directory that both have, the lower one's contents go.
            let stat = tree::look(parent, file).map_err(Fault::from)?;
            let is_directory = stat.is_some_and(|stat| tree::kind(&stat) == FileType::Directory);
            return if is_directory { self.remove_lower(path.as_bytes()) } else { Ok(()) };
        }
        let parent = parent.try_clone_to_owned().map_err(Fault::from)?;
        self.tree.forget(path.as_bytes());
        tree::remove(parent.as_fd(), file).context(|| "cannot remove what is whited out")
    }

    /// Removes everything in directory `dir` that this layer has not made.
    fn remove_lower(&mut self, dir: &[u8]) -> Result<()> {
        let Some(fd) = self.tree.directory(dir, Missing::Report)? else { return Ok(()) };
        let fd = fd.try_clone_to_owned().map_err(Fault::from)?;
        for child in tree::children(fd.as_fd()).map_err(Fault::from)? {
            self.remove_whited_out(dir, &child)?;
        }
        Ok(())
    }
}

fn make_directory(dir: BorrowedFd<'_>, last: &[u8], entry: &Entry, opaque: bool) -> Result<()> {
    match mkdirat(dir, name(last), Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(io::Error::from(errno).into()),
    }
    let own = tree::open_directory(dir, last).map_err(Fault::from)?;
    if opaque {
        xattr::set_overlay_opaque(own.as_fd()).context(|| "cannot mark a directory as opaque")?;
    }
    attributes(own.as_fd(), entry)
}

fn times(mtime: (i64, u32)) -> Timestamps {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    Timestamps { last_access: omit, last_modification: Timespec { tv_sec: mtime.0, tv_nsec: mtime.1.into() } }
}

/// Owner, mode and attributes of an open file or directory.
fn attributes(file: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
    let io = io::Error::from;
    fchown(file, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid))).map_err(io)?;
    fchmod(file, Mode::from_raw_mode(entry.mode as _)).map_err(io)?;
    for (name, value) in &entry.xattrs {
        xattr::set_user(file, name, value)?;
    }
    Ok(())
}

fn file_attributes(file: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
    attributes(file, entry)?;
    Ok(futimens(file, &times(entry.mtime)).map_err(io::Error::from)?)
}

fn link_attributes(dir: BorrowedFd<'_>, last: &[u8], entry: &Entry) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    chownat(dir, name(last), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(utimensat(dir, name(last), &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn write_all(file: BorrowedFd<'_>, data: &mut dyn BufRead) -> Result<()> {
    loop {
        let buffer = data.fill_buf().map_err(fault_inside)?;
        if buffer.is_empty() {
            return Ok(());
        }
        let n = rustix::io::retry_on_intr(|| rustix::io::write(file, buffer)).map_err(io::Error::from)?;
        data.consume(n);
    }
}

fn write_sparse(file: BorrowedFd<'_>, size: u64, map: &[Segment], data: &mut dyn BufRead) -> Result<()> {
    for segment in map {
        let (mut at, end) = (segment.offset, segment.offset + segment.length);
        while at < end {
            let buffer = data.fill_buf().map_err(fault_inside)?;
            let want = buffer.len().min(usize::try_from(end - at).unwrap_or(usize::MAX));
            if want == 0 {
                return Err(Fault::invalid("has less data than its sparse map says"));
            }
            let n =
                rustix::io::retry_on_intr(|| rustix::io::pwrite(file, &buffer[..want], at)).map_err(io::Error::from)?;
            data.consume(n);
            at += n as u64;
        }
    }
    Ok(rustix::fs::ftruncate(file, size).map_err(io::Error::from)?)
}
