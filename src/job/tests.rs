//! Jobs on this host's real platform.

use std::sync::Mutex;

use super::*;
use crate::config::Config;
use crate::sandbox::Access;

/// A host with a realm of its own and a static busybox to run.
struct Bench {
    dir: tempfile::TempDir,
    jobs: Jobs,
    platform: Platform,
}

fn bench() -> Option<Bench> {
    if !cfg!(target_os = "linux") || !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root on Linux; on FreeBSD the acceptance tests run jobs");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let id = uuid::Uuid::new_v4().simple().to_string();
    let root = dir.path().join("root");
    let toml = format!("root = {:?}\nrealm = \"j{}\"", root, &id[..3]);
    let config = Config::read(&toml, |_| None).unwrap();
    let platform = crate::platform::open(&config).unwrap();
    std::fs::create_dir(dir.path().join("bin")).unwrap();
    std::fs::copy("/bin/busybox", dir.path().join("bin/busybox")).expect("this test needs a static busybox");
    Some(Bench { jobs: Jobs::new(&root, &config.realm, platform.clone()), platform, dir })
}

impl Bench {
    fn job(&self, script: &str) -> Job {
        let limits = Limits {
            wall: Duration::from_secs(20),
            output: 1 << 20,
            disk: Some(16 << 20),
            sandbox: crate::sandbox::Limits { memory: Some(128 << 20), pids: Some(64), ..Default::default() },
        };
        let argv = ["/host/busybox", "sh", "-c", script].map(str::to_owned).to_vec();
        let mut job = Job::new(self.jobs.name("test").unwrap(), argv, limits);
        let source = self.dir.path().join("bin");
        job.mounts.push(Mount { source, target: "/host".into(), access: Access::Read });
        job
    }

    fn run(&self, job: Job) -> Outcome {
        let outcome = self.jobs.run(job, None).unwrap();
        self.nothing_left();
        outcome
    }

    fn nothing_left(&self) {
        assert_eq!(self.platform.sandbox.list().unwrap(), []);
        assert_eq!(self.platform.storage.inventory().unwrap().roots, []);
        for dir in ["run", "replicas"] {
            assert_eq!(files::names(&self.dir.path().join("root").join(dir)).unwrap(), Vec::<String>::new());
        }
    }
}

#[test]
fn output_errors_and_status_come_back_apart() {
    let Some(bench) = bench() else { return };
    let mut job = bench.job("read line; echo out $line $GREETING; echo bad >&2; /host/busybox id -u; exit 3");
    job.input = Some(b"typed\n".to_vec());
    job.env.insert("GREETING".into(), "hello".into());
    let heard = Mutex::new(Vec::new());
    let outcome = bench.jobs.run(job, Some(&|stream, _| heard.lock().unwrap().push(stream))).unwrap();
    assert_eq!(outcome.end, End::Exited(Exit::Code(3)));
    assert_eq!(outcome.stdout.text(), format!("out typed hello\n{NOBODY}\n"));
    assert_eq!(outcome.stderr.text(), "bad\n");
    assert!(heard.into_inner().unwrap().contains(&Stream::Errors));
    bench.nothing_left();
}

#[test]
fn a_program_that_is_not_there_leaves_nothing_behind() {
    let Some(bench) = bench() else { return };
    let mut job = bench.job("");
    job.argv = vec!["/nothing".into()];
    assert!(bench.jobs.run(job, None).unwrap_err().to_string().contains("no such program"));
    bench.nothing_left();
}

#[test]
fn every_limit_ends_it() {
    let Some(bench) = bench() else { return };
    let mut slow = bench.job("/host/busybox sleep 1000 & /host/busybox sleep 1000");
    slow.limits.wall = Duration::from_millis(300);
    assert_eq!(bench.run(slow).end, End::TimedOut);
    let flood = bench.run(bench.job("/host/busybox yes"));
    assert_eq!((flood.end, flood.stdout.bytes.len(), flood.stdout.cut), (End::Flooded, 1 << 20, true));
    let mut writer = bench.job("while :; do /host/busybox dd if=/dev/zero of=/data/$((n+=1)) bs=1M count=4; done");
    let data = bench.dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::os::unix::fs::chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
    writer.mounts.push(Mount { source: data, target: "/data".into(), access: Access::Write });
    assert_eq!(bench.run(writer).end, End::DiskFull);
    let mut bomb = bench.job("f() { f | f & }; f; /host/busybox sleep 1000");
    bomb.limits.wall = Duration::from_secs(1);
    assert_ne!(bench.run(bomb).end, End::Exited(Exit::Code(0)));
    assert!(bench.run(bench.job("exit 0")).succeeded());
}

#[test]
fn what_is_shown_read_only_cannot_be_changed() {
    let Some(bench) = bench() else { return };
    let mut job = bench.job("echo x > /host/new; /host/busybox rm /host/busybox; /host/busybox ls /etc /home /root");
    job.user = User::default();
    let outcome = bench.run(job);
    assert_ne!(outcome.end, End::Exited(Exit::Code(0)));
    assert!(outcome.stderr.text().contains("Read-only file system"), "{}", outcome.stderr.text());
    assert_eq!(files::names(&bench.dir.path().join("bin")).unwrap(), ["busybox"]);
}

#[test]
fn a_running_job_is_told_from_what_a_crash_left() {
    let Some(bench) = bench() else { return };
    let job = bench.job("echo up; /host/busybox sleep 1000");
    let dir = bench.jobs.dir(&job.name);
    assert!(!is_running(&dir));
    std::thread::scope(|scope| {
        let (sender, up) = std::sync::mpsc::channel();
        let sender = Mutex::new(sender);
        let (jobs, heard) = (&bench.jobs, move |_: Stream, _: &[u8]| sender.lock().unwrap().send(()).unwrap());
        let run = scope.spawn(move || jobs.run(job, Some(&heard)).unwrap());
        up.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(is_running(&dir));
        bench.jobs.stop();
        assert_eq!(run.join().unwrap().end, End::Stopped);
    });
    assert!(!is_running(&dir));
    bench.nothing_left();
}
