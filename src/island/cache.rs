//! What has been looked up and built before: which commit a version was, and which image holds a call's program.
//!
//! ```text
//! repository + version ── cache_default_expiration ──> commit
//! repository + commit + call + platform + Go ── cache_purge_after its last use ──> image in the local store
//! ```
//! Both are one file, replaced in one step, so they survive a restart. It is written when something is added or taken
//! away; that a program was used is written with the next of those, and costs a call nothing.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Settings;
use crate::fault::Result;
use crate::files;
use crate::image::{Image, Reference};

/// The books.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    expires: jiff::SignedDuration,
    purges: jiff::SignedDuration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    book: Book,
    /// Images that have been looked at since this process began.
    images: HashMap<String, Arc<Image>>,
}

/// What is written down.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Book {
    commits: BTreeMap<String, Commit>,
    programs: BTreeMap<String, Program>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Commit {
    commit: String,
    seen: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Program {
    image: Reference,
    used: Timestamp,
}

/// What a program depends on, as one name: lower-case hexadecimal digits.
pub fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

fn lookup(repository: &str, version: &str) -> String {
    format!("{repository}@{version}")
}

impl Cache {
    /// The books at `path`; empty when they are not there, or cannot be read.
    pub fn open(path: PathBuf, settings: &Settings) -> Self {
        let book = files::read_json(&path).unwrap_or_else(|fault| {
            tracing::warn!(%fault, "programs that were built before are built again");
            None
        });
        let signed = |duration| jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX);
        Self {
            path,
            expires: signed(settings.cache_default_expiration),
            purges: signed(settings.cache_purge_after),
            state: Mutex::new(State { book: book.unwrap_or_default(), images: HashMap::new() }),
        }
    }

    /// The commit that a version of a repository was, if that was seen lately.
    pub fn commit(&self, repository: &str, version: &str, now: Timestamp) -> Option<String> {
        let state = self.lock();
        let known = state.book.commits.get(&lookup(repository, version))?;
        (now.duration_since(known.seen) < self.expires).then(|| known.commit.clone())
    }

    /// Notes which commit a version is.
    pub fn saw(&self, repository: &str, version: &str, commit: &str, now: Timestamp) -> Result<()> {
        let mut state = self.lock();
        let commit = Commit { commit: commit.to_owned(), seen: now };
        state.book.commits.insert(lookup(repository, version), commit);
        self.write(&state)
    }

    /// The program of this [`key`], if this process has looked at it before.
    pub fn at_hand(&self, key: &str, now: Timestamp) -> Option<Arc<Image>> {
        let mut state = self.lock();
        let image = Arc::clone(state.images.get(key)?);
        state.book.programs.get_mut(key)?.used = now;
        Some(image)
    }

    /// The program of this [`key`]. `find` gets its image from the store, the first time in this process; a program
    /// whose image has gone is forgotten.
    pub fn program(
        &self,
        key: &str,
        now: Timestamp,
        find: impl FnOnce(&Reference) -> Result<Option<Image>>,
    ) -> Result<Option<Arc<Image>>> {
        let reference = {
            let mut state = self.lock();
            let Some(program) = state.book.programs.get_mut(key) else { return Ok(None) };
            program.used = now;
            let reference = program.image.clone();
            if let Some(image) = state.images.get(key) {
                return Ok(Some(Arc::clone(image)));
            }
            reference
        };
        let Some(image) = find(&reference)?.map(Arc::new) else {
            self.forget(key)?;
            return Ok(None);
        };
        self.lock().images.insert(key.to_owned(), Arc::clone(&image));
        Ok(Some(image))
    }

    /// Notes a program that has been built.
    pub fn keep(&self, key: &str, image: &Arc<Image>, now: Timestamp) -> Result<()> {
        let mut state = self.lock();
        state.book.programs.insert(key.to_owned(), Program { image: image.reference.clone(), used: now });
        state.images.insert(key.to_owned(), Arc::clone(image));
        self.write(&state)
    }

    /// Forgets a program; its image is the caller's to remove.
    pub fn forget(&self, key: &str) -> Result<Option<Reference>> {
        let mut state = self.lock();
        state.images.remove(key);
        let gone = state.book.programs.remove(key);
        if gone.is_some() {
            self.write(&state)?;
        }
        Ok(gone.map(|program| program.image))
    }

    /// Forgets what is too old, and gives the images of programs that nobody has called for too long.
    pub fn expire(&self, now: Timestamp) -> Result<Vec<Reference>> {
        let mut state = self.lock();
        let State { book, images } = &mut *state;
        book.commits.retain(|_, commit| now.duration_since(commit.seen) < self.expires);
        let old = |program: &Program| now.duration_since(program.used) >= self.purges;
        let gone: Vec<String> = book.programs.iter().filter(|(_, p)| old(p)).map(|(key, _)| key.clone()).collect();
        let references = gone.iter().filter_map(|key| {
            images.remove(key);
            book.programs.remove(key).map(|program| program.image)
        });
        let references = references.collect();
        self.write(&state)?;
        Ok(references)
    }

    fn write(&self, state: &MutexGuard<'_, State>) -> Result<()> {
        files::replace_json(&self.path, &state.book)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Digest as ImageDigest, Origin, RunConfig};

    const HOUR: i64 = 3600;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * HOUR).unwrap()
    }

    fn image(name: &str) -> Image {
        let digest = ImageDigest::of(name);
        Image {
            reference: format!("example.test/{name}:1").parse().unwrap(),
            origin: Origin::Loaded,
            manifest: digest.clone(),
            resolved: digest,
            layers: Vec::new(),
            run: RunConfig::default(),
            platform: "linux/amd64".into(),
            size: 0,
            loaded: at(0),
        }
    }

    fn open(dir: &tempfile::TempDir) -> Cache {
        Cache::open(dir.path().join("cache.json"), &Settings::default())
    }

    #[test]
    fn keys_tell_apart_what_merely_looks_the_same_together() {
        let keys = [key(&["a", "bc"]), key(&["ab", "c"]), key(&["abc"]), key(&["a", "bc", ""]), key(&["a", "b", "c"])];
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len());
        assert_eq!(keys[0], key(&["a", "bc"]));
    }

    #[test]
    fn a_commit_is_believed_for_eight_hours_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(&dir);
        cache.saw("example.test/r", "main", "c0ffee", at(0)).unwrap();
        for cache in [cache, open(&dir)] {
            assert_eq!(cache.commit("example.test/r", "main", at(7)).as_deref(), Some("c0ffee"));
            assert_eq!(cache.commit("example.test/r", "main", at(8)), None);
            assert_eq!(cache.commit("example.test/r", "", at(0)), None);
        }
    }

    #[test]
    fn a_program_is_found_again_until_nobody_has_called_it_for_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let cache = open(&dir);
        let built = Arc::new(image("f"));
        cache.keep("k", &built, at(0)).unwrap();
        assert!(cache.program("k", at(20), |_| unreachable!()).unwrap().is_some());
        assert_eq!(cache.expire(at(43)).unwrap(), []);
        let cache = open(&dir);
        let found = cache.program("k", at(43), |reference| Ok((*reference == built.reference).then(|| image("f"))));
        assert_eq!(found.unwrap(), Some(Arc::clone(&built)));
        assert_eq!(cache.expire(at(67)).unwrap(), std::slice::from_ref(&built.reference));
        assert_eq!(cache.program("k", at(67), |_| unreachable!()).unwrap(), None);
    }

    #[test]
    fn a_program_whose_image_has_gone_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        open(&dir).keep("k", &Arc::new(image("f")), at(0)).unwrap();
        let cache = open(&dir);
        assert_eq!(cache.program("k", at(1), |_| Ok(None)).unwrap(), None);
        assert_eq!(open(&dir).forget("k").unwrap(), None);
    }

    #[test]
    fn books_that_cannot_be_read_are_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cache.json"), "{").unwrap();
        let cache = open(&dir);
        assert_eq!(cache.commit("example.test/r", "main", at(0)), None);
        cache.saw("example.test/r", "main", "c0ffee", at(0)).unwrap();
        assert!(open(&dir).commit("example.test/r", "main", at(0)).is_some());
    }
}
