//! The thread that writes the queue's log. Calls that come while the disk is busy share its next flush.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::log::{Left, Log, Place};
use super::record::{Call, Record, Tried};
use crate::fault::{Context, Fault, Kind, Result};

/// Most that is written before the disk is waited for.
const BATCH: usize = 256;

enum Command {
    Accept { sequence: u64, frame: Vec<u8>, written: oneshot::Sender<Result<Place>> },
    Tried(Tried),
    Done(u64),
    Stop,
}

/// Gives the writer its work.
pub struct Writer {
    commands: Sender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    /// Opens the log and starts its thread. Also gives the calls that earlier processes left undone.
    pub fn start(dir: &Path) -> Result<(Self, Vec<Left>)> {
        let (log, left) = Log::open(dir)?;
        let (commands, receiver) = channel();
        let thread = std::thread::Builder::new().name("queue".into()).spawn(move || run(log, &receiver));
        let thread = thread.context(|| "cannot start a thread")?;
        Ok((Self { commands, thread: Mutex::new(Some(thread)) }, left))
    }

    /// Returns when the call is on the disk.
    pub async fn accept(&self, call: Call, body: &[u8]) -> Result<Place> {
        let (written, outcome) = oneshot::channel();
        let sequence = call.sequence;
        self.send(Command::Accept { sequence, frame: Record::Accepted(call).frame(body), written });
        let stopped =
            |_| Err(Fault::new(Kind::Exhausted, "the queue takes no calls any more: this program is stopping"));
        outcome.await.unwrap_or_else(stopped)
    }

    /// Notes an attempt in vain.
    pub fn tried(&self, tried: Tried) {
        self.send(Command::Tried(tried));
    }

    /// Notes that a call needs nothing more.
    pub fn done(&self, sequence: u64) {
        self.send(Command::Done(sequence));
    }

    /// Writes what it has been given, and ends.
    pub fn stop(&self) {
        self.send(Command::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    fn send(&self, command: Command) {
        // A writer that has ended answers by dropping what it is sent.
        let _ = self.commands.send(command);
    }
}

fn run(mut log: Log, commands: &Receiver<Command>) {
    while let Ok(first) = commands.recv() {
        let mut batch = vec![first];
        batch.extend(commands.try_iter().take(BATCH - 1));
        let stop = batch.iter().position(|command| matches!(command, Command::Stop));
        batch.truncate(stop.unwrap_or(batch.len()));
        write(&mut log, batch);
        if stop.is_some() {
            return;
        }
    }
}

fn write(log: &mut Log, batch: Vec<Command>) {
    let mut frames = Vec::with_capacity(batch.len());
    let (mut accepted, mut done) = (Vec::new(), Vec::new());
    for command in batch {
        match command {
            Command::Accept { sequence, frame, written } => {
                accepted.push((frames.len(), sequence, written));
                frames.push(frame);
            }
            Command::Tried(tried) => frames.push(Record::Tried(tried).frame(b"")),
            Command::Done(sequence) => {
                done.push(sequence);
                frames.push(Record::Done(sequence).frame(b""));
            }
            Command::Stop => {}
        }
    }
    // Only a promise to a caller needs the disk: a lost note costs a second delivery.
    match log.append(&frames, !accepted.is_empty()) {
        Ok(places) => {
            for (at, sequence, written) in accepted {
                log.opened(sequence, places[at]);
                let _ = written.send(Ok(places[at]));
            }
        }
        Err(fault) => {
            tracing::error!(%fault, "the queue cannot be written");
            for (.., written) in accepted {
                let _ = written.send(Err(Fault::new(Kind::Exhausted, fault.to_string())));
            }
        }
    }
    for sequence in done {
        if let Err(fault) = log.closed(sequence) {
            tracing::warn!(%fault, "a segment of the queue cannot be removed");
        }
    }
}
