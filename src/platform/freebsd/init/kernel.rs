//! Kernel modules, and the counting of resources.

use super::super::probe::has_module;
use super::super::rctl;
use super::run;
use crate::fault::Result;
use crate::setup::{Item, State};

/// Modules that belong together.
pub struct Modules {
    name: &'static str,
    modules: &'static [&'static str],
    keep: &'static str,
}

impl Modules {
    /// `keep` is the command that has them loaded after the next restart too.
    pub fn new(name: &'static str, modules: &'static [&'static str], keep: &'static str) -> Self {
        Self { name, modules, keep }
    }
}

impl Item for Modules {
    fn name(&self) -> &'static str {
        self.name
    }

    fn look(&self) -> Result<State> {
        let lacking: Vec<&str> = self.modules.iter().copied().filter(|module| !known(module)).collect();
        Ok(match lacking.as_slice() {
            [] => State::Ready(format!("{}; to have it after a restart: {}", self.modules.join(" "), self.keep)),
            lacking => State::missing(
                format!("{} not loaded", lacking.join(" ")),
                format!("run: kldload {}; {}", lacking.join(" "), self.keep),
            ),
        })
    }

    fn make(&self) -> Result<bool> {
        for module in self.modules {
            run("/sbin/kldload", &["-n", module])?;
        }
        Ok(true)
    }

    /// Others may use them by now; they go with the next restart.
    fn unmake(&self) -> Result<Option<String>> {
        Ok(None)
    }
}

/// The name under which modfind(2) knows a file's module, where it is another.
fn known(file: &str) -> bool {
    has_module(match file {
        "linux64" => "linux64elf",
        "zfs" => "zfsctrl",
        other => other,
    }) || has_module(file)
}

/// racct(9), without which no limit holds.
pub struct Counting {
    /// Whether functions with limits are refused without it.
    pub required: bool,
}

impl Item for Counting {
    fn name(&self) -> &'static str {
        "limits"
    }

    fn look(&self) -> Result<State> {
        Ok(match (rctl::enabled(), self.required) {
            (true, _) => State::Ready("kern.racct.enable=1".into()),
            (false, true) => State::missing("kern.racct.enable=0", rctl::REMEDY),
            (false, false) => State::Unneeded(format!("functions run without their limits; {}", rctl::REMEDY)),
        })
    }

    fn make(&self) -> Result<bool> {
        Ok(false)
    }

    fn unmake(&self) -> Result<Option<String>> {
        Ok(None)
    }
}
