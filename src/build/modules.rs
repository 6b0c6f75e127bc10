//! Go modules: fetched by this program, not by the build, which has no network.
//!
//! What a build needs is what its go.sum files list, each with its hash. So they are read, what is missing is asked of
//! the module proxy (the GOPROXY protocol, go.dev/ref/mod#goproxy-protocol), checked against the hash, and kept in a
//! directory that is itself a module proxy. Builds see that directory read-only, as `GOPROXY=file:///…`, and check again.
//! Nobody can put anything into it that the proxy does not serve and a go.sum does not vouch for.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::remote::Remote;
use crate::fault::{Context, Fault, Kind, Result};
use crate::files;

/// Most lines of all go.sum files together.
const ENTRIES: usize = 20_000;
/// Most bytes of one module's archive: Go's own limit (golang.org/x/mod/zip, MaxZipFile).
const ZIP: u64 = 500 << 20;
/// Most bytes of a go.mod (the same, MaxGoMod).
const GO_MOD: u64 = 16 << 20;
/// Files fetched at once.
const PARALLEL: usize = 8;

/// Modules that have been fetched.
#[derive(Debug)]
pub struct Modules {
    dir: PathBuf,
    proxy: Option<String>,
}

/// A line of a go.sum: one file of one module, with its hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Sum {
    module: String,
    version: String,
    /// `mod` or `zip`.
    kind: &'static str,
    hash: String,
}

impl Modules {
    /// Kept in `dir`, fetched from `proxy`; from nowhere when it is absent or `off`.
    pub fn new(dir: PathBuf, proxy: Option<String>) -> Self {
        let proxy = proxy.filter(|proxy| proxy != "off").map(|proxy| proxy.trim_end_matches('/').to_owned());
        Self { dir, proxy }
    }

    /// The directory that serves as a proxy for builds.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes sure that what the go.sum texts list is here. A go.sum lists more than a build needs, so that what the proxy
    /// has not got is no failure yet: it is given back, for the case that the build fails.
    pub fn provide(&self, remote: &Remote, sums: &[String]) -> Result<Vec<Fault>> {
        let mut wanted = BTreeSet::new();
        for text in sums {
            parse(text, &mut wanted)?;
        }
        let missing: Vec<Sum> = wanted.into_iter().filter(|sum| !self.path(sum).exists()).collect();
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL.min(missing.len()) {
                scope.spawn(|| {
                    while let Some(sum) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let Err(fault) = self.fetch(remote, sum) else { continue };
                        if !is_absence(&fault) {
                            next.store(missing.len(), Ordering::Relaxed);
                        }
                        failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(fault);
                    }
                });
            }
        });
        let mut failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        match failed.iter().position(|fault| !is_absence(fault)) {
            Some(at) => Err(failed.swap_remove(at)),
            None => Ok(failed),
        }
    }

    /// A module's archive, checked against `hash` (`h1:…`), from here or from the proxy.
    pub fn archive(&self, remote: &Remote, module: &str, version: &str, hash: &str) -> Result<Vec<u8>> {
        let (module, version, hash) = (module.to_owned(), version.to_owned(), hash.to_owned());
        let sum = Sum { module, version, kind: "zip", hash };
        if !self.path(&sum).exists() {
            self.fetch(remote, &sum)?;
        }
        fs::read(self.path(&sum)).context(|| format!("cannot read {}", self.path(&sum).display()))
    }

    fn path(&self, sum: &Sum) -> PathBuf {
        self.dir.join(sum.location())
    }

    fn fetch(&self, remote: &Remote, sum: &Sum) -> Result<()> {
        let what = || format!("module {} {}", sum.module, sum.version);
        let Some(proxy) = &self.proxy else {
            return Err(Fault::new(
                Kind::Unsupported,
                format!(
                    "{} cannot be fetched: there is no module proxy (builder.proxy); vendor it: go mod vendor",
                    what()
                ),
            ));
        };
        let most = if sum.kind == "zip" { ZIP } else { GO_MOD };
        let bytes = remote.get(&format!("{proxy}/{}", sum.location()), most).context(what)?;
        let found = match sum.kind {
            "zip" => zip_hash(&bytes).context(what)?,
            _ => hash_of([("go.mod".to_owned(), Sha256::digest(&bytes).into())]),
        };
        if found != sum.hash {
            return Err(Fault::invalid(format!(
                "{} has hash {found} on the module proxy, and {} in go.sum: one of them is wrong",
                what(),
                sum.hash
            )));
        }
        files::replace(&self.path(sum), &bytes)?;
        readable(&self.path(sum))
    }
}

/// Whether the proxy has not got it, or does not give it to us; or there is no proxy at all.
fn is_absence(fault: &Fault) -> bool {
    matches!(fault.kind(), Kind::NotFound | Kind::Denied | Kind::Unsupported)
}

impl Sum {
    fn location(&self) -> String {
        format!("{}/@v/{}.{}", escape(&self.module), escape(&self.version), self.kind)
    }
}

/// What [`files::replace`] makes is for root alone; builds are not root.
fn readable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
        .context(|| format!("cannot open up {}", path.display()))
}

/// `module version[/go.mod] h1:hash`, one a line (go.dev/ref/mod#go-sum-files). Other hashes than `h1` do not count.
fn parse(text: &str, into: &mut BTreeSet<Sum>) -> Result<()> {
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [module, version, hash] = words[..] else {
            if words.is_empty() {
                continue;
            }
            return Err(Fault::invalid(format!("go.sum has a line that is none: {}", line.escape_debug())));
        };
        let (version, kind) = version.strip_suffix("/go.mod").map_or((version, "zip"), |version| (version, "mod"));
        if !path_is_safe(module) || !path_is_safe(version) || version.contains('/') {
            return Err(Fault::invalid(format!("go.sum names a module that cannot be: {}", line.escape_debug())));
        }
        if hash.starts_with("h1:") {
            let (module, version, hash) = (module.to_owned(), version.to_owned(), hash.to_owned());
            into.insert(Sum { module, version, kind, hash });
        }
        if into.len() > ENTRIES {
            return Err(Fault::invalid(format!("go.sum lists more than {ENTRIES} files, the limit")));
        }
    }
    Ok(())
}

/// Module paths and versions (golang.org/x/mod/module, CheckPath), and nothing that a file name or URL could trip over.
fn path_is_safe(path: &str) -> bool {
    let element = |e: &str| {
        !e.is_empty()
            && !e.starts_with('.')
            && !e.ends_with('.')
            && e.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+".contains(&b))
    };
    path.len() <= 512 && path.split('/').all(element)
}

/// Upper-case letters as `!` and the lower-case one (golang.org/x/mod/module, EscapePath).
fn escape(path: &str) -> String {
    path.chars()
        .flat_map(|c| c.is_ascii_uppercase().then_some('!').into_iter().chain([c.to_ascii_lowercase()]))
        .collect()
}

/// The `h1:` hash of a module's archive (golang.org/x/mod/sumdb/dirhash, Hash1 of HashZip).
pub fn zip_hash(bytes: &[u8]) -> Result<String> {
    let broken = |error: &dyn std::fmt::Display| Fault::invalid(format!("its archive is damaged: {error}"));
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| broken(&e))?;
    let mut entries = Vec::with_capacity(archive.len());
    let mut left = 2 * ZIP;
    for at in 0..archive.len() {
        let mut file = archive.by_index(at).map_err(|e| broken(&e))?;
        let name = file.name().map_err(|e| broken(&e))?.into_owned();
        if name.contains('\n') {
            return Err(broken(&"a name in it has a line break"));
        }
        let mut hash = Sha256::new();
        let mut buffer = [0; 16 << 10];
        loop {
            let read = file.read(&mut buffer).map_err(|e| broken(&e))?;
            if read == 0 {
                break;
            }
            left = left.checked_sub(read as u64).ok_or_else(|| broken(&"it is larger than any module may be"))?;
            hash.update(&buffer[..read]);
        }
        entries.push((name, hash.finalize().into()));
    }
    Ok(hash_of(entries))
}

fn hash_of(entries: impl IntoIterator<Item = (String, [u8; 32])>) -> String {
    let mut entries: Vec<_> = entries.into_iter().collect();
    entries.sort();
    let mut hash = Sha256::new();
    for (name, content) in entries {
        hash.update(format!("{}  {name}\n", hex::encode(content)));
    }
    format!("h1:{}", STANDARD.encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_sum_lines_become_files_of_a_proxy() {
        let mut sums = BTreeSet::new();
        parse("github.com/BurntSushi/toml v1.3.2 h1:a=\ngithub.com/BurntSushi/toml v1.3.2/go.mod h1:b=\n\n", &mut sums)
            .unwrap();
        let locations: Vec<String> = sums.iter().map(Sum::location).collect();
        assert_eq!(
            locations,
            ["github.com/!burnt!sushi/toml/@v/v1.3.2.mod", "github.com/!burnt!sushi/toml/@v/v1.3.2.zip"]
        );
        for bad in
            ["a b", "../x v1 h1:a=", "a/../b v1 h1:a=", "a v1/../x h1:a=", "a b c d", "a?b v1 h1:x", "/a v1 h1:x"]
        {
            assert!(parse(bad, &mut BTreeSet::new()).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn hashes_are_go_s() {
        // go.sum of anything that needs rsc.io/quote v1.5.2: its go.mod's hash.
        let text = "module \"rsc.io/quote\"\n\nrequire \"rsc.io/sampler\" v1.3.0\n";
        let hash = hash_of([("go.mod".to_owned(), Sha256::digest(text).into())]);
        assert_eq!(hash, "h1:LzX7hefJvL54yjefDEDHNONDjII0t9xZLPXsUe+TKr0=");
        assert!(zip_hash(b"PK no zip").unwrap_err().to_string().contains("damaged"));
    }
}
