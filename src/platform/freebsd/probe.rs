//! What this host offers, for people to read, and what it lacks, as one sentence with the way out.

use std::path::Path;

use super::{rctl, sysctl};
use crate::fault::{Fault, Kind, Result};

/// The oldest kernel with everything that is used here: nullfs of files, fspacectl(2).
const OLDEST_KERNEL: i64 = 1_400_000;

/// Facts about this host, name and value, in the order of showing. What is missing comes with what mends it.
/// Runs no command and changes nothing.
pub fn probe() -> Vec<(String, String)> {
    let release = sysctl::string("kern.osrelease").unwrap_or_default();
    let facts = [
        ("kernel", format!("FreeBSD {release} ({})", version())),
        ("machine", sysctl::string("hw.machine_arch").unwrap_or_default()),
        ("root", yes(is_root(), "jails are made by root only; start it with service(8) or sudo")),
        ("limits", yes(rctl::enabled(), rctl::REMEDY)),
        ("network stack per replica", yes(has_param("vnet"), "build a kernel with options VIMAGE")),
        ("zfs", yes(has_module("zfs"), "run: sysrc zfs_enable=YES && service zfs start")),
        ("nullfs", yes(has_module("nullfs"), "run: kldload nullfs")),
        ("fdescfs", yes(has_module("fdescfs"), "run: kldload fdescfs")),
        ("tmpfs", yes(has_module("tmpfs"), "run: kldload tmpfs")),
        ("pf", yes(has_module("pf"), "replicas cannot reach the world; run: sysrc pf_enable=YES && service pf start")),
        ("linux programs", yes(has_param("linux"), "run: sysrc linux_enable=YES && service linux start")),
        ("static linux programs", yes(static_linux(), "run: sysctl kern.elf64.fallback_brand=3")),
        ("linux /proc and /sys", yes(has_module("linprocfs"), "run: kldload linprocfs linsysfs")),
        ("jail descriptors", yes(has_param("desc"), "not needed; they come with later kernels")),
    ];
    facts.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Says what is missing to run replicas with their roots under `storage`, a directory that exists.
pub fn check(storage: &Path) -> Result<()> {
    lacking(&Host::look())?;
    if !storage.is_dir() {
        return Err(Fault::new(Kind::Unsupported, format!("{} is no directory", storage.display())));
    }
    Ok(())
}

/// What decides whether replicas can be run here.
struct Host {
    root: bool,
    kernel: i64,
    /// What the jail that this program is in has not, if it is in one.
    jail: Option<Vec<&'static str>>,
    /// Modules that are not loaded.
    missing: Vec<&'static str>,
}

impl Host {
    fn look() -> Self {
        let jailed = sysctl::integer("security.jail.jailed") == Some(1);
        let missing = ["nullfs", "fdescfs", "tmpfs"].into_iter().filter(|module| !has_module(module)).collect();
        Self { root: is_root(), kernel: version(), jail: jailed.then(not_granted), missing }
    }
}

/// What a jail needs so that jails can be made in it, and this one has not, in the words of jail(8).
fn not_granted() -> Vec<&'static str> {
    let is = |name: &str, wanted: i64| sysctl::integer(&format!("security.jail.{name}")) == Some(wanted);
    [
        ("children.max=20", sysctl::integer("security.jail.children.max").unwrap_or(0) > 0),
        ("enforce_statfs=1", sysctl::integer("security.jail.enforce_statfs").unwrap_or(2) < 2),
        ("vnet", is("vnet", 1)),
        ("allow.mount", is("mount_allowed", 1)),
        ("allow.mount.zfs and a dataset given to it by zfs jail", is("mount_zfs_allowed", 1)),
        ("allow.mount.nullfs", is("mount_nullfs_allowed", 1)),
        ("allow.mount.tmpfs", is("mount_tmpfs_allowed", 1)),
        ("allow.mount.devfs", is("mount_devfs_allowed", 1)),
        ("allow.mount.fdescfs", is("mount_fdescfs_allowed", 1)),
    ]
    .into_iter()
    .filter_map(|(word, granted)| (!granted).then_some(word))
    .collect()
}

/// The first thing that is missing, with the command that mends it.
fn lacking(host: &Host) -> Result<()> {
    let lacks = |sentence: String| Err(Fault::new(Kind::Unsupported, sentence));
    if !host.root {
        let message = "faas-jails makes jails and mounts, which needs root; start it with service(8) or sudo";
        return Err(Fault::new(Kind::Denied, message));
    }
    if host.kernel < OLDEST_KERNEL {
        return lacks(format!(
            "kernel {} is too old; FreeBSD 14.0 ({OLDEST_KERNEL}) or newer is needed: freebsd-update upgrade",
            host.kernel
        ));
    }
    if let Some(jail) = &host.jail {
        let rest = "a devfs ruleset and rctl rules, which FreeBSD lets nobody make in a jail";
        let all = jail.iter().copied().chain([rest]).collect::<Vec<_>>().join(", ");
        return lacks(format!("faas-jails runs in a jail itself, which lacks: {all}; run it on the host"));
    }
    match host.missing.first() {
        None => Ok(()),
        Some(module) => lacks(format!("this kernel has no {module}; run: kldload {module}")),
    }
}

fn yes(is: bool, remedy: &str) -> String {
    if is { "yes".to_owned() } else { format!("no; {remedy}") }
}

fn version() -> i64 {
    sysctl::integer("kern.osreldate").unwrap_or_default()
}

fn is_root() -> bool {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn has_param(name: &str) -> bool {
    sysctl::exists(&format!("security.jail.param.{name}"))
}

/// Loaded, or part of the kernel: modfind(2) knows both.
pub(super) fn has_module(name: &str) -> bool {
    // sys/module.h; in libc.
    unsafe extern "C" {
        fn modfind(name: *const libc::c_char) -> libc::c_int;
    }
    // SAFETY: a C string.
    std::ffi::CString::new(name).is_ok_and(|name| unsafe { modfind(name.as_ptr()) } != -1)
}

/// Static programs, such as Go makes, do not say whose they are; kern.elf64.fallback_brand says what then.
fn static_linux() -> bool {
    /// ELFOSABI_LINUX of sys/elf_common.h.
    const LINUX: i64 = 3;
    sysctl::integer("kern.elf64.fallback_brand") == Some(LINUX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_one_sentence_with_what_mends_it() {
        let fit = || Host { root: true, kernel: OLDEST_KERNEL, jail: None, missing: Vec::new() };
        assert!(lacking(&fit()).is_ok());
        for (host, kind, words) in [
            (Host { root: false, ..fit() }, Kind::Denied, ["needs root", "sudo"]),
            (Host { kernel: 1_302_001, ..fit() }, Kind::Unsupported, ["1302001 is too old", "freebsd-update"]),
            (Host { jail: Some(vec!["children.max=20"]), ..fit() }, Kind::Unsupported, ["children.max=20", "rctl"]),
            (Host { missing: vec!["nullfs"], ..fit() }, Kind::Unsupported, ["no nullfs", "kldload nullfs"]),
        ] {
            let fault = lacking(&host).unwrap_err();
            assert_eq!(fault.kind(), kind);
            assert!(words.iter().all(|word| fault.to_string().contains(word)), "{fault}");
        }
    }
}
