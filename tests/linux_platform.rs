//! The Linux platform on a real kernel: overlayfs, namespaces, cgroups, netlink. Needs root and busybox-static.
#![cfg(target_os = "linux")]

#[path = "linux_platform/support.rs"]
mod support;

#[path = "linux_platform/isolation.rs"]
mod isolation;
#[path = "linux_platform/lifecycle.rs"]
mod lifecycle;
#[path = "linux_platform/network.rs"]
mod network;
#[path = "linux_platform/storage.rs"]
mod storage;
