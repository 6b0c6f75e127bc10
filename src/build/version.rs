//! Go versions, and what a go.mod says of them.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::fault::{Fault, Result};

/// `1.26.8`, `1.25`, `1.25rc1`; a `go` before it is fine. A language version (`1.25`) is its first release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct GoVersion {
    major: u32,
    minor: u32,
    /// A release candidate or beta comes before the first release.
    released: bool,
    patch: u32,
}

impl FromStr for GoVersion {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self> {
        let bad =
            || Fault::invalid(format!("Go version ({}) is invalid: such as 1.25.1 is needed", text.escape_debug()));
        let number = |part: &str| part.parse::<u32>().map_err(|_| bad());
        let mut parts = text.strip_prefix("go").unwrap_or(text).splitn(3, '.');
        let major = number(parts.next().ok_or_else(bad)?)?;
        let minor = parts.next().ok_or_else(bad)?;
        // A toolchain may carry a suffix: 1.25.1-custom.
        let patch = parts.next().map(|patch| patch.split('-').next().unwrap_or(patch));
        let (minor, released) = match minor.split_once(|c: char| c.is_ascii_alphabetic()) {
            Some((minor, _)) if patch.is_none() => (minor, false),
            Some(_) => return Err(bad()),
            None => (minor, true),
        };
        Ok(Self { major, minor: number(minor)?, released, patch: patch.map_or(Ok(0), number)? })
    }
}

impl TryFrom<String> for GoVersion {
    type Error = Fault;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl fmt::Display for GoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.released {
            true => write!(f, "{}.{}.{}", self.major, self.minor, self.patch),
            false => write!(f, "{}.{}rc", self.major, self.minor),
        }
    }
}

/// The first word after `directive` on a line of its own in a go.mod or go.work.
pub fn directive<'a>(text: &'a str, directive: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let mut words = line.split("//").next().unwrap_or_default().split_ascii_whitespace();
        (words.next() == Some(directive)).then(|| words.next()).flatten()
    })
}

/// The least Go version that a go.mod or go.work asks for; `None` when it does not say.
pub fn wanted(text: &str) -> Result<Option<GoVersion>> {
    directive(text, "go").map(str::parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_go_orders_them() {
        let of = |text: &str| text.parse::<GoVersion>().unwrap();
        let sorted = ["1.9", "1.20.5", "1.25rc1", "1.25", "1.25.1", "1.25.10", "2.0"];
        assert!(sorted.windows(2).all(|pair| of(pair[0]) < of(pair[1])));
        assert_eq!(of("go1.24"), of("1.24.0"));
        assert_eq!(of("1.26.8").to_string(), "1.26.8");
        for bad in ["", "1", "go", "1.x", "1.2.3.4", "1.25rc1.2", "-1.2", "1.25 ", "latest"] {
            assert!(bad.parse::<GoVersion>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_go_mod_says_what_it_needs() {
        let text = "module m // go 1.1\n\n  go 1.24.3 // why\ntoolchain go1.99\nrequire go 1\n";
        assert_eq!(wanted(text).unwrap(), Some("1.24.3".parse().unwrap()));
        assert_eq!(directive(text, "module"), Some("m"));
        assert_eq!(wanted("module m\n").unwrap(), None);
        assert!(wanted("go never\n").is_err());
    }
}
