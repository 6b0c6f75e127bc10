//! From zero and back, waiting, and what a crash in between leaves.

use super::*;
use crate::provider::elastic::Settings;

fn labelled(name: &str, labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Desired {
    let mut desired = desired(name, &[]);
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    desired.labels = pairs(labels);
    desired.annotations = pairs(annotations);
    desired
}

fn at_zero(world: &World, desired: Desired) -> (Arc<Provider>, Arc<Function>) {
    let provider = world.provider();
    let key = desired.key.clone();
    provider.create(desired).unwrap();
    provider.scale(&key, 0).unwrap();
    eventually("the end of the replicas", || world.fake.left() == (0, 0, 0));
    let function = provider.find(&key).unwrap();
    (provider, function)
}

#[test]
fn a_start_that_fails_answers_at_once_and_is_not_repeated_before_its_time() {
    let mut world = World::new();
    world.config.ready_wait = Duration::from_secs(60);
    let (provider, function) = at_zero(&world, desired("f", &[]));
    world.fake.refuses.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    let lease = || world.runtime.block_on(provider.lease(&function));
    for _ in 0..8 {
        let Err(Unserved::Nobody { fault, retry_after }) = lease() else { panic!("a lease on nothing") };
        assert!(fault.to_string().contains("is not in the image"), "{fault}");
        assert!(retry_after > Duration::ZERO);
        // The first failure is waited for a tenth of a second, the second twice as long, and so on.
        if function.state().failures < 4 {
            std::thread::sleep(retry_after);
        }
    }
    assert!(begun.elapsed() < world.config.ready_wait, "somebody waited");
    assert!(function.state().failures <= 5, "{} starts", function.state().failures);
    assert_eq!((function.wanted(), world.fake.left()), (0, (0, 0, 0)), "nobody tries while nobody calls");
    world.fake.refuses.store(false, Ordering::SeqCst);
    eventually("a replica once the backoff has passed", || lease().is_ok());
    assert_eq!(function.wanted(), 1);
}

#[test]
fn a_call_writes_nothing_and_the_next_daemon_takes_what_it_started() {
    let world = World::new();
    let (provider, function) = at_zero(&world, desired("f", &[]));
    let path = world.config.root.join("functions/openfaas-fn/f.json");
    let before = std::fs::metadata(&path).unwrap().modified().unwrap();
    let name = world.runtime.block_on(provider.lease(&function)).unwrap().name.clone();
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), before);
    assert_eq!(function.deployed().spec.replicas, 0);
    drop((provider, function));
    let provider = world.provider();
    let function = provider.find(name.function()).unwrap();
    eventually("adoption", || function.ready().first().is_some_and(|r| r.name == name));
    assert_eq!((function.wanted(), world.fake.left()), (1, (1, 1, 1)));
}

#[test]
fn one_that_was_being_drained_when_the_daemon_died_is_swept() {
    let world = World::new();
    let provider = world.provider();
    provider.create(labelled("f", &[("com.openfaas.scale.max", "5")], &[])).unwrap();
    let key = desired("f", &[]).key;
    provider.scale(&key, 2).unwrap();
    let function = provider.find(&key).unwrap();
    let leases = [function.pick().unwrap(), function.pick().unwrap()];
    provider.scale(&key, 1).unwrap();
    let stays = function.ready()[0].name.clone();
    assert_eq!(world.fake.left().2, 2);
    // The leases stay: this provider never ends its draining.
    let next = world.provider();
    let function = next.find(&key).unwrap();
    eventually("adoption", || function.ready().len() == 1);
    assert_eq!((function.ready()[0].name.clone(), function.wanted()), (stays, 1));
    assert_eq!(world.fake.left(), (1, 1, 1));
    drop(leases);
}

#[test]
fn the_line_is_bounded() {
    let mut world = World::new();
    world.config.elastic = Settings { queue: 2, standby: 0, ..Settings::default() };
    let provider = world.provider();
    provider.create(desired("f", &[("NEVER_LISTEN", "1")])).unwrap();
    let function = provider.find(&desired("f", &[]).key).unwrap();
    provider.scale(&function.key, 0).unwrap();
    let answers = world.runtime.block_on(async {
        let leases = (0..5).map(|_| provider.lease(&function));
        futures_util::future::join_all(leases).await
    });
    let full = answers.iter().filter(|a| matches!(a, Err(Unserved::Full(_)))).count();
    let late = answers.iter().filter(|a| matches!(a, Err(Unserved::Nobody { .. }))).count();
    assert_eq!((full, late), (3, 2), "{answers:?}");
}

#[test]
fn beyond_max_inflight_requests_wait_their_turn() {
    let world = World::new();
    let provider = world.provider();
    provider.create(labelled("f", &[], &[("com.faas-jails.max-inflight", "2")])).unwrap();
    let function = provider.find(&desired("f", &[]).key).unwrap();
    let held = [provider.lease_now(&function).unwrap(), provider.lease_now(&function).unwrap()];
    assert!(provider.lease_now(&function).is_none());
    world.runtime.block_on(async {
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        let line = Arc::clone(&function.line);
        for number in 0..50 {
            let (provider, function, order) = (provider.clone(), Arc::clone(&function), order.clone());
            waiting.push(tokio::spawn(async move {
                let lease = provider.lease(&function).await.unwrap();
                assert!(lease.inflight() <= 2, "{} at once", lease.inflight());
                order.lock().unwrap().push(number);
                tokio::task::yield_now().await;
            }));
            while line.len() <= number {
                tokio::task::yield_now().await;
            }
        }
        // Two that give up do not take their turn with them.
        waiting.remove(0).abort();
        waiting.remove(20).abort();
        drop(held);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(order.lock().unwrap().len(), 48);
        assert_eq!(order.lock().unwrap()[0], 1, "the one that waited longest came first");
    });
    assert!(function.line.is_empty() && function.ready()[0].inflight() == 0);
}

fn idle(freeze: &str, zero: &str) -> Desired {
    labelled(
        "f",
        &[("com.openfaas.scale.zero", "true"), ("com.openfaas.scale.zero-duration", zero)],
        &[("com.faas-jails.freeze", freeze)],
    )
}

#[test]
fn idle_it_goes_to_zero_but_never_under_a_request() {
    let world = World::new();
    let provider = world.provider();
    provider
        .create(labelled("f", &[("com.openfaas.scale.zero", "true"), ("com.openfaas.scale.zero-duration", "1s")], &[]))
        .unwrap();
    let function = provider.find(&desired("f", &[]).key).unwrap();
    let lease = provider.lease_now(&function).unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!((function.wanted(), function.available()), (1, 1));
    drop(lease);
    eventually("zero", || function.wanted() == 0 && world.fake.left() == (0, 0, 0));
    // What a person asked for is still in the file; the next daemon leaves it at zero all the same.
    assert_eq!(function.deployed().spec.replicas, 1);
    drop((provider, function));
    let provider = world.provider();
    let function = provider.find(&desired("f", &[]).key).unwrap();
    assert_eq!((function.wanted(), world.fake.left()), (0, (0, 0, 0)));
    assert!(world.runtime.block_on(provider.lease(&function)).is_ok());
}

#[test]
fn frozen_it_is_available_and_the_next_request_has_it_go_on() {
    let world = World::new();
    let provider = world.provider();
    provider.create(idle("1s", "1h")).unwrap();
    let function = provider.find(&desired("f", &[]).key).unwrap();
    let (starts, serial) = (world.fake.starts.load(Ordering::SeqCst), function.ready()[0].serial());
    eventually("it is frozen", || world.fake.frozen() == 1);
    eventually("it is known to be", || function.frozen().len() == 1 && provider.frozen_bytes() == 1 << 20);
    assert_eq!((function.wanted(), function.available(), function.ready().len()), (1, 1, 0));
    let lease = world.runtime.block_on(provider.lease(&function)).unwrap();
    assert_eq!((world.fake.frozen(), provider.frozen_bytes()), (0, 0));
    assert_ne!(lease.serial(), serial, "connections from before are not trusted");
    assert_eq!(world.fake.starts.load(Ordering::SeqCst), starts);
    drop(lease);
    // And at last to zero: a frozen one ends as others do.
    eventually("it is frozen again", || world.fake.frozen() == 1);
    provider.delete(&function.key).unwrap();
    eventually("the end of it", || world.fake.left() == (0, 0, 0));
}

#[test]
fn the_next_daemon_lets_a_frozen_one_go_on() {
    let world = World::new();
    let provider = world.provider();
    provider.create(idle("1s", "1h")).unwrap();
    eventually("it is frozen", || world.fake.frozen() == 1);
    drop(provider);
    let provider = world.provider();
    let function = provider.find(&desired("f", &[]).key).unwrap();
    eventually("adoption", || function.ready().len() == 1);
    assert_eq!(world.fake.frozen(), 0);
}

#[test]
fn beyond_the_limit_the_one_frozen_longest_goes() {
    let mut world = World::new();
    // The fake's replicas have a MiB each.
    world.config.elastic = Settings { frozen_bytes: 2 << 20, standby: 0, ..Settings::default() };
    let provider = world.provider();
    let functions: Vec<_> = ["a", "b", "c"]
        .map(|name| {
            provider.create(labelled(name, &[], &[("com.faas-jails.freeze", "1s")])).unwrap();
            let function = provider.find(&desired(name, &[]).key).unwrap();
            eventually("it is frozen", || !function.frozen().is_empty());
            function
        })
        .into();
    eventually("the first is gone", || world.fake.left() == (2, 2, 2));
    let wanted: Vec<u32> = functions.iter().map(|function| function.wanted()).collect();
    assert_eq!(wanted, [0, 1, 1]);
    assert!(world.runtime.block_on(provider.lease(&functions[0])).is_ok(), "and comes back when called");
}

#[test]
fn below_the_reserve_starts_wait_and_frozen_ones_go() {
    let mut world = World::new();
    world.config.elastic = Settings { reserve_bytes: 0, standby: 0, ..Settings::default() };
    let provider = world.provider();
    provider.create(labelled("a", &[], &[("com.faas-jails.freeze", "1s")])).unwrap();
    eventually("it is frozen", || world.fake.frozen() == 1);
    drop(provider);
    // No host has that much.
    world.config.elastic.reserve_bytes = u64::MAX;
    let provider = world.provider();
    eventually("adoption", || provider.find(&desired("a", &[]).key).unwrap().ready().len() == 1);
    eventually("it is frozen and goes", || world.fake.left() == (0, 0, 0));
    let begun = Instant::now();
    let fault = provider.create(desired("b", &[])).unwrap_err();
    assert!(begun.elapsed() >= world.config.ready_wait && fault.to_string().contains("reserve_bytes"), "{fault}");
    assert_eq!((fault.kind(), world.fake.left()), (Kind::Exhausted, (0, 0, 0)));
}

#[test]
fn load_brings_replicas_and_takes_them_away_after_the_window() {
    let world = World::new();
    let provider = world.provider();
    let labels =
        [("max", "4"), ("type", "capacity"), ("target", "2"), ("target-proportion", "1"), ("down.window", "2s")];
    let labels: Vec<_> = labels.map(|(name, value)| (format!("com.openfaas.scale.{name}"), value)).into();
    let labels: Vec<_> = labels.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    provider.create(labelled("f", &labels, &[])).unwrap();
    let function = provider.find(&desired("f", &[]).key).unwrap();
    let leases: Vec<_> = (0..5).map(|_| provider.lease_now(&function).unwrap()).collect();
    eventually("three replicas", || function.available() == 3);
    let more: Vec<_> = (0..20).map(|_| provider.lease_now(&function).unwrap()).collect();
    eventually("four, the most", || function.available() == 4);
    assert_eq!(function.deployed().spec.replicas, 1, "nothing of this is written down");
    drop(leases);
    drop(more);
    eventually("one again", || function.wanted() == 1 && world.fake.left() == (1, 1, 1));
    let counts: Vec<_> = function.decisions.by_reason().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counts.len(), 2, "{counts:?}");
}
