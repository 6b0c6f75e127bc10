//! Images that name a repository: made where they are deployed.

use std::net::TcpListener;

use serde_json::json;

use super::builder::{printed, with_builder};
use crate::support::Daemon;
use crate::support::git::{GitServer, installed, run};
use crate::support::git_own::{BLOB, Objects, TREE, deflated, difference, head, length, pack, plain};
use crate::support::http::Response;
use crate::{needs_go, needs_stock};

const GO_MOD: (&str, &str) = ("go.mod", "module example.com/r\n\ngo 1.22\n");

fn handler(word: &str) -> String {
    format!(
        "package hello\n\nimport \"net/http\"\n\nfunc Handle(w http.ResponseWriter, r *http.Request) {{ w.Write([]byte(\"{word}\")) }}\n"
    )
}

/// A program that serves the value of a Go expression; `above` stands before it.
fn program(above: &str, expression: &str) -> String {
    format!(
        "package main\n\nimport \"net/http\"\n{above}\nfunc main() {{\n\thttp.HandleFunc(\"/\", func(w http.ResponseWriter, r *http.Request) {{ w.Write([]byte({expression})) }})\n\thttp.ListenAndServe(\":8080\", nil)\n}}\n"
    )
}

/// A server of repositories, and a daemon that may fetch from it.
pub struct Ground {
    pub daemon: Daemon,
    pub git: GitServer,
    _dir: tempfile::TempDir,
}

impl Ground {
    pub fn start(settings: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let git = GitServer::start(dir.path());
        let mut daemon = with_builder(&format!("proxy = \"off\"\ngit_hosts = [\"{}\"]\n{settings}", git.address));
        daemon.start_again();
        Self { daemon, git, _dir: dir }
    }

    pub fn image(&self, name_and_rest: &str) -> String {
        format!("git+https://{}", self.git.url(name_and_rest))
    }

    fn deploy(&self, service: &str, image: &str) -> Response {
        self.daemon.create(json!({ "service": service, "image": image }))
    }

    /// Deploys what must serve `answer`.
    #[track_caller]
    pub fn serves(&self, service: &str, image: &str, answer: &str) {
        self.deploy(service, image).expect(202);
        self.daemon.await_ready(service, 1);
        assert_eq!(self.daemon.call(service).expect(200).text(), answer);
    }

    /// Deploys what must be refused, with these words, and must leave nothing.
    #[track_caller]
    pub fn refuses(&self, image: &str, words: &[&str]) {
        self.deploy("refused", image).expect_error(400, words);
        let work = self.daemon.root.join("builder/work");
        assert_eq!(std::fs::read_dir(work).expect("its work directory").count(), 0, "{image} left something");
        self.daemon.http.get("/system/function/refused").expect(404);
    }

    /// How many builds there have been that were not what had been built before.
    fn builds(&self) -> usize {
        std::fs::read_dir(self.daemon.root.join("builder/results")).map_or(0, Iterator::count)
    }
}

#[test]
fn a_program_and_a_handler_in_a_repository_are_deployed_by_name_and_version() {
    needs_go!();
    let ground = Ground::start("");
    let repository = ground.git.repository("r");
    repository.commit(&[GO_MOD, ("hello/hello.go", &handler("one")), ("cmd/p/main.go", &program("", "\"program\""))]);
    repository.tag("v1.0.0");
    let second = repository.commit(&[("hello/hello.go", &handler("two"))]);
    repository.branch("next/big");
    repository.commit(&[("hello/hello.go", &handler("three"))]);
    for (name, rest, answer) in [
        ("tag", "r//hello:v1.0.0".to_owned(), "one"),
        ("default", "r//hello".into(), "two"),
        ("latest", "r//hello:latest".into(), "two"),
        ("commit", format!("r//hello:{second}"), "two"),
        ("branch", "r//hello:next%2Fbig".into(), "three"),
        ("program", "r//cmd/p:main".into(), "program"),
    ] {
        let image = ground.image(&rest);
        ground.serves(name, &image, answer);
        assert_eq!(ground.daemon.status(name)["image"], image);
    }
    assert_eq!(ground.builds(), 4, "the default branch's commit is built once");
}

#[test]
fn a_branch_that_moved_is_built_by_the_next_deploy_and_what_did_not_is_not() {
    needs_go!();
    let ground = Ground::start("");
    let repository = ground.git.repository("r");
    let first = repository.commit(&[GO_MOD, ("hello/hello.go", &handler("one"))]);
    let image = ground.image("r//hello");
    ground.serves("f", &image, "one");
    let update = || {
        ground.daemon.update(json!({ "service": "f", "image": image })).expect(202);
        ground.daemon.await_ready("f", 1);
    };
    update();
    assert_eq!(ground.builds(), 1);
    repository.commit(&[("hello/hello.go", &handler("two"))]);
    // What runs stays until somebody deploys.
    assert_eq!(ground.daemon.call("f").expect(200).text(), "one");
    update();
    crate::support::eventually("the new commit serves", || (ground.daemon.call("f").text() == "two").then_some(()));
    assert_eq!(ground.builds(), 2);
    ground.serves("old", &ground.image(&format!("r//hello:{first}")), "one");
    assert_eq!(ground.builds(), 2, "a commit that has been built is not built again");
}

#[test]
fn what_is_wrong_with_a_repository_is_shown_by_faas_cli_in_a_sentence() {
    needs_go!();
    needs_stock!("faas-cli");
    let ground = Ground::start("");
    ground.git.repository("r").commit(&[GO_MOD, ("hello/hello.go", &handler("one"))]);
    let broken = ground.git.repository("broken");
    broken.commit(&[GO_MOD, ("main.go", "package main\n\nfunc main() { x := 1 }\n")]);
    for (image, words) in [
        (ground.image("r//hello:v9"), "it has no tag or branch v9; a commit must be written in full"),
        (ground.image("r//nothing"), "the source has no directory nothing"),
        (ground.image("missing//x"), "does not exist, or is not public"),
        (ground.image("broken"), "main.go:3:15: declared and not used: x"),
        ("git+https://github.invalid/o/r".into(), "builder.git_hosts can name more"),
    ] {
        let arguments = ["deploy", "--name", "bad", "--timeout", "20m", "--image", &image];
        let out = ground.daemon.faas_cli(&arguments);
        // As one line: faas-cli breaks none, the API's answer has the compiler's.
        let told = printed(&out);
        assert!(!out.status.success() && told.contains("400") && told.contains(words), "{image}: {told}");
    }
    let image = ground.image("r//hello");
    let out = ground.daemon.faas_cli(&["deploy", "--name", "good", "--timeout", "20m", "--image", &image]);
    assert!(out.status.success(), "{}", printed(&out));
    ground.daemon.await_ready("good", 1);
    assert_eq!(ground.daemon.call("good").expect(200).text(), "one");
}

#[test]
fn hosts_that_are_not_configured_are_never_asked_whatever_leads_there() {
    needs_go!();
    let (mover, victim) = (listener(), listener());
    let (from, to) = (mover.local_addr().expect("bound"), victim.local_addr().expect("bound"));
    let ground = Ground::start("");
    let config = std::fs::read_to_string(&ground.daemon.config).expect("the configuration");
    let own = format!("\"{}\"", ground.git.address);
    let Ground { mut daemon, git, _dir } = ground;
    assert!(daemon.stop().success());
    std::fs::write(&daemon.config, config.replace(&own, &format!("{own}, \"{from}\""))).expect("writing");
    daemon.start_again();
    let ground = Ground { daemon, git, _dir };
    let port = to.port();
    for host in [
        to.to_string(),
        format!("localhost:{port}"),
        "10.0.0.1".into(),
        "169.254.169.254".into(),
        "192.168.1.1:443".into(),
        "metadata.google.internal".into(),
    ] {
        ground.refuses(&format!("git+https://{host}/o/r"), &["builder.git_hosts can name more"]);
    }
    for odd in [format!("git+https://x@{to}/r"), format!("git+http://{to}/r"), format!("git+ssh://{to}/r")] {
        assert_eq!(ground.deploy("refused", &odd).status, 400, "{odd}");
    }
    // An allowed host that sends its clients elsewhere.
    let answers = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = mover.accept().expect("the builder asks");
        let _ = stream.read(&mut [0; 4096]);
        let head = format!("HTTP/1.1 302 Found\r\nLocation: http://{to}/r.git/info/refs\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("answering");
    });
    ground.refuses(&format!("git+https://{from}/r"), &[&format!("it has moved to http://{to}/"), "not followed"]);
    answers.join().expect("no panic");
    victim.set_nonblocking(true).expect("not waiting");
    assert!(victim.accept().is_err(), "a host that is not configured was asked");
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("binding a port")
}

#[test]
fn a_hostile_repository_is_refused_and_the_next_one_is_built() {
    needs_go!();
    let ground = Ground::start("source = 100000");
    let huge = ground.git.repository("huge");
    huge.commit(&[GO_MOD, ("data.txt", &"x".repeat(200_000))]);
    let links = ground.git.repository("links");
    std::os::unix::fs::symlink("/etc/passwd", links.work.join("main.go")).expect("making a link");
    links.commit(&[GO_MOD]);
    let commit = |name: &str, files: &[(&str, &str)]| ground.git.repository(name).commit(files);
    commit("newer", &[("go.mod", "module m\n\ngo 1.99.1\n"), ("main.go", "package main\n\nfunc main() {}\n")]);
    let cgo = program("\n// #include <stdio.h>\nimport \"C\"\n", "\"c\"");
    commit("cgo", &[GO_MOD, ("main.go", &cgo)]);
    let etc = "module m\n\ngo 1.22\n\nrequire example.com/x v1.0.0\n\nreplace example.com/x => /etc\n";
    commit("replaced", &[("go.mod", etc), ("main.go", &program("import _ \"example.com/x\"\n", "\"\""))]);
    for (name, pattern) in [("embeds", "/etc/passwd"), ("climbs", "../../etc/passwd")] {
        let source = program(&format!("import _ \"embed\"\n\n//go:embed {pattern}\nvar text string\n"), "text");
        commit(name, &[GO_MOD, ("main.go", &source)]);
    }
    commit("worked", &[GO_MOD, ("go.work", "go 1.22\n\nuse (\n\t.\n\t/etc\n)\n"), ("main.go", &program("", "\"\""))]);
    for (name, words) in [
        ("huge", "more than 100000 bytes, the limit"),
        ("links", "leads out of the source tree"),
        ("newer", "it needs a newer Go: its go.mod says 1.99.1"),
        ("cgo", "build constraints exclude all Go files"),
        ("replaced", "/etc"),
        ("embeds", "invalid pattern syntax"),
        ("climbs", "invalid pattern syntax"),
        ("worked", "/etc"),
    ] {
        ground.refuses(&ground.image(name), &[words]);
    }
    commit("good", &[GO_MOD, ("hello/hello.go", &handler("good"))]);
    ground.serves("good", &ground.image("good//hello"), "good");
}

#[test]
fn nothing_that_a_repository_asks_for_is_run_or_fetched_beside_the_compiler() {
    needs_go!();
    let ground = Ground::start("");
    let victim = listener();
    let modules =
        format!("[submodule \"sub\"]\n\tpath = sub\n\turl = http://{}/sub.git\n", victim.local_addr().unwrap());
    let generate = "import _ \"embed\"\n\n//go:generate sh -c \"echo generated > text.txt\"\n\n//go:embed text.txt\nvar text string\n";
    let source = program(generate, "text");
    ground.git.own("asking", |objects| {
        let files = [
            (".gitattributes", "* filter=evil ident working-tree-encoding=UTF-16\n"),
            (".gitmodules", &modules),
            GO_MOD,
            ("main.go", &source),
            ("text.txt", "$Id$ stays"),
        ];
        let mut entries: Vec<_> = files
            .iter()
            .map(|(name, text)| ("100644", name.as_bytes().to_vec(), objects.add(BLOB, text.as_bytes().to_vec())))
            .collect();
        entries.push(("160000", b"sub".to_vec(), [7; 20]));
        let tree = objects.tree(entries);
        objects.commit_tree(tree);
    });
    ground.serves("asking", &ground.image("asking"), "$Id$ stays");
    victim.set_nonblocking(true).expect("not waiting");
    assert!(victim.accept().is_err(), "a submodule was fetched");
}

/// A commit whose tree has one entry, beside a go.mod.
fn with_entry(objects: &mut Objects, mode: &'static str, name: &[u8], content: &str) {
    let module = objects.add(BLOB, GO_MOD.1.into());
    let entry = objects.add(if mode == "40000" { TREE } else { BLOB }, content.into());
    let tree = objects.tree(vec![("100644", b"go.mod".to_vec(), module), (mode, name.to_vec(), entry)]);
    objects.commit_tree(tree);
}

#[test]
fn a_pack_that_no_git_would_send_ends_inside_its_limits() {
    needs_go!();
    let ground = Ground::start("source = 1000000");
    for (name, mode, entry, words) in [
        ("up", "100644", &b".."[..], "a file is called .."),
        ("git", "100644", b".git", "a file is called .git"),
        ("case", "40000", b".GIT", "a file is called .GIT"),
        ("slash", "100644", b"../../x", "a file is called ../../x"),
        ("absolute", "100644", b"/tmp/x", "a file is called /tmp/x"),
        ("mode", "100000", b"x", "a mode that Git does not have"),
        ("outside", "120000", b"x", "leads out of the source tree"),
        ("bytes", "100644", b"\xff", "no UTF-8"),
    ] {
        ground.git.own(name, |objects| with_entry(objects, mode, entry, if mode == "40000" { "" } else { "/etc" }));
        ground.refuses(&ground.image(name), &[words]);
    }
    // A link, and a directory of the same name behind it.
    ground.git.own("twice", |objects| {
        let (link, file) = (objects.add(BLOB, b".".into()), objects.add(BLOB, b"x".into()));
        let inside = objects.tree(vec![("100644", b"x".to_vec(), file)]);
        let tree = objects.tree(vec![("120000", b"d".to_vec(), link), ("40000", b"d".to_vec(), inside)]);
        objects.commit_tree(tree);
    });
    ground.refuses(&ground.image("twice"), &["is a file or link where a directory is needed"]);
    let seed = vec![b'x'; 60_000];
    let base = Objects::default().add(BLOB, seed.clone());
    // 0xb0: copy 0x10000 bytes at most; here 0xea60, all of the base, two thousand times.
    let copies = |times: usize| [&b"\xb0\x60\xea"[..]; 2000][..times].concat();
    let swollen = |to: usize, times: usize| difference(&base, &[length(60_000), length(to), copies(times)].concat());
    let blob = || plain(BLOB, &seed);
    for (name, sent, words) in [
        // 120 MB from 6 kB.
        ("bomb", pack(&[blob(), swollen(120_000_000, 2000)]), "more than 1000000 bytes, the limit"),
        ("liar", pack(&[blob(), swollen(100, 2000)]), "makes more than it says"),
        ("many", pack(&[vec![blob()], vec![swollen(600_000, 10); 50]].concat()), "more than 1000000 bytes, the limit"),
        ("wide", pack(&[[head(BLOB, 1 << 50), deflated(b"x")].concat()]), "more than 1000000 bytes, the limit"),
        ("short", pack(&[[head(BLOB, 10), deflated(&seed)].concat()]), "not as long as it says"),
        ("reach", pack(&[plain(BLOB, b"x"), swollen(60_000, 1)]), "a difference has no base"),
        ("count", [&b"PACK\0\0\0\x02\xff\xff\xff\xff"[..], &pack(&[])[12..]].concat(), "checksum is wrong"),
        ("other", pack(&[blob()]), "is not in it"),
        ("empty", pack(&[]), "is not in it"),
        ("none", b"no pack".to_vec(), "its server sent a pack that makes no sense"),
    ] {
        ground.git.own(name, |objects| {
            with_entry(objects, "100644", b"x", "x");
            objects.pack = Some(sent);
        });
        ground.refuses(&ground.image(name), &[words]);
    }
    let good = ground.git.repository("good");
    good.commit(&[GO_MOD, ("hello/hello.go", &handler("good"))]);
    ground.serves("good", &ground.image("good//hello"), "good");
}

/// What stands in for git where there is none is what git understands.
#[test]
fn git_itself_reads_the_repositories_of_the_tests_own() {
    if !installed() {
        crate::support::announce_skip(&crate::support::this_test(), "needs git");
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let git = GitServer::start(dir.path());
    let own = git.own("own", |_| ());
    let large: String = (0..40_000).map(|n| format!("{n}\n")).collect();
    own.commit(&[("a.txt", &large), ("a/b/c.txt", "c"), ("a-b", "sorted")]);
    own.tag("v1");
    own.branch("next");
    let last = own.commit(&[("a/b/c.txt", "changed")]);
    let url = format!("http://{}.git", git.url("own"));
    for (branch, content) in [("v1", "c"), ("main", "c"), ("next", "changed")] {
        let to = dir.path().join(format!("clone-{branch}"));
        let at = to.display().to_string();
        run(dir.path(), &["-c", "protocol.version=2", "clone", "-q", "--depth", "1", "-b", branch, &url, &at]);
        assert_eq!(std::fs::read_to_string(to.join("a/b/c.txt")).expect("reading"), content);
        assert_eq!(std::fs::read_to_string(to.join("a.txt")).expect("reading"), large);
        run(&to, &["fsck", "--strict"]);
        assert_eq!(run(&to, &["rev-parse", "HEAD"]) == last, branch == "next");
    }
}
