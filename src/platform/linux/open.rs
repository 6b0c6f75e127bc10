//! The platform that a configuration asks for.

use std::sync::Arc;

use super::network::BridgeNetwork;
use super::overlay::OverlayStorage;
use super::sandbox::NamespaceSandbox;
use crate::config::{Config, StorageKind};
use crate::fault::{Context, Fault, Kind, Result};
use crate::image::Target;
use crate::network::Mode;
use crate::platform::Platform;
use crate::platform::zfs::{Choice, Mounting, Parent, Settings, ZfsStorage};
use crate::storage::Storage;

/// How replicas can be connected here.
const MODES: [Mode; 3] = [Mode::None, Mode::Bridge, Mode::Inherit];

/// Opens what the configuration names, or says what is missing.
pub fn open(config: &Config) -> Result<Platform> {
    std::fs::create_dir_all(&config.root).context(|| format!("cannot make {}", config.root.display()))?;
    super::check(&config.root)?;
    let network = &config.network;
    if let Some(mode) = [network.mode].iter().chain(&network.modes).find(|mode| !MODES.contains(mode)) {
        let message = format!("network mode {mode} is FreeBSD's; on Linux it is bridge, none or inherit");
        return Err(Fault::new(Kind::Unsupported, message));
    }
    let bridge = format!("{}br0", config.realm);
    Ok(Platform {
        storage: storage(config)?,
        network: Arc::new(BridgeNetwork::new(config.realm.clone(), &bridge, network.nat)?),
        sandbox: Arc::new(NamespaceSandbox::new(config.realm.clone())?),
    })
}

fn storage(config: &Config) -> Result<Arc<dyn Storage>> {
    Ok(match config.storage {
        StorageKind::Overlay => Arc::new(OverlayStorage::new(config.root.clone(), config.realm.clone())?),
        StorageKind::Zfs => Arc::new(open_zfs(config)?),
    })
}

/// The ZFS storage that the configuration names.
pub fn open_zfs(config: &Config) -> Result<ZfsStorage> {
    ZfsStorage::open(Settings {
        parent: config.zfs.dataset.parse::<Parent>()?,
        realm: config.realm.clone(),
        mounting: Mounting::Path(config.root.join("zfs")),
        engine: Choice::Best,
    })
}

/// What images this host runs.
pub fn image_target() -> Target {
    Target::linux(std::env::consts::ARCH)
}
