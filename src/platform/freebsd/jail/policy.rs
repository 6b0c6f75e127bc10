//! What a replica's jail may do: nothing that is not written here.
//!
//! Every `allow.*` that this kernel knows is spelled out as off, whatever the sysctls' defaults say (four
//! are on by default: set_hostname, reserved_ports, unprivileged_proc_debug, suser; JAIL_DEFAULT_ALLOW in
//! `sys/kern/kern_jail.c`). The list is the kernel's own, so that a parameter of a later kernel is off too.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::Params;
use crate::fault::{Context, Result};
use crate::network::Attachment;
use crate::platform::freebsd::sysctl;
use crate::sandbox::{Personality, Plan};

/// Where the kernel lists its jail parameters.
const KNOWN: &str = "security.jail.param";

/// JAIL_SYS_* of sys/jail.h as parameters carry them.
const DISABLE: i32 = libc::JAIL_SYS_DISABLE;
const NEW: i32 = libc::JAIL_SYS_NEW;
const INHERIT: i32 = libc::JAIL_SYS_INHERIT;

/// security(7): file flags stay, disks and packet filters cannot be touched.
const SECURELEVEL: i32 = 3;

/// The jail parameters that this kernel and its modules know.
#[derive(Debug, Clone)]
pub struct Known(Vec<String>);

impl Known {
    /// Asks the kernel.
    pub fn ask() -> Result<Self> {
        let names: io::Result<Vec<String>> = sysctl::names_below(KNOWN);
        names.map(Self).context(|| format!("cannot list {KNOWN}"))
    }

    /// Whether `name` may be passed.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known == name)
    }

    /// Every `allow.*`, as its negation: `allow.nochflags`, `allow.mount.nozfs`.
    fn refusals(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter(|name| name.starts_with("allow.")).map(|name| {
            let (group, last) = name.rsplit_once('.').unwrap_or(("", name));
            format!("{group}.no{last}")
        })
    }
}

/// Settings of a host that go into every jail.
#[derive(Debug, Clone, Copy)]
pub struct Host<'a> {
    /// What the kernel knows.
    pub known: &'a Known,
    /// The devfs ruleset that its /dev follows.
    pub devfs_ruleset: u16,
}

/// The whole parameter list for `plan` with its root mounted at `root`.
pub fn params(plan: &Plan, root: &Path, host: Host<'_>) -> Result<Params> {
    let mut params = Params::default();
    params
        .text("name", &plan.replica.to_string())?
        .text("path", &root.to_string_lossy())?
        .flag("persist")?
        .text("host.hostname", &plan.hostname)?
        .text("host.domainname", "")?
        .text("host.hostuuid", &uuid::Uuid::new_v4().to_string())?
        .bytes("host.hostid", 0u64.to_ne_bytes().to_vec())?
        .int("children.max", 0)?
        .int("enforce_statfs", 2)?
        .int("devfs_ruleset", host.devfs_ruleset.into())?
        .int("securelevel", SECURELEVEL)?;
    for name in ["sysvmsg", "sysvsem", "sysvshm"] {
        if host.known.has(name) {
            params.int(name, DISABLE)?;
        }
    }
    network(&mut params, &plan.network)?;
    for refusal in host.known.refusals() {
        // The child needs root's privileges until it has become the plan's user; see `drop_root`.
        let wanted = match refusal.as_str() {
            "allow.nosuser" => "allow.suser",
            other => other,
        };
        params.flag(wanted)?;
    }
    if plan.personality == Personality::Linux {
        params.int("linux", NEW)?;
    }
    Ok(params)
}

fn network(params: &mut Params, attachment: &Attachment) -> Result<()> {
    match attachment {
        Attachment::Inherit => {
            params.int("ip4", INHERIT)?.int("ip6", INHERIT)?;
        }
        // jail_set(2) refuses vnet together with any ip4 or ip6 parameter.
        Attachment::Vnet { .. } => {
            params.int("vnet", NEW)?;
        }
        Attachment::Alias(addresses) => {
            let v4: Vec<u8> = addresses.iter().filter_map(v4).flatten().collect();
            let v6: Vec<u8> = addresses.iter().filter_map(v6).flatten().collect();
            family(params, "ip4", v4)?;
            family(params, "ip6", v6)?;
        }
        Attachment::None | Attachment::Namespace(_) => {
            params.int("ip4", DISABLE)?.int("ip6", DISABLE)?;
        }
    }
    Ok(())
}

fn family(params: &mut Params, name: &str, addresses: Vec<u8>) -> Result<()> {
    if addresses.is_empty() {
        params.int(name, DISABLE)?;
    } else {
        params.int(name, NEW)?.bytes(&format!("{name}.addr"), addresses)?;
    }
    Ok(())
}

fn v4(address: &IpAddr) -> Option<[u8; 4]> {
    match address {
        IpAddr::V4(v4) => Some(v4.octets()),
        IpAddr::V6(_) => None,
    }
}

fn v6(address: &IpAddr) -> Option<[u8; 16]> {
    match address {
        IpAddr::V6(v6) => Some(v6.octets()),
        IpAddr::V4(_) => None,
    }
}
