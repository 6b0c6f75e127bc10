//! Sky Island's API: a request names a Git repository and a Go call, and gets what the call prints.
//!
//! ```text
//!  POST /api/v1/function ─> call parsed, url and version checked (400)
//!     └> version ─ lately seen? ─> commit ─ built before? ─> image ─> job: own sandbox, limits ─> output
//!              no: asked of the host   no: fetched, main.go made of the parsed call, built
//! ```
//!
//! | module | room |
//! |---|---|
//! | [`call`], `literal` | the call: one Go expression, read by its grammar and written anew |
//! | `programs`, `cache`, `flights` | from a call to an image: looked up, fetched and built once, kept |
//! | `runs`, `jails` | one run; which runs and addresses there are |
//! | `routes`, `function`, `admin`, `wire`, `failure` | HTTP |
//! | `token` | who may call |
//! | `stats`, `statsd`, `counters` | what is counted, for api-stats, StatsD and Prometheus |
//! | `service` | its listener's life |
//!
//! Invariants:
//! - No text of a caller or of a repository becomes source, a command, or a path of the host.
//! - What is built depends on nothing but the program's key: repository, commit, call, platform and Go.
//! - A run shares nothing with another: its sandbox is made for it and goes with it; its root is read-only.
//! - A program that is there costs neither git nor a build nor a write to the disk, only a sandbox.
//!
//! docs/sky-island.md says how this differs from Sky Island.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use actix_web::web::Data;
use tokio::sync::Semaphore;

mod admin;
mod cache;
pub mod call;
mod counters;
mod failure;
mod flights;
mod function;
mod jails;
mod literal;
mod programs;
mod routes;
mod runs;
mod service;
mod settings;
mod stats;
mod statsd;
mod token;
mod wire;

pub use failure::Failure;
pub use literal::Number;
pub use service::{Bound, Running, Service};
pub use settings::Settings;
pub use token::{Token, item};

use crate::build::Builder;
use crate::fault::{Fault, Kind, Result};
use crate::function::ReplicaName;
use crate::image::Store;
use crate::metrics::Metrics;
use crate::provider::Provider;

use counters::Counters;
use programs::{Programs, Wanted};
use stats::Stats;
use statsd::Statsd;

/// Everything behind the routes.
pub struct Island {
    settings: Settings,
    token: Token,
    provider: Arc<Provider>,
    builder: Arc<Builder>,
    programs: Programs,
    live: Mutex<BTreeMap<ReplicaName, jails::Live>>,
    /// Runs that may go on at once.
    slots: Semaphore,
    /// Callers that are being served or wait.
    callers: AtomicUsize,
    statsd: Statsd,
    stats: Stats,
    counters: Counters,
}

/// What it stands on.
pub struct Parts {
    /// Addresses, the platform, the configuration.
    pub provider: Arc<Provider>,
    /// Builds programs and runs jobs.
    pub builder: Arc<Builder>,
    /// Keeps programs.
    pub images: Arc<Store>,
    /// Shows what is counted.
    pub metrics: Arc<Metrics>,
}

/// A caller that is counted until it is dropped.
struct Caller(Data<Island>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Island {
    fn new(token: Token, parts: Parts) -> Result<Arc<Self>> {
        let settings = parts.provider.config.island.clone();
        let begun = std::time::Instant::now();
        let statsd = Statsd::new(settings.statsd)?;
        // The pool is there already; Sky Island fills it address by address.
        statsd.timing("network.populate_pool", begun.elapsed());
        Ok(Arc::new(Self {
            programs: Programs::open(&parts, &settings)?,
            slots: Semaphore::new(settings.parallel.max(1)),
            callers: AtomicUsize::new(0),
            live: Mutex::default(),
            stats: Stats::default(),
            counters: Counters::new(&parts.metrics),
            provider: parts.provider,
            builder: parts.builder,
            statsd,
            settings,
            token,
        }))
    }

    /// Lets one more caller in.
    fn enter(island: &Data<Self>) -> Result<Caller> {
        let before = island.callers.fetch_add(1, Ordering::Relaxed);
        let caller = Caller(island.clone());
        match before < island.settings.queue {
            true => Ok(caller),
            false => {
                Err(Fault::new(Kind::Exhausted, format!("{before} calls are being served or wait; try again later")))
            }
        }
    }
}

/// The failure of a task that did not come to its end.
fn stopped(error: impl std::fmt::Display) -> Failure {
    Fault::new(Kind::System, format!("the call stopped: {error}")).into()
}
