use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use faas_jails::fault::Kind;
use faas_jails::function::ReplicaName;
use faas_jails::storage::{Root, RootOptions, Storage};

use crate::fixture::{Style, chain, each, noise, replica};

const READ_ONLY: RootOptions = RootOptions { read_only: true, quota: None };

#[test]
fn a_quota_limits_what_a_replica_adds() {
    each(192, |fixture| {
        let storage = &fixture.storage;
        let layers = chain(&["base"]);
        fixture.load(&layers[0], "base", 16);
        let (limited, free) = (replica("limited"), replica("free"));
        let options = RootOptions { read_only: false, quota: Some(8 << 20) };
        let root = storage.clone_root(&layers, &limited, &options).unwrap();
        fixture.enter(&root, |dir| {
            std::fs::write(dir.join("fits"), noise(4)).unwrap();
            let mut file = std::fs::File::create(dir.join("big")).unwrap();
            let error = (0..64).find_map(|_| file.write_all(&noise(1)).and_then(|()| file.sync_all()).err());
            let error = error.expect("64 MiB went into a quota of 8 MiB");
            assert_eq!(error.raw_os_error(), Some(libc::EDQUOT), "{error}");
            drop(file);
            std::fs::remove_file(dir.join("big")).expect("a replica at its quota can delete");
        });
        let other = storage.clone_root(&layers, &free, &RootOptions::default()).unwrap();
        fixture.enter(&other, |dir| std::fs::write(dir.join("big"), noise(20)).unwrap());
        storage.destroy_root(&limited).unwrap();
        storage.destroy_root(&free).unwrap();
        storage.remove_layer(&layers[0]).unwrap();
    });
}

#[test]
fn roots_grant_neither_setuid_nor_devices() {
    each(128, |fixture| {
        let name = replica("f");
        let root = fixture.storage.clone_root(&[], &name, &RootOptions::default()).unwrap();
        let dataset = fixture.dataset(&format!("roots/{name}"));
        let value = |property: &str| crate::zpool::zfs(&["get", "-H", "-o", "value", property, &dataset]);
        assert_eq!([value("setuid"), value("exec"), value("atime")], ["off\n", "on\n", "off\n"]);
        assert_eq!(value("faas-jails:replica").trim(), name.to_string());
        assert_eq!(value("faas-jails:realm").trim(), "fj");
        assert_eq!(value("faas-jails:kind").trim(), "root");
        if cfg!(target_os = "linux") {
            assert_eq!(value("devices"), "off\n");
        }
        fixture.enter(&root, |dir| assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0));
        fixture.storage.destroy_root(&name).unwrap();
    });
}

#[test]
fn an_image_without_layers_is_an_empty_root() {
    each(128, |fixture| {
        let storage = &fixture.storage;
        let (one, two) = (replica("one"), replica("two"));
        let root = storage.clone_root(&[], &one, &RootOptions::default()).unwrap();
        fixture.enter(&root, |dir| std::fs::write(dir.join("file"), "").unwrap());
        let lent = storage.clone_root(&[], &two, &READ_ONLY).unwrap();
        fixture.enter(&lent, |dir| assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0));
        assert_eq!(storage.inventory().unwrap().layers, [], "the empty layer is of no image");
        storage.recover().unwrap();
        storage.destroy_root(&one).unwrap();
        storage.destroy_root(&two).unwrap();
    });
}

#[test]
fn a_read_only_root_is_the_layer_itself() {
    each(128, |fixture| {
        let storage = &fixture.storage;
        let layers = chain(&["base", "top"]);
        fixture.load(&layers[0], "base", 1);
        fixture.load(&layers[1], "top", 1);
        let before = fixture.pool.datasets();
        let (one, two) = (replica("one"), replica("two"));
        let root = storage.clone_root(&layers, &one, &READ_ONLY).unwrap();
        assert_eq!(storage.clone_root(&layers, &two, &READ_ONLY).unwrap(), root);
        assert_eq!(fixture.pool.datasets(), before, "a read-only root needs no dataset");
        fixture.enter(&root, |dir| {
            assert_eq!(std::fs::read(dir.join("base")).unwrap().len(), 1 << 20);
            let error = std::fs::write(dir.join("top"), "").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{error}");
        });
        let fault = storage.remove_layer(&layers[1]).unwrap_err();
        assert_eq!(fault.kind(), Kind::Busy);
        storage.destroy_root(&one).unwrap();
        assert_eq!(storage.remove_layer(&layers[1]).unwrap_err().kind(), Kind::Busy);
        fixture.enter(&root, |dir| assert!(dir.join("top").exists(), "the other replica lost its root"));
        storage.destroy_root(&two).unwrap();
        storage.remove_layer(&layers[1]).unwrap();
        storage.remove_layer(&layers[0]).unwrap();
    });
}

/// A daemon that was killed lent them; the next one, or purge, takes them back.
#[test]
fn read_only_roots_of_an_earlier_run_are_taken_back_and_nothing_stays_mounted() {
    each(128, |fixture| {
        let layers = chain(&["base"]);
        fixture.load(&layers[0], "base", 1);
        let (one, two) = (replica("one"), replica("two"));
        let root = fixture.storage.clone_root(&layers, &one, &READ_ONLY).unwrap();
        let restarted = fixture.reopen("fj");
        assert_eq!(restarted.clone_root(&layers, &two, &READ_ONLY).unwrap(), root);
        restarted.destroy_root(&one).unwrap();
        fixture.enter(&root, |dir| assert!(dir.join("base").exists(), "the other replica lost its root"));
        let purge = fixture.reopen("fj");
        // This is all that purge goes by when the sandbox is gone already, where it is not the sandbox that mounts.
        if matches!(root, Root::Directory(_)) {
            assert_eq!(purge.inventory().unwrap().roots, std::slice::from_ref(&two));
        }
        purge.destroy_root(&two).unwrap();
        purge.destroy_root(&two).unwrap();
        assert_eq!(fixture.pool.mounts().iter().filter(|line| line.contains("/layers/")).count(), 0);
        purge.remove_layer(&layers[0]).unwrap();
    });
}

/// A daemon that was restarted does not see what others have mounted.
#[test]
fn a_layer_that_an_adopted_replica_runs_in_stays() {
    each(128, |fixture| {
        let layers = chain(&["base"]);
        fixture.load(&layers[0], "base", 1);
        let name = replica("f");
        let root = fixture.storage.clone_root(&layers, &name, &READ_ONLY).unwrap();
        let restarted = fixture.reopen("fj");
        let check = |dir: &std::path::Path| {
            let file = std::fs::File::open(dir.join("base")).unwrap();
            let fault = restarted.remove_layer(&layers[0]).unwrap_err();
            assert_eq!(fault.kind(), Kind::Busy, "{fault}");
            assert!(restarted.has(&layers[0]).unwrap(), "half of the layer was removed");
            assert_eq!(file.metadata().unwrap().len(), 1 << 20);
        };
        fixture.enter(&root, check);
        if let (Root::Directory(dir), true) = (&root, cfg!(target_os = "linux")) {
            // Mounted only where this process does not see it. What others have mounted is let go, theirs to unmount.
            let script = "mount --make-rprivate / && mount --bind \"$0\" /mnt && \
                          awk '$3 == \"fuse.zfs\" && $2 != \"/mnt\" { print $2 }' /proc/mounts | \
                          xargs -r -n 1 umount -l && echo ready && exec cat";
            let mut sandbox = Command::new("unshare")
                .args(["-m", "sh", "-c", script])
                .arg(dir)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut ready = String::new();
            BufReader::new(sandbox.stdout.take().unwrap()).read_line(&mut ready).unwrap();
            assert_eq!(ready, "ready\n");
            fixture.storage.destroy_root(&name).unwrap();
            let fault = restarted.remove_layer(&layers[0]).unwrap_err();
            let there = restarted.has(&layers[0]).unwrap();
            drop(sandbox.stdin.take());
            sandbox.wait().unwrap();
            assert!(fault.kind() == Kind::Busy && there, "{fault}");
        }
        fixture.storage.destroy_root(&name).unwrap();
        restarted.remove_layer(&layers[0]).unwrap();
    });
}

#[test]
fn a_busy_root_is_destroyed_when_it_is_let_go() {
    each(128, |fixture| {
        if fixture.style != Style::Path {
            // Unmounting is the sandbox's there.
            return;
        }
        let storage = &fixture.storage;
        let name = replica("f");
        let Root::Directory(dir) = storage.clone_root(&[], &name, &RootOptions::default()).unwrap() else {
            panic!("no directory")
        };
        let file = std::fs::File::create(dir.join("open")).unwrap();
        let started = Instant::now();
        let fault = storage.destroy_root(&name).unwrap_err();
        assert_eq!(fault.kind(), Kind::Busy);
        assert!(fault.to_string().contains("fuser"), "{fault}");
        assert!(started.elapsed() > Duration::from_millis(500), "it did not wait for the file");
        assert_eq!(storage.inventory().unwrap().roots, std::slice::from_ref(&name));
        let closing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(file);
        });
        storage.destroy_root(&name).unwrap();
        closing.join().unwrap();
    });
}

#[test]
fn a_replica_has_one_root() {
    each(128, |fixture| {
        let storage = &fixture.storage;
        let name = replica("f");
        storage.clone_root(&[], &name, &RootOptions::default()).unwrap();
        let fault = storage.clone_root(&[], &name, &RootOptions::default()).unwrap_err();
        assert_eq!(fault.kind(), Kind::Busy);
        assert_eq!(storage.inventory().unwrap().roots, std::slice::from_ref(&name));
        storage.destroy_root(&name).unwrap();
    });
}

#[test]
fn a_root_needs_its_layers() {
    each(128, |fixture| {
        for options in [RootOptions::default(), READ_ONLY, RootOptions { read_only: false, quota: Some(1 << 20) }] {
            let fault = fixture.storage.clone_root(&chain(&["base"]), &replica("f"), &options).unwrap_err();
            assert_eq!(fault.kind(), Kind::NotFound, "{options:?}: {fault}");
            assert!(fault.to_string().contains("pull"), "{fault}");
        }
    });
}

#[test]
fn the_longest_replica_name_has_a_root() {
    each(128, |fixture| {
        let label = "a".repeat(63);
        let name: ReplicaName = format!("fj_{label}_{label}_bcdfghjk").parse().unwrap();
        let root = fixture.storage.clone_root(&[], &name, &RootOptions::default()).unwrap();
        fixture.enter(&root, |dir| std::fs::write(dir.join("file"), "").unwrap());
        fixture.storage.destroy_root(&name).unwrap();
    });
}

#[test]
fn roots_are_made_and_destroyed_at_once() {
    each(192, |fixture| {
        let layers = chain(&["base"]);
        fixture.load(&layers[0], "base", 1);
        std::thread::scope(|scope| {
            for index in 0..8 {
                let layers = &layers;
                scope.spawn(move || {
                    for _ in 0..2 {
                        let name = replica("f");
                        let options = RootOptions { read_only: index % 2 == 0, quota: None };
                        let root = fixture.storage.clone_root(layers, &name, &options).unwrap();
                        fixture.enter(&root, |dir| assert!(dir.join("base").exists()));
                        fixture.storage.destroy_root(&name).unwrap();
                    }
                });
            }
        });
        fixture.storage.remove_layer(&layers[0]).unwrap();
    });
}

#[test]
fn a_layer_is_never_removed_under_a_reader() {
    each(128, |fixture| {
        let layers = chain(&["base"]);
        fixture.load(&layers[0], "base", 1);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..4 {
                        let name = replica("f");
                        match fixture.storage.clone_root(&layers, &name, &READ_ONLY) {
                            Ok(root) => fixture.enter(&root, |dir| assert!(dir.join("base").exists())),
                            Err(fault) => assert_eq!(fault.kind(), Kind::NotFound, "{fault}"),
                        }
                        fixture.storage.destroy_root(&name).unwrap();
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..4 {
                    match fixture.storage.remove_layer(&layers[0]) {
                        Ok(()) => fixture.load(&layers[0], "base", 1),
                        Err(fault) => assert_eq!(fault.kind(), Kind::Busy, "{fault}"),
                    }
                }
            });
        });
        fixture.storage.remove_layer(&layers[0]).unwrap();
    });
}
