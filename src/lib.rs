//! faas-jails: an OpenFaaS provider whose functions run in FreeBSD jails; on Linux, in namespaces.
//!
//! The stock faas-cli and the stock gateway talk to it over the faas-provider REST contract. Every replica of a
//! function is a sandbox whose root filesystem comes from an unpacked OCI image: on FreeBSD a jail on a ZFS clone.
//! There is no container engine, no image tool, no systemd and no database beside it.
//!
//! # The map
//!
//! | module | room |
//! |---|---|
//! | [`cli`] | the command line, one file a verb |
//! | [`config`] | file and environment → `Config`, read once |
//! | [`api`] | the HTTP edge; `api/routes.rs` shows every endpoint, `api/error.rs` every status, `api/invoke.rs` the proxy, `api/ui/` the page |
//! | [`gateway`] | the standalone port: the gateway's API, calls that are made later |
//! | [`provider`] | functions and their replicas: deploy, update, scale, delete, lease, restart, adopt |
//! | [`function`] | what the user deployed, as validated types |
//! | [`image`] | OCI images: names, registries, archives, layers, the local store |
//! | [`island`] | Sky Island's API: runs a Go call from a Git repository |
//! | [`storage`], [`network`], [`sandbox`] | the three capabilities of a platform, as traits over plain data |
//! | [`job`] | one-shot sandbox runs: output caught, limits kept, everything thrown away |
//! | [`build`] | Go functions, compiled in a sandbox into images |
//! | [`platform`] | the only place that knows the operating system |
//! | [`setup`] | making a host ready: looked at, made, taken away again |
//! | [`secrets`], [`logs`], [`metrics`] | what their names say |
//! | [`files`], [`fault`] | files that survive a crash; how everything below the API fails |
//!
//! # A deploy, hop by hop
//!
//! `api/functions` turns JSON into [`provider::Desired`] (400 here) → `provider/deploy` takes that function's lock →
//! the image is ensured (fetched, verified, unpacked) → `provider/replica` clones a root, attaches a network, starts
//! the sandbox → `provider/supervise` waits until it accepts connections → the spec file is written → 202.
//! An update starts the new replicas first, switches, then drains the old ones.
//!
//! # An invoke, hop by hop
//!
//! `api/invoke` → [`provider::Catalog`] → [`provider::Provider::lease`] (waits for an activation when nobody is
//! there) → `api/upstream`, a pool of kept connections → the replica. No command, no global lock, no disk.
//!
//! # Invariants
//!
//! 1. The operating system is the database. A replica is its jail or cgroup; a function is one spec file. Start-up
//!    reads both, adopts what matches and sweeps the rest: the code that serves a failed deploy and a delete.
//! 2. Functions outlive the daemon. They write their logs into files themselves, and nothing of theirs ends with it.
//! 3. Every create has its destroy, `Provider::discard`: it tries every step, and can be repeated.
//! 4. Platform calls carry plain data, so that they can one day sit behind a socket in another process.
//! 5. Nothing of an image is ever run, followed or trusted by the host.
//!
//! # What is decided differently than one might expect, and why
//!
//! - Logs are files that replicas append to; a line's time is kept beside, as (length, time) marks. A pipe to the
//!   daemon would give exact times and tie the function's life to it.
//! - A function's spec file also holds the image it resolved to, so that a restart never changes what runs.
//! - The next replica of a function that a call may start lies ready, complete but for its program (`provider/ready.rs`): what
//!   takes long is done before anybody waits. A pool of warm processes would answer sooner still, and cost their memory.
//! - A create whose replica *ends* before it serves fails, with the replica's last words; one that is merely slow is
//!   answered 202 and shows no available replica until it serves.
//! - Failures below the API are one type, [`fault::Fault`], with a kind and a sentence, rather than an enum a module:
//!   only the kind is acted on, in one place (`api/error.rs`), and the sentence is what people need.
//!
//! # Deliberately absent
//!
//! Clusters, schedulers, a plug-in interface, a database, a user namespace per function, running as non-root.

pub mod api;
pub mod build;
pub mod cli;
pub mod config;
pub mod fault;
pub mod files;
pub mod function;
pub mod gateway;
pub mod image;
pub mod island;
pub mod job;
pub mod logs;
pub mod metrics;
pub mod network;
pub mod platform;
pub mod provider;
pub mod sandbox;
pub mod secrets;
pub mod setup;
pub mod storage;

/// The commit this was built from, or `unknown`.
pub const COMMIT: &str = match option_env!("FAAS_JAILS_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};
