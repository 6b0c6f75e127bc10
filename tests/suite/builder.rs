//! `faas-jails build`: the functions of a stack file, compiled without Docker and deployed by stock faas-cli.

use std::fs;
use std::process::{Command, Output};

use crate::support::{Daemon, eventually, gostd, parts};
use crate::{needs_go, needs_stock};

/// A daemon with these lines in `[builder]`, not started.
pub fn with_builder(lines: &str) -> Daemon {
    let daemon = Daemon::with().without_images().table(&gostd::builder(lines)).prepare();
    gostd::lend(&daemon);
    daemon
}

/// Copies a directory of the project beside a daemon's stack file.
pub fn bring(daemon: &Daemon, from: &str, to: &str) {
    let to = daemon.scratch().join(to);
    fs::create_dir_all(to.parent().expect("a parent")).expect("making a directory");
    let status = Command::new("cp").arg("-R").arg(parts::project().join(from)).arg(to).status();
    assert!(status.expect("running cp").success());
}

pub fn write(daemon: &Daemon, name: &str, text: &str) {
    let path = daemon.scratch().join(name);
    fs::create_dir_all(path.parent().expect("a parent")).expect("making a directory");
    fs::write(path, text).expect("writing a file");
}

pub fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs `faas-jails build` beside the daemon.
pub fn build(daemon: &Daemon, arguments: &[&str]) -> Output {
    let file = daemon.scratch().join("stack.yml").display().to_string();
    let all: Vec<&str> = ["build", "-f", &file].into_iter().chain(arguments.iter().copied()).collect();
    daemon.run(&all)
}

#[test]
fn the_shipped_stack_file_is_built_deployed_and_called() {
    needs_go!();
    needs_stock!("faas-cli");
    let mut daemon = with_builder("proxy = \"off\"");
    daemon.start_again();
    for (from, to) in [("stack.yml", "stack.yml"), ("templates", "templates"), ("functions", "functions")] {
        bring(&daemon, from, to);
    }
    let told = build(&daemon, &["--parallel", "2"]);
    assert!(told.status.success(), "{}", printed(&told));
    let told = printed(&told);
    assert!(told.contains("greet   | built faas-jails/greet:1 sha256:"), "{told}");
    let again = printed(&build(&daemon, &["--filter", "ge*"]));
    assert!(again.contains("geohash | unchanged faas-jails/geohash:1 sha256:"), "{again}");
    assert!(!again.contains("greet"), "{again}");
    let deployed = daemon.faas_cli(&["deploy", "-f", "stack.yml", "--gateway", &daemon.url()]);
    assert!(deployed.status.success(), "{}", printed(&deployed));
    let call = |name: &str, body: &str| {
        eventually("an answer", || {
            let answer = daemon.invoke("POST", name).body(body).send();
            (answer.status == 200).then(|| answer.text())
        })
    };
    let answer = call("greet?zone=Asia/Tokyo", "Ada");
    assert!(answer.starts_with("Hello, Ada! It is ") && answer.ends_with("JST.\n"), "{answer}");
    assert_eq!(call("geohash", "[57.64911, 10.40744]"), "u4pruydqqvj8");
    assert!(call("hello", "").contains("user 10001"));
    let refused = daemon.invoke("POST", "geohash").body("[91, 0]").send();
    assert_eq!((refused.status, refused.text().as_str()), (500, "91, 0 is no place on earth\n"));
}

#[test]
fn a_function_that_does_not_compile_is_quoted_and_the_others_are_built() {
    needs_go!();
    let daemon = with_builder("proxy = \"off\"");
    bring(&daemon, "templates", "templates");
    let function =
        |name: &str| format!("  {name}:\n    lang: go-http\n    handler: ./{name}\n    image: local/{name}:1\n");
    write(&daemon, "stack.yml", &format!("functions:\n{}{}{}", function("bad"), function("failing"), function("good")));
    let handler = "package function\n\nimport \"net/http\"\n\nfunc Handle(w http.ResponseWriter, r *http.Request) {";
    for name in ["bad", "failing", "good"] {
        write(&daemon, &format!("{name}/go.mod"), "module handler/function\n\ngo 1.22\n");
        let body = if name == "bad" { " nothing()" } else { "" };
        write(&daemon, &format!("{name}/handler.go"), &format!("{handler}{body} }}\n"));
    }
    let test = "package function\n\nimport \"testing\"\n\nfunc TestIt(t *testing.T) { t.Fatal(\"NOT YET\") }\n";
    write(&daemon, "failing/handler_test.go", test);
    let output = build(&daemon, &[]);
    let told = printed(&output);
    assert_eq!(output.status.code(), Some(64), "{told}");
    assert!(told.contains("bad     | function/handler.go:5:55: undefined: nothing"), "{told}");
    assert!(told.contains("failing | ") && told.contains("NOT YET"), "{told}");
    assert!(told.contains("good    | built local/good:1"), "{told}");
    assert!(told.contains("2 of 3 functions are not built"), "{told}");
    let nobody = printed(&build(&daemon, &["--filter", "x*"]));
    assert!(nobody.contains("no function of") && nobody.contains("fits x*"), "{nobody}");
}
