//! What runs while a repository is built: the compiler, and the handler's own tests. Whatever they do, each build ends
//! inside its limits with a sentence that names the limit, and the next one works.

use std::fs;

use super::builder_repository::Ground;
use crate::support::git::Repository;
use crate::{linux_only, needs_go};

const GO_MOD: (&str, &str) = ("go.mod", "module example.com/m\n\ngo 1.22\n");

/// A repository whose versions all have one handler, each with another test; deploying one runs its test first.
struct Hostile<'a> {
    ground: &'a Ground,
    repository: Repository,
}

impl<'a> Hostile<'a> {
    fn new(ground: &'a Ground) -> Self {
        let repository = ground.git.repository("hostile");
        repository.commit(&[
            GO_MOD,
            ("main.go", "package main\n\nfunc main() {}\n"),
            ("go.work", "go 1.22\n\nuse (\n\t.\n\t./function\n)\n"),
            ("function/go.mod", "module example.com/m/function\n\ngo 1.22\n"),
            ("function/f.go", "package function\n"),
        ]);
        Self { ground, repository }
    }

    /// The image of a version with this test.
    fn image(&self, name: &str, body: &str) -> String {
        let imports = ["fmt", "net", "os", "os/exec", "runtime", "syscall", "testing", "time"];
        let imports: String = imports.iter().map(|name| format!("\t{name:?}\n")).collect();
        let used = "var _, _, _, _ = fmt.Sprint, net.Dial, os.Getpid, exec.Command\n\
            var _, _, _ = runtime.Gosched, syscall.Getpid, time.Now\n";
        let test =
            format!("package function\n\nimport (\n{imports})\n\n{used}\nfunc TestIt(t *testing.T) {{\n{body}\n}}\n");
        self.repository.commit(&[("function/f_test.go", &test)]);
        self.repository.tag(name);
        self.ground.image(&format!("hostile:{name}"))
    }
}

/// A repository that serves its word.
fn good(ground: &Ground, name: &str) {
    let source = format!(
        "package hello\n\nimport \"net/http\"\n\nfunc Handle(w http.ResponseWriter, r *http.Request) {{ w.Write([]byte({name:?})) }}\n"
    );
    ground.git.repository(name).commit(&[GO_MOD, ("hello/hello.go", &source)]);
    ground.serves(name, &ground.image(&format!("{name}//hello")), name);
}

/// A constant of 2 to the power of `doublings` bytes, which only the compiler has.
fn swelling(doublings: u32) -> String {
    let each: String = (1..=doublings).map(|n| format!("const c{n} = c{} + c{}\n", n - 1, n - 1)).collect();
    format!("package main\n\nconst c0 = \"x\"\n{each}\nfunc main() {{ println(c{doublings}) }}\n")
}

#[test]
fn a_build_that_takes_too_much_ends_with_the_limit_it_met_and_the_next_one_works() {
    needs_go!();
    let ground = Ground::start("memory = 536870912\npids = 128\ndisk = 268435456");
    let hostile = Hostile::new(&ground);
    ground.git.repository("swelling").commit(&[GO_MOD, ("main.go", &swelling(31))]);
    ground.refuses(&ground.image("swelling"), &["it does not compile", "memory"]);
    let hungry =
        "var all [][]byte\nfor { b := make([]byte, 1<<20); for i := range b { b[i] = 1 }; all = append(all, b) }";
    ground.refuses(&hostile.image("hungry", hungry), &["its tests fail", "memory"]);
    let forker = "me, _ := os.Executable()\nfor { if err := exec.Command(me, \"-test.run=TestIt\").Start(); err != nil { t.Fatal(\"NO MORE\", err) } }";
    // Where forks cannot be denied, what dies of it may be the first process.
    let met = if cfg!(target_os = "freebsd") { "limit" } else { "limit, builder.pids = 128" };
    ground.refuses(&hostile.image("forker", forker), &["its tests fail", met]);
    let writer = "b := make([]byte, 1<<20)\nfor i := 0; ; i++ { if err := os.WriteFile(fmt.Sprint(os.TempDir(), \"/\", i), b, 0o644); err != nil { t.Fatal(err) } }";
    ground.refuses(&hostile.image("writer", writer), &["wrote more than 268435456 bytes, its limit"]);
    // go test keeps what a test prints in memory, which ends first.
    let printer = "for { fmt.Println(\"again and again and again and again\") }";
    ground.refuses(&hostile.image("printer", printer), &["its tests fail", "limit"]);
    good(&ground, "good");
}

#[test]
fn a_build_that_never_ends_is_ended_and_the_next_one_works() {
    needs_go!();
    let mut ground = Ground::start("");
    let config = fs::read_to_string(&ground.daemon.config).expect("the configuration");
    assert!(config.contains("time = \"1h\""), "{config}");
    let with_time = |ground: &mut Ground, time: &str| {
        assert!(ground.daemon.stop().success());
        let changed = config.replace("time = \"1h\"", &format!("time = {time:?}"));
        fs::write(&ground.daemon.config, changed).expect("writing the configuration");
        ground.daemon.start_again();
    };
    with_time(&mut ground, "20s");
    let image = Hostile::new(&ground).image("sleeper", "time.Sleep(time.Hour)");
    ground.refuses(&image, &["ran longer than 20s, its limit"]);
    with_time(&mut ground, "1h");
    good(&ground, "good");
}

#[test]
fn what_runs_while_building_sees_neither_the_host_nor_its_network() {
    needs_go!();
    let ground = Ground::start("");
    let hostile = Hostile::new(&ground);
    let looks = "for _, p := range []string{\"/etc/passwd\", \"/etc/shadow\", \"/root\", \"/home\"} {
        if _, err := os.Stat(p); err == nil { t.Error(\"SEES\", p) }
    }
    t.Fatal(\"LOOKED AS\", os.Getuid(), os.Environ())";
    let image = hostile.image("looks", looks);
    let answer = ground.daemon.create(serde_json::json!({ "service": "refused", "image": image }));
    let said = answer.text();
    assert!(answer.status == 400 && said.contains("LOOKED AS 64321") && !said.contains("SEES"), "{said}");
    assert!(!said.contains(&std::env::var("PATH").expect("a PATH")), "{said}");
    // The server that the repository itself came from.
    let requests = ground.git.requests();
    let dials = format!(
        "c, err := net.DialTimeout(\"tcp\", {:?}, 5*time.Second)\nif err == nil {{ c.Close(); t.Fatal(\"CONNECTED\") }}\nt.Fatal(\"FAILED\", err)",
        ground.git.address.to_string()
    );
    let image = hostile.image("dials", &dials);
    ground.refuses(&image, &["its tests fail", "FAILED dial tcp"]);
    assert!(ground.git.requests() > requests, "its source came from there");
    good(&ground, "good");
}

/// Processor time over time, of a test that would use two processors.
#[test]
fn a_build_with_half_a_processor_uses_no_more() {
    needs_go!();
    linux_only!("rctl's pcpu is a decaying average there; tests of functions' limits look at it");
    let ground = Ground::start("cpu_millis = 500");
    let spins = "runtime.GOMAXPROCS(2)
    begin := time.Now()
    go func() { for { } }()
    for time.Since(begin) < 3*time.Second { }
    took := time.Since(begin)
    var used syscall.Rusage
    syscall.Getrusage(syscall.RUSAGE_SELF, &used)
    total := time.Duration(used.Utime.Nano() + used.Stime.Nano())
    t.Fatal(\"USED\", int64(100*total/took), \"PERCENT\")";
    let image = Hostile::new(&ground).image("spins", spins);
    let answer = ground.daemon.create(serde_json::json!({ "service": "refused", "image": image }));
    let said = answer.text();
    let percent = said.split_once("USED ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u32>().ok());
    let percent = percent.unwrap_or_else(|| panic!("{said}"));
    assert!((1..75).contains(&percent), "{percent} percent of a processor");
}
