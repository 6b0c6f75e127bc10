//! A layer's bytes on their way in: counted, hashed, decompressed, hashed again, and capped.
//!
//! ```text
//! source -> Shipped (count, digest of the blob) -> gzip | zstd | plain -> Plain (count, diff-id, caps) -> tar
//! ```

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::fault::{Context, Fault, Kind, Result};
use crate::image::Digest;

use super::UnpackLimits;

/// zstd frames may ask for a window of 2^n bytes; 32 MiB serve every level below `--ultra`.
const ZSTD_WINDOW_LOG: u32 = 25;
const BUFFER: usize = 128 << 10;

/// Called with the number of bytes that arrived; may stop everything by an error.
pub type OnBytes<'a> = Box<dyn FnMut(u64) -> io::Result<()> + Send + 'a>;

/// What the bytes must turn out to be.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Digest of the bytes as shipped, when somebody vouched for it.
    pub blob: Option<&'a Digest>,
    /// Digest of the uncompressed tar; absent where the bytes themselves were vouched for before.
    pub diff_id: Option<&'a Digest>,
}

struct Shipped<'a, R> {
    inner: R,
    hash: Option<Sha256>,
    count: Arc<AtomicU64>,
    on_bytes: OnBytes<'a>,
}

impl<R: Read> Read for Shipped<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if let Some(hash) = &mut self.hash {
            hash.update(&buffer[..n]);
        }
        self.count.fetch_add(n as u64, Ordering::Relaxed);
        (self.on_bytes)(n as u64)?;
        Ok(n)
    }
}

type Peeked<R> = Chain<Cursor<Vec<u8>>, BufReader<R>>;

/// gzip, zstd or neither, told apart by the first bytes.
pub(in crate::image) enum Decoder<R: Read> {
    Plain(Peeked<R>),
    Gzip(Box<MultiGzDecoder<Peeked<R>>>),
    Zstd(Box<zstd::Decoder<'static, Peeked<R>>>),
}

impl<R: Read> Decoder<R> {
    /// Looks at the first bytes of `source` and picks the decoder.
    pub fn new(source: R) -> io::Result<Self> {
        let mut source = BufReader::with_capacity(BUFFER, source);
        let mut magic = Vec::with_capacity(6);
        (&mut source).take(6).read_to_end(&mut magic)?;
        let kind = magic.clone();
        let source = Cursor::new(magic).chain(source);
        Ok(match kind.as_slice() {
            [0x1f, 0x8b, ..] => Self::Gzip(Box::new(MultiGzDecoder::new(source))),
            // A zstd frame, or a skippable one (RFC 8878, 3.1).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                let mut decoder = zstd::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Self::Zstd(Box::new(decoder))
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0] => {
                return Err(unsupported("it is xz-compressed; decompress it first (xz -d)"));
            }
            [b'B', b'Z', b'h', ..] => {
                return Err(unsupported("it is bzip2-compressed; decompress it first (bzip2 -d)"));
            }
            _ => Self::Plain(source),
        })
    }

    /// Does it decompress anything?
    pub fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    fn into_source(self) -> Peeked<R> {
        match self {
            Self::Plain(source) => source,
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.finish(),
        }
    }
}

fn unsupported(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(source) => source.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// The uncompressed tar of a layer, checked while it is read. Call [`LayerStream::finish`] at its end.
pub struct LayerStream<'a, R: Read> {
    decoder: Decoder<Shipped<'a, R>>,
    hash: Sha256,
    bytes: u64,
    shipped: Arc<AtomicU64>,
    limits: UnpackLimits,
    started: Instant,
}

impl<'a, R: Read> LayerStream<'a, R> {
    /// Starts reading; the blob is hashed only if `expected` names its digest.
    pub fn new(source: R, expected: &Expected<'_>, limits: &UnpackLimits, on_bytes: OnBytes<'a>) -> Result<Self> {
        let shipped = Arc::new(AtomicU64::new(0));
        // An uncompressed layer is its own blob: one hash says both.
        let hash = expected.blob.filter(|blob| Some(*blob) != expected.diff_id).map(|_| Sha256::new());
        let source = Shipped { inner: source, hash, count: shipped.clone(), on_bytes };
        let decoder = Decoder::new(source).map_err(fault_inside).context(|| "cannot read the layer")?;
        Ok(Self { decoder, hash: Sha256::new(), bytes: 0, shipped, limits: limits.clone(), started: Instant::now() })
    }

    /// Reads what is left, then compares both digests. Returns the bytes shipped.
    pub fn finish(mut self, expected: &Expected<'_>) -> Result<u64> {
        io::copy(&mut self, &mut io::sink()).map_err(fault_inside).context(|| "cannot read the layer")?;
        let diff_id = Digest::sha256(self.hash.finalize());
        let mut source = self.decoder.into_source();
        io::copy(&mut source, &mut io::sink()).map_err(fault_inside).context(|| "cannot read the layer")?;
        let shipped = source.into_inner().1.into_inner();
        let blob = shipped.hash.map(|hash| Digest::sha256(hash.finalize()));
        if let (Some(expected), Some(found)) = (expected.blob, blob)
            && *expected != found
        {
            return Err(Fault::invalid(format!(
                "the layer's digest is {found}, not {expected}: it was damaged or exchanged on its way"
            )));
        }
        if let Some(expected) = expected.diff_id.filter(|expected| **expected != diff_id) {
            return Err(Fault::invalid(format!(
                "the layer's contents have diff-id {diff_id}, not {expected} as the image's config says"
            )));
        }
        Ok(self.shipped.load(Ordering::Relaxed))
    }

    fn check(&self) -> io::Result<()> {
        let limits = &self.limits;
        let refuse = |why: String| Err(io::Error::other(Fault::invalid(why)));
        if self.bytes > limits.bytes {
            return refuse(format!("the layer unpacks to more than {} bytes, the limit", limits.bytes));
        }
        let shipped = self.shipped.load(Ordering::Relaxed).max(1);
        if self.bytes > limits.ratio_from && self.bytes / shipped > limits.ratio {
            return refuse(format!(
                "the layer unpacks to more than {} times its size, the limit: it looks like a decompression bomb",
                limits.ratio
            ));
        }
        if self.started.elapsed() > limits.time {
            return refuse(format!("the layer took longer than {} s, the limit", limits.time.as_secs()));
        }
        Ok(())
    }
}

impl<R: Read> Read for LayerStream<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.decoder.read(buffer)?;
        self.hash.update(&buffer[..n]);
        self.bytes += n as u64;
        self.check()?;
        Ok(n)
    }
}

/// An io::Error as a Fault; one that carries a Fault gives it back.
pub(in crate::image) fn fault_inside(error: io::Error) -> Fault {
    let kind = error.kind();
    match error.downcast::<Fault>() {
        Ok(fault) => fault,
        Err(error) if matches!(kind, io::ErrorKind::UnexpectedEof) => {
            Fault::invalid("it ends too early: it was cut off").because(error)
        }
        Err(error)
            if matches!(
                kind,
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::Unsupported
            ) =>
        {
            Fault::new(Kind::Invalid, error.to_string())
        }
        Err(error) => error.into(),
    }
}

/// Reads all of a small thing into memory.
pub(in crate::image) fn read_capped(source: impl BufRead, cap: u64, what: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(cap + 1).read_to_end(&mut bytes).map_err(fault_inside).context(|| format!("cannot read {what}"))?;
    if bytes.len() as u64 > cap {
        return Err(Fault::invalid(format!("{what} is larger than {cap} bytes, the limit")));
    }
    Ok(bytes)
}
