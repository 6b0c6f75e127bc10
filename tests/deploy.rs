//! What lies under deploy/ is what its readers accept: a shell, systemd, pf, newsyslog.

use std::path::PathBuf;
use std::process::{Command, Output};

fn shipped(name: &str) -> PathBuf {
    // On a machine without the project, the runner of the tests has put the directory there.
    let parts = std::env::var_os("FAAS_JAILS_TEST_PARTS").map(PathBuf::from);
    parts.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).join("deploy").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(shipped(name)).unwrap()
}

#[track_caller]
fn accepted(output: Output) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_rc_script_is_a_script_and_names_its_order() {
    accepted(Command::new("sh").arg("-n").arg(shipped("freebsd/faas_jails")).output().unwrap());
    let script = text("freebsd/faas_jails");
    for line in ["# PROVIDE: faas_jails", "# KEYWORD: shutdown", "rcvar=faas_jails_enable"] {
        assert!(script.lines().any(|l| l == line), "{line}");
    }
    // rc.subr(8) takes NAME_program and NAME_flags for daemon(8)'s own.
    assert!(!script.contains("faas_jails_program") && !script.contains("faas_jails_flags"));
}

#[test]
fn the_unit_leaves_functions_running_and_systemd_accepts_it() {
    let unit = text("systemd/faas-jails.service");
    for line in ["KillMode=process", "Delegate=yes"] {
        assert!(unit.lines().any(|l| l == line), "{line}");
    }
    // The program need not be installed where the unit looks for it.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("faas-jails.service");
    std::fs::write(&copy, unit.replace("/usr/local/bin/faas-jails", "/bin/true")).unwrap();
    match Command::new("systemd-analyze").arg("verify").arg("--man=no").arg(&copy).output() {
        Err(_) => eprintln!("SKIPPED: the_unit_leaves_functions_running_and_systemd_accepts_it: no systemd-analyze"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!said.contains("faas-jails.service:"), "{said}");
        }
    }
}

#[test]
fn the_devfs_example_shows_what_the_program_shows() {
    let source = include_str!("../src/platform/freebsd/devfs.rs");
    let list = source.split("const SHOWN: &[&str] =").nth(1).unwrap().split(';').next().unwrap();
    let shown: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    let example = text("freebsd/devfs.rules.example");
    let there: Vec<&str> = example
        .lines()
        .filter_map(|line| line.strip_prefix("add path ")?.strip_suffix(" unhide"))
        .map(|path| path.trim_matches('\''))
        .collect();
    assert_eq!(there, shown);
    assert!(example.contains("[faas_jails=64042]") && source.contains("RULESET: u16 = 64042"));
}

#[test]
fn the_newsyslog_line_has_its_fields() {
    let file = text("freebsd/newsyslog.conf");
    let line = file.lines().find(|line| !line.starts_with('#')).unwrap();
    assert_eq!(line.split_whitespace().count(), 8, "{line}");
}

/// pf.conf(5) refuses translation after filtering.
#[test]
fn the_pf_example_translates_before_it_filters() {
    let file = text("freebsd/pf.conf.example");
    let at = |start: &str| file.lines().position(|line| line.starts_with(start)).unwrap();
    for translation in ["nat-anchor", "rdr-anchor"] {
        assert!(at(translation) < at("block") && at(translation) < at("pass"), "{translation}");
    }
    assert!(at("anchor \"faas-jails/*\"") > at("nat-anchor"));
}

#[test]
fn the_port_installs_files_that_are_here() {
    let makefile = text("port/Makefile");
    let sources: Vec<&str> =
        makefile.split_whitespace().filter_map(|word| word.strip_prefix("${WRKSRC}/deploy/")).collect();
    assert!(sources.len() >= 3, "{sources:?}");
    for source in sources {
        assert!(shipped(source).exists(), "{source}");
    }
    assert!(makefile.contains(&format!("DISTVERSION=\t{}\n", env!("CARGO_PKG_VERSION"))));
}
