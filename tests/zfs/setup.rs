use faas_jails::fault::{Kind, Result};
use faas_jails::function::Realm;
use faas_jails::platform::zfs::{Choice, Mounting, Settings, ZfsStorage};
use faas_jails::storage::{RootOptions, Storage};

use crate::fixture::{each, replica};
use crate::zpool::{Pool, zfs};

fn open(pool: &Pool, parent: &str) -> Result<ZfsStorage> {
    ZfsStorage::open(Settings {
        parent: parent.parse().unwrap(),
        realm: Realm::default(),
        mounting: Mounting::Path(pool.dir().join("m")),
        engine: Choice::Best,
    })
}

#[test]
fn a_missing_pool_or_dataset_is_told_with_what_mends_it() {
    let Some(pool) = Pool::new(64) else { return };
    let fault = open(&pool, "no-such-pool/fj").err().unwrap();
    assert_eq!(fault.kind(), Kind::NotFound);
    assert!(fault.to_string().contains("zpool import no-such-pool"), "{fault}");
    let parent = format!("{}/a/fj", pool.name());
    let fault = open(&pool, &parent).err().unwrap();
    assert_eq!(fault.kind(), Kind::NotFound);
    let text = fault.to_string();
    let command = text.split("with zfs ").nth(1).expect("no command in it");
    zfs(&command.split(' ').collect::<Vec<_>>());
    open(&pool, &parent).unwrap();
    pool.finish();
}

#[test]
fn opening_again_mends_what_was_changed() {
    each(128, |fixture| {
        let roots = fixture.dataset("roots");
        zfs(&["set", "setuid=on", &roots]);
        let storage = fixture.reopen("fj");
        assert_eq!(zfs(&["get", "-H", "-o", "value", "setuid", &roots]), "off\n");
        let name = replica("f");
        storage.clone_root(&[], &name, &RootOptions::default()).unwrap();
        storage.destroy_root(&name).unwrap();
    });
}

#[test]
fn a_container_that_was_taken_away_is_not_told_as_a_missing_layer() {
    each(128, |fixture| {
        let lent = replica("f");
        fixture.storage.clone_root(&[], &lent, &RootOptions { read_only: true, quota: None }).unwrap();
        fixture.storage.destroy_root(&lent).unwrap();
        zfs(&["rename", &fixture.dataset("roots"), &fixture.dataset("gone")]);
        let fault = fixture.storage.clone_root(&[], &replica("f"), &RootOptions::default()).unwrap_err();
        zfs(&["rename", &fixture.dataset("gone"), &fixture.dataset("roots")]);
        assert_eq!(fault.kind(), Kind::NotFound, "{fault}");
        assert!(!fault.to_string().contains("pull"), "{fault}");
    });
}
