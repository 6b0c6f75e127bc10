//! Annotations with a meaning here, beside OpenFaaS's own.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::parse_duration;
use crate::fault::{Context, Fault, Result};
use crate::function::Quantity;
use crate::image::Platform;
use crate::network::{Mode, Port};
use crate::sandbox::{Cpus, Rates};

/// Most bytes a replica may write to its root, as a quantity (`1Gi`). Storage that cannot limit it refuses it.
const DISK: &str = "com.faas-jails.disk";

/// Which platform of a multi-platform image to take, such as `linux/amd64`.
const PLATFORM: &str = "com.faas-jails.platform";

/// How replicas are connected, one of [`Mode`].
pub const NETWORK: &str = "com.faas-jails.network";

/// Ports of the host that lead to the function, as `8443:8080/tcp,5353:53/udp`.
pub const PUBLISH: &str = "com.faas-jails.publish";
/// How its queued calls are tried again: OpenFaaS's own annotations.
const RETRY: [&str; 4] = [
    "com.openfaas.retry.attempts",
    "com.openfaas.retry.codes",
    "com.openfaas.retry.min_wait",
    "com.openfaas.retry.max_wait",
];

/// How a function's queued calls are tried again; what is absent is the queue's to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retry {
    /// How often a call is tried at most.
    pub attempts: Option<u32>,
    /// After which statuses.
    pub codes: Option<Vec<u16>>,
    /// Pause after the first attempt.
    pub min_wait: Option<Duration>,
    /// Longest pause.
    pub max_wait: Option<Duration>,
}

impl Retry {
    fn read(all: &BTreeMap<String, String>) -> Result<Self> {
        let [attempts, codes, min_wait, max_wait] = RETRY;
        let number = |text: &str| {
            text.trim().parse().map_err(|_| Fault::invalid(format!("({}) is no whole number", text.escape_debug())))
        };
        let list = |text: &String| text.split(',').map(|code| number(code).map(|n: u32| n as u16)).collect();
        let wait = |name| all.get(name).map(|text| parse_duration(text)).transpose().context(context(name));
        Ok(Self {
            attempts: all.get(attempts).map(|text| number(text)).transpose().context(context(attempts))?,
            codes: all.get(codes).map(list).transpose().context(context(codes))?,
            min_wait: wait(min_wait)?,
            max_wait: wait(max_wait)?,
        })
    }
}

fn context(name: &'static str) -> impl FnOnce() -> String {
    move || format!("annotation {name}")
}

/// What it may read and write on disks, a second: bytes, operations.
const RATES: [&str; 4] =
    ["com.faas-jails.readbps", "com.faas-jails.writebps", "com.faas-jails.readiops", "com.faas-jails.writeiops"];

/// The processors that it runs on, as `0-1,3`.
const CPUSET: &str = "com.faas-jails.cpuset";

fn rates(all: &BTreeMap<String, String>) -> Result<Rates> {
    let rate = |name: &'static str| -> Result<Option<u64>> {
        let Some(text) = all.get(name) else { return Ok(None) };
        match text.parse::<Quantity>().context(context(name))?.units() {
            0 => Err(Fault::invalid("it must be more than nothing")).context(context(name)),
            units => Ok(Some(units)),
        }
    };
    let [read_bytes, write_bytes, read_ops, write_ops] = RATES;
    Ok(Rates {
        read_bytes: rate(read_bytes)?,
        write_bytes: rate(write_bytes)?,
        read_ops: rate(read_ops)?,
        write_ops: rate(write_ops)?,
    })
}

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
    /// What it may read and write on disks.
    pub io: Rates,
    /// The processors that it runs on.
    pub cpus: Option<Cpus>,
    /// How its queued calls are tried again.
    pub retry: Retry,
}

impl Annotations {
    /// Reads those that have a meaning; a value that makes no sense is an error that names its annotation.
    pub fn read(all: &BTreeMap<String, String>) -> Result<Self> {
        let disk = all.get(DISK).map(|text| text.parse::<Quantity>()).transpose().context(context(DISK))?;
        let platform = all.get(PLATFORM).map(|text| text.parse()).transpose().context(context(PLATFORM))?;
        let network: Option<Mode> = all.get(NETWORK).map(|text| text.parse()).transpose().context(context(NETWORK))?;
        let publish = all.get(PUBLISH).map(|text| Port::list(text)).transpose().context(context(PUBLISH))?;
        Ok(Self {
            disk: disk.map(Quantity::units),
            platform,
            network,
            publish: publish.unwrap_or_default(),
            io: rates(all)?,
            cpus: all.get(CPUSET).map(|text| Cpus::on_this_host(text)).transpose().context(context(CPUSET))?,
            retry: Retry::read(all)?,
        })
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
        let limits = read(&[(RATES[0], "10Mi"), (RATES[3], "500"), (CPUSET, "0")]).unwrap();
        assert_eq!((limits.io.read_bytes, limits.io.write_ops), (Some(10 << 20), Some(500)));
        assert_eq!(limits.cpus.unwrap().to_string(), "0");
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
            (RATES[0], "fast"),
            (RATES[3], "0"),
            (CPUSET, "0-"),
            (CPUSET, "100000"),
            (RETRY[0], "many"),
            (RETRY[1], "500,x"),
            (RETRY[3], "soon"),
        ] {
            let fault = read(&[(name, value)]).unwrap_err().to_string();
            assert!(fault.contains(name), "{fault}");
        }
    }
}
