//! What this kernel offers, and for each thing that is missing, what mends it.

use std::fmt;

use super::{rctl, sysctl};

/// One thing that replicas need, or that makes them better.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// What it is.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Whether it is there.
    pub state: State,
}

/// Whether a feature is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is; with a detail worth showing.
    Present(String),
    /// It is not; with what mends it.
    Missing(&'static str),
}

impl Feature {
    /// Whether it is there.
    pub fn present(&self) -> bool {
        matches!(self.state, State::Present(_))
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::Present(detail) if detail.is_empty() => write!(f, "{}: yes", self.name),
            State::Present(detail) => write!(f, "{}: {detail}", self.name),
            State::Missing(remedy) => write!(f, "{}: no ({}); {remedy}", self.name, self.purpose),
        }
    }
}

/// Looks at all of it. Runs no command and changes nothing.
pub fn look() -> Vec<Feature> {
    let feature = |name, purpose, state| Feature { name, purpose, state };
    vec![
        feature("kernel", "runs the jails", kernel()),
        feature("limits", "memory, processor and process limits", present(rctl::enabled(), rctl::REMEDY)),
        feature("vnet", "a network stack per replica", param("vnet", "build a kernel with options VIMAGE")),
        feature(
            "epair",
            "links of replicas with their own network stack",
            module("if_epair", "run: kldload if_epair; it is also loaded when first used"),
        ),
        feature(
            "zfs",
            "images and replicas as ZFS clones",
            module("zfs", "run: sysrc zfs_enable=YES && service zfs start"),
        ),
        feature("nullfs", "secrets, and roots that are plain directories", module("nullfs", "run: kldload nullfs")),
        feature("fdescfs", "/dev/fd in replicas", module("fdescfs", "run: kldload fdescfs")),
        feature("tmpfs", "/tmp of read-only replicas", module("tmpfs", "run: kldload tmpfs")),
        feature("linux", "Linux images", param("linux", "run: sysrc linux_enable=YES && service linux start")),
        feature("linux static", "static Linux programs, such as Go makes", brand()),
        feature("linprocfs", "/proc of Linux images", module("linprocfs", "run: kldload linprocfs")),
        feature("linsysfs", "/sys of Linux images", module("linsysfs", "run: kldload linsysfs")),
        feature("pf", "a way out for replicas", module("pf", "run: sysrc pf_enable=YES && service pf start")),
        feature(
            "jail descriptors",
            "not used; shown for reports",
            param("desc", "they come with FreeBSD 15 and nothing depends on them"),
        ),
    ]
}

fn kernel() -> State {
    let release = sysctl::string("kern.osrelease").unwrap_or_default();
    let date = sysctl::integer("kern.osreldate").unwrap_or_default();
    State::Present(format!("FreeBSD {release} ({date})"))
}

fn present(there: bool, remedy: &'static str) -> State {
    if there { State::Present(String::new()) } else { State::Missing(remedy) }
}

fn param(name: &str, remedy: &'static str) -> State {
    present(sysctl::exists(&format!("security.jail.param.{name}")), remedy)
}

/// Loaded, or part of the kernel: modfind(2) knows both.
fn module(name: &str, remedy: &'static str) -> State {
    let Ok(c_name) = std::ffi::CString::new(name) else { return State::Missing(remedy) };
    // SAFETY: a C string.
    present(unsafe { modfind(c_name.as_ptr()) } != -1, remedy)
}

// sys/module.h; in libc.
unsafe extern "C" {
    fn modfind(name: *const libc::c_char) -> libc::c_int;
}

/// ELFOSABI_LINUX: static programs say of no system that it is theirs, and the kernel has to be told.
fn brand() -> State {
    const LINUX: i64 = 3;
    let remedy = "run: sysctl kern.elf64.fallback_brand=3, and put it into /etc/sysctl.conf";
    present(sysctl::integer("kern.elf64.fallback_brand") == Some(LINUX), remedy)
}
