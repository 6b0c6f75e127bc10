//! One job, from clone to exit.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::capture::{Captured, Stream, capture};
use super::disk::Watch;
use super::{Before, End, Job, Jobs, Limits, Listener, Outcome};
use crate::fault::{Context, Fault, Kind, Result};
use crate::network::Attachment;
use crate::sandbox::{Access, Exit, Plan};
use crate::storage::{Root, RootOptions};

/// How often the clock, the disk and the stop sign are looked at.
const TICK: Duration = Duration::from_millis(100);

enum Event {
    Ended(Exit),
    Flooded,
}

/// This process's ends of a job's pipes.
struct Pipes {
    output: io::PipeReader,
    errors: io::PipeReader,
    input: Option<(io::PipeWriter, Vec<u8>)>,
}

impl Jobs {
    /// Everything up to the job's end; the caller discards it.
    pub(super) fn attempt(&self, job: Job, listen: Option<Listener<'_>>) -> Result<Outcome> {
        let name = job.name.clone();
        let limits = job.limits.clone();
        let storage = &self.platform.storage;
        let root_within =
            |quota| storage.clone_root(&job.layers, &name, &RootOptions { read_only: job.read_only, quota });
        let begun = Instant::now();
        let root = match root_within(limits.disk) {
            // Storage that limits no disk: what is written is looked at while the job runs.
            Err(fault) if fault.kind() == Kind::Unsupported && limits.disk.is_some() => root_within(None)?,
            other => other?,
        };
        let clone = begun.elapsed();
        let mut written: Vec<PathBuf> = upper(&root).into_iter().collect();
        let writable = job.mounts.iter().filter(|mount| mount.access == Access::Write);
        written.extend(writable.map(|mount| mount.source.clone()));
        let (plan, pipes) = self.plan(job, root)?;
        let watch = limits.disk.map(|most| Watch::new(written, most));
        if self.stopping.load(Ordering::SeqCst) {
            return Err(Fault::new(Kind::Busy, "faas-jails is stopping"));
        }
        let started = Instant::now();
        self.platform.sandbox.start(&plan)?;
        let before = Before { clone, start: begun.elapsed().saturating_sub(clone) };
        // Its ends of the pipes are its own from now on: the streams end when it does.
        drop(plan);
        let (sender, events) = channel();
        let on_exit = sender.clone();
        let watched = self.platform.sandbox.watch(&name, Box::new(move |exit| drop(on_exit.send(Event::Ended(exit)))));
        watched?;
        std::thread::scope(|scope| {
            let Pipes { output, errors, input } = pipes;
            let read = |stream, from: io::PipeReader, flood: Sender<Event>| {
                capture(
                    from,
                    limits.output,
                    |bytes| listen.iter().for_each(|listen| listen(stream, bytes)),
                    || drop(flood.send(Event::Flooded)),
                )
            };
            let flood = sender.clone();
            let output = scope.spawn(move || read(Stream::Output, output, flood));
            let errors = scope.spawn(move || read(Stream::Errors, errors, sender));
            if let Some((mut pipe, bytes)) = input {
                // A job need not read what it is given.
                scope.spawn(move || drop(pipe.write_all(&bytes)));
            }
            let end = self.wait(&events, started, &limits, watch);
            let took = started.elapsed();
            // What it started and left behind holds the streams open, too.
            let removed = self.platform.sandbox.remove(&name);
            let caught = |thread: std::thread::ScopedJoinHandle<'_, Captured>| thread.join().unwrap_or_default();
            removed.map(|()| Outcome { end, stdout: caught(output), stderr: caught(errors), took, before })
        })
    }

    fn wait(&self, events: &Receiver<Event>, started: Instant, limits: &Limits, mut watch: Option<Watch>) -> End {
        loop {
            let left = limits.wall.saturating_sub(started.elapsed());
            match events.recv_timeout(left.min(TICK)) {
                Ok(Event::Ended(exit)) => return End::Exited(exit),
                Ok(Event::Flooded) => return End::Flooded,
                Err(RecvTimeoutError::Timeout) if started.elapsed() >= limits.wall => return End::TimedOut,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return End::Exited(Exit::Unknown),
            }
            if self.stopping.load(Ordering::SeqCst) {
                return End::Stopped;
            }
            if watch.as_mut().is_some_and(Watch::exceeded) {
                return End::DiskFull;
            }
        }
    }

    fn plan(&self, job: Job, root: Root) -> Result<(Plan, Pipes)> {
        let run_dir = self.root.join("run").join(job.name.to_string());
        fs::create_dir_all(&run_dir).context(|| format!("cannot make {}", run_dir.display()))?;
        let network = match &job.link {
            Some(link) => self.platform.network.attach(&job.name, link)?,
            None => Attachment::None,
        };
        let pipe = || io::pipe().context(|| "cannot make a pipe");
        let (output, to_output) = pipe()?;
        let (errors, to_errors) = pipe()?;
        let (input, from_input) = match job.input {
            Some(bytes) => {
                let (from, to) = pipe()?;
                (Some((to, bytes)), Some(from.into()))
            }
            None => (None, None),
        };
        let plan = Plan {
            hostname: job.name.function().name.to_string(),
            replica: job.name,
            root,
            read_only: job.read_only,
            network,
            argv: job.argv,
            env: job.env,
            workdir: job.workdir,
            user: job.user,
            secrets: None,
            files: job.files,
            limits: job.limits.sandbox,
            personality: job.personality,
            mounts: job.mounts,
            input: from_input,
            output: to_output.into(),
            errors: Some(to_errors.into()),
            run_dir,
        };
        Ok((plan, Pipes { output, errors, input }))
    }
}

/// Where writes to a root land, when they land in a directory of their own that has no quota.
fn upper(root: &Root) -> Option<PathBuf> {
    match root {
        Root::Overlay { upper: Some((upper, _)), .. } => Some(upper.clone()),
        _ => None,
    }
}
