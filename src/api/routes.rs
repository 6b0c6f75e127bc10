//! Every endpoint, as tables: one for each port, and one for what both have. The routers are made from them, and so is
//! the list that the description in `openapi.json` is compared with.

use std::rc::Rc;

use actix_web::dev::HttpServiceFactory;
use actix_web::middleware::from_fn;
use actix_web::web::{self, ServiceConfig};
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Responder, Route, Scope};

use super::{
    auth, build, elastic, error, functions, info, invoke, logs, namespaces, openapi, patience, prometheus, replicas,
    secrets, targets, ui,
};
use crate::gateway::{alert, asynchronous, sync};

/// A path, and what answers each method on it. Other methods are answered 405 with an empty body, as by Go's router,
/// and with the header Allow, which that leaves out (RFC 9110, 15.5.6).
struct Endpoint {
    path: &'static str,
    methods: Vec<(&'static str, Route)>,
}

/// The endpoints of a port.
struct Port {
    /// For everybody.
    open: Vec<Endpoint>,
    /// Below /system, for who has the password.
    system: Vec<Endpoint>,
    /// What comes first in the path of a call, and who answers; who says which methods it may have.
    calls: Vec<(&'static str, Route)>,
    /// The same for calls that are made later.
    queued: Vec<(&'static str, Route)>,
}

/// The provider's port: the routes of a provider (faas-provider, `serve.go`) and those of this program's own.
fn provider_port() -> Port {
    let mut port =
        Port { open: open(), system: system(), calls: vec![("/function", web::to(invoke::invoke))], queued: vec![] };
    port.open.push(at("/metrics", [get(info::metrics), head(info::metrics)]));
    port.open.push(at("/build", [post(build::build)]));
    port.open.push(at("/publickey", [get(build::public_key)]));
    port.open.push(at("/api/v1/query", [get(prometheus::query), post(prometheus::query)]));
    port.system.push(at("/info", [get(info::provider)]));
    port
}

/// The standalone port: the routes of a gateway (faas, `gateway/main.go`).
fn gateway_port() -> Port {
    let calls = vec![("/function", web::to(sync::call))];
    let queued = vec![("/async-function", web::to(asynchronous::accept))];
    let mut port = Port { open: open(), system: system(), calls, queued };
    port.open.push(at("/metrics", [get(sync::metrics), head(sync::metrics)]));
    port.open.push(at("/", [get(page)]));
    port.system.extend([at("/info", [get(sync::describe)]), at("/alert", [post(alert::scale)])]);
    port
}

/// What is open on both ports, and the same.
fn open() -> Vec<Endpoint> {
    vec![at("/healthz", [get(info::health), head(info::health)]), at("/openapi.json", [get(openapi::document)])]
}

/// What /system is on both ports.
fn system() -> Vec<Endpoint> {
    vec![
        at(
            "/functions",
            [get(functions::list), post(functions::create), put(functions::update), delete(functions::delete)],
        ),
        at("/function/{name:[-a-zA-Z_0-9.]+}", [get(functions::status)]),
        at("/scale-function/{name:[-a-zA-Z_0-9.]+}", [post(functions::scale)]),
        at("/secrets", [get(secrets::list), post(secrets::create), put(secrets::update), delete(secrets::delete)]),
        at("/logs", [get(logs::stream)]),
        at("/namespaces", [get(namespaces::list)]),
        at(
            "/namespace/{name:[-a-zA-Z_0-9.]*}",
            [get(namespaces::get), post(namespaces::create), put(namespaces::update), delete(namespaces::delete)],
        ),
        at("/replicas", [get(replicas::list)]),
        at("/elastic", [get(elastic::list)]),
        at("/targets", [get(targets::list)]),
        at("/images/load", [post(info::load_image)]),
    ]
}

/// Routes the provider's port.
pub(super) fn provider(app: &mut ServiceConfig) {
    let port = provider_port();
    calls(app, port.calls);
    app.service(
        scope(port.system).wrap(from_fn(patience::limit)).wrap(from_fn(auth::check)).wrap(from_fn(info::count)),
    )
    .default_service(web::to(not_found));
    for endpoint in port.open {
        app.service(resource(endpoint));
    }
}

/// Routes the standalone port.
pub(super) fn gateway(app: &mut ServiceConfig) {
    let port = gateway_port();
    calls(app, port.calls);
    ui::configure(app);
    for (prefix, route) in port.queued {
        app.service(web::scope(prefix).default_service(route).wrap(from_fn(patience::limit)));
    }
    app.service(
        scope(port.system).wrap(from_fn(patience::limit)).wrap(from_fn(auth::check)).wrap(from_fn(sync::count)),
    )
    .default_service(web::to(not_found));
    for endpoint in port.open {
        app.service(resource(endpoint));
    }
}

/// First, and without a pattern to match: every call comes this way.
fn calls(app: &mut ServiceConfig, calls: Vec<(&'static str, Route)>) {
    for (prefix, route) in calls {
        app.service(web::scope(prefix).default_service(route));
    }
}

fn scope(endpoints: Vec<Endpoint>) -> Scope {
    let scope = web::scope("/system").default_service(web::to(not_found));
    endpoints.into_iter().fold(scope, |scope, endpoint| scope.service(resource(endpoint)))
}

fn resource(endpoint: Endpoint) -> impl HttpServiceFactory {
    let methods: Rc<[&str]> = endpoint.methods.iter().map(|(method, _)| *method).collect();
    let other = web::to(move || {
        let methods = Rc::clone(&methods);
        async move { invoke::wrong_method(&methods) }
    });
    let resource = web::resource(endpoint.path).default_service(other);
    endpoint.methods.into_iter().fold(resource, |resource, (_, route)| resource.route(route))
}

fn at<const N: usize>(path: &'static str, methods: [(&'static str, Route); N]) -> Endpoint {
    Endpoint { path, methods: methods.into() }
}

macro_rules! method {
    ($name:ident, $method:ident) => {
        fn $name<F, A>(handler: F) -> (&'static str, Route)
        where
            F: Handler<A>,
            A: FromRequest + 'static,
            F::Output: Responder + 'static,
        {
            (stringify!($method), web::$name().to(handler))
        }
    };
}

method!(get, GET);
method!(head, HEAD);
method!(post, POST);
method!(put, PUT);
method!(delete, DELETE);

/// GET / leads to the page, as at the stock gateway.
async fn page() -> HttpResponse {
    HttpResponse::TemporaryRedirect().insert_header(("Location", "/ui/")).finish()
}

/// Go's router redirects a path with empty or dot segments to the clean one, and knows no other path.
async fn not_found(request: HttpRequest) -> HttpResponse {
    match invoke::cleaned(request.uri()) {
        Some(clean) => HttpResponse::MovedPermanently().insert_header(("Location", clean)).finish(),
        None => error::text(actix_web::http::StatusCode::NOT_FOUND, "404 page not found"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::openapi::{self, Served};

    /// `GET /system/function/{name}`: without the pattern, and once without the name where it may be empty.
    fn lines(methods: &[&str], path: &str) -> Vec<String> {
        let mut paths = vec![path.to_owned()];
        if let Some((before, pattern)) = path.split_once("{name:") {
            paths = vec![format!("{before}{{name}}")];
            paths.extend(pattern.ends_with("*}").then(|| before.to_owned()));
        }
        let line = |path: &String| methods.iter().map(move |method| format!("{method} {path}")).collect::<Vec<_>>();
        paths.iter().flat_map(line).collect()
    }

    fn routed(port: Port) -> BTreeSet<String> {
        let of = |prefix: &str, endpoint: &Endpoint| {
            let methods: Vec<&str> = endpoint.methods.iter().map(|(method, _)| *method).collect();
            lines(&methods, &format!("{prefix}{}", endpoint.path))
        };
        let mut all: BTreeSet<String> = port.open.iter().flat_map(|endpoint| of("", endpoint)).collect();
        all.extend(port.system.iter().flat_map(|endpoint| of("/system", endpoint)));
        let calls = port.calls.iter().map(|(prefix, _)| (prefix, &invoke::METHODS[..]));
        for (prefix, methods) in calls.chain(port.queued.iter().map(|(prefix, _)| (prefix, &["POST"][..]))) {
            all.extend(lines(methods, &format!("{prefix}/{{name}}")));
            all.extend(lines(methods, &format!("{prefix}/{{name}}/{{path}}")));
        }
        all
    }

    fn described(served: Served) -> BTreeSet<String> {
        let document: serde_json::Value = serde_json::from_str(openapi::text(served)).unwrap();
        let methods = |(path, item): (&String, &serde_json::Value)| {
            let named = ["get", "head", "post", "put", "patch", "delete", "options"];
            let has = named.into_iter().filter(|method| item.get(method).is_some());
            has.map(|method| format!("{} {path}", method.to_uppercase())).collect::<Vec<_>>()
        };
        document["paths"].as_object().unwrap().iter().flat_map(methods).collect()
    }

    #[test]
    fn what_is_routed_is_described_and_nothing_else() {
        for (port, served) in [(provider_port(), Served::Provider), (gateway_port(), Served::Gateway)] {
            let (routed, described) = (routed(port), described(served));
            let missing: Vec<_> = routed.difference(&described).collect();
            let extra: Vec<_> = described.difference(&routed).collect();
            assert!(missing.is_empty() && extra.is_empty(), "openapi.json lacks {missing:?}, and has {extra:?}");
        }
    }
}
