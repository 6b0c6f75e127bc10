//! The builder's base, as `faas-jails init` makes it and `deinit` takes it away.

use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};

use lzma_rust2::{XzOptions, XzWriter};
use rand::RngCore;
use sha2::{Digest, Sha256};

use crate::full_disk::Small;
use crate::support::image::{Image, Layer};
use crate::support::mirror::{Answer, Mirror};
use crate::support::platform;
use crate::support::registry::{Access, Registry};
use crate::support::{Daemon, eventually};
use crate::{linux_only, needs_root};

/// Run-time linkers of all hosts that tests run on.
const LOADERS: [&str; 3] = ["libexec/ld-elf.so.1", "lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1"];

/// A mirror with one file, `/base.txz`; the first `stalled` requests get half of it, and no end.
fn mirror(file: &[u8], stalled: usize) -> Mirror {
    let file = file.to_vec();
    Mirror::start(move |path, before| match path {
        "/base.txz" if before < stalled => Answer::Stalled(file.clone()),
        "/base.txz" => Answer::Whole(file.clone()),
        _ => Answer::Missing,
    })
}

fn base() -> Layer {
    let libraries = Layer::new().directory("usr/lib", 0o755).file("lib/libc.so.7", 0o444, b"libc");
    LOADERS.iter().fold(libraries, |layer, loader| layer.file(loader, 0o555, b"loader"))
}

/// What a mirror has.
fn archive() -> Vec<u8> {
    let tar = Image::new().layer(base()).layers.remove(0).tar;
    let mut writer = XzWriter::new(Vec::new(), XzOptions::with_preset(1)).expect("compressing");
    writer.write_all(&tar).expect("compressing");
    writer.finish().expect("compressing")
}

fn configured(from: &str, sum: Option<&str>) -> Daemon {
    let sum = sum.map(|sum| format!("sum = \"{sum}\"\n")).unwrap_or_default();
    Daemon::with().without_images().table(&format!("[builder.base]\nfrom = \"{from}\"\n{sum}")).prepare()
}

fn hex_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The exit status, and what was said about the step.
fn told(output: Output) -> (Option<i32>, String) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains(" builder base "));
    let line = line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), line.to_owned())
}

#[track_caller]
fn walked(daemon: &Daemon, arguments: &[&str], status: i32, word: &str) {
    let (code, line) = told(daemon.run(arguments));
    assert!(code == Some(status) && line.starts_with(word), "{arguments:?}: {code:?}: {line}");
}

fn names(daemon: &Daemon) -> Vec<String> {
    let entries = fs::read_dir(daemon.root.join("builder")).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn init_makes_it_from_a_mirror_even_after_being_killed_and_deinit_takes_it_away() {
    needs_root!();
    linux_only!("on FreeBSD init makes the machine itself ready, too");
    let file = archive();
    let mirror = mirror(&file, 1);
    let daemon = configured(&mirror.url("/base.txz"), Some(&hex_of(&file)));
    walked(&daemon, &["init", "--check"], 69, "missing ");
    assert!(mirror.requests() == 0 && names(&daemon).is_empty());

    let mut command = daemon.command();
    command.arg("init").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    platform::ends_with_us(&mut command);
    let mut child = command.spawn().expect("running faas-jails");
    eventually("half of it has arrived", || {
        let arrived = fs::metadata(daemon.root.join("builder/.base.archive")).ok()?.len();
        (arrived == file.len() as u64 / 2).then_some(())
    });
    child.kill().expect("killing init");
    child.wait().expect("waiting for init");
    walked(&daemon, &["init", "--check"], 69, "missing ");

    walked(&daemon, &["init"], 0, "made ");
    assert_eq!(names(&daemon), ["base"]);
    assert_eq!(fs::read(daemon.root.join("builder/base/root/lib/libc.so.7")).expect("a library"), b"libc");
    walked(&daemon, &["init"], 0, "ok ");
    walked(&daemon, &["init", "--check"], 0, "ok ");
    assert_eq!(mirror.requests(), 2);
    walked(&daemon, &["deinit", "--yes"], 0, "removed ");
    assert!(names(&daemon).is_empty());
    walked(&daemon, &["deinit", "--yes"], 0, "left ");
}

#[test]
fn an_image_serves_too_if_it_is_named_by_its_digest() {
    needs_root!();
    linux_only!("on FreeBSD init makes the machine itself ready, too");
    let registry = Registry::start(Access::Anonymous);
    let top = Layer::new().whiteout("usr/old").file("usr/new", 0o644, b"new");
    let image = Image::new().layer(base().file("usr/old", 0o644, b"old")).layer(top);
    let digest = registry.push("base", "14", &image);
    let daemon = configured(&format!("image:{}/base@{digest}", registry.address), None);
    walked(&daemon, &["init"], 0, "made ");
    let root = daemon.root.join("builder/base/root");
    assert!(root.join(LOADERS[0]).exists() && root.join("usr/new").exists() && !root.join("usr/old").exists());
    let none = configured(&format!("image:{}/base@sha256:{}", registry.address, "0".repeat(64)), None);
    let (code, line) = told(none.run(&["init"]));
    assert!(code == Some(69) && line.starts_with("failed ") && line.contains("is not on registry"), "{line}");
    assert!(names(&none).is_empty());
}

#[test]
fn what_is_no_base_is_refused_in_a_sentence_and_nothing_is_left() {
    needs_root!();
    linux_only!("on FreeBSD init makes the machine itself ready, too");
    let file = archive();
    let mirror = mirror(&file, 0);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).expect("writing a file");
        (path.display().to_string(), hex_of(bytes))
    };
    let out = Image::new().layer(base().symlink("usr/lib64", "/")).layers.remove(0).tar;
    let above = Image::new().layer(base().file("../above", 0o644, b"x")).layers.remove(0).tar;
    let (mine, theirs) = (hex_of(&file), "0".repeat(64));
    for ((from, sum), words) in [
        ((mirror.url("/base.txz"), theirs), format!("its SHA-256 is {mine}, not 0000")),
        ((mirror.url("/none.txz"), mine.clone()), "404".into()),
        ((dir.path().join("none").display().to_string(), mine), "cannot be opened".into()),
        (put("short", &file[..file.len() - 40]), "cut off".into()),
        (put("out", &out), "usr/lib64 leads out of it".into()),
        (put("above", &above), "..".into()),
        (put("other", &Image::new().layer(Layer::new().file("x", 0o644, b"")).layers[0].gz), "it has no lib".into()),
    ] {
        let daemon = configured(&from, Some(&sum));
        let (code, line) = told(daemon.run(&["init"]));
        assert!(code == Some(69) && line.starts_with("failed "), "{code:?}: {line}");
        assert!(line.contains(&from) && line.contains(&words), "{words}: {line}");
        assert!(names(&daemon).is_empty(), "{line}: {:?}", names(&daemon));
    }
}

#[test]
fn one_that_does_not_fit_is_refused_and_nothing_is_left() {
    needs_root!();
    linux_only!("on FreeBSD init makes the machine itself ready, too");
    let mut noise = vec![0; 8 << 20];
    rand::rng().fill_bytes(&mut noise);
    let archive = Image::new().layer(base().file("noise", 0o644, &noise)).layers.remove(0).tar;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("archive");
    fs::write(&path, &archive).expect("writing a file");
    let daemon = configured(&path.display().to_string(), Some(&hex_of(&archive)));
    let _small = Small::mount(&daemon.root, 4);
    let (code, line) = told(daemon.run(&["init"]));
    assert!(code == Some(69) && line.starts_with("failed ") && line.contains("No space left"), "{code:?}: {line}");
    assert!(names(&daemon).is_empty(), "{:?}", names(&daemon));
}
