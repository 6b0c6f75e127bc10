//! The page at /ui/: functions with state, replicas and invocations; logs, invoke, scale, deploy, delete.
//!
//! Three files, compiled in: no build step, no request to anywhere but this server. It uses the same API as faas-cli
//! and asks for the same password.

use actix_web::HttpResponse;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::middleware::from_fn;
use actix_web::web::{self, ServiceConfig, get};

use super::auth;

/// Nothing from elsewhere, no inline script, and no page may frame this one. `blob:` is for saving an answer.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The page's routes.
pub(super) fn configure(app: &mut ServiceConfig) {
    app.service(
        web::scope("/ui")
            .wrap(from_fn(auth::check))
            .route("", get().to(slash))
            .route("/", get().to(async || file("text/html; charset=utf-8", include_str!("index.html"))))
            .route("/ui.css", get().to(async || file("text/css; charset=utf-8", include_str!("ui.css"))))
            .route("/ui.js", get().to(async || file("text/javascript; charset=utf-8", include_str!("ui.js")))),
    );
}

/// The page's links are relative, so it must be asked for with a slash.
async fn slash() -> HttpResponse {
    HttpResponse::MovedPermanently().insert_header((LOCATION, "ui/")).finish()
}

fn file(kind: &'static str, text: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, kind))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .body(text)
}
