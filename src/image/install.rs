//! Puts an image's layers into storage: several at once where storage allows, each in one pass from its source
//! to files.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};

use crate::fault::{Context, Fault, Kind, Result};
use crate::storage::Storage;

use super::store::Files;
use super::unpack::{Expected, Facts, UnpackLimits, unpack};
use super::{Digest, Layer, Progress};

/// Where an image's layers come from.
pub trait LayerSource: Sync {
    /// The bytes of layer number `at` (0 is the lowest), as shipped, from the first.
    fn open(&self, at: usize) -> Result<Box<dyn Read + Send + '_>>;
}

/// One layer to install.
pub struct Wanted {
    /// Which.
    pub layer: Layer,
    /// Digest of its bytes as shipped, when the manifest names one.
    pub blob: Option<Digest>,
    /// Its bytes as shipped, when known.
    pub size: Option<u64>,
}

/// What installing needs.
pub struct Installer<'a> {
    /// Where layers go.
    pub storage: &'a dyn Storage,
    /// Where facts about them go.
    pub files: &'a Files,
    /// Caps.
    pub limits: &'a UnpackLimits,
    /// Layers at once.
    pub parallel: usize,
    /// Who hears of it.
    pub progress: &'a dyn Progress,
}

/// How far the layers of one image are; shared by the threads that work on them.
struct Board {
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
}

struct State {
    next: usize,
    done: Vec<Option<Facts>>,
    fault: Option<Fault>,
}

enum Step {
    Done(Facts),
    NeedsParent,
}

impl Installer<'_> {
    /// Brings every layer into storage. On failure, the layers that were finished stay (they are whole, and the
    /// next attempt uses them); nothing of the others does.
    pub fn run(&self, wanted: &[Wanted], source: &dyn LayerSource) -> Result<Vec<Facts>> {
        let board = Board {
            state: Mutex::new(State { next: 0, done: wanted.iter().map(|_| None).collect(), fault: None }),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
        };
        let threads = self.parallel.clamp(1, wanted.len().max(1));
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| self.work(wanted, source, &board));
            }
            self.work(wanted, source, &board);
        });
        let state = board.state.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(fault) = state.fault {
            return Err(fault);
        }
        let unfinished = || Fault::new(Kind::System, "a layer was left unfinished");
        state.done.into_iter().map(|facts| facts.ok_or_else(unfinished)).collect()
    }

    fn work(&self, wanted: &[Wanted], source: &dyn LayerSource, board: &Board) {
        while let Some(at) = board.take(wanted.len()) {
            match self.layer(at, &wanted[at], source, board) {
                Ok(facts) => board.finished(at, facts),
                Err(fault) => board.failed(fault.within(format!("layer {} ({})", at + 1, wanted[at].layer.diff_id))),
            }
        }
    }

    fn layer(&self, at: usize, wanted: &Wanted, source: &dyn LayerSource, board: &Board) -> Result<Facts> {
        if let Step::Done(facts) = self.attempt(at, wanted, source, board)? {
            return Ok(facts);
        }
        // Storage unpacks a layer into a copy of its parent, so the lower ones come first.
        board.wait_for_below(at)?;
        match self.attempt(at, wanted, source, board)? {
            Step::Done(facts) => Ok(facts),
            Step::NeedsParent => Err(Fault::new(Kind::System, "storage has lost the layer below")),
        }
    }

    fn attempt(&self, at: usize, wanted: &Wanted, source: &dyn LayerSource, board: &Board) -> Result<Step> {
        let layer = &wanted.layer;
        // Another image, or another process, may be at the same layer.
        let _lock = self.files.lock_layer(&layer.diff_id)?;
        let facts = self.files.facts(&layer.diff_id)?;
        let present = self.storage.has(layer)?;
        if let (true, Some(facts)) = (present, &facts) {
            self.progress.layer_done(&layer.diff_id);
            return Ok(Step::Done(facts.clone()));
        }
        if present {
            // Storage has it, its facts are lost: read it once more, without unpacking.
            let facts = self.read(at, wanted, source, board, None)?;
            return Ok(Step::Done(facts));
        }
        // Looked at first: the layer below may become complete while storage misses it.
        let on_its_parent = at == 0 || board.is_done(at - 1);
        let staging = match self.storage.stage(layer) {
            Err(fault) if fault.kind() == Kind::NotFound && !on_its_parent => return Ok(Step::NeedsParent),
            other => other?,
        };
        match self.read(at, wanted, source, board, Some(&staging)) {
            Ok(facts) => self.storage.commit(staging).map(|()| Step::Done(facts)),
            Err(fault) => Err(fault.and_cleanup(self.storage.abort(staging))),
        }
    }

    fn read(
        &self,
        at: usize,
        wanted: &Wanted,
        source: &dyn LayerSource,
        board: &Board,
        staging: Option<&crate::storage::Staging>,
    ) -> Result<Facts> {
        let diff_id = &wanted.layer.diff_id;
        self.progress.layer_started(diff_id, wanted.size);
        let on_bytes = Box::new(|count| {
            self.progress.bytes(diff_id, count);
            if board.stop.load(Ordering::Relaxed) { Err(io::Error::other("another layer failed")) } else { Ok(()) }
        });
        let expected = Expected { blob: wanted.blob.as_ref(), diff_id: Some(diff_id) };
        let unpacked = unpack(source.open(at)?, &expected, staging, self.limits, on_bytes)?;
        if unpacked.left_out > 0 {
            tracing::info!(layer = %diff_id, count = unpacked.left_out, "left out devices, fifos or sockets");
        }
        // Facts first: facts without a layer do no harm.
        self.files.keep_facts(diff_id, &unpacked.facts).context(|| "cannot keep what was learnt of the layer")?;
        self.progress.layer_done(diff_id);
        Ok(unpacked.facts)
    }
}

impl Board {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn take(&self, count: usize) -> Option<usize> {
        let mut state = self.lock();
        if state.fault.is_some() || state.next == count {
            return None;
        }
        state.next += 1;
        Some(state.next - 1)
    }

    fn finished(&self, at: usize, facts: Facts) {
        self.lock().done[at] = Some(facts);
        self.changed.notify_all();
    }

    /// Keeps the first failure: later ones follow from it.
    fn failed(&self, fault: Fault) {
        self.stop.store(true, Ordering::Relaxed);
        self.lock().fault.get_or_insert(fault);
        self.changed.notify_all();
    }

    fn is_done(&self, at: usize) -> bool {
        self.lock().done[at].is_some()
    }

    /// Layers are taken lowest first, so somebody is at work on every one that is waited for.
    fn wait_for_below(&self, at: usize) -> Result<()> {
        let mut state = self.lock();
        while state.fault.is_none() && state.done[..at].iter().any(Option::is_none) {
            state = self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        match state.fault {
            None => Ok(()),
            Some(_) => Err(Fault::new(Kind::System, "a layer below failed")),
        }
    }
}
