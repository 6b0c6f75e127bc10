//! `faas-jails serve`: the daemon.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{OptionFuture, join3};

use crate::api::{self, Credentials, Shared};
use crate::build::Builder;
use crate::config::Config;
use crate::fault::{Context, Fault, Kind, Result};
use crate::files;
use crate::gateway::Standalone;
use crate::island;
use crate::metrics::Metrics;
use crate::provider::Provider;

/// How long requests that are being served at SIGTERM may take to end.
const DRAIN: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// At SIGTERM also stop every replica and take the network down
    #[arg(long)]
    stop_functions: bool,
}

pub fn run(config: Config, arguments: &Arguments) -> Result<()> {
    raise_open_files();
    let _lock = super::lock(&config)?;
    let credentials = match config.basic_auth {
        true => Some(Arc::new(Credentials::read(&config.secret_mount_path)?)),
        false => None,
    };
    if credentials.is_none() && !config.listen.ip().is_loopback() {
        tracing::warn!(listen = %config.listen, "anybody who reaches this address can deploy functions; set basic_auth = true");
    }
    // Bound first: a port that is taken must not disturb what another daemon runs.
    let listener = TcpListener::bind(config.listen).context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr().context(|| "cannot listen")?;
    let standalone = Standalone::bind(&config)?;
    let island = island::Service::bind(&config)?;
    let (platform, images) = super::open(&config)?;
    images.recover()?;
    let background = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("lifecycle")
        .enable_all()
        .build()
        .context(|| "cannot start threads")?;
    let parts = platform.clone();
    let builder = Arc::new(Builder::open(&config, platform.clone(), Arc::clone(&images))?);
    builder.recover()?;
    let source = Arc::new(super::image::DeploySource::new(Arc::clone(&images), Arc::clone(&builder), &config));
    let root = config.root.clone();
    let standalone = standalone.map(|bound| bound.open(&config, address)).transpose()?;
    let answer_within = config.read_timeout;
    let provider = Provider::start(config, platform, source, background.handle().clone())?;
    let shared = Shared {
        provider: Arc::clone(&provider),
        credentials,
        metrics: Arc::new(Metrics::default()),
        images,
        builder: Arc::clone(&builder),
        answer_within,
        gateway: standalone.as_ref().map(|standalone| Arc::clone(&standalone.gateway)),
    };
    let island = island.map(|bound| {
        bound.open(island::Parts {
            provider: Arc::clone(&provider),
            builder: Arc::clone(&builder),
            images: Arc::clone(&shared.images),
            metrics: Arc::clone(&shared.metrics),
        })
    });
    let island = island.transpose()?;
    actix_web::rt::System::new().block_on(async {
        let server = api::serve(listener, shared.clone(), DRAIN)?;
        let handle = server.handle();
        let standalone = standalone.map(|standalone| standalone.serve(shared, DRAIN)).transpose()?;
        let island = island.map(|service| service.serve(DRAIN)).transpose()?;
        let asked = asked_to_end().context(|| "cannot wait for signals")?;
        let stopping = actix_web::rt::spawn(async move {
            let signal = asked.await;
            tracing::info!(signal, "stopping: no new requests, those under way may end");
            builder.jobs().stop();
            let standalone = OptionFuture::from(standalone.map(|running| running.stop(DRAIN)));
            let island = OptionFuture::from(island.map(island::Running::stop));
            join3(handle.stop(true), standalone, island).await;
        });
        files::replace(&root.join("address"), address.to_string().as_bytes())?;
        tracing::info!("listening on http://{address}");
        server.await.context(|| "the server stopped")?;
        stopping.await.map_err(|e| Fault::new(Kind::System, format!("stopping failed: {e}")))
    })?;
    if arguments.stop_functions {
        provider.stop_all()?;
        parts.network.teardown()?;
        parts.sandbox.teardown()?;
    }
    files::remove(&root.join("address"))?;
    drop(provider);
    background.shutdown_timeout(Duration::from_secs(5));
    tracing::info!("stopped");
    Ok(())
}

/// A connection is an open file, and the soft limit that a process is started with is made for others: as many as the
/// hard limit allows.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}

/// The name of the signal that ends the daemon, once it comes.
fn asked_to_end() -> std::io::Result<impl Future<Output = &'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        }
    })
}
