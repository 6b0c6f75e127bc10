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
    let lacks = |sentence: String| Err(Fault::new(Kind::Unsupported, sentence));
    if !is_root() {
        return lacks("faas-jails makes jails and mounts, which needs root; start it with service(8) or sudo".into());
    }
    if version() < OLDEST_KERNEL {
        return lacks(format!("kernel {} is too old; FreeBSD 14.0 ({OLDEST_KERNEL}) or newer is needed", version()));
    }
    if sysctl::integer("security.jail.jailed") == Some(1) {
        return lacks(
            "faas-jails runs in a jail itself, which may not make the mounts that replicas need; run it on the host"
                .into(),
        );
    }
    for module in ["nullfs", "fdescfs", "tmpfs"] {
        if !has_module(module) {
            return lacks(format!("this kernel has no {module}; run: kldload {module}"));
        }
    }
    if !storage.is_dir() {
        return lacks(format!("{} is no directory", storage.display()));
    }
    Ok(())
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
