//! The daemon with its images and roots on a real ZFS pool, as on FreeBSD: a layer is a dataset, a root is a clone.

use serde_json::json;

use crate::needs_root;
use crate::support::image::Layer;
use crate::support::images::{PROBE, probe_image};
use crate::support::{Daemon, eventually};
use crate::zpool::{self, Pool};

/// Runs a test with a daemon on a new pool, and checks that neither leaves anything.
fn on_zfs(test: impl FnOnce(&mut Daemon, &Pool)) {
    let Some(pool) = Pool::new(512) else { return };
    let dataset = format!("{}/fj", pool.name());
    zpool::zfs(&["create", "-o", "canmount=off", &dataset]);
    let before = pool.datasets();
    let mut daemon = Daemon::with().set("storage = \"zfs\"").table(&format!("[zfs]\ndataset = \"{dataset}\"")).start();
    test(&mut daemon, &pool);
    daemon.kill9();
    let purge = daemon.run(&["purge", "--all"]);
    assert!(purge.status.success(), "{}", String::from_utf8_lossy(&purge.stderr));
    drop(daemon);
    let containers = [format!("{dataset}/layers"), format!("{dataset}/roots"), format!("{dataset}/staging")];
    let mut left = pool.datasets();
    left.retain(|name| !before.contains(name) && !containers.contains(name) && !name.contains("/layers/empty"));
    assert!(left.is_empty(), "left behind after purge --all: {left:?}");
    pool.finish();
}

/// Datasets of replicas' roots: one each, and one that lies ready for the next.
fn roots(pool: &Pool) -> Vec<String> {
    let all = pool.datasets().into_iter();
    all.filter(|name| name.split_once("/roots/").is_some_and(|(_, rest)| !rest.contains('@'))).collect()
}

#[test]
fn a_function_on_a_clone_is_deployed_called_scaled_updated_and_deleted() {
    needs_root!();
    on_zfs(|daemon, pool| {
        daemon.deploy(json!({"service": "f"}));
        assert_eq!(daemon.identity("f")["uid"], 1000);
        eventually("its root and one more", || (roots(pool).len() == 2).then_some(()));
        daemon.invoke("POST", "f/write?path=/home/probe/mine").body("x").send().expect(200);
        daemon.scale("f", 2).expect(202);
        daemon.await_ready("f", 2);
        eventually("two roots and one more", || (roots(pool).len() == 3).then_some(()));
        daemon.update(json!({"service": "f", "envVars": {"v": "2"}})).expect(202);
        assert_eq!(daemon.call("f/env").expect(200).value()["v"], "2");
        daemon.call("f/files?path=/home/probe/mine").expect_error(500, &["no such file"]);
        daemon.delete("f").expect(202);
        eventually("no root is left", || roots(pool).is_empty().then_some(()));
    });
}

#[test]
fn replicas_on_clones_are_adopted_after_a_kill_and_remains_are_swept() {
    needs_root!();
    on_zfs(|daemon, pool| {
        daemon.deploy(json!({"service": "f"}));
        let before = daemon.identity("f")["started"].clone();
        daemon.kill9();
        daemon.start_again();
        daemon.await_ready("f", 1);
        assert_eq!(daemon.identity("f")["started"], before, "the replica was restarted instead of adopted");
        let http = daemon.http.clone();
        let update = json!({"service": "f", "image": PROBE}).to_string();
        let update = std::thread::spawn(move || http.request("PUT", "/system/functions").body(update).try_send());
        std::thread::sleep(std::time::Duration::from_millis(60));
        daemon.kill9();
        let _ = update.join().expect("the update");
        daemon.start_again();
        daemon.await_ready("f", 1);
        eventually("exactly one root and one more is left", || (roots(pool).len() == 2).then_some(()));
    });
}

#[test]
fn images_share_the_datasets_of_their_common_layers() {
    needs_root!();
    on_zfs(|daemon, pool| {
        let snapshots = || pool.datasets().iter().filter(|n| n.contains("/layers/") && n.contains('@')).count();
        let few = snapshots();
        let more = Layer::new().directory("data", 0o755).file("data/new", 0o644, b"new").whiteout("probe.old");
        let image = probe_image().layer(Layer::new().file("probe.old", 0o644, b"x")).layer(more);
        daemon.load(&image.docker_save("example.test/more:1"));
        assert_eq!(snapshots(), few + 2, "two new layers are two new datasets");
        daemon.deploy(json!({"service": "f", "image": "example.test/more:1"}));
        assert_eq!(daemon.call("f/files?path=/data/new").expect(200).text(), "new");
        daemon.call("f/files?path=/probe.old").expect_error(500, &["no such file"]);
        daemon.delete("f").expect(202);
        eventually("no root is left", || roots(pool).is_empty().then_some(()));
        let pruned = daemon.run(&["image", "rm", "example.test/more:1"]);
        assert!(pruned.status.success());
    });
}

#[test]
fn a_read_only_root_on_zfs_refuses_writes_and_has_a_writable_tmp() {
    needs_root!();
    on_zfs(|daemon, _| {
        daemon.deploy(json!({"service": "f", "readOnlyRootFilesystem": true}));
        daemon.invoke("POST", "f/write?path=/home/probe/mine").body("x").send().expect_error(500, &["read-only"]);
        daemon.invoke("POST", "f/write?path=/tmp/mine").body("x").send().expect(200);
    });
}
