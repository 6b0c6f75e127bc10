//! GET /openapi.json: what each port serves, as an OpenAPI document. `openapi.json` describes both; an operation that
//! only one has says so in `x-port`. A test in [`super::routes`] compares it with the routers.

use std::sync::OnceLock;

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde_json::Value;

/// A port whose API is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// The provider's.
    Provider,
    /// The standalone port.
    Gateway,
}

impl Served {
    fn name(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Gateway => "gateway",
        }
    }
}

/// GET /openapi.json.
pub async fn document(served: Data<Served>) -> HttpResponse {
    HttpResponse::Ok().content_type("application/json").body(text(*served.get_ref()))
}

/// The description of a port.
pub fn text(served: Served) -> &'static str {
    static TEXTS: [OnceLock<String>; 2] = [const { OnceLock::new() }; 2];
    TEXTS[served as usize].get_or_init(|| of_port(include_str!("openapi.json"), served))
}

/// Takes out what the port has not.
fn of_port(text: &str, served: Served) -> String {
    let mut document: Value = serde_json::from_str(text).expect("openapi.json is JSON");
    let here = |item: &Value| item.get("x-port").is_none_or(|port| port == served.name());
    if let Some(paths) = document["paths"].as_object_mut() {
        paths.retain(|_, item| here(item));
    }
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document.to_string()
}
