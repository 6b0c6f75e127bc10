//! Certificates that vouch for themselves, for servers on loopback.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{announce_skip, this_test};

/// A certificate for localhost and 127.0.0.1, and its key.
pub fn make(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (certificate, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
    let mut command = Command::new("openssl");
    command.args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2".split(' '));
    command.args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    command.arg("-out").arg(&certificate).arg("-keyout").arg(&key).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().expect("running openssl").success());
    (certificate, key)
}

/// Whether this machine can make them; says so if not.
pub fn possible() -> bool {
    let found = Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_ok();
    if !found {
        announce_skip(&this_test(), "needs openssl");
    }
    found
}
