//! Just enough of rtnetlink(7) to make links, addresses and routes without running a command:
//! a message builder, a socket that waits for the kernel's answer, and a reader of attributes.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::fault::{Fault, Kind};

const HEADER: usize = 16;
/// The kernel sends dumps in pieces of at most 32 KiB (netlink_dump).
const RECEIVE: usize = 64 << 10;
/// struct nlmsgerr without the copied message: `int error; struct nlmsghdr msg`.
const ERROR_FIXED: usize = 4 + HEADER;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// The kernel's refusal, with its own words where it sent some.
#[derive(Debug)]
pub(super) struct Refusal {
    /// An errno value.
    pub errno: i32,
    words: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = io::Error::from_raw_os_error(self.errno);
        match &self.words {
            Some(words) => write!(f, "{words}: {error}"),
            None => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self { errno: error.raw_os_error().unwrap_or(libc::EIO), words: None }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal.errno {
            libc::EEXIST | libc::EBUSY => Kind::Busy,
            libc::ENODEV | libc::ENOENT => Kind::NotFound,
            libc::EOPNOTSUPP => Kind::Unsupported,
            _ => Kind::System,
        };
        Fault::new(kind, refusal.to_string())
    }
}

/// One request, built front to back.
pub(super) struct Request(Vec<u8>);

impl Request {
    /// A request of type `kind` (`RTM_*`) with `NLM_F_*` flags; acknowledgement is always asked for.
    pub fn new(kind: u16, flags: i32) -> Self {
        let flags = flags as u16 | libc::NLM_F_REQUEST as u16 | libc::NLM_F_ACK as u16;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self(bytes)
    }

    /// Appends `struct ifinfomsg`; index 0 means that a name attribute says which link.
    /// Brings the link up if `up`, and changes no other flag.
    pub fn link(self, index: u32, up: bool) -> Self {
        let flag = if up { libc::IFF_UP as u32 } else { 0 };
        self.bytes(&[0; 4]).bytes(&index.to_ne_bytes()).bytes(&flag.to_ne_bytes()).bytes(&flag.to_ne_bytes())
    }

    /// Appends raw bytes: a family's fixed header.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends an attribute.
    pub fn attribute(mut self, kind: u16, payload: &[u8]) -> Self {
        let length = (4 + payload.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(payload);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Appends a text attribute, NUL-terminated.
    pub fn text(self, kind: u16, text: &str) -> Self {
        self.attribute(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// Appends a 32-bit attribute.
    pub fn number(self, kind: u16, number: u32) -> Self {
        self.attribute(kind, &number.to_ne_bytes())
    }

    /// Appends an attribute that holds what `inside` appends.
    pub fn nested(mut self, kind: u16, inside: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        let mut done = inside(self);
        let length = (done.0.len() - start) as u16;
        done.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        done.0[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        done
    }
}

/// A NETLINK_ROUTE socket. It stays in the network namespace that its maker was in.
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: Cell<u32>,
}

impl Socket {
    /// Opens one in the calling thread's network namespace.
    pub fn open() -> io::Result<Self> {
        // SAFETY: plain system call without pointers; the result is checked.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            let on: libc::c_int = 1;
            // SAFETY: the value pointer and length describe `on`. A kernel without the option says less, that is all.
            unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), 4) };
        }
        Ok(Self { fd, sequence: Cell::new(0) })
    }

    /// Sends a request and returns the messages that answer it: none for a plain change.
    pub fn execute(&self, request: Request) -> Result<Vec<Message>, Refusal> {
        let sequence = self.sequence.get() + 1;
        self.sequence.set(sequence);
        let mut bytes = request.0;
        let length = bytes.len() as u32;
        bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        rustix::net::send(&self.fd, &bytes, rustix::net::SendFlags::empty()).map_err(io::Error::from)?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; RECEIVE];
        loop {
            let (_, length) = rustix::net::recv(&self.fd, &mut buffer[..], rustix::net::RecvFlags::empty())
                .map_err(io::Error::from)?;
            for message in messages(buffer.get(..length).unwrap_or_default()) {
                if message.sequence != sequence {
                    continue;
                }
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(answers),
                    libc::NLMSG_ERROR => return message.acknowledgement().map(|()| answers),
                    _ => answers.push(message),
                }
            }
        }
    }
}

/// One message from the kernel.
pub(super) struct Message {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: Vec<u8>,
}

impl Message {
    fn acknowledgement(&self) -> Result<(), Refusal> {
        let errno = -i32_at(&self.payload, 0);
        if errno == 0 {
            return Ok(());
        }
        let skip = match self.flags & NLM_F_CAPPED {
            0 => 4 + u32_at(&self.payload, 4) as usize,
            _ => ERROR_FIXED,
        };
        let words = (self.flags & NLM_F_ACK_TLVS != 0)
            .then(|| attribute(self.payload.get(skip..)?, NLMSGERR_ATTR_MSG).map(text))
            .flatten();
        Err(Refusal { errno, words })
    }

    /// `ifi_index` of a link message.
    pub fn link_index(&self) -> u32 {
        u32_at(&self.payload, 4)
    }

    /// An attribute of a link message.
    pub fn link_attribute(&self, kind: u16) -> Option<&[u8]> {
        attribute(self.payload.get(16..)?, kind)
    }
}

/// The text in a NUL-terminated attribute.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|&b| b == 0).next().unwrap_or_default()).into_owned()
}

/// The number in a 32-bit attribute.
pub(super) fn number(bytes: &[u8]) -> u32 {
    u32_at(bytes, 0)
}

/// Finds an attribute among those in `bytes`.
pub(super) fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    // The two uppermost bits are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
    const KIND: u16 = 0x3fff;
    while bytes.len() >= 4 {
        let length = usize::from(u16_at(bytes, 0));
        let payload = bytes.get(4..length)?;
        if u16_at(bytes, 2) & KIND == kind {
            return Some(payload);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn messages(mut bytes: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    while bytes.len() >= HEADER {
        let length = u32_at(bytes, 0) as usize;
        let Some(payload) = bytes.get(HEADER..length) else { break };
        found.push(Message {
            kind: u16_at(bytes, 4),
            flags: u16_at(bytes, 6),
            sequence: u32_at(bytes, 8),
            payload: payload.to_vec(),
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_ne_bytes([b[0], b[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    u32_at(bytes, at) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_attributes_are_found_again() {
        let request = Request::new(0, 0)
            .text(3, "eth0")
            .nested(18, |inner| inner.text(1, "bridge").nested(2, |r| r.number(33, 7)));
        let body = &request.0[HEADER..];
        assert_eq!(text(attribute(body, 3).unwrap()), "eth0");
        let info = attribute(body, 18).unwrap();
        assert_eq!(text(attribute(info, 1).unwrap()), "bridge");
        assert_eq!(number(attribute(attribute(info, 2).unwrap(), 33).unwrap()), 7);
        assert!(attribute(body, 4).is_none());
    }

    #[test]
    fn broken_bytes_end_the_reading() {
        assert!(attribute(&[0, 0, 3, 0, 1, 2, 3, 4], 3).is_none(), "length 0 must not loop");
        assert!(attribute(&[200, 0, 3, 0], 3).is_none());
        assert!(messages(&[3; 40]).is_empty());
        assert!(messages(&[0; 40]).is_empty());
    }

    #[test]
    fn the_kernel_is_understood() {
        let socket = Socket::open().unwrap();
        let name = |name: &str| {
            socket.execute(Request::new(libc::RTM_GETLINK, 0).link(0, false).text(libc::IFLA_IFNAME, name))
        };
        assert_eq!(name("lo").unwrap()[0].link_index(), 1);
        assert_eq!(name("no-such-link").err().unwrap().errno, libc::ENODEV);
    }
}
