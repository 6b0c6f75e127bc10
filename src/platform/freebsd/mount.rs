//! Mounts: nmount(2), unmount(2), getfsstat(2).
//!
//! nmount takes paths and follows links in them, so a mount below an image's root happens only before the
//! image's program runs, and only on a directory that [`super::tree::Tree`] has reached without a link.

use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libc::{c_int, iovec};

use super::sys::{c_path, c_text, check, text_of};
use crate::fault::{Context, Fault, Kind, Result};

/// How often, and how far apart, a busy mount is tried before it is forced.
const PATIENCE: (u32, Duration) = (5, Duration::from_millis(10));

/// A mount to make.
#[derive(Debug, Clone)]
pub struct Mount {
    fstype: &'static str,
    options: Vec<(&'static str, CString)>,
}

impl Mount {
    /// Never with setuid programs.
    fn new(fstype: &'static str) -> Self {
        Self { fstype, options: Vec::new() }.word("nosuid")
    }

    /// An option that is its own value.
    fn word(mut self, name: &'static str) -> Self {
        self.options.push((name, CString::default()));
        self
    }

    fn option(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Result<Self> {
        let value =
            CString::new(value).map_err(|_| Fault::invalid(format!("{} mount: {name} holds a NUL", self.fstype)))?;
        self.options.push((name, value));
        Ok(self)
    }

    /// A ZFS filesystem, or a snapshot (which is read-only by nature), whose `mountpoint` is `legacy`.
    pub fn zfs(dataset: &str) -> Result<Self> {
        // ZFS puts its property setuid in the place of nosuid, unless it is told in its own word.
        Self::new("zfs").word("nosetuid").option("from", dataset)
    }

    /// The directory or file `source` once more.
    pub fn nullfs(source: &Path) -> Result<Self> {
        use std::os::unix::ffi::OsStrExt;
        Self::new("nullfs").option("target", source.as_os_str().as_bytes())
    }

    /// Devices as `ruleset` shows them.
    pub fn devfs(ruleset: u16) -> Result<Self> {
        Self::new("devfs").option("ruleset", ruleset.to_string())
    }

    /// Memory, at most `bytes` of it, with `mode` (octal) on its root.
    pub fn tmpfs(bytes: u64, mode: u32) -> Result<Self> {
        Self::new("tmpfs").option("size", bytes.to_string())?.option("mode", format!("{mode:o}"))
    }

    /// `/dev/fd`.
    pub fn fdescfs() -> Self {
        Self::new("fdescfs")
    }

    /// `/dev/fd` as Linux programs expect it: entries are links.
    pub fn fdescfs_linux() -> Self {
        Self::fdescfs().word("linrdlnk")
    }

    /// `/proc` as Linux programs expect it.
    pub fn linprocfs() -> Self {
        Self::new("linprocfs")
    }

    /// `/sys` as Linux programs expect it.
    pub fn linsysfs() -> Self {
        Self::new("linsysfs")
    }

    /// The same, never written to.
    pub fn read_only(self) -> Self {
        self.word("ro")
    }

    /// The same, nothing in it executable.
    pub fn no_exec(self) -> Self {
        self.word("noexec")
    }

    /// Mounts it on `target`.
    pub fn at(self, target: &Path) -> Result<()> {
        self.call(target, 0)
    }

    /// Changes what is mounted on `target` to these options.
    pub fn update(self, target: &Path) -> Result<()> {
        self.call(target, libc::MNT_UPDATE)
    }

    fn call(self, target: &Path, flags: c_int) -> Result<()> {
        let path = c_path(target)?;
        let mut message = [0u8; 256];
        let fstype = c_text(self.fstype)?;
        let mut iov = Vec::new();
        let mut pair = |name: &[u8], value: &[u8]| {
            iov.push(iovec { iov_base: name.as_ptr().cast_mut().cast(), iov_len: name.len() });
            iov.push(iovec { iov_base: value.as_ptr().cast_mut().cast(), iov_len: value.len() });
        };
        pair(b"fstype\0", fstype.as_bytes_with_nul());
        pair(b"fspath\0", path.as_bytes_with_nul());
        let names: Vec<CString> = self.options.iter().map(|(name, _)| c_text(name)).collect::<Result<_>>()?;
        for (name, (_, value)) in names.iter().zip(&self.options) {
            pair(name.as_bytes_with_nul(), value.as_bytes_with_nul());
        }
        pair(b"errmsg\0", &[]);
        if let Some(last) = iov.last_mut() {
            *last = iovec { iov_base: message.as_mut_ptr().cast(), iov_len: message.len() };
        }
        // SAFETY: every element points to memory that lives until the end of this function, of the length
        // given; the kernel writes to `message` only.
        check(unsafe { libc::nmount(iov.as_mut_ptr(), iov.len() as u32, flags) })
            .map_err(|error| explained(error, &message, self.fstype))
            .context(|| format!("cannot mount {} on {}", self.fstype, target.display()))?;
        Ok(())
    }
}

fn explained(error: io::Error, message: &[u8; 256], fstype: &str) -> Fault {
    let end = message.iter().position(|b| *b == 0).unwrap_or(message.len());
    match (error.raw_os_error(), end) {
        // nmount(2): ENODEV, the file system type is unknown.
        (Some(libc::ENODEV), _) => {
            let module = if fstype.starts_with("lin") { format!("{fstype} linux64") } else { fstype.to_owned() };
            Fault::new(Kind::Unsupported, format!("this kernel has no {fstype}; load it with: kldload {module}"))
        }
        (_, 0) => error.into(),
        _ => {
            let kind = Fault::from(io::Error::from(error.kind())).kind();
            Fault::new(kind, String::from_utf8_lossy(&message[..end])).because(error)
        }
    }
}

/// Something that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Where.
    pub on: PathBuf,
    /// What: a dataset, a directory, a file system's name.
    pub from: String,
    /// Which file system.
    pub fstype: String,
    /// MNT_* of sys/mount.h.
    pub flags: u64,
    /// The kernel's name for it, which no path can mislead.
    fsid: [i32; 2],
}

/// What the file system that `path` is in was mounted from; `None` when there is no such path.
pub fn from(path: &Path) -> Result<Option<String>> {
    let path = c_path(path)?;
    // SAFETY: plain data, for which zeros are valid.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a C string, and room for one statfs.
    match check(unsafe { libc::statfs(path.as_ptr(), &mut found) }) {
        Ok(_) => Ok(Some(text_of(&found.f_mntfromname))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).context(|| format!("cannot see what is mounted on {}", path.to_string_lossy())),
    }
}

/// What is mounted on `top` or below it, in the order in which it was mounted.
pub fn list(top: &Path) -> Result<Vec<Mounted>> {
    Ok(all()?.into_iter().filter(|mounted| mounted.on.starts_with(top)).collect())
}

/// All that is mounted, in the order in which it was mounted.
pub fn all() -> Result<Vec<Mounted>> {
    table().context(|| "cannot list mounts")
}

fn table() -> io::Result<Vec<Mounted>> {
    let mut room = 64;
    loop {
        let mut entries: Vec<libc::statfs> = Vec::with_capacity(room);
        let bytes = (room * size_of::<libc::statfs>()) as libc::c_long;
        // SAFETY: there is room for `bytes` bytes.
        let count = check(unsafe { libc::getfsstat(entries.as_mut_ptr(), bytes, libc::MNT_NOWAIT) })? as usize;
        if count == room {
            room *= 2;
            continue;
        }
        // SAFETY: the kernel has filled `count` entries, fewer than there is room for.
        unsafe { entries.set_len(count) };
        return Ok(entries.iter().map(mounted).collect());
    }
}

fn mounted(entry: &libc::statfs) -> Mounted {
    // SAFETY: fsid_t is two 32-bit numbers (sys/_types: struct fsid { int32_t val[2]; }).
    let fsid = unsafe { std::mem::transmute::<libc::fsid_t, [i32; 2]>(entry.f_fsid) };
    Mounted {
        on: text_of(&entry.f_mntonname).into(),
        from: text_of(&entry.f_mntfromname),
        fstype: text_of(&entry.f_fstypename),
        flags: entry.f_flags,
        fsid,
    }
}

/// Unmounts everything on `top` and below it, what was mounted last first; attempts all of it. A mount that
/// stays busy is forced: call it when no process that may use it is left. Nothing mounted is success.
pub fn unmount_all(top: &Path) -> Result<()> {
    let mut result = Ok(());
    for mounted in list(top)?.iter().rev() {
        if let Err(fault) = unmount(mounted) {
            result = match result {
                Ok(()) => Err(fault),
                Err(first) => Err(Fault::and_cleanup(first, Err(fault))),
            };
        }
    }
    result
}

/// Unmounts it, by force if it stays busy. Already gone is success.
pub fn unmount(mounted: &Mounted) -> Result<()> {
    let (tries, pause) = PATIENCE;
    for _ in 0..tries {
        match by_id(mounted, 0) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => std::thread::sleep(pause),
            other => return other.context(|| cannot_unmount(mounted)),
        }
    }
    by_id(mounted, libc::MNT_FORCE).context(|| cannot_unmount(mounted))
}

/// unmount(2) by the kernel's name, `FSID:val0:val1` in decimal. Already gone is success.
fn by_id(mounted: &Mounted, flags: c_int) -> io::Result<()> {
    let [first, second] = mounted.fsid;
    let name = CString::new(format!("FSID:{first}:{second}"))?;
    // SAFETY: a C string.
    match check(unsafe { libc::unmount(name.as_ptr(), libc::MNT_BYFSID | flags) }) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other.map(drop),
    }
}

fn cannot_unmount(mounted: &Mounted) -> String {
    format!("cannot unmount {} ({})", mounted.on.display(), mounted.from)
}
