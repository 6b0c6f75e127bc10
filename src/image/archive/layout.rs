//! OCI layouts (image-spec, image-layout.md): `index.json`, and blobs by digest.

use crate::fault::{Context, Fault, Result};
use crate::image::manifest::{Blob, Document, Listed, MANIFEST_MAX, Manifest};
use crate::image::target::Target;
use crate::image::{Digest, Reference};

use super::{Archived, ArchivedLayer, Members, nothing_fits, read_config};

/// Deepest nesting of indexes.
const NESTING_MAX: usize = 4;

fn member(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The images in it that `target` can run: entries with the same name are one image for several platforms.
pub fn images(members: &Members, target: &Target) -> Result<Vec<Archived>> {
    let bytes = members.read("index.json", MANIFEST_MAX)?;
    let Document::Index(listed) = Document::parse(&bytes).context(|| "index.json")? else {
        return Err(Fault::invalid("index.json is no index"));
    };
    let mut groups: Vec<Vec<Listed>> = Vec::new();
    for entry in listed {
        match groups.iter_mut().find(|group| group[0].name == entry.name) {
            Some(group) => group.push(entry),
            None => groups.push(vec![entry]),
        }
    }
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    for group in groups {
        match choose(members, &group, target, NESTING_MAX)? {
            Some((resolved, digest, manifest)) => {
                found.push(image(members, group[0].name.as_deref(), resolved, digest, &manifest)?);
            }
            None => refused.extend(group.iter().filter_map(|entry| entry.platform.as_ref()).map(ToString::to_string)),
        }
    }
    if found.is_empty() {
        return Err(nothing_fits(target, refused.into_iter()));
    }
    Ok(found)
}

/// Of one image's entries the one to take: what its name led to, and the manifest in the end.
fn choose(
    members: &Members,
    entries: &[Listed],
    target: &Target,
    depth: usize,
) -> Result<Option<(Digest, Digest, Manifest)>> {
    let Some(at) = target.choose(entries.iter().map(|entry| entry.platform.as_ref())) else { return Ok(None) };
    let digest = &entries[at].blob.digest;
    match document(members, &entries[at].blob)? {
        Document::Manifest(manifest) => Ok(Some((digest.clone(), digest.clone(), *manifest))),
        Document::Index(_) if depth == 0 => Err(Fault::invalid("its indexes are nested too deeply")),
        Document::Index(nested) => {
            let inner = choose(members, &nested, target, depth - 1)?;
            Ok(inner.map(|(_, manifest, parsed)| (digest.clone(), manifest, parsed)))
        }
    }
}

fn document(members: &Members, blob: &Blob) -> Result<Document> {
    let name = member(&blob.digest);
    let bytes = members.read(&name, MANIFEST_MAX)?;
    let found = Digest::of(&bytes);
    if found != blob.digest {
        return Err(Fault::invalid(format!("{name} has digest {found}: the archive is damaged")));
    }
    Document::parse(&bytes)
}

fn image(
    members: &Members,
    name: Option<&str>,
    resolved: Digest,
    manifest: Digest,
    parsed: &Manifest,
) -> Result<Archived> {
    let (_, config) = read_config(members, &member(&parsed.config.digest), Some(&parsed.config.digest))?;
    let layer = |blob: &Blob| {
        let member = member(&blob.digest);
        match members.size(&member)? {
            size if size == blob.size => Ok(ArchivedLayer { member, digest: Some(blob.digest.clone()), size }),
            size => Err(Fault::invalid(format!("{member} has {size} bytes, not {} as its manifest says", blob.size))),
        }
    };
    // A bare word is only a tag (image-spec, "org.opencontainers.image.ref.name"), which names no repository.
    let name = name.filter(|name| name.contains(['/', ':']));
    Ok(Archived {
        names: name.map(str::parse::<Reference>).transpose()?.into_iter().collect(),
        config,
        manifest,
        resolved,
        layers: parsed.layers.iter().map(layer).collect::<Result<_>>()?,
    })
}
