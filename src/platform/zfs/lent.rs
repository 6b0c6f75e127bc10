//! Layers that are lent to replicas as their read-only roots. Where this storage mounts them it has to unmount them
//! after the last one, also when another process lent them: so there each loan is a file, `lent.<replica>`, beside the
//! mount points, with the layer's name in it.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::{Layers, Mounting, ZfsStorage};
use crate::fault::{Context, Result};
use crate::function::ReplicaName;

const PREFIX: &str = "lent.";

/// Layers by replica.
pub(super) type Lent = HashMap<ReplicaName, String>;

impl ZfsStorage {
    /// What is lent now.
    pub(super) fn lent<'a>(&self, known: &'a mut Layers) -> Result<&'a mut Lent> {
        if let Mounting::Path(base) = &self.mounting {
            let what = || format!("cannot list {}", base.display());
            known.lent.clear();
            for entry in std::fs::read_dir(base).context(what)? {
                let path = entry.context(what)?.path();
                let name = path.file_name().and_then(|name| name.to_str()?.strip_prefix(PREFIX)?.parse().ok());
                // One that has gone since was taken back.
                if let (Some(replica), Ok(layer)) = (name, std::fs::read_to_string(&path)) {
                    known.lent.insert(replica, layer);
                }
            }
        }
        Ok(&mut known.lent)
    }

    /// Notes a loan, before it is made.
    pub(super) fn note_loan(&self, known: &mut Layers, replica: &ReplicaName, layer: &str) -> Result<()> {
        if let Some(file) = self.loan(replica) {
            std::fs::write(&file, layer).context(|| format!("cannot write {}", file.display()))?;
        }
        known.lent.insert(replica.clone(), layer.to_owned());
        Ok(())
    }

    /// Takes the note back. Already gone is success.
    pub(super) fn forget_loan(&self, known: &mut Layers, replica: &ReplicaName) -> Result<()> {
        known.lent.remove(replica);
        match self.loan(replica).map(|file| (std::fs::remove_file(&file), file)) {
            Some((Err(error), file)) if error.kind() != ErrorKind::NotFound => {
                Err(error).context(|| format!("cannot remove {}", file.display()))
            }
            _ => Ok(()),
        }
    }

    fn loan(&self, replica: &ReplicaName) -> Option<PathBuf> {
        match &self.mounting {
            Mounting::Path(base) => Some(base.join(format!("{PREFIX}{replica}"))),
            Mounting::Legacy { .. } => None,
        }
    }
}
