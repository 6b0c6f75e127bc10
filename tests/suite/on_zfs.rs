//! What only a look into the pool shows. The whole suite runs with its images and roots on ZFS, too: see
//! tools/with-pool.sh.

use rand::RngCore;
use serde_json::json;

use crate::full_disk::{assert_a_pull_does_not_fit, noisy_image};
use crate::needs_root;
use crate::support::image::Layer;
use crate::support::images::probe_image;
use crate::support::registry::{Access, Registry};
use crate::support::{Daemon, eventually};
use crate::zpool::{self, Pool};

/// Runs a test with a daemon on a new pool, and checks that neither leaves anything.
fn on_zfs(test: impl FnOnce(&mut Daemon, &Pool)) {
    let Some(pool) = Pool::new(512) else { return };
    let dataset = format!("{}/fj", pool.name());
    zpool::zfs(&["create", "-o", "canmount=off", &dataset]);
    let before = pool.datasets();
    let mut daemon = Daemon::with().zfs(&dataset).start();
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
fn the_annotation_for_the_disk_limits_what_a_replica_adds() {
    needs_root!();
    on_zfs(|daemon, pool| {
        daemon.deploy(json!({"service": "f", "annotations": {"com.faas-jails.disk": "8Mi"}}));
        let told = zpool::zfs(&["get", "-Hp", "-o", "value", "refquota", &roots(pool)[0]]);
        assert!(told.trim().parse::<u64>().is_ok_and(|bytes| bytes > 8 << 20), "{told}");
        // Noise: what compresses takes next to no room.
        let mut noise = vec![0; 1 << 20];
        let mut write = |number: usize| {
            rand::rng().fill_bytes(&mut noise);
            let answer = daemon.invoke("POST", &format!("f/write?path=/home/probe/{number}")).body(&*noise).send();
            // SAFETY: no preconditions. ZFS counts what it has written, not what waits to be.
            unsafe { libc::sync() };
            answer
        };
        write(0).expect(200);
        let refused = (1..64).map(write).find(|answer| answer.status != 200).expect("64 MiB went into 8 MiB");
        assert!(refused.text().contains("quota exceeded"), "{}", refused.text());
    });
}

#[test]
fn a_pull_into_a_full_dataset_fails_with_a_sentence_and_leaves_nothing() {
    needs_root!();
    on_zfs(|daemon, pool| {
        let registry = Registry::start(Access::Anonymous);
        registry.push("team/large", "1", &noisy_image(32));
        zpool::zfs(&["set", "quota=32M", &format!("{}/fj", pool.name())]);
        assert_a_pull_does_not_fit(daemon, &registry.name("team/large", "1"), || pool.datasets());
    });
}
