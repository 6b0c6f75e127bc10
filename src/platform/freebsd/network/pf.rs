//! The realm's rules for the packet filter: one anchor, loaded once, when the network is set up.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use ipnetwork::IpNetwork;

use super::Settings;
use crate::fault::{Context, Fault, Kind, Result};
use crate::network::{Policy, Published};

/// Under this name the administrator's pf.conf(5) calls the anchors of all realms.
const PARENT: &str = "faas-jails";

/// The lines by which pf.conf(5) calls the anchors of all realms: for translation out and in, for filtering.
pub const ANCHOR_LINES: [&str; 3] =
    ["nat-anchor \"faas-jails/*\"", "rdr-anchor \"faas-jails/*\"", "anchor \"faas-jails/*\""];

/// Those of [`ANCHOR_LINES`] that the rules in force do not have.
pub fn missing_anchors() -> Result<Vec<&'static str>> {
    let nat = pfctl(&["-q", "-s", "nat"], "").context(|| "cannot read pf's rules")?;
    let filter = pfctl(&["-q", "-s", "rules"], "").context(|| "cannot read pf's rules")?;
    Ok(missing(&nat, &filter))
}

/// A realm's anchor, loaded as a whole.
pub struct Filter<'a> {
    pub settings: &'a Settings,
    /// Where replicas with a stack of their own are; it need not be there.
    pub bridge: &'a str,
    pub networks: &'a [IpNetwork],
    pub policy: &'a Policy,
}

impl Filter<'_> {
    fn anchor(&self) -> String {
        format!("{PARENT}/{}", self.settings.realm)
    }

    /// The way out, if replicas have one.
    fn way_out(&self) -> Option<&str> {
        self.settings.egress.as_deref().filter(|_| self.settings.nat)
    }

    /// The rules, or nothing when there is nothing to be done.
    ///
    /// Replies to what replicas ask are matched to their state before any rule, so inbound packets for or
    /// from the network's addresses are somebody else's, and are dropped. So is what comes from a bridge under
    /// an address that is not the network's: root in a VNET jail can give itself any.
    pub fn rules(&self) -> Option<String> {
        if self.way_out().is_none() && self.policy.is_empty() {
            return None;
        }
        let bridge = self.bridge;
        let mut tables = format!("table <replicas> const {{ {} }}\n", joined(self.networks));
        let (mut translation, mut filter) = (String::new(), String::new());
        for Published { port, targets } in &self.policy.published {
            let Some(egress) = &self.settings.egress else { continue };
            for (family, v4) in [("inet", true), ("inet6", false)] {
                let targets: Vec<_> = targets.iter().filter(|target| target.is_ipv4() == v4).collect();
                if targets.is_empty() {
                    continue;
                }
                let table = format!("{}{}{family}", port.protocol, port.host);
                tables += &format!("table <{table}> {{ {} }}\n", joined(&targets));
                translation += &format!(
                    "rdr pass on {egress} {family} proto {} from any to ({egress}) port {} -> <{table}> port {} round-robin\n",
                    port.protocol, port.host, port.inside
                );
            }
        }
        // Without these nobody finds anybody in IPv6.
        filter += &format!("pass in quick on {bridge} inet6 proto icmp6 all icmp6-type {{ neighbrsol, neighbradv }}\n");
        if !self.policy.closed.is_empty() {
            let closed: Vec<_> = self.policy.closed.iter().collect();
            tables += &format!("table <closed> const {{ {} }}\n", joined(&closed));
            filter += &format!(
                "pass out quick on {bridge} from any to <closed> keep state\nblock drop in quick on {bridge} from <closed> to any\n"
            );
        }
        if let Some(egress) = self.way_out() {
            for family in ["inet", "inet6"] {
                if self.networks.iter().any(|network| network.is_ipv4() == (family == "inet")) {
                    translation += &format!("nat on {egress} {family} from <replicas> to ! <replicas> -> ({egress})\n");
                }
            }
            filter += &format!(
                "block drop in quick on {egress} from <replicas> to any\nblock drop in quick on {egress} from any to <replicas>\n"
            );
        }
        filter += &format!("block drop in quick on {bridge} from ! <replicas> to any\n");
        Some(tables + &translation + &filter)
    }

    /// Loads the rules, in place of those that were there.
    pub fn load(&self) -> Result<()> {
        let Some(rules) = self.rules() else { return self.unload() };
        self.possible()?;
        let anchor = self.anchor();
        pfctl(&["-q", "-a", &anchor, "-f", "-"], &rules).context(|| format!("cannot load pf anchor {anchor}"))?;
        Ok(())
    }

    /// Empties the anchor. A host without pf has none, which is success.
    pub fn unload(&self) -> Result<()> {
        if !std::path::Path::new("/dev/pf").exists() {
            return Ok(());
        }
        let anchor = self.anchor();
        pfctl(&["-q", "-a", &anchor, "-F", "all"], "").context(|| format!("cannot empty pf anchor {anchor}"))?;
        Ok(())
    }

    /// Rules of a pf that is off, or in an anchor that the main rules do not call, would be loaded and never asked.
    fn possible(&self) -> Result<()> {
        let unsupported = |message: String| Err(Fault::new(Kind::Unsupported, message));
        if !self.policy.published.is_empty() && self.settings.egress.is_none() {
            return unsupported(
                "ports are published on the interface that leads outside; name it: egress in [network] of the configuration"
                    .into(),
            );
        }
        if !pfctl(&["-s", "info"], "")?.contains("Status: Enabled") {
            return unsupported(OFF.into());
        }
        let missing = missing_anchors()?;
        let [nat, rdr, filter] = ANCHOR_LINES;
        let needed = [(nat, self.way_out().is_some()), (rdr, !self.policy.published.is_empty()), (filter, true)];
        let lacking: Vec<String> = needed
            .into_iter()
            .filter(|(line, needed)| *needed && missing.contains(line))
            .map(|(line, _)| format!("the line {line}"))
            .collect();
        match lacking.is_empty() {
            true => Ok(()),
            false => unsupported(format!(
                "pf's rules do not call this program's: add {} to /etc/pf.conf and run: service pf reload",
                lacking.join(" and ")
            )),
        }
    }
}

/// Said where pf is not there or off.
const OFF: &str = "pf is not running; enable it with: sysrc pf_enable=YES && service pf start";

fn joined(all: &[impl ToString]) -> String {
    let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// The lines that pf.conf(5) needs and that are not in what pfctl(8) shows.
fn missing(nat: &str, filter: &str) -> Vec<&'static str> {
    let [out, into, _] = ANCHOR_LINES;
    let shown = |line: &&str| {
        let text = if [out, into].contains(line) { nat } else { filter };
        text.lines().any(|there| there.starts_with(*line))
    };
    ANCHOR_LINES.into_iter().filter(|line| !shown(line)).collect()
}

fn pfctl(arguments: &[&str], input: &str) -> Result<String> {
    let Output { status, stdout, stderr } = run(arguments, input).context(|| "cannot run pfctl")?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&stderr);
    if said.contains("/dev/pf") {
        return Err(Fault::new(Kind::Unsupported, OFF));
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
    fn rules_name_the_networks_the_way_out_and_what_is_published() {
        let mut settings = Settings { realm: "fj".parse().unwrap(), egress: Some("vtnet0".to_owned()), nat: true };
        let networks = ["10.62.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()];
        let mut policy = Policy::default();
        let rules = |settings: &Settings, policy: &Policy| {
            Filter { settings, bridge: "fjbr", networks: &networks, policy }.rules()
        };
        let plain = rules(&settings, &policy).unwrap();
        assert!(plain.contains("table <replicas> const { 10.62.0.0/16, fd00::/64 }"), "{plain}");
        assert!(plain.contains("nat on vtnet0 inet6 from <replicas> to ! <replicas> -> (vtnet0)"), "{plain}");
        assert!(plain.contains("quick on fjbr from ! <replicas>") && !plain.contains("closed"), "{plain}");
        settings.nat = false;
        assert_eq!(rules(&settings, &policy), None);
        policy.closed.insert("10.62.0.9".parse().unwrap());
        policy.published.push(Published {
            port: "8443:8080/tcp".parse().unwrap(),
            targets: vec!["10.62.0.2".parse().unwrap(), "10.62.0.3".parse().unwrap()],
        });
        let both = rules(&settings, &policy).unwrap();
        assert!(both.contains("table <tcp8443inet> { 10.62.0.2, 10.62.0.3 }"), "{both}");
        assert!(both.contains("to (vtnet0) port 8443 -> <tcp8443inet> port 8080 round-robin"), "{both}");
        assert!(both.contains("block drop in quick on fjbr from <closed>") && !both.contains("nat on"), "{both}");
    }

    #[test]
    fn an_anchor_that_nobody_calls_is_noticed() {
        let nat = "nat-anchor \"faas-jails/*\" all\nrdr-anchor \"faas-jails/*\" all\n";
        assert!(missing(nat, "anchor \"faas-jails/*\" all\n").is_empty());
        assert_eq!(missing("", "pass all\nanchor \"faas-jails/*\" all\n"), ANCHOR_LINES[..2]);
        assert_eq!(missing("", ""), ANCHOR_LINES);
    }
}
