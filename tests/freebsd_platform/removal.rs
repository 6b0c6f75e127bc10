//! Removal: of everything, from whatever state, more than once.

use faas_jails::network::{Link, Mode};
use faas_jails::platform::freebsd::network::{Settings, connect};
use faas_jails::platform::freebsd::{jail, mount, rctl};
use faas_jails::sandbox::{Exit, Limits, Sandbox};
use faas_jails::storage::Root;

use crate::support::Host;

#[test]
fn every_descendant_dies_and_a_second_removal_is_fine() {
    let Some(host) = Host::new() else { return };
    let plan = host.plan("for i in 1 2 3 4 5; do (sleep 300 &) ; done; trap '' TERM; echo ready; sleep 300");
    host.sandbox().start(&plan).unwrap();
    host.wait_for(&plan.replica, "ready");
    let jid = jail::find(&plan.replica.to_string()).unwrap().unwrap().jid;
    host.remove(&plan.replica).unwrap();
    assert_eq!(faas_jails::platform::freebsd::process::of_jail(jid).unwrap(), []);
    host.remove(&plan.replica).unwrap();
}

#[test]
fn what_is_prepared_runs_later_or_is_removed() {
    let Some(host) = Host::new() else { return };
    for read_only in [false, true] {
        let mut plan = host.plan("echo ran");
        plan.read_only = read_only;
        host.sandbox().prepare(&plan).unwrap();
        let found = host.sandbox().list().unwrap();
        assert!(found.len() == 1 && !found[0].alive, "{found:?}");
        let jid = jail::find(&plan.replica.to_string()).unwrap().unwrap().jid;
        host.sandbox().start(&plan).unwrap();
        assert_eq!(jail::find(&plan.replica.to_string()).unwrap().map(|jail| jail.jid), Some(jid), "the same jail");
        assert_eq!(host.exit(host.sandbox(), &plan.replica), Exit::Code(0));
        host.remove(&plan.replica).unwrap();
        assert_eq!(host.output(&plan.replica), "ran\n");
    }
    let plan = host.plan("true");
    host.sandbox().prepare(&plan).unwrap();
    host.remove(&plan.replica).unwrap();
    assert_eq!(host.sandbox().list().unwrap(), []);
}

#[test]
fn a_prepared_jail_that_somebody_removed_is_made_anew() {
    let Some(host) = Host::new() else { return };
    let plan = host.plan("echo ran");
    host.sandbox().prepare(&plan).unwrap();
    jail::remove(jail::find(&plan.replica.to_string()).unwrap().unwrap().jid).unwrap();
    host.sandbox().start(&plan).unwrap();
    assert_eq!(host.exit(host.sandbox(), &plan.replica), Exit::Code(0));
    host.remove(&plan.replica).unwrap();
}

#[test]
fn with_a_stack_of_its_own_too() {
    let Some(host) = Host::new() else { return };
    let network = connect(Mode::Vnet, Settings { realm: host.realm.clone(), egress: None, nat: false });
    network.setup(&["10.217.0.0/24".parse().unwrap()]).unwrap();
    let mut plan = host.plan("case \"$(ifconfig)\" in *10.217.0.7*) exit 0 ;; esac; exit 1");
    let link = Link { mode: Mode::Vnet, addresses: vec!["10.217.0.7/24".parse().unwrap()] };
    plan.network = network.attach(&plan.replica, &link).unwrap();
    host.sandbox().prepare(&plan).unwrap();
    host.sandbox().start(&plan).unwrap();
    assert_eq!(host.exit(host.sandbox(), &plan.replica), Exit::Code(0), "{}", host.output(&plan.replica));
    host.remove(&plan.replica).unwrap();
    network.detach(&plan.replica).unwrap();
    network.teardown().unwrap();
}

#[test]
fn a_jail_whose_first_process_ended_is_listed_and_removed() {
    let Some(host) = Host::new() else { return };
    let plan = host.plan("(sleep 300 &); exit 0");
    host.sandbox().start(&plan).unwrap();
    host.exit(host.sandbox(), &plan.replica);
    let found = host.sandbox().list().unwrap();
    assert!(found.len() == 1 && !found[0].alive, "{found:?}");
    host.remove(&plan.replica).unwrap();
    assert_eq!(host.sandbox().list().unwrap(), []);
}

#[test]
fn what_a_crash_left_without_a_jail_is_listed_and_removed() {
    let Some(host) = Host::counted() else { return };
    let plan = host.plan("sleep 300");
    host.sandbox().start(&plan).unwrap();
    let name = plan.replica.to_string();
    // As if the daemon had died half way through a removal.
    jail::remove(jail::find(&name).unwrap().unwrap().jid).unwrap();
    rctl::limit(&name, &Limits { pids: Some(10), ..Limits::default() }).unwrap();
    let found = host.sandbox().list().unwrap();
    assert!(found.len() == 1 && !found[0].alive, "{found:?}");
    host.remove(&plan.replica).unwrap();
    assert_eq!(host.sandbox().list().unwrap(), []);
}

#[test]
fn rules_alone_are_found() {
    let Some(host) = Host::counted() else { return };
    let replica = host.replica();
    rctl::limit(&replica.to_string(), &Limits { pids: Some(10), ..Limits::default() }).unwrap();
    assert_eq!(host.sandbox().list().unwrap().len(), 1);
    host.remove(&replica).unwrap();
    assert_eq!(host.sandbox().list().unwrap(), []);
}

#[test]
fn mounts_are_exactly_those_of_the_plan_and_then_none() {
    let Some(host) = Host::new() else { return };
    let secrets = host.path("secrets");
    std::fs::create_dir(&secrets).unwrap();
    let mut plan = host.plan("sleep 300");
    plan.read_only = true;
    plan.secrets = Some(secrets);
    host.sandbox().start(&plan).unwrap();
    let root = plan.run_dir.join("root");
    let mut types: Vec<String> = mount::list(&root).unwrap().into_iter().map(|mounted| mounted.fstype).collect();
    types.sort();
    assert_eq!(types, ["devfs", "fdescfs", "nullfs", "nullfs", "tmpfs"]);
    host.remove(&plan.replica).unwrap();
    assert_eq!(mount::list(&root).unwrap(), []);
}

#[test]
fn a_start_that_fails_half_way_undoes_itself() {
    let Some(host) = Host::counted() else { return };
    let mut plan = host.plan("true");
    plan.limits.pids = Some(10);
    plan.secrets = Some(host.path("not-there"));
    let fault = host.sandbox().start(&plan).unwrap_err();
    assert!(fault.to_string().contains("nullfs"), "{fault}");
    assert_eq!(host.sandbox().list().unwrap(), []);
    // A later step: the jail cannot be made under this host name.
    let mut plan = host.plan("true");
    plan.limits.pids = Some(10);
    plan.hostname = "x".repeat(300);
    let fault = host.sandbox().start(&plan).unwrap_err();
    assert!(fault.to_string().contains("refused jail"), "{fault}");
    assert_eq!(host.sandbox().list().unwrap(), []);
    // The last one: an overlay is no root here.
    let root = Root::Overlay { lower: Vec::new(), upper: None };
    let plan = host.plan_on(root, "true");
    assert!(host.sandbox().start(&plan).is_err());
    assert_eq!(host.sandbox().list().unwrap(), []);
}

#[test]
fn many_start_and_go_at_once() {
    let Some(host) = Host::new() else { return };
    let network = connect(Mode::Alias, Settings { realm: host.realm.clone(), egress: None, nat: false });
    network.setup(&["10.216.0.0/24".parse().unwrap()]).unwrap();
    let tree = host.tree();
    let plans: Vec<_> = (2..34u8)
        .map(|last| {
            let mut plan = host.plan_on(Root::Directory(tree.clone()), "sleep 300 & sleep 300");
            let address = format!("10.216.0.{last}/24").parse().unwrap();
            let link = Link { mode: Mode::Alias, addresses: vec![address] };
            plan.network = network.attach(&plan.replica, &link).unwrap();
            plan
        })
        .collect();
    let sandbox = host.sandbox();
    std::thread::scope(|scope| {
        for plan in &plans {
            scope.spawn(|| sandbox.start(plan).unwrap_or_else(|fault| panic!("{fault}")));
        }
    });
    let found = sandbox.list().unwrap();
    assert!(found.len() == plans.len() && found.iter().all(|found| found.alive), "{found:?}");
    std::thread::scope(|scope| {
        for plan in &plans {
            scope.spawn(|| {
                sandbox.remove(&plan.replica).unwrap_or_else(|fault| panic!("{fault}"));
                network.detach(&plan.replica).unwrap_or_else(|fault| panic!("{fault}"));
            });
        }
    });
    assert_eq!(sandbox.list().unwrap(), []);
    assert_eq!(network.attached().unwrap(), []);
    network.teardown().unwrap();
}

#[test]
fn other_realms_are_not_touched() {
    let (Some(host), realm) = (Host::new(), "zz") else { return };
    let mut params = jail::Params::default();
    let name = format!("{realm}_test_f_bcdfghjk");
    params.text("name", &name).unwrap().text("path", "/").unwrap().flag("persist").unwrap();
    let jid = jail::create(params).unwrap();
    let listed = host.sandbox().list().unwrap();
    jail::remove(jid).unwrap();
    assert_eq!(listed, []);
}
