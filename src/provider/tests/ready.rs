//! Replicas that lie ready, and what becomes of them.

use super::*;
use crate::function::ReplicaName;

fn world(standby: usize) -> World {
    let mut world = World::new();
    world.config.elastic.standby = standby;
    world
}

fn at_zero(provider: &Arc<Provider>, name: &str) -> Arc<Function> {
    let desired = desired(name, &[]);
    let key = desired.key.clone();
    provider.create(desired).unwrap();
    provider.scale(&key, 0).unwrap();
    provider.find(&key).unwrap()
}

fn lies_ready(world: &World) -> ReplicaName {
    eventually("a replica that lies ready, and nothing else", || {
        world.fake.prepared().len() == 1 && world.fake.left() == (1, 1, 0)
    });
    world.fake.prepared().remove(0)
}

#[test]
fn a_call_takes_what_lies_ready_and_zero_brings_the_next() {
    let world = world(4);
    let provider = world.provider();
    let function = at_zero(&provider, "f");
    let first = lies_ready(&world);
    assert!(!provider.replica_dir(&first).join("link.json").exists(), "no file says that it has an address");
    let lease = world.runtime.block_on(provider.lease(&function)).unwrap();
    assert_eq!((lease.name.clone(), world.fake.prepared()), (first.clone(), Vec::new()));
    drop(lease);
    provider.scale(&function.key, 0).unwrap();
    assert_ne!(lies_ready(&world), first);
    provider.delete(&function.key).unwrap();
    eventually("nothing at all", || world.fake.left() == (0, 0, 0) && provider.retiring() == 0);
    assert_eq!((world.fake.prepared(), provider.addresses().holders().len()), (Vec::new(), 0));
}

#[test]
fn an_update_replaces_it_and_the_next_daemon_sweeps_it() {
    let world = world(4);
    let provider = world.provider();
    let function = at_zero(&provider, "f");
    let first = lies_ready(&world);
    provider.update(desired("f", &[("GREETING", "new")])).unwrap();
    provider.scale(&function.key, 0).unwrap();
    eventually("another one", || !world.fake.prepared().contains(&first) && world.fake.prepared().len() == 1);
    let second = lies_ready(&world);
    drop((function, provider));
    let _next = world.provider();
    eventually("another one", || !world.fake.prepared().contains(&second) && world.fake.prepared().len() == 1);
    lies_ready(&world);
}

#[test]
fn a_few_functions_have_one_and_stopping_leaves_none() {
    let world = world(2);
    let provider = world.provider();
    for name in ["a", "b", "c"] {
        at_zero(&provider, name);
        eventually("an end", || world.fake.left().2 == 0);
    }
    eventually("two of them", || world.fake.prepared().len() == 2 && world.fake.left() == (2, 2, 0));
    provider.stop_all().unwrap();
    assert_eq!((world.fake.prepared(), world.fake.left()), (Vec::new(), (0, 0, 0)));
}

#[test]
fn where_addresses_run_out_they_are_given_up() {
    let mut world = world(4);
    world.config.network.subnet = ipnetwork::IpNetwork::new(world.config.network.subnet.ip(), 29).unwrap();
    let provider = world.provider();
    at_zero(&provider, "a");
    let spare = lies_ready(&world);
    // Five addresses, one of which the other function's next replica has.
    provider.create(desired("b", &[])).unwrap();
    provider.scale(&desired("b", &[]).key, 5).unwrap();
    assert!(!world.fake.prepared().contains(&spare));
    assert_eq!(world.fake.left().2, 5);
}

#[test]
fn secrets_are_those_of_the_start() {
    let world = world(4);
    let provider = world.provider();
    let namespace = "openfaas-fn".parse().unwrap();
    provider.secrets.create(&namespace, "key", b"old").unwrap();
    let with_secret = Desired { secrets: vec!["key".into()], ..desired("f", &[]) };
    provider.create(with_secret).unwrap();
    let function = provider.find(&desired("f", &[]).key).unwrap();
    provider.scale(&function.key, 0).unwrap();
    let name = lies_ready(&world);
    provider.secrets.update(&namespace, "key", b"new").unwrap();
    let lease = world.runtime.block_on(provider.lease(&function)).unwrap();
    assert_eq!(lease.name, name);
    assert_eq!(std::fs::read(provider.replica_dir(&name).join("secrets/key")).unwrap(), b"new");
}
