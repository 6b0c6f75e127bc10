//! /async-function/{name}[.namespace][/path]: accepted now, made later.

use actix_web::http::{Method, StatusCode};
use actix_web::web::{Bytes, BytesMut, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::StreamExt;

use super::Gateway;
use super::queue::{Call, Target};
use crate::api::error::{ApiError, text};
use crate::api::{Shared, headers, invoke};
use crate::fault::Kind;

/// Names where the answer is to be sent.
const CALLBACK: &str = "x-callback-url";

/// Puts a call into the queue: 202 and X-Call-Id, once it is on the disk.
pub async fn accept(
    shared: Data<Shared>,
    gateway: Data<Gateway>,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, ApiError> {
    if request.method() != Method::POST {
        return Ok(invoke::wrong_method(&["POST"]));
    }
    let target = match invoke::resolve(&shared, &request, "/async-function/") {
        Ok(target) => target,
        Err(answer) => return Ok(*answer),
    };
    let callback = match request.headers().get(CALLBACK) {
        Some(url) => {
            let url = String::from_utf8_lossy(url.as_bytes()).into_owned();
            Target::read(&url)?;
            Some(url)
        }
        None => None,
    };
    let body = read(payload, gateway.queue.body_max()).await?;
    let mut call = Call {
        sequence: 0,
        function: target.function.full_name().to_owned(),
        written: target.written,
        path: target.path,
        headers: headers::kept(&request),
        id: String::new(),
        callback,
    };
    let mut start = String::new();
    call.headers.retain(|(name, value)| {
        match name.as_str() {
            "x-call-id" => call.id = value.clone(),
            "x-start-time" => start = value.clone(),
            _ => {}
        }
        name != CALLBACK
    });
    let id = call.id.clone();
    match gateway.queue.accept(call, body).await {
        Ok(()) => {
            let mut answer = HttpResponse::Accepted();
            answer.insert_header(("x-call-id", id));
            if !start.is_empty() {
                answer.insert_header(("x-start-time", start));
            }
            Ok(answer.finish())
        }
        Err(fault) => {
            let full = fault.kind() == Kind::Busy;
            let status = if full { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::SERVICE_UNAVAILABLE };
            let mut answer = text(status, &fault.to_string());
            answer
                .headers_mut()
                .insert(actix_web::http::header::RETRY_AFTER, actix_web::http::header::HeaderValue::from_static("1"));
            Ok(answer)
        }
    }
}

/// The whole body, which is kept until it is delivered and so has a limit.
async fn read(mut payload: Payload, most: usize) -> Result<Bytes, ApiError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, format!("the body broke off: {e}")))?;
        if body.len() + chunk.len() > most {
            let sentence = format!(
                "a queued call's body has at most {most} bytes; call /function/ instead, or raise body in [gateway.queue]"
            );
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, sentence));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}
