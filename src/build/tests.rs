//! Builds on this host's real platform, with its real Go.

use super::*;
use crate::config::Config;

/// The compiled standard library, made by the first test; one test builds at a time.
static STANDARD: Mutex<Option<tempfile::TempDir>> = Mutex::new(None);

struct Bench {
    _turn: std::sync::MutexGuard<'static, Option<tempfile::TempDir>>,
    dir: tempfile::TempDir,
    builder: Builder,
    config: Config,
    platform: crate::platform::Platform,
}

/// A builder of its own; `settings` are lines of `[builder]`.
fn bench(settings: &str) -> Option<Bench> {
    if !cfg!(target_os = "linux") || !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root on Linux; on FreeBSD the acceptance tests build");
        return None;
    }
    let mut turn = STANDARD.lock().unwrap_or_else(PoisonError::into_inner);
    let shared = turn.get_or_insert_with(|| tempfile::tempdir().unwrap()).path().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let id = uuid::Uuid::new_v4().simple().to_string();
    let toml = format!("root = {:?}\nrealm = \"b{}\"\n[builder]\n{settings}", dir.path().join("root"), &id[..3]);
    let config = Config::read(&toml, |_| None).unwrap();
    let platform = crate::platform::open(&config).unwrap();
    let store = Store::open(&config.root, Arc::clone(&platform.storage), config.images.settings()).unwrap();
    let builder = Builder::open(&config, platform.clone(), Arc::new(store)).unwrap();
    if builder.toolchains.host().unwrap().is_none() {
        eprintln!("SKIPPED: needs go");
        return None;
    }
    std::os::unix::fs::symlink(shared, config.root.join("builder/std")).unwrap();
    Some(Bench { _turn: turn, dir, builder, config, platform })
}

impl Bench {
    /// A source tree of these files.
    fn tree(&self, name: &str, files: &[(&str, &str)]) -> BuildRequest {
        let source = self.dir.path().join(name);
        for (path, text) in files {
            let path = source.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        BuildRequest { source, owner: name.into(), ..Default::default() }
    }

    fn build(&self, request: &BuildRequest) -> Result<Built> {
        let result = self.builder.build(request, &"local/test:1".parse().unwrap(), &Silent);
        assert_eq!(self.platform.sandbox.list().unwrap(), []);
        assert_eq!(self.platform.storage.inventory().unwrap().roots, []);
        assert_eq!(crate::files::names(&self.config.root.join("builder/work")).unwrap(), Vec::<String>::new());
        result
    }

    fn fails(&self, request: &BuildRequest) -> String {
        let fault = self.build(request).unwrap_err();
        assert_eq!(fault.kind(), Kind::Invalid, "{fault}");
        fault.to_string()
    }
}

const MODULE: (&str, &str) = ("go.mod", "module example.com/m\n\ngo 1.22\n");
const MAIN: (&str, &str) = ("main.go", "package main\n\nfunc main() { println(\"hi\") }\n");

#[test]
fn a_module_becomes_an_image_bit_for_bit_the_same_whoever_builds_it() {
    let Some(bench) = bench("") else { return };
    let first = bench.build(&bench.tree("one", &[MODULE, MAIN])).unwrap();
    assert!(!first.cached);
    assert_eq!(first.image.run.argv, ["/home/app/handler"]);
    assert_eq!(first.image.run.user.uid, 10_001);
    let again = bench.build(&bench.tree("two", &[MODULE, MAIN])).unwrap();
    assert!(again.cached);
    // A result that is forgotten is made again, in another owner's caches: the same bytes.
    crate::files::remove_tree(&bench.config.root.join("builder/results")).unwrap();
    let fresh = bench.build(&bench.tree("two", &[MODULE, MAIN])).unwrap();
    assert!(!fresh.cached);
    assert_eq!(fresh.image.manifest, first.image.manifest);
    let other = BuildRequest { platform: Some("freebsd/amd64".parse().unwrap()), ..bench.tree("one", &[]) };
    assert_eq!(bench.build(&other).unwrap().image.platform, "freebsd/amd64");
}

#[test]
fn a_source_that_does_not_compile_is_quoted_and_the_next_one_builds() {
    let Some(bench) = bench("") else { return };
    let said = bench.fails(&bench.tree("broken", &[MODULE, ("main.go", "package main\n\nfunc main() { x := 1 }\n")]));
    assert!(said.contains("main.go:3:15: declared and not used: x"), "{said}");
    let said = bench.fails(&bench.tree("new", &[("go.mod", "module m\n\ngo 1.99.3\n"), MAIN]));
    assert!(said.contains("it needs a newer Go: its go.mod says 1.99.3"), "{said}");
    let library = bench.fails(&bench.tree("library", &[MODULE, ("lib.go", "package lib\n")]));
    assert!(library.contains("the build left no program"), "{library}");
    let missing = ("main.go", "package main\n\nimport _ \"example.com/x\"\n\nfunc main() {}\n");
    let said = bench.fails(&bench.tree("missing", &[MODULE, missing]));
    assert!(said.contains("no required module provides package example.com/x"), "{said}");
    bench.build(&bench.tree("good", &[MODULE, MAIN])).unwrap();
}

#[test]
fn generated_files_replace_links_and_hit_nothing_outside() {
    let Some(bench) = bench("") else { return };
    let mut request = bench.tree("repo", &[MODULE, ("cmd/other.txt", "")]);
    let victim = bench.dir.path().join("victim");
    std::fs::write(&victim, "before").unwrap();
    std::os::unix::fs::symlink("other.txt", request.source.join("cmd/main.go")).unwrap();
    request.files.insert("cmd/main.go".into(), MAIN.1.into());
    request.package = "./cmd".into();
    bench.build(&request).unwrap();
    std::fs::remove_file(request.source.join("cmd/main.go")).unwrap();
    std::os::unix::fs::symlink(&victim, request.source.join("cmd/main.go")).unwrap();
    assert!(bench.fails(&request).contains("leads out of the source tree"));
    assert_eq!(std::fs::read_to_string(victim).unwrap(), "before");
}

/// A template's tree whose handler has this test, which is the user's code that runs while building.
fn with_test(bench: &Bench, name: &str, body: &str) -> BuildRequest {
    let test = format!(
        "package function\n\nimport (\n\t\"fmt\"\n\t\"net\"\n\t\"os\"\n\t\"os/exec\"\n\t\"testing\"\n\t\"time\"\n)\n\nvar _ = fmt.Sprint\nvar _ = net.Dial\nvar _ = os.Getpid\nvar _ = exec.Command\nvar _ = time.Now\n\nfunc TestIt(t *testing.T) {{\n{body}\n}}\n"
    );
    let work = ("go.work", "go 1.22\n\nuse (\n\t.\n\t./function\n)\n");
    let function = ("function/go.mod", "module example.com/m/function\n\ngo 1.22\n");
    bench.tree(
        name,
        &[MODULE, MAIN, work, function, ("function/f.go", "package function\n"), ("function/f_test.go", &test)],
    )
}

#[test]
fn one_owner_s_caches_are_not_shown_to_another() {
    let Some(bench) = bench("") else { return };
    // Every file of its caches that it can write to is spoilt by the first owner.
    let spoil = r#"out, _ := exec.Command("/go/bin/go", "env", "GOCACHE").Output(); _ = out
    n := 0
    for _, d := range []string{"/cache/build", "/modules", "/go", "/src"} {
        if os.WriteFile(d+"/planted", []byte("x"), 0o644) == nil { n++ }
    }
    if n != 1 { t.Fatal("could write to", n) }"#;
    bench.build(&with_test(&bench, "spoiler", spoil)).unwrap();
    let look = r#"if _, err := os.Stat("/cache/build/planted"); err == nil { t.Fatal("it is here") }"#;
    bench.build(&with_test(&bench, "other", look)).unwrap();
    let planted = r#"if _, err := os.Stat("/cache/build/planted"); err != nil { t.Fatal(err) }"#;
    bench.build(&BuildRequest { owner: "spoiler".into(), ..with_test(&bench, "again", planted) }).unwrap();
}

/// A Go installation in an archive whose "compiler" copies itself to where a program is wanted.
fn archive_with(dir: &Path, version: &str) -> PathBuf {
    let program = "package main\n\nimport (\n\t\"io\"\n\t\"os\"\n)\n\nfunc main() {\n\tfor i, a := range os.Args {\n\t\tif a == \"-o\" {\n\t\t\tin, _ := os.Open(\"/proc/self/exe\")\n\t\t\tout, _ := os.OpenFile(os.Args[i+1], os.O_CREATE|os.O_WRONLY, 0o755)\n\t\t\tio.Copy(out, in)\n\t\t\tout.Close()\n\t\t}\n\t}\n}\n";
    std::fs::write(dir.join("fake.go"), program).unwrap();
    let built = std::process::Command::new("go")
        .args(["build", "-o", "fake", "fake.go"])
        .env("CGO_ENABLED", "0")
        .current_dir(dir)
        .status();
    assert!(built.unwrap().success());
    let archive = dir.join("go.tar.gz");
    let gzip = flate2::write::GzEncoder::new(std::fs::File::create(&archive).unwrap(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    let fake = std::fs::read(dir.join("fake")).unwrap();
    for (name, bytes) in [
        ("go/VERSION", format!("go{version}\n").as_bytes()),
        ("go/bin/go", &fake),
        ("go/lib/time/zoneinfo.zip", b"zones"),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    archive
}

#[test]
fn a_newer_go_comes_from_an_archive_whose_checksum_is_right() {
    let Some(mut bench) = bench("") else { return };
    let archive = archive_with(bench.dir.path(), "1.99.4");
    let right = Digest::of(std::fs::read(&archive).unwrap()).hex().to_owned();
    let archives = |sum: &str| {
        vec![settings::Archive {
            version: "1.99.4".parse().unwrap(),
            from: archive.display().to_string(),
            sum: sum.to_owned(),
        }]
    };
    let request = bench.tree("new", &[("go.mod", "module m\n\ngo 1.99\n"), MAIN]);
    bench.builder.settings.archives = archives(&"0".repeat(64));
    bench.builder.toolchains = Toolchains::new(&bench.builder.settings, &bench.config.root.join("builder"));
    let said = bench.fails(&request);
    assert!(said.contains(&format!("its checksum is {right}, not 000")), "{said}");
    assert_eq!(crate::files::names(&bench.config.root.join("builder/go")).unwrap(), Vec::<String>::new());
    bench.builder.settings.archives = archives(&right);
    bench.builder.toolchains = Toolchains::new(&bench.builder.settings, &bench.config.root.join("builder"));
    let built = bench.build(&request).unwrap();
    assert!(built.log.contains("compiling with Go 1.99.4"), "{}", built.log);
    let exactly = BuildRequest { go: Some("1.98".parse().unwrap()), ..request };
    assert!(bench.fails(&exactly).contains("Go 1.98.0 is asked for, and this builder has"));
}
