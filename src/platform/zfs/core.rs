//! libzfs_core: the engine that runs no command. It and libnvpair are looked for when the program starts,
//! never linked, so one binary works with and without them.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::ptr;

use libloading::Library;

use super::engine::{Engine, Property};
use super::nvlist::{List, Nvpair, RawList, c_string, check};
use super::refusal::{Outcome, Refusal, Why};

/// Their names: FreeBSD 14 and 15, then OpenZFS 2 on Linux.
const LIBRARIES: [(&str, &str); 2] = [("libnvpair.so.2", "libzfs_core.so.2"), ("libnvpair.so.3", "libzfs_core.so.3")];

/// LZC_DATSET_TYPE_ZFS (libzfs_core.h), a filesystem.
const FILESYSTEM: c_int = 2;

/// ZFS_CANMOUNT_NOAUTO (sys/fs/zfs.h).
const CANMOUNT_NOAUTO: u64 = 2;

/// libzfs_core's functions (libzfs_core.h, OpenZFS 2.0 and later), and the library that they live in.
pub(super) struct Core {
    create: unsafe extern "C" fn(*const c_char, c_int, RawList, *mut u8, c_uint) -> c_int,
    clone: unsafe extern "C" fn(*const c_char, *const c_char, RawList) -> c_int,
    snapshot: unsafe extern "C" fn(RawList, RawList, *mut RawList) -> c_int,
    rename: unsafe extern "C" fn(*const c_char, *const c_char) -> c_int,
    destroy: unsafe extern "C" fn(*const c_char) -> c_int,
    destroy_snapshots: unsafe extern "C" fn(RawList, c_int, *mut RawList) -> c_int,
    exists: unsafe extern "C" fn(*const c_char) -> c_int,
    nvpair: Nvpair,
    /// Keeps the functions above loaded.
    library: Library,
    name: &'static str,
}

impl Core {
    /// Loads the libraries and opens /dev/zfs. It stays open until the process ends.
    /// The error says why that is not possible here.
    pub(super) fn open() -> Result<Self, String> {
        let mut reason = String::new();
        for (nvpair, core) in LIBRARIES {
            match Self::load(nvpair, core) {
                Ok(core) => return Ok(core),
                Err(error) => reason = error,
            }
        }
        Err(reason)
    }

    fn load(nvpair: &'static str, name: &'static str) -> Result<Self, String> {
        let told = |error: libloading::Error| error.to_string();
        // SAFETY: both are system libraries whose initialisers have no preconditions.
        let (nvpair, library) = unsafe { (Library::new(nvpair).map_err(told)?, Library::new(name).map_err(told)?) };
        let nvpair = Nvpair::load(nvpair).map_err(told)?;
        let core = Self::bind(nvpair, library, name).map_err(told)?;
        core.initialise()?;
        Ok(core)
    }

    fn bind(nvpair: Nvpair, library: Library, name: &'static str) -> Result<Self, libloading::Error> {
        // SAFETY: the types are those of libzfs_core.h; `boolean_t` is a C enum there, of c_int's size. The
        // pointers are used only while `library` keeps the code loaded.
        unsafe {
            Ok(Self {
                create: *library.get(b"lzc_create\0")?,
                clone: *library.get(b"lzc_clone\0")?,
                snapshot: *library.get(b"lzc_snapshot\0")?,
                rename: *library.get(b"lzc_rename\0")?,
                destroy: *library.get(b"lzc_destroy\0")?,
                destroy_snapshots: *library.get(b"lzc_destroy_snaps\0")?,
                exists: *library.get(b"lzc_exists\0")?,
                nvpair,
                library,
                name,
            })
        }
    }

    fn initialise(&self) -> Result<(), String> {
        // SAFETY: the type is that of libzfs_core.h; the library is loaded. It counts its callers.
        let errno = unsafe {
            let init: libloading::Symbol<unsafe extern "C" fn() -> c_int> =
                self.library.get(b"libzfs_core_init\0").map_err(|error| error.to_string())?;
            init()
        };
        check(errno).map_err(|refusal| format!("{} cannot open /dev/zfs: {}", self.name, refusal.said))
    }

    fn properties(&self, properties: &[Property]) -> Outcome<List<'_>> {
        let mut list = self.nvpair.list()?;
        for property in properties {
            match property {
                Property::NoAutoMount => list.number("canmount", CANMOUNT_NOAUTO)?,
                Property::ReferenceQuota(bytes) => list.number("refquota", *bytes)?,
                Property::User(name, value) => list.text(name, value)?,
            }
        }
        Ok(list)
    }

    /// Calls one of the functions that take a set of snapshots, with a set of one.
    fn with_snapshot(&self, snapshot: &str, call: impl FnOnce(RawList, *mut RawList) -> c_int) -> Outcome {
        let mut set = self.nvpair.list()?;
        set.name(snapshot)?;
        let mut errors: RawList = ptr::null_mut();
        let errno = call(set.raw(), &mut errors);
        // SAFETY: null or a list that the library made for us; freed once.
        unsafe { self.nvpair.free(errors) };
        check(errno)
    }
}

/// EEXIST from a destroy: there is something that must be destroyed first (libzfs_core.c, lzc_destroy_snaps).
fn needed(refusal: Refusal) -> Refusal {
    match refusal.why {
        Why::Exists => Refusal { why: Why::Needed, said: "other datasets depend on it".to_owned() },
        _ => refusal,
    }
}

impl Engine for Core {
    fn describe(&self) -> &str {
        self.name
    }

    fn create(&self, dataset: &str, properties: &[Property]) -> Outcome {
        let (dataset, properties) = (c_string(dataset)?, self.properties(properties)?);
        // SAFETY: the name ends in NUL and the list is alive; no encryption key is given.
        check(unsafe { (self.create)(dataset.as_ptr(), FILESYSTEM, properties.raw(), ptr::null_mut(), 0) })
    }

    fn clone_snapshot(&self, snapshot: &str, dataset: &str, properties: &[Property]) -> Outcome {
        let (dataset, origin, properties) = (c_string(dataset)?, c_string(snapshot)?, self.properties(properties)?);
        // SAFETY: the names end in NUL and the list is alive.
        check(unsafe { (self.clone)(dataset.as_ptr(), origin.as_ptr(), properties.raw()) })
    }

    fn snapshot(&self, snapshot: &str) -> Outcome {
        // SAFETY: the lists are alive; no properties are given.
        self.with_snapshot(snapshot, |set, errors| unsafe { (self.snapshot)(set, ptr::null_mut(), errors) })
    }

    fn rename(&self, from: &str, to: &str) -> Outcome {
        let (from, to) = (c_string(from)?, c_string(to)?);
        // SAFETY: the names end in NUL.
        check(unsafe { (self.rename)(from.as_ptr(), to.as_ptr()) })
    }

    fn destroy(&self, name: &str) -> Outcome {
        if name.contains('@') {
            // The library reports a snapshot that is not there as destroyed.
            // SAFETY: the lists are alive; 0 is B_FALSE, "not deferred".
            return self
                .with_snapshot(name, |set, errors| unsafe { (self.destroy_snapshots)(set, 0, errors) })
                .map_err(needed);
        }
        let name: &CStr = &c_string(name)?;
        // SAFETY: the name ends in NUL.
        check(unsafe { (self.destroy)(name.as_ptr()) }).map_err(needed)
    }

    fn exists(&self, name: &str) -> Outcome<bool> {
        let name = c_string(name)?;
        // SAFETY: the name ends in NUL. The low byte decides, also where boolean_t is a byte.
        Ok(unsafe { (self.exists)(name.as_ptr()) } & 0xff != 0)
    }
}
