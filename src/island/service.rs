//! The listener's life: bound, opened, serving, stopped.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;

use super::{Island, Parts, Token, routes};
use crate::config::Config;
use crate::fault::{Context, Result};
use crate::files;

/// How often programs that nobody calls are looked for, at most.
const SWEEP: Duration = Duration::from_secs(60);

/// The port, taken, and the token, read: nothing else of it exists yet.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    token: Token,
}

/// The port with all that it needs to serve.
pub struct Service {
    island: Arc<Island>,
    listener: TcpListener,
    address: SocketAddr,
    note: PathBuf,
}

/// The port, serving.
pub struct Running {
    handle: ServerHandle,
    sweeper: actix_web::rt::task::JoinHandle<()>,
    note: PathBuf,
}

impl Service {
    /// Takes the port, if the settings want one.
    pub fn bind(config: &Config) -> Result<Option<Bound>> {
        let Some(listen) = config.island.listen else { return Ok(None) };
        let token = Token::read(&config.secret_mount_path)?;
        if !listen.ip().is_loopback() && !config.island.run_needs_token() {
            tracing::warn!(%listen, "anybody who reaches this address can run functions; take run_token = false out of [island]");
        }
        let listener =
            TcpListener::bind(listen).context(|| format!("cannot listen on {listen} for Sky Island's API"))?;
        let address = listener.local_addr().context(|| "cannot listen")?;
        Ok(Some(Bound { listener, address, token }))
    }

    /// Serves, and removes programs that nobody calls.
    pub fn serve(self, drain: Duration) -> Result<Running> {
        let Self { island, listener, address, note } = self;
        let server = routes::serve(listener, Arc::clone(&island), drain)?;
        let handle = server.handle();
        actix_web::rt::spawn(server);
        let sweeper = actix_web::rt::spawn(sweep(island));
        files::replace(&note, address.to_string().as_bytes())?;
        tracing::info!("listening on http://{} for Sky Island's clients", address);
        Ok(Running { handle, sweeper, note })
    }
}

impl Bound {
    /// Makes what serves.
    pub fn open(self, parts: Parts) -> Result<Service> {
        let note = parts.provider.config.root.join("island.address");
        let Self { listener, address, token } = self;
        Ok(Service { island: Island::new(token, parts)?, listener, address, note })
    }
}

impl Running {
    /// Ends it. What runs has been told to end before: its callers are told.
    pub async fn stop(self) {
        self.sweeper.abort();
        self.handle.stop(true).await;
        if let Err(fault) = files::remove(&self.note) {
            tracing::warn!(%fault, "the address file of Sky Island's API stays");
        }
    }
}

async fn sweep(island: Arc<Island>) {
    let pause = SWEEP.min(island.settings.cache_purge_after / 4).max(Duration::from_secs(1));
    loop {
        tokio::time::sleep(pause).await;
        let here = Arc::clone(&island);
        if let Ok(Err(fault)) = actix_web::web::block(move || here.sweep()).await {
            tracing::warn!(%fault, "programs that nobody calls stay for now");
        }
    }
}
