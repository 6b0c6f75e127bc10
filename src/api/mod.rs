//! The HTTP edge: the faas-provider contract on one port, the gateway's API on another. [`routes`] shows every endpoint.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::{App, HttpServer, web};

use crate::fault::{Context, Result};
use crate::gateway::Gateway;
use crate::metrics::Metrics;
use crate::provider::Provider;

mod auth;
mod build;
mod elastic;
pub(crate) mod error;
mod functions;
pub(crate) mod gojson;
pub(crate) mod headers;
pub(crate) mod info;
pub(crate) mod invoke;
mod logs;
mod namespaces;
mod openapi;
mod patience;
mod peer;
mod prometheus;
mod replicas;
mod routes;
mod secrets;
mod targets;
mod ui;
pub(crate) mod upstream;
mod wire;

pub use auth::Credentials;
pub use elastic::FunctionLoad;
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
    /// Compiles functions that are sent as source.
    pub builder: Arc<crate::build::Builder>,
    /// Longest time a function may take to answer a call.
    pub answer_within: Duration,
    /// The standalone port, where there is one.
    pub gateway: Option<Arc<Gateway>>,
}

/// Connections that the kernel keeps waiting: the stock gateway opens a new one for every status query.
const BACKLOG: u32 = 4096;

/// Largest body of a /system request, in bytes; image archives have no limit.
const BODY_MAX: usize = 8 << 20;

/// Serves the provider's API on `listener` until stopped. The returned server is a future; its handle stops it
/// gracefully: requests under way have `drain` to end.
pub fn serve(listener: TcpListener, shared: Shared, drain: Duration) -> Result<Server> {
    start(listener, None, shared, drain, |app| {
        app.app_data(web::Data::new(openapi::Served::Provider));
        routes::provider(app);
    })
}

/// Serves the gateway's API on `listener`, as [`serve`] does the provider's; encrypted, if `tls` is there.
pub fn serve_gateway(
    listener: TcpListener,
    tls: Option<rustls::ServerConfig>,
    gateway: Arc<Gateway>,
    shared: Shared,
    drain: Duration,
) -> Result<Server> {
    start(listener, tls, shared, drain, move |app| {
        app.app_data(web::Data::from(Arc::clone(&gateway)));
        app.app_data(web::Data::new(openapi::Served::Gateway));
        routes::gateway(app);
    })
}

fn start(
    listener: TcpListener,
    tls: Option<rustls::ServerConfig>,
    shared: Shared,
    drain: Duration,
    routes: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
) -> Result<Server> {
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(shared.clone()))
            .app_data(web::PayloadConfig::new(BODY_MAX))
            .configure(&routes)
    })
    .on_connect(peer::remember)
    .workers(workers)
    .backlog(BACKLOG)
    // A client that has gone ends its request, also while the function has not answered yet.
    .h1_allow_half_closed(false)
    .disable_signals()
    .shutdown_timeout(drain.as_secs().max(1));
    let server = match tls {
        Some(tls) => server.listen_rustls_0_23(listener, tls),
        None => server.listen(listener),
    };
    let server = server.context(|| "cannot serve")?;
    Ok(server.run())
}
