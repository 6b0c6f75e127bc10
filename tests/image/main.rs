//! Images, end to end: archives and registries in, files in storage and a record out.

mod corpus;
mod load;
mod registry;
mod support;
