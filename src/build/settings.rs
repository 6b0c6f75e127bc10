//! `[builder]` of the configuration.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{GoVersion, base};
use crate::config;

/// How Go functions are compiled.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A Go installation (its GOROOT); unset: where the `go` in this program's PATH is.
    pub go: Option<PathBuf>,
    /// Further Go versions, for modules that need a newer one.
    pub archives: Vec<Archive>,
    /// The module proxy (`https://…`, or `file:///…` for a directory); unset: the first of Go's own GOPROXY, from the
    /// environment or from the installation's `go.env`. `off`: no modules but vendored ones.
    pub proxy: Option<String>,
    /// Hosts (`host` or `host:port`) from which repositories may be fetched. Loopback ones are spoken to in plain HTTP.
    pub git_hosts: Vec<String>,
    /// Where the libraries are that a Go installation needs which is not statically linked: a directory that looks like
    /// a system's root. Unset: the base, where it is made, or else the host itself.
    pub system: Option<PathBuf>,
    /// The base that `faas-jails init` makes.
    pub base: Option<base::Settings>,
    /// An of-watchdog for this host's platform, for templates that want one in their image; unset: that of this
    /// program's PATH.
    pub watchdog: Option<PathBuf>,
    /// The file with the secret that signs remote builds; they are refused when it is unset.
    pub payload_secret: Option<PathBuf>,
    /// Whether remote builds that ask for it are pushed to their registry.
    pub push: bool,
    /// Builds at once; more wait.
    pub parallel: usize,
    /// Longest time for one step of a build.
    #[serde(deserialize_with = "config::duration")]
    pub time: Duration,
    /// Bytes of memory for a build.
    pub memory: u64,
    /// Thousandths of a processor for a build; unset: all there are.
    pub cpu_millis: Option<u64>,
    /// Processes and threads of a build.
    pub pids: u64,
    /// Bytes that a build may write.
    pub disk: u64,
    /// Bytes of a source tree, fetched or sent.
    pub source: u64,
    /// How long repositories and caches are kept that no build has used.
    #[serde(deserialize_with = "config::duration")]
    pub keep: Duration,
}

/// A Go version to be had from elsewhere.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Which.
    pub version: GoVersion,
    /// A `.tar.gz` as the Go project ships it, or a `.zip` of the module golang.org/toolchain: a path or an https URL;
    /// `proxy`: that module, from the module proxy.
    pub from: String,
    /// SHA-256 of the archive in hexadecimal digits, or, of a module, its `h1:` hash as in a go.sum file.
    pub sum: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            go: None,
            archives: Vec::new(),
            proxy: None,
            git_hosts: ["github.com", "gitlab.com", "codeberg.org", "bitbucket.org"].map(str::to_owned).to_vec(),
            system: None,
            base: None,
            watchdog: None,
            payload_secret: None,
            push: false,
            parallel: 2,
            time: Duration::from_secs(300),
            memory: 2 << 30,
            cpu_millis: None,
            pids: 512,
            disk: 4 << 30,
            source: 256 << 20,
            keep: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// Bytes of memory that one process of the compiler may come to need. On FreeBSD it is also about what one reserves
/// within twice a build's memory and the 4 GB that every jail may reserve beyond.
const PROCESS: u64 = 512 << 20;

impl Settings {
    /// How many processes of the compiler may run at once in a build: as many as it has processors, and memory for.
    pub fn processes(&self) -> u64 {
        let all = || std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let processors = self.cpu_millis.map_or_else(all, |millis| millis.div_ceil(1000));
        processors.min(self.memory / PROCESS).max(1)
    }

    /// Limits of one step of a build.
    pub fn limits(&self) -> crate::job::Limits {
        crate::job::Limits {
            wall: self.time,
            output: 4 << 20,
            disk: Some(self.disk),
            sandbox: crate::sandbox::Limits {
                memory: Some(self.memory),
                cpu_millis: self.cpu_millis,
                pids: Some(self.pids),
                open_files: Some(4096),
                ..Default::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_has_no_more_processes_than_processors_and_memory() {
        let processes = |memory, cpu_millis| Settings { memory, cpu_millis, ..Settings::default() }.processes();
        assert_eq!(processes(2 << 30, Some(64_000)), 4);
        assert_eq!(processes(64 << 30, Some(2_500)), 3);
        assert_eq!(processes(1 << 20, Some(64_000)), 1);
        assert_eq!(processes(64 << 30, Some(0)), 1);
        assert!((1..=4).contains(&processes(2 << 30, None)));
    }
}
