//! What a program finds when it starts, and what is said when it cannot.

use std::collections::BTreeMap;

use faas_jails::fault::Kind;
use faas_jails::platform::freebsd::jail;
use faas_jails::platform::freebsd::sandbox::{JailSandbox, Settings, Uncounted};
use faas_jails::sandbox::{Exit, Limits, Sandbox, User};
use faas_jails::storage::Root;

use crate::support::Host;

#[test]
fn a_program_runs_as_its_user_with_its_environment_and_nothing_else() {
    let Some(host) = Host::new() else { return };
    let mut plan =
        host.plan("id -u; id -g; id -G; pwd; hostname; echo \"$WORD\"; echo /dev/fd/*; ulimit -c; cat; echo end");
    plan.env.insert("WORD".into(), "two words".into());
    plan.workdir = "/srv/app".into();
    let (output, exit) = host.run(&plan);
    assert_eq!(exit, Exit::Code(0), "{output}");
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[..3], ["1234", "4321", "4321 77"], "{output}");
    assert_eq!(lines[3..6], ["/srv/app", "hello", "two words"], "{output}");
    // The shell itself holds the directory that it lists: 3.
    assert_eq!(lines[6..], ["/dev/fd/0 /dev/fd/1 /dev/fd/2 /dev/fd/3", "0", "end"], "{output}");
}

#[test]
fn the_environment_is_the_plans_alone() {
    let Some(host) = Host::new() else { return };
    let mut plan = host.plan("");
    plan.argv = ["sh", "-c", "echo $$ $PATH; export -p"].map(str::to_owned).into();
    plan.env = BTreeMap::from([("PATH".into(), "/bin".into()), ("A".into(), "b=c\nd".into())]);
    let (output, exit) = host.run(&plan);
    assert_eq!(exit, Exit::Code(0));
    assert!(output.contains("export A='b=c\nd'"), "{output}");
    for leak in ["HOME", "CARGO", "SSH", "USER"] {
        assert!(!output.contains(leak), "{leak} in {output}");
    }
}

#[test]
fn a_setuid_program_gives_nothing() {
    let Some(host) = Host::new() else { return };
    let tree = host.tree();
    let id = tree.join("usr/bin/id");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&id, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let (output, exit) = host.run(&host.plan_on(Root::Directory(tree), "id -u"));
    assert_eq!((output.trim(), exit), ("1234", Exit::Code(0)));
}

#[test]
fn a_missing_program_is_said_to_be_missing_and_leaves_nothing() {
    let Some(host) = Host::new() else { return };
    let mut plan = host.plan("");
    plan.argv = vec!["no-such-program".into()];
    let fault = host.sandbox().start(&plan).unwrap_err();
    assert_eq!(fault.kind(), Kind::Invalid);
    assert!(fault.to_string().contains("no program no-such-program on its PATH"), "{fault}");
    assert_eq!(host.sandbox().list().unwrap(), []);
    host.remove(&plan.replica).unwrap();
}

#[test]
fn a_program_that_may_not_be_executed_is_said_to_be_so() {
    let Some(host) = Host::new() else { return };
    let tree = host.tree();
    std::fs::write(tree.join("run"), "#!/bin/sh\n").unwrap();
    let mut plan = host.plan_on(Root::Directory(tree), "");
    plan.argv = vec!["/run".into()];
    let fault = host.sandbox().start(&plan).unwrap_err();
    assert!(fault.to_string().contains("not executable for user 1234"), "{fault}");
    host.remove(&plan.replica).unwrap();
}

#[test]
fn a_directory_that_the_user_may_not_enter_is_named() {
    let Some(host) = Host::new() else { return };
    let tree = host.tree();
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().mode(0o700).create(tree.join("private")).unwrap();
    let mut plan = host.plan_on(Root::Directory(tree), "true");
    plan.workdir = "/private".into();
    let fault = host.sandbox().start(&plan).unwrap_err();
    assert!(fault.to_string().contains("working directory /private cannot be entered by user 1234"), "{fault}");
    host.remove(&plan.replica).unwrap();
}

#[test]
fn a_second_start_is_refused_and_the_first_goes_on() {
    let Some(host) = Host::new() else { return };
    let plan = host.plan("echo ready; sleep 300");
    host.sandbox().start(&plan).unwrap();
    host.wait_for(&plan.replica, "ready");
    let fault = host.sandbox().start(&plan).unwrap_err();
    assert_eq!(fault.kind(), Kind::Busy, "{fault}");
    assert!(host.sandbox().list().unwrap()[0].alive);
    host.remove(&plan.replica).unwrap();
}

#[test]
fn root_of_an_image_stays_root_and_others_lose_roots_privileges() {
    let Some(host) = Host::new() else { return };
    let mut plan = host.plan("id -u; chown 5:5 /tmp/x 2>&1; : > /tmp/x && chown 5:5 /tmp/x && echo chowned");
    plan.user = User::default();
    let (output, _) = host.run(&plan);
    assert!(output.starts_with("0\n") && output.ends_with("chowned\n"), "{output}");
    let plan = host.plan("echo ready; sleep 300");
    host.sandbox().start(&plan).unwrap();
    // A jail that may not be root: a process that enters it as root has none of root's privileges.
    let jid = jail::find(&plan.replica.to_string()).unwrap().unwrap().jid.to_string();
    let entered = std::process::Command::new("jexec").args([&jid, "/usr/sbin/chown", "5:5", "/etc"]).output().unwrap();
    assert!(!entered.status.success(), "{entered:?}");
    host.remove(&plan.replica).unwrap();
}

#[test]
fn the_limit_on_open_files_is_the_processs_own() {
    let Some(host) = Host::new() else { return };
    let mut plan = host.plan("ulimit -n; ulimit -Hn");
    plan.limits = Limits { open_files: Some(64), ..Limits::default() };
    let (output, _) = host.run(&plan);
    assert_eq!(output, "64\n64\n");
}

#[test]
fn a_run_dir_of_another_name_is_refused() {
    let Some(host) = Host::new() else { return };
    let mut plan = host.plan("true");
    std::fs::remove_dir(&plan.run_dir).unwrap();
    plan.run_dir = host.path("elsewhere");
    assert_eq!(host.sandbox().start(&plan).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn a_devfs_ruleset_of_somebody_else_is_left_alone() {
    let Some(host) = Host::new() else { return };
    let devfs = |arguments: &[&str]| {
        let all = [&["rule", "-s", "64042"], arguments].concat();
        let output = std::process::Command::new("devfs").args(all).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    devfs(&["add", "9", "path", "bpf", "unhide"]);
    let before = devfs(&["show"]);
    let opened = JailSandbox::open(Settings {
        realm: host.realm.clone(),
        run_root: host.path("run"),
        uncounted: Uncounted::Refuse,
    });
    let after = devfs(&["show"]);
    devfs(&["del", "9"]);
    let fault = opened.err().expect("a refusal");
    assert_eq!((fault.kind(), before), (Kind::Busy, after));
    assert!(fault.to_string().contains("devfs rule -s 64042 delset"), "{fault}");
}
