//! Taking charge at start: what runs and matches a spec file is adopted, everything else of this realm is swept.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::Provider;
use super::catalog::{Deployed, Function, Replica};
use super::replica::{PORT, Record};
use crate::fault::Result;
use crate::files;
use crate::function::ReplicaName;

impl Provider {
    /// Brings kernel and spec files together. Afterwards only wanted replicas exist, and missing ones are starting.
    pub(super) fn adopt(&self) -> Result<()> {
        self.platform.network.setup()?;
        self.read_specs()?;
        let alive: BTreeSet<ReplicaName> =
            self.platform.sandbox.list()?.into_iter().filter(|f| f.alive).map(|f| f.replica).collect();
        let (mut adopted, mut swept) = (0, 0);
        for name in self.replicas_anywhere()? {
            match alive.contains(&name) && self.try_adopt(&name) {
                true => adopted += 1,
                false => {
                    swept += 1;
                    if let Err(fault) = self.discard(&name) {
                        tracing::error!(%fault, "something of a replica is left");
                    }
                }
            }
        }
        let functions = self.catalog.all();
        tracing::info!(functions = functions.len(), adopted, swept, "took charge");
        for function in functions {
            function.publish();
            self.reconcile_soon(&function.key, std::time::Duration::ZERO);
            self.make_ready(&function.key);
        }
        Ok(())
    }

    fn read_specs(&self) -> Result<()> {
        let root = self.config.root.join("functions");
        for namespace in files::names(&root)? {
            for file in files::names(&root.join(&namespace))? {
                let path = root.join(&namespace).join(&file);
                match files::read_json::<Deployed>(&path) {
                    Ok(Some(deployed)) => self.catalog.insert(Function::new(deployed)),
                    Ok(None) => {}
                    Err(fault) => tracing::error!(%fault, "this function is left out; mend or remove its file"),
                }
            }
        }
        Ok(())
    }

    /// Every replica of this realm of which there is anything: a process, a link, a root, a directory.
    pub fn replicas_anywhere(&self) -> Result<BTreeSet<ReplicaName>> {
        let mut names: BTreeSet<ReplicaName> =
            self.platform.sandbox.list()?.into_iter().map(|found| found.replica).collect();
        names.extend(self.platform.network.attached()?);
        names.extend(self.platform.storage.inventory()?.roots);
        let dirs = files::names(&self.config.root.join("replicas"))?;
        names.extend(dirs.iter().filter_map(|name| name.parse().ok()));
        names.retain(|name| *name.realm() == self.config.realm);
        Ok(names)
    }

    fn try_adopt(&self, name: &ReplicaName) -> bool {
        let Some(function) = self.catalog.get(name.function()) else { return false };
        let record = files::read_json::<Record>(&self.replica_dir(name).join("replica.json"));
        let Ok(Some(record)) = record else { return false };
        let spec = &function.deployed().spec;
        let wanted = function.replicas().len() < spec.replicas as usize;
        if record.revision != spec.revision || !wanted || self.addresses().reserve(record.address, name).is_err() {
            return false;
        }
        let replica = Arc::new(Replica::new(name.clone(), SocketAddr::new(record.address, PORT), record.revision));
        if let Err(fault) = self.adopt_replica(&function, &replica) {
            tracing::error!(%fault, replica = %name, "cannot adopt a replica; it is replaced");
            return false;
        }
        function.state().replicas.push(replica);
        true
    }
}
