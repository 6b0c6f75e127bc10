//! Archives from elsewhere. They are signed, so they need no secure channel; what is read is checked first.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::time::Duration;

use super::archive::scratch;
use crate::fault::{Context, Fault, Kind, Result};
use crate::image::registry::is_loopback;

/// How long a server may say nothing.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A file on a server, while it comes.
pub struct Remote {
    /// Its bytes.
    pub body: Box<dyn Read + Send>,
    /// How many they are, where the server says so.
    pub length: Option<u64>,
}

/// Asks a plain HTTP server for a file. `NotFound` when it has none of this name.
pub fn fetch(url: &str) -> Result<Remote> {
    if !url.starts_with("http://") {
        return Err(Fault::invalid(
            "it does not begin with http://: fetch it with another program, and import the file",
        ));
    }
    let local = url.parse::<http::Uri>().is_ok_and(|url| url.host().is_some_and(is_loopback));
    // Where no proxy is set, the one that the environment names is used.
    let direct = if local { ureq::Agent::config_builder().proxy(None) } else { ureq::Agent::config_builder() };
    let agent = direct
        .timeout_connect(Some(TIMEOUT))
        .timeout_recv_response(Some(TIMEOUT))
        .timeout_per_read(Some(TIMEOUT))
        .build()
        .new_agent();
    let response = agent.get(url).call().map_err(|error| match error {
        ureq::Error::StatusCode(404) => Fault::not_found("there is no such file on that server (404)"),
        other => Fault::new(Kind::System, "the server did not send it").because(other),
    })?;
    let length = response.body().content_length();
    Ok(Remote { body: Box::new(response.into_body().into_reader()), length })
}

/// Keeps what a reader gives in a file without a name in a directory, which goes when it is closed. `length` is what
/// was promised.
pub fn keep(mut reader: impl Read, length: Option<u64>, directory: &Path) -> Result<File> {
    let mut file = scratch(directory)?;
    let count = std::io::copy(&mut reader, &mut file).context(|| "it broke off")?;
    if length.is_some_and(|length| length != count) {
        return Err(Fault::new(Kind::System, format!("it broke off after {count} bytes")));
    }
    file.rewind().context(|| "cannot read a temporary file")?;
    Ok(file)
}
