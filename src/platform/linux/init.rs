//! What a Linux host needs before the first `faas-jails serve`: little, as the daemon makes bridge and cgroups itself.

use std::path::Path;

use super::probe;
use crate::config::Config;
use crate::fault::{Context, Result};
use crate::setup::{Choices, Item, MARK, MarkedFile, State};

/// Where systemd looks for what the administrator installs.
const UNIT: &str = "/etc/systemd/system/faas-jails.service";

/// Run-time linkers, as paths below a root (ld.so(8); musl names its own after the processor).
pub const LOADERS: &[&str] =
    &["lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1", "lib/ld-musl-x86_64.so.1", "lib/ld-musl-aarch64.so.1"];

/// Everything, in the order of making.
pub fn items(config: &Config, _choices: &Choices) -> Vec<Box<dyn Item>> {
    let mut items: Vec<Box<dyn Item>> = vec![Box::new(Host { config: config.clone() })];
    if Path::new("/run/systemd/system").exists() {
        items.push(Box::new(MarkedFile {
            name: "service",
            path: UNIT.into(),
            content: format!("{MARK}\n{}", include_str!("../../../deploy/systemd/faas-jails.service")),
            mode: 0o644,
            hint: "; run: systemctl daemon-reload && systemctl enable --now faas-jails".into(),
        }));
    }
    items
}

/// Kernel and rights; nothing of it is this program's to change.
struct Host {
    config: Config,
}

impl Item for Host {
    fn name(&self) -> &'static str {
        "host"
    }

    fn look(&self) -> Result<State> {
        let root = &self.config.root;
        if !root.exists() {
            return Ok(State::missing(format!("no {}", root.display()), "run: faas-jails init"));
        }
        Ok(match probe::check(root) {
            Ok(()) => State::Ready(format!("replicas can run here; state in {}", root.display())),
            Err(fault) => State::missing("replicas cannot run here", fault.to_string()),
        })
    }

    fn make(&self) -> Result<bool> {
        let root = &self.config.root;
        if root.exists() {
            return Ok(false);
        }
        std::fs::create_dir_all(root).context(|| format!("cannot make {}", root.display()))?;
        Ok(true)
    }

    fn unmake(&self) -> Result<Option<String>> {
        Ok(None)
    }
}
