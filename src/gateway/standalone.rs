//! The port's life: bound, opened, serving, stopped.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::rt::task::JoinHandle;

use tokio::signal::unix::{SignalKind, signal};

use super::tls::Certificate;
use super::{Gateway, queue};
use crate::api::{self, Shared};
use crate::config::Config;
use crate::fault::{Context, Result};
use crate::files;

/// The port, taken: nothing else of it exists yet.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    certificate: Option<Arc<Certificate>>,
}

/// The port with all that it needs to serve.
pub struct Standalone {
    /// What its handlers share.
    pub gateway: Arc<Gateway>,
    bound: Bound,
    answer_within: Duration,
    note: PathBuf,
}

/// The port, serving.
pub struct Running {
    gateway: Arc<Gateway>,
    handle: ServerHandle,
    deliveries: JoinHandle<()>,
    note: PathBuf,
}

impl Standalone {
    /// Takes the port, if the settings want one.
    pub fn bind(config: &Config) -> Result<Option<Bound>> {
        let listen = config.gateway.listen;
        if !config.gateway.enabled {
            return Ok(None);
        }
        if !config.basic_auth && !listen.ip().is_loopback() {
            tracing::warn!(%listen, "anybody who reaches this address can deploy functions; set basic_auth = true");
        }
        let listener = TcpListener::bind(listen).context(|| {
            format!("cannot listen on {listen}; choose another address in [gateway], or enabled = false there")
        })?;
        let address = listener.local_addr().context(|| "cannot listen")?;
        let certificate = match (&config.gateway.tls_certificate, &config.gateway.tls_key) {
            (Some(chain), Some(key)) => Some(Certificate::read(chain, key)?),
            _ => None,
        };
        Ok(Some(Bound { listener, address, certificate }))
    }

    /// Serves, and delivers what is in the queue.
    pub fn serve(self, mut shared: Shared, drain: Duration) -> Result<Running> {
        let Self { gateway, bound, answer_within, note } = self;
        shared.answer_within = answer_within;
        let tls = bound.certificate.as_ref().map(Certificate::server).transpose()?;
        let server = api::serve_gateway(bound.listener, tls, Arc::clone(&gateway), shared.clone(), drain)?;
        let handle = server.handle();
        actix_web::rt::spawn(server);
        let deliveries = actix_web::rt::spawn(queue::deliver_all(Arc::clone(&gateway), shared));
        files::replace(&note, bound.address.to_string().as_bytes())?;
        let scheme = if bound.certificate.is_some() { "https" } else { "http" };
        tracing::info!("listening on {scheme}://{} as a gateway", bound.address);
        let mut asked = signal(SignalKind::hangup()).context(|| "cannot wait for signals")?;
        actix_web::rt::spawn(async move {
            while asked.recv().await.is_some() {
                reload(bound.certificate.as_deref());
            }
        });
        Ok(Running { gateway, handle, deliveries, note })
    }
}

impl Bound {
    /// Opens the queue. `provider` is where the provider listens.
    pub fn open(self, config: &Config, provider: SocketAddr) -> Result<Standalone> {
        Ok(Standalone {
            gateway: Gateway::open(config, provider)?,
            bound: self,
            answer_within: config.gateway.upstream_timeout.unwrap_or(config.read_timeout),
            note: config.root.join("gateway.address"),
        })
    }
}

impl Running {
    /// Ends it: requests and deliveries under way have `drain` to end. Deliveries that take longer are made again
    /// by the next process.
    pub async fn stop(self, drain: Duration) {
        self.gateway.queue.close();
        let delivered = tokio::time::timeout(drain, self.deliveries);
        let (_, delivered) = futures_util::future::join(self.handle.stop(true), delivered).await;
        if delivered.is_err() {
            tracing::info!("calls of the queue that are still being delivered are delivered again at the next start");
        }
        self.gateway.queue.stop();
        if let Err(fault) = files::remove(&self.note) {
            tracing::warn!(%fault, "the gateway's address file stays");
        }
    }
}

/// What SIGHUP does.
fn reload(certificate: Option<&Certificate>) {
    let Some(certificate) = certificate else { return };
    match certificate.reload() {
        Ok(()) => tracing::info!("new connections get the certificate that is there now"),
        Err(fault) => tracing::error!(%fault, "the certificate stays as it was"),
    }
}
