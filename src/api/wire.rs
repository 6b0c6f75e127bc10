//! The JSON of the faas-provider API (faas-provider, `types/`), and its way to and from validated types.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};

use crate::fault::{Context, Fault, Result};
use crate::function::{FunctionKey, FunctionName, Namespace, Quantity, Resources};
use crate::provider::{Annotations, Desired, Function, Rules, Usage};
use crate::secrets;

/// `FunctionDeployment`: what POST and PUT send. Names are lower-case for [`super::gojson`].
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Deployment {
    pub service: String,
    pub image: String,
    pub namespace: String,
    pub envprocess: String,
    pub envvars: BTreeMap<String, String>,
    pub constraints: Vec<String>,
    pub secrets: Vec<String>,
    pub labels: Option<BTreeMap<String, String>>,
    pub annotations: Option<BTreeMap<String, String>>,
    pub limits: Option<Resources>,
    pub requests: Option<Resources>,
    pub readonlyrootfilesystem: bool,
}

impl Deployment {
    /// Checks every field. `namespace` has been resolved already.
    pub fn check(self, namespace: Namespace) -> Result<Desired> {
        let required = |field: &str, value: &str| match value {
            "" => Err(Fault::invalid(format!("validation failed: {field}: is required"))),
            _ => Ok(()),
        };
        required("service", &self.service)?;
        required("image", &self.image)?;
        let name: FunctionName = self.service.parse().context(|| "validation failed")?;
        let labels = self.labels.unwrap_or_default();
        for (kind, resources) in [("limits", &self.limits), ("requests", &self.requests)] {
            check_resources(resources.as_ref()).context(|| format!("validation failed: {kind}"))?;
        }
        let annotations = self.annotations.unwrap_or_default();
        Annotations::read(&annotations).context(|| "validation failed")?;
        Rules::read(&labels, &annotations, &Default::default()).context(|| "validation failed")?;
        for name in &self.secrets {
            secrets::check_name(name).context(|| "validation failed")?;
        }
        for (key, value) in &self.envvars {
            if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
                let key = key.escape_debug();
                return Err(Fault::invalid(format!("validation failed: envVars: ({key}) cannot be a variable")));
            }
        }
        Ok(Desired {
            key: FunctionKey { namespace, name },
            image: self.image.parse().context(|| "validation failed")?,
            env_process: Some(self.envprocess).filter(|p| !p.is_empty()),
            env: self.envvars,
            secrets: self.secrets,
            labels,
            annotations,
            constraints: self.constraints,
            limits: self.limits.filter(|r| *r != Resources::default()),
            requests: self.requests.filter(|r| *r != Resources::default()),
            read_only_root: self.readonlyrootfilesystem,
        })
    }
}

fn check_resources(resources: Option<&Resources>) -> Result<()> {
    let Some(resources) = resources else { return Ok(()) };
    for (name, text) in [("memory", &resources.memory), ("cpu", &resources.cpu)] {
        if let Some(text) = text.as_ref().filter(|t| !t.is_empty())
            && text.parse::<Quantity>().context(|| name)?.millis() == 0
        {
            return Err(Fault::invalid(format!("{name} ({text}) is invalid: it must be more than nothing")));
        }
    }
    Ok(())
}

/// `FunctionStatus`: what GET answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status<'a> {
    name: &'a str,
    namespace: &'a str,
    image: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    env_process: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env_vars: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    constraints: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    secrets: &'a [String],
    labels: std::borrow::Cow<'a, BTreeMap<String, String>>,
    annotations: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<&'a Resources>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<&'a Resources>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_only_root_filesystem: bool,
    invocation_count: f64,
    replicas: u32,
    available_replicas: usize,
    created_at: jiff::Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<WireUsage>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WireUsage {
    cpu: f64,
    total_memory_bytes: f64,
}

/// A function's status as JSON bytes.
pub fn status(function: &Function, usage: Option<Usage>, label: bool) -> Result<Vec<u8>> {
    let deployed = function.deployed();
    let spec = &deployed.spec;
    let mut labels = std::borrow::Cow::Borrowed(&spec.labels);
    if label {
        labels.to_mut().insert("faas_function".into(), spec.key.name.to_string());
    }
    let status = Status {
        name: spec.key.name.as_str(),
        namespace: spec.key.namespace.as_str(),
        image: spec.image.as_written(),
        env_process: spec.env_process.as_deref(),
        env_vars: &spec.env,
        constraints: &spec.constraints,
        secrets: &spec.secrets,
        labels,
        annotations: &spec.annotations,
        limits: spec.limits.as_ref(),
        requests: spec.requests.as_ref(),
        read_only_root_filesystem: spec.read_only_root,
        invocation_count: function.invocations.load(std::sync::atomic::Ordering::Relaxed) as f64,
        replicas: function.wanted(),
        available_replicas: function.available(),
        created_at: spec.created,
        usage: usage.map(|u| WireUsage { cpu: u.cpu_millis, total_memory_bytes: u.memory }),
    };
    serde_json::to_vec(&status).map_err(|e| Fault::new(crate::fault::Kind::System, e.to_string()))
}

/// `DeleteFunctionRequest`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct DeleteRequest {
    pub functionname: String,
    pub namespace: String,
}

/// `ScaleServiceRequest`; the name is taken from the path.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ScaleRequest {
    pub replicas: u64,
    pub namespace: String,
}

/// `Secret`, as sent.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct SecretBody {
    pub name: String,
    pub namespace: String,
    value: String,
    #[serde(deserialize_with = "bytes")]
    rawvalue: Vec<u8>,
}

impl SecretBody {
    /// The secret itself: the raw bytes if there are any.
    pub fn bytes(&self) -> &[u8] {
        if self.rawvalue.is_empty() { self.value.as_bytes() } else { &self.rawvalue }
    }
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(|e| serde::de::Error::custom(format!("rawValue is no base64: {e}")))
}

/// `FunctionNamespace`, both ways.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NamespaceBody {
    pub name: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Query parameters of /system routes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Query {
    pub namespace: String,
    pub usage: String,
}

/// A boolean as Go's `strconv.ParseBool` reads it; anything else is false.
pub fn go_bool(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "TRUE" | "true" | "True")
}
