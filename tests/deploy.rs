//! What lies under deploy/ is what its readers accept: a shell, systemd, pf, newsyslog, logrotate, cloud-init.

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

/// Holds a cloud-init file against cloud-init's own schema and gives its content, or `None` where the tools are missing.
fn cloud_config(test: &str, name: &str) -> Option<serde_json::Value> {
    let checkers = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/checkers");
    let (python, schema) = (checkers.join("bin/python"), checkers.join("schema-cloud-config-v1.json"));
    if !python.exists() || !schema.exists() {
        eprintln!("SKIPPED: {test}: needs tools/checkers.sh");
        return None;
    }
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/api/cloud_config.py");
    let out = Command::new(python).arg(script).arg(schema).arg(shipped(name)).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Some(serde_json::from_slice(&out.stdout).unwrap())
}

/// The content of a file that a cloud-init file writes.
fn written<'c>(config: &'c serde_json::Value, path: &str) -> &'c str {
    let files = config["write_files"].as_array().unwrap();
    let file = files.iter().find(|file| file["path"] == path).unwrap_or_else(|| panic!("{path} is not written"));
    file["content"].as_str().unwrap()
}

/// What both first-boot files must be: settings that the program takes, a script that a shell takes, run with two words.
fn check_first_boot(config: &serde_json::Value, settings: &str) {
    let read = faas_jails::config::Config::read(&written(config, settings).replace("EGRESS", "vtnet0"), |_| None);
    let read = read.unwrap_or_else(|fault| panic!("{fault}"));
    assert!(read.basic_auth && read.listen.ip().is_loopback() && read.gateway.listen.ip().is_loopback());
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    std::fs::write(&script, written(config, "/usr/local/sbin/faas-jails-first-boot")).unwrap();
    accepted(Command::new("sh").arg("-n").arg(&script).output().unwrap());
    let command = config["runcmd"][0].as_array().unwrap();
    assert_eq!(command[0], "/usr/local/sbin/faas-jails-first-boot");
    assert!(command[1].as_str().unwrap().starts_with("https://") && command[2].as_str().unwrap().len() == 64);
    // Nothing is run that was not what it should be: with another sum it ends before anything is in place.
    assert!(written(config, "/usr/local/sbin/faas-jails-first-boot").starts_with("#!/bin/sh\n"));
}

#[test]
fn the_cloud_init_file_for_debian_is_one_and_writes_what_is_shipped() {
    let test = "the_cloud_init_file_for_debian_is_one_and_writes_what_is_shipped";
    let Some(config) = cloud_config(test, "cloud-init/debian.yaml") else { return };
    check_first_boot(&config, "/etc/faas-jails/config.toml");
    assert_eq!(written(&config, "/etc/systemd/system/faas-jails.service"), text("systemd/faas-jails.service"));
}

#[test]
fn the_cloud_init_file_for_freebsd_is_one_and_writes_what_is_shipped() {
    let test = "the_cloud_init_file_for_freebsd_is_one_and_writes_what_is_shipped";
    let Some(config) = cloud_config(test, "cloud-init/freebsd.yaml") else { return };
    check_first_boot(&config, "/usr/local/etc/faas-jails.toml");
    let log = written(&config, "/usr/local/etc/newsyslog.conf.d/faas-jails.conf");
    assert_eq!(log.trim_end(), text("freebsd/newsyslog.conf").trim_end());
    let rules = |text: &str| -> Vec<String> {
        let kept = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        kept.map(|line| line.replace("EGRESS", "vtnet0")).collect()
    };
    assert_eq!(rules(written(&config, "/etc/pf.conf")), rules(&text("freebsd/pf.conf.example")));
}

/// The Debian file's script, run with stand-ins for what would change this host, and with a program that has another
/// sum than it should.
#[test]
fn the_first_boot_script_installs_what_it_was_told_and_nothing_else() {
    let test = "the_first_boot_script_installs_what_it_was_told_and_nothing_else";
    let Some(config) = cloud_config(test, "cloud-init/debian.yaml") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (root, bin) = (dir.path().join("root"), dir.path().join("bin"));
    for made in [&root.join("usr/local/bin"), &root.join("usr/local/share"), &root.join("usr/share"), &bin] {
        std::fs::create_dir_all(made).unwrap();
    }
    let stand_in = |name: &str, script: &str| {
        use std::os::unix::fs::PermissionsExt;
        let path = bin.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    let log = dir.path().join("log").display().to_string();
    stand_in("curl", "for last; do :; done; while [ \"$1\" != -o ]; do shift; done; echo program > \"$2\"");
    stand_in("systemctl", &format!("echo systemctl \"$@\" >> {log}"));
    stand_in("faas-jails", &format!("echo faas-jails \"$@\" >> {log}"));
    let script = written(&config, "/usr/local/sbin/faas-jails-first-boot");
    let script = script.replace("/usr/local/", &format!("{}/usr/local/", root.display()));
    let script = script.replace("/usr/share/", &format!("{}/usr/share/", root.display()));
    let run = |sum: &str| {
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.args(["-c", &script, "first-boot", "https://example.org/x", sum]).env("PATH", path);
        command.output().unwrap().status.success()
    };
    let installed = root.join("usr/local/bin/faas-jails");
    assert!(!run(&"0".repeat(64)) && !installed.exists(), "a program with another sum was installed");
    assert!(!dir.path().join("log").exists());
    // sha256 of "program\n".
    let sum = Command::new("sh").args(["-c", "echo program | sha256sum | cut -d' ' -f1"]).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    for _ in 0..2 {
        assert!(run(sum.trim()), "it can be repeated");
    }
    assert_eq!(std::fs::read_to_string(&installed).unwrap(), "program\n");
    let done = std::fs::read_to_string(dir.path().join("log")).unwrap();
    let done: Vec<&str> = done.lines().take(5).collect();
    assert_eq!(done[0], "faas-jails --config /etc/faas-jails/config.toml init");
    assert_eq!(done[3..], ["systemctl daemon-reload", "systemctl enable --now faas-jails"], "{done:?}");
}

/// A daemon appends to the file it has open; after the rotation it goes on at the beginning of the same file.
#[test]
fn logrotate_takes_its_file_and_the_daemon_loses_no_line() {
    let test = "logrotate_takes_its_file_and_the_daemon_loses_no_line";
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("faas-jails.log");
    let config = dir.path().join("config");
    let shipped = text("logrotate/faas-jails");
    assert!(shipped.contains("/var/log/faas-jails.log {"));
    std::fs::write(&config, shipped.replace("/var/log/faas-jails.log", &log.display().to_string())).unwrap();
    let mut open = std::fs::File::options().create(true).append(true).open(&log).unwrap();
    std::io::Write::write_all(&mut open, b"before\n").unwrap();
    let rotate = |mode: &str| {
        let state = dir.path().join("state");
        Command::new("logrotate").arg(mode).arg("--state").arg(state).arg(&config).env("PATH", PATH).output()
    };
    const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
    match rotate("--debug") {
        Err(_) => {
            eprintln!("SKIPPED: {test}: needs logrotate, see tools/setup.sh observe");
            return;
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && !said.contains("error:"), "{said}");
        }
    }
    accepted(rotate("--force").unwrap());
    std::io::Write::write_all(&mut open, b"after\n").unwrap();
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "after\n");
    assert_eq!(std::fs::read_to_string(dir.path().join("faas-jails.log.1")).unwrap(), "before\n");
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
