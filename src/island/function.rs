//! `POST /api/v1/function`.

use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, Data};
use actix_web::{HttpRequest, HttpResponse, ResponseError};
use jiff::Timestamp;

use super::admin::has_token;
use super::programs::Wanted;
use super::wire::{FunctionRequest, FunctionResponse};
use super::{Caller, Failure, Island, stopped};
use crate::api::gojson;

/// Runs a call and answers what it printed.
pub(super) async fn run(
    island: Data<Island>,
    request: HttpRequest,
    body: Result<Bytes, actix_web::Error>,
) -> Result<HttpResponse, Failure> {
    if island.settings.run_needs_token() && !has_token(&island, request.headers()) {
        return Err(Failure::forbidden());
    }
    let answer = answer(&island, body).await;
    island.statsd.event("handlers.function.run");
    island.counters.answered(answer.as_ref().map_or_else(Failure::status_code, HttpResponse::status).as_u16());
    answer
}

async fn answer(island: &Data<Island>, body: Result<Bytes, actix_web::Error>) -> Result<HttpResponse, Failure> {
    let body = body.map_err(|error| Failure::new(error.as_response_error().status_code(), error.to_string()))?;
    let request: FunctionRequest = gojson::decode(&body)
        .map_err(|fault| Failure::new(StatusCode::BAD_REQUEST, format!("Bad Request: {fault}")))?;
    let wanted = island.check(&request)?;
    let caller = Island::enter(island)?;
    // A task of its own: a client that goes away must not free the place that its call still takes.
    let call = actix_web::rt::spawn(output(island.clone(), wanted, caller));
    let data = call.await.map_err(stopped)??;
    Ok(HttpResponse::Ok().json(FunctionResponse { timestamp: Timestamp::now().as_second(), data }))
}

/// Finds or builds the program, and runs it once.
async fn output(island: Data<Island>, wanted: Wanted, _caller: Caller) -> Result<String, Failure> {
    if let Some(program) = island.at_hand(&wanted) {
        let _slot = island.slots.acquire().await.map_err(stopped)?;
        let (here, running, wanted) = (island.clone(), program.clone(), wanted.clone());
        let ran = web::block(move || here.run(&running, &wanted)).await.map_err(stopped)?;
        let (here, image) = (island.clone(), program.image.clone());
        let lost = ran.is_err() && web::block(move || here.is_lost(&image)).await.map_err(stopped)?;
        if !lost {
            return ran;
        }
        // Somebody has removed the image meanwhile: it is built again.
        island.forget(&program)?;
    }
    let here = island.clone();
    let (program, wanted) =
        web::block(move || here.program(&wanted).map(|program| (program, wanted))).await.map_err(stopped)??;
    let _slot = island.slots.acquire().await.map_err(stopped)?;
    let here = island.clone();
    web::block(move || here.run(&program, &wanted)).await.map_err(stopped)?
}
