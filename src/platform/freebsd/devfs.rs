//! Which devices a replica sees: one devfs ruleset of this program's own.
//!
//! Ruleset 4 of `/etc/defaults/devfs.rules` shows `fuse`, `zfs` and terminals; this one shows what a program
//! needs and nothing that drives the kernel. Rulesets are numbers shared by the whole host and are not
//! removed: every realm's jails refer to the same one.

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use super::sys;
use crate::fault::{Context, Fault, Kind, Result};

/// The ruleset's number: high, as people number theirs from 5 upwards.
pub const RULESET: u16 = 64042;

/// What is shown; all else is hidden. `shm` is where Linux programs want a memory file system.
const SHOWN: &[&str] =
    &["null", "zero", "full", "random", "urandom", "fd", "fd/*", "stdin", "stdout", "stderr", "shm", "shm/*"];

// sys/fs/devfs/devfs.h.
const MAGIC: u32 = 0xdb0a_087a;
const PATTERN_ROOM: usize = 200;
const MATCH_PATTERN: c_int = 0x002;
const ACT_BOOLEAN: c_int = 0x001;
const HIDE: c_int = 0x001;
const UNHIDE: c_int = 0x002;

/// `struct devfs_rule`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Rule {
    magic: u32,
    id: u32,
    conditions: c_int,
    device_flags: c_int,
    pattern: [u8; PATTERN_ROOM],
    actions: c_int,
    boolean: c_int,
    uid: libc::uid_t,
    gid: libc::gid_t,
    mode: libc::mode_t,
    include: u16,
}

impl Rule {
    fn empty(number: u16) -> Self {
        Self {
            magic: MAGIC,
            id: u32::from(RULESET) << 16 | u32::from(number),
            conditions: 0,
            device_flags: 0,
            pattern: [0; PATTERN_ROOM],
            actions: 0,
            boolean: 0,
            uid: 0,
            gid: 0,
            mode: 0,
            include: 0,
        }
    }

    fn hide_all(number: u16) -> Self {
        Self { actions: ACT_BOOLEAN, boolean: HIDE, ..Self::empty(number) }
    }

    fn show(number: u16, pattern: &str) -> Self {
        let mut rule = Self { conditions: MATCH_PATTERN, actions: ACT_BOOLEAN, boolean: UNHIDE, ..Self::empty(number) };
        rule.pattern[..pattern.len()].copy_from_slice(pattern.as_bytes());
        rule
    }

    fn same(&self, other: &Self) -> bool {
        (self.id, self.conditions, self.pattern, self.actions, self.boolean)
            == (other.id, other.conditions, other.pattern, other.actions, other.boolean)
    }
}

/// Makes the ruleset what it should be. Safe to repeat, also by several daemons at once.
pub fn setup() -> Result<()> {
    let dev = File::open("/dev").context(|| "cannot open /dev")?;
    let (wanted, there) = (wanted(), present(&dev)?);
    if is_foreign(&there, &wanted) {
        return Err(Fault::new(
            Kind::Busy,
            format!(
                "devfs ruleset {RULESET} holds rules that are not this program's; number yours otherwise in \
                 /etc/devfs.rules, or take them away: devfs rule -s {RULESET} delset"
            ),
        ));
    }
    for rule in wanted.iter().filter(|want| !there.iter().any(|rule| rule.same(want))) {
        add(&dev, *rule).context(|| format!("cannot add to devfs ruleset {RULESET}"))?;
    }
    Ok(())
}

/// Whether the ruleset is what [`setup`] makes.
pub fn is_set_up() -> Result<bool> {
    let there = present(&File::open("/dev").context(|| "cannot open /dev")?)?;
    let wanted = wanted();
    Ok(there.len() == wanted.len() && wanted.iter().all(|want| there.iter().any(|rule| rule.same(want))))
}

/// Empties the ruleset; a jail that still refers to it then sees no device. Whether there was one.
pub fn clear() -> Result<bool> {
    let dev = File::open("/dev").context(|| "cannot open /dev")?;
    let there = present(&dev)?;
    for rule in &there {
        delete(&dev, rule.id).context(|| format!("cannot clear devfs ruleset {RULESET}"))?;
    }
    Ok(!there.is_empty())
}

fn wanted() -> Vec<Rule> {
    let shown = SHOWN.iter().zip(101..).map(|(pattern, number)| Rule::show(number, pattern));
    std::iter::once(Rule::hide_all(100)).chain(shown).collect()
}

/// Whether somebody else uses the number.
fn is_foreign(there: &[Rule], wanted: &[Rule]) -> bool {
    there.iter().any(|rule| !wanted.iter().any(|want| want.same(rule)))
}

fn present(dev: &File) -> Result<Vec<Rule>> {
    rules(dev).context(|| format!("cannot read devfs ruleset {RULESET}"))
}

fn rules(dev: &File) -> io::Result<Vec<Rule>> {
    let mut found = Vec::new();
    let mut at = Rule::empty(0);
    loop {
        // SAFETY: DEVFSIO_RGETNEXT reads and writes a devfs_rule.
        match unsafe { sys::ioctl(dev.as_raw_fd(), sys::iowr::<Rule>(b'D', 4), &mut at) } {
            Ok(()) => found.push(at),
            // No such ruleset yet, or no further rule in it.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(found),
            Err(e) => return Err(e),
        }
    }
}

fn add(dev: &File, mut rule: Rule) -> io::Result<()> {
    // SAFETY: DEVFSIO_RADD reads and writes a devfs_rule.
    match unsafe { sys::ioctl(dev.as_raw_fd(), sys::iowr::<Rule>(b'D', 0), &mut rule) } {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

fn delete(dev: &File, mut id: u32) -> io::Result<()> {
    // SAFETY: DEVFSIO_RDEL reads a rule's number.
    match unsafe { sys::ioctl(dev.as_raw_fd(), sys::iow::<u32>(b'D', 1), &mut id) } {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ruleset_of_somebody_else_is_told_from_a_half_made_one() {
        let wanted = wanted();
        assert!(!is_foreign(&[], &wanted) && !is_foreign(&wanted[..3], &wanted));
        assert!(is_foreign(&[Rule::show(100, "bpf")], &wanted));
    }
}
