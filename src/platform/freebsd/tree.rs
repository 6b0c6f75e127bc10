//! Directories and files in a replica's root, made and written without following a link of the image's.
//!
//! Used only before the image's program runs: afterwards nobody on the host touches that tree.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::sys::check;
use crate::fault::{Context, Fault, Result};

/// How a directory on the way is opened: a link in its place is an error.
const DIRECTORY: i32 = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;

/// A root filesystem on the host.
#[derive(Debug)]
pub struct Tree {
    path: PathBuf,
    fd: OwnedFd,
}

impl Tree {
    /// Opens the tree at `path`, itself no link.
    pub fn open(path: &Path) -> Result<Self> {
        let fd = open_at(libc::AT_FDCWD, path.as_os_str().as_bytes(), DIRECTORY, 0)
            .context(|| format!("cannot open directory {}", path.display()))?;
        Ok(Self { path: path.to_owned(), fd })
    }

    /// Makes the directory `inside` (an absolute path as the replica sees it) with all above it where they are
    /// missing, mode 0755, and gives its path on the host. A link on the way is an error.
    pub fn directory(&self, inside: &Path) -> Result<PathBuf> {
        self.descend(inside, Missing::Make)?;
        self.host_path(inside)
    }

    /// The path on the host of the directory `inside`, which must be there; a link on the way is an error.
    pub fn existing(&self, inside: &Path) -> Result<PathBuf> {
        self.descend(inside, Missing::Fail)?;
        self.host_path(inside)
    }

    /// Makes the file `inside` with this content, mode 0644; one that is there, or a link, is replaced.
    pub fn file(&self, inside: &Path, content: &[u8]) -> Result<()> {
        let (Some(parent), Some(name)) = (inside.parent(), inside.file_name()) else {
            return Err(Fault::invalid(format!("{} names no file", inside.display())));
        };
        let directory = self.descend(parent, Missing::Make)?;
        self.write(&directory, name.as_bytes(), content)
            .context(|| format!("cannot place {} in {}", inside.display(), self.path.display()))
    }

    /// Makes the file `inside`, empty, unless there is one.
    pub fn ensure_file(&self, inside: &Path) -> Result<()> {
        match self.existing_file(inside) {
            Ok(_) => Ok(()),
            Err(_) => self.file(inside, b""),
        }
    }

    /// The path on the host of the file `inside`, which must be there and plain; a link on the way is an error.
    pub fn existing_file(&self, inside: &Path) -> Result<PathBuf> {
        let (Some(parent), Some(name)) = (inside.parent(), inside.file_name()) else {
            return Err(Fault::invalid(format!("{} names no file", inside.display())));
        };
        let directory = self.descend(parent, Missing::Fail)?;
        let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
        let file = open_at(directory.as_raw_fd(), name.as_bytes(), flags, 0)
            .map(File::from)
            .map_err(|e| self.obstacle(inside, name.as_bytes(), e))?;
        let plain = file.metadata().is_ok_and(|metadata| metadata.is_file());
        if plain {
            self.host_path(inside)
        } else {
            Err(Fault::invalid(format!("{} is no plain file", inside.display())))
        }
    }

    /// Whether a link lies on the way to `inside`.
    pub fn has_link(&self, inside: &Path) -> bool {
        let Ok(relative) = inside.strip_prefix("/") else { return false };
        let mut at = self.path.clone();
        relative.components().any(|component| {
            at.push(component);
            at.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink())
        })
    }

    fn write(&self, directory: &OwnedFd, name: &[u8], content: &[u8]) -> io::Result<()> {
        let c_name = c(name)?;
        // SAFETY: an open directory and a C string.
        match check(unsafe { libc::unlinkat(directory.as_raw_fd(), c_name.as_ptr(), 0) }) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let mut file = File::from(open_at(directory.as_raw_fd(), name, flags, 0o644)?);
        // The umask of the daemon has no say in what the replica sees.
        // SAFETY: an open file.
        check(unsafe { libc::fchmod(file.as_raw_fd(), 0o644) })?;
        file.write_all(content)
    }

    fn descend(&self, inside: &Path, missing: Missing) -> Result<OwnedFd> {
        let mut at = self.fd.try_clone().context(|| format!("cannot hold {} open", self.path.display()))?;
        for name in names(inside)? {
            let next = match open_at(at.as_raw_fd(), name, DIRECTORY, 0) {
                Err(e) if e.kind() == io::ErrorKind::NotFound && missing == Missing::Make => {
                    make(&at, name).and_then(|()| open_at(at.as_raw_fd(), name, DIRECTORY, 0))
                }
                other => other,
            };
            at = next.map_err(|e| self.obstacle(inside, name, e))?;
        }
        Ok(at)
    }

    fn obstacle(&self, inside: &Path, name: &[u8], error: io::Error) -> Fault {
        let name = String::from_utf8_lossy(name);
        let what = match error.raw_os_error() {
            // open(2) on FreeBSD: EMLINK for O_NOFOLLOW on a link.
            Some(libc::EMLINK | libc::ELOOP | libc::ENOTDIR) => {
                format!("the image has no directory {} but a link or file at {name}", inside.display())
            }
            _ => format!("cannot reach {} at {name} in {}", inside.display(), self.path.display()),
        };
        Fault::from(error).within(what)
    }

    fn host_path(&self, inside: &Path) -> Result<PathBuf> {
        let relative = inside.strip_prefix("/").map_err(|_| not_absolute(inside))?;
        Ok(self.path.join(relative))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Fail,
}

fn names(inside: &Path) -> Result<Vec<&[u8]>> {
    let mut components = inside.components();
    if components.next() != Some(Component::RootDir) {
        return Err(not_absolute(inside));
    }
    components
        .map(|component| match component {
            Component::Normal(name) => Ok(name.as_bytes()),
            _ => Err(not_absolute(inside)),
        })
        .collect()
}

fn not_absolute(inside: &Path) -> Fault {
    Fault::invalid(format!("{} is not an absolute path without ..", inside.display()))
}

fn make(at: &OwnedFd, name: &[u8]) -> io::Result<()> {
    let name = c(name)?;
    // SAFETY: an open directory and a C string.
    match check(unsafe { libc::mkdirat(at.as_raw_fd(), name.as_ptr(), 0o755) }) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(e) => return Err(e),
    }
    // SAFETY: as above; the directory was made here, a link in its place would not be followed.
    check(unsafe { libc::fchmodat(at.as_raw_fd(), name.as_ptr(), 0o755, libc::AT_SYMLINK_NOFOLLOW) }).map(drop)
}

fn open_at(at: i32, name: &[u8], flags: i32, mode: libc::c_uint) -> io::Result<OwnedFd> {
    let name = c(name)?;
    // SAFETY: `at` is open or AT_FDCWD, and `name` a C string.
    let fd = check(unsafe { libc::openat(at, name.as_ptr(), flags, mode) })?;
    // SAFETY: openat gave a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn c(name: &[u8]) -> io::Result<std::ffi::CString> {
    std::ffi::CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_in_the_image_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("etc")).unwrap();
        let tree = Tree::open(&root).unwrap();
        assert!(tree.file(Path::new("/etc/hosts"), b"x").is_err());
        assert!(tree.directory(Path::new("/etc/secrets")).is_err());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn a_linked_file_is_replaced_and_its_target_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let (root, target) = (dir.path().join("root"), dir.path().join("target"));
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(&target, "before").unwrap();
        std::os::unix::fs::symlink(&target, root.join("etc/resolv.conf")).unwrap();
        Tree::open(&root).unwrap().file(Path::new("/etc/resolv.conf"), b"nameserver 10.0.0.1\n").unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "before");
        assert_eq!(std::fs::read_to_string(root.join("etc/resolv.conf")).unwrap(), "nameserver 10.0.0.1\n");
    }

    #[test]
    fn dots_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        for path in ["/../x", "relative", "/a/../../x"] {
            assert!(tree.directory(Path::new(path)).is_err(), "{path}");
        }
        assert_eq!(tree.directory(Path::new("/a/b")).unwrap(), dir.path().join("a/b"));
    }
}
