//! The packet filter's rules for one bridge: address translation, published ports, replicas that may begin nothing.
//! An nftables table of its own, replaced as a whole; where there is no nft(8), iptables rules, which can translate
//! addresses only. Commands run at set-up, at teardown and when a [`Policy`] changes, never when an ordinary replica
//! starts.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::process::{Command, Output, Stdio};

use ipnetwork::IpNetwork;

use crate::fault::{Context, Fault, Kind, Result};
use crate::function::Realm;
use crate::network::{Policy, Published};

/// The rules for one bridge.
pub(super) struct Rules<'a> {
    pub realm: &'a Realm,
    pub bridge: &'a str,
    pub networks: &'a [IpNetwork],
    pub nat: bool,
    pub policy: &'a Policy,
}

/// Both families, each with the program that speaks it.
const PROGRAMS: [&str; 2] = ["iptables", "ip6tables"];
/// The tables of iptables in which rules are, where there is no nft.
const ALONE: &[&str] = &["nat", "filter"];
/// And where there is.
const BESIDE_NFT: &[&str] = &["filter"];

impl Rules<'_> {
    /// Puts the rules in place of any that were there before.
    pub fn apply(&self) -> Result<()> {
        if !self.nat && self.policy.is_empty() {
            return self.remove();
        }
        match nft(&self.table()) {
            None if !self.policy.is_empty() => Err(Fault::new(
                Kind::Unsupported,
                "published ports and the network mode none need nft; install the package nftables",
            )),
            None => self.append(),
            Some(done) => done.and_then(|()| self.let_pass()),
        }
    }

    /// Takes the rules away. Already gone is success.
    pub fn remove(&self) -> Result<()> {
        let name = self.name();
        // Adding first makes deleting one that is not there a success.
        let tables = match nft(&format!("add table inet {name}\ndelete table inet {name}\n")) {
            Some(done) => done.map(|()| BESIDE_NFT)?,
            None => ALONE,
        };
        PROGRAMS.iter().try_for_each(|program| self.clear(program, tables))
    }

    fn name(&self) -> String {
        format!("faas_jails_{}", self.realm)
    }

    fn table(&self) -> String {
        let (name, bridge) = (self.name(), self.bridge);
        let mut text = format!("add table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n");
        let ports: String = self.policy.published.iter().map(|published| self.redirection(published)).collect();
        let _ = write!(
            text,
            "  chain prerouting {{\n    type nat hook prerouting priority dstnat; policy accept;\n{ports}  }}\n  chain output \
             {{\n    type nat hook output priority -100; policy accept;\n    ip daddr 127.0.0.0/8 accept\n    ip6 daddr ::1 \
             accept\n{ports}  }}\n"
        );
        let _ = writeln!(
            text,
            "  chain input {{\n    type filter hook input priority filter; policy accept;\n{}  }}",
            self.closed()
        );
        text += "  chain forward {\n    type filter hook forward priority filter; policy accept;\n";
        text += &self.closed();
        text += &self.forwarding();
        text += "  }\n";
        if self.nat {
            text += "  chain postrouting {\n    type nat hook postrouting priority srcnat; policy accept;\n";
            for network in self.networks {
                let _ =
                    writeln!(text, "    oifname != \"{bridge}\" {} saddr {network} masquerade", family(network.ip()));
            }
            text += "  }\n";
        }
        text + "}\n"
    }

    /// Replicas reach no other, speak under addresses of the pool only, and are reached where they asked or where a
    /// port is published.
    fn forwarding(&self) -> String {
        let bridge = self.bridge;
        if !self.nat {
            return String::new();
        }
        let mut text = format!("    iifname \"{bridge}\" oifname \"{bridge}\" drop\n");
        for (v4, word) in [(true, "ip"), (false, "ip6")] {
            let list: Vec<String> =
                self.networks.iter().filter(|network| network.is_ipv4() == v4).map(IpNetwork::to_string).collect();
            let other = if v4 { "ipv4" } else { "ipv6" };
            let _ = match list.is_empty() {
                true => writeln!(text, "    iifname \"{bridge}\" meta nfproto {other} drop"),
                false => writeln!(text, "    iifname \"{bridge}\" {word} saddr != {{ {} }} drop", list.join(", ")),
            };
        }
        let _ = write!(
            text,
            "    oifname \"{bridge}\" ct state established,related accept\n    oifname \"{bridge}\" ct status dnat accept\n    \
             oifname \"{bridge}\" drop\n"
        );
        text
    }

    /// What a closed replica begins is dropped; its answers are not.
    fn closed(&self) -> String {
        let mut text = String::new();
        for v4 in [true, false] {
            let list: Vec<String> =
                self.policy.closed.iter().filter(|address| address.is_ipv4() == v4).map(IpAddr::to_string).collect();
            if !list.is_empty() {
                let _ = writeln!(
                    text,
                    "    iifname \"{}\" {} saddr {{ {} }} ct state != {{ established, related }} drop",
                    self.bridge,
                    if v4 { "ip" } else { "ip6" },
                    list.join(", ")
                );
            }
        }
        text
    }

    /// One line a family: replicas take turns.
    fn redirection(&self, published: &Published) -> String {
        let port = published.port;
        let mut text = String::new();
        for v4 in [true, false] {
            let targets: Vec<&IpAddr> = published.targets.iter().filter(|target| target.is_ipv4() == v4).collect();
            let (word, kind) = if v4 { ("ip", "ipv4") } else { ("ip6", "ipv6") };
            let map: Vec<String> = targets.iter().enumerate().map(|(n, target)| format!("{n} : {target}")).collect();
            if targets.is_empty() {
                continue;
            }
            let _ = writeln!(
                text,
                "    meta nfproto {kind} fib daddr type local {} dport {} dnat {word} to numgen inc mod {} map {{ {} }} : {}",
                port.protocol,
                port.host,
                targets.len(),
                map.join(", "),
                port.inside
            );
        }
        text
    }

    /// Docker and ufw drop what iptables does not let pass; no table of ours can overrule that.
    fn let_pass(&self) -> Result<()> {
        for (program, v4) in PROGRAMS.into_iter().zip([true, false]) {
            if !self.networks.iter().any(|network| network.is_ipv4() == v4) {
                continue;
            }
            self.clear(program, BESIDE_NFT)?;
            let listed = run(program, ["-w", "-S", "FORWARD"], "").and_then(Result::ok).unwrap_or_default();
            if listed.contains("-P FORWARD DROP") {
                self.add(program, &self.passage())?;
            }
        }
        Ok(())
    }

    /// Everything, where there is no nft.
    fn append(&self) -> Result<()> {
        let bridge = self.bridge;
        for (program, v4) in PROGRAMS.into_iter().zip([true, false]) {
            let networks: Vec<&IpNetwork> = self.networks.iter().filter(|network| network.is_ipv4() == v4).collect();
            if networks.is_empty() {
                continue;
            }
            self.clear(program, ALONE)?;
            let mut rules: Vec<String> = networks
                .iter()
                .map(|network| format!("nat POSTROUTING -s {network} ! -o {bridge} -j MASQUERADE"))
                .collect();
            rules.push(format!("filter FORWARD -i {bridge} -o {bridge} -j DROP"));
            let ours = networks.iter().map(|network| format!("filter FORWARD -i {bridge} -s {network} -j ACCEPT"));
            rules.extend(ours);
            rules.push(format!("filter FORWARD -i {bridge} -j DROP"));
            rules.extend(self.passage().into_iter().skip(1));
            rules.push(format!("filter FORWARD -o {bridge} -j DROP"));
            self.add(program, &rules)?;
        }
        Ok(())
    }

    /// What lets replicas out, and answers and published ports in.
    fn passage(&self) -> Vec<String> {
        let bridge = self.bridge;
        vec![
            format!("filter FORWARD -i {bridge} -j ACCEPT"),
            format!("filter FORWARD -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT"),
        ]
    }

    fn add(&self, program: &str, rules: &[String]) -> Result<()> {
        let comment = self.name();
        for rule in rules {
            let mut words = rule.split(' ');
            let (table, chain) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let fixed = ["-w", "-t", table, "-A", chain, "-m", "comment", "--comment", &comment];
            let missing = || {
                Fault::new(
                    Kind::Unsupported,
                    format!(
                        "network address translation for bridge {} needs nft or {program}; install the package nftables, or turn it off in the configuration",
                        self.bridge
                    ),
                )
            };
            run(program, fixed.into_iter().chain(words), "")
                .ok_or_else(missing)?
                .context(|| format!("cannot add rules for bridge {}", self.bridge))?;
        }
        Ok(())
    }

    /// Takes away every rule that bears this realm's name.
    fn clear(&self, program: &str, tables: &[&str]) -> Result<()> {
        let name = self.name();
        for table in tables {
            let Some(listed) = run(program, ["-w", "-t", *table, "-S"], "") else { return Ok(()) };
            // A kernel without the family or the table has no rules in it.
            for rule in listed.unwrap_or_default().lines().filter(|line| line.split(' ').any(|word| word == name)) {
                let words = ["-w", "-t", *table, "-D"].into_iter().chain(rule.split(' ').skip(1));
                let removed = run(program, words, "").unwrap_or(Ok(String::new()));
                removed.context(|| format!("cannot remove rules for bridge {}", self.bridge))?;
            }
        }
        Ok(())
    }
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

/// `None`: there is no nft here.
fn nft(script: &str) -> Option<Result<()>> {
    run("nft", ["-f", "-"], script).map(|result| result.map(drop))
}

/// Runs a program on `input` and returns what it said. `None`: there is no such program.
fn run<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>, input: &str) -> Option<Result<String>> {
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(error).context(|| format!("cannot run {program}"))),
        Ok(child) => child,
    };
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let result = match child.wait_with_output() {
        Err(error) => Err(error).context(|| format!("cannot run {program}")),
        Ok(output) => said(program, &output)
            .and_then(|said| written.context(|| format!("cannot write to {program}")).map(|()| said)),
    };
    Some(result)
}

fn said(program: &str, output: &Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(Fault::new(Kind::System, format!("{program} failed ({}): {}", output.status, words.trim())))
}
