//! The conformance tests, run as for any other provider, against a daemon that they know only by its URL.

use std::process::Command;

use super::provider::{CREDENTIALS, URL, is_foreign};
use crate::needs_root;
use crate::support::{Daemon, announce_skip, this_test};

#[test]
fn the_contract_holds_for_a_provider_that_is_known_by_its_url_only() {
    needs_root!();
    if is_foreign() {
        announce_skip(&this_test(), "is about the other tests");
        return;
    }
    let daemon = Daemon::with().credentials("admin:secret").start();
    let mut tests = Command::new(std::env::current_exe().expect("this program"));
    tests.args(["conformance::", "--skip", "conformance::itself", "--test-threads=1"]);
    let out = tests.env(URL, daemon.url()).env(CREDENTIALS, "admin:secret").output().expect("running the tests");
    let told = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{told}{}", String::from_utf8_lossy(&out.stderr));
    let passed = told.lines().filter(|line| line.ends_with("... ok")).count();
    assert!(passed > 60, "{told}");
    // They leave nothing behind.
    assert!(daemon.list("").is_empty());
    assert_eq!(daemon.http.get("/system/secrets").expect(200).text().trim(), "[]");
}
