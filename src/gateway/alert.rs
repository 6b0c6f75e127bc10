//! POST /system/alert: Prometheus's Alertmanager asks for more replicas, or says that they are not needed any more.

use std::collections::BTreeMap;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Bytes, Data};
use serde::Deserialize;

use crate::api::Shared;
use crate::api::error::{ApiError, text};
use crate::fault::{Fault, Result};
use crate::function::FunctionKey;

/// What a function without the label scales up to, and by how many hundredths of that in one step (faas,
/// `gateway/scaling/ranges.go`).
const MAX: u32 = 5;
const FACTOR: u32 = 10;

/// Alertmanager's webhook message, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
struct Alert {
    #[serde(default)]
    status: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// Scales the functions that the alerts name: those firing up by a step, the others back to their least.
pub async fn scale(shared: Data<Shared>, body: Bytes) -> std::result::Result<HttpResponse, ApiError> {
    let message: Message = serde_json::from_slice(&body)
        .map_err(|e| Fault::invalid(format!("this is no message of Alertmanager: {e}")))?;
    let mut failed = Vec::new();
    for alert in message.alerts {
        if let Err(fault) = answer(&shared, alert).await {
            failed.push(fault.to_string());
        }
    }
    Ok(match failed.is_empty() {
        true => HttpResponse::Ok().finish(),
        false => text(StatusCode::INTERNAL_SERVER_ERROR, &failed.join("\n")),
    })
}

async fn answer(shared: &Shared, alert: Alert) -> Result<()> {
    let name = alert.labels.get("function_name").ok_or_else(|| {
        Fault::invalid("an alert without the label function_name; the rule must keep it: sum(...) by (function_name)")
    })?;
    let key = FunctionKey::parse(name, shared.provider.namespaces.default())?;
    let function = shared.provider.find(&key)?;
    let (deployed, now) = (function.deployed(), function.wanted());
    let label =
        |name: &str, otherwise| deployed.spec.labels.get(name).and_then(|n| n.parse().ok()).unwrap_or(otherwise);
    let range = Range {
        min: label("com.openfaas.scale.min", 1).max(1),
        max: label("com.openfaas.scale.max", MAX),
        factor: label("com.openfaas.scale.factor", FACTOR),
    };
    let wanted = range.next(now, alert.status == "firing");
    if wanted == now {
        return Ok(());
    }
    tracing::info!(function = %key, from = now, to = wanted, "scaling as an alert asks for");
    shared.provider.run(move |provider| provider.scale(&key, wanted)).await
}

/// The labels of a function that say how it scales.
struct Range {
    min: u32,
    max: u32,
    factor: u32,
}

impl Range {
    fn next(&self, now: u32, firing: bool) -> u32 {
        let max = self.max.max(self.min);
        let step = (u64::from(max) * u64::from(self.factor)).div_ceil(100);
        match firing {
            true => u64::from(now).saturating_add(step).clamp(u64::from(self.min), u64::from(max)) as u32,
            false => self.min,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firing_alert_is_a_step_up_and_any_other_one_the_way_back() {
        for (min, max, factor, now, firing, next) in [
            (1, 5, 10, 1, true, 2),
            (1, 5, 10, 5, true, 5),
            (1, 20, 20, 1, true, 5),
            (1, 20, 100, 1, true, 20),
            (2, 2, 10, 2, true, 2),
            (1, 20, 20, 9, false, 1),
            (3, 20, 20, 9, false, 3),
            (4, 2, 10, 1, true, 4),
            (1, 5, 10, 9, true, 5),
            (1, u32::MAX, 100, 7, true, u32::MAX),
        ] {
            let range = Range { min, max, factor };
            assert_eq!(range.next(now, firing), next, "{min}..{max} by {factor}%: {now}, firing: {firing}");
        }
    }
}
