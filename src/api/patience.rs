//! How long the body of a /system request may take to arrive: a client that sends a byte now and then must not keep a
//! handler waiting for ever. Calls of functions have the time limit of their answer, image archives have none.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use actix_web::middleware::Next;
use actix_web::web::{Bytes, Data};
use futures_util::Stream;

use super::Shared;
use super::error::ApiError;

/// Waits for the body as long as `read_timeout`; then answers 408. What its handler does
/// with a whole body may take longer.
pub async fn limit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let headers = request.headers();
    let has_body = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
    if !has_body || request.path() == "/system/images/load" {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    let within = request.app_data::<Data<Shared>>().expect("set for the whole app").provider.config.read_timeout;
    let whole = Rc::new(Cell::new(false));
    let (http, payload) = request.into_parts();
    let watched = Watched { payload, whole: whole.clone() };
    let request = ServiceRequest::from_parts(http, Payload::Stream { payload: Box::pin(watched) });
    tokio::select! {
        biased;
        answer = next.call(request) => Ok(answer?.map_into_boxed_body()),
        () = late(within, whole) => {
            let text = format!("the body did not arrive within {}s", within.as_secs());
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, text).into())
        }
    }
}

/// Returns when the time is up and the body is not whole.
async fn late(within: std::time::Duration, whole: Rc<Cell<bool>>) {
    tokio::time::sleep(within).await;
    if whole.get() {
        std::future::pending::<()>().await;
    }
}

/// A body that notes when it has ended, or when nobody wants the rest.
struct Watched {
    payload: Payload,
    whole: Rc<Cell<bool>>,
}

impl Stream for Watched {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = Pin::new(&mut self.payload).poll_next(cx);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            self.whole.set(true);
        }
        next
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.whole.set(true);
    }
}
