//! Go's standard library, compiled by a builder: most of a first build's time, and the same for every daemon. It is made
//! once, before the first test that builds, and lent to each daemon as hard links, whose files a build cannot change.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Daemon, parts};

/// Ends the test, loudly, unless this machine can build and run Go functions.
#[macro_export]
macro_rules! needs_go {
    () => {
        $crate::needs_root!();
        $crate::needs_program!("go", "tools/setup.sh");
    };
}

/// A table `[builder]` with these lines. The machine may be an emulated one: a build takes as long as it takes.
pub fn builder(lines: &str) -> String {
    format!("[builder]\ntime = \"1h\"\n{lines}\n")
}

/// Lends the library to a daemon that has not been started.
pub fn lend(daemon: &Daemon) {
    let version = Command::new("go").arg("version").output().expect("running go").stdout;
    let version = String::from_utf8_lossy(&version).split(' ').nth(2).expect("go's version").to_owned();
    let directory = parts::project().join("target/functions");
    fs::create_dir_all(&directory).expect("making target/functions");
    let kept = directory.join(format!("std-{version}"));
    // Tests, of other processes, too, that come meanwhile wait.
    let lock = File::create(directory.join("std.lock")).expect("making a lock");
    lock.lock().expect("locking");
    if !kept.exists() {
        make(&kept);
    }
    drop(lock);
    fs::create_dir_all(daemon.root.join("builder")).expect("making the builder's directory");
    assert!(copy(&kept, &daemon.root.join("builder/std")), "lending the standard library");
}

fn make(kept: &Path) {
    let daemon = Daemon::with().without_images().table(&builder("proxy = \"off\"")).prepare();
    let here = daemon.scratch();
    fs::create_dir(here.join("f")).expect("making a directory");
    for (name, text) in [
        ("stack.yml", "functions:\n  f:\n    lang: dockerfile\n    handler: ./f\n    image: local/f:1\n"),
        ("f/go.mod", "module f\n\ngo 1.22\n"),
        ("f/main.go", "package main\n\nfunc main() {}\n"),
    ] {
        fs::write(here.join(name), text).expect("writing a file");
    }
    let out = daemon.run(&["build", "-f", &here.join("stack.yml").display().to_string()]);
    let told = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{told}");
    let beside = kept.with_extension("new");
    assert!(copy(&daemon.root.join("builder/std"), &beside), "keeping the standard library");
    fs::rename(&beside, kept).expect("keeping the standard library");
}

/// Copies a tree as it is, with links where the file system lets it; says whether that went well.
fn copy(from: &Path, to: &Path) -> bool {
    let copied = |option: &str| {
        let _ = fs::remove_dir_all(to);
        let status = Command::new("cp").arg(option).arg(from).arg(to).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    copied("-Rpl") || copied("-Rp")
}
