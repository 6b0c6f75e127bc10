//! /system/functions, /system/function/{name}, /system/scale-function/{name}.

use actix_web::web::{Bytes, Data, Path, Query};
use actix_web::{HttpResponse, http::header::ContentType};

use super::Shared;
use super::error::ApiError;
use super::{gojson, wire};
use crate::fault::Fault;
use crate::function::FunctionKey;

type Answer = Result<HttpResponse, ApiError>;

/// GET /system/functions: the functions of one namespace.
pub async fn list(shared: Data<Shared>, query: Query<wire::Query>) -> Answer {
    let namespace = shared.provider.namespaces.resolve(&query.namespace)?;
    let mut body = vec![b'['];
    for function in shared.provider.catalog.all() {
        if function.key.namespace != namespace {
            continue;
        }
        if body.len() > 1 {
            body.push(b',');
        }
        body.extend(wire::status(&function, None, shared.provider.config.function_label)?);
    }
    body.push(b']');
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(body))
}

/// POST /system/functions: deploys a new function.
pub async fn create(shared: Data<Shared>, body: Bytes, query: Query<wire::Query>) -> Answer {
    let desired = deployment(&shared, &body, &query)?;
    shared.provider.run(move |provider| provider.create(desired)).await?;
    Ok(HttpResponse::Accepted().finish())
}

/// PUT /system/functions: replaces a function. 404 makes faas-cli try POST.
pub async fn update(shared: Data<Shared>, body: Bytes, query: Query<wire::Query>) -> Answer {
    let desired = deployment(&shared, &body, &query)?;
    shared.provider.find(&desired.key)?;
    shared.provider.run(move |provider| provider.update(desired)).await?;
    Ok(HttpResponse::Accepted().finish())
}

fn deployment(shared: &Shared, body: &[u8], query: &wire::Query) -> Result<crate::provider::Desired, ApiError> {
    let request: wire::Deployment = gojson::decode(body)?;
    let namespace = either(&request.namespace, &query.namespace).to_owned();
    let namespace = shared.provider.namespaces.resolve(&namespace)?;
    Ok(request.check(namespace)?)
}

/// DELETE /system/functions. Clients name the namespace in the body, the gateway's page in the query.
pub async fn delete(shared: Data<Shared>, body: Bytes, query: Query<wire::Query>) -> Answer {
    let request: wire::DeleteRequest = gojson::decode(&body)?;
    if request.functionname.is_empty() {
        return Err(Fault::invalid("functionName: is required").into());
    }
    let key = key(&shared, &request.functionname, either(&request.namespace, &query.namespace))?;
    shared.provider.run(move |provider| provider.delete(&key)).await?;
    Ok(HttpResponse::Accepted().finish())
}

/// GET /system/function/{name}: the stock gateway asks this before every invocation, so it is a look-up in memory.
pub async fn status(shared: Data<Shared>, name: Path<String>, query: Query<wire::Query>) -> Answer {
    let key = key(&shared, &name, &query.namespace)?;
    let Some(function) = shared.provider.catalog.get(&key) else {
        // The gateway appends this body to a text of its own.
        return Ok(HttpResponse::NotFound().finish());
    };
    let usage = match wire::go_bool(&query.usage) {
        true => {
            let function = function.clone();
            Some(shared.provider.run(move |provider| Ok(provider.usage(&function))).await?)
        }
        false => None,
    };
    let body = wire::status(&function, usage, shared.provider.config.function_label)?;
    Ok(HttpResponse::Ok().content_type(ContentType::json()).body(body))
}

/// POST /system/scale-function/{name}. Answers once the replicas are ready, which spares the gateway its polls.
pub async fn scale(shared: Data<Shared>, name: Path<String>, body: Bytes, query: Query<wire::Query>) -> Answer {
    let request: wire::ScaleRequest = gojson::decode(&body)?;
    let key = key(&shared, &name, either(&request.namespace, &query.namespace))?;
    let replicas = u32::try_from(request.replicas)
        .map_err(|_| Fault::invalid(format!("{} replicas are more than any host can hold", request.replicas)))?;
    shared.provider.run(move |provider| provider.scale(&key, replicas)).await?;
    Ok(HttpResponse::Accepted().finish())
}

fn either<'a>(first: &'a str, second: &'a str) -> &'a str {
    if first.is_empty() { second } else { first }
}

fn key(shared: &Shared, name: &str, namespace: &str) -> Result<FunctionKey, ApiError> {
    let namespaces = &shared.provider.namespaces;
    let key = FunctionKey::parse(name, &namespaces.resolve(namespace)?)?;
    namespaces.resolve(key.namespace.as_str())?;
    Ok(key)
}
