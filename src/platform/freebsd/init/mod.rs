//! What a FreeBSD host needs before the first `faas-jails serve`.

use std::process::{Command, Stdio};

use crate::config::Config;
use crate::fault::{Context, Fault, Kind, Result};
use crate::network::Mode;
use crate::setup::{Choices, Item, MARK, MarkedFile};

mod devices;
mod kernel;
mod link;
mod packets;
mod pool;

/// Where rc.d scripts of programs beyond the base system are.
const RC_SCRIPT: &str = "/usr/local/etc/rc.d/faas_jails";

/// Run-time linkers, as paths below a root (rtld(1)).
pub const LOADERS: &[&str] = &["libexec/ld-elf.so.1"];

/// Everything, in the order of making.
pub fn items(config: &Config, choices: &Choices) -> Vec<Box<dyn Item>> {
    let egress = config.network.egress.clone().filter(|_| config.network.nat);
    let vnet = config.network.mode == Mode::Vnet;
    let mut items: Vec<Box<dyn Item>> = vec![Box::new(kernel::Modules::new("zfs", &["zfs"], "sysrc zfs_enable=YES"))];
    items.push(Box::new(kernel::Modules::new(
        "file systems",
        &["nullfs", "fdescfs", "tmpfs"],
        "sysrc kld_list+=\"nullfs fdescfs tmpfs\"",
    )));
    if vnet {
        let modules = &["if_epair", "if_bridge"];
        items.push(Box::new(kernel::Modules::new("links", modules, "sysrc kld_list+=\"if_epair if_bridge\"")));
    }
    if choices.linux {
        let modules = &["linux64", "linprocfs", "linsysfs"];
        items.push(Box::new(kernel::Modules::new("linux programs", modules, "sysrc linux_enable=YES")));
    }
    items.push(Box::new(kernel::Counting { required: config.limits.required }));
    items.push(Box::new(pool::Pool::new(config, choices)));
    items.push(Box::new(devices::Ruleset));
    items.push(Box::new(link::Link::new(config)));
    if egress.is_some() {
        items.push(Box::new(kernel::Modules::new("pf module", &["pf"], "sysrc pf_enable=YES")));
    }
    items.push(Box::new(packets::Anchors { egress, write: choices.write_pf }));
    items.push(Box::new(MarkedFile {
        name: "service",
        path: RC_SCRIPT.into(),
        content: format!("{}{MARK}\n", include_str!("../../../../deploy/freebsd/faas_jails")),
        mode: 0o555,
        hint: service_hint(),
    }));
    items
}

/// How to start what was set up, where it differs from the script's defaults.
fn service_hint() -> String {
    let usual = std::path::Path::new("/usr/local/sbin/faas-jails");
    match std::env::current_exe() {
        Ok(path) if path != usual => format!(
            "; run: sysrc faas_jails_enable=YES faas_jails_binary={} && service faas_jails start",
            path.display()
        ),
        _ => "; run: sysrc faas_jails_enable=YES && service faas_jails start".to_owned(),
    }
}

/// Runs a command of the base system; what it printed, or what it complained about.
fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let shown = || format!("{program} {}", arguments.join(" "));
    let mut command = Command::new(program);
    let output = command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).output().context(shown)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Fault::new(Kind::System, format!("{}: {}", shown(), said.trim())))
}
