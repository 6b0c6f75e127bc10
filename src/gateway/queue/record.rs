//! What stands in the queue's log: frames of a kind, a head in JSON and a body, each with its checksum.
//!
//! ```text
//! kind 1 byte │ head length u32 │ body length u32 │ SHA-256 of all else, its first 8 bytes │ head │ body
//! ```

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::fault::{Fault, Kind, Result};

/// Bytes before a frame's head.
pub const PREFIX: usize = 17;

/// A call that is made later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Its number in this log.
    pub sequence: u64,
    /// The function, `name.namespace`.
    pub function: String,
    /// The function as the caller wrote it.
    pub written: String,
    /// Path and query for the function.
    pub path: String,
    /// Headers for the function. A byte is a character each, since header values need not be UTF-8.
    pub headers: Vec<(String, String)>,
    /// Its X-Call-Id.
    pub id: String,
    /// Where its answer goes.
    pub callback: Option<String>,
}

/// What has happened to a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// It was accepted; its body follows.
    Accepted(Call),
    /// It was tried so many times in vain.
    Tried(Tried),
    /// It needs nothing more.
    Done(u64),
}

/// A call's number and how often it was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// The call.
    pub sequence: u64,
    /// Attempts so far.
    pub attempts: u32,
}

impl Record {
    /// The record as a frame.
    pub fn frame(&self, body: &[u8]) -> Vec<u8> {
        let json = |value: serde_json::Result<Vec<u8>>| value.expect("numbers and strings are JSON");
        let (kind, head) = match self {
            Self::Accepted(call) => (b'A', json(serde_json::to_vec(call))),
            Self::Tried(tried) => (b'T', json(serde_json::to_vec(tried))),
            Self::Done(sequence) => (b'D', json(serde_json::to_vec(sequence))),
        };
        let mut frame = Vec::with_capacity(PREFIX + head.len() + body.len());
        frame.push(kind);
        frame.extend((head.len() as u32).to_le_bytes());
        frame.extend((body.len() as u32).to_le_bytes());
        let sum = checksum(&frame, &head, body);
        frame.extend(sum);
        frame.extend(head);
        frame.extend(body);
        frame
    }

    /// Reads the frame at the beginning of `bytes`: the record, where its body is, and how long it is.
    /// None where there is no whole frame with its right sum.
    pub fn read(bytes: &[u8]) -> Option<(Self, std::ops::Range<usize>)> {
        let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
        let (head, body) = (number(1)?, number(5)?);
        let middle = PREFIX.checked_add(head)?;
        let end = middle.checked_add(body)?;
        let (head, content) = (bytes.get(PREFIX..middle)?, bytes.get(middle..end)?);
        if checksum(&bytes[..9], head, content) != bytes[9..PREFIX] {
            return None;
        }
        let record = match bytes[0] {
            b'A' => Self::Accepted(serde_json::from_slice(head).ok()?),
            b'T' => Self::Tried(serde_json::from_slice(head).ok()?),
            b'D' => Self::Done(serde_json::from_slice(head).ok()?),
            _ => return None,
        };
        Some((record, middle..end))
    }

    /// Reads a frame that must be a whole call.
    pub fn read_call(bytes: &[u8]) -> Result<(Call, Vec<u8>)> {
        match Self::read(bytes) {
            Some((Self::Accepted(call), body)) => Ok((call, bytes[body].to_vec())),
            _ => Err(Fault::new(Kind::System, "a call in the queue's log is damaged; the disk lost part of it")),
        }
    }
}

fn checksum(prefix: &[u8], head: &[u8], body: &[u8]) -> [u8; 8] {
    let sum = Sha256::new().chain_update(prefix).chain_update(head).chain_update(body).finalize();
    sum[..8].try_into().expect("eight of 32")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        Call {
            sequence: 7,
            function: "f.ns".into(),
            written: "f".into(),
            path: "/a?b".into(),
            headers: vec![("x-odd".into(), "\u{e9}\u{ff}".into())],
            id: "id".into(),
            callback: None,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let tried = Tried { sequence: 1, attempts: 3 };
        for (record, body) in
            [(Record::Accepted(call()), &b"body\0"[..]), (Record::Tried(tried), b""), (Record::Done(9), b"")]
        {
            let frame = record.frame(body);
            let (read, range) = Record::read(&frame).unwrap();
            assert_eq!((read, &frame[range.clone()], range.end), (record, body, frame.len()));
        }
    }

    #[test]
    fn a_frame_cut_short_or_changed_is_none() {
        let frame = Record::Accepted(call()).frame(b"body");
        for length in 0..frame.len() {
            assert_eq!(Record::read(&frame[..length]), None, "{length} bytes");
        }
        for at in 0..frame.len() {
            let mut changed = frame.clone();
            changed[at] ^= 1;
            assert_eq!(Record::read(&changed), None, "byte {at}");
        }
        assert!(Record::read_call(&Record::Done(1).frame(b"")).is_err());
    }
}
