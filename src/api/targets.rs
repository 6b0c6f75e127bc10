//! GET /system/targets: where functions' own metrics are, for Prometheus's HTTP service discovery
//! (prometheus.io, "Writing HTTP service discovery").

use std::collections::BTreeMap;
use std::net::SocketAddr;

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde::Serialize;

use super::Shared;
use crate::provider::Function;

/// Where watchdogs serve their metrics (of-watchdog, classic-watchdog: fixed).
const PORT: u16 = 8081;

/// Annotations with which a function says otherwise, as Kubernetes users know them.
const SCRAPE: &str = "prometheus.io/scrape";
const SCRAPE_DOTTED: &str = "prometheus.io.scrape";
const OWN_PORT: &str = "prometheus.io/port";
const OWN_PATH: &str = "prometheus.io/path";

/// The replicas of one function.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct Group {
    targets: Vec<String>,
    labels: BTreeMap<&'static str, String>,
}

/// GET /system/targets: a group for each function that has replicas and does not opt out.
pub async fn list(shared: Data<Shared>) -> HttpResponse {
    let groups: Vec<Group> = shared.provider.catalog.all().iter().filter_map(|f| group(f)).collect();
    HttpResponse::Ok().json(groups)
}

fn group(function: &Function) -> Option<Group> {
    let ready = function.ready();
    let spec = &function.deployed().spec;
    let place = Place::of(&spec.annotations)?;
    let mut labels = BTreeMap::from([
        ("function_name", function.key.to_string()),
        ("namespace", function.key.namespace.to_string()),
    ]);
    labels.extend(place.path.map(|path| ("__metrics_path__", path)));
    let targets: Vec<String> =
        ready.iter().map(|replica| SocketAddr::new(replica.address.ip(), place.port).to_string()).collect();
    (!targets.is_empty()).then_some(Group { targets, labels })
}

/// Where one function's metrics are.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    port: u16,
    path: Option<String>,
}

impl Place {
    /// `None` when the function has none.
    fn of(annotations: &BTreeMap<String, String>) -> Option<Self> {
        if [SCRAPE, SCRAPE_DOTTED].iter().any(|name| annotations.get(*name).is_some_and(|value| value == "false")) {
            return None;
        }
        let port = annotations.get(OWN_PORT).and_then(|text| text.parse().ok()).unwrap_or(PORT);
        Some(Self { port, path: annotations.get(OWN_PATH).cloned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_say_where_metrics_are_or_that_there_are_none() {
        let place = |pairs: &[(&str, &str)]| {
            Place::of(&pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
        };
        assert_eq!(place(&[]), Some(Place { port: 8081, path: None }));
        assert_eq!(
            place(&[("prometheus.io/port", "9100"), ("prometheus.io/path", "/m"), ("prometheus.io/scrape", "true")]),
            Some(Place { port: 9100, path: Some("/m".into()) })
        );
        for name in ["prometheus.io/scrape", "prometheus.io.scrape"] {
            assert_eq!(place(&[(name, "false")]), None);
        }
    }
}
