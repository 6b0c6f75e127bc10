//! One thread that waits for the end of every replica's first process: kqueue(2).
//!
//! ```text
//!  own       pdfork'ed here  EVFILT_PROCDESC: cannot miss an exit, closing the descriptor reaps it
//!  adopted   found running   EVFILT_PROC:     attached by number, then the number is looked up once more,
//!                                             so that a process that ended in between is not waited for
//! ```
//! Both give the exit status: the kernel keeps it in the event, also for what is not our child.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use libc::kevent;

use super::spawn::Process;
use super::sys::check;
use crate::fault::{Context, Fault, Result};
use crate::sandbox::Exit;

/// Wakes the thread so that it ends.
const STOP: usize = 0;

type Callback = Box<dyn FnOnce(Exit) + Send>;
/// Says how an exit by SIGKILL that this daemon did not send came about.
type Verdict = Box<dyn Fn(&str) -> Exit + Send + Sync>;

/// Watches first processes by the name of their replica.
pub struct Monitor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queue: OwnedFd,
    table: Mutex<Table>,
    verdict: Verdict,
}

#[derive(Default)]
struct Table {
    next: usize,
    watched: HashMap<String, Watched>,
}

struct Watched {
    /// Distinguishes this watch in the queue from an earlier one of the same name.
    token: usize,
    pid: libc::pid_t,
    /// Absent for an adopted process.
    descriptor: Option<OwnedFd>,
    /// We sent it SIGKILL.
    killed: bool,
    exit: Option<Exit>,
    callbacks: Vec<Callback>,
}

impl Monitor {
    /// Starts the thread. `verdict` names the reason of a SIGKILL that did not come from here.
    pub fn start(verdict: Verdict) -> Result<Self> {
        // SAFETY: takes nothing.
        let queue = check(unsafe { libc::kqueue() }).context(|| "cannot make a kernel event queue")?;
        // SAFETY: kqueue gave a new descriptor, which nobody else has.
        let queue = unsafe { OwnedFd::from_raw_fd(queue) };
        let table = Mutex::new(Table { next: STOP + 1, watched: HashMap::new() });
        let shared = Arc::new(Shared { queue, table, verdict });
        let stop = event(STOP, libc::EVFILT_USER, libc::EV_ADD | libc::EV_CLEAR, 0, STOP);
        shared.submit(stop).context(|| "cannot prepare the kernel event queue")?;
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("exits".to_owned())
            .spawn(move || theirs.run())
            .context(|| "cannot start the thread that waits for exits")?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Watches a process that this daemon has started.
    pub fn own(&self, name: &str, process: Process) -> Result<()> {
        let mut table = self.shared.table();
        let token = table.token();
        let fd = process.descriptor.as_raw_fd() as usize;
        let watch = event(fd, libc::EVFILT_PROCDESC, libc::EV_ADD | libc::EV_ONESHOT, libc::NOTE_EXIT, token);
        self.shared.submit(watch).context(|| format!("cannot watch the process of {name}"))?;
        table.insert(name, Watched::new(token, process.pid, Some(process.descriptor)));
        Ok(())
    }

    /// Watches a process found running; `still_there` looks it up once more after the kernel watches it.
    pub fn adopt(&self, name: &str, pid: libc::pid_t, still_there: impl FnOnce() -> Result<bool>) -> Result<()> {
        let mut table = self.shared.table();
        if table.watched.contains_key(name) {
            return Ok(());
        }
        let token = table.token();
        let watch = event(pid as usize, libc::EVFILT_PROC, libc::EV_ADD | libc::EV_ONESHOT, libc::NOTE_EXIT, token);
        let mut watched = Watched::new(token, pid, None);
        match self.shared.submit(watch) {
            Ok(()) if still_there()? => {}
            Ok(()) => watched.exit = Some(Exit::Unknown),
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => watched.exit = Some(Exit::Unknown),
            Err(e) => return Err(e).context(|| format!("cannot watch the process of {name}")),
        }
        table.insert(name, watched);
        Ok(())
    }

    /// Notes that `name` has no process any more and that nobody knows how it ended.
    pub fn gone(&self, name: &str) {
        let mut table = self.shared.table();
        let token = table.token();
        let mut watched = Watched::new(token, 0, None);
        watched.exit = Some(Exit::Unknown);
        table.watched.entry(name.to_owned()).or_insert(watched);
    }

    /// Whether `name` is watched, or has ended and is not forgotten yet.
    pub fn knows(&self, name: &str) -> bool {
        self.shared.table().watched.contains_key(name)
    }

    /// Calls `callback` once when `name`'s process ends; here and now if it has.
    pub fn on_exit(&self, name: &str, callback: Callback) -> Result<()> {
        let mut table = self.shared.table();
        let Some(watched) = table.watched.get_mut(name) else {
            return Err(Fault::not_found(format!("{name} is not watched")));
        };
        match watched.exit {
            None => watched.callbacks.push(callback),
            Some(exit) => {
                drop(table);
                std::thread::Builder::new()
                    .name("exit".to_owned())
                    .spawn(move || callback(exit))
                    .context(|| format!("cannot report the end of {name}"))?;
            }
        }
        Ok(())
    }

    /// Whether `name`'s process has ended; `None` when it is not known here.
    pub fn ended(&self, name: &str) -> Option<bool> {
        self.shared.table().watched.get(name).map(|watched| watched.exit.is_some())
    }

    /// Sends `signal` to `name`'s process; ended is success. `None` when it is not known here.
    pub fn signal(&self, name: &str, signal: libc::c_int) -> Option<io::Result<()>> {
        let mut table = self.shared.table();
        let watched = table.watched.get_mut(name)?;
        if watched.exit.is_some() {
            return Some(Ok(()));
        }
        watched.killed |= signal == libc::SIGKILL;
        let result = check(match &watched.descriptor {
            // SAFETY: an open process descriptor.
            Some(descriptor) => unsafe { libc::pdkill(descriptor.as_raw_fd(), signal) },
            // SAFETY: the number of a process whose end has not been reported.
            None => unsafe { libc::kill(watched.pid, signal) },
        });
        Some(match result {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other.map(drop),
        })
    }

    /// Notes that `name`'s process is about to be killed by its jail's removal.
    pub fn expect_kill(&self, name: &str) {
        if let Some(watched) = self.shared.table().watched.get_mut(name) {
            watched.killed = true;
        }
    }

    /// Forgets `name`. A process that has not ended yet (or whose end was not read yet) is reported as killed.
    pub fn forget(&self, name: &str) {
        let watched = self.shared.table().watched.remove(name);
        if let Some(watched) = watched {
            for callback in watched.callbacks {
                callback(Exit::Signal(libc::SIGKILL));
            }
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let stop = event(STOP, libc::EVFILT_USER, 0, libc::NOTE_TRIGGER, STOP);
        // Without the wake-up the thread would not end, and waiting for it would not either.
        if self.shared.submit(stop).is_ok()
            && let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // The table is changed in single steps, so it is whole even after a panic elsewhere.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, change: kevent) -> io::Result<()> {
        // SAFETY: one change to read, no room for events.
        let result =
            unsafe { libc::kevent(self.queue.as_raw_fd(), &change, 1, std::ptr::null_mut(), 0, std::ptr::null()) };
        check(result).map(drop)
    }

    fn run(&self) {
        loop {
            let mut happened = event(0, 0, 0, 0, 0);
            // SAFETY: no change, room for one event.
            let result = unsafe {
                libc::kevent(self.queue.as_raw_fd(), std::ptr::null(), 0, &mut happened, 1, std::ptr::null())
            };
            match check(result) {
                Ok(_) if happened.udata as usize == STOP => return,
                Ok(_) => self.ended(happened.udata as usize, happened.data as libc::c_int),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    tracing::error!("waiting for exits failed: {e}; exits are no longer noticed");
                    return;
                }
            }
        }
    }

    fn ended(&self, token: usize, status: libc::c_int) {
        let mut table = self.table();
        let Some((name, watched)) = table.watched.iter_mut().find(|(_, watched)| watched.token == token) else {
            return;
        };
        let name = name.clone();
        let killed = watched.killed;
        drop(table);
        // Asks the kernel, so not under the lock.
        let exit = match decode(status) {
            Exit::Signal(libc::SIGKILL) if !killed => (self.verdict)(&name),
            exit => exit,
        };
        let mut table = self.table();
        let Some(watched) = table.watched.get_mut(&name).filter(|watched| watched.token == token) else {
            return;
        };
        watched.exit = Some(exit);
        // Closing it reaps the process.
        watched.descriptor = None;
        let callbacks = std::mem::take(&mut watched.callbacks);
        drop(table);
        for callback in callbacks {
            callback(exit);
        }
    }
}

impl Table {
    fn token(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    fn insert(&mut self, name: &str, watched: Watched) {
        self.watched.insert(name.to_owned(), watched);
    }
}

impl Watched {
    fn new(token: usize, pid: libc::pid_t, descriptor: Option<OwnedFd>) -> Self {
        Self { token, pid, descriptor, killed: false, exit: None, callbacks: Vec::new() }
    }
}

/// A status as wait(2) gives it.
fn decode(status: libc::c_int) -> Exit {
    if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else if libc::WIFEXITED(status) {
        Exit::Code(libc::WEXITSTATUS(status))
    } else {
        Exit::Unknown
    }
}

fn event(ident: usize, filter: i16, flags: u16, fflags: u32, token: usize) -> kevent {
    kevent { ident, filter, flags, fflags, data: 0, udata: token as *mut libc::c_void, ext: [0; 4] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_as_wait_writes_them() {
        assert_eq!(decode(3 << 8), Exit::Code(3));
        assert_eq!(decode(libc::SIGKILL), Exit::Signal(9));
        assert_eq!(decode(libc::SIGSEGV | 0x80), Exit::Signal(11));
    }
}
