//! libnvpair's name-value lists (nvlist(9) in illumos, libnvpair.h in OpenZFS), the form in which
//! libzfs_core takes properties and sets of snapshots. Only what is given to it, nothing read back.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::ptr;

use libloading::Library;

use super::refusal::{Outcome, Refusal, Why};

/// An opaque `nvlist_t`.
pub(super) type RawList = *mut c_void;

/// NV_UNIQUE_NAME (sys/nvpair.h): adding a name again replaces it.
const UNIQUE_NAME: c_uint = 1;

/// The functions of libnvpair that are used here, and the library that they live in.
pub(super) struct Nvpair {
    alloc: unsafe extern "C" fn(*mut RawList, c_uint, c_int) -> c_int,
    free: unsafe extern "C" fn(RawList),
    add_boolean: unsafe extern "C" fn(RawList, *const c_char) -> c_int,
    add_uint64: unsafe extern "C" fn(RawList, *const c_char, u64) -> c_int,
    add_string: unsafe extern "C" fn(RawList, *const c_char, *const c_char) -> c_int,
    /// Keeps the functions above loaded.
    _library: Library,
}

impl Nvpair {
    /// Finds the functions in a loaded libnvpair.
    pub(super) fn load(library: Library) -> Result<Self, libloading::Error> {
        // SAFETY: the types are those of libnvpair.h, unchanged since Solaris; the pointers are used only
        // while `_library` keeps the code loaded.
        unsafe {
            Ok(Self {
                alloc: *library.get(b"nvlist_alloc\0")?,
                free: *library.get(b"nvlist_free\0")?,
                add_boolean: *library.get(b"nvlist_add_boolean\0")?,
                add_uint64: *library.get(b"nvlist_add_uint64\0")?,
                add_string: *library.get(b"nvlist_add_string\0")?,
                _library: library,
            })
        }
    }

    /// A new, empty list.
    pub(super) fn list(&self) -> Outcome<List<'_>> {
        let mut raw: RawList = ptr::null_mut();
        // SAFETY: `raw` is a valid place for the result.
        check(unsafe { (self.alloc)(&mut raw, UNIQUE_NAME, 0) })?;
        Ok(List { raw, nvpair: self })
    }

    /// Frees a list that libzfs_core made for its caller.
    ///
    /// # Safety
    /// `raw` is null, or a list from libnvpair that nobody else frees.
    pub(super) unsafe fn free(&self, raw: RawList) {
        // SAFETY: as promised by the caller; nvlist_free takes null.
        unsafe { (self.free)(raw) }
    }
}

/// A list; freed when dropped.
pub(super) struct List<'a> {
    raw: RawList,
    nvpair: &'a Nvpair,
}

impl List<'_> {
    /// The list itself, for a call that does not keep it.
    pub(super) fn raw(&self) -> RawList {
        self.raw
    }

    /// Adds a name without a value.
    pub(super) fn name(&mut self, name: &str) -> Outcome {
        let name = c_string(name)?;
        // SAFETY: the list is alive, the name ends in NUL and is copied.
        check(unsafe { (self.nvpair.add_boolean)(self.raw, name.as_ptr()) })
    }

    /// Adds a number.
    pub(super) fn number(&mut self, name: &str, value: u64) -> Outcome {
        let name = c_string(name)?;
        // SAFETY: as above.
        check(unsafe { (self.nvpair.add_uint64)(self.raw, name.as_ptr(), value) })
    }

    /// Adds a text.
    pub(super) fn text(&mut self, name: &str, value: &str) -> Outcome {
        let (name, value) = (c_string(name)?, c_string(value)?);
        // SAFETY: as above; the value is copied too.
        check(unsafe { (self.nvpair.add_string)(self.raw, name.as_ptr(), value.as_ptr()) })
    }
}

impl Drop for List<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `alloc`, freed once.
        unsafe { self.nvpair.free(self.raw) }
    }
}

/// Success is 0, all else an error number.
pub(super) fn check(errno: c_int) -> Outcome {
    if errno == 0 { Ok(()) } else { Err(Refusal::errno(errno)) }
}

/// Text for C.
pub(super) fn c_string(text: &str) -> Outcome<CString> {
    CString::new(text).map_err(|_| Refusal { why: Why::Other, said: "a name has a NUL byte".to_owned() })
}
