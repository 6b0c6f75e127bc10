//! Getting images from registries.

use std::io::Read;

use crate::fault::{Context, Fault, Kind, Result};
use crate::image::config::{CONFIG_MAX, ImageConfig};
use crate::image::install::LayerSource;
use crate::image::manifest::{Blob, Document, Manifest};
use crate::image::registry::{Credentials, Session, ask_hosts, configured_credentials};
use crate::image::{Digest, Image, Origin, Progress, PullPolicy, Reference, Target};

use super::{Incoming, Store};

/// Deepest nesting of indexes.
const NESTING_MAX: usize = 4;

struct FromRegistry<'a> {
    session: &'a Session,
    layers: &'a [Blob],
}

impl LayerSource for FromRegistry<'_> {
    fn open(&self, at: usize) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(self.session.blob(&self.layers[at])))
    }
}

impl Store {
    /// The image that a function is to run: from here or from its registry, as `policy` says. An image that
    /// was loaded by hand is used as it is. If the registry can't be reached, an image that is here will do,
    /// with a warning.
    pub fn ensure(
        &self,
        reference: &Reference,
        policy: PullPolicy,
        credentials: &Credentials,
        progress: &dyn Progress,
    ) -> Result<Image> {
        // One that is here for another platform does not count; one that does not say for which does.
        let suits = |image: &Image| image.platform.parse().map_or(true, |p| self.settings.target.accepts(&p));
        let local = self.get(reference)?.filter(suits);
        let Some(image) = local else { return self.pull(reference, credentials, progress) };
        let settled = image.origin == Origin::Loaded || reference.digest().is_some();
        if settled || policy == PullPolicy::IfNotPresent {
            return Ok(image);
        }
        match self.refresh(&image, reference, credentials, progress) {
            Err(fault) if fault.kind() == Kind::System => {
                progress.warn(&format!(
                    "image {reference} of {} is used, because its registry can't be asked for a newer one: {fault}",
                    image.loaded
                ));
                Ok(image)
            }
            other => other,
        }
    }

    /// Asks the registry what the tag means now; fetches what differs.
    fn refresh(
        &self,
        image: &Image,
        reference: &Reference,
        credentials: &Credentials,
        progress: &dyn Progress,
    ) -> Result<Image> {
        let registries = &self.settings.registries;
        let configured = configured_credentials(registries)?;
        let now = ask_hosts(registries, reference, &[credentials, &configured], progress, |session| {
            match session.resolve(reference.wanted()) {
                Err(fault) if fault.kind() == Kind::System => Err(fault),
                // The registry won't say without a whole request.
                answer => Ok(answer.ok().flatten()),
            }
        })?;
        if now.as_ref() == Some(&image.resolved) {
            return Ok(image.clone());
        }
        self.pull(reference, credentials, progress)
    }

    /// Fetches an image from its registry or a mirror, whatever is here. Layers that are here are not fetched.
    pub fn pull(&self, reference: &Reference, credentials: &Credentials, progress: &dyn Progress) -> Result<Image> {
        let _lock = self.files.lock_shared()?;
        let registries = &self.settings.registries;
        let configured = configured_credentials(registries)?;
        let all: Credentials = [configured.clone(), credentials.clone()].into_iter().collect();
        if all.needs_helper(reference) {
            progress.warn(&format!(
                "the Docker config names a credential helper for {}; helpers are not run, so put a login under auths",
                reference.registry()
            ));
        }
        ask_hosts(registries, reference, &[credentials, &configured], progress, |session| {
            self.pull_from(&session, reference, progress)
        })
        .context(|| format!("cannot pull {reference}"))
    }

    fn pull_from(&self, session: &Session, reference: &Reference, progress: &dyn Progress) -> Result<Image> {
        let (resolved, bytes) = session.manifest(reference.wanted())?;
        let (digest, manifest) = settle(&self.settings.target, session, resolved.clone(), &bytes)?;
        let config = session.small_blob(&manifest.config, CONFIG_MAX, "the image's config")?;
        let config = ImageConfig::parse(&config)?;
        let blobs = manifest.layers.iter().map(|blob| (Some(blob.digest.clone()), Some(blob.size))).collect();
        let incoming = Incoming {
            reference: reference.clone(),
            origin: Origin::Pulled,
            manifest: digest,
            resolved,
            config: &config,
            blobs,
        };
        self.install(incoming, &FromRegistry { session, layers: &manifest.layers }, progress)
    }
}

/// Goes from an index to the manifest for `target`.
pub fn settle(target: &Target, session: &Session, digest: Digest, bytes: &[u8]) -> Result<(Digest, Manifest)> {
    let (mut digest, mut document) = (digest, Document::parse(bytes)?);
    for _ in 0..=NESTING_MAX {
        let listed = match document {
            Document::Manifest(manifest) => return Ok((digest, *manifest)),
            Document::Index(listed) => listed,
        };
        let at = target
            .choose(listed.iter().map(|entry| entry.platform.as_ref()))
            .ok_or_else(|| target.refusal(listed.iter().filter_map(|entry| entry.platform.as_ref())))?;
        let (found, bytes) = session.manifest(listed[at].blob.digest.as_str())?;
        (digest, document) = (found, Document::parse(&bytes)?);
    }
    Err(Fault::invalid("its indexes are nested too deeply"))
}
