//! Stopping a jail's processes in place, by SIGSTOP, which none of them can catch or ignore.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use super::jail::{self, Jid};
use super::process::{self, Listed};
use super::sys::check;
use crate::fault::{Context, Fault, Kind, Result};

/// How long all processes of a jail may take to stop.
const PATIENCE: Duration = Duration::from_secs(2);

/// Stops every process of the jail `name`. One that forks while the others are being stopped is met in the next
/// round, until a round finds all of them stopped. On failure all go on.
pub fn freeze(name: &str) -> Result<()> {
    let jid = running(name)?;
    let begun = Instant::now();
    loop {
        let going: Vec<Listed> = process::of_jail(jid)?.into_iter().filter(|process| !process.stopped).collect();
        if going.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            let text = format!("processes of jail {name} do not stop; they wait in the kernel (see procstat -k)");
            return Err(Fault::new(Kind::Busy, text).and_cleanup(thaw(name)));
        }
        send(jid, &going, libc::SIGSTOP).context(|| format!("cannot stop jail {name}"))?;
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Lets every process of the jail `name` go on. Not stopped, or gone, is success.
pub fn thaw(name: &str) -> Result<()> {
    let Some(jail) = jail::find(name)? else { return Ok(()) };
    // A process that was stopped cannot have forked; one that goes on can, and its children go on as well.
    let stopped: Vec<Listed> = process::of_jail(jail.jid)?.into_iter().filter(|process| process.stopped).collect();
    send(jail.jid, &stopped, libc::SIGCONT).context(|| format!("cannot let jail {name} go on"))
}

fn running(name: &str) -> Result<Jid> {
    match jail::find(name)? {
        Some(jail) => Ok(jail.jid),
        None => Err(Fault::not_found(format!("no jail {name} is running"))),
    }
}

/// Signals processes of a jail. A number that has gone to a process outside in between is let go on at once.
fn send(jid: Jid, processes: &[Listed], signal: libc::c_int) -> io::Result<()> {
    for process in processes {
        // SAFETY: plain integers.
        match check(unsafe { libc::kill(process.pid, signal) }) {
            Err(e) if e.raw_os_error() != Some(libc::ESRCH) => return Err(e),
            _ => {}
        }
    }
    if signal != libc::SIGSTOP {
        return Ok(());
    }
    let inside: BTreeSet<_> =
        process::of_jail(jid).map_err(io::Error::other)?.into_iter().map(|process| process.pid).collect();
    for stranger in processes.iter().filter(|process| !inside.contains(&process.pid)) {
        // SAFETY: plain integers. One that has ended is no concern.
        unsafe { libc::kill(stranger.pid, libc::SIGCONT) };
    }
    Ok(())
}
