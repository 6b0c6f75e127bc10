//! The dataset that holds layers and roots, on a file where the host has no pool.

use std::path::PathBuf;

use super::run;
use crate::config::Config;
use crate::fault::{Context, Fault, Result};
use crate::setup::{Choices, Item, State};

/// A user property on what was made here: `dataset`, or the path of the file that a pool is on.
const MADE: &str = "faas-jails:made";

/// The dataset, and the pool if need be.
pub struct Pool {
    dataset: String,
    file: PathBuf,
    bytes: u64,
    /// Whether the administrator named the file: then it is made though other pools are there.
    named: bool,
}

impl Pool {
    /// As configuration and choices say.
    pub fn new(config: &Config, choices: &Choices) -> Self {
        Self {
            dataset: config.zfs.dataset.clone(),
            file: choices.pool_file.clone().unwrap_or_else(|| config.root.join("pool.img")),
            bytes: choices.pool_bytes,
            named: choices.pool_file.is_some(),
        }
    }

    fn pool(&self) -> &str {
        self.dataset.split('/').next().unwrap_or_default()
    }

    fn exists(dataset: &str) -> bool {
        run("/sbin/zfs", &["list", "-H", "-o", "name", dataset]).is_ok()
    }

    /// What the mark on a dataset says; its own, not one that it inherits.
    fn mark(dataset: &str) -> Option<String> {
        let output = run("/sbin/zfs", &["get", "-H", "-o", "value,source", MADE, dataset]).ok()?;
        let (value, source) = output.trim_end().split_once('\t')?;
        (source == "local").then(|| value.to_owned())
    }

    fn make_pool(&self) -> Result<()> {
        let shown = self.file.display().to_string();
        if let Some(parent) = self.file.parent() {
            std::fs::create_dir_all(parent).context(|| format!("cannot make {}", parent.display()))?;
        }
        let file = std::fs::File::create_new(&self.file).context(|| format!("cannot make {shown}"))?;
        file.set_len(self.bytes).context(|| format!("cannot make {shown} {} bytes large", self.bytes))?;
        let mark = format!("{MADE}={shown}");
        let arguments = ["create", "-O", "mountpoint=none", "-O", "compression=on", "-O", &mark, self.pool(), &shown];
        run("/sbin/zpool", &arguments).map(drop).map_err(|fault| {
            let undo = std::fs::remove_file(&self.file).context(|| format!("cannot remove {shown}"));
            fault.and_cleanup(undo)
        })
    }
}

impl Item for Pool {
    fn name(&self) -> &'static str {
        "storage"
    }

    fn look(&self) -> Result<State> {
        if Self::exists(&self.dataset) {
            let on = Self::mark(self.pool()).map_or_else(String::new, |file| format!(" on {file}"));
            return Ok(State::Ready(format!("dataset {}{on}", self.dataset)));
        }
        if Self::exists(self.pool()) {
            let mend = format!("run: zfs create -p -o canmount=off {}", self.dataset);
            return Ok(State::missing(format!("no dataset {}", self.dataset), mend));
        }
        let others = run("/sbin/zpool", &["list", "-H", "-o", "name"]).unwrap_or_default().trim().replace('\n', ", ");
        Ok(match others.is_empty() {
            true => State::missing(
                "no ZFS pool",
                format!("faas-jails init makes pool {} on {}", self.pool(), self.file.display()),
            ),
            false => State::missing(
                format!("no pool {}, but {others}", self.pool()),
                "set dataset in [zfs] of the configuration, or name a file with --pool-file",
            ),
        })
    }

    fn make(&self) -> Result<bool> {
        if !Self::exists(self.pool()) {
            let others = run("/sbin/zpool", &["list", "-H", "-o", "name"])?;
            if !others.trim().is_empty() && !self.named {
                return Ok(false);
            }
            self.make_pool()?;
        }
        if !Self::exists(&self.dataset) {
            let mark = format!("{MADE}=dataset");
            run("/sbin/zfs", &["create", "-p", "-o", "canmount=off", "-o", &mark, &self.dataset])?;
        }
        Ok(true)
    }

    fn unmake(&self) -> Result<Option<String>> {
        if let Some(file) = Self::mark(self.pool()) {
            run("/sbin/zpool", &["destroy", self.pool()])?;
            std::fs::remove_file(&file).context(|| format!("cannot remove {file}"))?;
            return Ok(Some(format!("pool {} with {file}", self.pool())));
        }
        match Self::mark(&self.dataset).as_deref() {
            None => Ok(None),
            Some("dataset") => {
                run("/sbin/zfs", &["destroy", "-r", &self.dataset])?;
                Ok(Some(format!("dataset {}", self.dataset)))
            }
            Some(other) => Err(Fault::invalid(format!("{} has {MADE}={other}, which says nothing", self.dataset))),
        }
    }
}
