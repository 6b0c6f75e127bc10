//! GET and POST /api/v1/query: as much of Prometheus's HTTP API as the stock gateway asks for.
//!
//! The gateway sets every function's invocation count to what Prometheus says, and without an answer it panics while
//! it lists functions. Pointed here, it needs no Prometheus. Its question, for each namespace:
//!
//! ```text
//! sum(gateway_function_invocation_total{function_name=~".*.NAMESPACE"}) by (function_name)
//! ```

use actix_web::HttpResponse;
use actix_web::web::{Bytes, Data, Query};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

use super::Shared;

/// The metric whose sums are known here.
const METRIC: &str = "gateway_function_invocation_total";

/// What is asked.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Question {
    query: String,
}

/// Answers the gateway's query with the number of invocations of each function, and refuses any other.
pub async fn query(shared: Data<Shared>, url: Query<Question>, body: Bytes) -> HttpResponse {
    let mut asked = url.into_inner().query;
    if asked.is_empty() {
        let form = std::str::from_utf8(&body).ok().and_then(|text| Query::<Question>::from_query(text).ok());
        asked = form.map(|form| form.into_inner().query).unwrap_or_default();
    }
    let Some(wanted) = Wanted::read(&asked) else {
        return HttpResponse::BadRequest().json(json!({
            "status": "error",
            "errorType": "bad_data",
            "error": format!("only sum({METRIC}{{function_name=~\"...\"}}) by (function_name) is known here; \
                              ask a Prometheus that scrapes /metrics for more"),
        }));
    };
    let now = jiff::Timestamp::now().as_millisecond() as f64 / 1000.0;
    let all = shared.provider.catalog.all();
    let counts: Vec<Value> = all
        .iter()
        .filter(|function| wanted.fits(function.full_name()))
        .map(|function| {
            let count = function.invocations.load(Ordering::Relaxed).to_string();
            json!({ "metric": { "function_name": function.full_name() }, "value": [now, count] })
        })
        .collect();
    HttpResponse::Ok().json(json!({ "status": "success", "data": { "resultType": "vector", "result": counts } }))
}

/// Which functions a query asks about.
#[derive(Debug, PartialEq)]
enum Wanted {
    All,
    /// Those whose name ends so.
    Ending(String),
    Named(String),
}

impl Wanted {
    fn read(query: &str) -> Option<Self> {
        let squeezed: String = query.chars().filter(|c| !c.is_whitespace()).collect();
        let inner = squeezed.strip_prefix("sum(")?.strip_suffix(")by(function_name)")?;
        let selector = inner.strip_prefix(METRIC)?;
        if selector.is_empty() || selector == "{}" {
            return Some(Self::All);
        }
        let matcher = selector.strip_prefix("{function_name=")?.strip_suffix("\"}")?;
        if let Some(name) = matcher.strip_prefix('"') {
            return plain(name).then(|| Self::Named(name.to_owned()));
        }
        match matcher.strip_prefix("~\"")?.strip_prefix(".*") {
            None => None,
            Some("") => Some(Self::All),
            // The dot before the namespace stands for any character, and is meant as a dot.
            Some(ending) => plain(ending).then(|| Self::Ending(ending.to_owned())),
        }
    }

    fn fits(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Ending(ending) => name.ends_with(ending.as_str()),
            Self::Named(wanted) => name == wanted,
        }
    }
}

/// Whether text means itself as a regular expression, but for its dots.
fn plain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_s_query_is_read_and_others_are_not() {
        let ask = |selector: &str| Wanted::read(&format!("sum({METRIC}{selector}) by (function_name)"));
        assert_eq!(ask(r#"{function_name=~".*.openfaas-fn"}"#), Some(Wanted::Ending(".openfaas-fn".into())));
        assert_eq!(ask(r#"{function_name=~".*"}"#), Some(Wanted::All));
        assert_eq!(ask(r#"{function_name="f.dev"}"#), Some(Wanted::Named("f.dev".into())));
        assert_eq!(ask(""), Some(Wanted::All));
        for selector in [r#"{code="200"}"#, r#"{function_name=~"a|b"}"#, r#"{function_name=~".*(a)"}"#, "{"] {
            assert_eq!(ask(selector), None, "{selector}");
        }
        assert_eq!(Wanted::read("up"), None);
        assert_eq!(Wanted::read(""), None);
        assert!(Wanted::Ending(".dev".into()).fits("f.dev") && !Wanted::Ending(".dev".into()).fits("f.dev2"));
    }
}
