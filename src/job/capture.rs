//! A job's output, read to its end and kept up to a limit.

use std::io::{ErrorKind, Read};

/// One of a job's output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Errors,
}

/// What a stream carried.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Captured {
    /// Its first bytes, at most as many as the limit.
    pub bytes: Vec<u8>,
    /// Whether there was more.
    pub cut: bool,
}

impl Captured {
    /// As text, what is no UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Reads `from` to its end, so that nobody waits for room in the pipe; calls `flooded` once when there is more than `most`
/// bytes.
pub fn capture(mut from: impl Read, most: usize, mut heard: impl FnMut(&[u8]), flooded: impl FnOnce()) -> Captured {
    let mut captured = Captured::default();
    let mut flooded = Some(flooded);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return captured,
            Ok(read) => &buffer[..read],
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return captured,
        };
        let kept = &read[..read.len().min(most - captured.bytes.len())];
        if !kept.is_empty() {
            heard(kept);
        }
        captured.bytes.extend_from_slice(kept);
        if kept.len() < read.len() {
            captured.cut = true;
            if let Some(flooded) = flooded.take() {
                flooded();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_are_kept_and_the_rest_is_read() {
        let mut floods = 0;
        let mut heard = Vec::new();
        let captured = capture(&[b'x'; 200_000][..], 70_000, |bytes| heard.extend_from_slice(bytes), || floods += 1);
        assert_eq!((captured.bytes.len(), captured.cut, floods, heard.len()), (70_000, true, 1, 70_000));
        let whole = capture(&b"abc"[..], 3, |_| {}, || panic!("three bytes fit"));
        assert_eq!(whole, Captured { bytes: b"abc".to_vec(), cut: false });
    }
}
