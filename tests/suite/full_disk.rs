//! A pull that does not fit fails in a sentence, and leaves nothing.

use std::path::Path;
use std::process::Command;

use rand::RngCore;
use serde_json::json;

use crate::support::Daemon;
use crate::support::image::{Image, Layer};
use crate::support::images::probe_image;
use crate::support::registry::{Access, Registry};
use crate::{linux_only, needs_root};

/// The probe with so much more that does not compress.
pub fn noisy_image(mebibytes: usize) -> Image {
    let mut noise = vec![0; mebibytes << 20];
    rand::rng().fill_bytes(&mut noise);
    probe_image().layer(Layer::new().file("noise", 0o644, &noise))
}

/// `look` shows what storage holds.
pub fn assert_a_pull_does_not_fit(daemon: &Daemon, image: &str, look: impl Fn() -> Vec<String>) {
    let before = look();
    let pull = daemon.run(&["image", "pull", image]);
    let said = String::from_utf8_lossy(&pull.stderr).into_owned();
    assert_eq!(pull.status.code(), Some(73), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(image) && said.contains("image prune removes images"), "{said}");
    assert_eq!(look(), before, "the pull left something");
    daemon.create(json!({"service": "f", "image": image})).expect_error(400, &[image, "image prune removes images"]);
    assert_eq!(look(), before, "the deploy left something");
    let temporary = std::fs::read_dir(daemon.root.join("images/tmp")).expect("the store's directory").count();
    assert_eq!(temporary, 0);
    // What fits goes on working.
    daemon.deploy(json!({"service": "g"}));
    daemon.call("g/id").expect(200);
    daemon.delete("g").expect(202);
}

/// A file system over a directory.
pub struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    /// Mounts one that holds so much.
    pub fn mount(at: &'a Path, mebibytes: usize) -> Self {
        std::fs::create_dir_all(at).expect("making the mount point");
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).status();
        assert!(mounted.is_ok_and(|status| status.success()));
        Self(at)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(self.0).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_pull_into_a_full_file_system_fails_with_a_sentence_and_leaves_nothing() {
    needs_root!();
    linux_only!("is about overlay storage");
    let registry = Registry::start(Access::Anonymous);
    registry.push("team/large", "1", &noisy_image(32));
    let options = Daemon::with().set("storage = \"overlay\"").without_images();
    let mut daemon = options.prepare();
    let root = daemon.root.clone();
    let small = Small::mount(&root, 32);
    daemon.start_again();
    daemon.load(&crate::support::images::probe_archive(crate::support::images::PROBE));
    let look = || {
        let names =
            |dir: &str| std::fs::read_dir(root.join(dir)).expect("storage").map(|e| e.expect("an entry").path());
        let all = ["layers", "staging", "roots", "trash"].into_iter().flat_map(names);
        let mut all: Vec<String> = all.map(|path| path.display().to_string()).collect();
        all.sort();
        // The layers below the one that did not fit are the probe's.
        all
    };
    assert_a_pull_does_not_fit(&daemon, &registry.name("team/large", "1"), look);
    daemon.kill9();
    assert!(daemon.run(&["purge"]).status.success());
    drop(small);
}
