//! FreeBSD: every replica is a jail.
//!
//! | module | what it drives | source of its facts |
//! |---|---|---|
//! | [`jail`] | jails, by name | jail(2), jail(8) |
//! | [`spawn`] | one process in a jail | pdfork(2), procctl(2), jail_attach(2) |
//! | [`mount`] | mounts below one directory | nmount(2), unmount(2), getfsstat(2) |
//! | [`tree`] | directories and files in a root, following no link | open(2) |
//! | [`devfs`] | which devices a replica sees | devfs(8), `sys/fs/devfs/devfs.h` |
//! | [`rctl`] | limits and usage | rctl(8), rctl_add_rule(2) |
//! | [`process`] | processes of a jail | sysctl(3) `kern.proc` |
//! | [`monitor`] | exits | kqueue(2) |
//! | [`network`] | addresses, VNET links, pf | `sys/sockio.h`, bridge(4), epair(4), pf.conf(5) |
//! | [`sandbox`] | all of these, as [`crate::sandbox::Sandbox`] | |
//! | [`probe`] | what this kernel offers | sysctl(3), kldstat(2) |
//!
//! Deliberately absent: libjail and libzfs_core (the system calls suffice), jail descriptors (a replica
//! outlives the daemon, so its jail must not hang on a descriptor; names are never reused, so a jail id
//! cannot be mistaken), and any work in a jail's tree after its first program has started.

pub mod devfs;
pub mod jail;
pub mod monitor;
pub mod mount;
pub mod network;
pub mod probe;
pub mod process;
pub mod rctl;
pub mod sandbox;
pub mod spawn;
mod sys;
pub mod sysctl;
pub mod tree;
