//! Loading images from archives, end to end: bytes in, files in storage and a record out.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::support::*;
use faas_jails::image::store::InUse;
use faas_jails::image::{Credentials, Digest, Origin, Progress, PullPolicy, Silent, Source};
use faas_jails::storage::{Storage, Whiteouts};
use serde_json::json;

fn two_layers() -> Sample {
    let below = Tar::new()
        .dir("etc")
        .file("etc/passwd", "root:x:0:0::/:/bin/sh\napp:x:100:101::/:/bin/sh\n")
        .file("etc/gone", "x")
        .dir("bin")
        .file("bin/true", "#!true")
        .dir("var")
        .dir("var/lib")
        .file("var/lib/old", "x")
        .end();
    let above = Tar::new()
        .dir("etc")
        .file("etc/.wh.gone", "")
        .file("etc/group", "app:x:101:\nwww:x:33:app\n")
        .file("var/lib/new", "y")
        .file("var/lib/.wh..wh..opq", "")
        .hardlink("bin/also", "etc/group")
        .symlink("link", "/etc/passwd")
        .end();
    Sample { config: json!({"Cmd": ["/bin/true"], "User": "app", "Env": ["A=b"]}), ..Sample::new(vec![below, above]) }
}

#[test]
fn every_kind_of_archive_makes_the_same_image() {
    if !is_root("every_kind_of_archive_makes_the_same_image") {
        return;
    }
    let sample = two_layers();
    let archives = [
        sample.docker_save(&["r.example/f:1"]),
        gzip(&sample.docker_save(&["r.example/f:1"])),
        sample.oci_archive("r.example/f:1", gzip),
        zstd(&sample.oci_archive("r.example/f:1", |layer| layer.to_vec())),
        sample.oci_archive("r.example/f:1", zstd),
    ];
    for &style in STYLES {
        for archive in &archives {
            let bench = Bench::new(style);
            let loaded = bench.load(archive).unwrap_or_else(|fault| panic!("{fault}"));
            let [image] = &loaded[..] else { panic!("{} images", loaded.len()) };
            assert_eq!(image.reference.canonical(), "r.example/f:1");
            assert_eq!(image.origin, Origin::Loaded);
            assert_eq!((image.run.user.uid, image.run.user.gid), (100, 101));
            assert_eq!(image.run.user.groups, [33]);
            assert_eq!(image.run.env["A"], "b");
            let top = bench.storage.dir(&image.layers[1]);
            assert_eq!(fs::read_to_string(top.join("var/lib/new")).unwrap(), "y");
            assert_eq!(fs::read_to_string(top.join("bin/also")).unwrap(), "app:x:101:\nwww:x:33:app\n");
            assert_eq!(fs::read_link(top.join("link")).unwrap().to_str(), Some("/etc/passwd"));
            match style {
                Whiteouts::Apply => {
                    assert!(!top.join("etc/gone").exists());
                    assert!(!top.join("var/lib/old").exists());
                    assert!(top.join("bin/true").exists());
                }
                Whiteouts::Overlay => {
                    let mark = fs::symlink_metadata(top.join("etc/gone")).unwrap();
                    assert!(mark.file_type().is_char_device() && mark.rdev() == 0);
                }
            }
            bench.assert_clean();
            let reference = "r.example/f:1".parse().unwrap();
            let got = bench.store.ensure(&reference, PullPolicy::Always, &Credentials::default(), &Silent).unwrap();
            assert_eq!(got, *image);
        }
    }
}

#[test]
fn a_layout_is_loaded_from_a_directory_and_an_archive_from_a_stream() {
    if !is_root("a_layout_is_loaded_from_a_directory_and_an_archive_from_a_stream") {
        return;
    }
    let bench = Bench::new(Whiteouts::Apply);
    let archive = two_layers().oci_archive("r.example/f:2", gzip);
    let layout = bench.dir.path().join("layout");
    untar(&archive, &layout);
    assert_eq!(bench.store.load(Source::path(&layout), None, &Silent).unwrap().len(), 1);
    let name = "r.example/other".parse().unwrap();
    let stream = Source::Stream { name: "standard input".into(), reader: Box::new(std::io::Cursor::new(archive)) };
    let loaded = bench.store.load(stream, Some(&name), &Silent).unwrap();
    assert_eq!(loaded[0].reference, name);
    assert_eq!(bench.store.list().unwrap().len(), 2);
    bench.assert_clean();
}

#[test]
fn the_same_tag_loaded_again_replaces_it_and_prune_frees_the_old_layers() {
    if !is_root("the_same_tag_loaded_again_replaces_it_and_prune_frees_the_old_layers") {
        return;
    }
    for &style in STYLES {
        let bench = Bench::new(style);
        let base = Tar::new().file("base", "x").end();
        let image = |text: &str| Sample::new(vec![base.clone(), Tar::new().file("f", text).end()]);
        let old = bench.load(&image("old").docker_save(&["f:1"])).unwrap().remove(0);
        let new = bench.load(&image("new").docker_save(&["f:1"])).unwrap().remove(0);
        assert_eq!(bench.store.list().unwrap(), std::slice::from_ref(&new));
        let in_use = InUse { references: vec!["f:1".parse().unwrap()], layers: old.layers.clone() };
        assert_eq!(bench.store.prune(&in_use).unwrap().layers, []);
        let in_use = InUse { layers: Vec::new(), ..in_use };
        assert_eq!(bench.store.prune(&in_use).unwrap().layers, [old.layers[1].clone()]);
        assert!(bench.store.get(&new.reference).unwrap().is_some());
        let freed = bench.store.prune(&InUse::default()).unwrap();
        assert_eq!(freed.images, std::slice::from_ref(&new.reference));
        assert_eq!(freed.layers.len(), 2);
        assert!(bench.storage.inventory().unwrap().layers.is_empty());
        assert!(bench.store.get(&new.reference).unwrap().is_none());
    }
}

#[test]
fn owners_modes_times_and_user_attributes_survive() {
    if !is_root("owners_modes_times_and_user_attributes_survive") {
        return;
    }
    let layer = Tar::new()
        .entry(&Entry { name: b"d/", kind: b'5', mode: 0o1777, uid: 7, gid: 8, mtime: 5000, ..Entry::default() })
        .pax(&[("mtime", b"12.5"), ("SCHILY.xattr.user.k", b"v"), ("uid", b"70000")])
        .entry(&Entry { name: b"d/f", mode: 0o6755, gid: 9, data: b"hello", ..Entry::default() })
        .end();
    let bench = Bench::new(Whiteouts::Apply);
    let image = bench.load(&Sample::new(vec![layer]).docker_save(&["f"])).unwrap().remove(0);
    let dir = bench.storage.dir(&image.layers[0]).join("d");
    let meta = fs::metadata(&dir).unwrap();
    assert_eq!((meta.permissions().mode() & 0o7777, meta.uid(), meta.gid(), meta.mtime()), (0o1777, 7, 8, 5000));
    let meta = fs::metadata(dir.join("f")).unwrap();
    assert_eq!((meta.permissions().mode() & 0o7777, meta.uid(), meta.gid()), (0o755, 70000, 9));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (12, 500_000_000));
}

#[test]
fn an_image_that_does_not_say_what_it_is_for_is_taken() {
    if !is_root("an_image_that_does_not_say_what_it_is_for_is_taken") {
        return;
    }
    let bench = Bench::new(Whiteouts::Overlay);
    let sample = Sample { platform: ("", ""), ..Sample::new(vec![Tar::new().file("f", "x").end()]) };
    let image = bench.load(&sample.docker_save(&["r.example/f:1"])).unwrap().remove(0);
    let ensured = bench.store.ensure(&image.reference, PullPolicy::Always, &Credentials::default(), &Silent);
    assert_eq!(ensured.unwrap(), image);
}

/// Counts the layers that are being made, and lets none go on before a second one has begun.
#[derive(Default)]
struct Together {
    now: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Progress for Together {
    fn layers(&self, count: usize) {
        assert_eq!(count, 4);
    }
    fn layer_started(&self, _: &Digest, _: Option<u64>) {
        let mut now = self.now.lock().unwrap();
        *now = (now.0 + 1, now.1.max(now.0 + 1));
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(now, Duration::from_secs(30), |now| now.1 < 2).unwrap();
        assert!(!waited.1.timed_out(), "one layer after the other");
    }
    fn bytes(&self, _: &Digest, _: u64) {}
    fn layer_done(&self, _: &Digest) {
        self.now.lock().unwrap().0 -= 1;
    }
    fn warn(&self, sentence: &str) {
        panic!("{sentence}");
    }
}

#[test]
fn several_layers_are_made_at_once_and_no_more_than_configured() {
    if !is_root("several_layers_are_made_at_once_and_no_more_than_configured") {
        return;
    }
    let settings = faas_jails::image::Settings { parallel: 2, ..settings() };
    let bench = Bench::with(Whiteouts::Overlay, settings);
    let layers = ["a", "b", "c", "d"].map(|name| Tar::new().file(name, name).end());
    let progress = Together::default();
    bench.load_telling(&Sample::new(layers.to_vec()).docker_save(&["r.example/f:1"]), &progress).unwrap();
    assert_eq!(*progress.now.lock().unwrap(), (0, 2));
}
