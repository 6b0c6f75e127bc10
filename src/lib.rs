//! faas-jails: an OpenFaaS provider whose functions run in FreeBSD jails (on Linux: in namespaces).
//!
//! # The map
//!
//! | module | room |
//! |---|---|
//! | [`function`] | what the user deployed, as validated types |
//! | [`provider`] | functions and their replicas: deploy, update, scale, delete, resolve, restart, adopt |
//! | [`image`] | OCI images: names, registries, archives, layers, the local store |
//! | [`storage`], [`network`], [`sandbox`] | the three capabilities of a platform, as traits over plain data |
//! | [`platform`] | the only place that knows the operating system |
//! | [`fault`] | how everything below the API fails |

pub mod config;
pub mod fault;
pub mod files;
pub mod function;
pub mod image;
pub mod logs;
pub mod network;
pub mod platform;
pub mod provider;
pub mod sandbox;
pub mod secrets;
pub mod storage;
