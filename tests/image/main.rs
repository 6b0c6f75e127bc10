//! Images, end to end: archives and registries in, files in storage and a record out.

mod corpus;
mod differential;
mod interrupted;
mod load;
mod misbehaviour;
mod registry;
mod server;
mod support;
mod tls;
