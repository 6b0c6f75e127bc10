//! What a killed process, a full disk, or another process at the same work leaves behind: nothing half made.

use std::fs;
#[cfg(target_os = "linux")]
use std::path::Path;
use std::process::Command;

use faas_jails::fault::Kind;
use faas_jails::image::store::InUse;
use faas_jails::image::{Silent, Source, Store};
use faas_jails::storage::{Storage, Whiteouts};

use crate::support::*;

/// A layer with so many files, each of some kilobytes.
fn layer(name: &str, files: usize) -> Vec<u8> {
    let text = name.repeat(2000);
    (0..files).fold(Tar::new(), |tar, at| tar.file(&format!("{name}/{at}"), &text)).end()
}

#[cfg(target_os = "linux")]
fn count(dir: &Path) -> usize {
    fs::read_dir(dir).map_or(0, |entries| entries.count())
}

#[cfg(target_os = "linux")]
#[test]
fn killed_at_any_moment_the_next_run_starts_clean() {
    use std::process::Stdio;
    use std::sync::Arc;
    use std::time::Duration;

    use faas_jails::platform::linux::overlay::OverlayStorage;

    if !is_root("killed_at_any_moment_the_next_run_starts_clean") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let realm = format!("k{:03}", std::process::id() % 1000);
    let config = dir.path().join("config.toml");
    fs::write(&config, format!("root = \"{}\"\nrealm = \"{realm}\"\n", root.display())).unwrap();
    let archive = dir.path().join("image.tar");
    let image = Sample { platform: ("", ""), ..Sample::new(vec![layer("a", 400), layer("b", 400)]) };
    fs::write(&archive, image.oci_archive("r.example/f:1", gzip)).unwrap();
    let command = |verb: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_faas-jails"));
        command.arg("--config").arg(&config).arg("image").args(verb).stdin(Stdio::null()).stderr(Stdio::null());
        command
    };

    let mut kills = 0;
    // Later and later, until a run is done before it is killed.
    for wait in (0..).map(|step| Duration::from_millis(10 * step)) {
        let mut child = command(&["load", archive.to_str().unwrap()]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(wait);
        child.kill().unwrap();
        let done = child.wait().unwrap().success();
        for entry in fs::read_dir(root.join("layers")).into_iter().flatten() {
            let top = fs::read_dir(entry.unwrap().path()).unwrap().next().unwrap().unwrap().path();
            assert_eq!(count(&top), 400, "{} is half a layer", top.display());
        }
        let listed = command(&["ls"]).output().unwrap();
        assert!(listed.status.success());
        assert!(done || count(&root.join("images/refs")) <= 1);
        if done {
            break;
        }
        kills += 1;
        assert!(wait < Duration::from_secs(60), "it is never done");
    }
    assert!(kills > 0, "no run was interrupted");
    let storage = Arc::new(OverlayStorage::new(root.clone(), realm.parse().unwrap()).unwrap());
    let store = Store::open(&root, storage, settings()).unwrap();
    store.recover().unwrap();
    assert_eq!((count(&root.join("staging")), count(&root.join("images/tmp"))), (0, 0));
    assert!(store.get(&"r.example/f:1".parse().unwrap()).unwrap().is_some());
}

/// The registry cuts the layer off after so many bytes; when the program asks for the rest, it is killed.
#[cfg(target_os = "linux")]
#[test]
fn killed_after_any_byte_of_a_pull_the_next_pull_is_whole() {
    use std::collections::HashMap;
    use std::process::Stdio;
    use std::sync::{Arc, Mutex, mpsc};
    use std::time::Duration;

    use faas_jails::image::Digest;

    use crate::server::{Answer, Server};

    const NAME: &str = "killed_after_any_byte_of_a_pull_the_next_pull_is_whole";
    if !is_root(NAME) {
        return;
    }
    let sample = Sample { platform: ("", ""), ..Sample::new(vec![layer("a", 40)]) };
    let (blobs, _) = sample.oci_blobs(gzip);
    let mut content: HashMap<String, Vec<u8>> =
        blobs.iter().map(|blob| (format!("/v2/f/blobs/{}", Digest::of(blob)), blob.clone())).collect();
    content.insert("/v2/f/manifests/1".into(), blobs[2].clone());
    let (path, length) = (format!("/v2/f/blobs/{}", Digest::of(&blobs[1])), blobs[1].len());
    // How far the next connection gets; nothing: to the end.
    let reach: Arc<Mutex<Option<usize>>> = Arc::default();
    let (asked, is_asked) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (asked, released) = (Mutex::new(asked), Mutex::new(released));
    let wanted = Arc::clone(&reach);
    let server = Server::start(move |request| {
        let Some(body) = content.get(&request.path) else { return Answer::new(404, "") };
        let mut answer = Answer::new(200, body.clone());
        if request.path == path {
            answer.cut = *wanted.lock().unwrap();
            if request.range() > 0 {
                asked.lock().unwrap().send(request.range()).unwrap();
                let _ = released.lock().unwrap().recv_timeout(Duration::from_secs(30));
                answer.cut = Some(0);
            }
        }
        answer
    });
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    let realm = format!("b{:03}", std::process::id() % 1000);
    let config = dir.path().join("config.toml");
    fs::write(&config, format!("root = \"{}\"\nrealm = \"{realm}\"\n", root.display())).unwrap();
    let pull = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_faas-jails"));
        command.arg("--config").arg(&config).args(["image", "pull"]).arg(format!("{}/f:1", server.address));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    };
    for bytes in [1, 9, 10, 100, 511, length / 3, length / 2, length - 9, length - 1] {
        *reach.lock().unwrap() = Some(bytes);
        let mut child = pull().stderr(Stdio::null()).spawn().unwrap();
        let at = is_asked.recv_timeout(Duration::from_secs(60)).expect("the program never asked for the rest");
        assert_eq!(at, bytes);
        child.kill().unwrap();
        child.wait().unwrap();
        release.send(()).unwrap();
        assert_eq!((count(&root.join("layers")), count(&root.join("images/refs"))), (0, 0), "after {bytes} bytes");
    }
    assert!(count(&root.join("staging")) > 0, "no kill has left anything half made, so nothing was tested");
    *reach.lock().unwrap() = None;
    assert!(pull().status().unwrap().success());
    let tree = fs::read_dir(root.join("layers")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(count(&tree.join("a")), 40);
    let purged = Command::new(env!("CARGO_BIN_EXE_faas-jails")).arg("--config").arg(&config).arg("purge").status();
    assert!(purged.unwrap().success());
    assert_eq!((count(&root.join("staging")), count(&root.join("trash")), count(&root.join("images/tmp"))), (0, 0, 0));
}

/// A file system of a few megabytes, unmounted at the end.
struct Small(tempfile::TempDir);

impl Drop for Small {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(self.0.path()).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_full_disk_is_said_in_a_sentence_and_nothing_is_left() {
    if !is_root("a_full_disk_is_said_in_a_sentence_and_nothing_is_left") {
        return;
    }
    let small = Small(tempfile::tempdir().unwrap());
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(small.0.path()).status();
    assert!(mounted.unwrap().success());
    let outside = tempfile::tempdir().unwrap();
    let archive = outside.path().join("image.tar");
    fs::write(&archive, Sample::new(vec![layer("a", 3000)]).docker_save(&["r.example/large:1"])).unwrap();
    for source in [
        Source::path(&archive),
        Source::Stream { name: "standard input".into(), reader: Box::new(fs::File::open(&archive).unwrap()) },
    ] {
        let inside = tempfile::tempdir_in(small.0.path()).unwrap();
        let bench = Bench::at(inside, Whiteouts::Overlay, settings());
        let fault = bench.store.load(source, None, &Silent).unwrap_err();
        assert_eq!(fault.kind(), Kind::Exhausted, "{fault}");
        assert!(fault.to_string().contains("No space left"), "{fault}");
        bench.assert_clean();
        assert!(bench.store.list().unwrap().is_empty());
        assert!(!bench.storage.root.join("layers").exists());
    }
}

#[test]
fn several_at_the_same_layers_make_each_once() {
    if !is_root("several_at_the_same_layers_make_each_once") {
        return;
    }
    for &style in STYLES {
        let bench = Bench::new(style);
        let archives: Vec<_> = (0..4)
            .map(|at| {
                let image = Sample::new(vec![layer("base", 50), layer("middle", 50), layer(&format!("top{at}"), 20)]);
                let path = bench.dir.path().join(format!("{at}.tar"));
                fs::write(&path, image.oci_archive(&format!("r.example/f:{at}"), gzip)).unwrap();
                path
            })
            .collect();
        std::thread::scope(|scope| {
            for archive in archives.iter().chain(&archives) {
                // Each with a store of its own, as processes have.
                let store = || Store::open(bench.dir.path(), bench.storage.clone(), settings()).unwrap();
                scope.spawn(move || store().load(Source::path(archive), None, &Silent).unwrap());
            }
        });
        bench.assert_clean();
        assert_eq!(bench.store.list().unwrap().len(), 4);
        assert_eq!(bench.storage.inventory().unwrap().layers.len(), 6);
        bench.store.prune(&InUse::default()).unwrap();
        assert_eq!(bench.storage.inventory().unwrap().layers.len(), 0);
    }
}
