//! The verbs of day-to-day operation: ps, logs, exec, stats, completions, man.

use std::io::{BufRead, BufReader, Write};
use std::process::{Output, Stdio};

use serde_json::{Value, json};

use crate::needs_root;
use crate::support::{Daemon, eventually, images, platform};

#[track_caller]
fn succeeded(out: Output) -> String {
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{}: {told}", out.status);
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A verb that must fail; gives its status and sentence.
#[track_caller]
fn refused(out: Output) -> (i32, String) {
    assert!(!out.status.success(), "it succeeded: {}", String::from_utf8_lossy(&out.stdout));
    (out.status.code().expect("an exit"), String::from_utf8_lossy(&out.stderr).into_owned())
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Two functions, the first with two replicas, the second in a namespace of its own.
fn two_functions(daemon: &Daemon) {
    let namespace = json!({"name": "dev", "labels": {"openfaas": "1"}});
    daemon.http.json("POST", "/system/namespace/", &namespace).expect(201);
    daemon.deploy(json!({"service": "pair", "labels": {"com.openfaas.scale.min": "2"}, "limits": {"memory": "64Mi"}}));
    daemon.await_ready("pair", 2);
    daemon.deploy(json!({"service": "one", "namespace": "dev"}));
}

#[test]
fn ps_lists_every_replica_as_a_table_and_as_json() {
    needs_root!();
    let daemon = Daemon::with().credentials("admin:secret").start();
    two_functions(&daemon);
    let text = succeeded(daemon.run(&["ps"]));
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["FUNCTION", "REPLICA", "STATE", "ADDRESS", "REQUESTS", "UP", "IMAGE"]);
    let names: Vec<&str> = lines[1..].iter().map(|l| l[0]).collect();
    assert_eq!(names, ["one.dev", "pair.openfaas-fn", "pair.openfaas-fn"], "{text}");
    assert!(lines[1..].iter().all(|l| l[2] == "ready" && l[3].ends_with(":8080") && l[6] == images::PROBE), "{text}");

    let all = parsed(&succeeded(daemon.run(&["ps", "--json"])));
    assert_eq!(all.as_array().map(Vec::len), Some(3));
    let running = daemon.traces().replica_names();
    for replica in all.as_array().expect("a list") {
        assert!(running.iter().any(|name| replica["replica"] == **name), "{replica} is not among {running:?}");
    }
    let ids = |arguments: &[&str]| {
        let list = parsed(&succeeded(daemon.run(&[&["ps", "--json"], arguments].concat())));
        list.as_array().expect("a list").len()
    };
    assert_eq!((ids(&["pair"]), ids(&["-n", "dev"]), ids(&["pair", "-n", "dev"]), ids(&["one.dev"])), (2, 1, 0, 1));
}

#[test]
fn verbs_that_ask_the_daemon_say_so_when_there_is_none() {
    needs_root!();
    let daemon = Daemon::with().without_images().prepare();
    for verb in [&["ps"][..], &["stats", "--once"], &["logs", "f"], &["exec", "f", "--", "true"]] {
        let (status, told) = refused(daemon.run(verb));
        assert_eq!(status, 69, "{verb:?}: {told}");
        assert!(told.contains("faas-jails serve"), "{verb:?}: {told}");
    }
}

#[test]
fn logs_follow_beyond_the_end_of_a_stream_and_repeat_nothing() {
    needs_root!();
    // Streams end after a second and a half.
    let daemon = Daemon::with().set("write_timeout = \"2s\"").start();
    daemon.deploy(json!({"service": "f"}));
    daemon.call("f/log?n=3&text=early").expect(200);
    eventually("the lines are kept", || {
        let text = succeeded(daemon.run(&["logs", "f"]));
        (text.matches("out early").count() == 3).then_some(())
    });
    let mut command = daemon.command();
    command.args(["logs", "-f", "--json", "f"]).stdout(Stdio::piped()).stdin(Stdio::null());
    platform::ends_with_us(&mut command);
    let mut follower = command.spawn().expect("running faas-jails");
    let mut lines = BufReader::new(follower.stdout.take().expect("its output")).lines();
    let mut seen = Vec::new();
    // Five lines, one after the other as they arrive, over several streams.
    for round in 0..5 {
        let text = format!("round-{round}.");
        daemon.call(&format!("f/log?n=1&text={text}")).expect(200);
        loop {
            let line = lines.next().expect("the stream goes on").expect("a line");
            let message = parsed(&line);
            seen.push(message["text"].as_str().expect("a text").to_owned());
            if seen.last().is_some_and(|last| *last == format!("out {text}")) {
                break;
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(700));
    }
    follower.kill().expect("ending it");
    follower.wait().expect("waiting for it");
    let mut once = seen.clone();
    once.retain(|line| line.starts_with("out round-"));
    assert_eq!(once.len(), 5, "{seen:?}");
    assert_eq!(seen.iter().filter(|line| *line == "out early").count(), 3, "{seen:?}");
}

#[test]
fn logs_are_chosen_by_count_time_and_replica() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    daemon.call("f/log?n=9&text=line").expect(200);
    let count = |arguments: &[&str]| {
        let text = succeeded(daemon.run(&[&["logs", "f"], arguments].concat()));
        text.lines().filter(|l| l.contains("line")).count()
    };
    eventually("the lines are kept", || (count(&[]) >= 9).then_some(()));
    assert_eq!(succeeded(daemon.run(&["logs", "f", "--lines", "4"])).lines().count(), 4);
    let all = succeeded(daemon.run(&["logs", "f", "--since", "1h", "-t"]));
    assert!(all.lines().all(|l| l.split(' ').next().is_some_and(|t| t.ends_with('Z'))), "{all}");
    assert_eq!(count(&["-i", "zzzzzzzz"]), 0);
    let (status, told) = refused(daemon.run(&["logs", "nobody"]));
    assert_eq!(status, 66, "{told}");
    assert!(told.contains("nobody"), "{told}");
    let (status, _) = refused(daemon.run(&["logs", "f", "--since", "soon"]));
    assert_eq!(status, 64);
}

#[test]
fn exec_runs_in_the_replica_as_the_images_user() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f", "envVars": {"SET": "by the user"}}));
    let first = daemon.identity("f");
    let arguments = ["exec", "f", "-e", "HELPER=beside", "--", "/probe", "7"];
    let out = daemon.run_with_input(&arguments, b"through standard input");
    assert_eq!(out.status.code(), Some(7), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(String::from_utf8_lossy(&out.stderr), "on standard error\n");
    let told = parsed(&String::from_utf8_lossy(&out.stdout));
    for same in ["uid", "gid", "groups", "hostname", "cwd", "addresses"] {
        assert_eq!(told[same], first[same], "{same}");
    }
    assert_ne!(told["pid"], first["pid"]);
    assert_eq!(told["input"], "through standard input");
    let env = told["env"].as_array().expect("variables");
    for variable in ["SET=by the user", "FROM_IMAGE=yes", "OPENFAAS_NAME=f", "HELPER=beside"] {
        assert!(env.iter().any(|v| v == variable), "{variable}: {env:?}");
    }
    // The function goes on as it was.
    assert_eq!(daemon.identity("f")["started"], first["started"]);
    let killed = daemon.run_with_input(&["exec", "f", "-e", "HELPER=beside", "--", "/probe", "kill"], b"");
    assert_eq!(killed.status.code(), Some(128 + 9));
}

#[test]
fn exec_enters_the_replica_that_is_named() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f", "labels": {"com.openfaas.scale.min": "2"}}));
    daemon.await_ready("f", 2);
    let replicas = parsed(&succeeded(daemon.run(&["ps", "f", "--json"])));
    for replica in replicas.as_array().expect("a list") {
        let id = replica["instance"].as_str().expect("an id");
        let arguments = ["exec", "f.openfaas-fn", "-i", id, "-e", "HELPER=beside", "--", "probe"];
        let env = ["-e", "PATH=/", "-w", "/tmp"];
        let told = parsed(&succeeded(daemon.run(&[&arguments[..4], &env, &arguments[4..]].concat())));
        let address = replica["address"].as_str().expect("an address").trim_end_matches(":8080");
        assert!(told["addresses"].to_string().contains(address), "{told} is not at {address}");
        assert_eq!(told["cwd"], "/tmp");
    }
}

#[test]
fn exec_of_a_roots_image_has_no_more_power_than_the_function() {
    needs_root!();
    let daemon = Daemon::with().without_images().start();
    daemon.load(&images::probe_image().set("User", json!("root")).docker_save(images::PROBE_ROOT));
    daemon.deploy(json!({"service": "f", "image": images::PROBE_ROOT, "readOnlyRootFilesystem": true}));
    let told = parsed(&succeeded(daemon.run(&["exec", "f", "-e", "HELPER=beside", "--", "/probe"])));
    assert_eq!((&told["uid"], &told["cwd"]), (&json!(0), &json!("/home/probe")));
    if !cfg!(target_os = "linux") {
        return;
    }
    // Status of the process itself, read by a program that the image lends: the probe serves files of its replica.
    let mut child = daemon.command();
    child.args(["exec", "f", "-e", "HELPER=sleep", "--", "/probe"]).stdin(Stdio::null());
    platform::ends_with_us(&mut child);
    let mut child = child.spawn().expect("running faas-jails");
    let status = eventually("the program shows in the replica", || {
        let names = daemon.call("f/list?path=/proc").expect(200).value();
        let others = names.as_array().expect("names").iter().filter_map(|n| n.as_str()?.parse::<u32>().ok());
        let pid = others.filter(|pid| *pid != 1).max()?;
        let text = daemon.call(&format!("f/files?path=/proc/{pid}/status"));
        (text.status == 200 && text.text().contains("Name:\tprobe")).then(|| text.text())
    });
    let first = daemon.call("f/files?path=/proc/1/status").expect(200).text();
    for field in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:", "Uid:", "Gid:"] {
        let of = |text: &str| text.lines().find(|l| l.starts_with(field)).map(str::to_owned);
        assert_eq!(of(&status), of(&first), "{field}");
    }
    // It ends with the command that runs it.
    child.kill().expect("ending it");
    child.wait().expect("waiting for it");
    eventually("nothing but the function is left", || {
        let names = daemon.call("f/list?path=/proc").expect(200).value();
        let numbers = names.as_array().expect("names").iter().filter_map(|n| n.as_str()?.parse::<u32>().ok());
        (numbers.count() == 1).then_some(())
    });
}

#[test]
fn exec_says_what_is_missing() {
    needs_root!();
    let daemon = Daemon::start();
    daemon.deploy(json!({"service": "f"}));
    for (arguments, status, word) in [
        (&["exec", "nobody", "--", "/probe"][..], 66, "nobody"),
        (&["exec", "f", "-i", "zzzzzzzz", "--", "/probe"], 66, "zzzzzzzz"),
        (&["exec", "f", "--", "/nothing"], 64, "/nothing"),
        (&["exec", "f", "-w", "/nowhere", "--", "/probe"], 66, "nowhere"),
        (&["exec", "f"], 2, "PROGRAM"),
        (&["exec", "f", "-e", "=x", "--", "/probe"], 2, "NAME=VALUE"),
    ] {
        let (code, told) = refused(daemon.run(arguments));
        assert!(told.contains(word) && !told.contains("panicked"), "{arguments:?}: {told}");
        if cfg!(target_os = "linux") {
            assert_eq!(code, status, "{arguments:?}: {told}");
        }
    }
    daemon.scale("f", 0).expect(202);
    eventually("nothing runs", || daemon.traces().replica_names().is_empty().then_some(()));
    let (_, told) = refused(daemon.run(&["exec", "f", "--", "/probe"]));
    assert!(told.contains("no replica that runs"), "{told}");
}

#[test]
fn stats_show_what_replicas_use() {
    needs_root!();
    let daemon = Daemon::start();
    two_functions(&daemon);
    let text = succeeded(daemon.run(&["stats", "--once"]));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("FUNCTION") && lines.len() == 4, "{text}");
    assert!(lines[2].contains("64.00 MiB"), "{text}");
    let measured = parsed(&succeeded(daemon.run(&["stats", "pair", "--once", "--json"])));
    let measured = measured.as_array().expect("a list");
    assert_eq!(measured.len(), 2);
    for replica in measured {
        assert!(replica["pids"].as_u64() >= Some(1) && replica["memoryBytes"].as_u64() > Some(0), "{replica}");
        assert_eq!(replica["memoryLimitBytes"], 64 << 20);
    }
    // Without --once one list a line, until nobody reads any more.
    let mut command = daemon.command();
    command.args(["stats", "--json"]).stdin(Stdio::null()).stdout(Stdio::piped());
    platform::ends_with_us(&mut command);
    let mut child = command.spawn().expect("running faas-jails");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    for _ in 0..2 {
        assert_eq!(parsed(&lines.next().expect("a line").expect("a line")).as_array().map(Vec::len), Some(3));
    }
    drop(lines);
    let ended = eventually("it ends with its reader", || child.try_wait().expect("waiting for it"));
    assert!(ended.success(), "{ended}");
}

/// Every shell's script names every verb, and bash takes its own.
#[test]
fn completions_know_every_verb() {
    let daemon = Daemon::with().without_images().prepare();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = succeeded(daemon.run(&["completions", shell]));
        for verb in ["serve", "ps", "logs", "exec", "stats", "image", "prune", "completions"] {
            assert!(script.contains(verb), "{shell} does not know {verb}");
        }
    }
    let script = succeeded(daemon.run(&["completions", "bash"]))
        + "COMP_WORDS=(faas-jails image pr); COMP_CWORD=2; _faas__jails faas-jails pr image; echo \"${COMPREPLY[*]}\"\n";
    let mut bash = std::process::Command::new("bash");
    let bash = bash.arg("--norc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut bash) = bash else {
        crate::support::announce_skip(&crate::support::this_test(), "needs bash");
        return;
    };
    bash.stdin.take().expect("its input").write_all(script.as_bytes()).expect("writing the script");
    let out = bash.wait_with_output().expect("running bash");
    assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "prune");
}

#[test]
fn manual_pages_describe_every_verb() {
    let daemon = Daemon::with().without_images().prepare();
    let dir = daemon.scratch().join("man");
    succeeded(daemon.run(&["man", &dir.display().to_string()]));
    let page = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let main = page("faas-jails.8");
    for verb in ["serve", "image", "ps", "logs", "exec", "stats", "init", "deinit", "info", "purge", "man"] {
        assert!(main.contains(&format!("faas\\-jails\\-{verb}(8)")), "{verb} is not named in {main}");
        assert!(page(&format!("faas-jails-{verb}.8")).contains(".SH SYNOPSIS"), "{verb}");
    }
    assert!(page("faas-jails-image-prune.8").contains("faas\\-jails\\-image\\-prune"));
    assert!(page("faas-jails-stats.8").contains("\\-\\-interval"));
}
