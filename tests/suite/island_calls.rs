//! Sky Island's API: calls, versions, caches, runs.

use std::fs;

use serde_json::{Value, json};

use crate::needs_go;
use crate::support::sky::{Sky, data};
use crate::support::{Daemon, eventually};

/// How many programs came from the cache, and how many from a build.
fn programs(sky: &Sky) -> (u64, u64) {
    let text = sky.daemon.http.get("/metrics").expect(200).text();
    let of = |from: &str| {
        let name = format!("faas_jails_island_programs_total{{from=\"{from}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
    };
    (of("cache"), of("build"))
}

/// The requests of Sky Island's Go, Python and C clients (its `clients` directory), byte by byte but for the address.
#[test]
fn requests_of_sky_island_s_clients_are_answered() {
    needs_go!();
    let sky = Sky::start();
    let (_repository, url) = sky.functions();
    let call = "Encode(100.1, 80.9)";
    let go = format!("{{\"url\": \"{url}\", \"call\": \"{call}\"}}");
    let c = format!("{{ \"url\": \"{}\", \"call\": \"{call}\" }}", url.replace('/', "\\/"));
    let requests: [(&[(&str, &str)], &str); 3] = [
        (&[("User-Agent", "Go-http-client/1.1"), ("Accept-Encoding", "gzip")], &go),
        (&[("User-Agent", "python-requests/2.31.0"), ("Accept-Encoding", "gzip, deflate"), ("Accept", "*/*")], &go),
        (&[("User-Agent", "sky-island/1.0"), ("Accept", "application/json"), ("Content-Type", "application/json")], &c),
    ];
    for (headers, body) in requests {
        let request = sky.http.request("POST", "/api/v1/function");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        let answer = request.body(body).send().expect(200);
        assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
        let value = answer.value();
        assert_eq!(value["data"], "100.1/80.9", "{value}");
        let now = jiff::Timestamp::now().as_second();
        assert!((now - 300..=now).contains(&value["timestamp"].as_i64().expect("a number")), "{value}");
        assert_eq!(value.as_object().expect("an object").len(), 2, "{value}");
    }
    assert_eq!(programs(&sky), (2, 1));
}

#[test]
fn every_literal_arrives_as_go_means_it() {
    needs_go!();
    let sky = Sky::start();
    let (_repository, url) = sky.functions();
    let call = r#"Echo(42, -0x1F, 0b11, 0o17, 017, 1_000, 1.5, -.5e1, 0x1p-2, 2i, 'a', '\n', '\x41', '\377', '世',
        "q\"\\ \u4e16 \xff", `raw \n "x"`, true, false, nil)"#;
    let expected = "42; -31; 3; 15; 15; 1000; 1.5; -5; 0.25; (0+2i); 97; 10; 65; 255; 19990; \
        \"q\\\"\\\\ 世 \\xff\"; \"raw \\\\n \\\"x\\\"\"; true; false; <nil>";
    assert_eq!(sky.call(&url, call), expected);
    // Several results, and bytes that are no text, as Sky Island printed them.
    assert_eq!(sky.call(&url, "Pair()"), "1two");
    assert_eq!(sky.call(&url, "called.Raw()"), "a\u{fffd}b");
    // What the compiler says about a function that is not there reaches the caller.
    let answer = sky.try_call(&url, "Missing(1)");
    answer.expect_error(400, &["undefined: function.Missing"]);
}

const MODULE: (&str, &str) = ("go.mod", "module example.test/versions\n\ngo 1.21\n");

fn version(text: &str) -> String {
    format!("package versions\n\n// Version tells one.\nfunc Version() string {{ return {text:?} }}\n")
}

#[test]
fn a_tag_a_branch_and_a_commit_are_what_is_built() {
    needs_go!();
    let sky = Sky::start();
    let repository = sky.git.repository("versions");
    let first = repository.commit(&[MODULE, ("v.go", &version("one"))]);
    repository.tag("v1.0.0");
    repository.commit(&[("v.go", &version("two"))]);
    repository.branch("next/big");
    repository.commit(&[("v.go", &version("three"))]);
    let url = sky.git.url("versions");
    let at = |version: &str| sky.ask(json!({"url": url, "call": "Version()", "version": version}));
    for (version, expected) in
        [("v1.0.0", "one"), (&*first, "one"), ("next/big", "three"), ("main", "two"), ("", "two")]
    {
        assert_eq!(data(&at(version).expect(200)), expected, "{version:?}");
    }
    at("v9").expect_error(400, &["no tag or branch v9"]);
    at("0123456789012345678901234567890123456789").expect_error(400, &["0123456789"]);
    for bad in ["-x", "a..b", "a b", "../main", "a~1", "a^", "a:b", "a\\b", "a@{1}", "/a", "a//b", ".a"] {
        at(bad).expect_error(400, &["version"]);
    }
}

#[test]
fn what_was_built_is_used_again_after_a_restart_too_until_the_cache_is_busted() {
    needs_go!();
    let mut sky = Sky::start();
    let repository = sky.git.repository("versions");
    repository.commit(&[MODULE, ("v.go", &version("one"))]);
    let url = sky.git.url("versions");
    assert_eq!(sky.call(&url, "Version()"), "one");
    repository.commit(&[("v.go", &version("two"))]);
    let asked = sky.git.requests();
    assert_eq!(sky.call(&url, "Version()"), "one");
    assert_eq!(sky.call(&url, "  Version( )"), "one");
    assert!(sky.daemon.stop().success());
    sky.launch();
    assert_eq!(sky.call(&url, "Version()"), "one");
    assert_eq!(sky.git.requests(), asked, "a program that is there needs no git");
    assert_eq!(programs(&sky), (1, 0), "a program that is there needs no build");
    let bust = |call: &str| data(&sky.ask(json!({"url": url, "call": call, "cache_bust": true})).expect(200));
    assert_eq!(bust("Version()"), "two");
    assert!(sky.git.requests() > asked);
    assert_eq!(programs(&sky), (1, 1));
    assert_eq!(sky.call(&url, "Version()"), "two");
}

#[test]
fn a_version_is_looked_up_again_when_it_is_too_old_and_a_program_nobody_calls_goes() {
    needs_go!();
    let sky = Sky::with(Daemon::with(), "cache_default_expiration = 0\ncache_purge_after = \"8s\"");
    let repository = sky.git.repository("versions");
    repository.commit(&[MODULE, ("v.go", &version("one"))]);
    let url = sky.git.url("versions");
    assert_eq!(sky.call(&url, "Version()"), "one");
    repository.commit(&[("v.go", &version("two"))]);
    assert_eq!(sky.call(&url, "Version()"), "two");
    let images = || {
        let out = sky.daemon.run(&["image", "ls"]);
        String::from_utf8_lossy(&out.stdout).matches("island.invalid/").count()
    };
    eventually("programs that nobody calls are removed", || (images() == 0).then_some(()));
    assert_eq!(sky.call(&url, "Version()"), "two");
    assert_eq!(images(), 1);
}

#[test]
fn ten_callers_at_once_share_one_build_and_never_each_other_s_code() {
    needs_go!();
    let sky = Sky::start();
    let (_repository, url) = sky.functions();
    let together = std::sync::Barrier::new(12);
    let call = |text: &str| {
        together.wait();
        sky.call(&url, text)
    };
    std::thread::scope(|scope| {
        let same: Vec<_> = (0..10).map(|_| scope.spawn(|| call("Encode(1, 2)"))).collect();
        let others = [scope.spawn(|| call("Encode(3, 4)")), scope.spawn(|| call("Encode(5, 6)"))];
        for one in same {
            assert_eq!(one.join().expect("no panic"), "1.0/2.0");
        }
        let others = others.map(|other| other.join().expect("no panic"));
        assert_eq!(others, ["3.0/4.0", "5.0/6.0"]);
    });
    assert_eq!(programs(&sky).1, 3);
    assert_eq!(sky.daemon.traces().replica_names().len(), 0);
}

#[test]
fn a_run_is_nobody_of_the_host_and_has_an_address_only_if_it_wants_one() {
    needs_go!();
    let sky = Sky::start();
    let (_repository, url) = sky.functions();
    let alone = sky.call(&url, "Self()");
    assert!(alone.starts_with("uid=64321 host=called addresses="), "{alone}");
    assert!(alone.ends_with("addresses="), "{alone}");
    let prefix = sky.daemon.host().rsplit_once('.').expect("an address").0.to_owned();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let answer = data(&sky.ask(json!({"url": url, "call": "Self()", "ip4": true})).expect(200));
        let address = answer.rsplit('=').next().expect("an address").to_owned();
        assert!(address.starts_with(&prefix), "{answer}");
        seen.insert(address);
    }
    assert_eq!(seen.len(), 2, "an address is reused last");
    assert_eq!(sky.call(&url, "Write(\"/tmp/x\")"), "written");
    for path in ["/x", "/etc/passwd", "/home/app/handler"] {
        let answer = sky.call(&url, &format!("Write({path:?})"));
        assert!(answer.starts_with("error:"), "{path}: {answer}");
    }
    assert!(sky.call(&url, "Read(\"/tmp/x\")").starts_with("error:"), "a run sees what another wrote");
}

#[test]
fn dependencies_come_from_the_module_proxy_or_with_the_repository_which_needs_no_go_mod() {
    needs_go!();
    let mut sky = Sky::prepare(Daemon::with(), "");
    let proxy = sky.dir.path().join("proxy");
    let dependency = [
        ("go.mod", "module example.test/dep\n\ngo 1.21\n"),
        ("dep.go", "package dep\n\n// Word is one.\nconst Word = \"depended\"\n"),
    ];
    publish_module(&proxy, &dependency);
    let config = fs::read_to_string(&sky.daemon.config).expect("the configuration");
    let config = config.replace("proxy = \"off\"", &format!("proxy = \"file://{}\"", proxy.display()));
    fs::write(&sky.daemon.config, config).expect("writing the configuration");
    sky.launch();
    let source = "package user\n\nimport \"example.test/dep\"\n\n// Word is the dependency's.\nfunc Word() string { return dep.Word }\n";
    let proxied = sky.git.repository("proxied");
    fs::write(proxied.work.join("go.mod"), "module example.test/user\n\ngo 1.21\n\nrequire example.test/dep v1.0.0\n")
        .unwrap();
    fs::write(proxied.work.join("user.go"), source).unwrap();
    let go = |arguments: &[&str]| {
        let status = std::process::Command::new("go")
            .args(arguments)
            .current_dir(&proxied.work)
            .env("GOPROXY", format!("file://{}", proxy.display()))
            .env("GONOSUMDB", "*")
            .env("GOFLAGS", "-mod=mod")
            .env("GOMODCACHE", sky.dir.path().join("modules"))
            .status();
        assert!(status.expect("running go").success(), "go {arguments:?}");
    };
    go(&["mod", "tidy"]);
    proxied.publish();
    assert_eq!(sky.call(&sky.git.url("proxied"), "Word()"), "depended");
    go(&["mod", "vendor"]);
    fs::rename(proxied.work.join("vendor"), sky.dir.path().join("vendor")).expect("moving");
    go(&["clean", "-modcache"]);
    let vendored = sky.git.repository("vendored");
    fs::rename(sky.dir.path().join("vendor"), vendored.work.join("vendor")).expect("moving");
    fs::copy(proxied.work.join("go.mod"), vendored.work.join("go.mod")).expect("copying");
    vendored.commit(&[("user.go", source)]);
    fs::remove_dir_all(&proxy).expect("removing the proxy");
    assert_eq!(sky.call(&sky.git.url("vendored"), "Word()"), "depended");
    // As all were in Sky Island's days.
    let old = sky.git.repository("old");
    old.commit(&[("old.go", "package another\n\n// Word is its own.\nfunc Word() string { return \"old\" }\n")]);
    assert_eq!(sky.call(&sky.git.url("old"), "Word()"), "old");
}

/// Puts version 1.0.0 of module example.test/dep into a directory that is a module proxy (go.dev/ref/mod).
fn publish_module(proxy: &std::path::Path, files: &[(&str, &str)]) {
    use std::io::Write;
    let dir = proxy.join("example.test/dep/@v");
    fs::create_dir_all(&dir).expect("making the proxy");
    fs::write(dir.join("list"), "v1.0.0\n").expect("writing the list");
    fs::write(dir.join("v1.0.0.info"), json!({"Version": "v1.0.0", "Time": "2024-01-01T00:00:00Z"}).to_string())
        .unwrap();
    fs::write(dir.join("v1.0.0.mod"), files[0].1).expect("writing go.mod");
    let mut zip = zip::ZipWriter::new(fs::File::create(dir.join("v1.0.0.zip")).expect("making the archive"));
    for (name, text) in files {
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file(format!("example.test/dep@v1.0.0/{name}"), options).expect("adding a file");
        zip.write_all(text.as_bytes()).expect("adding a file");
    }
    zip.finish().expect("finishing the archive");
}

#[test]
fn bodies_are_read_as_go_reads_them() {
    needs_go!();
    let sky = Sky::start();
    let (_repository, url) = sky.functions();
    let answer = sky.ask(json!({"URL": url, "Call": "Encode(1, 2)", "ip4": null, "unknown": 1})).expect(200);
    assert_eq!(data(&answer), "1.0/2.0");
    for body in ["", "{", "[]", "{\"url\": 1}", "{\"url\": \"a\", \"call\": \"F()\", \"ip4\": \"yes\"}"] {
        let answer = sky.http.request("POST", "/api/v1/function").body(body).send();
        answer.expect_error(400, &["\"error\":\"Bad Request"]);
    }
    let large: Value = json!({"url": url, "call": format!("Echo(\"{}\")", "x".repeat(2 << 20))});
    sky.ask(large).expect_error(413, &["error"]);
    sky.http.get("/api/v1/function").expect(405);
    sky.http.get("/").expect_error(404, &["{\"error\":\"Not Found\"}"]);
}
