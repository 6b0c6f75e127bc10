//! Every name that this storage gives to a dataset, and how names are read back.

use std::fmt;
use std::str::FromStr;

use rand::Rng;

use crate::fault::{Fault, Result};
use crate::function::{Realm, ReplicaName};
use crate::image::Digest;

/// The snapshot whose presence says that a layer is complete.
pub(super) const LAYER_SNAPSHOT: &str = "layer";

/// The layer that stands for an image without layers. No digest, so it cannot clash with one.
pub(super) const EMPTY_LAYER: &str = "empty";

/// Names what a dataset is: `layer` (its place says whether it is complete) or `root`. A dataset without it is not ours.
pub(super) const KIND: &str = "faas-jails:kind";

/// Names the replica whose root it is.
pub(super) const REPLICA: &str = "faas-jails:replica";

/// Names the daemon that made it.
pub(super) const REALM: &str = "faas-jails:realm";

/// The dataset that everything is kept below: `tank/faas-jails`.
///
/// ```text
/// parent/layers/<chain-id hex>             one per layer, a clone of the layer below
/// parent/layers/<chain-id hex>@layer       there when the layer is complete
/// parent/staging/<realm>.<hex>.<random>    a layer that is being unpacked
/// parent/roots/<replica>                   a replica's root, a clone of its image's last layer
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent(String);

impl Parent {
    /// Longest parent whose longest child fits: ZFS names have at most 255 bytes (zfs(8),
    /// ZFS_MAX_DATASET_NAME_LEN with its NUL), `/roots/` has 7 and a replica's name up to 141.
    pub const MAX: usize = 255 - 7 - 141;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its pool.
    pub fn pool(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }

    /// One of the datasets right below it.
    pub(super) fn container(&self, container: Container) -> String {
        format!("{}/{}", self.0, container.as_str())
    }

    /// A dataset in one of the containers.
    pub(super) fn child(&self, container: Container, name: &str) -> String {
        format!("{}/{}/{name}", self.0, container.as_str())
    }

    /// The snapshot that a layer of this name is cloned from.
    pub(super) fn layer_snapshot(&self, name: &str) -> String {
        format!("{}@{LAYER_SNAPSHOT}", self.child(Container::Layers, name))
    }

    /// Where `dataset` is in the layout, if it is in it.
    pub(super) fn place<'a>(&self, dataset: &'a str) -> Option<(Container, &'a str)> {
        let rest = dataset.strip_prefix(&self.0)?.strip_prefix('/')?;
        let (container, name) = rest.split_once('/')?;
        let container = Container::ALL.into_iter().find(|c| c.as_str() == container)?;
        (!name.is_empty() && !name.contains('/')).then_some((container, name))
    }
}

impl FromStr for Parent {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self> {
        let part = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphanumeric())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
        };
        let pool = text.starts_with(|c: char| c.is_ascii_alphabetic());
        if pool && text.len() <= Self::MAX && text.split('/').all(part) {
            return Ok(Self(text.to_owned()));
        }
        Err(Fault::invalid(format!(
            "dataset ({}) is invalid: a pool and names below it, such as tank/faas-jails, of letters, digits, \
             - _ . and :, at most {} bytes",
            text.escape_debug(),
            Self::MAX
        )))
    }
}

impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The three datasets right below the parent. They hold no files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    /// Complete layers.
    Layers,
    /// Layers that are being unpacked.
    Staging,
    /// Replicas' roots.
    Roots,
}

impl Container {
    /// All of them.
    pub(super) const ALL: [Container; 3] = [Container::Layers, Container::Staging, Container::Roots];

    /// Its name below the parent.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Container::Layers => "layers",
            Container::Staging => "staging",
            Container::Roots => "roots",
        }
    }

    /// The [`KIND`] of what it holds.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Container::Layers | Container::Staging => "layer",
            Container::Roots => "root",
        }
    }
}

/// A new name for a staged layer: two that stage the same layer at once do not meet before they commit.
pub(super) fn staging(realm: &Realm, layer: &str) -> String {
    format!("{realm}.{layer}.{:08x}", rand::rng().random::<u32>())
}

/// Whether [`staging`] gave this name, in `realm`.
pub(super) fn staged_by(realm: &Realm, name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    let [by, layer, random] = parts[..] else { return false };
    let number = random.len() == 8 && random.bytes().all(|b| b.is_ascii_hexdigit());
    by == realm.as_str() && number && (layer == EMPTY_LAYER || chain_id(layer).is_some())
}

/// The layer that a dataset in `layers` holds, by its chain-id.
pub(super) fn chain_id(name: &str) -> Option<Digest> {
    format!("sha256:{name}").parse().ok()
}

/// The replica of `realm` whose root a dataset in `roots` is.
pub(super) fn replica(realm: &Realm, name: &str) -> Option<ReplicaName> {
    name.parse::<ReplicaName>().ok().filter(|replica| replica.realm() == realm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_pools_and_names_below_them() {
        for good in ["tank", "tank/faas-jails", "zroot/a.b/c_d:e", &"t".repeat(Parent::MAX)] {
            assert!(good.parse::<Parent>().is_ok(), "{good}");
        }
        let long = "t".repeat(Parent::MAX + 1);
        for bad in ["", "/", "tank/", "/tank", "tank//a", "tank@s", "tank/a b", "-o/a", "tank/-o", "1a", "a/..", &long]
        {
            assert!(bad.parse::<Parent>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_longest_names_fit_into_a_dataset_name() {
        let parent: Parent = "t".repeat(Parent::MAX).parse().unwrap();
        let realm: Realm = "zzzz".parse().unwrap();
        let label = "a".repeat(63);
        let replica: ReplicaName = format!("zzzz_{label}_{label}_bcdfghjk").parse().unwrap();
        let staging = staging(&realm, &"f".repeat(64));
        assert!(parent.child(Container::Roots, &replica.to_string()).len() <= 255);
        assert!(format!("{}@layer", parent.child(Container::Staging, &staging)).len() <= 255);
    }

    #[test]
    fn names_are_read_back() {
        let parent: Parent = "tank/fj".parse().unwrap();
        let realm: Realm = "fj".parse().unwrap();
        let name = staging(&realm, EMPTY_LAYER);
        assert_eq!(parent.place(&parent.child(Container::Staging, &name)), Some((Container::Staging, &*name)));
        assert!(staged_by(&realm, &name) && !staged_by(&"f".parse().unwrap(), &name));
        assert!(!staged_by(&realm, "fj.mine.00000000") && !staged_by(&realm, "fj.empty.mine"));
        for foreign in ["tank/fj", "tank/fj/layers", "tank/fj/layers/a/b", "tank/fjord/layers/a", "tank/fj/other/a"] {
            assert_eq!(parent.place(foreign), None, "{foreign}");
        }
        assert_eq!(chain_id(EMPTY_LAYER), None);
        assert!(replica(&realm, "fj_ns_fn_bcdfghjk").is_some());
        assert!(replica(&realm, "xx_ns_fn_bcdfghjk").is_none());
    }
}
