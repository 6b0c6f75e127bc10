//! The acceptance suite: the program as its clients see it, over HTTP and through stock faas-cli, with real
//! images, real sandboxes and a real registry. It needs nothing from the crate's inside.
//!
//! Every test has its own daemon with its own root, realm and subnet, so any number may run at once; when a
//! test ends, the daemon is purged and whatever the kernel still shows of it fails the test.

#[path = "../support/mod.rs"]
mod support;
#[path = "../support/zpool.rs"]
mod zpool;

mod bad_clients;
mod bad_images;
mod bad_input;
mod breakout;
mod builder;
mod builder_base;
mod builder_limits;
mod builder_progress;
mod builder_remote;
mod builder_repository;
mod builder_toolchain;
mod conformance;
mod description;
mod elastic_idle;
mod elastic_load;
mod elastic_seen;
mod elastic_zero;
mod faas_cli;
mod full_disk;
mod gateway;
mod gateway_queue;
mod gateway_tls;
mod images;
mod island_admin;
mod island_bad_input;
mod island_calls;
mod island_docs;
mod isolation;
mod kept;
mod killed;
mod lifecycle;
mod limits;
mod metrics;
mod network;
mod observe;
mod on_zfs;
mod operations;
mod page;
mod refusals;
mod settings;
mod ship;
mod shipped;
mod stock_gateway;
mod stock_images;
mod streams;
#[cfg(target_os = "freebsd")]
mod way_out;
