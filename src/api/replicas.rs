//! GET /system/replicas: every replica that counts, for `faas-jails ps`, `exec` and `stats`. Not of the stock API.

use actix_web::HttpResponse;
use actix_web::web::{Data, Query};
use serde::{Deserialize, Serialize};

use super::Shared;
use super::error::ApiError;
use super::wire::{self, go_bool};
use crate::function::{Quantity, ReplicaName};
use crate::provider::{Function, Provider, Replica};

/// A replica, as clients see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// The function's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The replica's id, as in log messages.
    pub instance: String,
    /// Its name on the host: of the jail, of the cgroup.
    pub replica: ReplicaName,
    /// The function's image, as it was named.
    pub image: String,
    /// How far it is.
    pub state: ReplicaState,
    /// Where it serves, `address:port`.
    pub address: String,
    /// Requests that it is serving.
    pub in_flight: usize,
    /// When it was started, or adopted by this daemon.
    pub since: jiff::Timestamp,
    /// Bytes of memory that it may use, if limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// What it uses, when that was asked for and it lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<ReplicaUsage>,
}

/// How far a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaState {
    /// It runs and takes no requests yet.
    Starting,
    /// It takes requests.
    Ready,
    /// It is idle and stopped in place; it goes on when a request comes.
    Frozen,
    /// It has ended and is being replaced.
    Ended,
}

/// What a replica uses.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaUsage {
    /// Seconds of processor time since its start.
    pub cpu_seconds: f64,
    /// Bytes of memory resident.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
}

/// GET /system/replicas: those of one namespace, or of all where none is named.
pub async fn list(shared: Data<Shared>, query: Query<wire::Query>) -> Result<HttpResponse, ApiError> {
    let namespaces = &shared.provider.namespaces;
    let only = (!query.namespace.is_empty()).then(|| namespaces.resolve(&query.namespace)).transpose()?;
    let usage = go_bool(&query.usage);
    let listed = shared.provider.run(move |provider| {
        let functions = provider.catalog.all();
        let wanted = functions.iter().filter(|f| only.as_ref().is_none_or(|n| f.key.namespace == *n));
        Ok(wanted.flat_map(|f| replicas(provider, f, usage)).collect::<Vec<_>>())
    });
    Ok(HttpResponse::Ok().json(listed.await?))
}

fn replicas(provider: &Provider, function: &Function, usage: bool) -> Vec<ReplicaStatus> {
    let deployed = function.deployed();
    let limit = deployed.spec.limits.as_ref().and_then(|limits| limits.memory.as_ref());
    let memory_limit_bytes = limit.and_then(|text| text.parse::<Quantity>().ok()).map(Quantity::units);
    let status =
        |replica: &Replica| ReplicaStatus {
            name: function.key.name.to_string(),
            namespace: function.key.namespace.to_string(),
            instance: replica.name.id().to_owned(),
            replica: replica.name.clone(),
            image: deployed.spec.image.as_written().to_owned(),
            state: match replica.exit() {
                Some(_) => ReplicaState::Ended,
                None if replica.is_ready() => ReplicaState::Ready,
                None if replica.is_frozen() => ReplicaState::Frozen,
                None => ReplicaState::Starting,
            },
            address: replica.address.to_string(),
            in_flight: replica.inflight(),
            since: jiff::Timestamp::now() - replica.since.elapsed(),
            memory_limit_bytes,
            usage: usage.then(|| provider.platform.sandbox.usage(&replica.name).ok()).flatten().map(|usage| {
                ReplicaUsage { cpu_seconds: usage.cpu.as_secs_f64(), memory_bytes: usage.memory, pids: usage.pids }
            }),
        };
    function.replicas().iter().map(|replica| status(replica)).collect()
}
