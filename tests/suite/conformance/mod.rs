//! The provider contract, a sentence a test: what stock faas-cli, the stock gateway and its certifier rely on.
//!
//! Each test starts a daemon of its own. With FAAS_PROVIDER_URL it asks that provider instead, whichever it is
//! (tools/conformance.sh URL): nothing here knows more of it than its API. Where the stock providers differ, the
//! test names the answer of this one and those that others may give; what only some providers can do says so.

pub mod provider;

mod auth;
mod functions;
mod invoke;
mod itself;
mod logs;
mod namespaces;
mod secrets;
