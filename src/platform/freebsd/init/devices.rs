//! The devfs ruleset of replicas.

use super::super::{devfs, jail};
use crate::fault::Result;
use crate::setup::{Item, State};

/// The ruleset, which the daemon also sees to when it starts: a restart of the host empties it.
pub struct Ruleset;

impl Item for Ruleset {
    fn name(&self) -> &'static str {
        "devices"
    }

    fn look(&self) -> Result<State> {
        Ok(match devfs::is_set_up()? {
            true => State::Ready(format!("devfs ruleset {}", devfs::RULESET)),
            false => State::missing(format!("no devfs ruleset {}", devfs::RULESET), "run: faas-jails init"),
        })
    }

    fn make(&self) -> Result<bool> {
        devfs::setup().map(|()| true)
    }

    /// Other realms on this host have the same ruleset, so it stays while there is a jail.
    fn unmake(&self) -> Result<Option<String>> {
        if !jail::list(jail::View::Alive)?.is_empty() {
            return Ok(None);
        }
        Ok(devfs::clear()?.then(|| format!("devfs ruleset {}", devfs::RULESET)))
    }
}
