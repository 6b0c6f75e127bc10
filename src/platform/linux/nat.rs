//! Address translation and forwarding rules of one bridge: an nftables table of its own, or iptables rules where
//! there is no nft(8). Commands run at set-up and teardown only, never when a replica starts.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::process::{Command, Output, Stdio};

use ipnetwork::IpNetwork;

use crate::fault::{Context, Fault, Kind, Result};
use crate::function::Realm;

/// The rules for one bridge.
pub(super) struct Rules<'a> {
    pub realm: &'a Realm,
    pub bridge: &'a str,
    pub subnet: IpNetwork,
}

impl Rules<'_> {
    /// Puts the rules in place of any that an earlier run left.
    pub fn add(&self) -> Result<()> {
        match nft(&self.table()) {
            None => self.append(&self.iptables()),
            // Docker and ufw drop what iptables does not let pass; no table of ours can overrule that.
            Some(Ok(())) if self.forwarding().contains("-P FORWARD DROP") => self.append(&self.passage()),
            Some(done) => done,
        }
    }

    /// What iptables says of forwarded packets; nothing where it is not in use.
    fn forwarding(&self) -> String {
        let listed = run(self.iptables_program(), ["-w", "-S", "FORWARD"], "");
        listed.and_then(Result::ok).unwrap_or_default()
    }

    fn append(&self, rules: &[String]) -> Result<()> {
        for rule in rules {
            if self.run_iptables("-C", rule)?.is_err() {
                self.run_iptables("-A", rule)?.context(|| format!("cannot add rules for bridge {}", self.bridge))?;
            }
        }
        Ok(())
    }

    /// Takes the rules away. Already gone is success.
    pub fn remove(&self) -> Result<()> {
        let name = self.name();
        // Adding first makes deleting one that is not there a success.
        let rules = match nft(&format!("add table inet {name}\ndelete table inet {name}\n")) {
            Some(Err(fault)) => return Err(fault),
            Some(Ok(())) if !self.forwarding().contains(&name) => return Ok(()),
            Some(Ok(())) => self.passage(),
            None => self.iptables(),
        };
        for rule in rules {
            while self.run_iptables("-C", &rule)?.is_ok() {
                self.run_iptables("-D", &rule)?
                    .context(|| format!("cannot remove rules for bridge {}", self.bridge))?;
            }
        }
        Ok(())
    }

    fn name(&self) -> String {
        format!("faas_jails_{}", self.realm)
    }

    fn table(&self) -> String {
        let (name, bridge, subnet) = (self.name(), self.bridge, self.subnet);
        let family = if subnet.is_ipv4() { "ip" } else { "ip6" };
        format!(
            "add table inet {name}
delete table inet {name}
table inet {name} {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname != \"{bridge}\" {family} saddr {subnet} masquerade
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname \"{bridge}\" oifname \"{bridge}\" drop
    iifname \"{bridge}\" {family} saddr != {subnet} drop
    oifname \"{bridge}\" ct state established,related accept
    oifname \"{bridge}\" drop
  }}
}}
"
        )
    }

    fn iptables(&self) -> Vec<String> {
        let (bridge, subnet) = (self.bridge, self.subnet);
        let mut rules = vec![
            format!("nat POSTROUTING -s {subnet} ! -o {bridge} -j MASQUERADE"),
            format!("filter FORWARD -i {bridge} -o {bridge} -j DROP"),
            format!("filter FORWARD -i {bridge} ! -s {subnet} -j DROP"),
        ];
        rules.extend(self.passage());
        rules.push(format!("filter FORWARD -o {bridge} -j DROP"));
        rules
    }

    /// What lets replicas out, and answers in.
    fn passage(&self) -> Vec<String> {
        let bridge = self.bridge;
        vec![
            format!("filter FORWARD -i {bridge} -j ACCEPT"),
            format!("filter FORWARD -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        ]
    }

    fn iptables_program(&self) -> &'static str {
        if self.subnet.is_ipv4() { "iptables" } else { "ip6tables" }
    }

    /// The outer result says whether there is an iptables at all, the inner one what it answered.
    fn run_iptables(&self, verb: &str, rule: &str) -> Result<Result<()>> {
        let program = self.iptables_program();
        let comment = self.name();
        let mut words = rule.split(' ');
        let (table, chain) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let fixed = ["-w", "-t", table, verb, chain, "-m", "comment", "--comment", &comment];
        match run(program, fixed.into_iter().chain(words), "") {
            None => Err(Fault::new(
                Kind::Unsupported,
                format!(
                    "network address translation for bridge {} needs nft or {program}; install the package nftables, or turn it off in the configuration",
                    self.bridge
                ),
            )),
            Some(result) => Ok(result.map(drop)),
        }
    }
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
