//! What the project ships beside the program: the demo, the image maker, the stack file.

use std::process::Command;

use serde_json::json;

use crate::support::{Daemon, eventually, parts};
use crate::{linux_only, needs_root, needs_stock};

/// Runs a script of the project to its end.
#[track_caller]
fn script(name: &str, arguments: &[&str], env: &[(&str, &str)]) -> String {
    let mut command = Command::new(parts::project().join("tools").join(name));
    let out = command.args(arguments).envs(env.iter().copied()).output().expect("running the script");
    let told = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{name}: {}: {told}", out.status);
    told
}

#[test]
fn the_demo_shows_an_answer_and_leaves_nothing() {
    needs_root!();
    linux_only!("runs scripts of the project that need bash");
    // Only its realm and subnet are used: the demo starts a daemon of its own.
    let daemon = Daemon::with().without_images().prepare();
    let env = [
        ("FAAS_JAILS", env!("CARGO_BIN_EXE_faas-jails")),
        ("REALM", &daemon.realm()),
        ("SUBNET", &daemon.subnet()),
        ("PORT", "0"),
        ("ONCE", "1"),
    ];
    let told = script("demo.sh", &[], &env);
    assert!(told.contains("Hello, FreeBSD! This is hello"), "{told}");
    assert!(daemon.traces().is_empty(), "{}", daemon.traces());
}

#[test]
fn an_image_of_the_image_maker_runs_as_it_was_told() {
    needs_root!();
    linux_only!("runs scripts of the project that need bash");
    let daemon = Daemon::with().without_images().start();
    let root = daemon.scratch().join("image");
    std::fs::create_dir_all(root.join("tmp")).expect("making the image's root");
    std::fs::write(root.join("probe"), parts::probe()).expect("writing the program");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(root.join("probe"), PermissionsExt::from_mode(0o755)).expect("making it executable");
    let (out, root) = (daemon.scratch().join("image.tar"), root.display().to_string());
    let quoted = r#"with "quotes" and \ in it"#;
    let variable = format!("TEXT={quoted}");
    let arguments = [
        "-u",
        "4321:1234",
        "-e",
        &variable,
        "example.test/made:1",
        &out.display().to_string(),
        &root,
        "/probe",
        quoted,
    ];
    script("mkimage.sh", &arguments, &[]);
    daemon.load(&std::fs::read(&out).expect("the image"));
    daemon.deploy(json!({"service": "f", "image": "example.test/made:1"}));
    let id = daemon.identity("f");
    assert_eq!((&id["uid"], &id["gid"], &id["args"]), (&json!(4321), &json!(1234), &json!(["/probe", quoted])));
    assert_eq!(daemon.call("f/env").expect(200).value()["TEXT"], quoted);
}

#[test]
fn the_stack_file_deploys_with_stock_faas_cli() {
    needs_root!();
    linux_only!("runs scripts of the project that need bash");
    needs_stock!("faas-cli");
    let daemon = Daemon::with().without_images().start();
    let root = daemon.scratch().join("hello");
    std::fs::create_dir_all(&root).expect("making the image's root");
    let go = Command::new("go")
        .args(["build", "-C", "functions/hello", "-buildvcs=false", "-o"])
        .arg(root.join("hello"))
        .arg(".")
        .current_dir(parts::project())
        .env("CGO_ENABLED", "0")
        .status();
    assert!(go.expect("running go").success());
    let out = daemon.scratch().join("hello.tar").display().to_string();
    script("mkimage.sh", &["faas-jails/hello:1", &out, &root.display().to_string(), "/hello"], &[]);
    daemon.load(&std::fs::read(&out).expect("the image"));
    std::fs::copy(parts::project().join("stack.yml"), daemon.scratch().join("stack.yml")).expect("copying stack.yml");
    let deployed = daemon.faas_cli(&["deploy", "-f", "stack.yml", "--filter", "hello", "--gateway", &daemon.url()]);
    assert!(deployed.status.success(), "{}", String::from_utf8_lossy(&deployed.stderr));
    let answer = eventually("an answer", || {
        let answer = daemon.invoke("POST", "hello").body("stack").send();
        (answer.status == 200).then(|| answer.text())
    });
    assert!(answer.contains("Hello, stack!"), "{answer}");
}
