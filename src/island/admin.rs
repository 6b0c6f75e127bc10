//! The admin routes: what runs, which addresses are held, what was counted. All of them ask for the token.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use actix_web::middleware::Next;
use actix_web::web::{self, Bytes, Data, Path, Query};
use actix_web::{HttpResponse, ResponseError};
use serde::Deserialize;
use serde_json::json;

use super::wire::{AddressRequest, Deleted, Details, Jails};
use super::{Failure, Island};
use crate::api::gojson;

type Answer = Result<HttpResponse, Failure>;

/// Whether these headers carry the token.
pub(super) fn has_token(island: &Island, headers: &HeaderMap) -> bool {
    headers.get(&island.settings.token_header).is_some_and(|sent| island.token.accepts(sent.as_bytes()))
}

/// Lets a request through, or answers 403.
pub(super) async fn check(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let island = request.app_data::<Data<Island>>().expect("set for the whole app");
    if has_token(island, request.headers()) {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    tracing::warn!(path = request.path(), "a request to the admin API without its token");
    Ok(request.into_response(Failure::forbidden().error_response()))
}

/// GET api-stats.
pub(super) async fn stats(island: Data<Island>) -> HttpResponse {
    HttpResponse::Ok().json(island.stats.data())
}

/// GET jails.
pub(super) async fn jails(island: Data<Island>) -> Answer {
    let jails = off_thread(&island, Island::jails).await?;
    island.statsd.event("handlers.jail.running");
    Ok(HttpResponse::Ok().json(Jails { jails }))
}

/// GET jail/{id}.
pub(super) async fn details(island: Data<Island>, id: Path<String>) -> Answer {
    let jid = number(&id)?;
    let details = off_thread(&island, move |island| island.jail(jid)).await?;
    island.statsd.event("handlers.jail.details");
    Ok(HttpResponse::Ok().json(Details { details }))
}

/// DELETE jail/{id}.
pub(super) async fn kill(island: Data<Island>, id: Path<String>) -> Answer {
    let jid = number(&id)?;
    off_thread(&island, move |island| island.kill(jid)).await?;
    island.statsd.event("handlers.jail.kill");
    Ok(HttpResponse::Ok().json(Deleted { deleted: jid }))
}

/// DELETE jails.
pub(super) async fn kill_all(island: Data<Island>) -> Answer {
    off_thread(&island, Island::kill_all).await?;
    island.statsd.event("handlers.jail.killall");
    Ok(HttpResponse::Ok().finish())
}

/// The query of GET ips.
#[derive(Debug, Deserialize)]
pub(super) struct State {
    state: Option<String>,
}

/// GET ips: all addresses with their holders, or with `?state=` the names of those that are held, or not.
pub(super) async fn addresses(island: Data<Island>, query: Query<State>) -> Answer {
    let addresses = island.addresses();
    let those = |held: bool| {
        let fitting = addresses.iter().filter(|(_, holder)| holder.is_some() == held);
        fitting.map(|(address, _)| address.to_string()).collect::<Vec<_>>()
    };
    let body = match query.state.as_deref() {
        None => json!(addresses),
        Some("available") => json!({ "available": those(false) }),
        Some("unavailable") => json!({ "unavailable": those(true) }),
        Some(_) => return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "unrecognized IP state")),
    };
    Ok(HttpResponse::Ok().json(body))
}

/// PUT ip: frees an address.
pub(super) async fn free(island: Data<Island>, body: Bytes) -> Answer {
    let request: AddressRequest = gojson::decode(&body)
        .map_err(|fault| Failure::new(StatusCode::BAD_REQUEST, format!("Bad Request: {fault}")))?;
    let Ok(address) = request.ip.parse() else {
        return Err(Failure::new(StatusCode::BAD_REQUEST, "invalid IP4 address"));
    };
    off_thread(&island, move |island| island.free(address)).await?;
    Ok(HttpResponse::Ok().finish())
}

/// A jail's number out of a path.
fn number(id: &str) -> Result<i32, Failure> {
    let shown = id.escape_debug();
    id.parse()
        .map_err(|_| Failure::new(StatusCode::BAD_REQUEST, format!("jail ({shown}) is invalid: a number is needed")))
}

/// Runs work that waits for the system off the server's threads.
async fn off_thread<T: Send + 'static>(
    island: &Data<Island>,
    work: impl FnOnce(&Island) -> crate::fault::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let island = island.clone();
    Ok(web::block(move || work(&island)).await.map_err(super::stopped)??)
}
