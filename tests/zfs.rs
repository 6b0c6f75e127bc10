//! [`faas_jails::platform::zfs`] against a real ZFS.

#[path = "support/zpool.rs"]
mod zpool;

#[path = "zfs/fixture.rs"]
mod fixture;

#[path = "zfs/layers.rs"]
mod layers;
#[path = "zfs/recover.rs"]
mod recover;
#[path = "zfs/roots.rs"]
mod roots;
#[path = "zfs/setup.rs"]
mod setup;
#[path = "zfs/stream.rs"]
mod stream;
