//! What lies under deploy/ is what its readers accept: a shell, systemd, pf, newsyslog.

use std::fs;
use std::path::{Path, PathBuf};
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

/// pkg-plist(5) is what the Makefile stages, no more and no less.
#[test]
fn the_port_lists_what_it_installs() {
    let staged = |word: &str| {
        let path = word.strip_prefix("${STAGEDIR}")?;
        let inside = path.strip_prefix("${PREFIX}/").map(str::to_owned);
        inside.or_else(|| Some(format!("%%EXAMPLESDIR%%/{}", path.strip_prefix("${EXAMPLESDIR}/")?)))
    };
    let makefile = text("port/Makefile").replace("\\\n", " ");
    let installs = makefile.lines().filter(|line| line.trim_start().starts_with("${INSTALL_"));
    let mut installed: Vec<String> = installs.filter_map(|line| staged(line.split_whitespace().last()?)).collect();
    installed.sort();
    let list = text("port/pkg-plist");
    let mut listed: Vec<String> =
        list.lines().map(|line| line.strip_prefix("@sample ").unwrap_or(line).to_owned()).collect();
    listed.sort();
    assert_eq!(installed, listed);
    assert!(list.lines().filter(|line| line.starts_with("@sample ")).all(|line| line.ends_with(".sample")), "{list}");
    let words = text("port/pkg-descr");
    assert!(words.lines().all(|line| line.len() <= 80) && words.lines().count() >= 2);
    // What `make` of a port reads of its own.
    for variable in ["PORTNAME", "DISTVERSION", "CATEGORIES", "MAINTAINER", "COMMENT", "LICENSE", "USES"] {
        assert!(makefile.lines().any(|line| line.starts_with(&format!("{variable}="))), "{variable}");
    }
    assert!(makefile.trim_end().ends_with(".include <bsd.port.mk>"));
    let comment = makefile.lines().find_map(|line| line.strip_prefix("COMMENT=")).unwrap().trim();
    assert!(comment.len() <= 70 && !comment.ends_with('.'), "{comment}");
}

/// Every claim has its line, and every test that a line names is there.
#[test]
fn the_claims_are_all_there_and_so_are_their_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Ok(text) = fs::read_to_string(root.join("docs/claims.md")) else {
        eprintln!("SKIPPED: needs the project's documents and sources beside the tests");
        return;
    };
    let claims = (1..=12).map(|n| format!("J{n}")).chain((1..=13).map(|n| format!("Z{n}")));
    let mut named = 0;
    for claim in claims {
        let start = format!("| {claim} |");
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(&start)).collect();
        assert_eq!(lines.len(), 1, "{claim}");
        let shown = lines[0].rsplit('|').nth(1).unwrap();
        for test in shown.split('`').filter(|part| part.contains("::")) {
            let (binary, path) = test.split_once(' ').unwrap();
            let (module, function) = path.split_once("::").unwrap();
            let source = fs::read_to_string(root.join(format!("tests/{binary}/{module}.rs")))
                .unwrap_or_else(|e| panic!("{test}: {e}"));
            assert!(source.contains(&format!("fn {function}()")), "{test}");
            named += 1;
        }
        assert!(shown.contains("::") || claim == "Z13", "{claim} has no test");
    }
    assert!(named >= 30, "{named}");
}
