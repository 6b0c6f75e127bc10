//! What is in the pool: the inventory, and what an interrupted run has left there.

use std::collections::BTreeMap;

use super::command::{self, Below, Properties};
use super::names::{self, Container, KIND};
use super::refusal::Why;
use super::{Mounting, ZfsStorage};
use crate::fault::{Fault, Kind, Result};
use crate::storage::{Inventory, LayerOnDisk};

/// Everything below the parent.
struct Survey(BTreeMap<String, Properties>);

impl Survey {
    /// Names and properties of this program's datasets in a container. The label must be there: a dataset that
    /// somebody else made has none.
    fn of<'a>(
        &'a self,
        storage: &'a ZfsStorage,
        container: Container,
    ) -> impl Iterator<Item = (&'a str, &'a Properties)> {
        self.0.iter().filter_map(move |(dataset, properties)| {
            let (place, name) = storage.parent.place(dataset)?;
            let labelled = properties.get(KIND).is_some_and(|kind| kind == container.kind());
            (place == container && labelled && !name.contains('@')).then_some((name, properties))
        })
    }

    /// Is the layer complete?
    fn is_complete(&self, storage: &ZfsStorage, name: &str) -> bool {
        self.0.contains_key(&storage.parent.layer_snapshot(name))
    }
}

impl ZfsStorage {
    fn survey(&self) -> Result<Survey> {
        let properties = [KIND, "used", "mounted", "origin"];
        command::get(self.parent.as_str(), Below::Included, &properties)
            .map(Survey)
            .map_err(|refusal| self.fault(refusal, format!("cannot list what is in {}", self.parent)))
    }

    /// Datasets that were cloned from a snapshot, wherever in the pool they are: what `zfs receive` makes is a clone of
    /// any snapshot of the pool that is the right one.
    pub(super) fn clones_of(&self, snapshot: &str) -> Result<Vec<String>> {
        let pool = self.parent.pool();
        let datasets = command::get(pool, Below::Included, &["origin"])
            .map_err(|refusal| self.fault(refusal, format!("cannot list what is in {pool}")))?;
        let clone = |(name, properties): (String, Properties)| {
            (properties.get("origin").map(String::as_str) == Some(snapshot)).then_some(name)
        };
        Ok(datasets.into_iter().filter_map(clone).collect())
    }

    /// Bytes that a layer with all below it refers to; asked for once.
    pub(super) fn size(&self, layer: &str) -> Result<u64> {
        if let Some(bytes) = self.layers().sizes.get(layer) {
            return Ok(*bytes);
        }
        let bytes = self.referenced(layer)?;
        self.layers().sizes.insert(layer.to_owned(), bytes);
        Ok(bytes)
    }

    fn referenced(&self, layer: &str) -> Result<u64> {
        let snapshot = self.parent.layer_snapshot(layer);
        let datasets = command::get(&snapshot, Below::Left, &["referenced"]).map_err(|refusal| match refusal.why {
            Why::Missing => self.layer_missing(layer),
            _ => self.fault(refusal, format!("cannot read the size of {snapshot}")),
        })?;
        let bytes = datasets.get(&snapshot).and_then(|properties| properties.get("referenced")?.parse().ok());
        bytes.ok_or_else(|| Fault::new(Kind::System, format!("zfs tells no size of {snapshot}")))
    }

    pub(super) fn take_inventory(&self) -> Result<Inventory> {
        let survey = self.survey()?;
        let clones = survey.of(self, Container::Roots).filter_map(|(name, _)| names::replica(&self.realm, name));
        let mut roots: Vec<_> = clones.collect();
        // A replica whose root is a layer has one, too, until that is taken back.
        roots.extend(self.lent(&mut self.layers())?.keys().filter(|name| *name.realm() == self.realm).cloned());
        let layers = survey.of(self, Container::Layers).filter(|(name, _)| survey.is_complete(self, name));
        let layers = layers.filter_map(|(name, properties)| {
            let bytes = properties.get("used").and_then(|used| used.parse().ok());
            Some(LayerOnDisk { id: names::chain_id(name)?.to_string(), bytes })
        });
        Ok(Inventory { roots, layers: layers.collect() })
    }

    /// Destroys staged layers, layers that lost their snapshot, and roots that a restart of the host has unmounted.
    /// Goes on after a failure and reports all.
    pub(super) fn sweep(&self) -> Result<()> {
        let survey = self.survey()?;
        let mut outcomes = self.sweep_staging(&survey);
        let layers = survey.of(self, Container::Layers).map(|(name, _)| name);
        outcomes.extend(layers.filter(|name| !survey.is_complete(self, name)).map(|name| self.remove(name)));
        if let Mounting::Path(_) = self.mounting {
            let roots = survey.of(self, Container::Roots);
            let unmounted = roots.filter(|(_, properties)| properties.get("mounted").is_some_and(|m| m == "no"));
            outcomes.extend(unmounted.filter_map(|(name, _)| names::replica(&self.realm, name)).map(|replica| {
                // Busy: it is mounted where this process cannot see it, so a replica may be running in it.
                self.drop_root(&replica).or_else(|fault| if fault.kind() == Kind::Busy { Ok(()) } else { Err(fault) })
            }));
        }
        let mut failures = outcomes.into_iter().filter_map(Result::err);
        let Some(first) = failures.next() else { return Ok(()) };
        Err(failures.fold(first.within("cannot clear up after an interrupted run"), |fault, other| {
            fault.and_cleanup(Err(other))
        }))
    }

    /// Destroys staged layers of this realm, whatever their labels: one that was being received has none yet. They may
    /// be clones of one another, so goes round until nothing more goes.
    fn sweep_staging(&self, survey: &Survey) -> Vec<Result<()>> {
        let places = survey.0.keys().filter_map(|dataset| self.parent.place(dataset));
        let staged = places.filter(|(place, name)| *place == Container::Staging && names::staged_by(&self.realm, name));
        let mut left: Vec<&str> = staged.map(|(_, name)| name).collect();
        loop {
            let outcomes: Vec<_> = left.iter().map(|name| (*name, self.discard_staging(name))).collect();
            let kept: Vec<&str> = outcomes.iter().filter(|(_, o)| o.is_err()).map(|(name, _)| *name).collect();
            if kept.is_empty() || kept.len() == left.len() {
                return outcomes.into_iter().map(|(_, outcome)| outcome).collect();
            }
            left = kept;
        }
    }
}
