//! The realm's rules for the packet filter: one anchor, loaded once, when the network is set up.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::Settings;
use crate::fault::{Context, Fault, Kind, Result};

/// Under this name the administrator's pf.conf(5) calls the anchors of all realms.
const PARENT: &str = "faas-jails";

/// The lines by which pf.conf(5) calls the anchors of all realms: for translation, for filtering.
pub const ANCHOR_LINES: [&str; 2] = ["nat-anchor \"faas-jails/*\"", "anchor \"faas-jails/*\""];

/// Those of [`ANCHOR_LINES`] that the rules in force do not have.
pub fn missing_anchors() -> Result<Vec<String>> {
    let nat = pfctl(&["-q", "-s", "nat"], "").context(|| "cannot read pf's rules")?;
    let filter = pfctl(&["-q", "-s", "rules"], "").context(|| "cannot read pf's rules")?;
    Ok(missing(&nat, &filter))
}

/// A realm's anchor.
pub struct Filter<'a> {
    settings: &'a Settings,
    bridge: Option<&'a str>,
}

impl<'a> Filter<'a> {
    /// Rules for replicas behind `bridge`, if there is one. Nothing is loaded before [`Filter::load`].
    pub fn new(settings: &'a Settings, bridge: Option<&'a str>) -> Self {
        Self { settings, bridge }
    }

    fn anchor(&self) -> String {
        format!("{PARENT}/{}", self.settings.realm)
    }

    /// The rules, or nothing when replicas have no way out.
    ///
    /// Replies to what replicas ask are matched to their state before any rule, so inbound packets for or
    /// from the network's addresses are somebody else's, and are dropped. So is what comes from a bridge under
    /// an address that is not the network's: root in a VNET jail can give itself any.
    pub fn rules(&self) -> Option<String> {
        let egress = self.settings.egress.as_ref()?;
        let network = self.settings.network;
        let family = if network.is_ipv4() { "inet" } else { "inet6" };
        let mut rules = format!(
            "table <replicas> const {{ {network} }}\n\
             nat on {egress} {family} from <replicas> to ! <replicas> -> ({egress})\n\
             block drop in quick on {egress} {family} from <replicas> to any\n\
             block drop in quick on {egress} {family} from any to <replicas>\n"
        );
        if let Some(bridge) = self.bridge {
            rules += &format!("block drop in quick on {bridge} {family} from ! <replicas> to any\n");
        }
        Some(rules)
    }

    /// Loads the rules; nothing to do when replicas have no way out. Safe to repeat.
    pub fn load(&self) -> Result<()> {
        let Some(rules) = self.rules() else { return Ok(()) };
        self.called()?;
        let anchor = self.anchor();
        pfctl(&["-q", "-a", &anchor, "-f", "-"], &rules).context(|| format!("cannot load pf anchor {anchor}"))?;
        Ok(())
    }

    /// Empties the anchor. A host without pf has none, which is success.
    pub fn unload(&self) -> Result<()> {
        if self.settings.egress.is_none() || !std::path::Path::new("/dev/pf").exists() {
            return Ok(());
        }
        let anchor = self.anchor();
        pfctl(&["-q", "-a", &anchor, "-F", "all"], "").context(|| format!("cannot empty pf anchor {anchor}"))?;
        Ok(())
    }

    /// An anchor that the main rules do not call would be loaded and never asked.
    fn called(&self) -> Result<()> {
        let missing = missing_anchors()?;
        if missing.is_empty() {
            return Ok(());
        }
        Err(Fault::new(
            Kind::Unsupported,
            format!(
                "pf's rules do not call this program's: add {} to /etc/pf.conf and run: service pf reload",
                missing.join(" and ")
            ),
        ))
    }
}

/// The lines that pf.conf(5) needs and that are not in what pfctl(8) shows.
fn missing(nat: &str, filter: &str) -> Vec<String> {
    let calls = |text: &str, kind: &str| text.lines().any(|line| line.starts_with(&format!("{kind} \"{PARENT}/*\"")));
    let mut missing = Vec::new();
    if !calls(nat, "nat-anchor") {
        missing.push(format!("the line nat-anchor \"{PARENT}/*\""));
    }
    if !calls(filter, "anchor") {
        missing.push(format!("the line anchor \"{PARENT}/*\""));
    }
    missing
}

fn pfctl(arguments: &[&str], input: &str) -> Result<String> {
    let Output { status, stdout, stderr } = run(arguments, input).context(|| "cannot run pfctl")?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&stderr);
    if said.contains("/dev/pf") {
        let message = "pf is not running; enable it with: sysrc pf_enable=YES && service pf start";
        return Err(Fault::new(Kind::Unsupported, message));
    }
    Err(Fault::new(Kind::System, format!("pfctl {}: {}", arguments.join(" "), said.trim())))
}

fn run(arguments: &[&str], input: &str) -> std::io::Result<Output> {
    let mut child = Command::new("/sbin/pfctl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A few lines, which a pipe holds; pfctl that fails early has closed it, and says why itself.
        let written = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        if output.status.success() {
            written?;
        }
        return Ok(output);
    }
    child.wait_with_output()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_the_network_and_the_way_out() {
        let settings = Settings {
            realm: "fj".parse().unwrap(),
            network: "10.62.0.0/16".parse().unwrap(),
            egress: Some("vtnet0".to_owned()),
        };
        let rules = Filter::new(&settings, None).rules().unwrap();
        assert!(rules.contains("nat on vtnet0 inet from <replicas> to ! <replicas> -> (vtnet0)"), "{rules}");
        let behind = Filter::new(&settings, Some("fjbr")).rules().unwrap();
        assert!(behind.starts_with(&rules) && behind.contains("quick on fjbr inet from ! <replicas>"), "{behind}");
        assert_eq!(Filter::new(&Settings { egress: None, ..settings }, None).rules(), None);
    }

    #[test]
    fn an_anchor_that_nobody_calls_is_noticed() {
        assert!(missing("nat-anchor \"faas-jails/*\" all\n", "anchor \"faas-jails/*\" all\n").is_empty());
        assert_eq!(missing("", "pass all\nanchor \"faas-jails/*\" all\n").len(), 1);
        assert_eq!(missing("", "").len(), 2);
    }
}
