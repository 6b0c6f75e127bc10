//! A newer Go than the host's: the toolchain module of a module proxy, as Go itself would get it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::builder::{build, printed, with_builder, write};
use crate::needs_go;

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
    let kept: Vec<String> = fs::read_dir(daemon.root.join("builder/go"))
        .expect("the toolchains")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert!(matches!(&kept[..], [one] if one.starts_with("1.99.4-")), "{kept:?}");
    // What is there needs no proxy.
    fs::remove_dir_all(proxy.path().join("golang.org")).expect("removing the proxy");
    write(&daemon, "newer/main.go", "package main\n\nfunc main() { println() }\n");
    let again = printed(&build(&daemon, &["--filter", "newer"]));
    assert!(again.contains("newer | built local/newer:1"), "{again}");
}
