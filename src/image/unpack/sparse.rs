//! Sparse files: where the bytes that a tar holds belong in the file they make.

use std::io::{BufRead, Read};

use crate::fault::{Fault, Result};

use super::UnpackLimits;
use super::pax::PaxSparse;
use super::stream::fault_inside;

/// Most pieces of data between holes in one file.
pub const SEGMENTS_MAX: usize = 65_536;

/// A run of bytes: where it begins in the file, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Offset in the file.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// Takes over the pairs of an old GNU sparse header.
pub fn push_gnu(map: &mut Vec<Segment>, pairs: &[tar::GnuSparseHeader]) -> Result<()> {
    for pair in pairs.iter().filter(|pair| !pair.is_empty()) {
        map.push(Segment { offset: pair.offset()?, length: pair.length()? });
    }
    Ok(())
}

/// The size and map of a sparse file that PAX records announce; version 1.0 has the map before the data.
pub fn from_pax(pax: &PaxSparse, data: &mut impl BufRead, limits: &UnpackLimits) -> Result<(u64, Vec<Segment>)> {
    let real = pax.real_size.ok_or_else(|| Fault::invalid("is sparse and does not say how large"))?;
    let map = match pax.version {
        (Some(1), Some(0)) => read_map(data, limits)?,
        (None, None) | (Some(0), Some(0 | 1)) => pax.map.clone(),
        _ => return Err(Fault::invalid("is a sparse file of an unknown version")),
    };
    Ok((real, map.into_iter().map(|(offset, length)| Segment { offset, length }).collect()))
}

/// Version 1.0: decimal numbers on lines of their own, the first counts the pairs; padded to whole blocks.
fn read_map(data: &mut impl BufRead, limits: &UnpackLimits) -> Result<Vec<(u64, u64)>> {
    let mut used = 0;
    let mut line = || -> Result<u64> {
        let mut text = Vec::new();
        data.take(21).read_until(b'\n', &mut text).map_err(fault_inside)?;
        used += text.len() as u64;
        let number = text.strip_suffix(b"\n").and_then(|digits| std::str::from_utf8(digits).ok());
        let number = number.filter(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit()));
        number.and_then(|t| t.parse().ok()).ok_or_else(|| Fault::invalid("has a sparse map that is damaged"))
    };
    let count = line()?;
    if count > SEGMENTS_MAX as u64 || count * 4 > limits.header {
        return Err(Fault::invalid("has more holes than the limit"));
    }
    let map = (0..count).map(|_| Ok((line()?, line()?))).collect::<Result<Vec<_>>>()?;
    let padding = used.next_multiple_of(512) - used;
    let skipped = std::io::copy(&mut data.take(padding), &mut std::io::sink()).map_err(fault_inside)?;
    if skipped == padding { Ok(map) } else { Err(Fault::invalid("has a sparse map that is damaged")) }
}

/// Segments must lie in order inside the file, and hold exactly the bytes that follow.
pub fn check(real: u64, map: &[Segment], data: u64, limits: &UnpackLimits) -> Result<()> {
    let damaged = || Fault::invalid("has a sparse map that contradicts itself");
    if real > limits.bytes {
        return Err(Fault::invalid(format!("claims {real} bytes; {} are the limit", limits.bytes)));
    }
    if map.len() > SEGMENTS_MAX {
        return Err(Fault::invalid("has more holes than the limit"));
    }
    let (mut end, mut total) = (0_u64, 0_u64);
    for segment in map {
        if segment.offset < end {
            return Err(damaged());
        }
        end = segment.offset.checked_add(segment.length).ok_or_else(damaged)?;
        total += segment.length;
    }
    if end > real || total != data { Err(damaged()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_must_agree_with_itself_and_with_the_data() {
        let limits = UnpackLimits::default();
        let map = |pairs: &[(u64, u64)]| -> Vec<Segment> {
            pairs.iter().map(|&(offset, length)| Segment { offset, length }).collect()
        };
        assert!(check(100, &map(&[(0, 10), (90, 10)]), 20, &limits).is_ok());
        assert!(check(100, &map(&[(90, 11)]), 11, &limits).is_err());
        assert!(check(100, &map(&[(0, 10), (5, 10)]), 20, &limits).is_err());
        assert!(check(100, &map(&[(0, 10)]), 11, &limits).is_err());
        assert!(check(u64::MAX, &map(&[(u64::MAX - 1, 2)]), 2, &limits).is_err());
    }
}
