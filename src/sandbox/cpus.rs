//! A set of processors, written `0-1,3`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::fault::{Fault, Result};

/// Processors by number; at least one, each below [`Cpus::MOST`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpus(BTreeSet<u32>);

impl Cpus {
    /// CPU_SETSIZE of FreeBSD and Linux.
    pub const MOST: u32 = 1024;

    /// Reads it, and says whether this host has all of them.
    pub fn on_this_host(text: &str) -> Result<Self> {
        let cpus: Self = text.parse()?;
        // SAFETY: takes a number.
        let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
        let highest = cpus.0.last().copied().unwrap_or(0);
        if i64::from(highest) < count {
            return Ok(cpus);
        }
        Err(Fault::invalid(format!("this host has no processor {highest}; its processors are 0 to {}", count - 1)))
    }

    /// Each of them, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied()
    }
}

impl FromStr for Cpus {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Fault::invalid(format!("processors ({}) are invalid: numbers and ranges, as in 0-1,3", text.escape_debug()))
        };
        let number = |text: &str| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u32>().ok().filter(|n| digits && *n < Self::MOST).ok_or_else(bad)
        };
        let mut cpus = BTreeSet::new();
        for part in text.split(',').map(str::trim) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = number(first)?..=number(last)?;
            if range.is_empty() {
                return Err(bad());
            }
            cpus.extend(range);
        }
        Ok(Self(cpus))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for cpu in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == cpu => *last = cpu,
                _ => ranges.push((cpu, cpu)),
            }
        }
        let shown = ranges.iter().map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
        f.write_str(&shown.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_written() {
        for (text, shown) in [("0", "0"), ("0-3", "0-3"), ("3,0,1", "0-1,3"), (" 2 , 4-5,4", "2,4-5")] {
            assert_eq!(text.parse::<Cpus>().unwrap().to_string(), shown);
        }
        for text in ["", "-1", "1-", "3-1", "a", "0,,1", "1024", "+1", "0-1-2"] {
            assert!(text.parse::<Cpus>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_processors_that_are_there_are_on_this_host() {
        assert!(Cpus::on_this_host("0").is_ok());
        let fault = Cpus::on_this_host("1023").unwrap_err().to_string();
        assert!(fault.contains("no processor 1023"), "{fault}");
    }
}
