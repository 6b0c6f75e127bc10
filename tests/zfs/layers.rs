use faas_jails::fault::Kind;
use faas_jails::storage::{RootOptions, Storage, Whiteouts};

use crate::fixture::{chain, each, noise, replica};

#[test]
fn a_chain_of_three_layers_becomes_one_root() {
    each(128, |fixture| {
        let storage = &fixture.storage;
        let layers = chain(&["base", "middle", "top"]);
        for (index, name) in ["base", "middle", "top"].iter().enumerate() {
            assert!(!storage.has(&layers[index]).unwrap());
            let staging = storage.stage(&layers[index]).unwrap();
            assert_eq!((staging.whiteouts, staging.layer.clone()), (Whiteouts::Apply, layers[index].clone()));
            assert!(!storage.has(&layers[index]).unwrap(), "a staged layer counts as complete");
            std::fs::write(staging.dir.join(name), name).unwrap();
            if *name == "top" {
                std::fs::remove_file(staging.dir.join("base")).unwrap();
            }
            storage.commit(staging).unwrap();
            assert!(storage.has(&layers[index]).unwrap());
        }
        let name = replica("figlet");
        let root = storage.clone_root(&layers, &name, &RootOptions::default()).unwrap();
        fixture.enter(&root, |dir| {
            assert!(!dir.join("base").exists(), "what the top layer deleted is there");
            assert_eq!(std::fs::read_to_string(dir.join("middle")).unwrap(), "middle");
            assert_eq!(std::fs::read_to_string(dir.join("top")).unwrap(), "top");
            std::fs::write(dir.join("middle"), "changed").unwrap();
        });
        let other = replica("figlet");
        let second = storage.clone_root(&layers, &other, &RootOptions::default()).unwrap();
        fixture.enter(&second, |dir| assert_eq!(std::fs::read_to_string(dir.join("middle")).unwrap(), "middle"));

        let below = storage.remove_layer(&layers[1]).unwrap_err();
        assert_eq!(below.kind(), Kind::Busy);
        let used = storage.remove_layer(&layers[2]).unwrap_err();
        assert!(used.to_string().contains(&name.to_string()), "{used}");
        assert!(layers.iter().all(|layer| storage.has(layer).unwrap()), "a refused removal took something away");

        storage.destroy_root(&name).unwrap();
        storage.destroy_root(&other).unwrap();
        storage.destroy_root(&name).unwrap();
        for layer in layers.iter().rev() {
            storage.remove_layer(layer).unwrap();
            storage.remove_layer(layer).unwrap();
            assert!(!storage.has(layer).unwrap());
        }
    });
}

#[test]
fn two_images_share_their_base_and_its_bytes() {
    each(128, |fixture| {
        let storage = &fixture.storage;
        let (one, two) = (chain(&["base", "one"]), chain(&["base", "two"]));
        fixture.load(&one[0], "base", 8);
        fixture.load(&one[1], "one", 1);
        fixture.load(&two[1], "two", 1);
        let inventory = storage.inventory().unwrap();
        let bytes = |id: &str| inventory.layers.iter().find(|layer| layer.id == id).unwrap().bytes.unwrap();
        assert_eq!(inventory.layers.len(), 3);
        assert!(bytes(one[0].chain_id.as_str()) >= 8 << 20);
        for own in [&one[1], &two[1]] {
            assert!((1 << 20..3 << 20).contains(&bytes(own.chain_id.as_str())), "the base is counted twice");
        }
        assert_eq!(storage.remove_layer(&one[0]).unwrap_err().kind(), Kind::Busy);
        storage.remove_layer(&one[1]).unwrap();
        assert_eq!(storage.remove_layer(&one[0]).unwrap_err().kind(), Kind::Busy);
        storage.remove_layer(&two[1]).unwrap();
        storage.remove_layer(&two[0]).unwrap();
    });
}

#[test]
fn a_layer_needs_the_one_below_it() {
    each(128, |fixture| {
        let layers = chain(&["base", "top"]);
        let fault = fixture.storage.stage(&layers[1]).unwrap_err();
        assert_eq!(fault.kind(), Kind::NotFound);
        assert!(fault.to_string().contains(layers[0].chain_id.as_str()), "{fault}");
    });
}

#[test]
fn two_may_stage_one_layer_and_the_first_commit_counts() {
    each(128, |fixture| {
        let storage = &fixture.storage;
        let layer = &chain(&["base"])[0];
        let (one, two) = (storage.stage(layer).unwrap(), storage.stage(layer).unwrap());
        let three = storage.stage(layer).unwrap();
        std::fs::write(one.dir.join("file"), "one").unwrap();
        std::fs::write(two.dir.join("file"), "two").unwrap();
        storage.commit(two).unwrap();
        storage.commit(one).unwrap();
        storage.abort(three).unwrap();
        let name = replica("f");
        let root = storage.clone_root(std::slice::from_ref(layer), &name, &RootOptions::default()).unwrap();
        fixture.enter(&root, |dir| assert_eq!(std::fs::read_to_string(dir.join("file")).unwrap(), "two"));
        storage.destroy_root(&name).unwrap();
        storage.remove_layer(layer).unwrap();
    });
}

#[test]
fn what_was_staged_elsewhere_is_refused() {
    each(128, |fixture| {
        let layer = &chain(&["base"])[0];
        let mut staging = fixture.storage.stage(layer).unwrap();
        let dir = std::mem::replace(&mut staging.dir, fixture.pool.dir().join("elsewhere"));
        assert_eq!(fixture.storage.commit(staging).unwrap_err().kind(), Kind::Invalid);
        let staging = faas_jails::storage::Staging { layer: layer.clone(), dir, whiteouts: Whiteouts::Apply };
        fixture.storage.abort(staging).unwrap();
    });
}

#[test]
fn a_full_pool_is_told_in_a_sentence_and_leaves_nothing() {
    each(64, |fixture| {
        let storage = &fixture.storage;
        let layers = chain(&["base", "big"]);
        fixture.load(&layers[0], "base", 1);
        let staging = storage.stage(&layers[1]).unwrap();
        let error = (0..64)
            .find_map(|index| std::fs::write(staging.dir.join(format!("{index}")), noise(1)).err())
            .expect("64 MiB fit into a pool of 64 MiB");
        let full = [Some(libc::ENOSPC), Some(libc::EDQUOT)];
        assert!(full.contains(&error.raw_os_error()), "{error}");
        assert_eq!(faas_jails::fault::Fault::from(error).kind(), Kind::Exhausted);
        let mut fault = None;
        let mut made = Vec::new();
        // OpenZFS keeps a little in reserve for small things.
        for _ in 0..200 {
            let name = replica("f");
            match storage.clone_root(&layers[..1], &name, &RootOptions::default()) {
                Ok(_) => made.push(name),
                Err(refused) => {
                    fault = Some(refused);
                    break;
                }
            }
        }
        let fault = fault.expect("200 clones fit into a full pool");
        assert_eq!(fault.kind(), Kind::Exhausted);
        let text = fault.to_string();
        assert!(text.contains(fixture.pool.name()) && text.contains("zpool add"), "{text}");
        storage.abort(staging).unwrap();
        for name in &made {
            storage.destroy_root(name).unwrap();
        }
        storage.remove_layer(&layers[0]).unwrap();
    });
}
