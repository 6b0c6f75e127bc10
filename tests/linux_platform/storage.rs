//! Layers and roots on disk.

use std::fs;

use faas_jails::fault::Kind;
use faas_jails::platform::linux::overlay::OverlayStorage;
use faas_jails::storage::{Root, RootOptions, Storage, Whiteouts};

use crate::support::{World, layer, root};

#[test]
fn a_layer_is_there_when_committed_and_not_before() {
    if !root() {
        return;
    }
    let world = World::new();
    let new = layer("new");
    let first = world.storage.stage(&new).unwrap();
    assert_eq!(first.whiteouts, Whiteouts::Overlay);
    fs::write(first.dir.join("x"), vec![1; 10_000]).unwrap();
    assert!(!world.storage.has(&new).unwrap());
    let second = world.storage.stage(&new).unwrap();
    let third = world.storage.stage(&new).unwrap();
    world.storage.commit(first).unwrap();
    assert!(world.storage.has(&new).unwrap());
    world.storage.commit(second).unwrap();
    world.storage.abort(third).unwrap();
    let inventory = world.storage.inventory().unwrap();
    let found = inventory.layers.iter().find(|l| l.id == new.diff_id.to_string()).unwrap();
    assert!((10_000..40_000).contains(&found.bytes.unwrap()), "{found:?}");
    for dir in ["staging", "trash"] {
        assert_eq!(fs::read_dir(world.dir.path().join("storage").join(dir)).unwrap().count(), 0, "{dir}");
    }
}

#[test]
fn a_layer_in_use_stays() {
    if !root() {
        return;
    }
    let world = World::new();
    let extra = world.layer("extra", |dir| fs::create_dir_all(dir.join("a/b/c")).unwrap());
    let layers = [world.busybox.clone(), extra.clone()];
    let replica = world.replica();
    let made = world.storage.clone_root(&layers, &replica, &RootOptions::default()).unwrap();
    let Root::Overlay { lower, upper: Some(_) } = made else { panic!("{made:?}") };
    assert!(lower[0].ends_with(extra.diff_id.hex()), "topmost first");
    assert_eq!(world.storage.clone_root(&layers, &replica, &RootOptions::default()).unwrap_err().kind(), Kind::Busy);
    let fault = world.storage.remove_layer(&extra).unwrap_err();
    assert_eq!(fault.kind(), Kind::Busy);
    assert!(fault.to_string().contains(&replica.to_string()), "{fault}");
    assert_eq!(world.storage.inventory().unwrap().roots, std::slice::from_ref(&replica));
    world.storage.destroy_root(&replica).unwrap();
    world.storage.remove_layer(&extra).unwrap();
    world.storage.remove_layer(&extra).unwrap();
    assert!(!world.storage.has(&extra).unwrap());
    let gone = world.storage.clone_root(&layers, &replica, &RootOptions::default()).unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound);
    assert_eq!(world.storage.inventory().unwrap().roots, []);
}

#[test]
fn what_a_crash_left_is_recovered_and_a_neighbour_left_alone() {
    if !root() {
        return;
    }
    let world = World::new();
    let dir = world.dir.path().join("storage");
    let neighbour = OverlayStorage::new(dir.clone(), "zz".parse().unwrap()).unwrap();
    let theirs = neighbour.stage(&layer("theirs")).unwrap();
    let ours = world.storage.stage(&layer("ours")).unwrap();
    fs::create_dir_all(ours.dir.join("deep/er")).unwrap();
    fs::create_dir_all(dir.join("trash").join(format!("{}.x/y", world.realm))).unwrap();
    world.storage.recover().unwrap();
    assert!(!ours.dir.exists() && theirs.dir.exists());
    assert_eq!(fs::read_dir(dir.join("trash")).unwrap().count(), 0);
    assert!(world.storage.has(&world.busybox).unwrap());
    neighbour.recover().unwrap();
    assert!(!theirs.dir.exists());
}

#[test]
fn this_host_is_fit_and_a_bad_place_is_named() {
    if !root() {
        return;
    }
    let world = World::new();
    faas_jails::platform::linux::check(world.dir.path()).unwrap();
    let fault = faas_jails::platform::linux::check("/proc/self".as_ref()).unwrap_err();
    assert!(fault.to_string().starts_with("cannot write to /proc/self"), "{fault}");
    assert_eq!(fs::read_dir(world.dir.path()).unwrap().count(), 1, "the trial leaves nothing");
}
