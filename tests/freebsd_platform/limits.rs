//! Limits that hold, and usage that is counted.

use faas_jails::fault::Kind;
use faas_jails::platform::freebsd::rctl;
use faas_jails::platform::freebsd::sandbox::Uncounted;
use faas_jails::sandbox::{Exit, Limits, Plan, Sandbox};
use faas_jails::storage::Root;

use crate::support::{Host, until};

#[test]
fn too_much_memory_ends_the_replica_and_the_reason_is_told() {
    let Some(host) = Host::counted() else { return };
    let mut plan = host.plan("exec dd if=/dev/zero of=/dev/null bs=200m");
    plan.limits.memory = Some(64 << 20);
    assert_eq!(host.run(&plan).1, Exit::OutOfMemory);
}

#[test]
fn memory_below_the_limit_is_given() {
    let Some(host) = Host::counted() else { return };
    let mut plan = host.plan("exec dd if=/dev/zero of=/dev/null bs=40m count=20");
    plan.limits.memory = Some(64 << 20);
    assert_eq!(host.run(&plan).1, Exit::Code(0));
}

/// Runs one of these tests' programs in a jail.
fn test_plan(host: &Host, name: &str) -> Plan {
    let tree = host.tree();
    crate::support::add_program(&tree, &std::env::current_exe().unwrap(), "test");
    let mut plan = host.plan_on(Root::Directory(tree), "");
    plan.argv = ["/test", "--exact", name, "--ignored"].map(str::to_owned).into();
    plan
}

/// Runs in a jail: see the test below.
#[test]
#[ignore = "the replica's part of memory_that_is_reserved_and_not_touched_counts_for_nothing"]
fn replica_that_reserves() {
    let length = 2usize << 30;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANON);
    // SAFETY: a new mapping, which nobody touches.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0) };
    assert!(address != libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    std::thread::sleep(std::time::Duration::from_secs(3));
}

#[test]
fn memory_that_is_reserved_and_not_touched_counts_for_nothing() {
    let Some(host) = Host::counted() else { return };
    let mut plan = test_plan(&host, "limits::replica_that_reserves");
    plan.limits.memory = Some(64 << 20);
    let (output, exit) = host.run(&plan);
    assert_eq!(exit, Exit::Code(0), "{output}");
    assert!(output.contains("1 passed"), "{output}");
}

#[test]
fn processes_beyond_the_limit_are_not_there_for_long() {
    let Some(host) = Host::counted() else { return };
    let script = "i=0; while [ $i -lt 20 ]; do sleep 300 & i=$((i+1)); done; echo all; wait";
    // Where forks are denied, sh says so and ends.
    let mut plan = host.plan(&format!("sh -c '{script}' 2>&1; echo end; exec sleep 300"));
    plan.limits.pids = Some(8);
    host.sandbox().start(&plan).unwrap();
    let said = |text: &str| host.output(&plan.replica).contains(text);
    assert!(until(|| said("all") || said("end")), "{}", host.output(&plan.replica));
    let usage = || host.sandbox().usage(&plan.replica).unwrap();
    assert!(until(|| usage().pids <= 8), "{:?}", usage());
    assert!(host.sandbox().list().unwrap()[0].alive);
    host.remove(&plan.replica).unwrap();
}

#[test]
fn a_fork_bomb_is_held_and_removed() {
    let Some(host) = Host::counted() else { return };
    let mut plan = host.plan("bomb() { while :; do bomb & done; }; bomb 2>/dev/null");
    plan.limits.pids = Some(40);
    host.sandbox().start(&plan).unwrap();
    // Where forks are not denied, it leaves dead processes behind until it is ended.
    let living = || host.sandbox().usage(&plan.replica).map(|usage| usage.pids);
    assert!(until(|| living().map_or(true, |pids| pids >= 38)), "{:?}", living());
    for _ in 0..50 {
        // Each of the forty may just have made one that is about to die.
        assert!(living().map_or(true, |pids| pids <= 80), "{:?}", living());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    host.remove(&plan.replica).unwrap();
}

/// Runs in a jail: see the test below. One child lives at a time, the dead stay.
#[test]
#[ignore = "the replica's part of dead_processes_that_nobody_waits_for_end_the_replica_before_they_are_all_of_the_hosts"]
fn replica_that_waits_for_no_child() {
    for _ in 0..300 {
        // SAFETY: fork(2); the child does nothing but end at once.
        match unsafe { libc::fork() } {
            // SAFETY: _exit(2), in the child.
            0 => unsafe { libc::_exit(0) },
            child => assert!(child > 0, "{}", std::io::Error::last_os_error()),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::thread::sleep(std::time::Duration::from_secs(300));
}

#[test]
fn dead_processes_that_nobody_waits_for_end_the_replica_before_they_are_all_of_the_hosts() {
    let Some(host) = Host::counted() else { return };
    let mut plan = test_plan(&host, "limits::replica_that_waits_for_no_child");
    plan.limits.pids = Some(50);
    host.sandbox().start(&plan).unwrap();
    if !rctl::forks_are_denied() {
        assert!(matches!(host.exit(host.sandbox(), &plan.replica), Exit::Signal(_)));
    }
    host.remove(&plan.replica).unwrap();
}

/// Runs in a jail: see the test below.
#[test]
#[ignore = "the replica's part of root_that_raises_its_limit_of_open_files_is_killed_when_it_uses_it"]
fn replica_that_opens() {
    let raised = libc::rlimit { rlim_cur: 1000, rlim_max: 1000 };
    // SAFETY: a live structure.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) }, 0, "{}", std::io::Error::last_os_error());
    let files: Vec<_> = (0..500).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
    assert_eq!(files.len(), 500);
}

#[test]
fn root_that_raises_its_limit_of_open_files_is_killed_when_it_uses_it() {
    let Some(host) = Host::counted() else { return };
    let mut plan = test_plan(&host, "limits::replica_that_opens");
    plan.user = faas_jails::sandbox::User::default();
    plan.limits.open_files = Some(64);
    let (output, exit) = host.run(&plan);
    assert_eq!(exit, Exit::Signal(libc::SIGKILL), "{output}");
    plan = test_plan(&host, "limits::replica_that_opens");
    plan.user = faas_jails::sandbox::User::default();
    plan.limits.open_files = Some(2000);
    let (output, exit) = host.run(&plan);
    assert_eq!(exit, Exit::Code(0), "{output}");
}

#[test]
fn usage_is_counted_and_the_rules_are_gone_afterwards() {
    let Some(host) = Host::counted() else { return };
    let mut plan = host.plan("sleep 300 & sleep 300 & echo ready; while :; do :; done");
    plan.limits = Limits {
        memory: Some(256 << 20),
        cpu_millis: Some(900),
        pids: Some(50),
        open_files: Some(500),
        ..Limits::default()
    };
    host.sandbox().start(&plan).unwrap();
    host.wait_for(&plan.replica, "ready");
    assert_eq!(rctl::present(&plan.replica.to_string()).unwrap().len(), if rctl::forks_are_denied() { 6 } else { 5 });
    let counted = until(|| {
        let usage = host.sandbox().usage(&plan.replica).unwrap();
        usage.pids == 3 && usage.memory > 1 << 20 && usage.cpu.as_millis() > 0
    });
    assert!(counted, "{:?}", host.sandbox().usage(&plan.replica));
    host.remove(&plan.replica).unwrap();
    assert_eq!(rctl::present(&plan.replica.to_string()).unwrap(), [""; 0]);
    assert_eq!(host.sandbox().usage(&plan.replica).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn a_processor_limit_throttles() {
    let Some(host) = Host::counted() else { return };
    let mut plan = host.plan("while :; do :; done");
    plan.limits.cpu_millis = Some(200);
    host.sandbox().start(&plan).unwrap();
    let begin = std::time::Instant::now();
    std::thread::sleep(std::time::Duration::from_secs(20));
    let (used, passed) = (host.sandbox().usage(&plan.replica).unwrap().cpu, begin.elapsed());
    host.remove(&plan.replica).unwrap();
    // A fifth was asked for; without the rule it would be all of it.
    assert!(used < passed / 2, "{used:?} of {passed:?}");
}

#[test]
fn limits_that_this_kernel_cannot_hold_are_refused_or_left_out_aloud() {
    let Some(mut host) = Host::new() else { return };
    if rctl::enabled() {
        eprintln!("SKIPPED: needs a kernel with kern.racct.enable=0");
        return;
    }
    let mut plan = host.plan("echo ready; sleep 300");
    plan.limits.pids = Some(10);
    let fault = host.sandbox().start(&plan).unwrap_err();
    assert_eq!(fault.kind(), Kind::Unsupported);
    assert!(fault.to_string().contains("kern.racct.enable=1 into /boot/loader.conf"), "{fault}");
    host.sandbox = Some(host.open(Uncounted::Warn));
    host.sandbox().start(&plan).unwrap();
    host.wait_for(&plan.replica, "ready");
    let used = || host.sandbox().usage(&plan.replica).unwrap();
    assert!(until(|| used().pids == 1 && used().memory > 0), "{:?}", used());
    host.remove(&plan.replica).unwrap();
}

#[test]
fn a_jail_runs_on_the_processors_that_it_is_given() {
    let Some(host) = Host::new() else { return };
    let mut plan = host.plan("cpuset -g; cpuset -l 0-1 -p $$ && echo changed; echo done");
    crate::support::add_program(root_of(&plan), std::path::Path::new("/usr/bin/cpuset"), "bin/cpuset");
    plan.user = faas_jails::sandbox::User::default();
    plan.limits.cpus = Some("0".parse().unwrap());
    let (output, _) = host.run(&plan);
    assert!(output.contains("mask: 0\n") && !output.contains("changed") && output.contains("done"), "{output}");
}

fn root_of(plan: &faas_jails::sandbox::Plan) -> &std::path::Path {
    match &plan.root {
        faas_jails::storage::Root::Directory(path) => path,
        other => panic!("{other:?}"),
    }
}

#[test]
fn writing_is_throttled() {
    let Some(host) = Host::counted() else { return };
    let took = |rate: Option<u64>| {
        let mut plan = host.plan("exec dd if=/dev/zero of=/tmp/x bs=64k count=48 conv=fsync");
        plan.limits.io.write_bytes = rate;
        let begin = std::time::Instant::now();
        assert_eq!(host.run(&plan).1, Exit::Code(0));
        begin.elapsed()
    };
    let (free, bound) = (took(None), took(Some(256 << 10)));
    // 3 MB at a quarter of a megabyte a second: the rule holds back for seconds.
    assert!(bound > free * 2, "{bound:?} with a limit, {free:?} without");
}
