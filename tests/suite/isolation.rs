//! What a function sees and may do: its own root, its own network, no privileges.

use serde_json::{Value, json};

use crate::support::{Daemon, eventually, images, platform};
use crate::{linux_only, needs_root};

fn with_function(extra: Value) -> Daemon {
    let daemon = Daemon::start();
    let mut spec = json!({"service": "f"});
    spec.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    daemon.deploy(spec);
    daemon
}

#[test]
fn a_function_runs_as_the_images_user_in_the_images_directory() {
    needs_root!();
    let daemon = with_function(json!({}));
    let id = daemon.identity("f");
    assert_eq!((&id["uid"], &id["gid"], &id["cwd"]), (&json!(1000), &json!(1000), &json!("/home/probe")));
    // Its supplementary group is in the image's /etc/group; none of root's is there.
    let mut groups = id["groups"].as_array().expect("groups").clone();
    groups.retain(|g| *g != 1000);
    assert_eq!(groups, [json!(2000)]);
}

#[test]
fn an_image_that_says_root_runs_as_root_without_its_powers() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    let image = images::probe_image().set("User", json!("root"));
    daemon.load(&image.docker_save(images::PROBE_ROOT));
    daemon.deploy(json!({"service": "f", "image": images::PROBE_ROOT}));
    assert_eq!(daemon.identity("f")["uid"], 0);
    refused_calls(&daemon, platform::REFUSED_TO_ROOT);
}

#[test]
fn a_function_may_not_change_the_system() {
    needs_root!();
    let daemon = with_function(json!({}));
    refused_calls(&daemon, platform::REFUSED_TO_ROOT);
    refused_calls(&daemon, &["chroot", "setuid"]);
    if !cfg!(target_os = "linux") {
        // Capabilities and filters are Linux's.
        return;
    }
    let status = daemon.call("f/caps").expect(200).value();
    assert_eq!(status["CapEff"], "0000000000000000");
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(status["Seccomp"], "2");
}

fn refused_calls(daemon: &Daemon, names: &[&str]) {
    for name in names {
        let told = daemon.call(&format!("f/syscall?name={name}")).expect(200).text();
        assert_ne!(told, "allowed", "{name}");
    }
}

#[test]
fn a_function_sees_its_own_processes_only() {
    needs_root!();
    linux_only!("looks into /proc, which a jail has not");
    let daemon = with_function(json!({}));
    let names = daemon.call("f/list?path=/proc").expect(200).value();
    let processes: Vec<u64> =
        names.as_array().expect("names").iter().filter_map(|n| n.as_str()?.parse().ok()).collect();
    assert!(processes.len() <= 2, "{processes:?}");
}

#[test]
fn a_function_sees_its_own_mounts_only_and_none_of_the_hosts_paths() {
    needs_root!();
    let daemon = with_function(json!({}));
    let mounts = daemon.call("f/mounts").expect(200).text();
    for line in mounts.lines() {
        let place = line.split(' ').nth(1).unwrap_or_default();
        let known = ["/", "/tmp"].contains(&place)
            || ["/proc", "/dev", "/sys", "/etc/", "/var/openfaas"].iter().any(|p| place.starts_with(p));
        assert!(known, "{line}");
    }
    let root = daemon.call("f/list?path=/").expect(200).value();
    for name in root.as_array().expect("names") {
        let known = ["dev", "etc", "home", "probe", "proc", "sys", "tmp", "var", "run"];
        assert!(known.contains(&name.as_str().expect("a name")), "{root}");
    }
}

#[test]
fn a_function_inherits_no_open_file_and_no_variable_of_the_daemon() {
    needs_root!();
    let daemon = Daemon::with().env("DAEMON_ONLY", "secret").start();
    daemon.deploy(json!({"service": "f", "envProcess": "cat", "envVars": {"MINE": "1"}}));
    let env = daemon.call("f/env").expect(200).value();
    assert!(env.get("DAEMON_ONLY").is_none(), "{env}");
    assert_eq!((&env["MINE"], &env["FROM_IMAGE"], &env["fprocess"]), (&json!("1"), &json!("yes"), &json!("cat")));
    if !cfg!(target_os = "linux") {
        // The probe lists its files by /proc.
        return;
    }
    let files = daemon.call("f/fds").expect(200).value();
    for (number, target) in files.as_object().expect("an object") {
        let target = target.as_str().expect("a text");
        let own = ["socket:", "pipe:", "anon_inode:", "/dev/null", "/proc/"].iter().any(|p| target.starts_with(p));
        assert!(own || ["1", "2"].contains(&number.as_str()), "{number} -> {target}");
    }
}

#[test]
fn variables_of_the_deployment_win_over_those_of_the_image() {
    needs_root!();
    let daemon =
        with_function(json!({"envVars": {"FROM_IMAGE": "no", "fprocess": "explicit"}, "envProcess": "implicit"}));
    let env = daemon.call("f/env").expect(200).value();
    assert_eq!((&env["FROM_IMAGE"], &env["fprocess"]), (&json!("no"), &json!("explicit")));
}

#[test]
fn a_writable_root_is_each_replicas_own_and_gone_with_it() {
    needs_root!();
    let daemon = with_function(json!({}));
    daemon.invoke("POST", "f/write?path=/home/probe/mine").body("x").send().expect(200);
    assert_eq!(daemon.call("f/files?path=/home/probe/mine").expect(200).text(), "x");
    daemon.deploy(json!({"service": "g"}));
    daemon.call("g/files?path=/home/probe/mine").expect_error(500, &["no such file"]);
    daemon.update(json!({"service": "f"})).expect(202);
    eventually("a fresh root", || (daemon.call("f/files?path=/home/probe/mine").status == 500).then_some(()));
}

#[test]
fn a_read_only_root_refuses_writes_and_has_a_writable_tmp() {
    needs_root!();
    let daemon = with_function(json!({"readOnlyRootFilesystem": true}));
    daemon.invoke("POST", "f/write?path=/home/probe/mine").body("x").send().expect_error(500, &["read-only"]);
    daemon.invoke("POST", "f/write?path=/tmp/mine").body("x").send().expect(200);
    assert_eq!(daemon.call("f/files?path=/tmp/mine").expect(200).text(), "x");
}

#[test]
fn files_of_the_image_that_belong_to_root_stay_unchanged() {
    needs_root!();
    let daemon = with_function(json!({}));
    for path in ["/etc/passwd", "/probe"] {
        let answer = daemon.invoke("POST", &format!("f/write?path={path}")).body("x").send();
        assert_eq!(answer.status, 500, "{path}");
    }
}

/// Kernel knobs by which a container would reach the host.
#[test]
fn proc_and_sys_cannot_be_written() {
    needs_root!();
    linux_only!("writes to /proc and /sys, which a jail has not");
    let daemon = Daemon::with().without_images().start();
    let image = images::probe_image().set("User", json!("root"));
    daemon.load(&image.docker_save(images::PROBE_ROOT));
    daemon.deploy(json!({"service": "f", "image": images::PROBE_ROOT}));
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
        "/proc/sys/kernel/hostname",
    ] {
        // Zero bytes: where this is allowed, it changes nothing.
        let answer = daemon.invoke("POST", &format!("f/write?path={path}")).send();
        assert_eq!(answer.status, 500, "{path} can be opened for writing");
    }
    for path in ["/proc/kcore", "/proc/1/environ/../../../etc/shadow"] {
        assert_eq!(daemon.call(&format!("f/files?path={path}")).status, 500, "{path}");
    }
}

#[test]
fn each_replica_has_an_address_of_the_subnet_and_reaches_no_other_function_it_must_not() {
    needs_root!();
    let daemon = with_function(json!({}));
    let addresses = daemon.call("f/net").expect(200).value();
    let own = addresses.as_array().expect("addresses").iter().filter_map(Value::as_str);
    let own: Vec<_> =
        own.filter(|a| !a.starts_with("127.") && !a.starts_with("::1") && !a.starts_with("fe80:")).collect();
    assert!(own.len() == 1 && own[0].starts_with("10."), "{addresses}");
}

/// The provider listens on the host's loopback, where functions are not.
#[test]
fn a_function_does_not_reach_the_hosts_loopback() {
    needs_root!();
    let daemon = with_function(json!({}));
    let answer = daemon.call(&format!("f/dial?addr={}", daemon.http.address));
    assert_eq!(answer.status, 500, "{}", answer.text());
}

#[test]
fn the_hostname_is_the_functions_name() {
    needs_root!();
    let daemon = with_function(json!({}));
    assert_eq!(daemon.call("f/hostname").expect(200).text(), "f");
}

/// A name server of the test's own, on the host's address among the replicas.
#[test]
fn names_are_asked_of_the_name_servers_in_the_settings() {
    needs_root!();
    let daemon = Daemon::with().network("dns = [\"{host}\"]").start();
    daemon.deploy(json!({"service": "f"}));
    let socket = std::net::UdpSocket::bind((daemon.host(), 53)).expect("binding the name server's port");
    socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).expect("setting a timeout");
    std::thread::scope(|scope| {
        let server = scope.spawn(|| answer_names(&socket));
        let found = daemon.call("f/dns?name=somewhere.example").expect(200).value();
        assert_eq!(found, json!(["192.0.2.7"]));
        drop(server);
    });
}

/// Answers A questions with 192.0.2.7 and others with nothing (RFC 1035), until a second has passed without one.
fn answer_names(socket: &std::net::UdpSocket) {
    let mut question = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut question) {
        let asked = &question[..length];
        let name_end = 12 + asked[12..].iter().position(|b| *b == 0).expect("a name's end") + 1;
        let is_a = asked[name_end..name_end + 2] == [0, 1];
        let mut answer = asked[..name_end + 4].to_vec();
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, is_a.into(), 0, 0, 0, 0]);
        if is_a {
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
        }
        socket.send_to(&answer, from).expect("answering");
        socket.set_read_timeout(Some(std::time::Duration::from_secs(1))).expect("setting a timeout");
    }
}

#[test]
fn hosts_and_resolver_are_the_functions_own() {
    needs_root!();
    let daemon = with_function(json!({}));
    let hosts = daemon.call("f/files?path=/etc/hosts").expect(200).text();
    assert!(hosts.contains("localhost"), "{hosts}");
    let resolver = daemon.call("f/files?path=/etc/resolv.conf").expect(200).text();
    assert!(!resolver.contains("127.0.0.53"), "{resolver}");
}
