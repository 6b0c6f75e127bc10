//! What the provider knows now: functions, replicas, addresses, images.

use std::sync::atomic::Ordering;

use super::page::{Kind, Page};
use super::store_size::Size;
use crate::gateway::queue::Queue;
use crate::provider::{Function, Provider, Replica};
use crate::sandbox::Usage;

type Labels = Vec<(&'static str, String)>;

/// Everything, in Prometheus's text format.
pub fn describe(provider: &Provider, store: Option<Size>, queue: Option<&Queue>) -> Vec<u8> {
    let mut page = Page::default();
    let version = [("version", env!("CARGO_PKG_VERSION").to_owned()), ("sha", crate::COMMIT.to_owned())];
    page.family(Kind::Gauge, "faas_jails_build_info", "The program that answers; always 1.", [(version, 1.0)]);
    let functions = provider.catalog.all();
    of_functions(&mut page, functions.iter().map(|f| &**f));
    of_replicas(&mut page, provider, functions.iter().map(|f| &**f));
    of_host(&mut page, provider, store);
    if let Some(queue) = queue {
        of_queue(&mut page, queue);
    }
    page.into_bytes()
}

fn name(function: &Function) -> Labels {
    vec![("function_name", function.key.to_string())]
}

fn of_functions<'a>(page: &mut Page, functions: impl Iterator<Item = &'a Function> + Clone) {
    let mut family = |kind, metric: &str, help: &str, value: &dyn Fn(&Function) -> f64| {
        page.family(kind, metric, help, functions.clone().map(|f| (name(f), value(f))));
    };
    family(Kind::Counter, "faas_jails_function_invocations_total", "Requests sent to the function.", &|f| {
        f.invocations.load(Ordering::Relaxed) as f64
    });
    family(Kind::Gauge, "faas_jails_function_requests_in_flight", "Requests that the function is serving.", &|f| {
        f.ready().iter().map(|replica| replica.inflight()).sum::<usize>() as f64
    });
    family(Kind::Gauge, "faas_jails_function_replicas_wanted", "Replicas that the function should have.", &|f| {
        f64::from(f.wanted())
    });
    family(Kind::Gauge, "faas_jails_function_replicas_ready", "Replicas that take requests.", &|f| {
        f.available() as f64
    });
    family(Kind::Gauge, "faas_jails_function_requests_waiting", "Requests that wait for a replica.", &|f| {
        f.line.len() as f64
    });
    family(Kind::Gauge, "faas_jails_function_replicas_frozen", "Replicas that are idle and stopped in place.", &|f| {
        f.frozen().len() as f64
    });
    family(
        Kind::Counter,
        "faas_jails_function_cold_starts_total",
        "Calls that found it at zero and had it started.",
        &|f| f.decisions.cold_starts() as f64,
    );
    let decisions = functions.clone().flat_map(|f| {
        f.decisions.by_reason().map(|(why, count)| {
            let labels: Labels = vec![("function_name", f.key.to_string()), ("reason", why.to_string())];
            (labels, count as f64)
        })
    });
    let help = "Changes of the number of replicas that no person asked for, by reason.";
    page.family(Kind::Counter, "faas_jails_function_decisions_total", help, decisions);
    let restarts = functions.flat_map(|f| {
        let counts = f.restarts.by_reason();
        counts.map(|(reason, count)| {
            let labels: Labels = vec![("function_name", f.key.to_string()), ("reason", reason.to_owned())];
            (labels, count as f64)
        })
    });
    let help = "Replicas that ended unasked and were replaced, by how they ended.";
    page.family(Kind::Counter, "faas_jails_function_restarts_total", help, restarts);
}

/// Each replica has a series of its own: a sum over them would fall when one ends, which counters must not.
fn of_replicas<'a>(page: &mut Page, provider: &Provider, functions: impl Iterator<Item = &'a Function>) {
    let labels = |replica: &Replica| -> Labels {
        let function = replica.name.function();
        vec![
            ("function_name", function.to_string()),
            ("namespace", function.namespace.to_string()),
            ("replica", replica.name.id().to_owned()),
        ]
    };
    let usage = |replica: &Replica| Some((labels(replica), provider.platform.sandbox.usage(&replica.name).ok()?));
    let used: Vec<(Labels, Usage)> = functions.flat_map(Function::replicas).filter_map(|r| usage(&r)).collect();
    let mut family = |kind, metric: &str, help: &str, value: fn(&Usage) -> f64| {
        page.family(kind, metric, help, used.iter().map(|(labels, usage)| (labels, value(usage))));
    };
    family(Kind::Counter, "pod_cpu_usage_seconds_total", "Seconds of processor time that the replica has used.", |u| {
        u.cpu.as_secs_f64()
    });
    family(Kind::Gauge, "pod_memory_working_set_bytes", "Bytes of memory that the replica uses.", |u| u.memory as f64);
    family(Kind::Gauge, "faas_jails_replica_pids", "Processes and threads of the replica.", |u| u.pids as f64);
}

/// Functions without a call in the queue have no series.
fn of_queue(page: &mut Page, queue: &Queue) {
    let depths = queue.depths();
    let help = "Calls to /async-function that wait, or are being delivered.";
    let calls = depths.into_iter().flat_map(|(function, depth)| {
        let labels = move |state: &str| vec![("function_name", function.clone()), ("state", state.to_owned())];
        [(labels("waiting"), depth.waiting as f64), (labels("delivering"), depth.delivering as f64)]
    });
    page.family(Kind::Gauge, "faas_jails_queue_calls", help, calls);
    page.single(Kind::Gauge, "faas_jails_queue_bytes", "Bytes of these calls on disk.", queue.bytes() as f64);
}

fn of_host(page: &mut Page, provider: &Provider, store: Option<Size>) {
    let (used, room) = {
        let pool = provider.addresses();
        (pool.holders().len(), pool.capacity())
    };
    let mut gauge = |metric: &str, help: &str, value: f64| page.single(Kind::Gauge, metric, help, value);
    gauge("faas_jails_addresses_used", "Addresses of the pool that replicas hold.", used as f64);
    gauge("faas_jails_addresses", "Addresses in the pool.", room as f64);
    let bytes = provider.frozen_bytes() as f64;
    gauge("faas_jails_frozen_bytes", "Bytes of memory that frozen replicas had when they were stopped.", bytes);
    gauge("faas_jails_replicas_standby", "Replicas that lie ready for a start.", provider.standby() as f64);
    gauge("faas_jails_replicas_retiring", "Replicas being drained and removed.", provider.retiring() as f64);
    if let Some(store) = store {
        gauge("faas_jails_images", "Images in the store.", store.images as f64);
        gauge("faas_jails_image_layers", "Layers in the store; images share them.", store.layers as f64);
        gauge("faas_jails_image_store_bytes", "Bytes that the layers in the store occupy.", store.bytes as f64);
    }
}
