//! Decompressing and hashing in one thread, writing files in another: each is about half of the work, and
//! storage that takes one layer at a time leaves the other processors idle.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::fault::{Fault, Kind, Result};

use super::entries::{Skip, skip_by_reading};

const CHUNK: usize = 128 << 10;
/// Chunks between the two threads: 2 MiB.
const CHUNKS: usize = 16;

/// What was read elsewhere, in order.
pub struct Pipe {
    chunks: Receiver<io::Result<Vec<u8>>>,
    empty: SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    over: bool,
}

/// Reads `source` to its end in a thread of its own while `consume` takes the bytes in this one. Returns what
/// `consume` said, and the source. When `consume` fails, the source is read no further than to its next byte.
pub fn piped<R: Read + Send, T>(mut source: R, consume: impl FnOnce(&mut Pipe) -> Result<T>) -> Result<(T, R)> {
    let (filled, chunks) = sync_channel(CHUNKS);
    let (empty, reuse) = sync_channel(CHUNKS + 2);
    let mut pipe = Pipe { chunks, empty, chunk: Vec::new(), at: 0, over: false };
    thread::scope(|scope| {
        let reader = thread::Builder::new().name("decompress".to_owned());
        let reader = reader.spawn_scoped(scope, move || {
            while let Some(chunk) = next(&mut source, reuse.try_recv().unwrap_or_default()) {
                let last = chunk.is_err();
                if filled.send(chunk).is_err() || last {
                    break;
                }
            }
            source
        })?;
        let consumed = consume(&mut pipe);
        // A reader that waits to send ends now.
        drop(pipe);
        let source = reader.join().map_err(|_| Fault::new(Kind::System, "the thread that decompresses broke"))?;
        consumed.map(|value| (value, source))
    })
}

/// A full chunk, or what is left; `None` at the end.
fn next(source: &mut impl Read, mut chunk: Vec<u8>) -> Option<io::Result<Vec<u8>>> {
    chunk.resize(CHUNK, 0);
    let mut filled = 0;
    while filled < CHUNK {
        match source.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Some(Err(error)),
        }
    }
    chunk.truncate(filled);
    (filled > 0).then_some(Ok(chunk))
}

impl BufRead for Pipe {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() && !self.over {
            let done = std::mem::take(&mut self.chunk);
            self.at = 0;
            // Full means that there are chunks enough.
            let _ = self.empty.try_send(done);
            match self.chunks.recv() {
                Ok(chunk) => self.chunk = chunk.inspect_err(|_| self.over = true)?,
                Err(_) => self.over = true,
            }
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

impl Read for Pipe {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let buffer = self.fill_buf()?;
        let n = buffer.len().min(out.len());
        out[..n].copy_from_slice(&buffer[..n]);
        self.consume(n);
        Ok(n)
    }
}

impl Skip for Pipe {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        skip_by_reading(self, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_arrive_and_the_source_comes_back() {
        let bytes: Vec<u8> = (0..3 * CHUNK + 17).map(|n| n as u8).collect();
        let read = |pipe: &mut Pipe| {
            let mut all = Vec::new();
            pipe.read_to_end(&mut all)?;
            Ok(all)
        };
        let (all, source) = piped(&bytes[..], read).unwrap();
        assert!(all == bytes && source.is_empty());
    }

    #[test]
    fn a_consumer_that_fails_ends_an_endless_source() {
        let failed = piped(io::repeat(0), |pipe| {
            pipe.fill_buf()?;
            Err::<(), _>(Fault::invalid("enough"))
        });
        assert_eq!(failed.err().unwrap().to_string(), "enough");
    }

    #[test]
    fn a_source_that_fails_is_heard() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let failed = piped(Broken, |pipe| Ok(io::copy(pipe, &mut io::sink())?));
        assert_eq!(failed.err().unwrap().to_string(), "broken");
    }
}
