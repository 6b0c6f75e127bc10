//! Source trees from Git repositories, fetched by this program itself.
//!
//! ```text
//! text ─> Repository (host allowed?) ─ resolve ─> commit ─ checkout ─> pack ─> objects ─> tree in builder/sources
//! ```
//!
//! There is no git command behind this: smart HTTP, protocol version 2 (git's Documentation/gitprotocol-v2), is two
//! requests ([`smart`]), and a pack without history is a list of objects ([`pack`]). So nothing of a repository can
//! be a hook, a filter, a submodule, a configuration or another transport; no credentials are sent; bytes, files and time
//! have limits; and every object is checked against its name, up to the commit's. A commit's tree never changes, which is
//! what makes it a cache.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::tree::Copier;
use super::workspace::{Workspace, private};
use super::{Builder, RECIPE_VERSION};
use crate::fault::{Context, Fault, Kind, Result};
use crate::files;
use crate::image::Digest;

pub mod pack;
pub mod smart;

/// Longest name of a repository or a version.
const NAME: usize = 255;

/// A repository on a host that may be asked: `host[:port]/path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Repository {
    host: String,
    path: String,
}

impl Repository {
    /// Reads `host/path`, perhaps with `https://` before and `.git` behind it. `hosts` are those that may be asked.
    pub fn parse(text: &str, hosts: &[String]) -> Result<Self> {
        let bad = |why: &str| Fault::invalid(format!("repository ({}) is invalid: {why}", text.escape_debug()));
        let plain = text.strip_prefix("https://").or(text.strip_prefix("http://")).unwrap_or(text);
        let plain = plain.trim_end_matches('/');
        let plain = plain.strip_suffix(".git").unwrap_or(plain);
        let Some((host, path)) = plain.split_once('/') else {
            return Err(bad("host/owner/name is needed, such as github.com/owner/name"));
        };
        let element = |e: &str| {
            !e.is_empty()
                && !e.starts_with(['.', '-'])
                && e.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b))
        };
        if text.len() > NAME || !path.split('/').all(element) {
            return Err(bad("its path may have letters, digits and . _ ~ - between slashes"));
        }
        let host = host.to_ascii_lowercase();
        if !hosts.contains(&host) {
            return Err(bad(&format!(
                "repositories may be fetched from {}; builder.git_hosts can name more",
                if hosts.is_empty() { "nowhere".to_owned() } else { hosts.join(", ") }
            )));
        }
        Ok(Self { host, path: path.to_owned() })
    }

    fn url(&self) -> String {
        let name = self.host.rsplit_once(':').map_or(self.host.as_str(), |(name, _)| name);
        let scheme = if crate::image::registry::is_loopback(name) { "http" } else { "https" };
        format!("{scheme}://{self}.git")
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.path)
    }
}

/// A tag, a branch or a commit; empty for the default branch.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Version(String);

impl Version {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a whole commit name.
    fn commit(&self) -> Option<String> {
        let whole = self.0.len() == 40 && self.0.bytes().all(|b| b.is_ascii_hexdigit());
        whole.then(|| self.0.to_ascii_lowercase())
    }
}

impl FromStr for Version {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._/+-".contains(&b);
        let fits = text.len() <= NAME
            && text.bytes().all(plain)
            && !text.starts_with(['-', '/', '.'])
            && !text.contains("..")
            && !text.contains("//");
        if fits {
            return Ok(Self(text.to_owned()));
        }
        Err(Fault::invalid(format!("version ({}) is invalid: a tag, a branch or a commit", text.escape_debug())))
    }
}

/// A commit's tree on this host. It stays at least as long as this lives.
#[derive(Debug)]
pub struct Checkout {
    path: PathBuf,
    _held: File,
}

impl Checkout {
    /// Its top directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// One lock a key, for as long as somebody has it.
#[derive(Debug)]
pub struct Turns<K>(Mutex<HashMap<K, Arc<Mutex<()>>>>);

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: std::hash::Hash + Eq + Clone> Turns<K> {
    /// Does it while nobody else does it for the same key.
    pub fn take<T>(&self, key: &K, work: impl FnOnce() -> T) -> T {
        let lock = Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default());
        let held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work();
        drop(held);
        drop(lock);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, lock| Arc::strong_count(lock) > 1);
        result
    }
}

impl Builder {
    /// A repository that this builder may fetch.
    pub fn repository(&self, text: &str) -> Result<Repository> {
        Repository::parse(text, &self.settings.git_hosts)
    }

    /// What decides, beside the source, what a build gives: which Go versions there are.
    pub fn identity(&self) -> Result<String> {
        let mut versions: Vec<String> = self.toolchains.host()?.iter().map(|go| go.version.to_string()).collect();
        versions.extend(self.settings.archives.iter().map(|archive| archive.version.to_string()));
        Ok(format!("{RECIPE_VERSION} {}", versions.join(" ")))
    }

    /// The commit that a version is now. Asks the repository, unless the version is a commit.
    pub fn resolve(&self, repository: &Repository, version: &Version) -> Result<String> {
        match version.commit() {
            Some(commit) => Ok(commit),
            None => smart::resolve(&self.remote, &repository.url(), version.as_str())
                .map_err(|fault| explained(repository, fault)),
        }
    }

    /// The tree of a commit, fetched if it is not here.
    pub fn checkout(&self, repository: &Repository, commit: &str) -> Result<Checkout> {
        if Version(commit.to_owned()).commit().as_deref() != Some(commit) {
            return Err(Fault::invalid(format!("{} is no whole commit name", commit.escape_debug())));
        }
        let home = self.home(repository);
        let key = format!("{repository} {commit}");
        self.checkouts.take(&key, || {
            let path = home.join(commit);
            if !path.exists() {
                self.fetch(repository, commit, &path).map_err(|fault| explained(repository, fault))?;
            }
            let lock = home.join(format!("{commit}.lock"));
            let what = || format!("cannot hold {}", lock.display());
            // Truncated each time: its time of change is when it was used last.
            let held = File::create(&lock).context(what)?;
            held.try_lock_shared().map_err(|e| Fault::new(Kind::Busy, e.to_string())).context(what)?;
            held.set_modified(SystemTime::now()).context(what)?;
            Ok(Checkout { path, _held: held })
        })
    }

    /// Forgets every tree of a repository that nobody works with now.
    pub fn forget(&self, repository: &Repository) -> Result<()> {
        self.forget_older(&self.home(repository), Duration::ZERO)
    }

    /// Forgets trees that have not been used for `builder.keep`.
    pub(super) fn expire_sources(&self) -> Result<()> {
        let sources = self.dir.join("sources");
        for name in files::names(&sources)? {
            self.forget_older(&sources.join(name), self.settings.keep)?;
        }
        Ok(())
    }

    fn home(&self, repository: &Repository) -> PathBuf {
        self.dir.join("sources").join(&Digest::of(repository.to_string()).hex()[..32])
    }

    fn forget_older(&self, home: &Path, keep: Duration) -> Result<()> {
        for name in files::names(home)? {
            let Some(commit) = name.strip_suffix(".lock") else { continue };
            let Ok(lock) = File::open(home.join(&name)) else { continue };
            let age = lock.metadata().and_then(|m| m.modified()).map(|at| SystemTime::now().duration_since(at));
            let old = age.is_ok_and(|age| age.is_ok_and(|age| age >= keep));
            if old && lock.try_lock().is_ok() {
                files::remove_tree(&home.join(commit))?;
                files::remove(&home.join(&name))?;
            }
        }
        Ok(())
    }

    fn fetch(&self, repository: &Repository, commit: &str, path: &Path) -> Result<()> {
        let bytes = smart::fetch(&self.remote, &repository.url(), commit, self.settings.source)?;
        let objects = pack::Objects::read(&bytes, self.settings.source)?;
        let workspace = Workspace::make(&self.dir.join("work"))?;
        let staging = workspace.path("tree");
        objects.check_out(commit, &mut Copier::new(&staging, self.settings.source)?)?;
        private(path.parent().unwrap_or(path))?;
        match fs::rename(&staging, path) {
            // Another process fetched it meanwhile.
            Err(_) if path.exists() => Ok(()),
            other => other.context(|| format!("cannot keep {}", path.display())),
        }
    }
}

fn explained(repository: &Repository, fault: Fault) -> Fault {
    match fault.kind() {
        Kind::NotFound | Kind::Denied => {
            Fault::not_found(format!("repository {repository} does not exist, or is not public")).because(fault)
        }
        _ => fault.within(format!("repository {repository}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_on_hosts_that_are_allowed_are_repositories() {
        let hosts = ["github.com".to_owned(), "127.0.0.1:8080".to_owned()];
        for (text, shown, url) in [
            ("github.com/o/r", "github.com/o/r", "https://github.com/o/r.git"),
            ("https://GitHub.com/O/r.git", "github.com/O/r", "https://github.com/O/r.git"),
            ("127.0.0.1:8080/r", "127.0.0.1:8080/r", "http://127.0.0.1:8080/r.git"),
        ] {
            let repository = Repository::parse(text, &hosts).unwrap();
            assert_eq!((repository.to_string().as_str(), repository.url().as_str()), (shown, url));
        }
        for bad in [
            "",
            "github.com",
            "github.com/",
            "github.com/../x",
            "github.com/o/../r",
            "github.com/o//r",
            "github.com/-x",
            "github.com/o r",
            "github.com/o/r?x",
            "github.com/o#r",
            "user@github.com/o/r",
            "evil.example/o/r",
            "127.0.0.1/r",
            "127.0.0.1:22/r",
            "file:///etc",
            "ext::sh -c x",
            "ssh://github.com/o/r",
            "github.com/.git",
            "github.com/o/r\n",
            "github.com/ö/r",
        ] {
            assert!(Repository::parse(bad, &hosts).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn versions_are_names_and_never_options() {
        for good in ["", "v1.2.3", "feature/x", "main", "0123456789abcdef0123456789abcdef01234567"] {
            assert_eq!(good.parse::<Version>().unwrap().as_str(), good);
        }
        for bad in ["-x", "a..b", "a b", "/a", ".a", "a//b", "a\n", "a~1", "a^", "a:b", &"x".repeat(300)] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?} was accepted");
        }
    }
}
