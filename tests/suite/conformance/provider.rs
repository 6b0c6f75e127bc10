//! The provider that is asked: an own daemon, or the one at FAAS_PROVIDER_URL.

use std::net::ToSocketAddrs;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::support::client::Api;
use crate::support::http::Client;
use crate::support::{Daemon, Response, eventually, images};

/// Ends the test, loudly, where no provider can be had.
#[macro_export]
macro_rules! needs_provider {
    () => {
        if !$crate::conformance::provider::is_foreign() {
            $crate::needs_root!();
        }
    };
}

/// Ends the test, loudly, when another provider is asked: stock ones refuse what it states, each with a reason.
#[macro_export]
macro_rules! own_only {
    ($reason:literal) => {
        if $crate::conformance::provider::is_foreign() {
            $crate::support::announce_skip(&$crate::support::this_test(), $reason);
            return;
        }
    };
}

/// The variable with the address of another provider: `http://host:port`.
pub const URL: &str = "FAAS_PROVIDER_URL";
/// Its `user:password`, where it wants one.
pub const CREDENTIALS: &str = "FAAS_PROVIDER_CREDENTIALS";
/// The probe's image (tests/functions/probe) as that provider can get it.
pub const IMAGE: &str = "FAAS_PROBE_IMAGE";

/// Whether another provider is asked.
pub fn is_foreign() -> bool {
    std::env::var_os(URL).is_some()
}

/// One other provider serves all tests: one after the other.
static TURN: Mutex<()> = Mutex::new(());

/// A provider without functions, secrets and namespaces. Dropping it takes away what a test has made.
pub struct Provider {
    own: Option<Daemon>,
    foreign: Option<Api>,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Deref for Provider {
    type Target = Api;
    fn deref(&self) -> &Api {
        match (&self.own, &self.foreign) {
            (Some(daemon), _) => daemon,
            (None, foreign) => foreign.as_ref().expect("one of the two is there"),
        }
    }
}

impl Provider {
    /// Without authentication, unless it is another that wants some.
    #[track_caller]
    pub fn start() -> Self {
        match std::env::var(URL) {
            Ok(url) => Self::foreign(&url),
            Err(_) => Self { own: Some(Daemon::start()), foreign: None, _turn: None },
        }
    }

    /// With authentication. `None` when it is another and no credentials for it are known.
    #[track_caller]
    pub fn guarded() -> Option<Self> {
        match std::env::var(URL) {
            Ok(url) => std::env::var_os(CREDENTIALS).is_some().then(|| Self::foreign(&url)),
            Err(_) => {
                let daemon = Daemon::with().credentials("admin:s3cret:with colon").start();
                Some(Self { own: Some(daemon), foreign: None, _turn: None })
            }
        }
    }

    #[track_caller]
    fn foreign(url: &str) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let host = url.trim_start_matches("http://").trim_end_matches('/');
        let address = host.to_socket_addrs().ok().and_then(|mut found| found.next());
        let address = address.unwrap_or_else(|| panic!("{URL} is http://host:port, not {url}"));
        let http = Client { address, credentials: std::env::var(CREDENTIALS).ok() };
        let image = std::env::var(IMAGE).unwrap_or_else(|_| images::PROBE.to_owned());
        let provider = Self { own: None, foreign: Some(Api { http, image, foreign: true }), _turn: Some(turn) };
        let there = provider.list("openfaas-fn");
        if !there.is_empty() {
            std::mem::forget(provider);
            panic!("these tests delete every function; the provider at {url} has {there:?} and must have none");
        }
        provider
    }

    /// Whether exactly so many replicas run, where one can look; another provider is believed.
    pub fn runs(&self, replicas: usize) -> bool {
        self.own.as_ref().is_none_or(|daemon| daemon.traces().replica_names().len() == replicas)
    }

    /// What it has logged, where that can be read.
    pub fn log(&self) -> String {
        self.own.as_ref().map(Daemon::log).unwrap_or_default()
    }

    fn names(&self, target: &str) -> Vec<Value> {
        let answer = self.http.get(target);
        if answer.status == 200 { answer.value().as_array().cloned().unwrap_or_default() } else { Vec::new() }
    }

    fn wipe(&self) {
        let mut namespaces = self.names("/system/namespaces");
        namespaces.retain(|name| name != "openfaas-fn");
        for namespace in namespaces.iter().chain([&json!("openfaas-fn")]) {
            let text = namespace.as_str().unwrap_or_default();
            for function in self.names(&format!("/system/functions?namespace={text}")) {
                let body = json!({"functionName": function["name"], "namespace": namespace});
                self.http.json("DELETE", &format!("/system/functions?namespace={text}"), &body);
            }
            eventually("its functions are gone", || self.list(text).is_empty().then_some(()));
            for secret in self.names(&format!("/system/secrets?namespace={text}")) {
                let body = json!({"name": secret["name"], "namespace": namespace});
                self.http.json("DELETE", &format!("/system/secrets?namespace={text}"), &body);
            }
        }
        for namespace in namespaces {
            let text = namespace.as_str().unwrap_or_default();
            self.http.json("DELETE", &format!("/system/namespace/{text}"), &json!({"name": namespace}));
        }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if self.own.is_none() {
            self.wipe();
        }
    }
}

/// What the contract says of an answer.
pub trait Stated {
    /// Done: 202 from this provider; faas-cli takes 200 as well.
    fn accepted(self) -> Self;

    /// Refused: `ours` from this provider, in a sentence with these words; `theirs` from others.
    fn refused(self, ours: u16, theirs: &[u16], words: &[&str]) -> Self;
}

impl Stated for Response {
    #[track_caller]
    fn accepted(self) -> Self {
        if is_foreign() && self.status == 200 { self } else { self.expect(202) }
    }

    #[track_caller]
    fn refused(self, ours: u16, theirs: &[u16], words: &[&str]) -> Self {
        if is_foreign() && theirs.contains(&self.status) { self } else { self.expect_error(ours, words) }
    }
}
