//! `docker save` tars: `manifest.json` lists images by config, layers and tags.

use serde::Deserialize;

use crate::fault::{Context, Fault, Result};
use crate::image::manifest::{LAYERS_MAX, MANIFEST_MAX};
use crate::image::target::Target;
use crate::image::{Digest, Reference};

use super::{Archived, ArchivedLayer, Members, nothing_fits, read_config};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// The images in it that `target` can run; of several with the same names, the best.
pub fn images(members: &Members, target: &Target) -> Result<Vec<Archived>> {
    let bytes = members.read("manifest.json", MANIFEST_MAX)?;
    let listed: Vec<Listed> = serde_json::from_slice(&bytes)
        .map_err(|error| Fault::invalid("manifest.json is none of docker save's").because(error))?;
    let all = listed.into_iter().map(|l| image(members, l)).collect::<Result<Vec<_>>>()?;
    let mut groups: Vec<Vec<Archived>> = Vec::new();
    let offered: Vec<String> = all.iter().map(|image| image.config.platform.to_string()).collect();
    for image in all {
        match groups.iter_mut().find(|group| !image.names.is_empty() && group[0].names == image.names) {
            Some(group) => group.push(image),
            None => groups.push(vec![image]),
        }
    }
    let best = |mut group: Vec<Archived>| {
        let at = target.choose(group.iter().map(|image| Some(&image.config.platform)))?;
        Some(group.swap_remove(at))
    };
    let chosen: Vec<Archived> = groups.into_iter().filter_map(best).collect();
    if chosen.is_empty() {
        return Err(nothing_fits(target, offered.into_iter()));
    }
    Ok(chosen)
}

/// The digest in a member's name, where the name is one: `blobs/sha256/HEX`, `HEX.json`.
fn digest_in(name: &str) -> Option<Digest> {
    let hex = name.strip_prefix("blobs/sha256/").or_else(|| name.strip_suffix(".json"))?;
    format!("sha256:{hex}").parse().ok()
}

fn image(members: &Members, listed: Listed) -> Result<Archived> {
    let (digest, config) = read_config(members, &listed.config, digest_in(&listed.config).as_ref())?;
    let layers = listed.layers.unwrap_or_default();
    if layers.len() > LAYERS_MAX {
        return Err(Fault::invalid(format!("an image in it has more than {LAYERS_MAX} layers, the limit")));
    }
    let layer = |member: String| {
        let (size, digest) = (members.size(&member)?, digest_in(&member));
        Ok(ArchivedLayer { member, digest, size })
    };
    let tags = listed.repo_tags.unwrap_or_default();
    let name = |tag: &String| tag.parse::<Reference>().context(|| "manifest.json names an image that nobody can name");
    Ok(Archived {
        names: tags.iter().map(name).collect::<Result<_>>()?,
        config,
        manifest: digest.clone(),
        resolved: digest,
        layers: layers.into_iter().map(layer).collect::<Result<_>>()?,
    })
}
