//! Taking charge at start: what runs and matches a spec file is adopted, everything else of this realm is swept.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Provider;
use super::catalog::{Deployed, Function};
use super::elastic::Rules;
use super::replica::{LINK, RECORD, Record};
use crate::fault::Result;
use crate::files;
use crate::function::ReplicaName;
use crate::network::{Link, Mode};

impl Provider {
    /// Brings kernel and spec files together. Afterwards only wanted replicas exist, and missing ones are starting.
    pub(super) fn adopt(&self) -> Result<()> {
        self.platform.network.setup(&self.addresses().networks())?;
        self.read_specs()?;
        let alive: BTreeSet<ReplicaName> =
            self.platform.sandbox.list()?.into_iter().filter(|f| f.alive).map(|f| f.replica).collect();
        let (mut adopted, mut swept) = (0, 0);
        for name in self.replicas_anywhere()? {
            if crate::job::is_running(&self.replica_dir(&name)) {
                continue;
            }
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
        self.enforce_now()?;
        let functions = self.catalog.all();
        tracing::info!(functions = functions.len(), adopted, swept, "took charge");
        for function in functions {
            self.settle(&function);
            function.publish();
            if function.replicas().len() < function.wanted() as usize {
                self.look_after(&function);
            }
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
                    Ok(Some(deployed)) => self.catalog.insert(self.known(deployed)),
                    Ok(None) => {}
                    Err(fault) => tracing::error!(%fault, "this function is left out; mend or remove its file"),
                }
            }
        }
        Ok(())
    }

    fn known(&self, deployed: Deployed) -> Arc<Function> {
        let spec = &deployed.spec;
        let rules = Rules::read(&spec.labels, &spec.annotations, &self.config.elastic).unwrap_or_else(|fault| {
            tracing::error!(function = %spec.key, %fault, "its replicas stay as many as they are; deploy it again");
            Rules::fixed(&self.config.elastic)
        });
        Function::new(deployed, rules)
    }

    /// Decides how many replicas a function should have, from what of it has been adopted.
    fn settle(&self, function: &Function) {
        let adopted = function.replicas().len() as u32;
        // One that may be at zero waits there for a call.
        let asked = if function.rules().zero.is_some() { 0 } else { function.deployed().spec.replicas };
        function.want(asked.max(adopted));
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
        let record = files::read_json::<Record>(&self.replica_dir(name).join(RECORD));
        let Ok(Some(record)) = record else { return false };
        let Ok(Some(link)) = files::read_json::<Link>(&self.replica_dir(name).join(LINK)) else { return false };
        let spec = &function.deployed().spec;
        // One that was asked to be at zero may have been called since; load may have made more of others.
        let rules = function.rules();
        let most = if rules.load.is_some() { spec.replicas.max(rules.max) } else { spec.replicas.max(1) };
        if record.revision != spec.revision || function.replicas().len() >= most as usize {
            return false;
        }
        for address in &link.addresses {
            if self.addresses().hold(address.ip(), name).is_err() {
                self.addresses().give_back(name);
                return false;
            }
        }
        // The daemon before may have frozen it.
        if let Err(fault) = self.platform.sandbox.thaw(name) {
            tracing::error!(%fault, replica = %name, "cannot adopt a replica; it is replaced");
            return false;
        }
        let replica = self.replica(&function, &function.deployed(), name, record.serves_at);
        if let Err(fault) = self.adopt_replica(&function, &replica) {
            tracing::error!(%fault, replica = %name, "cannot adopt a replica; it is replaced");
            return false;
        }
        if link.mode == Mode::None {
            self.policy.close(name, &link);
        }
        function.state().replicas.push(replica);
        true
    }
}
