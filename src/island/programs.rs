//! From a call to the image that makes it: looked up, fetched and built once, and kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use super::cache::{self, Cache};
use super::call::Call;
use super::flights::{Flights, Join};
use super::wire::FunctionRequest;
use super::{Island, Parts, Settings};
use crate::build::source::{Repository, Version};
use crate::build::{BuildRequest, recipe, tree};
use crate::fault::{Context, Fault, Kind, Result};
use crate::function::NAME_MAX;
use crate::image::store::InUse;
use crate::image::{Image, Reference, Silent, Store};

/// The directory, in a copy of the repository, of the program that makes the call.
const PACKAGE: &str = "faas-jails-call";

/// Where the images of programs are in the local store: a name that no registry can have (RFC 2606).
const REGISTRY: &str = "island.invalid";

/// A request, checked.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The repository.
    pub repository: Repository,
    /// Which of its commits.
    pub version: Version,
    /// The call.
    pub call: Call,
    /// Whether the run gets an address.
    pub ip4: bool,
    /// Whether nothing that was looked up or built before will do.
    pub bust: bool,
}

/// A program that makes a call.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// Its name in the cache.
    pub key: String,
    /// It.
    pub image: Arc<Image>,
}

/// A failure that several callers are told of.
#[derive(Debug, Clone)]
struct Shared(Kind, String);

impl From<Fault> for Shared {
    fn from(fault: Fault) -> Self {
        Self(fault.kind(), fault.to_string())
    }
}

impl From<Shared> for Fault {
    fn from(Shared(kind, message): Shared) -> Self {
        Fault::new(kind, message)
    }
}

/// Programs, and how they are had.
pub(super) struct Programs {
    images: Arc<Store>,
    cache: Cache,
    lookups: Flights<Result<String, Shared>>,
    builds: Flights<Result<Arc<Image>, Shared>>,
    /// What programs are for, and which Go builds them: part of every key.
    target: String,
}

impl Programs {
    /// With what was built before.
    pub fn open(parts: &Parts, settings: &Settings) -> Result<Self> {
        let cache = Cache::open(parts.provider.config.root.join("island/cache.json"), settings);
        let target = format!("{} {}", crate::platform::image_target().first(), parts.builder.identity()?);
        let images = Arc::clone(&parts.images);
        Ok(Self { images, cache, target, lookups: Flights::default(), builds: Flights::default() })
    }

    fn key(&self, wanted: &Wanted, commit: &str) -> String {
        cache::key(&[&wanted.repository.to_string(), commit, &wanted.call.to_string(), &self.target])
    }
}

impl Island {
    /// Reads a request. The call first: it costs nothing.
    pub(super) fn check(&self, request: &FunctionRequest) -> Result<Wanted> {
        let call = Call::parse(&request.call)?;
        let repository = self.builder.repository(&request.url).context(|| "url")?;
        let version = request.version.parse().context(|| "version")?;
        Ok(Wanted { repository, version, call, ip4: request.ip4, bust: request.cache_bust })
    }

    /// The program, if this process has it at hand: without a look at a disk.
    pub(super) fn at_hand(&self, wanted: &Wanted) -> Option<Program> {
        if wanted.bust {
            return None;
        }
        let now = Timestamp::now();
        let commit = self.programs.cache.commit(&wanted.repository.to_string(), wanted.version.as_str(), now)?;
        let key = self.programs.key(wanted, &commit);
        let image = self.programs.cache.at_hand(&key, now)?;
        self.counters.program("cache");
        Some(Program { key, image })
    }

    /// The program, from the store or from a build.
    pub(super) fn program(&self, wanted: &Wanted) -> Result<Program> {
        let commit = self.commit(wanted)?;
        let key = self.programs.key(wanted, &commit);
        if !wanted.bust {
            let find = |reference: &Reference| self.programs.images.get(reference);
            if let Some(image) = self.programs.cache.program(&key, Timestamp::now(), find)? {
                self.counters.program("cache");
                return Ok(Program { key, image });
            }
        }
        // A build that is under way is of this commit: it serves those who want everything anew, too.
        let build = || self.build(wanted, &commit, &key).map_err(Shared::from);
        let image = self.programs.builds.share(&key, Join::Any, build)?;
        Ok(Program { key, image })
    }

    /// The commit that the wanted version is.
    fn commit(&self, wanted: &Wanted) -> Result<String> {
        let Wanted { repository, version, bust, .. } = wanted;
        let (name, cache) = (repository.to_string(), &self.programs.cache);
        let known = || cache.commit(&name, version.as_str(), Timestamp::now());
        if let Some(commit) = known().filter(|_| !bust) {
            return Ok(commit);
        }
        let join = if *bust { Join::New } else { Join::Any };
        let lookup = || {
            // Somebody else's may have ended just now.
            if let Some(commit) = known().filter(|_| !bust) {
                return Ok(commit);
            }
            let commit = self.look_up(repository, version, *bust)?;
            cache.saw(&name, version.as_str(), &commit, Timestamp::now())?;
            Ok(commit)
        };
        let flight = format!("{name}@{}", version.as_str());
        Ok(self.programs.lookups.share(&flight, join, || lookup().map_err(|fault: Fault| Shared::from(fault)))?)
    }

    fn look_up(&self, repository: &Repository, version: &Version, bust: bool) -> Result<String> {
        let name = repository.to_string();
        if bust {
            let begun = Instant::now();
            self.builder.forget(repository)?;
            self.statsd.timing("repo.remove", begun.elapsed());
            self.statsd.event(&format!("repo.{name}"));
        }
        self.builder.resolve(repository, version)
    }

    fn build(&self, wanted: &Wanted, commit: &str, key: &str) -> Result<Arc<Image>> {
        let name = wanted.repository.to_string();
        let begun = Instant::now();
        let source = self.builder.checkout(&wanted.repository, commit)?;
        self.statsd.timing("repo.clone", begun.elapsed());
        self.statsd.event(&format!("repo.{name}"));
        let reference: Reference = format!("{REGISTRY}/{}:{}", label(&name), &key[..32]).parse()?;
        let request = BuildRequest {
            files: generated(source.path(), &name, &wanted.call)?,
            source: source.path().to_owned(),
            package: PACKAGE.into(),
            owner: format!("island {name}"),
            ..BuildRequest::default()
        };
        let built = self.builder.build(&request, &reference, &Silent)?;
        self.counters.program("build");
        let image = Arc::new(built.image);
        self.programs.cache.keep(key, &image, Timestamp::now())?;
        Ok(image)
    }

    /// Whether an image that a run could not use has gone from the store.
    pub(super) fn is_lost(&self, image: &Image) -> bool {
        self.programs.images.get(&image.reference).is_ok_and(|found| found.is_none())
    }

    /// Forgets a program that is lost.
    pub(super) fn forget(&self, program: &Program) -> Result<()> {
        self.programs.cache.forget(&program.key).map(drop)
    }

    /// Removes programs that nobody has called for long.
    pub(super) fn sweep(&self) -> Result<()> {
        let images = &self.programs.images;
        let gone = self.programs.cache.expire(Timestamp::now())?;
        if gone.is_empty() {
            return Ok(());
        }
        for reference in &gone {
            match images.remove(reference) {
                Err(fault) if fault.kind() != Kind::NotFound => return Err(fault),
                _ => {}
            }
        }
        // Every other image stays; what goes are layers that only those had.
        let references = images.list()?.into_iter().map(|image| image.reference).collect();
        let deployed = self.provider.catalog.all();
        let layers = deployed.iter().flat_map(|function| function.deployed().image.layers.clone()).collect();
        images.prune(&InUse { references, layers }).map(drop)
    }
}

/// What is laid into the copy of a repository: the program, and a go.mod where there is none, as in Sky Island's days.
fn generated(source: &Path, name: &str, call: &Call) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    if !has_package(source) {
        return Err(Fault::invalid(format!("repository {name} has no Go files at its top, so no package to call")));
    }
    let import = match tree::read_text(source, "go.mod")? {
        Some(text) => {
            let path = recipe::module_path(&text).map(str::to_owned);
            path.ok_or_else(|| Fault::invalid("go.mod has no module line"))?
        }
        None => {
            let path = name.replace(':', "_");
            files.insert("go.mod".into(), format!("module {path}\n\ngo 1.16\n").into_bytes());
            path
        }
    };
    files.insert(PathBuf::from(PACKAGE).join("main.go"), call.program(&import).into_bytes());
    Ok(files)
}

fn has_package(source: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(source) else { return false };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.into_iter().any(|name| name.ends_with(".go") && !name.ends_with("_test.go"))
}

/// A DNS label for people who look at lists of jails: the repository's last element, as far as that goes.
pub(super) fn label(repository: &str) -> String {
    let last = repository.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
    let plain: String = last.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(NAME_MAX).collect();
    match plain.trim_matches('-') {
        "" => "function".to_owned(),
        label => label.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_one_whatever_the_repository_is_called() {
        for (repository, expected) in [
            ("github.com/mmcloughlin/geohash", "geohash"),
            ("git.sr.ht/~x/Some.Thing_else", "some-thing-else"),
            ("a.test/---", "function"),
            (&format!("a.test/{}", "é".repeat(80)), "function"),
            (&format!("a.test/{}", "x".repeat(80)), &"x".repeat(63)),
        ] {
            assert_eq!(label(repository), expected);
            assert!(label(repository).parse::<crate::function::FunctionName>().is_ok());
        }
    }
}
