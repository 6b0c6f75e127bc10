//! The Linux platform on a real kernel: overlayfs, namespaces, cgroups, netlink. Needs root and busybox-static.
#![cfg(target_os = "linux")]

#[path = "linux_platform/support.rs"]
mod support;

#[path = "linux_platform/isolation.rs"]
mod isolation;
