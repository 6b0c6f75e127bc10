//! What a jail keeps from a program, also from one that is root inside (Kamp and Watson, "Jails: Confining
//! the omnipotent root").

use std::net::{IpAddr, Ipv4Addr};

use faas_jails::network::Attachment;
use faas_jails::platform::freebsd::jail;
use faas_jails::platform::freebsd::sysctl;
use faas_jails::sandbox::{Plan, Sandbox, User};

use crate::support::Host;

/// Root inside, on the host's loopback address.
fn as_root(host: &Host, script: &str) -> Plan {
    let mut plan = host.plan(script);
    plan.user = User::default();
    plan.network = Attachment::Alias(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    plan
}

/// Runs each command as root inside; every one must fail.
fn refused(host: &Host, commands: &[&str]) {
    let script: String = commands.iter().map(|command| format!("({command}) && echo 'DID: {command}'; ")).collect();
    let (output, _) = host.run(&as_root(host, &format!("{script} echo end")));
    assert!(output.ends_with("end\n"), "{output}");
    assert!(!output.contains("DID: "), "{output}");
}

#[test]
fn root_cannot_mount_make_devices_or_load_modules() {
    let Some(host) = Host::new() else { return };
    refused(
        &host,
        &[
            "mount -t tmpfs tmpfs /tmp",
            "mount -t devfs devfs /tmp",
            "mount -t nullfs /etc /tmp",
            "mknod /tmp/mem c 0 2",
            "kldload if_tap",
            "sysctl kern.maxproc=100",
            "sysctl security.jail.allow_raw_sockets=1",
        ],
    );
}

#[test]
fn root_cannot_change_its_name_its_network_or_make_jails() {
    let Some(host) = Host::new() else { return };
    refused(
        &host,
        &[
            "hostname mine",
            "ifconfig lo0 inet 127.0.0.99/32 alias",
            "ifconfig lo0 down",
            "ifconfig bridge create",
            "ping -c 1 -t 2 127.0.0.1",
            "jail -c name=inner path=/ persist",
            "nc -l 127.0.0.1 99",
            "nc -w 1 -l 10.255.255.254 8099",
        ],
    );
}

#[test]
fn processes_outside_are_neither_seen_nor_reached() {
    let Some(host) = Host::new() else { return };
    let outside = std::process::id();
    let script = format!("ps axww; ps -p {outside}; kill -0 {outside} && echo reached; kill -0 1 && echo init");
    let (output, _) = host.run(&as_root(&host, &script));
    let lines: Vec<&str> = output.lines().collect();
    assert!(!lines.contains(&"reached") && !lines.contains(&"init"), "{output}");
    // The shell and ps; then the heading of the second ps alone.
    let listed = lines.iter().filter(|line| line.contains("sh -c") || line.ends_with("ps axww")).count();
    assert_eq!((listed, lines.iter().filter(|line| line.contains("PID TT")).count()), (2, 2), "{output}");
    // And two complaints of kill's.
    assert_eq!(lines.len(), 6, "{output}");
}

#[test]
fn two_replicas_do_not_see_each_other() {
    let Some(host) = Host::new() else { return };
    let first = host.plan("echo ready; exec sleep 4242");
    host.sandbox().start(&first).unwrap();
    host.wait_for(&first.replica, "ready");
    let (output, _) = host.run(&as_root(&host, "ps ax"));
    assert!(!output.contains("4242"), "{output}");
    host.remove(&first.replica).unwrap();
}

#[test]
fn only_harmless_devices_are_there() {
    let Some(host) = Host::new() else { return };
    let (output, _) = host.run(&as_root(&host, "cd /dev && ls -R"));
    let mut names: Vec<&str> = output.lines().filter(|line| !line.is_empty() && !line.contains(':')).collect();
    names.retain(|name| name.parse::<u32>().is_err());
    names.sort();
    names.dedup();
    names.retain(|name| *name != ".");
    for name in &names {
        let known =
            ["fd", "full", "null", "random", "stderr", "stdin", "stdout", "urandom", "zero", "shm", ".mountpoint"];
        assert!(known.contains(name), "{name} in {output}");
    }
    assert!(names.contains(&"null"), "{output}");
}

#[test]
fn the_hosts_mounts_are_not_shown() {
    let Some(host) = Host::new() else { return };
    let (output, _) = host.run(&as_root(&host, "mount"));
    assert_eq!(output.lines().count(), 1, "{output}");
    assert!(output.contains(" on / "), "{output}");
}

#[test]
fn every_permission_that_the_kernel_knows_is_off() {
    let Some(host) = Host::new() else { return };
    let plan = host.plan("echo ready; exec sleep 300");
    host.sandbox().start(&plan).unwrap();
    host.wait_for(&plan.replica, "ready");
    let name = plan.replica.to_string();
    let shown = std::process::Command::new("jls").args(["-j", &name, "-n"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let on: Vec<&str> = shown.split_whitespace().filter(|word| word.starts_with("allow.")).collect();
    let known = sysctl::names_below("security.jail.param").unwrap();
    let permissions = known.iter().filter(|name| name.starts_with("allow.")).count();
    host.remove(&plan.replica).unwrap();
    assert!(permissions >= 16, "{known:?}");
    assert_eq!(on.len(), permissions, "{shown}");
    for word in on {
        assert!(word.rsplit('.').next().unwrap().starts_with("no"), "{word} in {shown}");
    }
    for word in ["children.max=0", "enforce_statfs=2", "securelevel=3", "ip4=disable", "ip6=disable"] {
        assert!(shown.split_whitespace().any(|shown| shown == word), "{word} not in {shown}");
    }
}

#[test]
fn a_directory_that_the_daemon_holds_open_does_not_leak() {
    let Some(host) = Host::new() else { return };
    // Without close-on-exec: jail_attach(2) would refuse, and the program would have a way out.
    let path = std::ffi::CString::new("/").unwrap();
    // SAFETY: a C string; the descriptor is closed below.
    let held = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY) };
    assert!(held > 2);
    let (output, _) = host.run(&host.plan("echo /dev/fd/*"));
    // SAFETY: the descriptor opened above.
    unsafe { libc::close(held) };
    // The shell itself holds the directory that it lists: 3.
    assert_eq!(output, "/dev/fd/0 /dev/fd/1 /dev/fd/2 /dev/fd/3\n");
}

#[test]
fn names_that_the_kernel_would_read_otherwise_are_refused() {
    for name in ["", "a.b", "12", "a\0b", &"x".repeat(256)] {
        assert!(jail::check_name(name).is_err(), "{name:?}");
    }
    jail::check_name("fj_openfaas-fn_figlet_bcdfghjk").unwrap();
}
