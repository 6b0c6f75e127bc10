//! What the acceptance tests stand on: the real daemon, real images, a real registry, a plain HTTP client,
//! and counting what is left behind.
//!
//! Nothing here knows the crate's inside: a test says what a client of the program sees.

use std::io::Write;
use std::time::{Duration, Instant};

pub mod browser;
pub mod certificate;
pub mod client;
pub mod daemon;
pub mod dataset;
pub mod gateway;
pub mod git;
pub mod git_own;
pub mod gostd;
pub mod http;
pub mod image;
pub mod images;
pub mod leaks;
pub mod mirror;
pub mod parts;
#[cfg_attr(target_os = "freebsd", path = "platform_freebsd.rs")]
#[cfg_attr(target_os = "linux", path = "platform_linux.rs")]
pub mod platform;
pub mod registry;
pub mod sky;
pub mod terminal;

pub use daemon::Daemon;
pub use http::Response;

/// Whether this process may make namespaces, mounts and interfaces.
pub fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Says that a test did not run, on the real standard error, which libtest does not swallow. The line's
/// form is fixed: tools/test.sh counts it.
pub fn announce_skip(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}

/// Ends the test, loudly, unless it may run replicas: as root, and with what else the platform needs.
#[macro_export]
macro_rules! needs_root {
    () => {
        if let Some(reason) = $crate::support::platform::lacks() {
            $crate::support::announce_skip(&$crate::support::this_test(), reason);
            return;
        }
    };
}

/// Ends the test, loudly, on a system that is not Linux.
#[macro_export]
macro_rules! linux_only {
    ($reason:literal) => {
        if !cfg!(target_os = "linux") {
            $crate::support::announce_skip(&$crate::support::this_test(), $reason);
            return;
        }
    };
}

/// Ends the test, loudly, unless this stock program was found; gives its path.
#[macro_export]
macro_rules! needs_stock {
    ($name:literal) => {
        match $crate::support::parts::stock($name) {
            Some(path) => path,
            None => {
                let reason = concat!("needs ", $name, ", see tools/stock.sh");
                $crate::support::announce_skip(&$crate::support::this_test(), reason);
                return;
            }
        }
    };
}

/// Ends the test, loudly, unless this program is installed; `$from` says what installs it.
#[macro_export]
macro_rules! needs_program {
    ($name:literal, $from:literal) => {
        if !$crate::support::parts::installed($name) {
            let reason = concat!("needs ", $name, ", see ", $from);
            $crate::support::announce_skip(&$crate::support::this_test(), reason);
            return;
        }
    };
}

/// The running test's name: libtest names its threads so.
pub fn this_test() -> String {
    std::thread::current().name().unwrap_or("a test").to_owned()
}

/// Asks until the answer is there, at most two minutes, as the machine may be an emulated one; `what` is what did
/// not come.
#[track_caller]
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    eventually_within(Duration::from_secs(120), what, ask)
}

/// Asks until the answer is there.
#[track_caller]
pub fn eventually_within<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        let asked = Instant::now();
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        // A question that costs much must not take the machine from those who are to make it true.
        std::thread::sleep(asked.elapsed().max(Duration::from_millis(20)));
    }
}
