//! /system/info, /healthz, /metrics, image archives over HTTP, and the layer that counts /system requests.

use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::{Data, Payload};
use actix_web::{HttpResponse, web};
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::Shared;
use super::error::ApiError;
use crate::image::{self, Silent};

/// What runs the functions here.
const ORCHESTRATION: &str = if cfg!(target_os = "freebsd") { "jails" } else { "namespaces" };

/// GET /system/info: `ProviderInfo`.
pub async fn provider() -> HttpResponse {
    HttpResponse::Ok().json(described())
}

/// `ProviderInfo`.
pub fn described() -> Value {
    json!({ "provider": "faas-jails", "orchestration": ORCHESTRATION, "version": version() })
}

/// `VersionInfo`.
pub fn version() -> Value {
    json!({ "release": env!("CARGO_PKG_VERSION"), "sha": crate::COMMIT, "commit_message": "" })
}

/// GET and HEAD /healthz.
pub async fn health() -> HttpResponse {
    HttpResponse::Ok().finish()
}

/// /metrics.
pub async fn metrics(shared: Data<Shared>) -> Result<HttpResponse, ApiError> {
    let (metrics, images) = (shared.metrics.clone(), shared.images.clone());
    let gateway = shared.gateway.clone();
    let render = move |provider: &crate::provider::Provider| {
        Ok(metrics.render(provider, &images, gateway.as_ref().map(|gateway| &*gateway.queue)))
    };
    let text = shared.provider.run(render).await?;
    Ok(HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text))
}

/// POST /system/images/load: the body is an archive, as `faas-jails image load -` reads it; answers with what it held.
pub async fn load_image(shared: Data<Shared>, mut body: Payload) -> Result<HttpResponse, ApiError> {
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<web::Bytes>>(8);
    let images = shared.images.clone();
    let load = shared.provider.run(move |_| {
        let reader = ChannelReader { receiver, rest: web::Bytes::new() };
        let source = image::Source::Stream { name: "the request's body".into(), reader: Box::new(reader) };
        images.load(source, None, &Silent)
    });
    let feed = async move {
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(std::io::Error::other);
            let broken = chunk.is_err();
            if sender.send(chunk).await.is_err() || broken {
                return;
            }
        }
    };
    let (loaded, ()) = futures_util::future::join(load, feed).await;
    let loaded: Vec<_> = loaded?
        .into_iter()
        .map(|image| json!({ "name": image.reference.canonical(), "digest": image.manifest }))
        .collect();
    Ok(HttpResponse::Ok().json(loaded))
}

struct ChannelReader {
    receiver: tokio::sync::mpsc::Receiver<std::io::Result<web::Bytes>>,
    rest: web::Bytes,
}

impl std::io::Read for ChannelReader {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.rest.is_empty() {
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => self.rest = chunk?,
            }
        }
        let taken = self.rest.split_to(self.rest.len().min(into.len()));
        into[..taken.len()].copy_from_slice(&taken);
        Ok(taken.len())
    }
}

/// Counts a request, with the path as stock providers label it.
pub(super) async fn count(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let began = Instant::now();
    let metrics = request.app_data::<Data<Shared>>().expect("set for the whole app").metrics.clone();
    let method = request.method().clone();
    let path = request.path().to_owned();
    let answer = next.call(request).await?;
    metrics.count(answer.status().as_u16(), method.as_str(), label(&path), began.elapsed().as_secs_f64());
    Ok(answer)
}

/// A label from a small set: names of functions are left out, and paths that are no route are one.
pub fn label(path: &str) -> &'static str {
    const PATHS: &[&str] = &[
        "/system/functions",
        "/system/function",
        "/system/scale-function",
        "/system/info",
        "/system/secrets",
        "/system/logs",
        "/system/namespaces",
        "/system/namespace",
        "/system/images/load",
        "/system/alert",
        "/system/replicas",
        "/system/elastic",
        "/system/targets",
    ];
    let fits = |known: &&&str| path.strip_prefix(**known).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    PATHS.iter().find(fits).copied().unwrap_or("other")
}
