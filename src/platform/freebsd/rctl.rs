//! Limits and usage: rctl(8), rctl_add_rule(2). Rules name a jail that need not exist yet, so they are there
//! before its first program; they outlive it, so they are removed by name.

use std::collections::BTreeSet;
use std::ffi::c_int;
use std::io;
use std::time::Duration;

use super::{sys, sysctl};
use crate::fault::{Context, Fault, Kind, Result};
use crate::sandbox::{Limits, Rates, Usage};

/// What the administrator has to do for limits to work.
pub const REMEDY: &str = "put kern.racct.enable=1 into /boot/loader.conf and restart the host";

type Call = unsafe extern "C" fn(*const libc::c_char, usize, *mut libc::c_char, usize) -> c_int;

/// Whether this kernel counts resources.
pub fn enabled() -> bool {
    sysctl::integer("kern.racct.enable") == Some(1)
}

/// What the kernel does with a fork that a rule denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Denial {
    /// The fork fails.
    Safe,
    /// It fails, or the whole host stops: on FreeBSD 15, `racct_proc_fork` cleans up by `racct_proc_exit`, whose
    /// `racct_getpcpu` locks a thread that has no lock yet unless the memory was a process's before.
    Fatal,
}

impl Denial {
    fn of_this_kernel() -> Self {
        const FIRST_FATAL: i64 = 1_500_000;
        if sysctl::integer("kern.osreldate").is_some_and(|version| version >= FIRST_FATAL) {
            return Self::Fatal;
        }
        Self::Safe
    }
}

/// The rules for `limits` on jail `name`, as rctl(8) writes them.
///
/// - Memory is what is resident, and passing the limit kills: `memoryuse:deny` is accepted by the kernel but
///   denies nothing. `swapuse` counts what is reserved, not what is swapped out, and a Go program that uses 7 MB
///   reserves 1.3 GB: its bound is generous and stops only what could never fit.
/// - Where denying a fork can stop the host, a process beyond the limit dies as soon as it is forked, and one
///   that starts a thread too many dies. No rule counts dead processes that nobody waits for: the sandbox does.
/// - Open files are limited by setrlimit(2), which root in a jail may raise; who does is killed. To deny them is
///   no way: a child inherits what the daemon's table of files counted, and its forks would be denied.
fn rules(name: &str, limits: &Limits, denial: Denial) -> Vec<String> {
    let mut rules = Vec::new();
    let mut rule = |resource: &str, action: &str, amount: u64, per: &str| {
        rules.push(format!("jail:{name}:{resource}:{action}={amount}{per}"));
    };
    if let Some(bytes) = limits.memory {
        rule("memoryuse", "sigkill", bytes, "");
        rule("swapuse", "deny", reservation(bytes), "");
    }
    if let Some(millis) = limits.cpu_millis {
        rule("pcpu", "deny", millis.div_ceil(10).max(1), "");
    }
    match (limits.pids, denial) {
        (None, _) => {}
        (Some(count), Denial::Safe) => {
            rule("maxproc", "deny", count, "");
            rule("nthr", "deny", count, "");
        }
        (Some(count), Denial::Fatal) => rule("nthr", "sigkill", count, ""),
    }
    if let Some(count) = limits.open_files {
        rule("openfiles", "sigkill", count, "/process");
    }
    let Rates { read_bytes, write_bytes, read_ops, write_ops } = limits.io;
    for (resource, rate) in
        [("readbps", read_bytes), ("writebps", write_bytes), ("readiops", read_ops), ("writeiops", write_ops)]
    {
        if let Some(amount) = rate {
            rule(resource, "throttle", amount, "");
        }
    }
    rules
}

/// How much memory a jail may reserve that may hold `bytes`.
fn reservation(bytes: u64) -> u64 {
    const HEADROOM: u64 = 4 << 30;
    bytes.saturating_mul(2).saturating_add(HEADROOM).min(i64::MAX as u64)
}

/// Adds the rules for `limits`; removes all again if one is refused.
pub fn limit(name: &str, limits: &Limits) -> Result<()> {
    for rule in rules(name, limits, Denial::of_this_kernel()) {
        if let Err(error) = call(sys::rctl_add_rule, &rule, 0) {
            return Err(explain(error))
                .context(|| format!("cannot add rule {rule}"))
                .map_err(|f| f.and_cleanup(remove(name)));
        }
    }
    Ok(())
}

/// Removes every rule of jail `name`. None there is success, and so is a kernel that has no rules.
pub fn remove(name: &str) -> Result<()> {
    match call(sys::rctl_remove_rule, &format!("jail:{name}"), 0) {
        Ok(_) => Ok(()),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ESRCH | libc::ENOSYS)) => Ok(()),
        Err(e) => Err(e).context(|| format!("cannot remove the rctl rules of jail {name}")),
    }
}

/// The rules that jail `name` has.
pub fn present(name: &str) -> Result<Vec<String>> {
    matching(&format!("jail:{name}"))
}

/// Whether this kernel's rules deny forks, rather than kill what was forked.
pub fn forks_are_denied() -> bool {
    Denial::of_this_kernel() == Denial::Safe
}

/// How many processes and threads jail `name` may have, if that is limited.
pub fn process_limit(name: &str) -> Result<Option<u64>> {
    let rules = present(name)?;
    let limit = rules.iter().find_map(|rule| rule.split_once(":nthr:")?.1.split_once('=')?.1.parse().ok());
    Ok(limit)
}

/// Names of all jails that have a rule, whether they exist or not.
pub fn jails() -> Result<BTreeSet<String>> {
    Ok(matching("jail:")?.iter().filter_map(|rule| rule.split(':').nth(1)).map(str::to_owned).collect())
}

fn matching(filter: &str) -> Result<Vec<String>> {
    // rctl_get_rules(2): ERANGE, the rules do not fit. kern.racct.rctl.maxbufsize limits what may be asked for.
    let mut room = 1 << 14;
    loop {
        match call(sys::rctl_get_rules, filter, room) {
            Ok(text) => return Ok(text.split(',').filter(|rule| !rule.is_empty()).map(str::to_owned).collect()),
            Err(e) if e.raw_os_error() == Some(libc::ERANGE) && room < 1 << 24 => room *= 4,
            Err(e) if matches!(e.raw_os_error(), Some(libc::ESRCH | libc::ENOSYS)) => return Ok(Vec::new()),
            Err(e) => return Err(e).context(|| format!("cannot read the rctl rules of {filter}")),
        }
    }
}

/// What jail `name` uses.
pub fn usage(name: &str) -> Result<Usage> {
    let text = call(sys::rctl_get_racct, &format!("jail:{name}:"), 1 << 12)
        .map_err(explain)
        .context(|| format!("cannot read what jail {name} uses"))?;
    Ok(parse(&text))
}

/// Reads `cputime=3,memoryuse=1024,…`.
fn parse(text: &str) -> Usage {
    let value = |wanted: &str| {
        let pair = text.split(',').find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == wanted));
        pair.and_then(|(_, value)| value.parse::<u64>().ok()).unwrap_or(0)
    };
    Usage { cpu: Duration::from_secs(value("cputime")), memory: value("memoryuse"), pids: value("nthr") }
}

fn explain(error: io::Error) -> Fault {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            let sentence = format!(
                "this host does not count resources: {REMEDY}, or run functions without limits: required = false in [limits]"
            );
            Fault::new(Kind::Unsupported, sentence).because(error)
        }
        _ => error.into(),
    }
}

fn call(function: Call, input: &str, room: usize) -> io::Result<String> {
    let input = std::ffi::CString::new(input).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let mut output = vec![0u8; room];
    let out = if room == 0 { std::ptr::null_mut() } else { output.as_mut_ptr().cast() };
    // SAFETY: a C string with its length, NUL counted, and `room` bytes of room.
    sys::check(unsafe { function(input.as_ptr(), input.as_bytes_with_nul().len(), out, room) })?;
    let end = output.iter().position(|b| *b == 0).unwrap_or(output.len());
    Ok(String::from_utf8_lossy(&output[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_rules() {
        let limits = Limits {
            memory: Some(64 << 20),
            cpu_millis: Some(250),
            pids: Some(40),
            open_files: Some(100),
            ..Limits::default()
        };
        let common = |forks: &[&'static str]| {
            ["memoryuse:sigkill=67108864", "swapuse:deny=4429185024", "pcpu:deny=25"]
                .iter()
                .chain(forks)
                .chain(&["openfiles:sigkill=100/process"])
                .map(|rule| format!("jail:fj_a_b_c:{rule}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(rules("fj_a_b_c", &limits, Denial::Safe), common(&["maxproc:deny=40", "nthr:deny=40"]));
        assert_eq!(rules("fj_a_b_c", &limits, Denial::Fatal), common(&["nthr:sigkill=40"]));
        assert!(rules("x", &Limits::default(), Denial::Safe).is_empty());
    }

    #[test]
    fn rates_throttle() {
        let io = Rates { read_bytes: Some(1 << 20), write_ops: Some(9), ..Rates::default() };
        let rules = rules("x", &Limits { io, ..Limits::default() }, Denial::Safe);
        assert_eq!(rules, ["jail:x:readbps:throttle=1048576", "jail:x:writeiops:throttle=9"]);
    }

    #[test]
    fn usage_is_read_from_the_kernels_words() {
        // As rctl -u jail:x prints it, joined by commas (rctl_get_racct(2)).
        let usage = parse("cputime=3,datasize=0,memoryuse=12288000,maxproc=2,nthr=7,pcpu=1");
        assert_eq!(usage, Usage { cpu: Duration::from_secs(3), memory: 12_288_000, pids: 7 });
        assert_eq!(parse(""), Usage::default());
    }
}
