//! `faas-jails purge`: leaves nothing of a realm in the kernel.

use crate::config::Config;
use crate::fault::Result;
use crate::files;
use crate::image::store::InUse;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Also forget functions, secrets, namespaces, logs and images
    #[arg(long)]
    pub all: bool,
}

pub fn run(config: &Config, arguments: &Arguments) -> Result<()> {
    let _lock = super::lock(config)?;
    let (platform, images) = super::open(config)?;
    images.recover()?;
    let mut names: std::collections::BTreeSet<_> = platform.sandbox.list()?.into_iter().map(|f| f.replica).collect();
    names.extend(platform.network.attached()?);
    names.extend(platform.storage.inventory()?.roots);
    names.retain(|name| *name.realm() == config.realm);
    for name in &names {
        platform.sandbox.remove(name)?;
        platform.network.detach(name)?;
        platform.storage.destroy_root(name)?;
    }
    platform.network.teardown()?;
    platform.sandbox.teardown()?;
    for dir in ["replicas", "run"] {
        files::remove_tree(&config.root.join(dir))?;
    }
    println!("removed {} replicas and the network of realm {}", names.len(), config.realm);
    if arguments.all {
        for dir in ["functions", "secrets", "namespaces", "logs"] {
            files::remove_tree(&config.root.join(dir))?;
        }
        let freed = images.prune(&InUse::default())?;
        println!("removed functions, secrets, namespaces, logs and {} layers", freed.layers.len());
    }
    Ok(())
}
