//! Archives from elsewhere. They are signed, so they need no secure channel; what is read is checked first.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::time::Duration;

use super::archive::scratch;
use crate::fault::{Context, Fault, Kind, Result};

/// How long a server may say nothing.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Downloads an archive into a file without a name in a directory.
pub(super) fn download(url: &str, directory: &Path) -> Result<File> {
    if !url.starts_with("http://") {
        return Err(Fault::invalid(
            "it does not begin with http://: fetch it with another program, and import the file",
        ));
    }
    let agent = ureq::Agent::config_builder()
        .timeout_connect(Some(TIMEOUT))
        .timeout_recv_response(Some(TIMEOUT))
        .timeout_per_read(Some(TIMEOUT))
        .build()
        .new_agent();
    let response = agent.get(url).call().map_err(|error| match error {
        ureq::Error::StatusCode(404) => Fault::not_found("there is no such file on that server"),
        other => Fault::new(Kind::System, "the server did not send it").because(other),
    })?;
    let length = response.body().content_length();
    let mut file = scratch(directory)?;
    let mut body = response.into_body().into_reader();
    let count = std::io::copy(&mut body.by_ref(), &mut file).context(|| "the download broke off")?;
    if length.is_some_and(|length| length != count) {
        return Err(Fault::new(Kind::System, format!("the download broke off after {count} bytes")));
    }
    file.rewind()?;
    Ok(file)
}
