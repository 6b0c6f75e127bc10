//! /system/namespaces and /system/namespace/{name}.

use actix_web::HttpResponse;
use actix_web::web::{Bytes, Data, Path};

use super::error::ApiError;
use super::{Shared, gojson, wire};
use crate::fault::{Fault, Result};
use crate::function::Namespace;
use crate::provider::NamespaceSpec;

/// The mark of a namespace that belongs to OpenFaaS; faas-cli sets it as label and annotation.
const MARK: &str = "openfaas";

/// GET /system/namespaces: the names.
pub async fn list(shared: Data<Shared>) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(shared.provider.namespaces.list()?))
}

/// GET /system/namespace/{name}.
pub async fn get(shared: Data<Shared>, name: Path<String>) -> Result<HttpResponse, ApiError> {
    let namespace: Namespace = name.parse()?;
    let NamespaceSpec { labels, annotations } = shared.provider.namespaces.get(&namespace)?;
    Ok(HttpResponse::Ok().json(wire::NamespaceBody { name: namespace.to_string(), labels, annotations }))
}

/// POST /system/namespace/: the name is in the body.
pub async fn create(shared: Data<Shared>, name: Path<String>, body: Bytes) -> Result<HttpResponse, ApiError> {
    let (namespace, spec) = read(&name, &body)?;
    shared.provider.run(move |p| p.namespaces.create(&namespace, &spec)).await?;
    Ok(HttpResponse::Created().finish())
}

/// PUT /system/namespace/{name}.
pub async fn update(shared: Data<Shared>, name: Path<String>, body: Bytes) -> Result<HttpResponse, ApiError> {
    let (namespace, spec) = read(&name, &body)?;
    shared.provider.run(move |p| p.namespaces.update(&namespace, &spec)).await?;
    Ok(HttpResponse::Accepted().finish())
}

/// DELETE /system/namespace/{name}. One with functions in it stays.
pub async fn delete(shared: Data<Shared>, name: Path<String>) -> Result<HttpResponse, ApiError> {
    let namespace: Namespace = name.parse()?;
    shared.provider.run(move |p| p.delete_namespace(&namespace)).await?;
    Ok(HttpResponse::Accepted().finish())
}

fn read(path: &str, body: &[u8]) -> Result<(Namespace, NamespaceSpec)> {
    let body: wire::NamespaceBody = gojson::decode(body)?;
    if body.name.is_empty() {
        return Err(Fault::invalid("namespace: name is required"));
    }
    if !path.is_empty() && path != body.name {
        return Err(Fault::invalid(format!("namespace: the path says {path} and the body {}", body.name)));
    }
    let marked = [&body.labels, &body.annotations].iter().any(|map| map.get(MARK).is_some_and(|v| v == "1"));
    if !marked {
        return Err(Fault::invalid(format!("namespace {}: a label {MARK}=1 is required", body.name)));
    }
    Ok((body.name.parse()?, NamespaceSpec { labels: body.labels, annotations: body.annotations }))
}
