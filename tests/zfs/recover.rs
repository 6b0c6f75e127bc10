use faas_jails::fault::Kind;
use faas_jails::storage::{Root, RootOptions, Storage};

use crate::fixture::{Fixture, Style, chain, each, replica};
use crate::zpool::zfs;

fn unmount_staged(fixture: &Fixture, dir: &std::path::Path) -> String {
    let name = dir.file_name().unwrap().to_str().unwrap();
    let dataset = fixture.dataset(&format!("staging/{name}"));
    match fixture.style {
        Style::Path => zfs(&["unmount", &dataset]),
        _ => crate::zpool::run("umount", &[dir.to_str().unwrap()]),
    };
    dataset
}

/// One layer for each place at which a crash can leave it.
#[test]
fn a_crash_at_any_step_of_a_layer_leaves_nothing_after_recovery() {
    each(128, |fixture| {
        let storage = &fixture.storage;
        let layers = chain(&["base", "one", "two", "three", "four"]);
        fixture.load(&layers[0], "base", 1);
        let above = |index: usize| {
            let mut layer = layers[index].clone();
            layer.parent = Some(layers[0].chain_id.clone());
            layer
        };
        // While it is being unpacked.
        let half = storage.stage(&above(1)).unwrap();
        std::fs::write(half.dir.join("half"), "half").unwrap();
        // Made, not yet mounted; unmounted for the commit.
        let unmounted = storage.stage(&above(2)).unwrap();
        unmount_staged(fixture, &unmounted.dir);
        // Snapshot made, not yet renamed.
        let snapshot = storage.stage(&above(3)).unwrap();
        let dataset = unmount_staged(fixture, &snapshot.dir);
        zfs(&["snapshot", &format!("{dataset}@layer")]);
        // Half removed: its snapshot is gone.
        fixture.load(&above(4), "four", 1);
        zfs(&["destroy", &fixture.dataset(&format!("layers/{}@layer", layers[4].chain_id.hex()))]);
        assert!(!storage.has(&above(4)).unwrap());

        let restarted = fixture.reopen("fj");
        assert_eq!(restarted.inventory().unwrap().layers.len(), 1);
        restarted.recover().unwrap();
        restarted.recover().unwrap();
        assert!(restarted.has(&layers[0]).unwrap());
        for index in 1..=4 {
            assert!(!restarted.has(&above(index)).unwrap());
            fixture.load(&above(index), "again", 1);
            restarted.remove_layer(&above(index)).unwrap();
        }
        restarted.remove_layer(&layers[0]).unwrap();
    });
}

#[test]
fn recovery_keeps_roots_that_may_be_in_use_and_takes_those_that_cannot() {
    each(128, |fixture| {
        let (used, half) = (replica("used"), replica("half"));
        let root = fixture.storage.clone_root(&[], &used, &RootOptions::default()).unwrap();
        fixture.storage.clone_root(&[], &half, &RootOptions::default()).unwrap();
        let restarted = fixture.reopen("fj");
        if let Root::Directory(_) = root {
            // Between clone and mount, or before a restart of the host.
            zfs(&["unmount", &fixture.dataset(&format!("roots/{half}"))]);
            restarted.recover().unwrap();
            assert_eq!(restarted.inventory().unwrap().roots, std::slice::from_ref(&used));
        } else {
            restarted.recover().unwrap();
            assert_eq!(restarted.inventory().unwrap().roots.len(), 2);
        }
        restarted.destroy_root(&used).unwrap();
        restarted.destroy_root(&half).unwrap();
    });
}

#[test]
fn what_others_made_is_left_alone() {
    each(128, |fixture| {
        let other = fixture.reopen("two");
        let layer = &chain(&["base"])[0];
        let staged = other.stage(layer).unwrap();
        let foreign = [fixture.dataset("roots/mine"), fixture.dataset("layers/mine"), fixture.dataset("staging/fj.x")];
        for dataset in &foreign {
            zfs(&["create", "-o", "canmount=noauto", dataset]);
        }
        let name = "two_ns_fn_bcdfghjk".parse().unwrap();
        other.clone_root(&[], &name, &RootOptions::default()).unwrap();

        fixture.storage.recover().unwrap();
        assert_eq!(fixture.storage.inventory().unwrap().roots, []);
        assert_eq!(other.inventory().unwrap().roots, std::slice::from_ref(&name));
        let refused = fixture.storage.clone_root(&[], &name, &RootOptions::default()).unwrap_err();
        assert_eq!(refused.kind(), Kind::Invalid);
        other.commit(staged).unwrap();
        assert!(fixture.storage.has(layer).unwrap(), "layers are shared");

        for dataset in &foreign {
            zfs(&["destroy", dataset]);
        }
        other.destroy_root(&name).unwrap();
        other.remove_layer(layer).unwrap();
    });
}
