//! Bodies of Sky Island's API, with its keys. Answers of the admin routes are its structs, field by field.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A request to run a function. Field names are all lower-case, for [`crate::api::gojson`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct FunctionRequest {
    /// The repository, `host/path` without a scheme.
    pub url: String,
    /// The call.
    pub call: String,
    /// Whether the run gets an address of the pool; otherwise it has no network.
    pub ip4: bool,
    /// Whether everything is fetched and built anew.
    pub cache_bust: bool,
    /// A tag, branch or commit; empty: the default branch.
    pub version: String,
}

/// What a function has printed.
#[derive(Debug, Serialize)]
pub struct FunctionResponse {
    /// Seconds since 1970.
    pub timestamp: i64,
    /// Standard output. What is not UTF-8 in it is replaced, as Go's encoder does.
    pub data: String,
}

/// Why there is no output.
#[derive(Debug, Default, Serialize)]
pub struct ErrorResponse {
    /// One sentence, or a compiler's words.
    pub error: String,
    /// The exit status of a function that ended by itself, and not with 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<i32>,
    /// The end of what the function has written to standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
}

/// A sandbox, as `jls -s` told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Jail {
    /// `new`: it has a host name of its own.
    pub host: String,
    /// Its address, or `disable`.
    pub ip4: String,
    /// Its IPv6 address, or `disable`.
    pub ip6: String,
    /// The jail's number; on Linux the process id of its first process.
    pub jid: i32,
    /// Its name.
    pub name: String,
    /// The kernel's release.
    #[serde(rename = "OSRelease")]
    pub os_release: String,
    /// Its directory.
    pub path: String,
    /// Its host name.
    pub hostname: String,
}

/// The sandboxes that run.
#[derive(Debug, Serialize)]
pub struct Jails {
    /// One entry each.
    pub jails: Vec<Jail>,
}

/// One sandbox.
#[derive(Debug, Serialize)]
pub struct Details {
    /// It.
    pub details: Jail,
}

/// A sandbox that was killed.
#[derive(Debug, Serialize)]
pub struct Deleted {
    /// Its number.
    pub deleted: i32,
}

/// The pool: who holds an address, in base64 as Go writes bytes; `null`: nobody.
pub type Addresses = BTreeMap<std::net::Ipv4Addr, Option<String>>;

/// A request to free an address.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct AddressRequest {
    /// The address.
    pub ip: String,
    /// One byte; Sky Island reads it and frees the address whatever it is.
    pub state: u8,
}
