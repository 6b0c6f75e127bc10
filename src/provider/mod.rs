//! Functions and their replicas: deploy, update, scale, delete, resolve, restart, adopt.
//!
//! ```text
//!              create/scale/restart                         accepts connections
//!   (nothing) ───────────────────────> starting ─────────────────────────────> ready ──┐
//!                                          │ exits                               │ exits │ scaled down,
//!                                          v                                     v       v replaced, deleted
//!                                       discard <──── reconcile ───────────── exited   retiring
//!                                          ^   (starts another, with backoff)            │ drained, SIGTERM,
//!                                          └─────────────────────────────────────────────┘ stop_wait, SIGKILL
//! ```
//!
//! Invariants:
//! - The spec file of a function says what a person asked for, and is written in one step: after new replicas have
//!   started, so that no call waits for the disk, and before old ones go. How many replicas calls and load have made
//!   of that is in no file ([`elastic`]). What runs and doesn't match a spec file is swept at the next start ([`adopt`]).
//! - Whoever changes a function holds its key lock ([`locks`]); the invoke path holds none, ever.
//! - [`Provider::discard`] is the only way a replica goes. It tries every step and can be repeated.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use tokio::runtime::Handle;

use crate::config::Config;
use crate::fault::{Fault, Result};
#[cfg(test)]
use crate::files;
use crate::function::FunctionKey;
use crate::image::{self, Image, Reference};
use crate::logs::Logs;
use crate::platform::Platform;
use crate::secrets::Secrets;

mod activate;
mod addresses;
mod adopt;
mod annotations;
mod catalog;
mod deploy;
mod elastic;
mod lease;
mod locks;
mod namespaces;
mod policy;
mod ready;
mod replica;
mod supervise;
#[cfg(test)]
mod tests;
mod timing;

pub use activate::Unserved;
pub use addresses::{Addresses, held};
pub use annotations::{Annotations, Retry};
pub use catalog::{Catalog, Deployed, Function};
pub use deploy::Desired;
pub use elastic::{Decisions, Rules, Settings as ElasticSettings};
pub use lease::{Gate, Lease, Replica};
pub use namespaces::{NamespaceSpec, Namespaces};
pub use replica::{Usage, environment};

/// Where a deploy gets its image from.
pub trait Images: Send + Sync {
    /// The image, ready to run: fetched and unpacked if it has to be; for `platform`, or for what suits this host
    /// best. `secrets` are values of the function's secrets, among which registry credentials may be.
    fn ensure(&self, reference: &Reference, platform: Option<&image::Platform>, secrets: &[Vec<u8>]) -> Result<Image>;
}

/// The provider: everything behind the API.
pub struct Provider {
    /// The settings.
    pub config: Config,
    /// What isolates, stores and connects.
    pub platform: Platform,
    /// Every deployed function.
    pub catalog: Catalog,
    /// Every secret.
    pub secrets: Secrets,
    /// Every namespace.
    pub namespaces: Namespaces,
    /// What replicas print.
    pub logs: Arc<Logs>,
    /// How long requests wait.
    pub waits: elastic::Waits,
    /// How long starts take.
    pub timing: timing::Timing,
    images: Arc<dyn Images>,
    addresses: Mutex<addresses::Addresses>,
    policy: policy::Current,
    locks: locks::KeyLocks,
    ready: ready::Ready,
    /// Starts that may run at once; a storm of cold functions must not starve warm ones.
    starts: tokio::sync::Semaphore,
    reclaim: elastic::Reclaim,
    background: Handle,
    retiring: AtomicUsize,
    /// Set once no replica may be started any more.
    stopping: AtomicBool,
    me: Weak<Provider>,
}

impl Provider {
    /// Takes charge of `config.root` and of what runs already. Lifecycle work runs on `background`.
    pub fn start(config: Config, platform: Platform, images: Arc<dyn Images>, background: Handle) -> Result<Arc<Self>> {
        let logs = Logs::new(config.root.join("logs"), config.log_bytes);
        let addresses = addresses::Addresses::open(&config)?;
        let provider = Arc::new_cyclic(|me| Self {
            secrets: Secrets::new(config.root.join("secrets")),
            namespaces: Namespaces::new(config.root.join("namespaces"), config.namespace.clone()),
            catalog: Catalog::default(),
            addresses: Mutex::new(addresses),
            policy: policy::Current::default(),
            locks: locks::KeyLocks::default(),
            ready: ready::Ready::default(),
            starts: tokio::sync::Semaphore::new(config.elastic.starts.max(1)),
            reclaim: elastic::Reclaim::default(),
            waits: elastic::Waits::default(),
            timing: timing::Timing::default(),
            retiring: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            me: me.clone(),
            logs,
            platform,
            images,
            background,
            config,
        });
        provider.logs.start_clock();
        provider.adopt()?;
        elastic::start(&provider)?;
        Ok(provider)
    }

    /// The function, or a failure that names it.
    pub fn find(&self, key: &FunctionKey) -> Result<Arc<Function>> {
        self.catalog.get(key).ok_or_else(|| Fault::not_found(format!("function {key} does not exist")))
    }

    /// Replicas that are being drained and removed.
    pub fn retiring(&self) -> usize {
        self.retiring.load(Ordering::Relaxed)
    }

    /// Runs blocking lifecycle work off the caller's thread.
    pub async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Provider) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let provider = Arc::clone(self);
        let task = self.background.spawn_blocking(move || work(&provider));
        task.await.unwrap_or_else(|e| Err(Fault::new(crate::fault::Kind::System, format!("the work stopped: {e}"))))
    }

    fn me(&self) -> Arc<Self> {
        self.me.upgrade().expect("a provider that runs is held by somebody")
    }

    fn spec_path(&self, key: &FunctionKey) -> PathBuf {
        spec_path(&self.config, key)
    }
}

fn spec_path(config: &Config, key: &FunctionKey) -> PathBuf {
    config.root.join("functions").join(key.namespace.as_str()).join(format!("{}.json", key.name))
}

impl Deployed {
    /// A function as it is deployed, from its spec file: for programs beside the daemon.
    pub fn read(config: &Config, key: &FunctionKey) -> Result<Self> {
        let read = crate::files::read_json(&spec_path(config, key))?;
        read.ok_or_else(|| Fault::not_found(format!("function {key} does not exist")))
    }
}
