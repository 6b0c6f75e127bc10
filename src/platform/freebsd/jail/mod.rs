//! Jails by name: jail_set(2), jail_get(2), jail_remove(2). [`policy`] says what a replica's jail may do.
//!
//! Nothing here attaches: jail_attach(2) moves the whole process, so only [`super::spawn`]'s child calls it.

use std::io;
use std::path::PathBuf;

use super::sys::{c_text, check};
use crate::fault::{Context, Fault, Kind, Result};
use crate::sandbox::Cpus;

mod params;
pub mod policy;

pub use params::Params;

/// MAXHOSTNAMELEN of sys/param.h, the longest jail name with its NUL.
const NAME_ROOM: usize = 256;
/// MAXPATHLEN of sys/param.h.
const PATH_ROOM: usize = 1024;

/// A jail's number, good until the jail is gone.
pub type Jid = i32;

/// A jail as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jail {
    /// Its number.
    pub jid: Jid,
    /// Its name.
    pub name: String,
    /// The host's path of its root.
    pub path: PathBuf,
    /// Removed, but something (a socket, an open file) still refers to it.
    pub dying: bool,
}

/// Which jails a look-up sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Those that live.
    Alive,
    /// Those being removed as well.
    WithDying,
}

impl View {
    fn flags(self) -> i32 {
        match self {
            View::Alive => 0,
            View::WithDying => libc::JAIL_DYING,
        }
    }
}

/// Makes a jail and gives its number. [`Kind::Busy`] when one of that name lives.
pub fn create(params: Params) -> Result<Jid> {
    set(params, libc::JAIL_CREATE)
}

/// Changes a living jail; `params` must hold its `jid` or `name`.
pub fn update(params: Params) -> Result<Jid> {
    set(params, libc::JAIL_UPDATE)
}

fn set(params: Params, flags: i32) -> Result<Jid> {
    let what = params.to_string();
    params
        .call(|iov| {
            // SAFETY: every element points to memory that `params` keeps alive and that has the length given.
            check(unsafe { libc::jail_set(iov.as_mut_ptr(), iov.len() as u32, flags) })
        })
        .context(|| format!("the kernel refused {what}"))
}

/// The living jail of this name.
pub fn find(name: &str) -> Result<Option<Jail>> {
    let mut key = Params::default();
    key.text("name", name)?;
    get(key, "name", View::Alive)
}

/// The jail with this number.
pub fn find_jid(jid: Jid, view: View) -> Result<Option<Jail>> {
    let mut key = Params::default();
    key.int("jid", jid)?;
    get(key, "jid", view)
}

/// Every jail, lowest number first.
pub fn list(view: View) -> Result<Vec<Jail>> {
    let mut jails = Vec::new();
    let mut last = 0;
    loop {
        let mut key = Params::default();
        key.int("lastjid", last)?;
        match get(key, "lastjid", view)? {
            Some(jail) => {
                last = jail.jid;
                jails.push(jail);
            }
            None => return Ok(jails),
        }
    }
}

/// IPv4 and IPv6 addresses that a living jail is restricted to, in the kernel's order.
pub fn addresses(jid: Jid) -> Result<Vec<std::net::IpAddr>> {
    // security.jail.jail_max_af_ips is 255.
    const MOST: usize = 255;
    let mut found: Vec<std::net::IpAddr> = Vec::new();
    for (name, size) in [("ip4.addr", 4), ("ip6.addr", 16)] {
        let mut params = Params::default();
        params.int("jid", jid)?.room(name, size * MOST)?;
        match params.fetch(0) {
            Ok(answer) => found.extend(answer.bytes(name).chunks_exact(size).filter_map(address)),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(found),
            // A kernel without one of the families does not know its parameter.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {}
            Err(e) => return Err(e).context(|| format!("cannot read the addresses of jail {jid}")),
        }
    }
    Ok(found)
}

fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        _ => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
    }
}

fn get(mut key: Params, by: &str, view: View) -> Result<Option<Jail>> {
    if by != "jid" {
        key.room("jid", size_of::<Jid>())?;
    }
    if by != "name" {
        key.room("name", NAME_ROOM)?;
    }
    key.room("path", PATH_ROOM)?.room("dying", size_of::<i32>())?;
    let what = key.to_string();
    match key.fetch(view.flags()) {
        Ok(answer) => Ok(Some(Jail {
            jid: answer.int("jid"),
            name: answer.text("name"),
            path: answer.text("path").into(),
            dying: answer.int("dying") != 0,
        })),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e).context(|| format!("cannot look up {what}")),
    }
}

/// Lets the jail's processes run on these processors only (cpuset_setaffinity(2)); root in it cannot widen that.
pub fn pin(jid: Jid, cpus: &Cpus) -> Result<()> {
    // `cpuset_t` of FreeBSD 14 and later, which have room for 1024; the libc crate's is that of older ones.
    let mut set = [0u64; Cpus::MOST as usize / 64];
    for cpu in cpus.iter() {
        set[cpu as usize / 64] |= 1 << (cpu % 64);
    }
    let (level, which) = (libc::CPU_LEVEL_WHICH, libc::CPU_WHICH_JAIL);
    // SAFETY: `set` has the size given and outlives the call, which reads plain bits.
    let done = unsafe { libc::cpuset_setaffinity(level, which, jid.into(), size_of_val(&set), set.as_ptr().cast()) };
    check(done).map(drop).context(|| format!("cannot let jail {jid} run on processors {cpus}"))
}

/// Kills every process of the jail and marks it for removal; returns at once. Already gone is success.
pub fn remove(jid: Jid) -> Result<()> {
    // SAFETY: takes a number only.
    match check(unsafe { libc::jail_remove(jid) }) {
        Ok(_) => Ok(()),
        // jail_remove(2): EINVAL, the jail does not exist.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        Err(e) => Err(e).context(|| format!("cannot remove jail {jid}")),
    }
}

/// A parameter's failure as the kernel words it, if it does, or else as its error number.
fn worded(error: io::Error, message: &str) -> Fault {
    let kind = match error.raw_os_error() {
        Some(libc::EPERM) => Kind::Unsupported,
        Some(libc::EEXIST) => Kind::Busy,
        Some(libc::EAGAIN) => Kind::Exhausted,
        _ => Fault::from(io::Error::from(error.kind())).kind(),
    };
    if message.is_empty() { Fault::new(kind, error.to_string()) } else { Fault::new(kind, message).because(error) }
}

/// Turns off what a jail's root may do beyond an ordinary user (`allow.nosuser`), once its first program
/// runs as somebody else: before that the child needs the privilege to become somebody else.
pub fn drop_root(jid: Jid) -> Result<()> {
    let mut params = Params::default();
    params.int("jid", jid)?.flag("allow.nosuser")?;
    update(params).map(drop)
}

/// Checks that `name` can be a jail's name: jail(8) reserves the dot, and the kernel has 256 bytes.
pub fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty() && name.len() < NAME_ROOM && !name.contains('.') && name.parse::<i64>().is_err();
    c_text(name)?;
    if fits { Ok(()) } else { Err(Fault::invalid(format!("{name:?} cannot name a jail"))) }
}
