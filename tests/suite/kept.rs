//! What the daemon keeps on disk, and how much of it.

use serde_json::json;

use crate::needs_root;
use crate::support::{Daemon, eventually};

/// Waits until this line has reached the log.
fn await_line(daemon: &Daemon, name: &str, line: &str) {
    eventually(&format!("{line:?} in the log"), || {
        daemon.http.get(&format!("/system/logs?name={name}")).text().contains(&format!("\"{line}\"")).then_some(())
    });
}

#[test]
fn what_was_printed_survives_a_restart_of_the_daemon() {
    needs_root!();
    let mut daemon = Daemon::start();
    daemon.deploy(json!({"service": "chatty"}));
    daemon.call("chatty/log?text=one").expect(200);
    await_line(&daemon, "chatty", "err one");
    daemon.kill9();
    daemon.start_again();
    daemon.await_ready("chatty", 1);
    daemon.call("chatty/log?text=after").expect(200);
    await_line(&daemon, "chatty", "err after");
    let told = daemon.http.get("/system/logs?name=chatty&tail=1000").expect(200).text();
    assert!(told.contains("\"out one\"") && told.contains("\"out after\""), "{told}");
}

#[test]
fn namespaces_survive_a_restart() {
    needs_root!();
    let mut daemon = Daemon::with().without_images().start();
    let body = json!({"name": "dev", "labels": {"openfaas": "1", "team": "a"}});
    daemon.http.json("POST", "/system/namespace/", &body).expect(201);
    daemon.kill9();
    daemon.start_again();
    assert_eq!(daemon.http.get("/system/namespace/dev").expect(200).value()["labels"]["team"], "a");
}

#[test]
fn secrets_on_disk_are_readable_by_root_only_and_survive_a_restart() {
    needs_root!();
    let mut daemon = Daemon::with().without_images().start();
    daemon.http.json("POST", "/system/secrets", &json!({"name": "key", "value": "v"})).expect(202);
    use std::os::unix::fs::PermissionsExt;
    let file = daemon.root.join("secrets/openfaas-fn/key");
    let mode = std::fs::metadata(&file).expect("the secret's file").permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    daemon.kill9();
    daemon.start_again();
    assert_eq!(daemon.http.get("/system/secrets").expect(200).value().as_array().map(Vec::len), Some(1));
}

#[test]
fn logs_are_bounded_on_disk() {
    needs_root!();
    let daemon = Daemon::with().set("log_bytes = 1048576").start();
    daemon.deploy(json!({"service": "flood"}));
    let line = "y".repeat(1000);
    for _ in 0..10 {
        daemon.call(&format!("flood/log?n=500&text={line}")).expect(200);
    }
    // 10 MB were printed; files are cut by a clock, so what is kept is asked for until it fits.
    eventually("the log is cut to about its bound", || {
        let kept = size_of(&daemon.root.join("logs"));
        (kept > 0 && kept < 4 << 20).then_some(())
    });
    daemon.call("flood/log?text=last").expect(200);
    await_line(&daemon, "flood", "err last");
}

fn size_of(directory: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => size_of(&entry.path()),
        // What it occupies: the beginning of a long log is a hole.
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
