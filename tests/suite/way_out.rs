//! The way out of replicas: pf's anchor as the daemon loads it. A second network stack plays the world.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::json;

use crate::needs_root;
use crate::support::{Daemon, announce_skip, eventually, this_test};

/// The world's address, and the host's on the way there (RFC 5737).
const WORLD: &str = "198.51.100.2";
const HERE: &str = "198.51.100.1";

/// A jail with a stack of its own and a link to the host; this is the link's name on the host.
struct World(String);

impl World {
    fn make() -> Self {
        let link = run(&["ifconfig", "epair", "create"]).trim().to_owned();
        let inner = format!("{}b", link.trim_end_matches('a'));
        run(&["jail", "-c", "name=fjworld", "path=/", "vnet", "persist", &format!("vnet.interface={inner}")]);
        run(&["ifconfig", &link, "inet", &format!("{HERE}/30"), "up"]);
        run(&["ifconfig", "-j", "fjworld", &inner, "inet", &format!("{WORLD}/30"), "up"]);
        Self(link)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        run(&["jail", "-r", "fjworld"]);
        eventually("the link is back", || run(&["ifconfig", "-l"]).contains(&self.0).then_some(()));
        run(&["ifconfig", &self.0, "destroy"]);
    }
}

fn run(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output().expect("running a command");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Loads these as the host's rules, and enables pf, which fails when it is enabled.
fn main_rules(text: &str) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), text).expect("writing the rules");
    run(&["pfctl", "-qf", &file.path().display().to_string()]);
    let _ = Command::new("pfctl").arg("-qe").output().expect("running pfctl");
}

/// Held by the test whose rules the host has: there is one set.
static RULES: Mutex<()> = Mutex::new(());

/// The turn of a test that may replace the host's rules.
fn allowed() -> Option<MutexGuard<'static, ()>> {
    if std::env::var_os("FAAS_JAILS_TEST_PF").is_none() {
        announce_skip(&this_test(), "replaces the host's pf rules; set FAAS_JAILS_TEST_PF=1 where that is allowed");
        return None;
    }
    Some(RULES.lock().unwrap_or_else(PoisonError::into_inner))
}

#[test]
fn functions_reach_the_world_through_the_daemons_anchor_and_purge_empties_it() {
    needs_root!();
    let Some(_turn) = allowed() else { return };
    main_rules("nat-anchor \"faas-jails/*\"\nanchor \"faas-jails/*\"\npass all\n");
    let world = World::make();
    let listening = Command::new("jexec").args(["fjworld", "nc", "-kl", WORLD, "9100"]).spawn();
    let mut listening = listening.expect("listening in the world");
    {
        let egress = format!("egress = \"{}\"", world.0);
        let mut daemon = Daemon::with().network("nat = true").network(&egress).start();
        daemon.deploy(json!({"service": "f"}));
        let anchor = format!("faas-jails/{}", daemon.realm());
        eventually("the function reaches the world", || {
            (daemon.call(&format!("f/dial?addr={WORLD}:9100")).status == 200).then_some(())
        });
        let shown = run(&["pfctl", "-qa", &anchor, "-t", "replicas", "-T", "show"]);
        assert!(shown.contains(&daemon.subnet()), "{shown}");
        daemon.kill9();
        daemon.start_again();
        assert_eq!(daemon.call(&format!("f/dial?addr={WORLD}:9100")).status, 200, "after a restart");
        daemon.kill9();
        assert!(daemon.run(&["purge"]).status.success());
        assert_eq!(run(&["pfctl", "-qa", &anchor, "-s", "rules"]), "");
        assert_eq!(run(&["pfctl", "-qa", &anchor, "-s", "nat"]), "");
        assert_eq!(run(&["pfctl", "-qa", &anchor, "-s", "Tables"]), "");
    }
    listening.kill().expect("ending what listens");
    listening.wait().expect("waiting for it");
}

#[test]
fn a_daemon_whose_anchor_nobody_calls_does_not_start_and_says_what_to_add() {
    needs_root!();
    let Some(_turn) = allowed() else { return };
    main_rules("pass all\n");
    let daemon = Daemon::with().without_images().network("nat = true").network("egress = \"lo0\"").prepare();
    let output = daemon.run(&["serve"]);
    let ended_well = output.status.success();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!ended_well && said.contains("nat-anchor \"faas-jails/*\""), "{said}");
}
