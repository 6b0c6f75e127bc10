//! The parameter lists that jail_set(2) and jail_get(2) take: pairs of a name and a value.

use std::ffi::{CString, c_int};
use std::fmt;
use std::io;

use libc::iovec;

use super::super::sys::c_text;
use super::worded;
use crate::fault::Result;

/// Room for the sentence with which the kernel explains a refusal (`errmsg`).
const MESSAGE_ROOM: usize = 256;

/// Parameters, in order. A boolean is a name without a value: `allow.x` turns on, `allow.nox` off.
#[derive(Default)]
pub struct Params {
    pairs: Vec<(CString, Vec<u8>)>,
}

/// What jail_get(2) filled in.
pub struct Answer {
    pairs: Vec<(CString, Vec<u8>)>,
}

impl Params {
    /// An `int`.
    pub fn int(&mut self, name: &str, value: c_int) -> Result<&mut Self> {
        self.push(name, value.to_ne_bytes().to_vec())
    }

    /// A string; the kernel wants its NUL counted.
    pub fn text(&mut self, name: &str, value: &str) -> Result<&mut Self> {
        self.push(name, c_text(value)?.into_bytes_with_nul())
    }

    /// A boolean.
    pub fn flag(&mut self, name: &str) -> Result<&mut Self> {
        self.push(name, Vec::new())
    }

    /// Raw bytes: lists of addresses, in network order; `unsigned long`.
    pub fn bytes(&mut self, name: &str, value: Vec<u8>) -> Result<&mut Self> {
        self.push(name, value)
    }

    /// Room for an answer of at most `length` bytes.
    pub fn room(&mut self, name: &str, length: usize) -> Result<&mut Self> {
        self.push(name, vec![0; length])
    }

    /// The names, for tests of what is spelled out.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().filter_map(|(name, _)| name.to_str().ok())
    }

    fn push(&mut self, name: &str, value: Vec<u8>) -> Result<&mut Self> {
        self.pairs.push((c_text(name)?, value));
        Ok(self)
    }

    /// Runs `call` over the list plus room for the kernel's explanation, which becomes the fault.
    pub(super) fn call<T>(mut self, call: impl FnOnce(&mut [iovec]) -> io::Result<T>) -> Result<T> {
        let mut message = [0u8; MESSAGE_ROOM];
        let mut iov = vectors(&mut self.pairs);
        iov.push(vector(c"errmsg".to_bytes_with_nul()));
        iov.push(iovec { iov_base: message.as_mut_ptr().cast(), iov_len: message.len() });
        call(&mut iov).map_err(|error| {
            let end = message.iter().position(|b| *b == 0).unwrap_or(MESSAGE_ROOM);
            worded(error, &String::from_utf8_lossy(&message[..end]))
        })
    }

    /// Calls jail_get(2): the pairs are both question and answer.
    pub(super) fn fetch(mut self, flags: c_int) -> io::Result<Answer> {
        let mut iov = vectors(&mut self.pairs);
        // SAFETY: every element points to memory that `self` keeps alive and that has the length given.
        super::check(unsafe { libc::jail_get(iov.as_mut_ptr(), iov.len() as u32, flags) })?;
        let lengths: Vec<usize> = iov.chunks_exact(2).map(|pair| pair[1].iov_len).collect();
        for ((_, value), length) in self.pairs.iter_mut().zip(lengths) {
            value.truncate(length);
        }
        Ok(Answer { pairs: self.pairs })
    }
}

impl Answer {
    /// The bytes of `name`, none if it was not asked for.
    pub fn bytes(&self, name: &str) -> &[u8] {
        let found = self.pairs.iter().find(|(key, _)| key.to_bytes() == name.as_bytes());
        found.map_or(&[], |(_, value)| value)
    }

    /// An `int`.
    pub fn int(&self, name: &str) -> c_int {
        self.bytes(name).try_into().map_or(0, c_int::from_ne_bytes)
    }

    /// A string.
    pub fn text(&self, name: &str) -> String {
        let bytes = self.bytes(name);
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = |(name, _): &&(CString, Vec<u8>)| matches!(name.to_bytes(), b"name" | b"jid" | b"lastjid");
        match self.pairs.iter().find(key) {
            Some((name, value)) if name.to_bytes() == b"name" => {
                write!(f, "jail {}", String::from_utf8_lossy(value).trim_end_matches('\0'))
            }
            Some((_, value)) if value.len() == size_of::<c_int>() => {
                write!(f, "jail {}", c_int::from_ne_bytes([value[0], value[1], value[2], value[3]]))
            }
            _ => f.write_str("a jail"),
        }
    }
}

fn vectors(pairs: &mut [(CString, Vec<u8>)]) -> Vec<iovec> {
    let mut iov = Vec::with_capacity(pairs.len() * 2 + 2);
    for (name, value) in pairs {
        iov.push(vector(name.to_bytes_with_nul()));
        let base = if value.is_empty() { std::ptr::null_mut() } else { value.as_mut_ptr().cast() };
        iov.push(iovec { iov_base: base, iov_len: value.len() });
    }
    iov
}

/// A name: the kernel only reads it.
fn vector(bytes: &[u8]) -> iovec {
    iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}
