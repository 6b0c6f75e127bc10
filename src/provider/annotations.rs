//! Annotations with a meaning here, beside OpenFaaS's own.

use std::collections::BTreeMap;

use crate::fault::{Context, Result};
use crate::function::Quantity;
use crate::image::Platform;

/// Most bytes a replica may write to its root, as a quantity (`1Gi`). Storage that cannot limit it refuses it.
const DISK: &str = "com.faas-jails.disk";

/// Which platform of a multi-platform image to take, such as `linux/amd64`.
const PLATFORM: &str = "com.faas-jails.platform";

/// What a function's annotations say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Annotations {
    /// Most bytes on disk.
    pub disk: Option<u64>,
    /// The platform to take.
    pub platform: Option<Platform>,
}

impl Annotations {
    /// Reads those that have a meaning; a value that makes no sense is an error that names its annotation.
    pub fn read(all: &BTreeMap<String, String>) -> Result<Self> {
        let context = |name: &'static str| move || format!("annotation {name}");
        let disk = all.get(DISK).map(|text| text.parse::<Quantity>()).transpose().context(context(DISK))?;
        let platform = all.get(PLATFORM).map(|text| text.parse()).transpose().context(context(PLATFORM))?;
        Ok(Self { disk: disk.map(Quantity::units), platform })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Annotations> {
        Annotations::read(&pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    #[test]
    fn what_has_a_meaning_is_read_and_the_rest_left_alone() {
        let read_all = read(&[(DISK, "64Mi"), (PLATFORM, "linux/arm64/v8"), ("topic", "{\n}")]).unwrap();
        assert_eq!(read_all.disk, Some(64 << 20));
        assert_eq!(read_all.platform.unwrap().to_string(), "linux/arm64/v8");
        assert_eq!(read(&[]).unwrap(), Annotations::default());
    }

    #[test]
    fn nonsense_is_an_error_that_names_the_annotation() {
        for (name, value) in [(DISK, "much"), (DISK, ""), (PLATFORM, "linux"), (PLATFORM, "linux/amd 64")] {
            let fault = read(&[(name, value)]).unwrap_err().to_string();
            assert!(fault.contains(name), "{fault}");
        }
    }
}
