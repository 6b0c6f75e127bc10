//! Processes of a jail: sysctl(3) `kern.proc.proc`, a list of `struct kinfo_proc` (sys/user.h).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use libc::kinfo_proc;

use super::jail::Jid;
use super::sysctl;
use crate::fault::{Context, Fault, Kind, Result};
use crate::sandbox::Usage;

/// A process as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its number.
    pub pid: libc::pid_t,
    /// When it started, since the epoch: with the number it names the process for good.
    pub started: Duration,
    /// Processor time so far, with that of its children that it has waited for.
    pub cpu: Duration,
    /// Bytes resident.
    pub resident: u64,
    /// Threads.
    pub threads: u64,
    /// Stopped by a signal.
    pub stopped: bool,
}

/// Living processes of jail `jid` (no zombies), oldest first.
pub fn of_jail(jid: Jid) -> Result<Vec<Listed>> {
    let mut found: Vec<Listed> = all()?.iter().filter(|process| process.ki_jid == jid).map(listed).collect();
    found.sort_by_key(|process| (process.started, process.pid));
    Ok(found)
}

/// Every jail that has a living process.
pub fn jails() -> Result<BTreeSet<Jid>> {
    Ok(all()?.iter().map(|process| process.ki_jid).collect())
}

/// Jails with so many processes that somebody should look: how many, those counted that are dead and not waited for.
pub fn crowds() -> Result<Vec<(Jid, u64)>> {
    const MANY: u64 = 16;
    let mut counts: BTreeMap<Jid, u64> = BTreeMap::new();
    for process in table()?.iter().filter(|process| process.ki_jid != 0) {
        *counts.entry(process.ki_jid).or_default() += 1;
    }
    Ok(counts.into_iter().filter(|(_, count)| *count > MANY).collect())
}

fn all() -> Result<Vec<kinfo_proc>> {
    Ok(table()?.into_iter().filter(|process| process.ki_stat != libc::SZOMB).collect())
}

fn table() -> Result<Vec<kinfo_proc>> {
    let mib = [libc::CTL_KERN, libc::KERN_PROC, libc::KERN_PROC_PROC];
    let bytes = sysctl::read(&mib).context(|| "cannot list processes")?;
    // `ki_structsize` is the first field of every kinfo_proc.
    let size = bytes.first_chunk().map_or(0, |first| i32::from_ne_bytes(*first)) as usize;
    if !bytes.is_empty() && size != size_of::<kinfo_proc>() {
        let message = format!("this kernel describes a process in {size} bytes, this program was built for another");
        return Err(Fault::new(Kind::Unsupported, message));
    }
    let entries = bytes.chunks_exact(size_of::<kinfo_proc>());
    // SAFETY: the kernel wrote a kinfo_proc there, plain data, and the read needs no alignment.
    Ok(entries.map(|chunk| unsafe { chunk.as_ptr().cast::<kinfo_proc>().read_unaligned() }).collect())
}

fn listed(process: &kinfo_proc) -> Listed {
    let (start, children) = (process.ki_start, process.ki_childtime);
    // SAFETY: getpagesize(3) takes nothing and cannot fail.
    let page = unsafe { libc::getpagesize() } as u64;
    Listed {
        pid: process.ki_pid,
        started: Duration::new(start.tv_sec as u64, start.tv_usec as u32 * 1000),
        cpu: Duration::from_micros(process.ki_runtime)
            + Duration::new(children.tv_sec as u64, children.tv_usec as u32 * 1000),
        resident: process.ki_rssize as u64 * page,
        threads: process.ki_numthreads as u64,
        stopped: process.ki_stat == libc::SSTOP,
    }
}

/// The first process of jail `jid`: the oldest that lives. Its descendants are all younger.
pub fn first(jid: Jid) -> Result<Option<Listed>> {
    Ok(of_jail(jid)?.into_iter().next())
}

/// What the jail's living processes use, this moment.
pub fn usage(jid: Jid) -> Result<Usage> {
    Ok(of_jail(jid)?.iter().fold(Usage::default(), |sum, process| Usage {
        cpu: sum.cpu + process.cpu,
        memory: sum.memory + process.resident,
        pids: sum.pids + process.threads,
    }))
}
