//! PAX extended headers (POSIX pax, "pax Extended Header"), read strictly.

use crate::fault::{Fault, Result};

/// What one extended header says about the entry that follows it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Pax {
    /// `path`
    pub path: Option<Vec<u8>>,
    /// `linkpath`
    pub link: Option<Vec<u8>>,
    /// `size`, bytes.
    pub size: Option<u64>,
    /// `uid`
    pub uid: Option<u64>,
    /// `gid`
    pub gid: Option<u64>,
    /// `mtime`: seconds and nanoseconds.
    pub mtime: Option<(i64, u32)>,
    /// `SCHILY.xattr.user.*`, names without `user.`. No other attribute survives.
    pub xattrs: Vec<(String, Vec<u8>)>,
    /// `GNU.sparse.*`
    pub sparse: PaxSparse,
}

/// The three ways in which GNU tar writes a sparse file into PAX records (GNU tar manual, "Sparse Formats").
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct PaxSparse {
    /// `GNU.sparse.major` and `.minor`
    pub version: (Option<u64>, Option<u64>),
    /// `GNU.sparse.name`
    pub name: Option<Vec<u8>>,
    /// `GNU.sparse.realsize` or `GNU.sparse.size`
    pub real_size: Option<u64>,
    /// Offsets and lengths: `GNU.sparse.offset`/`.numbytes` (0.0) or `GNU.sparse.map` (0.1).
    pub map: Vec<(u64, u64)>,
    offset: Option<u64>,
}

impl PaxSparse {
    /// Is it a sparse file at all?
    pub fn is_some(&self) -> bool {
        self.version.0.is_some() || self.real_size.is_some() || !self.map.is_empty()
    }
}

fn bad(why: &str) -> Fault {
    Fault::invalid(format!("a PAX header {why}"))
}

fn number(value: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(value).ok().filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()));
    text.and_then(|t| t.parse().ok()).ok_or_else(|| bad("has a number that is none"))
}

/// `[-]seconds[.fraction]`; digits beyond nanoseconds are dropped.
fn time(value: &[u8]) -> Result<(i64, u32)> {
    let text = std::str::from_utf8(value).map_err(|_| bad("has a time that is none"))?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| bad("has a time that is none"))?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad("has a time that is none"));
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    // A negative time with a fraction counts backwards: -1.25 is -2 s + 750,000,000 ns.
    match (whole.starts_with('-'), nanos) {
        (true, 1..) => Ok((seconds.saturating_sub(1), 1_000_000_000 - nanos)),
        _ => Ok((seconds, nanos)),
    }
}

fn text(value: &[u8]) -> Result<Option<Vec<u8>>> {
    if value.contains(&0) {
        return Err(bad("has a NUL byte in a path"));
    }
    // An empty value takes the record back (POSIX).
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

impl Pax {
    /// Reads every record; one that is malformed is an error, never skipped.
    pub fn parse(mut bytes: &[u8]) -> Result<Self> {
        let mut pax = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes)?;
            pax.take(key, value)?;
            bytes = rest;
        }
        if pax.sparse.offset.is_some() {
            return Err(bad("has a sparse offset without a length"));
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let optional = |value: &[u8]| if value.is_empty() { Ok(None) } else { number(value).map(Some) };
        match key {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.link = text(value)?,
            b"size" => self.size = optional(value)?,
            b"uid" => self.uid = optional(value)?,
            b"gid" => self.gid = optional(value)?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(time(value)?),
            _ => match (key.strip_prefix(b"GNU.sparse."), key.strip_prefix(b"SCHILY.xattr.user.")) {
                (Some(key), _) => self.take_sparse(key, value)?,
                (_, Some(name)) => self.take_xattr(name, value),
                _ => {}
            },
        }
        Ok(())
    }

    fn take_xattr(&mut self, name: &[u8], value: &[u8]) {
        let Ok(name) = std::str::from_utf8(name) else { return };
        // user.overlay.* steers overlayfs mounts that have the option userxattr.
        if !name.is_empty() && name.len() <= 250 && !name.contains('\0') && !name.starts_with("overlay.") {
            self.xattrs.push((name.to_owned(), value.to_vec()));
        }
    }

    fn take_sparse(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let sparse = &mut self.sparse;
        match key {
            b"major" => sparse.version.0 = Some(number(value)?),
            b"minor" => sparse.version.1 = Some(number(value)?),
            b"name" => sparse.name = text(value)?,
            b"size" | b"realsize" => sparse.real_size = Some(number(value)?),
            b"offset" if sparse.offset.is_none() => sparse.offset = Some(number(value)?),
            b"numbytes" => match sparse.offset.take() {
                Some(offset) => sparse.map.push((offset, number(value)?)),
                None => return Err(bad("has a sparse length without an offset")),
            },
            b"map" => {
                let numbers = value.split(|b| *b == b',').map(number).collect::<Result<Vec<_>>>()?;
                if numbers.len() % 2 != 0 {
                    return Err(bad("has a sparse map with an odd number of numbers"));
                }
                sparse.map = numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect();
            }
            b"numblocks" => {}
            _ => return Err(bad("has an unknown kind of sparse file")),
        }
        Ok(())
    }

    /// Does it say anything that changes where or what an entry is? Such a record may not be global.
    pub fn names_or_measures(&self) -> bool {
        self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || self.sparse.is_some()
            || self.sparse.name.is_some()
            || !self.xattrs.is_empty()
    }
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts all of it.
fn record(bytes: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|b| *b == b' ').ok_or_else(|| bad("has a record without a length"))?;
    let length = usize::try_from(number(&bytes[..space])?).map_err(|_| bad("has a record longer than itself"))?;
    if length > bytes.len() || length < space + 4 {
        return Err(bad("has a record whose length is wrong"));
    }
    let (record, rest) = bytes.split_at(length);
    let body =
        record[space + 1..].strip_suffix(b"\n").ok_or_else(|| bad("has a record that does not end where it says"))?;
    match body.iter().position(|b| *b == b'=') {
        Some(equals) if equals > 0 => Ok((&body[..equals], &body[equals + 1..], rest)),
        _ => Err(bad("has a record without a key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_malformed_ones_are_refused() {
        let pax = Pax::parse(b"12 path=a/b\n20 mtime=12.5000001\n30 SCHILY.xattr.user.k=a\nb=\0c\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(pax.mtime, Some((12, 500_000_100)));
        assert_eq!(pax.xattrs, [("k".to_owned(), b"a\nb=\0c".to_vec())]);
        for raw in [
            &b"12 path=a/b"[..],
            b"13 path=a/b\n",
            b"11 path=a/b\n",
            b" path=a\n",
            b"9 =value\n",
            b"8 path\n\n",
            b"-1 path=a\n",
            b"99999999999999999999 path=a\n",
            b"10 size=x\n",
            b"11 size=-1\n",
            b"11 path=a\0\n",
        ] {
            assert!(Pax::parse(raw).is_err(), "{} was accepted", raw.escape_ascii());
        }
    }

    #[test]
    fn only_user_attributes_survive() {
        let keys = ["security.capability", "trusted.overlay.opaque", "user.overlay.opaque", "system.posix_acl_access"];
        let records = keys.map(|key| {
            let rest = format!(" SCHILY.xattr.{key}=y\n");
            format!("{}{rest}", rest.len() + 2)
        });
        assert!(Pax::parse(records.concat().as_bytes()).unwrap().xattrs.is_empty());
    }

    #[test]
    fn times_before_1970_count_backwards() {
        assert_eq!(time(b"-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(time(b"-3").unwrap(), (-3, 0));
    }
}
