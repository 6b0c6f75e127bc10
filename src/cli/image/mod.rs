//! `faas-jails image …`: the local store of images, by hand.

use std::path::PathBuf;
use std::sync::Arc;

use indicatif::HumanBytes;

use crate::build::Builder;
use crate::config::{self, Config};
use crate::fault::{Fault, Result};
use crate::files;
use crate::image::store::InUse;
use crate::image::{Credentials, Image, Platform, PullPolicy, Reference, Silent, Source, Store, Target};
use crate::provider::{Deployed, Images};

mod bars;
mod ship;

pub use bars::progress;

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Load a docker-save tar, an OCI archive or an OCI layout; the next deploy of its tag uses it
    Load {
        /// A file, a directory, or - for standard input
        from: PathBuf,
        /// What to call the image, if the archive has only one; wins over the name inside
        #[arg(long)]
        name: Option<Reference>,
    },
    /// Fetch an image from its registry
    Pull {
        /// Such as registry.example/team/name:tag
        image: Reference,
    },
    /// List images
    Ls,
    /// Show an image's record as JSON
    Inspect {
        /// Its name
        image: Reference,
    },
    /// Forget an image; the next prune frees its layers
    Rm {
        /// Its name
        image: Reference,
    },
    /// Remove images that no function uses, and their layers
    Prune,
    /// Write an image as compressed ZFS streams, with a description that can be signed (storage = "zfs")
    Export(Box<ship::Export>),
    /// Take over an image that another host has exported (storage = "zfs")
    Import(ship::Import),
}

pub fn run(config: &Config, verb: Verb) -> Result<()> {
    match verb {
        Verb::Export(arguments) => ship::export(config, &arguments),
        Verb::Import(arguments) => ship::import(config, &arguments),
        verb => in_store(&super::open(config)?.1, config, verb),
    }
}

fn in_store(store: &Store, config: &Config, verb: Verb) -> Result<()> {
    match verb {
        Verb::Export(_) | Verb::Import(_) => unreachable!("they open the storage themselves"),
        Verb::Load { from, name } => {
            let source = match from.as_os_str() == "-" {
                true => Source::Stream { name: "standard input".into(), reader: Box::new(std::io::stdin()) },
                false => Source::path(&from),
            };
            for image in store.load(source, name.as_ref(), &*progress())? {
                println!("loaded {} {}", image.reference, image.manifest);
            }
        }
        Verb::Pull { image } => {
            let pulled = store.pull(&image, &Credentials::default(), &*progress())?;
            println!("pulled {image} {}", pulled.manifest);
        }
        Verb::Ls => list(store)?,
        Verb::Inspect { image } => {
            let found = store.get(&image)?.ok_or_else(|| unknown(&image))?;
            println!("{}", serde_json::to_string_pretty(&found).map_err(|e| Fault::invalid(e.to_string()))?);
        }
        Verb::Rm { image } => {
            store.remove(&image)?;
            println!("removed {image}");
        }
        Verb::Prune => {
            let freed = store.prune(&used_by_functions(config)?)?;
            for image in &freed.images {
                println!("removed {image}");
            }
            println!(
                "{} images and {} layers removed, {} freed",
                freed.images.len(),
                freed.layers.len(),
                HumanBytes(freed.bytes)
            );
        }
    }
    Ok(())
}

fn unknown(image: &Reference) -> Fault {
    Fault::not_found(format!("no image {image} here; faas-jails image ls shows those that are"))
}

fn list(store: &Store) -> Result<()> {
    println!("{:48}  {:12}  {:16}  {:>10}  LOADED", "IMAGE", "MANIFEST", "PLATFORM", "SIZE");
    for image in store.list()? {
        println!(
            "{:48}  {:12}  {:16}  {:>10}  {}",
            image.reference.canonical(),
            &image.manifest.hex()[..12],
            image.platform,
            HumanBytes(image.size).to_string(),
            image.loaded.strftime("%Y-%m-%d %H:%M"),
        );
    }
    Ok(())
}

/// What deployed functions were made from.
pub fn used_by_functions(config: &Config) -> Result<InUse> {
    let root = config.root.join("functions");
    let mut used = InUse::default();
    for namespace in files::names(&root)? {
        for file in files::names(&root.join(&namespace))? {
            if let Some(deployed) = files::read_json::<Deployed>(&root.join(&namespace).join(file))? {
                used.references.push(deployed.spec.image);
                used.layers.extend(deployed.image.layers);
            }
        }
    }
    Ok(used)
}

/// The store as deploys use it: asks the registry as the configuration says.
pub struct DeploySource {
    store: Arc<Store>,
    policy: PullPolicy,
    builder: Arc<Builder>,
}

impl DeploySource {
    pub fn new(store: Arc<Store>, builder: Arc<Builder>, config: &Config) -> Self {
        let policy = match config.images.pull {
            config::Pull::Always => PullPolicy::Always,
            config::Pull::IfNotPresent => PullPolicy::IfNotPresent,
        };
        Self { store, policy, builder }
    }
}

impl Images for DeploySource {
    fn ensure(&self, reference: &Reference, platform: Option<&Platform>, secrets: &[Vec<u8>]) -> Result<Image> {
        if let Some(source) = reference.source() {
            return self.builder.build_repository(reference, &source, platform, &Silent);
        }
        // A secret of the function that is a docker config.json has credentials for its registry.
        let credentials: Credentials =
            secrets.iter().filter_map(|secret| Credentials::from_docker_config(secret).ok()).collect();
        match platform {
            None => self.store.ensure(reference, self.policy, &credentials, &Silent),
            Some(platform) => {
                let store = self.store.aiming_at(Target::exactly(platform.clone()));
                store.ensure(reference, self.policy, &credentials, &Silent)
            }
        }
    }
}
