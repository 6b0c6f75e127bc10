//! pf(4), by which replicas reach the world, and the lines that its configuration needs.

use std::path::Path;

use super::super::network::{ANCHOR_LINES, missing_anchors};
use super::run;
use crate::fault::{Context, Fault, Kind, Result};
use crate::files;
use crate::setup::{Item, State};

const CONFIG: &str = "/etc/pf.conf";
/// At the end of each line that is added.
const MARK: &str = "# added by faas-jails init";

/// The calls of this program's anchors.
pub struct Anchors {
    /// The interface that leads outside, if replicas are to reach the world.
    pub egress: Option<String>,
    /// Whether /etc/pf.conf may be changed.
    pub write: bool,
}

impl Item for Anchors {
    fn name(&self) -> &'static str {
        "way out"
    }

    fn look(&self) -> Result<State> {
        let Some(egress) = &self.egress else {
            return Ok(State::Unneeded(
                "replicas do not reach the world; to change that, name an interface: egress in [network]".into(),
            ));
        };
        if !Path::new("/dev/pf").exists() {
            return Ok(State::missing("pf is not loaded", "run: sysrc pf_enable=YES && service pf start"));
        }
        if !run("/sbin/pfctl", &["-s", "info"])?.contains("Status: Enabled") {
            return Ok(State::missing("pf is not enabled", "run: sysrc pf_enable=YES && service pf start"));
        }
        let missing = missing_anchors()?;
        Ok(match missing.is_empty() {
            true => State::Ready(format!("pf calls faas-jails/*; addresses are translated on {egress}")),
            false => State::missing(
                format!("{CONFIG} lacks {}", missing.join(" and ")),
                "add it and run: service pf reload; or run: faas-jails init --write-pf",
            ),
        })
    }

    fn make(&self) -> Result<bool> {
        if !self.write {
            return Ok(false);
        }
        let before = std::fs::read_to_string(CONFIG).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok("pass all\n".to_owned()),
            _ => Err(error).context(|| format!("cannot read {CONFIG}")),
        })?;
        install(&with_anchors(&before))?;
        // Enabled already is an error of pfctl's, and no problem.
        let _ = run("/sbin/pfctl", &["-q", "-e"]);
        Ok(true)
    }

    fn unmake(&self) -> Result<Option<String>> {
        let Ok(text) = std::fs::read_to_string(CONFIG) else { return Ok(None) };
        if !text.contains(MARK) {
            return Ok(None);
        }
        install(&without_anchors(&text))?;
        Ok(Some(format!("lines of {CONFIG}")))
    }
}

/// Replaces the configuration by one that pfctl(8) accepts, and loads it where pf runs.
fn install(text: &str) -> Result<()> {
    let candidate = "/etc/pf.conf.faas-jails";
    files::replace(Path::new(candidate), text.as_bytes())?;
    let checked = run("/sbin/pfctl", &["-q", "-n", "-f", candidate]);
    files::remove(Path::new(candidate))?;
    checked.map_err(|fault| {
        Fault::new(Kind::Unsupported, format!("{CONFIG} stays as it is, since with the lines pf refuses it: {fault}"))
    })?;
    files::replace(Path::new(CONFIG), text.as_bytes())?;
    match Path::new("/dev/pf").exists() {
        true => run("/sbin/pfctl", &["-q", "-f", CONFIG]).map(drop),
        false => Ok(()),
    }
}

/// pf.conf(5) wants translation before filtering: those lines go before all filter rules, the last to the end.
fn with_anchors(text: &str) -> String {
    let filters = |line: &str| {
        let word = line.split_whitespace().next().unwrap_or_default();
        ["pass", "block", "match", "anchor", "load", "antispoof"].contains(&word)
    };
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| filters(line)).unwrap_or(lines.len());
    let [translation @ .., filter] = ANCHOR_LINES;
    let mut all: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    for line in translation.into_iter().rev().filter(|line| !text.contains(line)) {
        all.insert(at, format!("{line} {MARK}"));
    }
    if !text.lines().any(|line| line.trim_start().starts_with(filter)) {
        all.push(format!("{filter} {MARK}"));
    }
    all.join("\n") + "\n"
}

fn without_anchors(text: &str) -> String {
    let kept: Vec<&str> = text.lines().filter(|line| !line.ends_with(MARK)).collect();
    kept.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translation_comes_before_filtering_and_taking_away_gives_the_same_as_before() {
        let before = "set skip on lo0\nscrub in all\nnat on em0 from 10.0.0.0/8 to any -> (em0)\npass all\n";
        let after = with_anchors(before);
        let at = |text: &str| after.find(text).unwrap_or_else(|| panic!("{text} in {after}"));
        assert!(at("nat on em0") < at("rdr-anchor") && at("rdr-anchor") < at("pass all"), "{after}");
        assert!(at("nat on em0") < at("nat-anchor \"faas-jails/*\"") && at("nat-anchor") < at("pass all"), "{after}");
        assert!(at("\nanchor \"faas-jails/*\"") > at("pass all"), "{after}");
        assert_eq!(with_anchors(&after), after, "a second time changes nothing");
        assert_eq!(without_anchors(&after), before);
    }
}
