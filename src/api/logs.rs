//! /system/logs: one JSON message a line, as it comes.

use std::time::{Duration, Instant};

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Data};
use futures_util::stream;

use super::Shared;
use super::error::ApiError;
use super::wire::go_bool;
use crate::fault::Result;
use crate::function::FunctionKey;
use crate::logs::{Last, Message, Reader, TICK};

/// The stream ends this long before `write_timeout`, so that the gateway, which has the same one, sees a clean end.
const EARLY: Duration = Duration::from_millis(500);

/// What is shown when the request names neither a time nor a number of lines.
const WINDOW: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

struct LogQuery {
    name: String,
    namespace: String,
    instance: Option<String>,
    tail: Option<usize>,
    since: Option<jiff::Timestamp>,
    follow: bool,
}

/// Reads the query; of repeated keys the last one counts.
fn read(query: &str) -> Result<LogQuery, ApiError> {
    let bad = || ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "could not parse the log request");
    let mut read = LogQuery {
        name: String::new(),
        namespace: String::new(),
        instance: None,
        tail: None,
        since: None,
        follow: false,
    };
    let pairs = actix_web::web::Query::<Vec<(String, String)>>::from_query(query).map_err(|_| bad())?;
    for (key, value) in pairs.into_inner() {
        match key.as_str() {
            "name" => read.name = value,
            "namespace" => read.namespace = value,
            "instance" => read.instance = Some(value).filter(|v| !v.is_empty()),
            "tail" if !value.is_empty() => {
                let lines: i64 = value.parse().map_err(|_| bad())?;
                read.tail = usize::try_from(lines).ok().filter(|n| *n > 0);
            }
            "since" if !value.is_empty() => read.since = Some(value.parse().map_err(|_| bad())?),
            "follow" => read.follow = go_bool(&value),
            _ => {}
        }
    }
    Ok(read)
}

/// GET /system/logs.
pub async fn stream(shared: Data<Shared>, request: actix_web::HttpRequest) -> Result<HttpResponse, ApiError> {
    let query = read(request.query_string())?;
    if query.name.is_empty() {
        return Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "could not parse the log request: name is required",
        ));
    }
    let namespaces = &shared.provider.namespaces;
    let key = FunctionKey::parse(&query.name, &namespaces.resolve(&query.namespace)?)?;
    shared.provider.find(&key)?;
    // With a number of lines but no time, all that is kept counts.
    let since = query.since.or_else(|| query.tail.is_none().then(|| jiff::Timestamp::now() - WINDOW));
    let lasts = shared.provider.config.write_timeout.saturating_sub(EARLY);
    let follow = Follow {
        shared: shared.get_ref().clone(),
        reader: Some(shared.provider.logs.reader(&key, query.instance)),
        key,
        since,
        tail: query.tail,
        follow: query.follow,
        until: Instant::now() + lasts,
        state: State::First,
    };
    let body = stream::unfold(follow, |mut follow| async move {
        let chunk = follow.next().await?;
        Some((chunk, follow))
    });
    Ok(HttpResponse::Ok().content_type("application/x-ndjson").streaming(body))
}

enum State {
    First,
    Following,
    Done,
}

struct Follow {
    shared: Shared,
    key: FunctionKey,
    reader: Option<Reader>,
    since: Option<jiff::Timestamp>,
    tail: Option<usize>,
    follow: bool,
    until: Instant,
    state: State,
}

impl Follow {
    /// The next lines, or the end. An empty chunk sends the headers out at once.
    async fn next(&mut self) -> Option<Result<Bytes, actix_web::Error>> {
        loop {
            match self.state {
                State::Done => return None,
                State::First => {
                    self.state = if self.follow { State::Following } else { State::Done };
                    let last = if self.follow { Last::WholeLinesOnly } else { Last::WithPartial };
                    let mut lines = self.read(last).await.unwrap_or_default();
                    if let Some(since) = self.since {
                        lines.retain(|line| line.timestamp >= since);
                    }
                    if let Some(tail) = self.tail {
                        lines.drain(..lines.len().saturating_sub(tail));
                    }
                    if !lines.is_empty() {
                        return Some(Ok(encode(&lines)));
                    }
                }
                State::Following => {
                    tokio::time::sleep(TICK).await;
                    let gone = self.shared.provider.catalog.get(&self.key).is_none();
                    if gone || Instant::now() >= self.until {
                        self.state = State::Done;
                        continue;
                    }
                    match self.read(Last::WholeLinesOnly).await {
                        Ok(lines) if lines.is_empty() => {}
                        Ok(lines) => return Some(Ok(encode(&lines))),
                        Err(fault) => {
                            tracing::warn!(function = %self.key, %fault, "a log stream ends early");
                            self.state = State::Done;
                        }
                    }
                }
            }
        }
    }

    async fn read(&mut self, last: Last) -> Result<Vec<Message>> {
        let mut reader = self.reader.take().expect("given back after each read");
        let (reader, lines) = self
            .shared
            .provider
            .run(move |_| {
                let lines = reader.next(last);
                Ok((reader, lines))
            })
            .await?;
        self.reader = Some(reader);
        lines
    }
}

fn encode(lines: &[Message]) -> Bytes {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, line).expect("writing to memory");
        bytes.push(b'\n');
    }
    bytes.into()
}
