//! A function that tries to get out, in every way that docs/claims.md names. None may come through.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::needs_root;
use crate::support::{Daemon, images, parts};

/// A process of the host's that is there to be found.
struct Outsider(std::process::Child);

impl Outsider {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("running sleep"))
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Deploys the function, has it try, and gives what it tells of each attempt.
fn tries(image: &str, user: &str) -> Vec<Value> {
    let daemon = Daemon::with().without_images().start();
    daemon.load(&images::probe_image().set("User", json!(user)).docker_save(image));
    daemon.deploy(json!({"service": "f", "image": image}));
    let marker = daemon.scratch().join("marker");
    fs::write(&marker, "marker").expect("writing the marker");
    let outsider = Outsider::new();
    let target = format!("f/breakout?marker={}&pid={}&address={}", marker.display(), outsider.0.id(), daemon.host());
    let tried = daemon.call(&target).expect(200).value();
    daemon.call("f/echo").expect(200);
    tried.as_array().expect("outcomes").clone()
}

#[track_caller]
fn nothing_came_through(outcomes: &[Value]) {
    assert!(outcomes.len() >= 20, "{} attempts", outcomes.len());
    let through: Vec<&Value> = outcomes.iter().filter(|outcome| outcome["through"] != false).collect();
    assert!(through.is_empty(), "{through:#?}");
}

#[test]
fn nothing_that_a_user_tries_comes_through() {
    needs_root!();
    nothing_came_through(&tries(images::PROBE, "probe"));
}

#[test]
fn nothing_that_root_tries_comes_through() {
    needs_root!();
    nothing_came_through(&tries(images::PROBE_ROOT, "root"));
}

/// It is the sandbox that refuses: outside, as root, what can be tried without harm does come through.
#[test]
fn the_same_program_gets_everywhere_outside() {
    needs_root!();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (program, marker) = (dir.path().join("probe"), dir.path().join("marker"));
    fs::write(&program, parts::probe()).expect("writing the program");
    fs::write(&marker, "marker").expect("writing the marker");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, mode).expect("making it executable");
    let outsider = Outsider::new();
    let mut command = Command::new(&program);
    command.env_clear().env("HELPER", "breakout").env("MARKER", &marker);
    command.env("OUTSIDE_PID", outsider.0.id().to_string()).env("HOST_ADDRESS", "127.0.0.1");
    let output = command.current_dir(dir.path()).output().expect("running the probe");
    let outcomes: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let through = |words: &str| {
        let found = outcomes.iter().find(|outcome| outcome["name"].as_str().expect("a name").contains(words));
        found.unwrap_or_else(|| panic!("no attempt ({words})"))["through"] == true
    };
    for words in [
        "through ..",
        "chroot inside",
        "signal a process",
        "see a process",
        "host's through",
        "listen on",
        "raw socket",
    ] {
        assert!(through(words), "{words}: {outcomes:#?}");
    }
}
