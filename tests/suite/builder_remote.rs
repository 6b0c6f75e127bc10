//! The remote builder, as stock faas-cli uses it; and what must be refused before anything is unpacked.

use std::fs;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::builder::{bring, printed, with_builder, write};
use crate::support::registry::{Access, Registry};
use crate::support::{Daemon, eventually};
use crate::{needs_go, needs_stock};

const SECRET: &str = "a secret of the tests\n";

/// A daemon that takes remote builds, with a stack file of one function.
fn builder(settings: &str, stack: &str) -> Daemon {
    let mut daemon = with_builder(&format!("payload_secret = \"PAYLOAD\"\n{settings}"));
    let secret = daemon.scratch().join("payload-secret").display().to_string();
    fs::write(&secret, SECRET).expect("writing the payload secret");
    let text = fs::read_to_string(&daemon.config).expect("reading the configuration");
    fs::write(&daemon.config, text.replace("PAYLOAD", &secret)).expect("writing the configuration");
    daemon.start_again();
    write(&daemon, "stack.yml", stack);
    daemon
}

fn publish(daemon: &Daemon, verb: &str) -> std::process::Output {
    let secret = daemon.scratch().join("payload-secret").display().to_string();
    let url = daemon.url();
    let arguments = ["-f", "stack.yml", "--remote-builder", &url, "--payload-secret", &secret];
    daemon.faas_cli(&[&[verb][..], &arguments].concat())
}

const HANDLER: &str = "package function\n\nimport \"net/http\"\n\nfunc Handle(w http.ResponseWriter, r *http.Request) { w.Write([]byte(Word)) }\n";

#[test]
fn faas_cli_publishes_with_sealed_secrets_and_deploys() {
    needs_go!();
    needs_stock!("faas-cli");
    let stack = "version: 1.0\nprovider:\n  name: openfaas\nfunctions:\n  f:\n    lang: go-http\n    handler: ./f\n    image: local/f:1\n    build_secrets:\n      token: ./token.txt\n";
    let daemon = builder("proxy = \"off\"", stack);
    bring(&daemon, "templates", "template");
    write(&daemon, "token.txt", "hush");
    write(&daemon, "f/go.mod", "module handler/function\n\ngo 1.22\n");
    write(&daemon, "f/handler.go", &format!("{HANDLER}\nconst Word = \"remote\"\n"));
    // The handler's test sees the secret; the function does not.
    let test = "package function\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestIt(t *testing.T) {\n\tif b, _ := os.ReadFile(\"/run/secrets/token\"); string(b) != \"hush\" {\n\t\tt.Fatal(string(b))\n\t}\n}\n";
    write(&daemon, "f/handler_test.go", test);
    let published = publish(&daemon, "publish");
    let told = printed(&published);
    assert!(published.status.success(), "{told}\n{}", daemon.log());
    assert!(told.contains("compiling with Go") && told.contains("not pushed (builder.push)"), "{told}");
    let deployed = daemon.faas_cli(&["deploy", "-f", "stack.yml"]);
    assert!(deployed.status.success(), "{}", printed(&deployed));
    let answer = eventually("an answer", || Some(daemon.call("f")).filter(|answer| answer.status == 200));
    assert_eq!(answer.text(), "remote");
    // What does not compile fails on the caller's screen, and the next build works.
    write(&daemon, "f/handler.go", HANDLER);
    let failed = publish(&daemon, "publish");
    assert!(!failed.status.success());
    assert!(printed(&failed).contains("undefined: Word"), "{}", printed(&failed));
    write(&daemon, "f/handler.go", &format!("{HANDLER}\nconst Word = \"again\"\n"));
    let up = publish(&daemon, "up");
    assert!(up.status.success(), "{}", printed(&up));
    eventually("the new answer", || Some(()).filter(|()| daemon.call("f").text() == "again"));
}

#[test]
fn a_template_that_is_not_go_fails_with_a_sentence_and_a_wrong_secret_without_one() {
    needs_go!();
    needs_stock!("faas-cli");
    let stack = "version: 1.0\nprovider:\n  name: openfaas\nfunctions:\n  f:\n    lang: python3-http\n    handler: ./f\n    image: local/f:1\n";
    let daemon = builder("proxy = \"off\"", stack);
    write(&daemon, "template/python3-http/template.yml", "language: python3-http\nfprocess: python index.py\n");
    write(&daemon, "template/python3-http/index.py", "pass\n");
    write(&daemon, "f/handler.py", "pass\n");
    let told = printed(&publish(&daemon, "publish"));
    assert!(told.contains("template python3-http is not Go: this builder compiles Go modules"), "{told}");
    write(&daemon, "payload-secret", "another\n");
    let wrong = daemon.faas_cli(&[
        "publish",
        "-f",
        "stack.yml",
        "--remote-builder",
        &daemon.url(),
        "--payload-secret",
        "/dev/null",
    ]);
    assert!(printed(&wrong).contains("status code 401"), "{}", printed(&wrong));
}

/// A tar with these entries, names as they are.
fn tar_of(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, text) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        archive.append(&header, text.as_bytes()).expect("writing a tar");
    }
    archive.into_inner().expect("writing a tar")
}

fn signed(body: &[u8]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.trim().as_bytes());
    format!("sha256={}", hex::encode(ring::hmac::sign(&key, body)))
}

#[test]
fn what_is_not_signed_or_leads_out_is_refused_before_it_is_unpacked() {
    needs_go!();
    let daemon = builder("proxy = \"off\"\nsource = 100000", "functions: {}\n");
    let config = ("com.openfaas.docker.config", "{\"image\":\"local/f:1\"}");
    let send = |body: &[u8], signature: Option<&str>| {
        let mut request = daemon.http.request("POST", "/build").body(body);
        if let Some(signature) = signature {
            request = request.header("X-Build-Signature", signature);
        }
        request.send()
    };
    let good = tar_of(&[config, ("context/go.mod", "module m\n")]);
    for signature in [None, Some("sha256=00"), Some(signed(b"other").as_str())] {
        assert_eq!(send(&good, signature).status, 401);
    }
    for (entries, word) in [
        (vec![config, ("/etc/cron.d/x", "x")], "absolute name"),
        (vec![config, ("context/../../x", "x")], "leads out"),
        (vec![("context/go.mod", "module m\n")], "no com.openfaas.docker.config"),
        (vec![("com.openfaas.docker.config", "{\"image\":\"NO\"}")], "invalid"),
    ] {
        let body = tar_of(&entries);
        let answer = send(&body, Some(&signed(&body)));
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains(word), "{}", answer.text());
    }
    let huge = vec![0; 200_000];
    assert_eq!(send(&huge, Some(&signed(&huge))).status, 413);
    assert_eq!(fs::read_dir(daemon.root.join("builder/work")).expect("its work directory").count(), 0);
    // A build that fails says so in the answer, streamed or not.
    let answer = send(&good, Some(&signed(&good))).expect(200).value();
    assert_eq!(answer["status"], "failed");
    assert!(answer["error"].as_str().is_some_and(|said| said.contains("does not compile")), "{answer}");
}

#[test]
fn remote_builds_are_off_unless_there_is_a_secret() {
    needs_go!();
    let mut daemon = with_builder("proxy = \"off\"");
    daemon.start_again();
    let answer = daemon.http.request("POST", "/build").body(&b"x"[..]).send();
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("builder.payload_secret"), "{}", answer.text());
}

/// A module proxy in a directory, with one module; gives its lines for a go.sum.
fn module_proxy(dir: &std::path::Path, module: &str, files: &[(&str, &str)]) -> String {
    let at = dir.join(module).join("@v");
    fs::create_dir_all(&at).expect("making a directory");
    let line = |entries: &[(String, &str)]| {
        let mut entries: Vec<String> =
            entries.iter().map(|(name, text)| format!("{}  {name}\n", hex::encode(Sha256::digest(text)))).collect();
        entries.sort_by(|a, b| a[66..].cmp(&b[66..]));
        format!("h1:{}", STANDARD.encode(Sha256::digest(entries.concat())))
    };
    let mut archive = zip::ZipWriter::new(fs::File::create(at.join("v1.0.0.zip")).expect("making a zip"));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut named = Vec::new();
    for (name, text) in files {
        let name = format!("{module}@v1.0.0/{name}");
        archive.start_file(&name, options).expect("writing a zip");
        archive.write_all(text.as_bytes()).expect("writing a zip");
        named.push((name, *text));
    }
    archive.finish().expect("writing a zip");
    let go_mod = files.iter().find(|(name, _)| *name == "go.mod").expect("a go.mod").1;
    fs::write(at.join("v1.0.0.mod"), go_mod).expect("writing a go.mod");
    let sums = (line(&named), line(&[("go.mod".to_owned(), go_mod)]));
    format!("{module} v1.0.0 {}\n{module} v1.0.0/go.mod {}\n", sums.0, sums.1)
}

/// Writes a template of the shape of the stock golang-http and golang-middleware: the handler is a module of its own, the
/// Dockerfile ends in of-watchdog; `serve` is how its program calls the handler.
fn stock_template(daemon: &Daemon, name: &str, serve: &str) {
    let template = |file: &str, text: &str| write(daemon, &format!("template/{name}/{file}"), text);
    template("template.yml", &format!("language: {name}\nfprocess: ./handler\n"));
    template("go.mod", "module handler\n\ngo 1.22\n");
    template(
        "main.go",
        &format!(
            "package main\n\nimport (\n\t\"net/http\"\n\n\t\"handler/function\"\n)\n\nfunc main() {{\n\thttp.HandleFunc(\"/\", {serve})\n\thttp.ListenAndServe(\":8082\", nil)\n}}\n"
        ),
    );
    template(
        "Dockerfile",
        "FROM scratch AS build\nFROM scratch\nWORKDIR /home/app\nENV fprocess=\"./handler\"\nENV mode=\"http\"\nENV upstream_url=\"http://127.0.0.1:8082\"\nCMD [\"./fwatchdog\"]\n",
    );
}

/// With a dependency that both handler and template have, and a registry.
#[test]
fn templates_of_the_stock_shape_get_their_modules_their_watchdog_and_a_registry() {
    needs_go!();
    needs_stock!("faas-cli");
    let watchdog = needs_stock!("of-watchdog");
    let registry = Registry::start(Access::Anonymous);
    let proxy = tempfile::tempdir().expect("a temporary directory");
    let sums = module_proxy(
        proxy.path(),
        "example.com/sdk",
        &[
            ("go.mod", "module example.com/sdk\n\ngo 1.22\n"),
            ("sdk.go", "package sdk\n\ntype Answer struct{ Body string }\n"),
        ],
    );
    let image = registry.name("team/stock", "1");
    let stack = format!(
        "version: 1.0\nprovider:\n  name: openfaas\nfunctions:\n  stock:\n    lang: golang-http\n    handler: ./f\n    image: {image}\n  middle:\n    lang: golang-middleware\n    handler: ./m\n    image: {}\n    build_args:\n      GOFLAGS: -tags=special\n",
        registry.name("team/middle", "1")
    );
    let settings = format!("proxy = \"file://{}\"\nwatchdog = {watchdog:?}\npush = true", proxy.path().display());
    let daemon = builder(&settings, &stack);
    stock_template(
        &daemon,
        "golang-http",
        "func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(function.Handle().Body)) }",
    );
    stock_template(&daemon, "golang-middleware", "function.Handle");
    write(&daemon, "m/go.mod", "module handler/function\n\ngo 1.22\n");
    write(&daemon, "m/handler.go", HANDLER);
    // A build argument decides which file is compiled.
    write(&daemon, "m/one.go", "//go:build !special\n\npackage function\n\nconst Word = \"ordinary\"\n");
    write(&daemon, "m/two.go", "//go:build special\n\npackage function\n\nconst Word = \"special\"\n");
    write(&daemon, "f/go.mod", "module handler/function\n\ngo 1.22\n\nrequire example.com/sdk v1.0.0\n");
    write(&daemon, "f/go.sum", &sums);
    write(
        &daemon,
        "f/handler.go",
        "package function\n\nimport \"example.com/sdk\"\n\nfunc Handle() sdk.Answer { return sdk.Answer{Body: \"through the watchdog\"} }\n",
    );
    let published = publish(&daemon, "publish");
    assert!(published.status.success(), "{}\n{}", printed(&published), daemon.log());
    let head = daemon.faas_cli(&["deploy", "-f", "stack.yml"]);
    assert!(head.status.success(), "{}", printed(&head));
    let answer = eventually("an answer", || Some(daemon.call("stock")).filter(|answer| answer.status == 200));
    assert_eq!(answer.text(), "through the watchdog");
    let answer = eventually("an answer", || Some(daemon.call("middle")).filter(|answer| answer.status == 200));
    assert_eq!(answer.text(), "special");
    // What was pushed can be pulled.
    assert!(daemon.run(&["image", "rm", &image]).status.success());
    let pulled = daemon.run(&["image", "pull", &image]);
    assert!(pulled.status.success(), "{}", printed(&pulled));
    // A go.sum that vouches for something else is an error that says so.
    let bent = sums.replacen("h1:", "h1:A", 1);
    write(&daemon, "f/go.sum", &bent);
    fs::remove_dir_all(daemon.root.join("builder/modules")).expect("forgetting the modules");
    let told = printed(&publish(&daemon, "publish"));
    assert!(told.contains("one of them is wrong"), "{told}");
}
