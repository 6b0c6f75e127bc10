//! How builds and pulls show that they get on: on a terminal in lines that are drawn anew, elsewhere in plain ones.

use super::builder::{bring, build, with_builder, write};
use crate::support::registry::{Access, Registry};
use crate::support::{Daemon, images, terminal};
use crate::{needs_go, needs_root};

/// What clears a line (ECMA-48, EL), which no plain output has.
const CLEAR: &str = "\x1b[2K";

/// What spinners are drawn with: patterns of dots.
const SPINNER: fn(char) -> bool = |c| matches!(c, '\u{2801}'..='\u{28ff}');

/// A daemon with functions `good` and `bad`; what to expect of them depends on this word in their source.
fn with_functions(word: &str) -> Daemon {
    let daemon = with_builder("proxy = \"off\"");
    bring(&daemon, "templates", "templates");
    let function =
        |name: &str| format!("  {name}:\n    lang: go-http\n    handler: ./{name}\n    image: local/{name}:1\n");
    write(&daemon, "stack.yml", &format!("functions:\n{}{}", function("bad"), function("good")));
    let handler = "package function\n\nimport \"net/http\"\n\nfunc Handle(w http.ResponseWriter, r *http.Request) {";
    for (name, body) in [("bad", format!(" {word}()")), ("good", String::new())] {
        write(&daemon, &format!("{name}/go.mod"), "module handler/function\n\ngo 1.22\n");
        write(&daemon, &format!("{name}/handler.go"), &format!("{handler}{body} }}\n"));
    }
    daemon
}

/// What is said of the two functions when all is done.
fn assert_ends(lines: &[String], word: &str) {
    let at = |what: &str| lines.iter().position(|line| line.contains(what));
    let (heads, quoted) = (at("bad  | cannot build local/bad:1: it does not compile:"), at(word));
    assert!(heads.is_some() && heads < quoted, "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("good | built local/good:1 sha256:")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.ends_with("1 of 2 functions are not built")), "{lines:#?}");
}

#[test]
fn a_build_shows_a_line_for_each_function_on_a_terminal_and_one_for_each_step_elsewhere() {
    needs_go!();
    let daemon = with_functions("nothing");
    let mut command = daemon.command();
    command.args(["build", "--parallel", "2", "-f"]).arg(daemon.scratch().join("stack.yml"));
    let (told, status) = terminal::run(command);
    assert_eq!(status.code(), Some(64), "{told}");
    // Drawn while it went on, and gone in the end: only what came of it stays.
    assert!(told.contains(SPINNER), "{told:?}");
    assert!(told.contains("compiling with Go ") && told.contains(CLEAR), "{told:?}");
    let seen = terminal::screen(&told);
    assert_ends(&seen, "undefined: nothing");
    assert!(!seen.iter().any(|line| line.contains("compiling with Go ")), "{seen:#?}");

    write(&daemon, "good/more.go", "package function\n");
    let output = build(&daemon, &["--parallel", "2"]);
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8(told).expect("text");
    assert!(!told.contains(['\x1b', '\r']) && !told.contains(SPINNER), "{told:?}");
    let lines: Vec<String> = told.lines().map(str::to_owned).collect();
    assert_ends(&lines, "undefined: nothing");
    for function in ["good | ", "bad  | "] {
        assert!(lines.iter().any(|line| line.starts_with(&format!("{function}compiling with Go "))), "{lines:#?}");
    }
    let plain = |line: &&String| !line.starts_with("good | ") && !line.starts_with("bad  | ");
    assert_eq!(lines.iter().filter(plain).count(), 1, "{lines:#?}");
}

#[test]
fn a_pull_shows_its_layers_on_a_terminal_and_one_line_elsewhere() {
    needs_root!();
    let registry = Registry::start(Access::Anonymous);
    registry.push("team/probe", "1", &images::probe_image());
    let image = registry.name("team/probe", "1");
    let pull = |daemon: &Daemon| {
        let mut command = daemon.command();
        command.args(["image", "pull", &image]);
        command
    };
    let daemon = Daemon::with().without_images().prepare();
    let (told, status) = terminal::run(pull(&daemon));
    assert!(status.success(), "{told}");
    let seen = terminal::screen(&told);
    let last = seen.last().expect("lines");
    assert!(last.starts_with(&format!("pulled {image} sha256:")), "{seen:#?}");
    assert!(told.contains(CLEAR), "nothing was drawn anew: {told:?}");
    assert!(seen.iter().any(|line| line.contains(" layers") && line.contains(" of ")), "{seen:#?}");
    let other = Daemon::with().without_images().prepare();
    let output = pull(&other).output().expect("running faas-jails");
    let told = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    assert_eq!(told.trim_end(), *last, "{told:?}");
}
