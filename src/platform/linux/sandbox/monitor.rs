//! [`Monitor`]: one thread that waits for the first processes of all replicas, by pidfd and epoll(7).
//!
//! It reaps those that this process started, each by its own pidfd, so that it never takes away the status of some
//! other child; those that an earlier daemon started belong to init, and only their end is seen.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, epoll};
use rustix::process::{WaitId, WaitIdOptions};

use super::super::cgroup::Cgroups;
use crate::fault::{Context, Result};
use crate::function::ReplicaName;
use crate::sandbox::Exit;

type OnExit = Box<dyn FnOnce(Exit) + Send>;

/// Wakes the thread up: to end, or for calls that are due at once.
const WAKE: u64 = 0;

/// Waits for replicas. Its thread ends when it is dropped.
pub(super) struct Monitor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    epoll: OwnedFd,
    wake: OwnedFd,
    cgroups: Arc<Cgroups>,
    state: Mutex<State>,
    exited: Condvar,
}

#[derive(Default)]
struct State {
    watched: HashMap<ReplicaName, Watched>,
    tokens: HashMap<u64, ReplicaName>,
    last_token: u64,
    due: Vec<(OnExit, Exit)>,
    ending: bool,
}

struct Watched {
    token: u64,
    pidfd: Arc<OwnedFd>,
    exit: Option<Exit>,
    on_exit: Vec<OnExit>,
}

impl Monitor {
    /// Starts the thread.
    pub fn start(cgroups: Arc<Cgroups>) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context(|| "cannot make an epoll instance")?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .context(|| "cannot make an event descriptor")?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)
            .context(|| "cannot wait for an event descriptor")?;
        let shared = Arc::new(Shared { epoll, wake, cgroups, state: Mutex::default(), exited: Condvar::new() });
        let running = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("replica-exits".into())
            .spawn(move || running.run())
            .context(|| "cannot start the thread that waits for replicas")?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Waits for this replica from now on.
    pub fn add(&self, replica: &ReplicaName, pidfd: Arc<OwnedFd>) -> Result<()> {
        let mut state = self.shared.lock();
        if state.watched.contains_key(replica) {
            return Ok(()); // Two callers adopted it at once.
        }
        state.last_token += 1;
        let token = state.last_token;
        epoll::add(&self.shared.epoll, &*pidfd, epoll::EventData::new_u64(token), epoll::EventFlags::IN)
            .context(|| format!("cannot wait for {replica}"))?;
        state.tokens.insert(token, replica.clone());
        state.watched.insert(replica.clone(), Watched { token, pidfd, exit: None, on_exit: Vec::new() });
        Ok(())
    }

    /// The first process of a replica that is being waited for.
    pub fn pidfd(&self, replica: &ReplicaName) -> Option<Arc<OwnedFd>> {
        self.shared.lock().watched.get(replica).map(|watched| Arc::clone(&watched.pidfd))
    }

    /// Calls back when it ends; soon, if it has ended or nobody knows it.
    pub fn on_exit(&self, replica: &ReplicaName, on_exit: OnExit) -> Result<()> {
        let mut state = self.shared.lock();
        let exit = match state.watched.get_mut(replica) {
            Some(Watched { exit: None, on_exit: list, .. }) => {
                list.push(on_exit);
                return Ok(());
            }
            Some(Watched { exit: Some(exit), .. }) => *exit,
            None => Exit::Unknown,
        };
        state.due.push((on_exit, exit));
        drop(state);
        self.shared.wake()
    }

    /// Waits until its end has been noted. `false` when that takes longer. Unknown replicas have ended.
    pub fn wait(&self, replica: &ReplicaName, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.lock();
        while state.watched.get(replica).is_some_and(|watched| watched.exit.is_none()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.exited.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Forgets a replica that has been removed.
    pub fn forget(&self, replica: &ReplicaName) {
        let mut state = self.shared.lock();
        if let Some(watched) = state.watched.remove(replica) {
            state.tokens.remove(&watched.token);
            // Gone already after an exit.
            let _ = epoll::delete(&self.shared.epoll, &*watched.pidfd);
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.shared.lock().ending = true;
        if self.shared.wake().is_ok()
            && let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) -> Result<()> {
        rustix::io::write(&self.wake, &1u64.to_ne_bytes()).map(drop).context(|| "cannot wake the waiting thread")
    }

    fn run(&self) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        while !self.lock().ending {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => {
                    tracing::error!(%errno, "cannot wait for replicas any more; their exits go unnoticed");
                    return;
                }
            }
            for event in &events {
                match event.data.u64() {
                    WAKE => {
                        let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
                    }
                    token => self.ended(token),
                }
            }
            self.call_what_is_due();
        }
    }

    /// A pidfd is readable: its process has ended.
    fn ended(&self, token: u64) {
        let found = {
            let state = self.lock();
            state.tokens.get(&token).and_then(|replica| {
                state.watched.get(replica).map(|watched| (replica.clone(), Arc::clone(&watched.pidfd)))
            })
        };
        let Some((replica, pidfd)) = found else { return };
        let _ = epoll::delete(&self.epoll, &*pidfd);
        let exit = self.reap(&replica, &pidfd);
        let mut state = self.lock();
        state.tokens.remove(&token);
        if let Some(watched) = state.watched.get_mut(&replica).filter(|watched| watched.token == token) {
            watched.exit = Some(exit);
            let calls = std::mem::take(&mut watched.on_exit);
            state.due.extend(calls.into_iter().map(|call| (call, exit)));
        }
        self.exited.notify_all();
    }

    fn reap(&self, replica: &ReplicaName, pidfd: &OwnedFd) -> Exit {
        // ECHILD: it was not this process's child.
        let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).ok().flatten();
        let exit = status.and_then(|status| {
            status.exit_status().map(Exit::Code).or_else(|| status.terminating_signal().map(Exit::Signal))
        });
        match exit {
            Some(exit @ Exit::Code(_)) => exit,
            Some(exit) if exit != Exit::Signal(libc::SIGKILL) => exit,
            exit if self.cgroups.ran_out_of_memory(replica) => {
                tracing::debug!(%replica, ?exit, "ended after running out of memory");
                Exit::OutOfMemory
            }
            exit => exit.unwrap_or(Exit::Unknown),
        }
    }

    fn call_what_is_due(&self) {
        let due = std::mem::take(&mut self.lock().due);
        for (call, exit) in due {
            // One caller's panic must not end the waiting for everybody.
            if catch_unwind(AssertUnwindSafe(|| call(exit))).is_err() {
                tracing::error!("a handler of a replica's exit panicked");
            }
        }
    }
}
