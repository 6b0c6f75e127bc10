//! `image export` and `image import`: images as ZFS streams, from host to host.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::HumanBytes;

use super::bars::{bar, progress};
use crate::config::{Config, StorageKind};
use crate::fault::{Context, Fault, Kind, Result};
use crate::image::{Image, Layer, Reference, Store};
use crate::platform;
use crate::platform::zfs::ZfsStorage;
use crate::platform::zfs::stream::{self, Archive, PublicKey, SigningKey, Trust};
use crate::storage::Storage;

#[derive(Debug, clap::Args)]
pub struct Export {
    /// Its name
    image: Reference,
    /// A file, or - for standard output
    to: PathBuf,
    /// Sign with this private key: openssl genpkey -algorithm ed25519 -out FILE
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Only the layers that this image has not: the other side imported it from this host
    #[arg(long, value_name = "IMAGE")]
    above: Option<Reference>,
}

#[derive(Debug, clap::Args)]
pub struct Import {
    /// A file, a URL (http://...), or - for standard input
    from: String,
    /// Take it though none of the trusted keys has signed it; ZFS parses what is in it in the kernel
    #[arg(long)]
    unsigned: bool,
}

pub fn export(config: &Config, arguments: &Export) -> Result<()> {
    let (zfs, store) = open(config)?;
    let Export { image, to, key, above } = arguments;
    let image = present(&store, image)?;
    let key = key.as_deref().map(SigningKey::read).transpose()?;
    let above = above.as_ref().map(|above| common(&image, &present(&store, above)?)).transpose()?;
    let progress = progress();
    let how = stream::Export { above: above.as_ref(), key: key.as_ref(), progress: &*progress };
    if key.is_none() {
        progress.warn("the archive is not signed, and imported only with --unsigned; --key FILE signs it");
    }
    if to.as_os_str() == "-" {
        let out = BufWriter::new(std::io::stdout().lock());
        return zfs
            .export_to(&image, out, &store.scratch(), &how)
            .context(|| format!("cannot export {}", image.reference));
    }
    zfs.export(&image, to, &how)?;
    let size = std::fs::metadata(to).map_or(0, |file| file.len());
    let told = format!("exported {} to {}, {}", image.reference, to.display(), HumanBytes(size));
    writeln!(std::io::stdout(), "{told}").context(|| "cannot write to standard output")
}

pub fn import(config: &Config, arguments: &Import) -> Result<()> {
    let (zfs, store) = open(config)?;
    let trust = match arguments.unsigned {
        true => Trust::Anyone,
        false => Trust::Keys(config.images.trusted_keys.iter().map(|key| PublicKey::read(key)).collect::<Result<_>>()?),
    };
    let take = || {
        let archive = Archive::open(bytes(&arguments.from, &store.scratch())?, &trust)?;
        let progress = progress();
        store.adopt(archive.image(), || zfs.import(&archive, &*progress))
    };
    let image = take().context(|| format!("cannot import {}", arguments.from))?;
    println!("imported {} {}", image.reference, image.manifest);
    Ok(())
}

/// The archive as a file that can be read at any place.
fn bytes(from: &str, scratch: &Path) -> Result<File> {
    if from == "-" {
        return stream::keep(bar("standard input", None).wrap_read(std::io::stdin().lock()), None, scratch);
    }
    if from.contains("://") {
        let remote = stream::fetch(from)?;
        return stream::keep(bar("download", remote.length).wrap_read(remote.body), remote.length, scratch);
    }
    let file = File::open(from)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => stream::keep(file, None, scratch),
    }
}

/// The storage itself, and the store above it.
fn open(config: &Config) -> Result<(Arc<ZfsStorage>, Store)> {
    if config.storage != StorageKind::Zfs {
        return Err(Fault::new(
            Kind::Unsupported,
            "images are exported and imported as ZFS streams, which needs storage = \"zfs\" in the configuration; \
             with overlay, bring an image here by faas-jails image load or pull",
        ));
    }
    let zfs = Arc::new(platform::open_zfs(config)?);
    let store = Store::open(&config.root, Arc::clone(&zfs) as Arc<dyn Storage>, config.images.settings())?;
    Ok((zfs, store))
}

fn present(store: &Store, image: &Reference) -> Result<Image> {
    store.get(image)?.ok_or_else(|| super::unknown(image))
}

/// The uppermost layer that two images have in common.
fn common(image: &Image, other: &Image) -> Result<Layer> {
    let pairs = image.layers.iter().zip(&other.layers);
    let shared = pairs.take_while(|(layer, other)| layer == other).last();
    shared.map(|(layer, _)| layer.clone()).ok_or_else(|| {
        Fault::invalid(format!("{} and {} have no layer in common: export it whole", image.reference, other.reference))
    })
}
