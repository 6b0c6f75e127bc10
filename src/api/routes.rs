//! Every endpoint, in one function.

use actix_web::middleware::from_fn;
use actix_web::web::{self, ServiceConfig, delete, get, head, post, put};
use actix_web::{HttpRequest, HttpResponse};

use super::{auth, error, functions, info, invoke, logs, namespaces, replicas, secrets, ui};

/// The routes of a provider (faas-provider, `serve.go`) and those of this program's own.
pub(super) fn configure(app: &mut ServiceConfig) {
    let system = web::scope("/system")
        .wrap(from_fn(auth::check))
        .wrap(from_fn(info::count))
        .service(
            resource("/functions")
                .route(get().to(functions::list))
                .route(post().to(functions::create))
                .route(put().to(functions::update))
                .route(delete().to(functions::delete)),
        )
        .service(resource("/function/{name:[-a-zA-Z_0-9.]+}").route(get().to(functions::status)))
        .service(resource("/scale-function/{name:[-a-zA-Z_0-9.]+}").route(post().to(functions::scale)))
        .service(resource("/info").route(get().to(info::provider)))
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
        .service(resource("/replicas").route(get().to(replicas::list)))
        .service(resource("/images/load").route(post().to(info::load_image)))
        .default_service(web::to(not_found));
    ui::configure(app);
    // First, and without a pattern to match: every call comes this way.
    app.service(web::scope("/function").default_service(web::to(invoke::invoke)))
        .service(system)
        .service(resource("/healthz").route(get().to(info::health)).route(head().to(info::health)))
        .service(web::resource("/metrics").to(info::metrics))
        .default_service(web::to(not_found));
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
