//! Start, failure, exit, limits, removal, and a daemon that dies.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use faas_jails::fault::Kind;
use faas_jails::function::ReplicaName;
use faas_jails::platform::linux::sandbox::NamespaceSandbox;
use faas_jails::sandbox::{Exit, Found, Limits, Plan, Sandbox, Signal};
use faas_jails::storage::{Root, Storage};

use crate::support::{World, cgroups_of, executable, root, until};

#[test]
fn exits_are_told_as_they_were() {
    if !root() {
        return;
    }
    let world = World::new();
    assert_eq!(world.run(world.plan(&["true"])).0, Exit::Code(0));
    assert_eq!(world.run(world.plan(&["sh", "-c", "exit 7"])).0, Exit::Code(7));
    let plan = world.plan(&["sleep", "1000"]);
    world.sandbox.start(&plan).unwrap();
    let [found] = &*world.sandbox.list().unwrap() else { panic!("one is there") };
    assert!(found.replica == plan.replica && found.alive && found.number.is_some(), "{found:?}");
    world.sandbox.signal(&plan.replica, Signal::Kill).unwrap();
    assert_eq!(world.exit(&plan.replica), Exit::Signal(9));
    assert_eq!(world.exit(&plan.replica), Exit::Signal(9), "told again to whoever asks later");
    assert_eq!(world.sandbox.list().unwrap(), [Found { replica: plan.replica.clone(), alive: false, number: None }]);
    world.sandbox.signal(&plan.replica, Signal::Term).unwrap();
    world.remove(&plan.replica);
}

#[test]
fn a_program_that_handles_term_is_asked_politely() {
    if !root() {
        return;
    }
    let world = World::new();
    let plan = world.plan(&["sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"]);
    world.sandbox.start(&plan).unwrap();
    world.wait_for(&plan.replica, "up");
    world.sandbox.signal(&plan.replica, Signal::Term).unwrap();
    assert_eq!(world.exit(&plan.replica), Exit::Code(3));
    world.remove(&plan.replica);
    assert_eq!(world.output(&plan.replica), "up\nbye\n");
}

#[test]
fn what_is_prepared_runs_later_or_is_removed() {
    if !root() {
        return;
    }
    let world = World::new();
    let mut plan = world.plan(&["sh", "-c", "echo ran"]);
    plan.limits = Limits { pids: Some(20), ..Limits::default() };
    world.sandbox.prepare(&plan).unwrap();
    assert_eq!(world.sandbox.list().unwrap(), [Found { replica: plan.replica.clone(), alive: false, number: None }]);
    world.sandbox.start(&plan).unwrap();
    assert_eq!(world.exit(&plan.replica), Exit::Code(0));
    world.remove(&plan.replica);
    assert_eq!(world.output(&plan.replica), "ran\n");
    let plan = world.plan(&["true"]);
    world.sandbox.prepare(&plan).unwrap();
    world.sandbox.remove(&plan.replica).unwrap();
    assert_eq!(world.sandbox.list().unwrap(), []);
    world.sandbox.start(&plan).unwrap();
    assert_eq!(world.exit(&plan.replica), Exit::Code(0), "it starts from nothing");
    world.remove(&plan.replica);
}

#[test]
fn removal_kills_all_that_a_replica_started() {
    if !root() {
        return;
    }
    let world = World::new();
    let plan = world.plan(&["sh", "-c", "for i in 1 2 3 4 5; do (trap '' TERM HUP; sleep 1000) & done; echo up; wait"]);
    world.sandbox.start(&plan).unwrap();
    world.wait_for(&plan.replica, "up");
    until("all six run", || world.sandbox.usage(&plan.replica).unwrap().pids >= 6);
    world.remove(&plan.replica);
}

fn refused(world: &World, plan: Plan) -> String {
    let fault = world.sandbox.start(&plan).unwrap_err();
    let left = world.sandbox.list().unwrap();
    assert!(left.iter().all(|found| found.replica != plan.replica), "a failed start leaves nothing: {left:?}");
    assert_eq!(fs::read_dir(&plan.run_dir).unwrap().count(), 0);
    world.storage.destroy_root(&plan.replica).unwrap();
    fault.to_string()
}

#[test]
fn a_start_that_fails_says_why_and_leaves_nothing() {
    if !root() {
        return;
    }
    let world = World::new();
    let odd = world.layer("odd", |dir| {
        executable(&dir.join("script"), b"#!/no/such/interpreter\n");
        executable(&dir.join("foreign"), b"\x7fELF\x01\x01\x01 of another machine");
        executable(&dir.join("empty-script"), b"echo hello\n");
        fs::write(dir.join("data"), "not a program").unwrap();
    });
    let magic = world.layer("magic", |dir| {
        executable(&dir.join("magic"), b"#!/proc/self/exe\n");
        executable(&dir.join("more-magic"), b"#! /magic\n");
        std::os::unix::fs::symlink("/proc/1/exe", dir.join("link")).unwrap();
    });
    for argv in [["/magic"], ["/more-magic"], ["/link"], ["/proc/self/exe"], ["/proc/1/exe"]] {
        for uid in [0, 1234] {
            let mut plan = world.plan_on(&[world.busybox.clone(), magic.clone()], &argv);
            plan.user.uid = uid;
            let message = refused(&world, plan);
            assert!(message.contains("it must be a file of the image"), "{message}");
        }
    }
    let on = |argv: &[&str]| world.plan_on(&[world.busybox.clone(), odd.clone()], argv);
    for (argv, words) in [
        (
            vec!["/bin/nothing"],
            "exec /bin/nothing: No such file or directory (os error 2); the image has no such program",
        ),
        (vec!["nothing"], "the image has no such program in its PATH"),
        (
            vec!["/script"],
            "exec /script: the program is in the image, but the loader or interpreter it asks for is not",
        ),
        (vec!["/foreign"], "it is for another architecture, or a script without a #! line"),
        (vec!["/empty-script"], "it is for another architecture, or a script without a #! line"),
        (vec!["/data"], "it must be a file that the image's user may execute"),
        (vec!["/bin"], "it must be a file that the image's user may execute"),
        (vec![], "the image names no program"),
        (vec!["a\0b"], "has a NUL byte"),
    ] {
        let message = refused(&world, on(&argv));
        assert!(message.starts_with("cannot start hello.openfaas-fn: "), "{message}");
        assert!(message.contains(words), "{words:?} in {message:?}");
    }
    let mut plan = on(&["true"]);
    plan.workdir = "/bin/busybox".into();
    assert!(refused(&world, plan).contains("change to directory /bin/busybox: Not a directory"));
    let mut plan = on(&["true"]);
    plan.files.insert("/a/../b".into(), vec![]);
    assert!(refused(&world, plan).contains("must not have .."));
    let mut plan = on(&["true"]);
    plan.root = Root::Overlay { lower: vec!["/no/such/layer".into()], upper: None };
    assert!(refused(&world, plan).contains("mount overlay on root: No such file or directory"));
    let mut plan = on(&["true"]);
    plan.secrets = Some("/no/such/secrets".into());
    assert!(refused(&world, plan).contains("cannot show /no/such/secrets"));
    let mut plan = on(&["true"]);
    plan.env.insert("A".into(), "hidden\0value".into());
    let message = refused(&world, plan);
    assert!(message.contains("environment variable A") && !message.contains("hidden"), "{message}");
}

#[test]
fn one_name_is_started_once() {
    if !root() {
        return;
    }
    let world = World::new();
    let plan = world.plan(&["sleep", "1000"]);
    world.sandbox.start(&plan).unwrap();
    assert_eq!(world.sandbox.start(&plan).unwrap_err().kind(), Kind::Busy);
    assert!(world.sandbox.list().unwrap()[0].alive, "the second start did not hurt the first");
    world.remove(&plan.replica);
}

#[test]
fn a_root_that_was_in_use_can_be_used_again() {
    if !root() {
        return;
    }
    let world = World::new();
    let mut plan = world.plan(&["sh", "-c", "echo more >> /tmp/count; cat /tmp/count"]);
    for expected in ["more\n", "more\nmore\nmore\n"] {
        world.sandbox.start(&plan).unwrap();
        assert_eq!(world.exit(&plan.replica), Exit::Code(0));
        world.sandbox.remove(&plan.replica).unwrap();
        assert_eq!(world.output(&plan.replica), expected);
    }
    plan.argv = vec!["true".into()];
    world.run(plan);
}

#[test]
fn any_number_of_layers_makes_a_root() {
    if !root() {
        return;
    }
    let world = World::new();
    let mut layers = vec![world.busybox.clone()];
    for number in 0..150 {
        layers.push(world.layer(&format!("layer {number}"), |dir| {
            fs::write(dir.join("top"), number.to_string()).unwrap();
            fs::write(dir.join(format!("file{number}")), "").unwrap();
        }));
    }
    let plan = world.plan_on(&layers, &["sh", "-c", "cat /top; echo; ls / | cat | wc -l; ls /file0 /file149"]);
    let (exit, output) = world.run(plan);
    assert_eq!(exit, Exit::Code(0), "{output}");
    assert!(output.starts_with("149\n") && output.ends_with("/file0\n/file149\n"), "{output}");
}

#[test]
fn an_image_without_layers_has_a_root_too() {
    if !root() {
        return;
    }
    let world = World::new();
    let plan = world.plan_on(&[], &["/nothing"]);
    assert!(refused(&world, plan).contains("the image has no such program"));
}

#[test]
fn a_plain_directory_is_a_root() {
    if !root() {
        return;
    }
    let world = World::new();
    let dir = world.dir.path().join("plain");
    fs::create_dir_all(dir.join("bin")).unwrap();
    fs::copy("/bin/busybox", dir.join("bin/sh")).unwrap();
    for read_only in [false, true] {
        let script = "echo x 2>/dev/null > /file && echo written; echo t > /tmp/t; ls /";
        let mut plan = world.plan_with(world.replica(), Root::Directory(dir.clone()), &["sh", "-c", script], read_only);
        plan.user.uid = 0;
        plan.argv[2] = script.replace("ls /", "/bin/sh -c 'echo end'");
        let (_, output) = world.run(plan);
        assert_eq!(output, if read_only { "end\n" } else { "written\nend\n" });
        assert_eq!(dir.join("file").exists(), !read_only);
        let _ = fs::remove_file(dir.join("file"));
    }
}

#[test]
fn a_replica_beyond_its_memory_is_killed_and_that_is_told() {
    if !root() {
        return;
    }
    let world = World::new();
    let mut plan = world.plan(&["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]);
    plan.limits = Limits { memory: Some(32 << 20), ..Limits::default() };
    assert_eq!(world.run(plan).0, Exit::OutOfMemory);
    let mut plan = world.plan(&["dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M", "count=60"]);
    plan.limits = Limits { memory: Some(32 << 20), ..Limits::default() };
    assert_eq!(world.run(plan).0, Exit::OutOfMemory, "shared memory counts");
    let mut plan = world.plan(&["dd", "if=/dev/zero", "of=/dev/null", "bs=8M", "count=1"]);
    plan.limits = Limits { memory: Some(32 << 20), ..Limits::default() };
    assert_eq!(world.run(plan).0, Exit::Code(0));
}

#[test]
fn processes_and_files_are_limited() {
    if !root() {
        return;
    }
    let world = World::new();
    let mut plan = world.plan(&["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all"]);
    plan.limits = Limits { pids: Some(5), ..Limits::default() };
    let (_, output) = world.run(plan);
    assert!(output.contains("can't fork"), "{output}");
    let mut plan = world.plan(&["sh", "-c", "ulimit -n; ulimit -Hn; ulimit -n 1000 2>/dev/null || echo refused"]);
    plan.limits = Limits { open_files: Some(77), ..Limits::default() };
    assert_eq!(world.run(plan).1, "77\n77\nrefused\n");
}

#[test]
fn processor_time_is_limited_and_counted() {
    if !root() {
        return;
    }
    let world = World::new();
    let mut plan = world.plan(&["sh", "-c", "while :; do :; done"]);
    plan.limits = Limits { cpu_millis: Some(100), ..Limits::default() };
    world.sandbox.start(&plan).unwrap();
    until("it has used a tenth of a second", || {
        world.sandbox.usage(&plan.replica).unwrap().cpu > Duration::from_millis(100)
    });
    let usage = world.sandbox.usage(&plan.replica).unwrap();
    assert!(usage.memory > 0 && usage.memory < 64 << 20, "{usage:?}");
    assert_eq!(usage.pids, 1);
    world.remove(&plan.replica);
}

#[test]
fn a_watched_replica_that_nobody_knows_has_ended() {
    if !root() {
        return;
    }
    let world = World::new();
    assert_eq!(world.exit(&world.replica()), Exit::Unknown);
    let (send, receive) = mpsc::channel();
    world.sandbox.watch(&world.replica(), Box::new(|_| panic!("this panic is part of the test"))).unwrap();
    world.sandbox.watch(&world.replica(), Box::new(move |exit| send.send(exit).unwrap())).unwrap();
    assert_eq!(receive.recv_timeout(Duration::from_secs(20)).unwrap(), Exit::Unknown, "a panic ends one call only");
}

#[test]
fn other_children_keep_their_status() {
    if !root() {
        return;
    }
    let world = World::new();
    let mut child = Command::new("/bin/busybox").args(["sh", "-c", "exit 9"]).spawn().unwrap();
    for _ in 0..5 {
        world.run(world.plan(&["true"]));
    }
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

const DAEMON: &str = "FAAS_JAILS_TEST_DAEMON";

/// Not a test of its own: what the tests below run as a second process and kill.
#[test]
fn a_daemon_for_other_tests() {
    let Ok(realm) = std::env::var(DAEMON) else { return };
    let world = World::of(realm.parse().unwrap());
    let plan = world.plan(&["sh", "-c", "while :; do sleep 0.05; echo alive; done"]);
    world.sandbox.start(&plan).unwrap();
    println!("dir {}", world.dir.path().display());
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

#[test]
fn a_replica_survives_its_daemon_and_is_adopted() {
    if !root() {
        return;
    }
    let realm = crate::support::realm();
    let out = tempfile::NamedTempFile::new().unwrap();
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifecycle::a_daemon_for_other_tests", "--nocapture"])
        .env(DAEMON, realm.as_str())
        .stdout(out.reopen().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(out.path()).unwrap();
    until("the daemon has started a replica", || said().contains("dir "));
    daemon.kill().unwrap();
    daemon.wait().unwrap();

    let sandbox = NamespaceSandbox::new(realm.clone()).unwrap();
    let found = sandbox.list().unwrap();
    assert_eq!(found.iter().map(|f| f.alive).collect::<Vec<_>>(), [true]);
    let replica: ReplicaName = found[0].replica.clone();
    let dir = std::path::PathBuf::from(said().lines().find_map(|l| l.strip_prefix("dir ")).unwrap());
    let log = dir.join(format!("{replica}.log"));
    let before = fs::metadata(&log).unwrap().len();
    until("it still works", || fs::metadata(&log).unwrap().len() > before + 10);
    assert!(sandbox.usage(&replica).unwrap().pids >= 1);

    let (send, receive) = mpsc::channel();
    sandbox.watch(&replica, Box::new(move |exit| send.send(exit).unwrap())).unwrap();
    assert!(receive.recv_timeout(Duration::from_millis(50)).is_err(), "it runs");
    sandbox.signal(&replica, Signal::Kill).unwrap();
    assert_eq!(receive.recv_timeout(Duration::from_secs(20)).unwrap(), Exit::Unknown);
    sandbox.remove(&replica).unwrap();
    assert_eq!(sandbox.list().unwrap(), []);
    assert_eq!(cgroups_of(&realm), Vec::<std::path::PathBuf>::new());
    fs::remove_dir_all(dir).unwrap();
}

/// Not a test of its own: its descriptors are counted, so it must be alone in its process.
#[test]
fn a_process_that_counts_its_descriptors() {
    if std::env::var(COUNT).is_err() {
        return;
    }
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let world = World::new();
    world.run(world.plan(&["true"]));
    let working = open();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..4 {
                    assert_eq!(world.run(world.plan(&["true"])).0, Exit::Code(0));
                    refused(&world, world.plan_for(world.replica(), &[], &["nothing"], true));
                }
            });
        }
    });
    assert_eq!(open(), working);
    drop(world);
    assert_eq!(open(), before);
    assert!(Command::new("/bin/busybox").arg("true").status().unwrap().success());
    println!("counted");
}

const COUNT: &str = "FAAS_JAILS_TEST_COUNT";

#[test]
fn many_at_once_leave_no_descriptor_and_no_process() {
    if !root() {
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lifecycle::a_process_that_counts_its_descriptors", "--nocapture"])
        .env(COUNT, "yes")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("counted"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// A family of processes that keep forking stops as a whole, writes nothing, and goes on where it was; frozen, it can
/// be let go on by another daemon, and removed.
#[test]
fn a_frozen_replica_stands_still_with_all_it_has_started() {
    if !root() {
        return;
    }
    let mut world = World::new();
    let forking = "for i in 1 2 3; do (while :; do true & wait; echo .; done) & done; wait";
    let plan = world.plan(&["sh", "-c", forking]);
    world.sandbox.start(&plan).unwrap();
    for _ in 0..5 {
        let before = world.output(&plan.replica).len();
        until("it writes", || world.output(&plan.replica).len() > before);
        world.sandbox.freeze(&plan.replica).unwrap();
        let (written, cpu) = (world.output(&plan.replica).len(), world.sandbox.usage(&plan.replica).unwrap().cpu);
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(world.output(&plan.replica).len(), written);
        assert_eq!(world.sandbox.usage(&plan.replica).unwrap().cpu, cpu);
        world.sandbox.freeze(&plan.replica).unwrap();
        world.sandbox.thaw(&plan.replica).unwrap();
        world.sandbox.thaw(&plan.replica).unwrap();
    }
    world.sandbox.freeze(&plan.replica).unwrap();
    world.sandbox = NamespaceSandbox::new(plan.replica.realm().clone()).unwrap();
    let written = world.output(&plan.replica).len();
    world.sandbox.thaw(&plan.replica).unwrap();
    until("it writes again", || world.output(&plan.replica).len() > written);
    world.sandbox.freeze(&plan.replica).unwrap();
    world.remove(&plan.replica);
    world.sandbox.thaw(&plan.replica).unwrap();
}
