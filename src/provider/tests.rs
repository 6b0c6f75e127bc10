//! The lifecycle, on the fake platform.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::*;
use crate::fault::Kind;
use crate::image::{Digest, Origin, RunConfig};
use crate::platform::fake::Fake;

struct AnyImage;

impl Images for AnyImage {
    fn ensure(&self, reference: &Reference, _: Option<&image::Platform>, _: &[Vec<u8>]) -> Result<Image> {
        if reference.as_written().contains("missing") {
            return Err(Fault::not_found("registry r.example knows no such tag"));
        }
        let run = RunConfig { argv: vec!["/fwatchdog".into()], workdir: "/".into(), ..RunConfig::default() };
        let (manifest, loaded) = (Digest::of("m"), jiff::Timestamp::now());
        let (reference, origin, resolved) = (reference.clone(), Origin::Loaded, manifest.clone());
        Ok(Image {
            reference,
            origin,
            resolved,
            manifest,
            layers: Vec::new(),
            run,
            platform: "linux/amd64".into(),
            size: 0,
            loaded,
        })
    }
}

struct World {
    fake: Fake,
    config: Config,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
    _addresses: Addresses,
}

/// Addresses of a network on loopback. Linux has them all, FreeBSD those that lo0 was given, which needs root.
struct Addresses(ipnetwork::IpNetwork);

impl Addresses {
    fn of(network: ipnetwork::IpNetwork) -> Self {
        Self::change(network, "alias");
        Self(network)
    }

    fn change(network: ipnetwork::IpNetwork, what: &str) {
        if cfg!(target_os = "freebsd") {
            for address in network.iter() {
                let arguments = ["lo0", "inet", &format!("{address}/32"), what];
                let status = std::process::Command::new("ifconfig").args(arguments).status().unwrap();
                assert!(status.success(), "{address} on lo0");
            }
        }
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        Self::change(self.0, "-alias");
    }
}

impl World {
    fn new() -> Self {
        // Each test has a loopback network of its own.
        static NET: AtomicU8 = AtomicU8::new(60);
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config { root: dir.path().to_owned(), ..Config::default() };
        let third = NET.fetch_add(1, Ordering::SeqCst);
        let net = IpAddr::from([127, (std::process::id() % 250) as u8 + 1, third, 0]);
        config.storage = crate::config::StorageKind::Overlay;
        config.network.subnet = ipnetwork::IpNetwork::new(net, 28).unwrap();
        config.ready_wait = Duration::from_millis(1500);
        config.deploy_wait = Duration::from_millis(1000);
        config.stop_wait = Duration::from_millis(100);
        config.elastic.standby = 0;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let addresses = Addresses::of(config.network.subnet);
        Self { fake: Fake::default(), config, runtime, _dir: dir, _addresses: addresses }
    }

    fn provider(&self) -> Arc<Provider> {
        let handle = self.runtime.handle().clone();
        Provider::start(self.config.clone(), self.fake.platform(), Arc::new(AnyImage), handle).unwrap()
    }
}

fn desired(name: &str, env: &[(&str, &str)]) -> Desired {
    Desired {
        key: FunctionKey::parse(name, &"openfaas-fn".parse().unwrap()).unwrap(),
        image: "f:1".parse().unwrap(),
        env_process: None,
        env: env.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        secrets: Vec::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        constraints: Vec::new(),
        limits: None,
        requests: None,
        read_only_root: false,
    }
}

fn eventually(what: &str, check: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !check() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_function_lives_and_leaves_nothing() {
    let world = World::new();
    let provider = world.provider();
    provider.create(desired("f", &[])).unwrap();
    assert_eq!(provider.create(desired("f", &[])).unwrap_err().kind(), Kind::Busy);
    let key = desired("f", &[]).key;
    let function = provider.find(&key).unwrap();
    assert_eq!(function.available(), 1);
    provider.scale(&key, 3).unwrap();
    assert_eq!((function.available(), world.fake.left()), (3, (3, 3, 3)));
    provider.scale(&key, 0).unwrap();
    eventually("the end of the replicas", || world.fake.left() == (0, 0, 0));
    provider.delete(&key).unwrap();
    assert_eq!(provider.delete(&key).unwrap_err().kind(), Kind::NotFound);
    eventually("the end of retiring", || provider.retiring() == 0);
    assert!(provider.addresses().holders().is_empty());
    assert!(files::names(&world.config.root.join("replicas")).unwrap().is_empty());
}

#[test]
fn a_failed_deploy_leaves_nothing_and_says_why() {
    let world = World::new();
    let provider = world.provider();
    for (env, image, word) in [
        (&[("FAIL_START", "1")][..], "f", "/fwatchdog is not in the image"),
        (&[("EXIT_AFTER_MS", "0"), ("NEVER_LISTEN", "1")], "f", "exited with status 3"),
        (&[], "missing", "knows no such tag"),
    ] {
        let mut desired = desired("f", env);
        desired.image = image.parse().unwrap();
        let fault = provider.create(desired).unwrap_err();
        assert!(fault.to_string().contains(word), "{fault}");
        assert_eq!(fault.kind(), Kind::Invalid);
        assert_eq!(world.fake.left(), (0, 0, 0));
    }
    assert!(provider.catalog.all().is_empty() && provider.addresses().holders().is_empty());
}

#[test]
fn a_function_that_never_listens_is_deployed_with_nobody_available() {
    let world = World::new();
    let provider = world.provider();
    provider.create(desired("f", &[("NEVER_LISTEN", "1")])).unwrap();
    let function = provider.find(&desired("f", &[]).key).unwrap();
    assert_eq!((function.available(), function.replicas().len()), (0, 1));
    let lease = world.runtime.block_on(provider.lease(&function));
    assert!(matches!(lease, Err(Unserved::Nobody { .. })), "{lease:?}");
    let log = || provider.logs.reader(&function.key, None).next(crate::logs::Last::WithPartial).unwrap();
    eventually("the note in the log", || log().iter().any(|l| l.text.contains("does not accept connections")));
}

#[test]
fn an_update_that_fails_keeps_the_previous_version() {
    let world = World::new();
    let provider = world.provider();
    let key = desired("f", &[]).key;
    assert_eq!(provider.update(desired("f", &[])).unwrap_err().kind(), Kind::NotFound);
    provider.create(desired("f", &[("GREETING", "one")])).unwrap();
    let before = provider.find(&key).unwrap().ready()[0].name.clone();
    for env in [("FAIL_START", "1"), ("NEVER_LISTEN", "1"), ("EXIT_AFTER_MS", "0")] {
        let env = [env, ("GREETING", "two")];
        // One that listens for a moment before it ends may count as ready; then the update is no failure.
        let Err(fault) = provider.update(desired("f", &env)) else { continue };
        assert!(fault.to_string().contains("its previous version stays"), "{fault}");
        let function = provider.find(&key).unwrap();
        assert_eq!(function.ready()[0].name, before);
        assert_eq!(function.deployed().spec.env["GREETING"], "one");
        assert_eq!(world.fake.left(), (1, 1, 1));
    }
    provider.update(desired("f", &[("GREETING", "three")])).unwrap();
    let function = provider.find(&key).unwrap();
    assert_ne!(function.ready()[0].name, before);
    eventually("the end of the old replica", || world.fake.left() == (1, 1, 1));
}

#[test]
fn a_crashed_replica_is_replaced() {
    let world = World::new();
    let provider = world.provider();
    provider.create(desired("f", &[])).unwrap();
    let function = provider.find(&desired("f", &[]).key).unwrap();
    let first = function.ready()[0].name.clone();
    world.fake.crash(&first);
    eventually("a new replica", || function.ready().first().is_some_and(|r| r.name != first));
    eventually("the end of the crashed one", || world.fake.left() == (1, 1, 1));
}

#[test]
fn a_hundred_requests_at_zero_cause_one_start() {
    let world = World::new();
    let provider = world.provider();
    provider.create(desired("f", &[])).unwrap();
    let key = desired("f", &[]).key;
    let function = provider.find(&key).unwrap();
    provider.scale(&key, 0).unwrap();
    let before = world.fake.starts.load(Ordering::SeqCst);
    world.runtime.block_on(async {
        let leases = (0..100).map(|_| provider.lease(&function));
        for lease in futures_util::future::join_all(leases).await {
            lease.unwrap();
        }
    });
    assert_eq!(world.fake.starts.load(Ordering::SeqCst) - before, 1);
}

#[test]
fn the_least_busy_replica_is_picked_and_a_retired_one_never() {
    let world = World::new();
    let provider = world.provider();
    let mut three = desired("f", &[]);
    three.labels.insert("com.openfaas.scale.min".into(), "3".into());
    provider.create(three).unwrap();
    let function = provider.find(&desired("f", &[]).key).unwrap();
    let leases: Vec<_> = (0..6).map(|_| function.pick().unwrap()).collect();
    assert!(function.ready().iter().all(|r| r.inflight() == 2));
    provider.scale(&function.key, 1).unwrap();
    let stays = function.ready()[0].name.clone();
    assert!((0..9).all(|_| function.pick().unwrap().name == stays));
    assert_eq!(world.fake.left().2, 3, "the others still have requests");
    drop(leases);
    eventually("the end of the drained ones", || world.fake.left() == (1, 1, 1));
}

#[test]
fn the_next_daemon_adopts_what_matches_and_sweeps_the_rest() {
    let world = World::new();
    let provider = world.provider();
    for name in ["keep", "gone", "old"] {
        provider.create(desired(name, &[])).unwrap();
    }
    let named = |name: &str| provider.find(&desired(name, &[]).key).unwrap().ready()[0].name.clone();
    let (keep, old) = (named("keep"), named("old"));
    // A daemon that is killed leaves the kernel as it is, and here also: a deleted function whose replica still
    // runs, and one whose replica is of an older revision.
    drop(provider);
    std::fs::remove_file(world.config.root.join("functions/openfaas-fn/gone.json")).unwrap();
    let path = world.config.root.join("functions/openfaas-fn/old.json");
    let mut deployed: Deployed = files::read_json(&path).unwrap().unwrap();
    deployed.spec.revision += 1;
    files::replace_json(&path, &deployed).unwrap();
    let provider = world.provider();
    let ready = |name: &str| provider.find(&desired(name, &[]).key).unwrap().ready().first().map(|r| r.name.clone());
    eventually("adoption", || ready("keep") == Some(keep.clone()));
    eventually("a new replica", || ready("old").is_some_and(|name| name != old));
    assert_eq!(provider.find(&desired("gone", &[]).key).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(world.fake.left(), (2, 2, 2));
    assert_eq!(provider.addresses().holders().len(), 2);
}

#[test]
fn a_name_is_free_at_once_after_a_delete() {
    let world = World::new();
    let provider = world.provider();
    for _ in 0..5 {
        provider.create(desired("f", &[])).unwrap();
        provider.delete(&desired("f", &[]).key).unwrap();
    }
    eventually("the end of all", || world.fake.left() == (0, 0, 0) && provider.retiring() == 0);
}

/// With storage that waits for its clones, each function that writes has one ready, and uses it.
#[test]
fn a_root_lies_ready_for_the_next_replica_and_goes_with_the_function() {
    let mut world = World::new();
    world.config.storage = crate::config::StorageKind::Zfs;
    let provider = world.provider();
    provider.create(desired("f", &[])).unwrap();
    let key = desired("f", &[]).key;
    eventually("a second root", || world.fake.left() == (2, 1, 1));
    let there = world.fake.platform().storage.inventory().unwrap().roots;
    provider.scale(&key, 2).unwrap();
    eventually("a third root", || world.fake.left() == (3, 2, 2));
    let used = provider.find(&key).unwrap().replicas();
    assert!(used.iter().all(|replica| there.contains(&replica.name)), "the root that lay ready was not used");
    provider.update(desired("f", &[("v", "2")])).unwrap();
    eventually("one root more than replicas", || world.fake.left() == (3, 2, 2));
    provider.create(Desired { read_only_root: true, ..desired("g", &[]) }).unwrap();
    provider.delete(&desired("g", &[]).key).unwrap();
    eventually("nothing of a function that does not write", || world.fake.left() == (3, 2, 2));
    provider.delete(&key).unwrap();
    eventually("nothing at all", || world.fake.left() == (0, 0, 0));
    provider.create(desired("f", &[])).unwrap();
    eventually("a root ready", || world.fake.left() == (2, 1, 1));
    provider.stop_all().unwrap();
    assert_eq!(world.fake.left(), (0, 0, 0));
}

#[test]
fn published_ports_follow_the_replicas_that_serve() {
    let world = World::new();
    let provider = world.provider();
    let published = |name: &str, ports: &str| {
        let annotations = BTreeMap::from([("com.faas-jails.publish".to_owned(), ports.to_owned())]);
        Desired { annotations, ..desired(name, &[]) }
    };
    let port = std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    provider.create(published("f", &format!("{port}:8080"))).unwrap();
    let targets = || world.fake.policy().published.first().map_or(0, |published| published.targets.len());
    assert_eq!(targets(), 1);
    provider.scale(&desired("f", &[]).key, 3).unwrap();
    eventually("all three are targets", || targets() == 3);
    let taken = provider.create(published("g", &format!("{port}:80"))).unwrap_err();
    assert_eq!(taken.kind(), Kind::Busy);
    assert!(taken.to_string().contains("f.openfaas-fn"), "{taken}");
    // Another function that fails to start does not keep the port it claimed.
    provider.delete(&desired("f", &[]).key).unwrap();
    assert!(world.fake.policy().is_empty());
    let broken = Desired { env: desired("g", &[("FAIL_START", "1")]).env, ..published("g", &format!("{port}:80")) };
    assert!(provider.create(broken).is_err());
    provider.create(published("h", &format!("{port}:80"))).unwrap();
    assert_eq!(targets(), 1);
}

#[test]
fn a_replica_that_may_begin_nothing_is_closed_before_it_starts_and_until_it_is_gone() {
    let world = World::new();
    let provider = world.provider();
    let annotations = BTreeMap::from([("com.faas-jails.network".to_owned(), "none".to_owned())]);
    provider.create(Desired { annotations, ..desired("f", &[]) }).unwrap();
    let held: Vec<_> = provider.addresses().holders().keys().copied().collect();
    assert_eq!(world.fake.policy().closed.into_iter().collect::<Vec<_>>(), held);
    // The next daemon knows it.
    drop(provider);
    let provider = world.provider();
    assert_eq!(world.fake.policy().closed.len(), 1);
    provider.delete(&desired("f", &[]).key).unwrap();
    eventually("it is open again", || world.fake.policy().is_empty());
}

mod elastic;
mod ready;
