//! Images, end to end: archives and registries in, files in storage and a record out.

mod corpus;
mod differential;
mod interrupted;
mod load;
#[cfg(target_os = "linux")]
mod memory;
mod misbehaviour;
mod registry;
mod server;
mod support;
mod tls;
