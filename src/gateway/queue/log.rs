//! The queue on disk: segment files that are appended to, and removed once nothing in them is needed.
//!
//! A segment goes only when all before it have gone, so that the note that a call is done outlives the call. What a
//! crash leaves half-written at a segment's end was never promised to anybody, and is passed over.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::record::{Call, Record, Tried};
use crate::fault::{Context, Result};
use crate::files;

/// A segment that has grown so long is followed by another.
const SEGMENT: u64 = 16 << 20;

/// Where a call's frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    segment: u64,
    offset: u64,
    /// Bytes of the frame.
    pub length: u64,
}

/// A call of an earlier process that is not done.
#[derive(Debug, PartialEq)]
pub struct Left {
    /// The call.
    pub call: Call,
    /// Where it is.
    pub place: Place,
    /// How often it has been tried.
    pub attempts: u32,
}

/// The log, open for one writer.
pub struct Log {
    dir: PathBuf,
    file: File,
    current: u64,
    length: u64,
    /// Calls that are not done, by segment.
    open: BTreeMap<u64, usize>,
    /// In which segment each call that is not done is.
    calls: HashMap<u64, u64>,
}

impl Log {
    /// Opens the log in `dir`, which is made if it is not there, and tells what earlier processes left undone.
    pub fn open(dir: &Path) -> Result<(Self, Vec<Left>)> {
        fs::create_dir_all(dir).context(|| format!("cannot make {}", dir.display()))?;
        let mut open = BTreeMap::new();
        let mut left = BTreeMap::new();
        for name in files::names(dir)? {
            let Ok(segment) = name.parse::<u64>() else { continue };
            open.insert(segment, 0);
            scan(dir, segment, &mut left)?;
        }
        let mut calls = HashMap::new();
        for (sequence, Left { place, .. }) in &left {
            calls.insert(*sequence, place.segment);
            *open.entry(place.segment).or_insert(0) += 1;
        }
        let current = open.last_key_value().map_or(1, |(last, _)| last + 1);
        let file = create(dir, current)?;
        open.insert(current, 0);
        let mut log = Self { dir: dir.to_owned(), file, current, length: 0, open, calls };
        log.drop_done()?;
        Ok((log, left.into_values().collect()))
    }

    /// Appends frames, and waits for the disk if asked to. Tells where they are; none of them is there on failure.
    pub fn append(&mut self, frames: &[Vec<u8>], sync: bool) -> Result<Vec<Place>> {
        if self.length >= SEGMENT {
            self.begin_segment()?;
        }
        let begin = self.length;
        let mut places = Vec::with_capacity(frames.len());
        for frame in frames {
            places.push(Place { segment: self.current, offset: self.length, length: frame.len() as u64 });
            self.length += frame.len() as u64;
        }
        let written = self.file.write_all_at(&frames.concat(), begin);
        let written = written.and_then(|()| if sync { self.file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            // What reached the disk is unknown: nothing more is written behind it.
            let undone = self.file.set_len(begin).map_err(Into::into).and_then(|()| self.begin_segment());
            return Err(error)
                .context(|| format!("cannot write to the queue in {}", self.dir.display()))
                .map_err(|fault| fault.and_cleanup(undone));
        }
        Ok(places)
    }

    /// Notes that a call is in the log and not done.
    pub fn opened(&mut self, sequence: u64, place: Place) {
        self.calls.insert(sequence, place.segment);
        *self.open.entry(place.segment).or_insert(0) += 1;
    }

    /// Notes that a call is done, and removes the segments that nobody needs any more.
    pub fn closed(&mut self, sequence: u64) -> Result<()> {
        if let Some(open) = self.calls.remove(&sequence).and_then(|segment| self.open.get_mut(&segment)) {
            *open -= 1;
        }
        self.drop_done()
    }

    fn drop_done(&mut self) -> Result<()> {
        while let Some((&segment, 0)) = self.open.first_key_value()
            && segment != self.current
        {
            files::remove(&path(&self.dir, segment))?;
            self.open.remove(&segment);
        }
        Ok(())
    }

    fn begin_segment(&mut self) -> Result<()> {
        self.file = create(&self.dir, self.current + 1)?;
        self.current += 1;
        self.length = 0;
        self.open.insert(self.current, 0);
        self.drop_done()
    }
}

/// Reads a call back.
pub fn read(dir: &Path, place: Place) -> Result<(Call, Vec<u8>)> {
    let path = path(dir, place.segment);
    let what = || format!("cannot read {}", path.display());
    let mut bytes = vec![0; place.length as usize];
    let file = File::open(&path).context(what)?;
    file.read_exact_at(&mut bytes, place.offset).context(what)?;
    Record::read_call(&bytes).context(what)
}

fn path(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("{segment:020}"))
}

fn create(dir: &Path, segment: u64) -> Result<File> {
    let path = path(dir, segment);
    let make = || -> std::io::Result<File> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        File::open(dir)?.sync_all()?;
        Ok(file)
    };
    make().context(|| format!("cannot make {}", path.display()))
}

/// Reads a segment: what it says about calls goes into `left`.
fn scan(dir: &Path, segment: u64, left: &mut BTreeMap<u64, Left>) -> Result<()> {
    let path = path(dir, segment);
    let bytes = fs::read(&path).context(|| format!("cannot read {}", path.display()))?;
    let mut offset = 0;
    while let Some((record, body)) = Record::read(&bytes[offset..]) {
        let length = body.end;
        match record {
            Record::Accepted(call) => {
                let place = Place { segment, offset: offset as u64, length: length as u64 };
                left.insert(call.sequence, Left { call, place, attempts: 0 });
            }
            Record::Tried(Tried { sequence, attempts }) => {
                left.entry(sequence).and_modify(|left| left.attempts = attempts);
            }
            Record::Done(sequence) => drop(left.remove(&sequence)),
        }
        offset += length;
    }
    if offset < bytes.len() {
        let rest = bytes.len() - offset;
        tracing::info!(segment = %path.display(), rest, "a segment ends in the middle of a record: written during a crash");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(sequence: u64) -> Record {
        Record::Accepted(Call {
            sequence,
            function: "f.ns".into(),
            written: "f".into(),
            path: "/".into(),
            headers: Vec::new(),
            id: sequence.to_string(),
            callback: None,
        })
    }

    fn put(log: &mut Log, sequence: u64, body: &[u8]) -> Place {
        let place = log.append(&[accepted(sequence).frame(body)], true).unwrap()[0];
        log.opened(sequence, place);
        place
    }

    fn segments(dir: &Path) -> usize {
        files::names(dir).unwrap().len()
    }

    #[test]
    fn what_was_not_done_is_there_after_opening_again_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, left) = Log::open(dir.path()).unwrap();
        assert_eq!(left, []);
        for sequence in 1..=4 {
            put(&mut log, sequence, b"body");
        }
        let tried = Record::Tried(Tried { sequence: 3, attempts: 2 }).frame(b"");
        log.append(&[Record::Done(2).frame(b""), tried], false).unwrap();
        drop(log);
        let (_, left) = Log::open(dir.path()).unwrap();
        let told: Vec<_> = left.iter().map(|l| (l.call.sequence, l.attempts)).collect();
        assert_eq!(told, [(1, 0), (3, 2), (4, 0)]);
        assert_eq!(read(dir.path(), left[1].place).unwrap().1, b"body");
    }

    #[test]
    fn a_record_cut_short_at_any_byte_costs_only_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(dir.path()).unwrap();
        put(&mut log, 1, b"first");
        let second = put(&mut log, 2, b"second");
        let path = path(dir.path(), second.segment);
        for length in second.offset..second.offset + second.length {
            OpenOptions::new().write(true).open(&path).unwrap().set_len(length).unwrap();
            let mut left = BTreeMap::new();
            scan(dir.path(), second.segment, &mut left).unwrap();
            assert_eq!(left.keys().copied().collect::<Vec<_>>(), [1], "{length} bytes");
        }
    }

    #[test]
    fn segments_go_when_all_in_them_and_before_them_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(dir.path()).unwrap();
        let large = vec![0; SEGMENT as usize];
        put(&mut log, 1, &large);
        put(&mut log, 2, &large);
        put(&mut log, 3, b"");
        assert_eq!(segments(dir.path()), 3);
        log.closed(2).unwrap();
        assert_eq!(segments(dir.path()), 3, "the first is still needed");
        log.closed(1).unwrap();
        assert_eq!(segments(dir.path()), 1);
        log.closed(3).unwrap();
        drop(log);
        let (_, left) = Log::open(dir.path()).unwrap();
        assert_eq!(left.len(), 1, "nobody wrote down that it was done");
    }
}
