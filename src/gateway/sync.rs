//! What the port answers at once: calls, its description, its counters.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;

use super::Gateway;
use super::metrics::Call;
use crate::api::{Shared, info, invoke};

/// /function/…: the provider's invoke path, with the stock gateway's counters.
pub async fn call(
    shared: Data<Shared>,
    gateway: Data<Gateway>,
    request: HttpRequest,
    payload: Payload,
) -> HttpResponse<BoxBody> {
    let target = match invoke::resolve(&shared, &request, "/function/") {
        Ok(target) => target,
        Err(answer) => return *answer,
    };
    let mut call = gateway.metrics.begin(target.function.clone());
    let answer = invoke::call(&shared, target, &request, payload).await;
    call.ended(answer.status().as_u16());
    answer.map_body(|_, body| Counted { body, _call: call }.boxed())
}

/// A body that counts its call when it has ended.
struct Counted {
    body: BoxBody,
    _call: Call,
}

impl MessageBody for Counted {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}

/// GET /system/info: `GatewayInfo`, which holds the provider's.
pub async fn describe() -> HttpResponse {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    HttpResponse::Ok().json(json!({ "provider": info::described(), "version": info::version(), "arch": arch }))
}

/// /metrics of this port.
pub async fn metrics(shared: Data<Shared>, gateway: Data<Gateway>) -> HttpResponse {
    let text = gateway.metrics.render(&shared.provider.catalog);
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text)
}

/// Counts a request to /system over this port.
pub async fn count(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let began = Instant::now();
    let gateway = request.app_data::<Data<Gateway>>().expect("set for the whole app").clone();
    let (method, path) = (request.method().clone(), request.path().to_owned());
    let answer = next.call(request).await?;
    let seconds = began.elapsed().as_secs_f64();
    gateway.metrics.count(answer.status().as_str(), method.as_str(), info::label(&path), seconds);
    Ok(answer)
}
