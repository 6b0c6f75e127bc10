//! GET /system/elastic: how many replicas each function has and why, for `faas-jails top`. Not of the stock API.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use actix_web::HttpResponse;
use actix_web::web::{Data, Query};
use serde::{Deserialize, Serialize};

use super::Shared;
use super::error::ApiError;
use super::wire;
use crate::provider::{Function, Gate};

/// A function and what it has to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FunctionLoad {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Replicas that it should have.
    pub wanted: u32,
    /// Replicas that take requests.
    pub ready: usize,
    /// Replicas that take none yet, or none for now.
    pub starting: usize,
    /// Replicas that are stopped in place.
    pub frozen: usize,
    /// Requests being served.
    pub in_flight: usize,
    /// Requests that wait for a replica.
    pub waiting: usize,
    /// Requests so far.
    pub invocations: u64,
    /// Starts from zero so far.
    pub cold_starts: u64,
    /// Changes of the number of replicas so far, by reason.
    pub decisions: BTreeMap<String, u64>,
    /// Answers so far by their time to the head: upper bound in microseconds, number.
    pub latency: Vec<(u64, u64)>,
}

/// GET /system/elastic: the functions of one namespace, or of all where none is named.
pub async fn list(shared: Data<Shared>, query: Query<wire::Query>) -> Result<HttpResponse, ApiError> {
    let namespaces = &shared.provider.namespaces;
    let only = (!query.namespace.is_empty()).then(|| namespaces.resolve(&query.namespace)).transpose()?;
    let functions = shared.provider.catalog.all();
    let chosen = functions.iter().filter(|f| only.as_ref().is_none_or(|n| f.key.namespace == *n));
    Ok(HttpResponse::Ok().json(chosen.map(|f| load(f)).collect::<Vec<_>>()))
}

fn load(function: &Function) -> FunctionLoad {
    let replicas = function.replicas();
    let at = |gates: &[Gate]| replicas.iter().filter(|r| r.exit().is_none() && gates.contains(&r.gate())).count();
    let decisions: BTreeMap<String, u64> =
        function.decisions.by_reason().map(|(why, count)| (why.to_string(), count)).collect();
    FunctionLoad {
        name: function.key.name.to_string(),
        namespace: function.key.namespace.to_string(),
        wanted: function.wanted(),
        ready: at(&[Gate::Open]),
        starting: at(&[Gate::Starting, Gate::Doubted]),
        frozen: at(&[Gate::Frozen]),
        in_flight: replicas.iter().map(|replica| replica.inflight()).sum(),
        waiting: function.line.len(),
        invocations: function.invocations.load(Ordering::Relaxed),
        cold_starts: function.decisions.cold_starts(),
        decisions,
        latency: function.latency.counts(),
    }
}
