//! Every endpoint: a function for each port, and one for what both have.

use actix_web::middleware::from_fn;
use actix_web::web::{self, ServiceConfig, delete, get, head, post, put};
use actix_web::{HttpRequest, HttpResponse, Scope};

use crate::gateway::{alert, asynchronous, sync};

use super::{
    auth, build, elastic, error, functions, info, invoke, logs, namespaces, patience, prometheus, replicas, secrets,
    targets, ui,
};

/// The provider's port: the routes of a provider (faas-provider, `serve.go`) and those of this program's own.
pub(super) fn provider(app: &mut ServiceConfig) {
    // First, and without a pattern to match: every call comes this way.
    app.service(web::scope("/function").default_service(web::to(invoke::invoke)))
        .service(
            system()
                .service(resource("/info").route(get().to(info::provider)))
                .wrap(from_fn(patience::limit))
                .wrap(from_fn(auth::check))
                .wrap(from_fn(info::count)),
        )
        .service(resource("/build").route(post().to(build::build)).wrap(from_fn(patience::limit)))
        .service(resource("/publickey").route(get().to(build::public_key)))
        .service(resource("/healthz").route(get().to(info::health)).route(head().to(info::health)))
        .service(web::resource("/metrics").to(info::metrics))
        .service(resource("/api/v1/query").route(get().to(prometheus::query)).route(post().to(prometheus::query)))
        .default_service(web::to(not_found));
}

/// The standalone port: the routes of a gateway (faas, `gateway/main.go`), its metrics among them.
pub(super) fn gateway(app: &mut ServiceConfig) {
    ui::configure(app);
    app.service(web::scope("/function").default_service(web::to(sync::call)))
        .service(resource("/").route(get().to(page)))
        .service(
            web::scope("/async-function").default_service(web::to(asynchronous::accept)).wrap(from_fn(patience::limit)),
        )
        .service(
            system()
                .service(resource("/info").route(get().to(sync::describe)))
                .service(resource("/alert").route(post().to(alert::scale)))
                .wrap(from_fn(patience::limit))
                .wrap(from_fn(auth::check))
                .wrap(from_fn(sync::count)),
        )
        .service(resource("/healthz").route(get().to(info::health)).route(head().to(info::health)))
        .service(web::resource("/metrics").to(sync::metrics))
        .default_service(web::to(not_found));
}

/// What /system is on both ports.
fn system() -> Scope {
    web::scope("/system")
        .service(
            resource("/functions")
                .route(get().to(functions::list))
                .route(post().to(functions::create))
                .route(put().to(functions::update))
                .route(delete().to(functions::delete)),
        )
        .service(resource("/function/{name:[-a-zA-Z_0-9.]+}").route(get().to(functions::status)))
        .service(resource("/scale-function/{name:[-a-zA-Z_0-9.]+}").route(post().to(functions::scale)))
        .service(
            resource("/secrets")
                .route(get().to(secrets::list))
                .route(post().to(secrets::create))
                .route(put().to(secrets::update))
                .route(delete().to(secrets::delete)),
        )
        .service(resource("/logs").route(get().to(logs::stream)))
        .service(resource("/namespaces").route(get().to(namespaces::list)))
        .service(
            resource("/namespace/{name:[-a-zA-Z_0-9.]*}")
                .route(get().to(namespaces::get))
                .route(post().to(namespaces::create))
                .route(put().to(namespaces::update))
                .route(delete().to(namespaces::delete)),
        )
        .service(resource("/elastic").route(get().to(elastic::list)))
        .service(resource("/replicas").route(get().to(replicas::list)))
        .service(resource("/targets").route(get().to(targets::list)))
        .service(resource("/images/load").route(post().to(info::load_image)))
        .default_service(web::to(not_found))
}

/// GET / leads to the page, as at the stock gateway.
async fn page() -> HttpResponse {
    HttpResponse::TemporaryRedirect().insert_header(("Location", "/ui/")).finish()
}

/// A resource whose other methods are answered 405 with an empty body, as Go's router does.
fn resource(path: &str) -> actix_web::Resource {
    web::resource(path).default_service(web::to(async || HttpResponse::MethodNotAllowed().finish()))
}

/// Go's router redirects a path with empty or dot segments to the clean one, and knows no other path.
async fn not_found(request: HttpRequest) -> HttpResponse {
    match invoke::cleaned(request.uri()) {
        Some(clean) => HttpResponse::MovedPermanently().insert_header(("Location", clean)).finish(),
        None => error::text(actix_web::http::StatusCode::NOT_FOUND, "404 page not found"),
    }
}
