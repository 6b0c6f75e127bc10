//! Exits: of what this daemon started, and of what it found.

use std::process::Command;
use std::time::Duration;

use faas_jails::sandbox::{Exit, Sandbox, Signal};

use crate::support::{Host, PATIENCE, until};

#[test]
fn a_status_is_reported_whether_asked_for_before_or_after() {
    let Some(host) = Host::new() else { return };
    let plan = host.plan("exit 3");
    host.sandbox().start(&plan).unwrap();
    assert_eq!(host.exit(host.sandbox(), &plan.replica), Exit::Code(3));
    assert_eq!(host.exit(host.sandbox(), &plan.replica), Exit::Code(3));
    host.remove(&plan.replica).unwrap();
}

#[test]
fn a_hundred_short_lives_are_all_noticed() {
    let Some(host) = Host::new() else { return };
    let tree = host.tree();
    for number in 0..100 {
        let plan = host.plan_on(faas_jails::storage::Root::Directory(tree.clone()), &format!("exit {number}"));
        assert_eq!(host.run(&plan).1, Exit::Code(number));
    }
}

#[test]
fn signals_arrive_and_are_reported() {
    let Some(host) = Host::new() else { return };
    for (signal, expected) in [(Signal::Term, libc::SIGTERM), (Signal::Kill, libc::SIGKILL)] {
        let plan = host.plan("echo ready; exec sleep 300");
        host.sandbox().start(&plan).unwrap();
        host.wait_for(&plan.replica, "ready");
        host.sandbox().signal(&plan.replica, signal).unwrap();
        assert_eq!(host.exit(host.sandbox(), &plan.replica), Exit::Signal(expected));
        host.sandbox().signal(&plan.replica, signal).unwrap();
        assert!(!host.sandbox().list().unwrap()[0].alive);
        host.remove(&plan.replica).unwrap();
    }
}

#[test]
fn a_replica_is_adopted_and_its_exit_known() {
    let Some(mut host) = Host::new() else { return };
    let plan = host.plan("trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done");
    host.sandbox().start(&plan).unwrap();
    host.wait_for(&plan.replica, "ready");
    drop(host.sandbox.take());
    host.sandbox = Some(host.open(faas_jails::platform::freebsd::sandbox::Uncounted::Refuse));
    let found = host.sandbox().list().unwrap();
    assert!(found.len() == 1 && found[0].alive && found[0].replica == plan.replica, "{found:?}");
    host.sandbox().signal(&plan.replica, Signal::Term).unwrap();
    assert_eq!(host.exit(host.sandbox(), &plan.replica), Exit::Code(7));
    host.remove(&plan.replica).unwrap();
}

#[test]
fn watching_a_replica_that_is_gone_reports_at_once() {
    let Some(host) = Host::new() else { return };
    let replica = host.replica();
    assert_eq!(host.exit(host.sandbox(), &replica), Exit::Unknown);
    host.sandbox().signal(&replica, Signal::Term).unwrap();
    host.remove(&replica).unwrap();
}

/// Runs in a process of its own that is then killed: see the test below.
#[test]
#[ignore = "the daemon's part of a_replica_outlives_a_killed_daemon"]
fn daemon_that_will_be_killed() {
    let Ok(dir) = std::env::var("FAAS_JAILS_TEST_DAEMON") else { return };
    let Some(host) = Host::new() else { return };
    let plan = host.plan("echo ready; exec sleep 300");
    host.sandbox().start(&plan).unwrap();
    host.wait_for(&plan.replica, "ready");
    let facts = format!("{}\n{}\n", plan.replica, host.path("run").display());
    std::fs::write(std::path::Path::new(&dir).join("facts.new"), facts).unwrap();
    std::fs::rename(format!("{dir}/facts.new"), format!("{dir}/facts")).unwrap();
    std::thread::sleep(PATIENCE);
}

#[test]
fn a_replica_outlives_a_killed_daemon() {
    let Some(host) = Host::new() else { return };
    let dir = host.path("daemon");
    std::fs::create_dir(&dir).unwrap();
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "exits::daemon_that_will_be_killed", "--ignored", "--nocapture"])
        .env("FAAS_JAILS_TEST_DAEMON", &dir)
        .env("TMPDIR", &dir)
        .spawn()
        .unwrap();
    let wrote = until(|| dir.join("facts").exists());
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(wrote, "the daemon did not get that far");
    let facts = std::fs::read_to_string(dir.join("facts")).unwrap();
    let mut facts = facts.lines();
    let replica: faas_jails::function::ReplicaName = facts.next().unwrap().parse().unwrap();
    let settings = faas_jails::platform::freebsd::sandbox::Settings {
        realm: replica.realm().clone(),
        run_root: facts.next().unwrap().into(),
        uncounted: faas_jails::platform::freebsd::sandbox::Uncounted::Refuse,
    };
    std::thread::sleep(Duration::from_millis(200));
    let heir = faas_jails::platform::freebsd::sandbox::JailSandbox::open(settings).unwrap();
    let found = heir.list().unwrap();
    assert!(found.len() == 1 && found[0].alive && found[0].replica == replica, "{found:?}");
    heir.signal(&replica, Signal::Term).unwrap();
    assert_eq!(host.exit(&heir, &replica), Exit::Signal(libc::SIGTERM));
    heir.remove(&replica).unwrap();
    assert_eq!(heir.list().unwrap(), []);
}

/// A family of processes that keep forking stops as a whole, writes nothing, and goes on where it was; stopped, it
/// can be removed.
#[test]
fn a_frozen_replica_stands_still_with_all_it_has_started() {
    let Some(host) = Host::new() else { return };
    let plan = host.plan("for i in 1 2 3; do (while :; do /bin/sleep 0 & wait; echo .; done) & done; wait");
    host.sandbox().start(&plan).unwrap();
    for _ in 0..5 {
        let before = host.output(&plan.replica).len();
        assert!(until(|| host.output(&plan.replica).len() > before), "it writes nothing");
        host.sandbox().freeze(&plan.replica).unwrap();
        let written = host.output(&plan.replica).len();
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(host.output(&plan.replica).len(), written);
        host.sandbox().freeze(&plan.replica).unwrap();
        host.sandbox().thaw(&plan.replica).unwrap();
        assert!(until(|| host.output(&plan.replica).len() > written), "it does not go on");
    }
    host.sandbox().freeze(&plan.replica).unwrap();
    host.remove(&plan.replica).unwrap();
    host.sandbox().thaw(&plan.replica).unwrap();
}
