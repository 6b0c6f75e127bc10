//! The few operations that change datasets, done by either of two engines.

use super::command::Command;
use super::core::Core;
use super::refusal::Outcome;

/// A property given to a dataset as it is made. Everything else is inherited from its container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Property {
    /// `canmount=noauto`: only this program mounts it, also after a restart of the host.
    NoAutoMount,
    /// `refquota`: most bytes that it may refer to, shared ones included.
    ReferenceQuota(u64),
    /// A user property (zfsprops(7), "User Properties").
    User(&'static str, String),
}

/// Makes and destroys datasets. Names are full names; nothing here mounts or unmounts.
pub(super) trait Engine: Send + Sync {
    /// What it is, for people.
    fn describe(&self) -> &str;

    /// A new, empty filesystem.
    fn create(&self, dataset: &str, properties: &[Property]) -> Outcome;

    /// A filesystem that begins as `snapshot`.
    fn clone_snapshot(&self, snapshot: &str, dataset: &str, properties: &[Property]) -> Outcome;

    /// A snapshot, by `dataset@name`.
    fn snapshot(&self, snapshot: &str) -> Outcome;

    /// Gives a filesystem another name, atomically.
    fn rename(&self, from: &str, to: &str) -> Outcome;

    /// Destroys a filesystem, which must be unmounted and have no snapshot, or a snapshot without clones.
    fn destroy(&self, name: &str) -> Outcome;

    /// Is there a filesystem or snapshot of this name?
    fn exists(&self, name: &str) -> Outcome<bool>;
}

/// Which engine to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// libzfs_core if this host has it, else zfs(8).
    #[default]
    Best,
    /// zfs(8), whatever the host has.
    Command,
}

/// The engine for this host.
pub(super) fn choose(choice: Choice) -> Box<dyn Engine> {
    match (choice, Core::open()) {
        (Choice::Best, Ok(core)) => Box::new(core),
        _ => Box::new(Command),
    }
}

/// What would change datasets on this host, and why not the faster one, for people.
pub fn describe() -> String {
    match Core::open() {
        Ok(core) => core.describe().to_owned(),
        Err(reason) => format!("{} ({reason})", Command.describe()),
    }
}
