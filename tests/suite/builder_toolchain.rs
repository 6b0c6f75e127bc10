//! A newer Go than the host's: the toolchain module of a module proxy, as Go itself would get it, and archives of a mirror.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::builder::{build, printed, with_builder, write};
use crate::needs_go;
use crate::support::mirror::{Answer, Mirror};
use crate::support::{Daemon, certificate, gostd};

/// Compiles nothing: puts itself where a program is wanted.
const COMPILER: &str = r#"package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	fmt.Println("the other Go:", os.Args[1], os.Getenv("GOROOT"), os.Getenv("GOTOOLCHAIN"))
	self, _ := os.Executable()
	for i, arg := range os.Args {
		if arg == "-o" {
			in, _ := os.Open(self)
			out, _ := os.OpenFile(os.Args[i+1], os.O_CREATE|os.O_WRONLY, 0o755)
			io.Copy(out, in)
			out.Close()
		}
	}
}
"#;

/// A program that stands in for Go.
fn compiler(dir: &Path) -> Vec<u8> {
    fs::write(dir.join("go.go"), COMPILER).expect("writing a program");
    let status = Command::new("go")
        .args(["build", "-o", "compiler", "go.go"])
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .current_dir(dir)
        .status();
    assert!(status.expect("running go").success());
    fs::read(dir.join("compiler")).expect("reading the program")
}

/// Puts the toolchain module of a version into a directory that is a module proxy; gives its hash, as go.sum has it.
fn publish(proxy: &Path, version: &str, compiler: &[u8]) -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let version_of_module = format!("v0.0.1-go{version}.{}-{architecture}", std::env::consts::OS);
    let dir = proxy.join("golang.org/toolchain/@v");
    fs::create_dir_all(&dir).expect("making a directory");
    let mut archive =
        zip::ZipWriter::new(fs::File::create(dir.join(format!("{version_of_module}.zip"))).expect("making a zip"));
    let mut lines = Vec::new();
    let text = format!("go{version}\ntime 2030-01-01T00:00:00Z\n");
    for (name, bytes) in
        [("VERSION", text.as_bytes()), ("bin/go", compiler), ("lib/time/zoneinfo.zip", b"zones"), ("src/x.go", b"x")]
    {
        let name = format!("golang.org/toolchain@{version_of_module}/{name}");
        archive.start_file(&name, zip::write::SimpleFileOptions::default()).expect("writing a zip");
        archive.write_all(bytes).expect("writing a zip");
        lines.push((name.clone(), format!("{}  {name}\n", hex::encode(Sha256::digest(bytes)))));
    }
    archive.finish().expect("writing a zip");
    lines.sort();
    let all: String = lines.into_iter().map(|(_, line)| line).collect();
    format!("h1:{}", STANDARD.encode(Sha256::digest(all)))
}

#[test]
fn a_newer_go_comes_from_the_module_proxy_if_its_hash_is_right() {
    needs_go!();
    let proxy = tempfile::tempdir().expect("a temporary directory");
    let compiler = compiler(proxy.path());
    let right = publish(proxy.path(), "1.99.4", &compiler);
    publish(proxy.path(), "1.99.7", &compiler);
    let archive = |version: &str, sum: &str| {
        format!("[[builder.archives]]\nversion = \"{version}\"\nfrom = \"proxy\"\nsum = {sum:?}\n")
    };
    let settings = format!(
        "proxy = \"file://{}\"\n{}{}",
        proxy.path().display(),
        archive("1.99.7", &right),
        archive("1.99.4", &right)
    );
    let daemon = with_builder(&settings);
    let stack =
        |name: &str| format!("  {name}:\n    lang: dockerfile\n    handler: ./{name}\n    image: local/{name}:1\n");
    write(&daemon, "stack.yml", &format!("functions:\n{}{}{}", stack("own"), stack("newer"), stack("wrong")));
    for (name, version) in [("own", "1.22"), ("newer", "1.99.2"), ("wrong", "1.99.5")] {
        write(&daemon, &format!("{name}/go.mod"), &format!("module m\n\ngo {version}\n"));
        write(&daemon, &format!("{name}/main.go"), "package main\n\nfunc main() {}\n");
    }
    let output = build(&daemon, &[]);
    let told = printed(&output);
    assert_eq!(output.status.code(), Some(64), "{told}");
    // The oldest that is new enough; and the host's own where that is.
    assert!(told.contains("newer | compiling with Go 1.99.4 for "), "{told}");
    assert!(told.contains("newer | built local/newer:1"), "{told}");
    assert!(told.contains("own   | built local/own:1") && !told.contains("own   | compiling with Go 1.99"), "{told}");
    // Another version's hash.
    assert!(told.contains("wrong | ") && told.contains("one of them is wrong"), "{told}");
    assert_keeps(&daemon, "1.99.4");
    // What is there needs no proxy.
    fs::remove_dir_all(proxy.path().join("golang.org")).expect("removing the proxy");
    write(&daemon, "newer/main.go", "package main\n\nfunc main() { println() }\n");
    let again = printed(&build(&daemon, &["--filter", "newer"]));
    assert!(again.contains("newer | built local/newer:1"), "{again}");
}

/// A Go's archive as the Go project ships it: `go/…` in a `.tar.gz`.
fn shipped(version: &str, compiler: &[u8]) -> Vec<u8> {
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(gzip);
    let text = format!("go{version}\ntime 2030-01-01T00:00:00Z\n");
    for (name, bytes) in
        [("go/VERSION", text.as_bytes()), ("go/bin/go", compiler), ("go/lib/time/zoneinfo.zip", b"zones")]
    {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, name, bytes).expect("writing a tar");
    }
    archive.into_inner().expect("writing a tar").finish().expect("compressing")
}

/// A table `[[builder.archives]]`.
fn configured(version: &str, from: &str, sum: &str) -> String {
    format!("[[builder.archives]]\nversion = \"{version}\"\nfrom = \"{from}\"\nsum = \"{sum}\"\n")
}

fn sum_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Functions that ask for these versions of Go, each named as its version with dashes.
fn functions(daemon: &Daemon, versions: &[&str]) {
    let mut stack = "functions:\n".to_owned();
    for version in versions {
        let name = format!("go-{}", version.replace('.', "-"));
        stack += &format!("  {name}:\n    lang: dockerfile\n    handler: ./{name}\n    image: local/{name}:1\n");
        write(daemon, &format!("{name}/go.mod"), &format!("module m\n\ngo {version}\n"));
        write(daemon, &format!("{name}/main.go"), "package main\n\nfunc main() {}\n");
    }
    write(daemon, "stack.yml", &stack);
}

/// No installation but of this version has been kept, and nothing half of one.
#[track_caller]
fn assert_keeps(daemon: &Daemon, version: &str) {
    let entries = fs::read_dir(daemon.root.join("builder/go")).expect("the toolchains");
    let kept: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    assert!(matches!(&kept[..], [one] if one.starts_with(&format!("{version}-"))), "{kept:?}");
}

#[test]
fn a_newer_go_comes_from_an_https_mirror_that_is_trusted_and_only_from_there() {
    needs_go!();
    if !certificate::possible() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let archive = shipped("1.99.4", &compiler(dir.path()));
    let certificate = certificate::make(dir.path(), "mirror");
    let (file, plain) = (archive.clone(), archive.clone());
    let unencrypted = Mirror::start(move |_, _| Answer::Whole(plain.clone()));
    let elsewhere = unencrypted.url("/go.tar.gz");
    let mirror = Mirror::encrypted(&certificate, move |path, before| match path {
        "/go.tar.gz" if before == 0 => Answer::Short(file.clone()),
        "/go.tar.gz" => Answer::Moved("/releases/go.tar.gz".into()),
        "/releases/go.tar.gz" => Answer::Whole(file.clone()),
        "/plain.tar.gz" => Answer::Moved(elsewhere.clone()),
        _ => Answer::Missing,
    });
    let sum = sum_of(&archive);
    let archives = [
        configured("1.99.4", &mirror.url("/go.tar.gz"), &sum),
        configured("1.99.5", &mirror.url("/plain.tar.gz"), &sum),
    ];
    let prepared = |trusted: Option<&Path>| {
        let options = Daemon::with().without_images();
        let options = trusted.iter().fold(options, |o, file| o.env("SSL_CERT_FILE", &file.display().to_string()));
        let daemon = options.table(&gostd::builder(&format!("proxy = \"off\"\n{}", archives.concat()))).prepare();
        gostd::lend(&daemon);
        functions(&daemon, &["1.99.2", "1.99.5"]);
        daemon
    };
    let daemon = prepared(Some(&certificate.0));
    // Cut off once, and asked for again.
    let told = printed(&build(&daemon, &["--filter", "go-1-99-2"]));
    assert!(told.contains("compiling with Go 1.99.4 for ") && told.contains("built local/go-1-99-2:1"), "{told}");
    assert_eq!(mirror.requests(), 3);
    assert_keeps(&daemon, "1.99.4");
    let told = printed(&build(&daemon, &["--filter", "go-1-99-5"]));
    assert!(told.contains("which is not encrypted") && unencrypted.requests() == 0, "{told}");
    // What is there is not asked for again.
    write(&daemon, "go-1-99-2/main.go", "package main\n\nfunc main() { println() }\n");
    let told = printed(&build(&daemon, &["--filter", "go-1-99-2"]));
    assert!(told.contains("built local/go-1-99-2:1"), "{told}");
    let before = mirror.requests();
    assert_eq!(before, 4);
    let stranger = prepared(None);
    let told = printed(&build(&stranger, &["--filter", "go-1-99-2"]));
    let from = mirror.url("/go.tar.gz");
    assert!(told.contains(&format!("cannot get Go 1.99.4 from {from}")) && told.contains("certificate"), "{told}");
    assert_eq!(mirror.requests(), before, "a mirror that is not trusted was asked");
}

#[test]
fn what_is_no_go_on_a_mirror_is_refused_in_a_sentence_and_nothing_of_it_is_kept() {
    needs_go!();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let good = shipped("1.97.0", &compiler(dir.path()));
    let damaged = good[..good.len() - 20].to_vec();
    let sums = [sum_of(&good), sum_of(&damaged)];
    let file = good.clone();
    let mirror = Mirror::start(move |path, _| match path {
        "/good" => Answer::Whole(file.clone()),
        "/cut" => Answer::Short(file.clone()),
        "/damaged" => Answer::Whole(damaged.clone()),
        "/text" => Answer::Whole(b"what is this?".to_vec()),
        _ => Answer::Missing,
    });
    let cases = [
        ("1.91.0", "/good", "0".repeat(64), format!("its checksum is {}, not 000", sums[0])),
        ("1.92.0", "/none", sums[0].clone(), "answers 404".into()),
        ("1.93.0", "/cut", sums[0].clone(), "was cut off".into()),
        ("1.94.0", "/damaged", sums[1].clone(), "damaged".into()),
        ("1.95.0", "/text", sum_of(b"what is this?"), "it is damaged: invalid gzip header".into()),
        ("1.96.0", "/good", sums[0].clone(), "it holds Go 1.97.0, not 1.96.0 as builder.archives says".into()),
        ("1.97.0", "/good", sums[0].clone(), "built local/go-1-97-0:1".into()),
    ];
    let archives: String =
        cases.iter().map(|(version, path, sum, _)| configured(version, &mirror.url(path), sum)).collect();
    let daemon = with_builder(&format!("proxy = \"off\"\n{archives}"));
    functions(&daemon, &cases.each_ref().map(|(version, ..)| *version));
    let output = build(&daemon, &[]);
    let told = printed(&output);
    assert_eq!(output.status.code(), Some(64), "{told}");
    for (version, path, _, words) in &cases {
        let name = format!("go-{} | ", version.replace('.', "-"));
        let lines: Vec<&str> = told.lines().filter(|line| line.starts_with(&name)).collect();
        assert!(lines.iter().any(|line| line.contains(words)), "{version}, {path}: {told}");
    }
    assert!(told.contains("6 of 7 functions are not built"), "{told}");
    assert_keeps(&daemon, "1.97.0");
}
