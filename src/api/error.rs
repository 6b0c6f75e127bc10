//! The only place where failures become status codes.

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use actix_web::{HttpResponse, ResponseError};
use std::fmt;

use crate::fault::{Fault, Kind};

/// A failure on its way to a client: one sentence, as text.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    /// A failure with a status of its own.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        Self::new(status(&fault), fault.to_string())
    }
}

/// The status of a failure. One that lies with this host is logged, too.
pub fn status(fault: &Fault) -> StatusCode {
    let status = match fault.kind() {
        Kind::Invalid | Kind::Denied | Kind::Unsupported => StatusCode::BAD_REQUEST,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Busy => StatusCode::CONFLICT,
        Kind::Exhausted => StatusCode::SERVICE_UNAVAILABLE,
        Kind::System => StatusCode::INTERNAL_SERVER_ERROR,
    };
    if status.is_server_error() {
        tracing::error!(%fault, "a request failed");
    }
    status
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        text(self.status, &self.message)
    }
}

/// A text answer in the form of Go's `http.Error`, which stock clients show verbatim.
pub fn text(status: StatusCode, message: &str) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")))
        .insert_header((HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")))
        .body(format!("{message}\n"))
}
