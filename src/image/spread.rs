//! An image's whole tree in one plain directory, past storage: layer upon layer, straight from its registry.

use std::io;
use std::path::Path;

use crate::fault::{Context, Fault, Result};
use crate::storage::{Staging, Whiteouts};

use super::config::{CONFIG_MAX, ImageConfig};
use super::registry::{Session, ask_hosts, configured_credentials};
use super::store::settle;
use super::unpack::{Expected, UnpackLimits, unpack};
use super::{Digest, Progress, Reference, Settings};

/// Unpacks `reference` from its registry, or a mirror, into the empty directory `dir`, each layer within `limits`. On
/// failure `dir` holds half an image.
pub fn spread(
    settings: &Settings,
    reference: &Reference,
    dir: &Path,
    limits: &UnpackLimits,
    progress: &dyn Progress,
) -> Result<()> {
    let credentials = configured_credentials(&settings.registries)?;
    let (session, digest, bytes) = ask_hosts(&settings.registries, reference, &[&credentials], progress, |session| {
        let (digest, bytes) = session.manifest(reference.wanted())?;
        Ok((session, digest, bytes))
    })?;
    layers(settings, &session, (digest, &bytes), dir, limits, progress)
}

fn layers(
    settings: &Settings,
    session: &Session,
    (digest, bytes): (Digest, &[u8]),
    dir: &Path,
    limits: &UnpackLimits,
    progress: &dyn Progress,
) -> Result<()> {
    let (_, manifest) = settle(&settings.target, session, digest, bytes)?;
    let config = ImageConfig::parse(&session.small_blob(&manifest.config, CONFIG_MAX, "the image's config")?)?;
    if !settings.target.accepts(&config.platform) {
        return Err(settings.target.refusal([&config.platform]));
    }
    let layers = config.layers();
    if layers.len() != manifest.layers.len() {
        let (listed, blobs) = (layers.len(), manifest.layers.len());
        return Err(Fault::invalid(format!("its config lists {listed} layers, its manifest {blobs}")));
    }
    for (layer, blob) in layers.into_iter().zip(&manifest.layers) {
        let diff_id = layer.diff_id.clone();
        progress.layer_started(&diff_id, Some(blob.size));
        let on_bytes = Box::new(|count| -> io::Result<()> {
            progress.bytes(&diff_id, count);
            Ok(())
        });
        let staging = Staging { layer, dir: dir.to_owned(), whiteouts: Whiteouts::Apply };
        let expected = Expected { blob: Some(&blob.digest), diff_id: Some(&diff_id) };
        unpack(session.blob(blob), &expected, Some(&staging), limits, on_bytes)
            .context(|| format!("layer {diff_id}"))?;
        progress.layer_done(&diff_id);
    }
    Ok(())
}
