//! One delivery: the call is read from the disk, sent to a replica, and its answer sent on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix_web::dev::Payload;
use bytes::Bytes;
use futures_util::future::poll_fn;

use super::record::Call;
use super::retry::Policy;
use super::{Target, Ticket, callback, log};
use crate::api::upstream::{self, Outgoing, RequestBody};
use crate::api::{Shared, headers};
use crate::fault::Result;
use crate::gateway::Gateway;
use crate::provider::{Annotations, Function, Unserved};

/// An answer, or what stands for it when there was none.
struct Answer {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Answer {
    fn own(status: u16, text: impl Into<String>) -> Self {
        let headers = vec![("content-type".to_owned(), b"text/plain; charset=utf-8".to_vec())];
        Self { status, headers, body: text.into().into_bytes() }
    }
}

/// Delivers a call and settles what becomes of it.
pub async fn deliver(gateway: Arc<Gateway>, shared: Shared, function: String, ticket: Ticket) {
    let queue = &gateway.queue;
    let (call, body) = match read(&gateway, &shared, ticket).await {
        Ok(read) => read,
        Err(fault) => {
            tracing::error!(%function, %fault, "a call in the queue is lost");
            return queue.done(&function, ticket);
        }
    };
    let began = Instant::now();
    let (answer, policy) = attempt(&gateway, &shared, &call, body).await;
    if let Some(pause) = policy.pause(answer.status, ticket.attempts + 1) {
        tracing::info!(%function, id = call.id, status = answer.status, ?pause, "a queued call is tried again");
        return queue.again(&function, ticket, pause);
    }
    if answer.status >= 400 {
        tracing::warn!(%function, id = call.id, status = answer.status, "a queued call is given up");
    }
    if let Some(target) = call.callback.as_deref().and_then(|url| Target::read(url).ok()) {
        call_back(&gateway, &shared, &call, target, answer, began.elapsed()).await;
    }
    queue.done(&function, ticket);
}

async fn read(gateway: &Arc<Gateway>, shared: &Shared, ticket: Ticket) -> Result<(Call, Vec<u8>)> {
    let gateway = Arc::clone(gateway);
    shared.provider.run(move |_| log::read(&gateway.queue.dir, ticket.place)).await
}

async fn attempt(gateway: &Gateway, shared: &Shared, call: &Call, body: Vec<u8>) -> (Answer, Policy) {
    let settings = &gateway.queue.settings;
    let Some(function) = shared.provider.catalog.named(&call.function) else {
        let text = format!("function {} does not exist any more", call.function);
        return (Answer::own(404, text), Policy::new(settings, &Default::default()));
    };
    let retry = Annotations::read(&function.deployed().spec.annotations).map(|all| all.retry).unwrap_or_default();
    let policy = Policy::new(settings, &retry);
    let keep = if call.callback.is_some() { settings.answer } else { 0 };
    function.invocations.fetch_add(1, Ordering::Relaxed);
    let mut counted = gateway.metrics.begin(Arc::clone(&function));
    let exchange = exchange(shared, &function, call, body, keep);
    let answer = match tokio::time::timeout(settings.ack_wait, exchange).await {
        Ok(answer) => answer,
        Err(_) => Answer::own(504, format!("{} did not answer within {}s", call.function, settings.ack_wait.as_secs())),
    };
    counted.ended(answer.status);
    (answer, policy)
}

/// A connection of its own for each call: one that is kept may have been closed by the function, and then whether
/// the call was made would be unknown.
async fn exchange(shared: &Shared, function: &Arc<Function>, call: &Call, body: Vec<u8>, keep: usize) -> Answer {
    let lease = match shared.provider.lease(function).await {
        Ok(lease) => lease,
        Err(Unserved::Gone(fault)) => return Answer::own(404, fault.to_string()),
        Err(Unserved::Full(fault)) => return Answer::own(429, fault.to_string()),
        Err(Unserved::Nobody { fault, .. }) => return Answer::own(503, fault.to_string()),
    };
    let broken = |why: String| {
        tracing::warn!(function = %function.key, why, "a replica cannot be reached");
        Answer::own(502, format!("Can't reach service for: {}.", function.key))
    };
    let connection = match upstream::fresh(&lease).await {
        Ok(connection) => connection,
        Err(error) => return broken(error.to_string()),
    };
    let head = headers::later(&connection.host, &call.path, &call.headers, body.len());
    let length = Some(body.len() as u64);
    let body = RequestBody::new(Payload::from(Bytes::from(body)), length);
    let upstream::Answer { head, body } = match connection.send(Outgoing::new(head, body)).await {
        Ok(answer) => answer,
        Err(error) => return broken(error.why.to_string()),
    };
    match collect(body, keep).await {
        Ok(Some(body)) => {
            let headers = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
            Answer { status: head.status.as_u16(), headers: headers.collect(), body }
        }
        Ok(None) => Answer::own(502, format!("the answer of {} is longer than {keep} bytes", function.key)),
        Err(error) => broken(error.to_string()),
    }
}

/// Reads a body to its end. With `keep` 0 nothing of it is kept; None where it is longer than `keep`.
async fn collect(mut incoming: upstream::Body, keep: usize) -> std::io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    let mut whole = true;
    while let Some(data) = poll_fn(|cx| incoming.poll_data(cx)).await {
        let data = data?;
        whole &= keep == 0 || body.len() + data.len() <= keep;
        if whole && keep > 0 {
            body.extend_from_slice(&data);
        }
    }
    Ok(whole.then_some(body))
}

async fn call_back(
    gateway: &Arc<Gateway>,
    shared: &Shared,
    call: &Call,
    target: Target,
    answer: Answer,
    took: Duration,
) {
    let added = [
        ("x-call-id", call.id.clone()),
        ("x-function-name", call.written.clone()),
        ("x-function-status", answer.status.to_string()),
        ("x-duration-seconds", format!("{:.6}", took.as_secs_f64())),
    ];
    let headers = callback::headers(&answer.headers, &added);
    let own = gateway.provider_address;
    let sent = shared.provider.run(move |_| Ok(callback::send(target, own, &headers, &answer.body))).await;
    let why = match sent {
        Ok(Ok(())) => return,
        Ok(Err(why)) => why,
        Err(fault) => fault.to_string(),
    };
    let url = call.callback.as_deref().unwrap_or_default();
    tracing::warn!(function = call.function, id = call.id, url, why, "an answer cannot be sent to its callback");
}
