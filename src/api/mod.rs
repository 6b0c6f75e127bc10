//! The HTTP edge: the faas-provider contract on one port. [`routes`] shows every endpoint.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::{App, HttpServer, web};

use crate::fault::{Context, Result};
use crate::metrics::Metrics;
use crate::provider::Provider;

mod auth;
mod error;
mod functions;
mod gojson;
mod headers;
mod info;
mod invoke;
mod logs;
mod namespaces;
mod peer;
mod replicas;
mod routes;
mod secrets;
mod ui;
mod upstream;
mod wire;

pub use auth::Credentials;
pub use replicas::{ReplicaState, ReplicaStatus, ReplicaUsage};

/// What every handler sees.
#[derive(Clone)]
pub struct Shared {
    /// Functions and replicas.
    pub provider: Arc<Provider>,
    /// Who may call /system; nobody is asked when absent.
    pub credentials: Option<Arc<Credentials>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Loads image archives that come over HTTP.
    pub images: Arc<crate::image::Store>,
}

/// Connections that the kernel keeps waiting: the stock gateway opens a new one for every status query.
const BACKLOG: u32 = 4096;

/// Largest body of a /system request, in bytes; image archives have no limit.
const BODY_MAX: usize = 8 << 20;

/// Serves on `listener` until stopped. The returned server is a future; its handle stops it gracefully: requests
/// under way have `drain` to end.
pub fn serve(listener: TcpListener, shared: Shared, drain: Duration) -> Result<Server> {
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(shared.clone()))
            .app_data(web::PayloadConfig::new(BODY_MAX))
            .configure(routes::configure)
    })
    .on_connect(peer::remember)
    .workers(workers)
    .backlog(BACKLOG)
    // A client that has gone ends its request, also while the function has not answered yet.
    .h1_allow_half_closed(false)
    .disable_signals()
    .shutdown_timeout(drain.as_secs().max(1))
    .listen(listener)
    .context(|| "cannot serve")?;
    Ok(server.run())
}
