//! Paths inside a layer: [`Inside`] is one that cannot leave the root by its spelling.

use crate::fault::{Fault, Result};

use super::UnpackLimits;

/// Longest name of one file on every filesystem this runs on (NAME_MAX).
const NAME_MAX: usize = 255;

/// A path beneath the root: components joined by single slashes, none of them empty, `.` or `..`, no NUL.
/// The empty path is the root itself. A leading `/` or `./` in the tar means nothing, as for tar(1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Inside(Vec<u8>);

impl Inside {
    /// Reads a name from a tar header.
    pub fn parse(raw: &[u8], limits: &UnpackLimits) -> Result<Self> {
        let bad = |why: &str| Err(Fault::invalid(format!("entry \"{}\" {why}", show(raw))));
        if raw.len() > limits.path {
            return bad("has a path longer than the limit");
        }
        let mut clean = Vec::with_capacity(raw.len());
        let mut depth = 0;
        for part in raw.split(|b| *b == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return bad("has .. in its path, which could lead outside of the image"),
                _ if part.contains(&0) => return bad("has a NUL byte in its path"),
                _ if part.len() > NAME_MAX => return bad("has a file name longer than 255 bytes"),
                _ => {}
            }
            depth += 1;
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(part);
        }
        if depth > limits.depth {
            return bad("is nested deeper than the limit");
        }
        Ok(Self(clean))
    }

    /// The bytes, components joined by `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Is this the root itself?
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory (empty for the root) and the last component (empty for the root itself).
    pub fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (b"", &self.0),
        }
    }

    /// The path of `name` in directory `dir`; both must come from an [`Inside`].
    pub fn joined(dir: &[u8], name: &[u8]) -> Self {
        let mut path = dir.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Self(path)
    }
}

/// A path as people may read it: escaped, and cut short.
pub fn show(raw: &[u8]) -> String {
    let cut = &raw[..raw.len().min(200)];
    let dots = if cut.len() < raw.len() { "…" } else { "" };
    format!("{}{dots}", cut.escape_ascii())
}

impl std::fmt::Display for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"/{}\"", show(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(raw: &str) -> Result<String> {
        Inside::parse(raw.as_bytes(), &UnpackLimits::default()).map(|p| String::from_utf8(p.0).unwrap())
    }

    #[test]
    fn spelling_does_not_matter_and_dotdot_does() {
        for (raw, clean) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("./", ""),
            ("...", "..."),
            ("a/..b", "a/..b"),
        ] {
            assert_eq!(parse(raw).unwrap(), clean);
        }
        for raw in ["..", "../a", "a/..", "a/../b", "/..", "a\0b", &"x".repeat(256), &"x/".repeat(129)] {
            assert!(parse(raw).is_err(), "{raw:?} was accepted");
        }
    }
}
