//! Annotations with a meaning here, beside OpenFaaS's own.

use std::collections::BTreeMap;

use crate::fault::{Context, Result};
use crate::function::Quantity;
use crate::image::Platform;
use crate::network::{Mode, Port};

/// Most bytes a replica may write to its root, as a quantity (`1Gi`). Storage that cannot limit it ignores it.
const DISK: &str = "com.faas-jails.disk";

/// Which platform of a multi-platform image to take, such as `linux/amd64`.
const PLATFORM: &str = "com.faas-jails.platform";

/// How replicas are connected, one of [`Mode`].
pub const NETWORK: &str = "com.faas-jails.network";

/// Ports of the host that lead to the function, as `8443:8080/tcp,5353:53/udp`.
pub const PUBLISH: &str = "com.faas-jails.publish";

/// What a function's annotations say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Annotations {
    /// Most bytes on disk.
    pub disk: Option<u64>,
    /// The platform to take.
    pub platform: Option<Platform>,
    /// How replicas are connected.
    pub network: Option<Mode>,
    /// Published ports.
    pub publish: Vec<Port>,
}

impl Annotations {
    /// Reads those that have a meaning; a value that makes no sense is an error that names its annotation.
    pub fn read(all: &BTreeMap<String, String>) -> Result<Self> {
        let context = |name: &'static str| move || format!("annotation {name}");
        let disk = all.get(DISK).map(|text| text.parse::<Quantity>()).transpose().context(context(DISK))?;
        let platform = all.get(PLATFORM).map(|text| text.parse()).transpose().context(context(PLATFORM))?;
        let network: Option<Mode> = all.get(NETWORK).map(|text| text.parse()).transpose().context(context(NETWORK))?;
        let publish = all.get(PUBLISH).map(|text| Port::list(text)).transpose().context(context(PUBLISH))?;
        Ok(Self { disk: disk.map(Quantity::units), platform, network, publish: publish.unwrap_or_default() })
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
        let network = read(&[(NETWORK, "none"), (PUBLISH, "80:8080")]).unwrap();
        assert_eq!((network.network, network.publish.len()), (Some(Mode::None), 1));
    }

    #[test]
    fn nonsense_is_an_error_that_names_the_annotation() {
        for (name, value) in [
            (DISK, "much"),
            (DISK, ""),
            (PLATFORM, "linux"),
            (PLATFORM, "linux/amd 64"),
            (NETWORK, "None"),
            (PUBLISH, "80"),
        ] {
            let fault = read(&[(name, value)]).unwrap_err().to_string();
            assert!(fault.contains(name), "{fault}");
        }
    }
}
