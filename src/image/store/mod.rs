//! Which images are here, and how they come and go.
//!
//! ```text
//!  load(archive) ─┐                                   ┌─> get, list
//!                 ├─> layers into storage ─> record ──┤
//!  ensure, pull ──┤      (install)         (rename)   └─> remove ─> prune frees layers nobody uses
//!  adopt ─────────┘  layers that storage received by itself
//! ```
//!
//! Several processes may use one store: records are replaced by rename(2), layers are made under a lock each,
//! and removed under a lock that excludes additions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fault::{Context, Fault, Kind, Result};
use crate::storage::Storage;

use super::archive::{self, Archived};
use super::config::{ImageConfig, signal_number};
use super::install::{Installer, LayerSource, Wanted};
use super::unpack::{Facts, Seen};
use super::{Digest, Image, Origin, Platform, Progress, Reference, RunConfig, Settings, Source, Target};

mod ensure;
mod files;
mod prune;

pub(super) use ensure::settle;
pub use files::Files;
pub use prune::{Freed, InUse};

/// The images of this host.
pub struct Store {
    files: Files,
    storage: Arc<dyn Storage>,
    settings: Settings,
}

/// An image that is about to be installed.
struct Incoming<'a> {
    reference: Reference,
    origin: Origin,
    manifest: Digest,
    resolved: Digest,
    config: &'a ImageConfig,
    /// Digest and size of each layer as shipped, where known.
    blobs: Vec<(Option<Digest>, Option<u64>)>,
}

impl Store {
    /// Opens the store under `root`, in its directory `images`. Layers live in `storage`.
    pub fn open(root: &Path, storage: Arc<dyn Storage>, settings: Settings) -> Result<Self> {
        Ok(Self { files: Files::open(root.join("images"))?, storage, settings })
    }

    /// The same store for other platforms than this host's usual ones.
    pub fn aiming_at(&self, target: Target) -> Self {
        let settings = Settings { target, ..self.settings.clone() };
        Self { files: self.files.clone(), storage: Arc::clone(&self.storage), settings }
    }

    /// Clears away what an interrupted run left: half-written records, half-unpacked layers. For the daemon's
    /// start, before it makes anything. While another process loads an image, nothing is cleared.
    pub fn recover(&self) -> Result<()> {
        match self.files.lock_exclusive() {
            Ok(_lock) => {
                self.files.clean()?;
                self.storage.recover()
            }
            Err(fault) if fault.kind() == Kind::Busy => {
                tracing::warn!("what an interrupted run may have left is cleared at the next start: {fault}");
                Ok(())
            }
            Err(fault) => Err(fault),
        }
    }

    /// The image under this name, if it is here and whole. A digest also finds an image that is kept by tag.
    pub fn get(&self, reference: &Reference) -> Result<Option<Image>> {
        let mut found = self.files.image(reference)?;
        if let (None, Some(digest)) = (&found, reference.digest()) {
            let same = |image: &Image| {
                let place = |r: &Reference| (r.registry().to_owned(), r.repository().to_owned());
                place(&image.reference) == place(reference) && (image.manifest == *digest || image.resolved == *digest)
            };
            found = self.files.images()?.into_iter().find(same);
        }
        let Some(image) = found else { return Ok(None) };
        for layer in &image.layers {
            if !self.storage.has(layer)? {
                return Ok(None);
            }
        }
        Ok(Some(image))
    }

    /// The image with this manifest under `name`, given that name if it has another; `None` when it is not here, or not
    /// whole.
    pub fn named(&self, manifest: &Digest, name: &Reference) -> Result<Option<Image>> {
        let _lock = self.files.lock_shared()?;
        let Some(mut image) = self.files.images()?.into_iter().find(|image| image.manifest == *manifest) else {
            return Ok(None);
        };
        for layer in &image.layers {
            if !self.storage.has(layer)? {
                return Ok(None);
            }
        }
        if self.files.image(name)?.is_none_or(|known| known.manifest != *manifest) {
            image.reference = name.clone();
            image.origin = Origin::Loaded;
            image.loaded = jiff::Timestamp::now();
            self.files.keep_image(&image).context(|| "cannot record the image")?;
        }
        Ok(Some(Image { reference: name.clone(), ..image }))
    }

    /// Every image, by name. An image whose layers were lost is listed, too.
    pub fn list(&self) -> Result<Vec<Image>> {
        let mut images = self.files.images()?;
        images.sort_by_cached_key(|image| image.reference.canonical());
        Ok(images)
    }

    /// Forgets an image; [`Store::prune`] frees its layers. `NotFound` when it is not here.
    pub fn remove(&self, reference: &Reference) -> Result<()> {
        if self.files.forget_image(reference)? {
            return Ok(());
        }
        Err(Fault::not_found(format!("image {reference} is not here")))
    }

    /// Loads every image of an archive, replacing those that have the same name. `name` is for an archive with
    /// one image and no name, and wins over a name inside.
    pub fn load(&self, source: Source, name: Option<&Reference>, progress: &dyn Progress) -> Result<Vec<Image>> {
        let what = source.to_string();
        let images = self.load_inner(source, name, progress);
        images.map_err(|fault| fault.within(format!("cannot load {what}")))
    }

    fn load_inner(&self, source: Source, name: Option<&Reference>, progress: &dyn Progress) -> Result<Vec<Image>> {
        let _lock = self.files.lock_shared()?;
        let archive = archive::open(source, &self.files, &self.settings)?;
        let found = archive.images(&self.settings.target)?;
        if let (Some(name), 2..) = (name, found.len()) {
            return Err(Fault::invalid(format!("it has {} images, which cannot all be named {name}", found.len())));
        }
        let mut loaded = Vec::new();
        for archived in found {
            let Archived { names, config, manifest, resolved, layers } = archived;
            let names = match name {
                Some(name) => vec![name.clone()],
                None if names.is_empty() => {
                    return Err(Fault::invalid("an image in it has no name; say which name it should have"));
                }
                None => names,
            };
            let blobs: Vec<_> = layers.iter().map(|layer| (layer.digest.clone(), Some(layer.size))).collect();
            for reference in names {
                let origin = Origin::Loaded;
                let (manifest, resolved, blobs) = (manifest.clone(), resolved.clone(), blobs.clone());
                let incoming = Incoming { reference, origin, manifest, resolved, config: &config, blobs };
                loaded.push(self.install(incoming, &archive.layer_source(&layers), progress)?);
            }
        }
        Ok(loaded)
    }

    /// Takes over an image that came with layers which storage has understood by itself: `bring` brings them there.
    /// It replaces what has its name.
    pub fn adopt(&self, image: &Image, bring: impl FnOnce() -> Result<()>) -> Result<Image> {
        let adopt = || {
            let _lock = self.files.lock_shared()?;
            self.check_platform(&image.platform.parse().unwrap_or_default())?;
            check_command(&image.reference, &image.run.argv)?;
            self.files.note_layers(&image.layers)?;
            bring()?;
            let image = Image { origin: Origin::Loaded, loaded: jiff::Timestamp::now(), ..image.clone() };
            self.files.keep_image(&image).context(|| "cannot record the image")?;
            Ok(image)
        };
        adopt().map_err(|fault| about(&image.reference, fault))
    }

    /// A directory for temporary files, on the store's file system. What is left there goes at the next start.
    pub fn scratch(&self) -> PathBuf {
        self.files.scratch_dir()
    }

    fn check_platform(&self, platform: &Platform) -> Result<()> {
        match self.settings.target.accepts(platform) {
            true => Ok(()),
            false => Err(Fault::invalid(format!("it is for {platform}; this host runs {}", self.settings.target))),
        }
    }

    /// Installs the layers, then records the image.
    fn install(&self, incoming: Incoming<'_>, source: &dyn LayerSource, progress: &dyn Progress) -> Result<Image> {
        let name = incoming.reference.clone();
        self.install_inner(incoming, source, progress).map_err(|fault| about(&name, fault))
    }

    fn install_inner(
        &self,
        incoming: Incoming<'_>,
        source: &dyn LayerSource,
        progress: &dyn Progress,
    ) -> Result<Image> {
        let Incoming { reference, origin, manifest, resolved, config, blobs } = incoming;
        let layers = config.layers();
        if layers.len() != blobs.len() {
            return Err(Fault::invalid(format!(
                "its config lists {} layers, its manifest {}",
                layers.len(),
                blobs.len()
            )));
        }
        // Before anything is fetched: an image that cannot run needs no layers.
        self.check_platform(&config.platform)?;
        check_command(&reference, &config.argv)?;
        progress.layers(layers.len());
        let size = blobs.iter().filter_map(|(_, size)| *size).sum();
        let wanted: Vec<Wanted> =
            layers.iter().zip(blobs).map(|(layer, (blob, size))| Wanted { layer: layer.clone(), blob, size }).collect();
        self.files.note_layers(&layers)?;
        let installer = Installer {
            storage: &*self.storage,
            files: &self.files,
            limits: &self.settings.limits,
            parallel: self.settings.parallel,
            progress,
        };
        let facts = installer.run(&wanted, source)?;
        let image = Image {
            reference,
            origin,
            manifest,
            resolved,
            layers,
            run: run_config(config, &facts, progress)?,
            platform: config.platform.to_string(),
            size,
            loaded: jiff::Timestamp::now(),
        };
        self.files.keep_image(&image).context(|| "cannot record the image")?;
        Ok(image)
    }
}

/// What went wrong with an image.
fn about(name: &Reference, fault: Fault) -> Fault {
    match fault.kind() {
        Kind::Exhausted => fault
            .within(format!("image {name} does not fit; faas-jails image prune removes images that no function uses")),
        _ => fault.within(format!("image {name}")),
    }
}

fn check_command(reference: &Reference, argv: &[String]) -> Result<()> {
    match argv.is_empty() {
        true => {
            Err(Fault::invalid(format!("image {reference} has no command: its config has neither Entrypoint nor Cmd")))
        }
        false => Ok(()),
    }
}

/// The topmost layer that has a say about a file wins.
fn topmost<'f>(facts: &'f [Facts], pick: impl Fn(&'f Facts) -> &'f Seen) -> &'f Seen {
    facts.iter().rev().map(pick).find(|seen| **seen != Seen::Untouched).unwrap_or(&Seen::Untouched)
}

fn run_config(config: &ImageConfig, facts: &[Facts], progress: &dyn Progress) -> Result<RunConfig> {
    let user = super::user::resolve(&config.user, topmost(facts, |f| &f.passwd), topmost(facts, |f| &f.group))?;
    let stop_signal = config.stop_signal.as_deref().and_then(|name| {
        let number = signal_number(name);
        if number.is_none() {
            progress.warn(&format!("stop signal {} is unknown here; SIGTERM is sent instead", name.escape_debug()));
        }
        number.filter(|number| *number != libc::SIGTERM)
    });
    Ok(RunConfig {
        argv: config.argv.clone(),
        env: config.env.clone(),
        workdir: config.workdir.clone(),
        user,
        stop_signal,
    })
}
