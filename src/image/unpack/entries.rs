//! Walks a tar: one entry after the other, each with its name, kind and size settled, or refused.
//!
//! The rules are stricter than tar(1)'s. Where two readers could disagree about where an entry's data ends
//! or which name counts, the layer is refused.

use std::io::{BufRead, BufReader, Read};
use std::ops::Range;

use tar::{EntryType, Header};

use crate::fault::{Context, Fault, Result};

use super::UnpackLimits;
use super::path::{Inside, show};
use super::pax::Pax;
use super::sparse::{self, Segment};
use super::stream::fault_inside;

const BLOCK: usize = 512;
/// The largest size that eleven octal digits can say; writers put it, or 0, where PAX holds a larger one.
const OCTAL_MAX: u64 = 0o77_777_777_777;

/// One entry of a layer, its data still in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub path: Inside,
    /// What.
    pub kind: EntryKind,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission and sticky bits; setuid and setgid do not survive.
    pub mode: u32,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// User extended attributes, names without `user.`.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file of so many bytes, which follow.
    File(u64),
    /// A file with holes: its full size, and where the bytes that follow belong.
    Sparse(u64, Vec<Segment>),
    /// A directory.
    Directory,
    /// A symbolic link with this target, as it stands.
    Symlink(Vec<u8>),
    /// Another name for this path.
    Hardlink(Inside),
    /// A device, fifo or socket: these never survive.
    Special,
}

/// The entries of a tar stream.
pub struct Entries<'a, R> {
    stream: R,
    limits: &'a UnpackLimits,
    /// Bytes of the current entry's data, and of the padding behind it, that are still in the stream.
    data: u64,
    padding: u64,
    /// Bytes of the stream that lie behind.
    position: u64,
    count: u64,
}

/// A stream that may know a quicker way over bytes than reading them.
pub trait Skip: Read {
    /// Passes over `count` bytes; fails with `UnexpectedEof` when there are fewer.
    fn skip(&mut self, count: u64) -> std::io::Result<()>;
}

impl<R: Skip> Skip for &mut R {
    fn skip(&mut self, count: u64) -> std::io::Result<()> {
        (**self).skip(count)
    }
}

impl<R: Skip> Skip for BufReader<R> {
    fn skip(&mut self, count: u64) -> std::io::Result<()> {
        let buffered = count.min(self.buffer().len() as u64);
        self.consume(buffered as usize);
        if count > buffered { self.get_mut().skip(count - buffered) } else { Ok(()) }
    }
}

/// Passes over bytes by reading them.
pub fn skip_by_reading(stream: &mut impl Read, count: u64) -> std::io::Result<()> {
    match std::io::copy(&mut stream.take(count), &mut std::io::sink())? {
        n if n < count => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// What the extension headers before an entry said.
#[derive(Default)]
struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl<'a, R: BufRead + Skip> Entries<'a, R> {
    /// The tar that `stream` starts with.
    pub fn new(stream: R, limits: &'a UnpackLimits) -> Self {
        Self { stream, limits, data: 0, padding: 0, position: 0, count: 0 }
    }

    /// The current entry's data.
    pub fn data(&mut self) -> Data<'_, R> {
        Data { stream: &mut self.stream, left: &mut self.data, position: &mut self.position }
    }

    /// Where in the stream the current entry's unread data begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next entry; its predecessor's unread data is skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                if extensions.name.is_some() || extensions.link.is_some() || extensions.pax.is_some() {
                    return Err(Fault::invalid("the layer ends behind a header that announces an entry"));
                }
                return Ok(None);
            };
            self.count += 1;
            if self.count > self.limits.entries {
                return Err(Fault::invalid(format!(
                    "the layer has more than {} entries, the limit",
                    self.limits.entries
                )));
            }
            match header.entry_type() {
                EntryType::GNULongName => set_once(&mut extensions.name, self.long_text(&header)?)?,
                EntryType::GNULongLink => set_once(&mut extensions.link, self.long_text(&header)?)?,
                EntryType::XHeader => {
                    let pax = Pax::parse(&self.extension(&header)?)?;
                    set_once(&mut extensions.pax, pax)?;
                }
                EntryType::XGlobalHeader => {
                    if Pax::parse(&self.extension(&header)?)?.names_or_measures() {
                        return Err(Fault::invalid("a global PAX header renames or resizes entries"));
                    }
                }
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    fn skip(&mut self) -> Result<()> {
        let left = self.data + self.padding;
        (self.data, self.padding) = (0, 0);
        self.stream.skip(left).map_err(fault_inside)?;
        self.position += left;
        Ok(())
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.stream.read(&mut block[filled..]).map_err(fault_inside).context(|| "cannot read the layer")? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(cut_off()),
                n => filled += n,
            }
        }
        self.position += BLOCK as u64;
        Ok(Some(block))
    }

    /// The next header block; `None` at the end: two blocks of zeroes, or the end of the stream.
    fn header(&mut self) -> Result<Option<Header>> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block == [0; BLOCK] {
            return match self.block()? {
                Some(second) if second != [0; BLOCK] => {
                    Err(Fault::invalid("the layer's tar goes on behind a block of zeroes"))
                }
                _ => Ok(None),
            };
        }
        let header = Header::from_byte_slice(&block).clone();
        // The sum is over all bytes, with the sum's own field taken as spaces.
        let sum: u32 =
            block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
        if header.cksum().ok() != Some(sum) {
            return Err(Fault::invalid("the layer is no tar, or is damaged: a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn expect_data(&mut self, size: u64) -> Result<()> {
        if size > self.limits.bytes {
            return Err(Fault::invalid(format!("an entry claims {size} bytes; {} are the limit", self.limits.bytes)));
        }
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn extension(&mut self, header: &Header) -> Result<Vec<u8>> {
        let size = raw_size(header)?;
        if size > self.limits.header {
            return Err(Fault::invalid(format!(
                "an extended header claims {size} bytes; {} are the limit",
                self.limits.header
            )));
        }
        self.expect_data(size)?;
        let mut bytes = Vec::new();
        self.data().read_to_end(&mut bytes).map_err(fault_inside)?;
        Ok(bytes)
    }

    /// A GNU long name: NUL-terminated text.
    fn long_text(&mut self, header: &Header) -> Result<Vec<u8>> {
        let mut text = self.extension(header)?;
        while text.last() == Some(&0) {
            text.pop();
        }
        Ok(text)
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry> {
        let Extensions { name, link, pax } = extensions;
        let mut pax = pax.unwrap_or_default();
        let raw_path = match (pax.sparse.name.take(), pax.path.take(), name) {
            (Some(name), _, _) | (None, Some(name), _) | (None, None, Some(name)) => name,
            _ => header.path_bytes().into_owned(),
        };
        let raw_link = pax.link.take().or(link).or_else(|| header.link_name_bytes().map(|l| l.into_owned()));
        let path = Inside::parse(&raw_path, self.limits)?;
        let within = || format!("entry {path}");
        let size = settled_size(header, &pax).context(within)?;
        let kind = self.kind(header, &pax, size, raw_link, raw_path.ends_with(b"/")).context(within)?;
        let mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => (i64::try_from(field(header, 136..148, Header::mtime).context(within)?).unwrap_or(0), 0),
        };
        let id = |from_pax: Option<u64>, from_header: Result<u64>| -> Result<u32> {
            let id = from_pax.map_or(from_header, Ok).context(within)?;
            // -1 means "leave it as it is" to chown(2).
            u32::try_from(id)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| Fault::invalid(format!("entry {path} has owner {id}, which no system has")))
        };
        Ok(Entry {
            kind,
            uid: id(pax.uid, field(header, 108..116, Header::uid))?,
            gid: id(pax.gid, field(header, 116..124, Header::gid))?,
            mode: field(header, 100..108, |h| h.mode().map(u64::from)).context(within)? as u32 & 0o1777,
            mtime,
            xattrs: pax.xattrs,
            path,
        })
    }

    fn kind(&mut self, header: &Header, pax: &Pax, size: u64, link: Option<Vec<u8>>, slash: bool) -> Result<EntryKind> {
        let no_data = || match size {
            0 => Ok(()),
            _ => Err(Fault::invalid("is of a kind that has no data, and claims some")),
        };
        match header.entry_type() {
            EntryType::GNUSparse => {
                self.expect_data(size)?;
                let (real, map) = self.old_gnu_sparse(header)?;
                sparse::check(real, &map, self.data, self.limits)?;
                Ok(EntryKind::Sparse(real, map))
            }
            EntryType::Regular | EntryType::Continuous if pax.sparse.is_some() => {
                self.expect_data(size)?;
                let limits = self.limits;
                let (real, map) = sparse::from_pax(&pax.sparse, &mut self.data(), limits)?;
                sparse::check(real, &map, self.data, self.limits)?;
                Ok(EntryKind::Sparse(real, map))
            }
            // Before ustar, a directory was a file whose name ends in a slash.
            EntryType::Regular if slash && header.as_ustar().is_none() && header.as_gnu().is_none() => {
                no_data().map(|()| EntryKind::Directory)
            }
            EntryType::Regular | EntryType::Continuous => {
                self.expect_data(size)?;
                Ok(EntryKind::File(size))
            }
            EntryType::Directory => no_data().map(|()| EntryKind::Directory),
            EntryType::Symlink => {
                no_data()?;
                let target = link.filter(|l| !l.is_empty() && l.len() <= self.limits.path && !l.contains(&0));
                target
                    .map(EntryKind::Symlink)
                    .ok_or_else(|| Fault::invalid("is a symbolic link without a usable target"))
            }
            EntryType::Link => {
                no_data()?;
                let target = Inside::parse(&link.unwrap_or_default(), self.limits)?;
                if target.is_root() {
                    return Err(Fault::invalid("is a hard link to nothing"));
                }
                Ok(EntryKind::Hardlink(target))
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => no_data().map(|()| EntryKind::Special),
            other => Err(Fault::invalid(format!("is of the unknown tar type \"{}\"", show(&[other.as_byte()])))),
        }
    }

    /// The map of an old GNU sparse file: four pairs in the header, 21 in each block that follows it.
    fn old_gnu_sparse(&mut self, header: &Header) -> Result<(u64, Vec<Segment>)> {
        let gnu = header.as_gnu().ok_or_else(|| Fault::invalid("is sparse in a header that cannot say so"))?;
        let mut map = Vec::new();
        sparse::push_gnu(&mut map, &gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let block = self.block()?.ok_or_else(cut_off)?;
            let mut extension = tar::GnuExtSparseHeader::new();
            extension.as_mut_bytes().copy_from_slice(&block);
            sparse::push_gnu(&mut map, extension.sparse())?;
            more = extension.is_extended();
            if map.len() > sparse::SEGMENTS_MAX {
                return Err(Fault::invalid("has more holes than the limit"));
            }
        }
        Ok((gnu.real_size()?, map))
    }
}

fn cut_off() -> Fault {
    Fault::invalid("the layer ends in the middle of an entry: it was cut off")
}

fn set_once<T>(slot: &mut Option<T>, value: T) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Fault::invalid("two headers of one kind announce the same entry")),
    }
}

/// A number from the header's bytes `at`; a blank field is 0, as for tar(1).
fn field(header: &Header, at: Range<usize>, read: impl Fn(&Header) -> std::io::Result<u64>) -> Result<u64> {
    if header.as_bytes()[at].iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(0);
    }
    read(header).map_err(|error| Fault::invalid("has a number in its header that is none").because(error))
}

fn raw_size(header: &Header) -> Result<u64> {
    field(header, 124..136, Header::entry_size)
}

/// One size from two places, or none: the header's and PAX's must agree unless the header could not say it.
fn settled_size(header: &Header, pax: &Pax) -> Result<u64> {
    let plain = raw_size(header)?;
    match pax.size {
        None => Ok(plain),
        Some(size) if size == plain || (size > OCTAL_MAX && (plain == 0 || plain == OCTAL_MAX)) => Ok(size),
        Some(size) => Err(Fault::invalid(format!("has two sizes: {plain} in its header, {size} in its PAX record"))),
    }
}

/// Reads the current entry's data and nothing beyond.
pub struct Data<'s, R> {
    stream: &'s mut R,
    left: &'s mut u64,
    position: &'s mut u64,
}

impl<R: BufRead> BufRead for Data<'_, R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if *self.left == 0 {
            return Ok(&[]);
        }
        let buffer = self.stream.fill_buf()?;
        if buffer.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let n = buffer.len().min(usize::try_from(*self.left).unwrap_or(usize::MAX));
        Ok(&buffer[..n])
    }

    fn consume(&mut self, n: usize) {
        *self.left -= n as u64;
        *self.position += n as u64;
        self.stream.consume(n);
    }
}

impl<R: BufRead> Read for Data<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let buffer = self.fill_buf()?;
        let n = buffer.len().min(out.len());
        out[..n].copy_from_slice(&buffer[..n]);
        self.consume(n);
        Ok(n)
    }
}
