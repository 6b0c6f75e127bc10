//! JSON as Go's encoding/json reads it, which is what stock clients rely on: keys match in any case, `null` means
//! the zero value, unknown keys are ignored.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::fault::{Fault, Result};

/// Fields whose own keys are field names too, not the user's.
const NESTED: [&str; 2] = ["limits", "requests"];

/// Reads a request body into a struct whose field names are all lower-case, with defaults for absent ones.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    let bad = |e: serde_json::Error| Fault::invalid(format!("failed to unmarshal request: {e}"));
    let value: Value = serde_json::from_slice(body).map_err(bad)?;
    let object = match value {
        Value::Object(object) => object,
        Value::Null => Map::new(),
        _ => return Err(Fault::invalid("failed to unmarshal request: a JSON object is needed")),
    };
    serde_json::from_value(Value::Object(fold(object))).map_err(bad)
}

fn fold(object: Map<String, Value>) -> Map<String, Value> {
    let mut folded = Map::new();
    for (key, value) in object {
        let key = key.to_lowercase();
        let value = match value {
            Value::Null => continue,
            Value::Object(inner) if NESTED.contains(&key.as_str()) => Value::Object(fold(inner)),
            Value::Object(inner) => Value::Object(inner.into_iter().map(|(k, v)| (k, zero_text(v))).collect()),
            Value::Array(items) => Value::Array(items.into_iter().map(zero_text).collect()),
            other => other,
        };
        folded.insert(key, value);
    }
    folded
}

/// Maps and lists in this API hold text; Go reads `null` there as the empty one.
fn zero_text(value: Value) -> Value {
    if value.is_null() { Value::String(String::new()) } else { value }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Deployment, ScaleRequest, SecretBody};
    use super::*;

    #[test]
    fn stock_bodies_are_read() {
        let body = br#"{"service":"f","image":"i","envprocess":"x","Labels":null,"annotations":null,"network":"n",
            "envVars":{"A":"1","b":null},"limits":{"Memory":"1Mi","cpu":null},"requests":null,"SECRETS":["s"],"registryAuth":""}"#;
        let read: Deployment = decode(body).unwrap();
        assert_eq!((read.service.as_str(), read.envprocess.as_str()), ("f", "x"));
        assert_eq!(read.envvars["b"], "");
        assert_eq!(read.limits.unwrap().memory.as_deref(), Some("1Mi"));
        assert!(read.labels.is_none() && read.requests.is_none());
        assert_eq!(read.secrets, ["s"]);
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for body in ["", "{", "[]", "\"x\"", r#"{"service":1}"#, r#"{"labels":{"a":1}}"#, r#"{"secrets":"x"}"#] {
            assert!(decode::<Deployment>(body.as_bytes()).is_err(), "{body}");
        }
        for body in [r#"{"replicas":-1}"#, r#"{"replicas":1.5}"#, r#"{"replicas":"1"}"#] {
            assert!(decode::<ScaleRequest>(body.as_bytes()).is_err(), "{body}");
        }
        assert!(decode::<SecretBody>(br#"{"rawValue":"not base64!"}"#).is_err());
        assert_eq!(decode::<Deployment>(b"null").unwrap().service, "");
    }
}
