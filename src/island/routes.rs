//! Every endpoint of Sky Island's API, in one function: those its code has and those its README names.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::body::MessageBody;
use actix_web::dev::{Server, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Data, ServiceConfig, delete, get, post, put};
use actix_web::{App, HttpResponse, HttpServer};

use super::{Failure, Island, admin, function};
use crate::fault::{Context, Result};

/// Largest body of a request, in bytes.
const BODY_MAX: usize = 1 << 20;

/// The routes (briandowns/sky-island, `handlers/handlers.go`, and its README).
fn configure(app: &mut ServiceConfig) {
    let admin = web::scope("/admin")
        .wrap(from_fn(admin::check))
        .service(resource("/api-stats").route(get().to(admin::stats)))
        .service(resource("/jails").route(get().to(admin::jails)).route(delete().to(admin::kill_all)))
        .service(resource("/jail/{id}").route(get().to(admin::details)).route(delete().to(admin::kill)))
        .service(resource("/ips").route(get().to(admin::addresses)).route(put().to(admin::free)))
        .service(resource("/network/ips").route(get().to(admin::addresses)))
        .service(resource("/network/ip").route(put().to(admin::free)))
        .default_service(web::to(not_found));
    app.service(resource("/healthcheck").route(get().to(HttpResponse::Ok)))
        .service(resource("/api/v1/healthcheck").route(get().to(HttpResponse::Ok)))
        .service(resource("/api/v1/function").route(post().to(function::run)))
        .service(web::scope("/api/v1").service(admin))
        .default_service(web::to(not_found));
}

/// A resource whose other methods are answered 405, as Sky Island's router does.
fn resource(path: &str) -> actix_web::Resource {
    web::resource(path).default_service(web::to(async || {
        HttpResponse::from_error(Failure::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"))
    }))
}

async fn not_found() -> HttpResponse {
    HttpResponse::from_error(Failure::new(StatusCode::NOT_FOUND, "Not Found"))
}

/// Counts a request, whatever came of it.
async fn count(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let begun = Instant::now();
    let island = request.app_data::<Data<Island>>().expect("set for the whole app").clone();
    let answer = next.call(request).await;
    let status = match &answer {
        Ok(answer) => answer.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    island.stats.count(status.as_u16(), begun.elapsed());
    answer
}

/// Serves on `listener` until stopped. The returned server is a future; its handle stops it gracefully: requests
/// under way have `drain` to end.
pub fn serve(listener: TcpListener, island: Arc<Island>, drain: Duration) -> Result<Server> {
    let server = HttpServer::new(move || {
        App::new()
            .app_data(Data::from(Arc::clone(&island)))
            .app_data(web::PayloadConfig::new(BODY_MAX))
            .wrap(from_fn(count))
            .configure(configure)
    })
    .workers(2)
    .disable_signals()
    .shutdown_timeout(drain.as_secs().max(1))
    .listen(listener)
    .context(|| "cannot serve Sky Island's API")?;
    Ok(server.run())
}
