//! Image names: `[registry/]repository[:tag][@digest]`, read as Docker and containerd read them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Result};

/// A content digest, `sha256:` and 64 hexadecimal digits. No other algorithm is accepted, so a digest can
/// be part of a file name without more checks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// The digest of finished SHA-256 output.
    pub fn sha256(hash: impl AsRef<[u8]>) -> Self {
        Self(format!("sha256:{}", hex::encode(hash)))
    }

    /// The digest of these bytes.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        use sha2::Digest as _;
        Self::sha256(sha2::Sha256::digest(bytes))
    }

    /// The whole digest, with its algorithm.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 hexadecimal digits alone.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }
}

impl FromStr for Digest {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self> {
        let fits = text.strip_prefix("sha256:").is_some_and(|hex| {
            hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        });
        if fits {
            return Ok(Self(text.to_owned()));
        }
        Err(Fault::invalid(format!("{} is no sha256 digest", text.escape_debug())))
    }
}

impl TryFrom<String> for Digest {
    type Error = Fault;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an image reference begins with when it names a repository to build from.
const REPOSITORY: &str = "git+https://";

/// Most bytes of a name.
const LONGEST: usize = 512;

/// The source of an image that is built where it is deployed: `git+https://HOST/PATH[//PACKAGE][:VERSION]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositorySource {
    /// `host[:port]/path`.
    pub repository: String,
    /// The package's directory; empty for the top.
    pub package: String,
    /// A tag, a branch or a commit; `latest` for the default branch.
    pub version: String,
}

/// An image reference: what the user wrote, and what it means.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    text: String,
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Exactly what the user wrote; status echoes it.
    pub fn as_written(&self) -> &str {
        &self.text
    }

    /// Host and optional port. `docker.io` when none was written.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path on the registry; `library/` is put before Docker Hub's one-word names.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` when neither tag nor digest was written.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest that pins it, if one was written.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What its registry is asked for: the digest, the tag, or `latest`.
    pub fn wanted(&self) -> &str {
        self.digest().map(Digest::as_str).or(self.tag()).unwrap_or("latest")
    }

    /// The repository that it names, if it is of that sort. A slash in a branch's name is written `%2F`.
    pub fn source(&self) -> Option<RepositorySource> {
        let host = self.registry.strip_prefix(REPOSITORY)?;
        let (path, package) = self.repository.split_once("//").unwrap_or((&self.repository, ""));
        Some(RepositorySource {
            repository: format!("{host}/{path}"),
            package: package.to_owned(),
            version: self.tag.as_deref().unwrap_or("latest").replace("%2F", "/"),
        })
    }

    fn of_repository(text: &str, rest: &str) -> Result<Self> {
        let bad = |why: &str| Fault::invalid(format!("image ({}) is invalid: {why}", text.escape_debug()));
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].find(':') {
            Some(colon) => (&rest[..slash + colon], &rest[slash + colon + 1..]),
            None => (rest, "latest"),
        };
        let word = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
        let element = |e: &str| !e.is_empty() && !e.starts_with(['.', '-']) && e.bytes().all(|b| word(b) || b == b'~');
        let (host, path) = name.split_once('/').ok_or_else(|| bad("git+https://host/owner/name is needed"))?;
        let (repository, package) = path.split_once("//").unwrap_or((path, "top"));
        if !host_is_valid(host) || !repository.split('/').chain(package.split('/')).all(element) {
            return Err(bad("git+https://host/owner/name//directory:version is needed"));
        }
        if tag.len() > 128 || !tag.split("%2F").all(|part| !part.is_empty() && part.bytes().all(word)) {
            return Err(bad("what follows the last colon is no tag, branch or commit; a slash in it is written %2F"));
        }
        let (registry, repository) = (format!("{REPOSITORY}{host}"), path.to_owned());
        Ok(Self { text: text.to_owned(), registry, repository, tag: Some(tag.to_owned()), digest: None })
    }

    /// The full name, one for all spellings: `registry/repository[:tag][@digest]`.
    pub fn canonical(&self) -> String {
        let tag = self.tag.as_ref().map(|t| format!(":{t}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|d| format!("@{d}")).unwrap_or_default();
        format!("{}/{}{tag}{digest}", self.registry, self.repository)
    }
}

fn is_host(text: &str) -> bool {
    text == "localhost" || text.contains('.') || text.contains(':') || text.bytes().any(|b| b.is_ascii_uppercase())
}

fn host_is_valid(host: &str) -> bool {
    // A bracketed IPv6 address, or letters, digits, dots and dashes; then an optional port.
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, "")) if v6.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", None),
        Some((v6, rest)) if rest.starts_with(':') && v6.parse::<std::net::Ipv6Addr>().is_ok() => {
            ("v6", Some(&rest[1..]))
        }
        Some(_) => return false,
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    // A number may have a plus for Rust.
    let number = |p: &str| !p.starts_with('+') && p.parse::<u16>().is_ok_and(|p| p > 0);
    name.split('.').all(label) && port.is_none_or(number)
}

/// A path component (distribution-spec, "name"): alphanumerics separated by `.`, `_`, `__` or dashes.
fn component_is_valid(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if bytes.is_empty() || !alnum(bytes[0]) || !alnum(bytes[bytes.len() - 1]) {
        return false;
    }
    text.split(|c: char| alnum(c as u8) && c.is_ascii())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

fn tag_is_valid(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len()) && word(tag.as_bytes()[0]) && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

impl FromStr for Reference {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            let why =
                "a name such as registry.example/team/name:tag is needed, with all that goes without saying at most";
            Fault::invalid(format!("image ({}) is invalid: {why} {LONGEST} bytes", text.escape_debug()))
        };
        if text.is_empty() || text.len() > LONGEST {
            return Err(bad());
        }
        let reference = match text.strip_prefix(REPOSITORY) {
            Some(rest) => Self::of_repository(text, rest)?,
            None => Self::of_registry(text)?,
        };
        // What stands for it elsewhere has to be a name, too.
        if reference.canonical().len() > LONGEST { Err(bad()) } else { Ok(reference) }
    }
}

impl Reference {
    fn of_registry(text: &str) -> Result<Self> {
        let bad = |why: &str| Fault::invalid(format!("image ({}) is invalid: {why}", text.escape_debug()));
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(digest.parse().map_err(|_| bad("what follows @ is no sha256 digest"))?))
            }
            None => (text, None),
        };
        // A colon behind the last slash starts a tag; one before it belongs to the registry's port.
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].find(':') {
            Some(colon) => (&rest[..slash + colon], Some(rest[slash + colon + 1..].to_owned())),
            None => (rest, None),
        };
        if tag.as_deref().is_some_and(|tag| !tag_is_valid(tag)) {
            return Err(bad("the tag has characters that a tag cannot have, or more than 128"));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (host.to_owned(), path.to_owned()),
            _ => ("docker.io".to_owned(), name.to_owned()),
        };
        let registry = if registry == "index.docker.io" { "docker.io".to_owned() } else { registry };
        if !host_is_valid(&registry) {
            return Err(bad("the registry is no host name"));
        }
        if !repository.split('/').all(component_is_valid) {
            return Err(bad("the repository may have lower-case letters, digits, and single . _ - between them"));
        }
        let repository = match registry.as_str() {
            "docker.io" if !repository.contains('/') => format!("library/{repository}"),
            _ => repository,
        };
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { text: text.to_owned(), registry, repository, tag, digest })
    }
}

impl TryFrom<String> for Reference {
    type Error = Fault;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Found by fuzzing: `docker.io/…:latest` was too long to be read again.
    #[test]
    fn a_name_is_not_longer_than_what_it_means() {
        let of_bytes = |count: usize| format!("a/{}", "b".repeat(count - 2)).parse::<Reference>();
        let most = LONGEST - "docker.io/:latest".len();
        assert_eq!(of_bytes(most).unwrap().canonical().len(), LONGEST);
        assert!(of_bytes(most + 1).is_err());
    }

    #[test]
    fn references_mean_what_docker_means() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (text, canonical) in [
            ("alpine", "docker.io/library/alpine:latest".to_owned()),
            ("functions/alpine:latest", "docker.io/functions/alpine:latest".to_owned()),
            ("docker.io/functions/alpine", "docker.io/functions/alpine:latest".to_owned()),
            ("127.0.0.1:5000/a/b:1", "127.0.0.1:5000/a/b:1".to_owned()),
            ("localhost/a", "localhost/a:latest".to_owned()),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_owned()),
            ("ghcr.io/o/f:0.1.2-rc_1", "ghcr.io/o/f:0.1.2-rc_1".to_owned()),
            (&format!("r.example/f@{digest}"), format!("r.example/f@{digest}")),
            (&format!("r.example/f:v1@{digest}"), format!("r.example/f:v1@{digest}")),
            ("a/b__c/d---e.f", "docker.io/a/b__c/d---e.f:latest".to_owned()),
        ] {
            let reference: Reference = text.parse().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(reference.canonical(), canonical);
            assert_eq!(reference.as_written(), text);
        }
        for text in [
            "",
            ":",
            "a:",
            "A",
            "a//b",
            "/a",
            "a/",
            "../a",
            "a/../b",
            "a b",
            "a:b:c",
            "a@sha256:12",
            "a@md5:0",
            "r.example:0/a",
            "r.example:+80/a",
            "[::1]r.example/a",
            "[::]\u{7f}/a",
            "r.example:99999/a",
            "-r.example/a",
            "a..b",
            "a:tag/",
            "é",
            "a:\u{0}",
            "https://r.example/a",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn an_image_may_name_a_repository_instead() {
        for (text, repository, package, version) in [
            ("git+https://github.com/o/R", "github.com/o/R", "", "latest"),
            ("git+https://github.com/o/r:v1.2.3", "github.com/o/r", "", "v1.2.3"),
            ("git+https://127.0.0.1:8080/r//cmd/x:feature%2Fy", "127.0.0.1:8080/r", "cmd/x", "feature/y"),
        ] {
            let reference: Reference = text.parse().unwrap();
            let source = reference.source().unwrap();
            assert_eq!(
                (source.repository.as_str(), source.package.as_str(), source.version.as_str()),
                (repository, package, version)
            );
            assert_eq!(reference.canonical().parse::<Reference>().unwrap().source(), Some(source));
        }
        for bad in [
            "git+https://",
            "git+https://github.com",
            "git+https://github.com/",
            "git+https://github.com/../x",
            "git+https://github.com/o//../x",
            "git+https://github.com/o//a//b",
            "git+https://github.com/o:",
            "git+https://-x/o",
            "git+https://github.com/o:a b",
            "git+https://u@github.com/o",
            "git+http://github.com/o",
            "git+ssh://x/y",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?} was accepted");
        }
        assert_eq!("github.com/o/r".parse::<Reference>().unwrap().source(), None);
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_the_same_again(text in "[a-zA-Z0-9./:@_-]{1,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let canonical = reference.canonical();
                let again: Reference = canonical.parse().unwrap();
                prop_assert_eq!(again.canonical(), canonical);
            }
        }
    }
}
