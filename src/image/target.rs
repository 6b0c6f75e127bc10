//! Which of an image's platforms to take: plain data, so that every host's choice can be tested on any other.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Result};

/// `os/architecture[/variant]`, in the words of the OCI image-spec (Go's GOOS and GOARCH).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`, `freebsd`, …; empty when an image does not say.
    pub os: String,
    /// `amd64`, `arm64`, …; empty when an image does not say.
    pub architecture: String,
    /// `v7`, …
    pub variant: Option<String>,
    /// `os.version`, where an image says it.
    pub version: Option<String>,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self> {
        let word = |w: &&str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        let parts: Vec<&str> = text.split('/').collect();
        if !(2..=3).contains(&parts.len()) || !parts.iter().all(word) {
            return Err(Fault::invalid(format!(
                "platform ({}) is invalid: os/architecture is needed, such as linux/amd64",
                text.escape_debug()
            )));
        }
        let variant = parts.get(2).map(|v| (*v).to_owned());
        Ok(Self { os: parts[0].to_owned(), architecture: parts[1].to_owned(), variant, version: None })
    }
}

/// What this host can run, best first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    wanted: Vec<Platform>,
    /// FreeBSD's `kern.osreldate`, such as 1500026: images for newer kernels are left alone.
    osreldate: Option<u32>,
}

impl Target {
    /// A Linux host; `arch` as in [`std::env::consts::ARCH`].
    pub fn linux(arch: &str) -> Self {
        Self { wanted: vec![platform("linux", arch)], osreldate: None }
    }

    /// A FreeBSD host: its own images first, then Linux's (Linuxulator).
    pub fn freebsd(arch: &str, osreldate: u32) -> Self {
        Self { wanted: vec![platform("freebsd", arch), platform("linux", arch)], osreldate: Some(osreldate) }
    }

    /// Exactly this platform, whatever the host is.
    pub fn exactly(platform: Platform) -> Self {
        Self { wanted: vec![platform], osreldate: None }
    }

    /// What it runs best.
    pub fn first(&self) -> Platform {
        self.wanted.first().cloned().unwrap_or_default()
    }

    /// Can an image for `platform` run here? One that does not say what it is for may try.
    pub fn accepts(&self, platform: &Platform) -> bool {
        self.rank(platform).is_some()
    }

    /// Of several, the place of the one to take.
    pub fn choose<'a>(&self, offered: impl IntoIterator<Item = Option<&'a Platform>>) -> Option<usize> {
        let unnamed = Platform::default();
        let ranked = offered.into_iter().enumerate().filter_map(|(at, platform)| {
            self.rank(platform.unwrap_or(&unnamed)).map(|rank| (rank, std::cmp::Reverse(at)))
        });
        ranked.max().map(|(_, at)| at.0)
    }

    /// Why none of these is for this host, and the way out.
    pub fn refusal<'a>(&self, offered: impl IntoIterator<Item = &'a Platform>) -> Fault {
        let offered: Vec<&Platform> = offered.into_iter().collect();
        let older = Self { osreldate: None, ..self.clone() };
        let newer = offered.iter().filter(|platform| older.rank(platform).is_some());
        let needed = newer.filter_map(|platform| osreldate_of(platform.version.as_deref()?)).min();
        let shown: Vec<String> = offered.iter().map(ToString::to_string).collect();
        let way_out = match needed {
            Some(needed) => format!(
                ", for kernel {needed} at least; update this host (freebsd-update upgrade), or take an older tag"
            ),
            None => String::new(),
        };
        Fault::invalid(format!("this host runs {self}, and it has only {}{way_out}", shown.join(", ")))
    }

    /// The higher, the better: place among the wanted, then variant, then version.
    fn rank(&self, offered: &Platform) -> Option<(usize, u32, u32)> {
        if offered.os.is_empty() && offered.architecture.is_empty() {
            return Some((0, 0, 0));
        }
        let place = self.wanted.iter().position(|wanted| {
            wanted.os.eq_ignore_ascii_case(&offered.os) && wanted.architecture == arch_name(&offered.architecture)
        })?;
        let variant = variant_rank(self.wanted[place].variant.as_deref(), offered)?;
        let version = match (self.osreldate, offered.os.as_str(), offered.version.as_deref()) {
            (Some(kernel), "freebsd", Some(text)) => match osreldate_of(text) {
                Some(needed) if needed > kernel => return None,
                Some(needed) => needed,
                None => 0,
            },
            _ => 0,
        };
        Some((self.wanted.len() - place, variant, version))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, platform) in self.wanted.iter().enumerate() {
            write!(f, "{}{platform}", if at == 0 { "" } else { " or " })?;
        }
        self.osreldate.map_or(Ok(()), |date| write!(f, " (kernel {date})"))
    }
}

fn platform(os: &str, arch: &str) -> Platform {
    let variant = (arch == "arm").then(|| "v7".to_owned());
    Platform { os: os.to_owned(), architecture: arch_name(arch).to_owned(), variant, version: None }
}

/// GOARCH for the names that Rust and uname(1) use.
fn arch_name(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" | "i386" => "386",
        "powerpc64" => "ppc64",
        "powerpc64le" => "ppc64le",
        other => other,
    }
}

/// Variants are levels, `v1` < `v2`: the highest that is not above the host's own; unknown ones are out.
/// arm64's one variant, v8, and amd64's lowest, v1, go without saying.
fn variant_rank(own: Option<&str>, offered: &Platform) -> Option<u32> {
    let level = |variant: &str| variant.strip_prefix('v').and_then(|n| n.parse::<u32>().ok());
    let base = match arch_name(&offered.architecture) {
        "arm64" => 8,
        "amd64" => 1,
        _ => 0,
    };
    let top = own.map_or(Some(base), level)?;
    let offered = offered.variant.as_deref().filter(|v| !v.is_empty()).map_or(Some(base), level)?;
    (offered <= top || top == 0).then_some(offered)
}

/// `14.2`, `14.2-RELEASE-p1` or `1402000` as an osreldate (sys/param.h: major * 100000 + minor * 1000).
fn osreldate_of(version: &str) -> Option<u32> {
    let release = version.split('-').next().unwrap_or(version);
    match release.split_once('.') {
        Some((major, minor)) => {
            let (major, minor): (u32, u32) = (major.parse().ok()?, minor.split('.').next()?.parse().ok()?);
            (major < 1000 && minor < 100).then(|| major * 100_000 + minor * 1000)
        }
        None => match release.parse::<u32>().ok()? {
            major @ 0..1000 => Some(major * 100_000),
            date => Some(date),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(list: &[(&str, Option<&str>)]) -> Vec<Platform> {
        let with = |(text, version): &(&str, Option<&str>)| Platform {
            version: version.map(str::to_owned),
            ..text.parse().unwrap()
        };
        list.iter().map(with).collect()
    }

    fn chosen(target: &Target, list: &[(&str, Option<&str>)]) -> Option<usize> {
        target.choose(offered(list).iter().map(Some))
    }

    #[test]
    fn an_image_for_a_newer_kernel_is_refused_with_the_way_out() {
        let target = Target::freebsd("x86_64", 1_400_097);
        let newer = Platform { version: Some("15.0".into()), ..platform("freebsd", "amd64") };
        assert_eq!(target.choose([Some(&newer)]), None);
        let fault = target.refusal([&newer]).to_string();
        assert!(fault.contains("(kernel 1400097)") && fault.contains("freebsd-update"), "{fault}");
        let other = target.refusal([&platform("windows", "amd64")]).to_string();
        assert!(!other.contains("freebsd-update"), "{other}");
    }

    #[test]
    fn a_freebsd_host_prefers_its_own_newest_that_its_kernel_can_run() {
        let host = Target::freebsd("x86_64", 1_402_000);
        let list = [
            ("linux/amd64", None),
            ("freebsd/amd64", Some("13.4")),
            ("freebsd/amd64", Some("14.2-RELEASE-p1")),
            ("freebsd/amd64", Some("15.0")),
            ("freebsd/arm64", Some("14.2")),
        ];
        assert_eq!(chosen(&host, &list), Some(2));
        assert_eq!(chosen(&host, &list[..1]), Some(0));
        assert_eq!(chosen(&host, &list[3..]), None);
    }

    #[test]
    fn a_linux_host_takes_its_own_architecture_only() {
        let list =
            [("freebsd/amd64", None), ("linux/arm64/v8", None), ("linux/amd64", None), ("unknown/unknown", None)];
        assert_eq!(chosen(&Target::linux("x86_64"), &list), Some(2));
        assert_eq!(chosen(&Target::linux("aarch64"), &list), Some(1));
        assert_eq!(chosen(&Target::linux("riscv64"), &list), None);
    }

    #[test]
    fn variants_are_levels() {
        let arm = [("linux/arm/v6", None), ("linux/arm/v7", None), ("linux/arm/v8", None)];
        assert_eq!(chosen(&Target::linux("arm"), &arm), Some(1));
        let amd = [("linux/amd64/v3", None), ("linux/amd64", None)];
        assert_eq!(chosen(&Target::linux("x86_64"), &amd), Some(1));
        assert_eq!(chosen(&Target::exactly("linux/amd64/v3".parse().unwrap()), &amd), Some(0));
    }

    #[test]
    fn an_image_that_says_nothing_comes_last() {
        let host = Target::linux("x86_64");
        let linux: Platform = "linux/amd64".parse().unwrap();
        assert_eq!(host.choose([None, Some(&linux)]), Some(1));
        assert_eq!(host.choose([None, None]), Some(0));
    }
}
