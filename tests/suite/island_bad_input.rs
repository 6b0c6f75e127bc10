//! Sky Island's API: repositories and calls that are wrong or hostile. Each ends inside its limits with a reason, and
//! the next call works.

use std::os::unix::fs::symlink;

use serde_json::json;

use crate::support::Daemon;
use crate::support::sky::{Sky, data};
use crate::{linux_only, needs_go};

#[test]
fn a_call_that_is_none_is_refused_with_the_place_where_it_stops_being_one() {
    needs_go!();
    let sky = Sky::start();
    let (_repository, url) = sky.functions();
    for (call, words) in [
        ("Encode(1)); panic(1", "call: column 10: found ')'; a call ends with its )"),
        ("Encode(os.Args)", "call: column 8: os is no literal"),
        ("encode(1)", "call: column 1: encode is not exported"),
        ("", "call: column 1: the call ends"),
    ] {
        sky.try_call(&url, call).expect_error(400, &[words]);
    }
    assert_eq!(sky.git.requests(), 0, "nothing is fetched for a call that is none");
}

#[test]
fn a_url_that_is_no_repository_of_an_allowed_host_reaches_nothing() {
    needs_go!();
    let sky = Sky::start();
    let (_repository, url) = sky.functions();
    let victim = sky.dir.path().join("victim");
    std::fs::create_dir(&victim).expect("making a directory");
    let host = sky.git.address.to_string();
    for bad in [
        String::new(),
        host.clone(),
        format!("{host}/"),
        format!("{host}/../../../../../..{}", victim.display()),
        format!("{host}/called/../../victim"),
        format!("{host}/./called"),
        format!("{host}//called"),
        format!("{host}/-called"),
        format!("{host}/.called"),
        format!("{host}/called?x=1"),
        format!("{host}/called#x"),
        format!("{host}/called%2e%2e"),
        format!("{host}/called\n"),
        format!("{host}/called called"),
        format!("{host}/called\"; panic(1); \""),
        format!("user:password@{host}/called"),
        format!("ftp://{host}/called"),
        format!("file://{}", victim.display()),
        victim.display().to_string(),
        "ext::sh -c true".into(),
        "--upload-pack=true".into(),
        "git@github.com:a/b".into(),
        "127.0.0.1:1/called".into(),
        "localhost/called".into(),
        "example.com/called".into(),
    ] {
        let answer = sky.ask(json!({"url": bad, "call": "F()", "cache_bust": true}));
        assert_eq!(answer.status, 400, "{bad:?}: {}", answer.text());
        assert!(answer.value()["error"].as_str().is_some_and(|error| !error.is_empty()), "{bad:?}");
    }
    assert_eq!(sky.git.requests(), 0);
    assert!(victim.exists(), "a directory of the host was deleted");
    sky.try_call(&sky.git.url("nothing"), "F()").expect_error(404, &["nothing"]);
    assert_eq!(sky.call(&url, "Encode(1, 2)"), "1.0/2.0");
}

#[test]
fn a_repository_that_cannot_be_built_is_answered_with_the_compiler_s_words() {
    needs_go!();
    let sky = Sky::with(Daemon::with(), "");
    let (_repository, url) = sky.functions();
    let module = ("go.mod", "module example.test/bad\n\ngo 1.21\n");
    let bad = |name: &str, files: &[(&str, &str)]| {
        let repository = sky.git.repository(name);
        repository.commit(files);
        sky.try_call(&sky.git.url(name), "F()")
    };
    bad("broken", &[module, ("f.go", "package bad\n\nfunc F() string { return 1 }\n")])
        .expect_error(400, &["f.go:3:", "cannot use 1"]);
    bad("newer", &[("go.mod", "module example.test/bad\n\ngo 1.99\n"), ("f.go", "package bad\n")])
        .expect_error(400, &["newer Go", "1.99"]);
    bad("program", &[module, ("f.go", "package main\n\nfunc F() {}\n\nfunc main() {}\n")])
        .expect_error(400, &["program"]);
    bad("silent", &[module, ("f.go", "package bad\n\n// F is silent.\nfunc F() {}\n")])
        .expect_error(400, &["used as value"]);
    bad("nothing", &[("README", "no Go here")]).expect_error(400, &["no Go files"]);
    bad("missing", &[module, ("f.go", "package bad\n\nimport _ \"example.test/other\"\n")])
        .expect_error(400, &["example.test/other"]);
    bad("main.go", &[("go.mod", "module a\"\nimport \"os\n")]).expect(400);
    assert_eq!(sky.call(&url, "Encode(1, 2)"), "1.0/2.0");
}

#[test]
fn a_link_in_a_repository_where_a_file_is_written_reaches_nothing_outside() {
    needs_go!();
    let sky = Sky::start();
    let victim = sky.dir.path().join("victim");
    std::fs::write(&victim, "before").expect("writing");
    for (index, link) in
        ["cmd", "cmd/main.go", "faas-jails-call", "faas-jails-call/main.go", "go.mod"].iter().enumerate()
    {
        for target in [victim.clone(), sky.dir.path().to_owned()] {
            let name = format!("linked-{index}-{}", target.is_dir());
            let repository = sky.git.repository(&name);
            let path = repository.work.join(link);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("making a directory");
            symlink(&target, &path).expect("making a link");
            repository.commit(&[("f.go", "package linked\n\n// F is there.\nfunc F() string { return \"ran\" }\n")]);
            sky.try_call(&sky.git.url(&name), "F()").expect_error(400, &["leads out of the source tree"]);
        }
    }
    assert_eq!(std::fs::read_to_string(&victim).expect("reading"), "before");
    assert!(!sky.dir.path().join("main.go").exists());
    // A link that stays inside is replaced, not followed.
    let repository = sky.git.repository("inside");
    std::fs::create_dir_all(repository.work.join("cmd")).expect("making a directory");
    symlink("../f.go", repository.work.join("cmd/main.go")).expect("making a link");
    repository.commit(&[
        ("go.mod", "module example.test/inside\n"),
        ("f.go", "package inside\n\n// F is there.\nfunc F() string { return \"ran\" }\n"),
    ]);
    assert_eq!(sky.call(&sky.git.url("inside"), "F()"), "ran");
}

#[test]
fn a_repository_that_is_huge_is_refused() {
    needs_go!();
    let mut sky = Sky::prepare(Daemon::with(), "");
    let config = std::fs::read_to_string(&sky.daemon.config).expect("the configuration");
    let config = config.replace("proxy = \"off\"", "proxy = \"off\"\nsource = 1000000");
    std::fs::write(&sky.daemon.config, config).expect("writing the configuration");
    sky.launch();
    let (_repository, url) = sky.functions();
    let huge = sky.git.repository("huge");
    std::fs::write(huge.work.join("zeros"), vec![0; 50 << 20]).expect("writing");
    huge.commit(&[("f.go", "package huge\n\n// F is there.\nfunc F() string { return \"ran\" }\n")]);
    sky.try_call(&sky.git.url("huge"), "F()").expect_error(400, &["1000000 bytes"]);
    assert_eq!(sky.call(&url, "Encode(1, 2)"), "1.0/2.0");
}

#[test]
fn what_a_function_does_wrong_ends_inside_its_limits_and_the_next_call_works() {
    needs_go!();
    // Enough for a call that ends, on an emulated machine or a busy one, too.
    let limit = if cfg!(target_os = "freebsd") { "40s" } else { "10s" };
    let settings = format!("exec_timeout = \"{limit}\"\noutput = 100000\nmemory = 67108864\npids = 32");
    let sky = Sky::with(Daemon::with(), &settings);
    let too_long = format!("ran longer than {limit}");
    let (_repository, url) = sky.functions();
    let fails = |call: &str, status: u16, words: &[&str]| {
        let answer = sky.try_call(&url, call);
        let body = answer.value();
        answer.expect_error(status, words);
        assert_eq!(sky.call(&url, "Encode(1, 2)"), "1.0/2.0", "after {call}");
        assert!(sky.daemon.traces().replica_names().is_empty(), "{call} left {}", sky.daemon.traces());
        body
    };
    let body = fails("Exit(3)", 500, &["exited with status 3"]);
    assert_eq!((body["status"].as_i64(), body["stderr"].as_str()), (Some(3), Some("so long\n")));
    let body = fails("Panic()", 500, &["exited with status 2"]);
    assert!(body["stderr"].as_str().is_some_and(|text| text.contains("panic: a test's panic")), "{body}");
    fails("Forever()", 504, &[&too_long]);
    fails("Flood()", 500, &["printed more than 100000 bytes"]);
    let body = fails("Murmur()", 500, &["printed more than 100000 bytes"]);
    assert!(body["stderr"].as_str().is_some_and(|text| text.len() <= 4096), "{body}");
    fails("Hungry(200)", 500, &["memory"]);
    // Where a fork beyond the limit is not denied but kills, it is the first process that dies, or another one.
    let bomb = sky.try_call(&url, "Bomb()");
    let killed = cfg!(target_os = "freebsd") && bomb.status == 500;
    if !killed {
        bomb.expect_error(504, &[&too_long]);
    }
    assert_eq!(sky.call(&url, "Encode(1, 2)"), "1.0/2.0", "after a fork bomb");
    assert!(sky.daemon.traces().replica_names().is_empty(), "a bomb left {}", sky.daemon.traces());
    // What is written to /tmp is memory: what goes beyond is refused, or the end.
    let filled = sky.try_call(&url, "Fill()");
    match filled.status {
        200 => assert!(data(&filled).starts_with("error: write /tmp/"), "{}", filled.text()),
        _ => drop(filled.expect_error(500, &["memory"])),
    }
    assert_eq!(sky.call(&url, "Encode(1, 2)"), "1.0/2.0", "after Fill()");
    // These end well, and have got nowhere.
    assert_eq!(sky.call(&url, "Detach()"), "true");
    assert!(sky.daemon.traces().replica_names().is_empty(), "a child is left: {}", sky.daemon.traces());
    let hosts = std::fs::read_to_string("/etc/passwd").expect("the host's own");
    let read = sky.call(&url, "Read(\"/etc/passwd\")");
    assert!(read.contains("app:x:10001") && read != hosts, "{read}");
    for path in ["/etc/shadow", "/proc/1/root/etc/shadow", "/root/.ssh"] {
        assert!(sky.call(&url, &format!("Read({path:?})")).starts_with("error:"), "{path}");
    }
    let dialled = sky.call(&url, &format!("Dial(\"{}\")", sky.git.address));
    assert!(dialled.starts_with("error:"), "{dialled}");
}

#[test]
fn a_run_with_half_a_processor_uses_no_more() {
    needs_go!();
    linux_only!("rctl's pcpu is a decaying average there; tests of functions' limits look at it");
    let sky = Sky::with(Daemon::with(), "cpu_millis = 500");
    let (_repository, url) = sky.functions();
    let percent: i64 = sky.call(&url, "Spin()").parse().expect("a number");
    assert!((1..75).contains(&percent), "{percent} percent of a processor");
}
