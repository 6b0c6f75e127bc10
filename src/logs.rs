//! What replicas print. Each replica writes straight into a file of its own, so that it needs no daemon to
//! live; the daemon only notes, several times a second, how long each file was when: that gives lines their
//! times. A file that grows too long gives its beginning back to the file system in place: the writer never
//! notices, and nothing is copied.
//!
//! ```text
//! <root>/logs/<namespace>/<function>/<replica>.log     what it printed
//! <root>/logs/<namespace>/<function>/<replica>.marks   16 bytes a mark: length, unix nanoseconds (little endian)
//! ```

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fault::{Context, Result};
use crate::files;
use crate::function::{FunctionKey, ReplicaName};

/// How often files are looked at: the resolution of a line's time, and what a follower waits at most.
pub const TICK: Duration = Duration::from_millis(200);

/// Longest line; a longer one is cut into several. Go's line readers stop at 64 KiB.
const LINE_MAX: usize = 32 << 10;

/// Begins a line that this program, not the replica, has written.
pub const NOTE: &str = "faas-jails: ";

/// Logs kept of replicas that are gone, per function.
const PAST_KEPT: usize = 5;

/// One line, in the form that faas-cli reads (faas-provider, `logs.Message`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The function's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The replica's id.
    pub instance: String,
    /// When it was printed, to a fifth of a second.
    pub timestamp: Timestamp,
    /// The line, without its end.
    pub text: String,
}

/// The logs of all functions.
#[derive(Debug)]
pub struct Logs {
    root: PathBuf,
    max: u64,
    live: Mutex<HashMap<ReplicaName, Live>>,
}

#[derive(Debug)]
struct Live {
    log: File,
    marks: File,
    length: u64,
}

impl Logs {
    /// Logs under `root`, keeping about `max` bytes of each replica.
    pub fn new(root: PathBuf, max: u64) -> Arc<Self> {
        Arc::new(Self { root, max: max.max(64 << 10), live: Mutex::default() })
    }

    /// Notes lengths and trims, every [`TICK`], on a thread of its own for as long as these logs exist.
    pub fn start_clock(self: &Arc<Self>) {
        let logs = Arc::downgrade(self);
        let clock = move || {
            while let Some(logs) = logs.upgrade() {
                logs.tick();
                drop(logs);
                std::thread::sleep(TICK);
            }
        };
        std::thread::Builder::new().name("log-clock".into()).spawn(clock).expect("the system gives threads");
    }

    fn dir(&self, function: &FunctionKey) -> PathBuf {
        self.root.join(function.namespace.as_str()).join(function.name.as_str())
    }

    /// Opens a replica's log for appending, and begins to note its length. Also for an adopted replica.
    pub fn open(&self, replica: &ReplicaName) -> Result<File> {
        let dir = self.dir(replica.function());
        let what = || format!("cannot open the log of {replica} in {}", dir.display());
        fs::create_dir_all(&dir).context(what)?;
        let open = |suffix: &str| {
            let path = dir.join(format!("{}.{suffix}", replica.id()));
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
        };
        let log = open("log").context(what)?;
        let marks = open("marks").context(what)?;
        let length = last_mark(&marks).context(what)?;
        let output = log.try_clone().context(what)?;
        self.live.lock().unwrap_or_else(PoisonError::into_inner).insert(replica.clone(), Live { log, marks, length });
        Ok(output)
    }

    /// Adds a line of this program's own to a replica's log.
    pub fn note(&self, replica: &ReplicaName, text: &str) {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(live) = live.get(replica)
            && let Err(error) = (&live.log).write_all(format!("{NOTE}{text}\n").as_bytes())
        {
            tracing::warn!(%replica, %error, "cannot add to the log");
        }
    }

    /// The replica is gone: its last lines get their time, and the oldest logs of its function go.
    pub fn close(&self, replica: &ReplicaName) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut gone) = live.remove(replica) {
            self.mark(replica, &mut gone);
        }
        let running: Vec<&str> = live.keys().filter(|r| r.function() == replica.function()).map(|r| r.id()).collect();
        let dir = self.dir(replica.function());
        let mut past: Vec<(i64, String)> = files::names(&dir)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|name| {
                let id = name.strip_suffix(".log")?;
                let changed = fs::metadata(dir.join(&name)).ok()?.mtime();
                (!running.contains(&id)).then(|| (changed, id.to_owned()))
            })
            .collect();
        past.sort();
        past.reverse();
        for (_, id) in past.into_iter().skip(PAST_KEPT) {
            for suffix in ["log", "marks"] {
                let _ = files::remove(&dir.join(format!("{id}.{suffix}")));
            }
        }
    }

    /// The function is gone, and its logs with it.
    pub fn forget(&self, function: &FunctionKey) -> Result<()> {
        files::remove_tree(&self.dir(function))?;
        // The namespace's directory goes when it is empty; when it is not, it stays.
        let _ = fs::remove_dir(self.root.join(function.namespace.as_str()));
        Ok(())
    }

    /// Notes how long each live log is now.
    pub fn tick(&self) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        for (replica, live) in live.iter_mut() {
            self.mark(replica, live);
        }
    }

    fn mark(&self, replica: &ReplicaName, live: &mut Live) {
        if let Err(error) = self.try_mark(live) {
            tracing::warn!(%replica, %error, "cannot note the length of the log");
        }
    }

    fn try_mark(&self, live: &mut Live) -> io::Result<()> {
        let length = live.log.metadata()?.len();
        if length == live.length {
            return Ok(());
        }
        live.length = length;
        let mut mark = [0; 16];
        mark[..8].copy_from_slice(&length.to_le_bytes());
        mark[8..].copy_from_slice(&(Timestamp::now().as_nanosecond() as i64).to_le_bytes());
        live.marks.write_all(&mark)?;
        let begin = first_data(&live.log)?;
        // Giving back half at a time keeps this rare.
        if length - begin > self.max {
            give_back(live, length - self.max / 2)?;
        }
        Ok(())
    }

    /// A cursor over a function's lines: those of all its replicas, merged by time.
    pub fn reader(&self, function: &FunctionKey, instance: Option<String>) -> Reader {
        Reader {
            dir: self.dir(function),
            name: function.name.to_string(),
            namespace: function.namespace.to_string(),
            instance,
            positions: HashMap::new(),
        }
    }
}

/// Where the file's contents begin: everything before was given back.
fn first_data(file: &File) -> io::Result<u64> {
    match crate::platform::seek_data(file.as_raw_fd(), 0) {
        Ok(offset) => Ok(offset),
        // Empty, or wholly a hole.
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => Ok(file.metadata()?.len()),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(0),
        Err(e) => Err(e),
    }
}

fn give_back(live: &mut Live, upto: u64) -> io::Result<()> {
    match crate::platform::punch_hole(live.log.as_raw_fd(), 0, upto) {
        Ok(()) => Ok(()),
        // No holes in this file system: start again. The writer appends, so it goes on at the new end.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL)) => {
            live.log.set_len(0)?;
            live.marks.set_len(0)?;
            live.length = 0;
            Ok(())
        }
        Err(e) => Err(e),
    }
}

fn last_mark(marks: &File) -> io::Result<u64> {
    let end = marks.metadata()?.len() / 16 * 16;
    if end == 0 {
        return Ok(0);
    }
    let mut length = [0; 8];
    marks.read_exact_at(&mut length, end - 16)?;
    Ok(u64::from_le_bytes(length))
}

/// Reads a function's lines; each call of [`Reader::next`] gives those that came since the call before.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    name: String,
    namespace: String,
    instance: Option<String>,
    positions: HashMap<String, u64>,
}

impl Reader {
    /// Lines since the last call (at first: all that are kept), oldest first. `partial` lines, those whose end
    /// is not written yet, are left for later unless `last` is set.
    pub fn next(&mut self, last: Last) -> Result<Vec<Message>> {
        let mut lines = Vec::new();
        for file in files::names(&self.dir)? {
            let Some(id) = file.strip_suffix(".log") else { continue };
            if self.instance.as_deref().is_some_and(|wanted| wanted != id) {
                continue;
            }
            match self.read(id, last, &mut lines) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other.context(|| format!("cannot read the log of {}.{}", self.name, self.namespace))?,
            }
        }
        lines.sort_by_key(|line| line.timestamp);
        Ok(lines)
    }

    fn read(&mut self, id: &str, last: Last, lines: &mut Vec<Message>) -> io::Result<()> {
        let mut log = File::open(self.dir.join(format!("{id}.log")))?;
        let length = log.metadata()?.len();
        let seen = self.positions.get(id).copied().unwrap_or(0);
        if seen == length {
            return Ok(());
        }
        let begin = first_data(&log)?.max(if seen > length { 0 } else { seen });
        log.seek(SeekFrom::Start(begin))?;
        let mut bytes = Vec::with_capacity((length - begin) as usize);
        log.take(length - begin).read_to_end(&mut bytes)?;
        let times = Times::read(&self.dir.join(format!("{id}.marks")))?;
        let mut offset = begin;
        let mut rest = &bytes[..];
        // After a hole comes the tail of a cut line.
        if begin > seen && seen == 0 && begin > 0 {
            let cut = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1);
            offset += cut as u64;
            rest = &rest[cut..];
        }
        while !rest.is_empty() {
            let window = &rest[..rest.len().min(LINE_MAX)];
            let (end, taken) = match window.iter().position(|b| *b == b'\n') {
                Some(at) => (at, at + 1),
                None if window.len() == LINE_MAX || last == Last::WithPartial => (window.len(), window.len()),
                None => break,
            };
            lines.push(Message {
                name: self.name.clone(),
                namespace: self.namespace.clone(),
                instance: id.to_owned(),
                timestamp: times.at(offset),
                text: String::from_utf8_lossy(rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end])).into_owned(),
            });
            offset += taken as u64;
            rest = &rest[taken..];
        }
        self.positions.insert(id.to_owned(), offset);
        Ok(())
    }
}

/// Whether an unfinished last line is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Last {
    /// More may come.
    WholeLinesOnly,
    /// Nothing more will be read.
    WithPartial,
}

struct Times(Vec<(u64, i64)>);

impl Times {
    fn read(path: &Path) -> io::Result<Self> {
        let bytes = match fs::read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let word = |chunk: &[u8]| u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        Ok(Self(bytes.chunks_exact(16).map(|mark| (word(&mark[..8]), word(&mark[8..]) as i64)).collect()))
    }

    /// When the byte at `offset` was first seen there; now, when no mark has it yet.
    fn at(&self, offset: u64) -> Timestamp {
        let after = self.0.partition_point(|(length, _)| *length <= offset);
        let noted = self.0.get(after).and_then(|(_, time)| Timestamp::from_nanosecond(i128::from(*time)).ok());
        noted.unwrap_or_else(Timestamp::now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::Realm;

    fn replica() -> ReplicaName {
        let default = "openfaas-fn".parse().unwrap();
        ReplicaName::new(&Realm::default(), &FunctionKey::parse("f", &default).unwrap())
    }

    fn texts(messages: &[Message]) -> Vec<&str> {
        messages.iter().map(|m| m.text.as_str()).collect()
    }

    #[test]
    fn lines_of_all_replicas_come_once_in_order_and_unfinished_ones_wait() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned(), 1 << 20);
        let (a, b) = (replica(), replica());
        let (mut fa, mut fb) = (logs.open(&a).unwrap(), logs.open(&b).unwrap());
        fa.write_all(b"one\n").unwrap();
        logs.tick();
        fb.write_all(b"two\r\nthr").unwrap();
        logs.tick();
        let mut reader = logs.reader(a.function(), None);
        assert_eq!(texts(&reader.next(Last::WholeLinesOnly).unwrap()), ["one", "two"]);
        fb.write_all(b"ee\n").unwrap();
        logs.tick();
        assert_eq!(texts(&reader.next(Last::WholeLinesOnly).unwrap()), ["three"]);
        assert!(reader.next(Last::WholeLinesOnly).unwrap().is_empty());
        let mut only = logs.reader(a.function(), Some(a.id().to_owned()));
        assert_eq!(texts(&only.next(Last::WithPartial).unwrap()), ["one"]);
    }

    #[test]
    fn times_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let a = replica();
        let before = Timestamp::now();
        {
            let logs = Logs::new(dir.path().to_owned(), 1 << 20);
            logs.open(&a).unwrap().write_all(b"old\n").unwrap();
            logs.tick();
        }
        let after = Timestamp::now();
        let logs = Logs::new(dir.path().to_owned(), 1 << 20);
        logs.open(&a).unwrap().write_all(b"new\n").unwrap();
        logs.tick();
        let lines = logs.reader(a.function(), None).next(Last::WithPartial).unwrap();
        assert!(before <= lines[0].timestamp && lines[0].timestamp <= after && lines[1].timestamp >= after);
    }

    #[test]
    fn a_long_log_gives_its_beginning_back_and_stays_readable() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned(), 64 << 10);
        let a = replica();
        let mut out = logs.open(&a).unwrap();
        for i in 0..40_000 {
            writeln!(out, "line {i}").unwrap();
            if i % 1000 == 0 {
                logs.tick();
            }
        }
        logs.tick();
        let path = dir.path().join("openfaas-fn/f").join(format!("{}.log", a.id()));
        assert!(fs::metadata(path).unwrap().blocks() * 512 <= 128 << 10);
        let lines = logs.reader(a.function(), None).next(Last::WithPartial).unwrap();
        assert_eq!(lines.last().unwrap().text, "line 39999");
        assert!(lines.iter().all(|line| line.text.starts_with("line ")), "no cut line at the beginning");
    }

    #[test]
    fn the_logs_of_the_last_dead_replicas_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path().to_owned(), 1 << 20);
        for _ in 0..PAST_KEPT + 3 {
            let name = replica();
            logs.open(&name).unwrap().write_all(b"x\n").unwrap();
            logs.close(&name);
        }
        let key = replica().function().clone();
        assert_eq!(logs.reader(&key, None).next(Last::WithPartial).unwrap().len(), PAST_KEPT);
        logs.forget(&key).unwrap();
        assert!(files::names(dir.path()).unwrap().is_empty());
    }
}
