//! What a replica sees, and what it cannot do.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use faas_jails::sandbox::{Exit, Sandbox, User};

use crate::support::{World, executable, root};

#[test]
fn a_replica_sees_itself_only() {
    if !root() {
        return;
    }
    let world = World::new();
    let output = world.shell(
        "echo host=$(hostname) pid=$$ user=$(id -u):$(id -g):$(id -G)
         echo processes=$(ls /proc | grep -c '^[0-9]' 2>/dev/null || ls -d /proc/[0-9]* | wc -l)
         echo descriptors=$(ls /proc/self/fd | wc -l)
         echo cgroup=$(cat /proc/self/cgroup | cut -d: -f3 2>/dev/null || true)
         echo links=$(ip -o link | wc -l)
         echo hosts=$(cat /etc/hosts)",
    );
    let line = |start: &str| output.lines().find_map(|line| line.strip_prefix(start)).unwrap_or("nothing").to_owned();
    assert_eq!(line("host="), "hello pid=1 user=1234:4321:4321 77", "{output}");
    assert_eq!(line("links="), "1", "loopback only: {output}");
    assert_eq!(line("hosts="), "127.0.0.1 localhost");
    // The shell, its subshell and the counting commands themselves.
    assert!(line("processes=").parse::<u32>().unwrap() <= 6, "{output}");
    // 0, 1, 2 and the one with which ls reads the directory.
    assert_eq!(line("descriptors="), "4", "{output}");
}

#[test]
fn no_path_names_the_host() {
    if !root() {
        return;
    }
    let world = World::new();
    let output = world.shell("cat /proc/self/cgroup /proc/self/mounts /proc/self/mountinfo; env");
    assert!(!output.contains("faas-jails"), "{output}");
    let dir = world.dir.path().to_str().unwrap();
    assert!(!output.contains(dir), "{output}");
    assert!(output.lines().any(|line| line.starts_with("overlay / overlay rw,nosuid,nodev")), "{output}");
}

#[test]
fn a_replica_has_no_privileges_to_use() {
    if !root() {
        return;
    }
    let world = World::new();
    let (_, status) = world.run(world.plan(&["cat", "/proc/self/status"]));
    for expected in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(status.contains(&format!("{expected}:\t0000000000000000\n")), "{status}");
    }
    for expected in ["NoNewPrivs:\t1\n", "Seccomp:\t2\n", "SigBlk:\t0000000000000000\n", "SigIgn:\t0000000000000000\n"]
    {
        assert!(status.contains(expected), "{expected:?} in {status}");
    }
}

/// Each line is a command that must fail, for the image's root as for anybody.
const FORBIDDEN: &str = "
    mount -t tmpfs none /tmp
    mount -o remount,rw /proc/sys
    umount /proc
    umount /sys
    unshare -r true
    unshare -m true
    unshare -n true
    nsenter -t 1 -m true
    chroot / true
    mknod /tmp/disk b 8 0
    mknod /tmp/mem c 1 1
    dmesg
    hostname other
    sysctl -w kernel.hostname=x
    sysctl -w net.ipv4.ip_forward=1
    ip link add name x type dummy
    ip address add 10.1.2.3/24 dev lo
    touch /sys/x
    touch /proc/sys/kernel/x
    kill -0 2
    cat /dev/mem
    ping -c 1 -w 1 127.0.0.1";

fn nothing_forbidden_works(user: User) {
    let world = World::new();
    let mut script = String::new();
    for command in FORBIDDEN.lines().map(str::trim).filter(|line| !line.is_empty()) {
        script.push_str(&format!("if {command} >/dev/null 2>&1; then echo 'worked: {command}'; fi\n"));
    }
    script.push_str("echo done\n");
    let mut plan = world.plan(&["sh", "-c", &script]);
    plan.user = user;
    let (exit, output) = world.run(plan);
    assert_eq!((exit, output.as_str()), (Exit::Code(0), "done\n"));
}

#[test]
fn a_user_cannot_reach_the_host() {
    if root() {
        nothing_forbidden_works(User { uid: 1234, gid: 1234, groups: vec![] });
    }
}

#[test]
fn root_of_an_image_cannot_reach_the_host() {
    if root() {
        nothing_forbidden_works(User::default());
    }
}

#[test]
fn root_of_an_image_can_do_what_images_do_at_start() {
    if !root() {
        return;
    }
    let world = World::new();
    let mut plan =
        world.plan(&["sh", "-c", "touch /tmp/a; chown 7:8 /tmp/a; stat -c %u:%g /tmp/a; cat /proc/self/status"]);
    plan.user = User::default();
    let (exit, output) = world.run(plan);
    assert_eq!(exit, Exit::Code(0), "{output}");
    assert!(output.starts_with("7:8\n"), "{output}");
    assert!(output.contains("CapBnd:\t00000000000004fb\n"), "{output}");
}

#[test]
fn what_proc_tells_of_the_host_is_empty() {
    if !root() {
        return;
    }
    let world = World::new();
    let script = "for f in kcore keys kmsg timer_list slabinfo vmallocinfo pagetypeinfo kpageflags; do
         test -e /proc/$f && echo \"$f $(cat /proc/$f | wc -c)\"; done
         for d in acpi scsi; do test -d /proc/$d && echo \"$d $(ls /proc/$d | wc -l)\"; done; true";
    let mut plan = world.plan(&["sh", "-c", script]);
    plan.user = User::default();
    let (_, output) = world.run(plan);
    assert!(output.lines().count() >= 4, "{output}");
    for line in output.lines() {
        assert!(line.ends_with(" 0"), "{output}");
    }
}

#[test]
fn a_setuid_file_in_an_image_gives_nothing() {
    if !root() {
        return;
    }
    let world = World::new();
    let layer = world.layer("setuid", |dir| {
        fs::copy("/bin/busybox", dir.join("busybox")).unwrap();
        fs::set_permissions(dir.join("busybox"), fs::Permissions::from_mode(0o6755)).unwrap();
    });
    let (_, output) = world.run(world.plan_on(&[world.busybox.clone(), layer], &["/busybox", "id", "-u"]));
    assert_eq!(output, "1234\n");
}

#[test]
fn a_root_is_writable_and_private_and_a_read_only_one_is_not() {
    if !root() {
        return;
    }
    let world = World::new();
    let script = "echo mine > /file && cat /file; test -e /bin/sh && rm /bin/cat; ls /bin/cat 2>&1 | wc -l";
    for _ in 0..2 {
        let mut plan = world.plan(&["sh", "-c", script]);
        plan.user = User::default();
        assert_eq!(world.run(plan), (Exit::Code(0), "mine\n1\n".to_owned()));
    }
    for user in [User::default(), User { uid: 5, gid: 5, groups: vec![] }] {
        let mut plan = world.read_only_plan(&[
            "sh",
            "-c",
            "touch /x 2>/dev/null || echo refused; touch /etc/hosts 2>/dev/null || echo refused; rm /bin/cat 2>/dev/null || echo refused
             echo works > /tmp/x && cat /tmp/x; echo works > /dev/shm/x && cat /dev/shm/x; cat /etc/hosts",
        ]);
        plan.user = user;
        let (_, output) = world.run(plan);
        assert_eq!(output, "refused\nrefused\nrefused\nworks\nworks\n127.0.0.1 localhost\n");
    }
}

#[test]
fn secrets_are_read_and_not_written() {
    if !root() {
        return;
    }
    let world = World::new();
    let secrets = world.dir.path().join("secrets");
    fs::create_dir(&secrets).unwrap();
    executable(&secrets.join("token"), b"s3cr3t\n");
    for read_only in [false, true] {
        let script = "cd /var/openfaas/secrets && cat token; touch new 2>/dev/null || echo refused
                      echo x 2>/dev/null > token || echo refused; ./token 2>/dev/null || echo refused
                      rm token 2>/dev/null || echo refused";
        let layers = std::slice::from_ref(&world.busybox);
        let mut plan = world.plan_for(world.replica(), layers, &["sh", "-c", script], read_only);
        plan.user = User::default();
        plan.secrets = Some(secrets.clone());
        let (_, output) = world.run(plan);
        assert_eq!(output, "s3cr3t\nrefused\nrefused\nrefused\nrefused\n");
    }
    assert_eq!(fs::read_to_string(secrets.join("token")).unwrap(), "s3cr3t\n");
}

/// An image whose own paths are links to the host's: all of it must stay in the image.
#[test]
fn links_in_an_image_lead_nowhere_but_into_the_image() {
    if !root() {
        return;
    }
    let world = World::new();
    let victim = world.dir.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("hosts"), "untouched").unwrap();
    let up = format!("../../../../../../../..{}", victim.display());
    for (name, links) in [
        ("absolute", vec![("etc", victim.display().to_string())]),
        ("upwards", vec![("etc", up.clone()), ("tmp", up.clone())]),
        ("mounts", vec![("proc", up.clone()), ("dev", "/proc".to_owned()), ("sys", "/".to_owned())]),
        ("secrets", vec![("var", up.clone())]),
    ] {
        let layer = world.layer(name, |dir| {
            for (at, target) in links {
                symlink(target, dir.join(at)).unwrap();
            }
        });
        let mut plan = world.plan_on(&[world.busybox.clone(), layer], &["true"]);
        plan.secrets = Some(victim.clone());
        // Whether such an image starts is of no interest.
        let started = world.sandbox.start(&plan);
        println!("{name}: {started:?}");
        world.remove(&plan.replica);
        assert_eq!(fs::read_to_string(victim.join("hosts")).unwrap(), "untouched");
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
    }
}

#[test]
fn a_file_replaces_a_link_of_its_name_and_a_pipe() {
    if !root() {
        return;
    }
    let world = World::new();
    let layer = world.layer("links", |dir| {
        fs::create_dir(dir.join("etc")).unwrap();
        symlink("/bin/busybox", dir.join("etc/hosts")).unwrap();
        let fifo = std::ffi::CString::new(dir.join("etc/resolv.conf").to_str().unwrap()).unwrap();
        // SAFETY: the path is NUL-terminated.
        assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o644) }, 0);
    });
    let mut plan = world.plan_on(&[world.busybox.clone(), layer], &["cat", "/etc/hosts", "/etc/resolv.conf"]);
    plan.files.insert("/etc/resolv.conf".into(), b"nameserver 1.2.3.4\n".to_vec());
    let (exit, output) = world.run(plan);
    assert_eq!((exit, output.as_str()), (Exit::Code(0), "127.0.0.1 localhost\nnameserver 1.2.3.4\n"));
}

#[test]
fn a_replica_learns_its_limits_where_cgroups_are_unified() {
    if !root() {
        return;
    }
    if !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        eprintln!("SKIPPED: needs a host with the unified cgroup hierarchy");
        return;
    }
    let world = World::new();
    let mut plan = world.plan(&[
        "sh",
        "-c",
        "cat /sys/fs/cgroup/memory.max; echo max 2>/dev/null > /sys/fs/cgroup/memory.max || echo refused",
    ]);
    plan.user = User::default();
    plan.limits.memory = Some(64 << 20);
    assert_eq!(world.run(plan).1, "67108864\nrefused\n");
}
