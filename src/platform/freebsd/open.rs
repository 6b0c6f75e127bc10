//! The platform that a configuration asks for.

use std::sync::Arc;

use super::furnish::Furnished;
use super::network::{self, Mode};
use super::sandbox::{self, JailSandbox, Uncounted};
use super::sysctl;
use super::zfs::Nmount;
use crate::config::{Config, NetworkMode, StorageKind};
use crate::fault::{Context, Fault, Kind, Result};
use crate::image::Target;
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
    let mode = match config.network.mode {
        NetworkMode::Alias => Mode::Alias,
        NetworkMode::Vnet => Mode::Vnet,
        NetworkMode::Bridge => return unsupported("network mode bridge is Linux's; on FreeBSD it is alias or vnet"),
    };
    let storage = open_zfs(config)?;
    let network = network::Settings {
        realm: config.realm.clone(),
        network: config.network.subnet,
        egress: config.network.egress.clone().filter(|_| config.network.nat),
    };
    let sandbox = sandbox::Settings {
        realm: config.realm.clone(),
        run_root: config.root.join("run"),
        uncounted: if config.limits.required { Uncounted::Refuse } else { Uncounted::Warn },
    };
    Ok(Platform {
        storage: Arc::new(Furnished(storage)),
        network: Arc::from(network::connect(mode, network)),
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
