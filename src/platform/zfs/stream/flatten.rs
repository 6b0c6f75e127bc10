//! A layer that stands alone, for when the one below it is here but is not the snapshot that its stream begins at.

use super::Piece;
use super::archive::Archive;
use crate::fault::{Fault, Result};
use crate::image::Silent;
use crate::platform::zfs::ZfsStorage;
use crate::platform::zfs::command;
use crate::platform::zfs::names::{self, Container, LAYER_SNAPSHOT};

impl ZfsStorage {
    /// Receives a piece with all that it is incremental from, and makes it independent of these. Returns its dataset
    /// in `staging`; the others are gone.
    pub(super) fn receive_alone(&self, archive: &Archive, index: usize) -> Result<String> {
        let pieces = &archive.manifest.pieces[..=index];
        let Some(start) = pieces.iter().rposition(|piece| piece.full) else {
            return Err(Fault::not_found(format!(
                "layer {} is incremental from a layer that came here another way: import a whole archive of the image",
                pieces[index].layer
            )));
        };
        let mut names = Vec::new();
        let made = self.receive_chain(archive, &pieces[start..], &mut names).and_then(|()| self.detach(&names));
        match (made, names.pop()) {
            (Ok(()), Some(name)) => Ok(name),
            (made, name) => {
                let fault = made.err().unwrap_or_else(|| Fault::invalid("there is nothing to receive"));
                let names = name.into_iter().chain(names.into_iter().rev());
                Err(names.fold(fault, |fault, name| fault.and_cleanup(self.discard_staging(&name))))
            }
        }
    }

    fn receive_chain(&self, archive: &Archive, pieces: &[Piece], names: &mut Vec<String>) -> Result<()> {
        for piece in pieces {
            let name = names::staging(&self.realm, piece.layer.hex());
            self.receive(archive, piece, &name, &Silent)?;
            names.push(name);
        }
        Ok(())
    }

    /// Makes the last of a chain of clones own all snapshots that it was cloned from, directly or not, and destroys
    /// the datasets they came from, then the snapshots.
    fn detach(&self, names: &[String]) -> Result<()> {
        let Some((top, lower)) = names.split_last() else { return Ok(()) };
        let dataset = |name: &str| self.parent.child(Container::Staging, name);
        let zfs = |arguments: &[&str]| {
            let told = |refusal| self.fault(refusal, format!("cannot run zfs {}", arguments.join(" ")));
            command::zfs(arguments).map(drop).map_err(told)
        };
        // Promoting moves snapshots: each needs a name of its own.
        for (index, name) in lower.iter().enumerate() {
            let dataset = dataset(name);
            zfs(&["rename", &format!("{dataset}@{LAYER_SNAPSHOT}"), &format!("{dataset}@below{index}")])?;
        }
        lower.iter().try_for_each(|_| zfs(&["promote", &dataset(top)]))?;
        lower.iter().try_for_each(|name| self.discard_staging(name))?;
        (0..lower.len()).try_for_each(|index| self.destroy(&format!("{}@below{index}", dataset(top))))
    }
}
