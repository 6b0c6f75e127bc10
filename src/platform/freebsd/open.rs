//! The platform that a configuration asks for.

use std::sync::Arc;

use super::furnish::Furnished;
use super::network;
use super::sandbox::{self, JailSandbox, Uncounted};
use super::sysctl;
use super::zfs::Nmount;
use crate::config::{Config, StorageKind};
use crate::fault::{Context, Fault, Kind, Result};
use crate::image::Target;
use crate::network::Mode;
use crate::platform::Platform;
use crate::platform::zfs::{Choice, Mounting, Parent, Settings, ZfsStorage};

/// Opens what the configuration names, or says what is missing.
pub fn open(config: &Config) -> Result<Platform> {
    std::fs::create_dir_all(&config.root).context(|| format!("cannot make {}", config.root.display()))?;
    super::check(&config.root)?;
    let unsupported = |sentence: &str| Err(Fault::new(Kind::Unsupported, sentence));
    if config.storage != StorageKind::Zfs {
        return unsupported("overlay storage is Linux's; on FreeBSD it is zfs");
    }
    let all = [config.network.mode];
    if all.iter().chain(&config.network.modes).any(|mode| *mode == Mode::Bridge) {
        return unsupported("network mode bridge is Linux's; on FreeBSD it is alias, vnet, none or inherit");
    }
    let storage = open_zfs(config)?;
    let network = network::Settings {
        realm: config.realm.clone(),
        egress: config.network.egress.clone(),
        nat: config.network.nat,
    };
    let sandbox = sandbox::Settings {
        realm: config.realm.clone(),
        run_root: config.root.join("run"),
        uncounted: if config.limits.required { Uncounted::Refuse } else { Uncounted::Warn },
    };
    Ok(Platform {
        storage: Arc::new(Furnished(storage)),
        network: Arc::from(network::connect(config.network.mode, network)),
        sandbox: Arc::new(JailSandbox::open(sandbox)?),
    })
}

/// The ZFS storage that the configuration names.
pub fn open_zfs(config: &Config) -> Result<ZfsStorage> {
    ZfsStorage::open(Settings {
        parent: config.zfs.dataset.parse::<Parent>()?,
        realm: config.realm.clone(),
        mounting: Mounting::Legacy { staging: config.root.join("zfs"), mounter: Box::new(Nmount) },
        engine: Choice::Best,
    })
}

/// What images this host runs.
pub fn image_target() -> Target {
    let release = sysctl::integer("kern.osreldate").and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    Target::freebsd(std::env::consts::ARCH, release)
}
