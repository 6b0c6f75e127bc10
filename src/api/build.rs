//! The remote builder that faas-cli's `--remote-builder` talks to: POST /build, GET /publickey (OpenFaaS's Function Builder
//! API).
//!
//! What is sent is a signed tar ([`crate::build::parcel`]); the answer is one JSON object, or a line of JSON for everything
//! that happens, when the client accepts `application/x-ndjson`. The signature is the only key to this door: basic
//! authentication does not apply, because faas-cli does not send it here.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT, CONTENT_TYPE};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::Shared;
use super::error::ApiError;
use crate::build::{Progress, parcel};
use crate::fault::{Fault, Kind};
use crate::image::Reference;

/// The media type of a line of JSON for each event.
const LINES: &str = "application/x-ndjson";

/// One line, or the whole answer (go-sdk, `builder.BuildResult`).
#[derive(Serialize)]
struct Event<'a> {
    log: Vec<&'a str>,
    image: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<f64>,
}

/// GET /publickey: the key that build secrets are sealed for.
pub async fn public_key(shared: Data<Shared>) -> Result<HttpResponse, ApiError> {
    let builder = Arc::clone(&shared.builder);
    let key = shared.provider.run(move |_| Ok(builder.key()?.public())).await?;
    Ok(HttpResponse::Ok().json(json!({ "key_id": &key[..8], "algorithm": "nacl/box", "public_key": key })))
}

/// POST /build.
pub async fn build(shared: Data<Shared>, request: HttpRequest, body: Payload) -> Result<HttpResponse, ApiError> {
    let builder = Arc::clone(&shared.builder);
    let secret = builder.payload_secret()?;
    let within = shared.provider.config.read_timeout;
    let body = tokio::time::timeout(within, whole(body, builder.settings().source)).await.map_err(|_| {
        let text = format!("the body did not arrive within {}s", within.as_secs());
        ApiError::new(StatusCode::REQUEST_TIMEOUT, text)
    })??;
    let signature = request.headers().get("x-build-signature").and_then(|value| value.to_str().ok());
    parcel::check_signature(&secret, signature, &body)
        .map_err(|fault| ApiError::new(StatusCode::UNAUTHORIZED, fault.to_string()))?;
    let parcel = parcel::Parcel::read(&body)?;
    let image = parcel.image.clone();
    let streams = request.headers().get(ACCEPT).is_some_and(|accept| accept.as_bytes() == LINES.as_bytes());
    let (sender, receiver) = unbounded_channel();
    let said = Said { image: image.clone(), lines: streams.then_some(sender) };
    let started = Instant::now();
    let provider = Arc::clone(&shared.provider);
    let work = async move {
        let build = move |_: &_| Ok(finish(&said, builder.build_parcel(&parcel, &body, &said), started));
        provider.run(build).await
    };
    if !streams {
        let answer = work.await?;
        return Ok(HttpResponse::Ok().content_type("application/json").body(answer));
    }
    // The build goes on when its client goes away, and ends inside its limits: its result is worth keeping.
    actix_web::rt::spawn(work);
    let lines = stream::unfold(receiver, |mut receiver| async move {
        let line = receiver.recv().await?;
        Some((Ok::<Bytes, Infallible>(line), receiver))
    });
    Ok(HttpResponse::Ok().insert_header((CONTENT_TYPE, LINES)).streaming(lines))
}

/// The body, if it is not larger than `most`.
async fn whole(mut body: Payload, most: u64) -> Result<Bytes, ApiError> {
    let mut bytes = Vec::new();
    while let Some(part) = body.next().await {
        bytes.extend_from_slice(&part.map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, e.to_string()))?);
        if bytes.len() as u64 > most {
            let message = format!("the build context is larger than {most} bytes, the limit (builder.source)");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
    }
    Ok(bytes.into())
}

/// Turns progress into lines.
struct Said {
    image: Reference,
    lines: Option<UnboundedSender<Bytes>>,
}

impl Said {
    fn send(&self, event: &Event<'_>) -> String {
        let text = serde_json::to_string(event).unwrap_or_default();
        if let Some(lines) = &self.lines {
            // Nobody listens any more: the build is worth finishing all the same.
            let _ = lines.send(format!("{text}\n").into());
        }
        text
    }

    fn tell(&self, text: &str) {
        for line in text.lines() {
            let image = self.image.as_written();
            self.send(&Event { log: vec![line], image, status: "in_progress", error: None, duration: None });
        }
    }
}

impl Progress for Said {
    fn step(&self, what: &str) {
        self.tell(what);
    }
    fn output(&self, text: &str) {
        self.tell(text);
    }
}

/// The last line; without streaming, the whole answer.
fn finish(said: &Said, result: Result<String, Fault>, started: Instant) -> String {
    let image = said.image.as_written();
    let duration = Some(started.elapsed().as_secs_f64());
    match &result {
        Ok(log) => {
            // A stream has told the log already.
            let log = if said.lines.is_some() { Vec::new() } else { log.lines().collect() };
            said.send(&Event { log, image, status: "success", error: None, duration })
        }
        Err(fault) => {
            if fault.kind() == Kind::System {
                tracing::error!(%fault, "a remote build failed");
            }
            said.send(&Event { log: Vec::new(), image, status: "failed", error: Some(fault.to_string()), duration })
        }
    }
}
