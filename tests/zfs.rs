//! [`faas_jails::platform::zfs`] against a real ZFS.

#[path = "support/zpool.rs"]
mod zpool;

#[path = "zfs/fixture.rs"]
mod fixture;

#[cfg(target_os = "linux")]
#[path = "zfs/fuse.rs"]
mod fuse;
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
