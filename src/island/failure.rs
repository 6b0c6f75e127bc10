//! Failures on their way to a client, in Sky Island's form: a status and `{"error": …}`; here with the cause.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};

use super::wire::ErrorResponse;
use crate::api::error;
use crate::fault::Fault;

/// A failure with its status.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    body: ErrorResponse,
}

impl Failure {
    /// A failure with a status of its own.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, body: ErrorResponse { error: error.into(), ..ErrorResponse::default() } }
    }

    /// The token is missing or wrong.
    pub fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden")
    }

    /// A function that ran and did not end well.
    pub fn of_run(status: StatusCode, body: ErrorResponse) -> Self {
        Self { status, body }
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::new(error::status(&fault), fault.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.body.error)
    }
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status).json(&self.body)
    }
}
