//! Images, end to end: archives and registries in, files in storage and a record out.

mod load;
mod registry;
mod support;
