//! /system/secrets. Values go in and never come out.

use actix_web::HttpResponse;
use actix_web::web::{Bytes, Data, Query};
use serde::Serialize;

use super::error::ApiError;
use super::{Shared, gojson, wire};
use crate::fault::Result;
use crate::function::Namespace;
use crate::secrets::Secrets;

#[derive(Serialize)]
struct Listed {
    name: String,
    namespace: String,
}

/// GET: names only.
pub async fn list(shared: Data<Shared>, query: Query<wire::Query>) -> Result<HttpResponse, ApiError> {
    let namespace = shared.provider.namespaces.resolve(&query.namespace)?;
    let names = shared.provider.secrets.list(&namespace)?;
    let listed = names.into_iter().map(|name| Listed { name, namespace: namespace.to_string() });
    Ok(HttpResponse::Ok().json(listed.collect::<Vec<_>>()))
}

/// POST: a new one.
pub async fn create(shared: Data<Shared>, query: Query<wire::Query>, body: Bytes) -> Result<HttpResponse, ApiError> {
    change(shared, query, body, |secrets, namespace, body| secrets.create(namespace, &body.name, body.bytes())).await
}

/// PUT: a new value. Functions see it when they are deployed again.
pub async fn update(shared: Data<Shared>, query: Query<wire::Query>, body: Bytes) -> Result<HttpResponse, ApiError> {
    change(shared, query, body, |secrets, namespace, body| secrets.update(namespace, &body.name, body.bytes())).await
}

/// DELETE.
pub async fn delete(shared: Data<Shared>, query: Query<wire::Query>, body: Bytes) -> Result<HttpResponse, ApiError> {
    change(shared, query, body, |secrets, namespace, body| secrets.delete(namespace, &body.name)).await
}

async fn change(
    shared: Data<Shared>,
    query: Query<wire::Query>,
    body: Bytes,
    how: fn(&Secrets, &Namespace, &wire::SecretBody) -> Result<()>,
) -> Result<HttpResponse, ApiError> {
    let body: wire::SecretBody = gojson::decode(&body)?;
    let namespace = if body.namespace.is_empty() { &query.namespace } else { &body.namespace };
    let namespace = shared.provider.namespaces.resolve(namespace)?;
    shared.provider.run(move |provider| how(&provider.secrets, &namespace, &body)).await?;
    Ok(HttpResponse::Accepted().finish())
}
