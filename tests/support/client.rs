//! What tests ask of a provider over and over, as one call each.

use serde_json::{Value, json};

use super::daemon::Daemon;
use super::eventually;
use super::http::{Client, Request, Response};

/// The API of a provider.
pub struct Api {
    /// Requests to it.
    pub http: Client,
    /// What functions run that name no image.
    pub image: String,
    /// Whether it is some other provider, which may say 200 where this one says 202.
    pub foreign: bool,
}

impl Daemon {
    /// Loads an image archive through the API.
    #[track_caller]
    pub fn load(&self, archive: &[u8]) -> Response {
        let answer = self.http.request("POST", "/system/images/load").body(archive).send();
        assert!((200..300).contains(&answer.status), "loading an image: {} {}", answer.status, answer.text());
        answer
    }
}

impl Api {
    /// Creates a function from this, the probe's image where none is named, and waits for a ready replica.
    #[track_caller]
    pub fn deploy(&self, spec: Value) -> Response {
        let name = spec["service"].as_str().expect("a service").to_owned();
        let namespace = spec["namespace"].as_str().unwrap_or("openfaas-fn").to_owned();
        let answer = self.create(spec);
        let answer = if self.foreign && answer.status == 200 { answer } else { answer.expect(202) };
        let name = format!("{name}.{namespace}");
        eventually(&format!("{name} has a ready replica"), || (self.available(&name) > 0).then_some(()));
        answer
    }

    /// Creates a function, whatever comes of it.
    #[track_caller]
    pub fn create(&self, spec: Value) -> Response {
        self.http.json("POST", "/system/functions", &self.with_image(spec))
    }

    /// Updates a function, whatever comes of it.
    #[track_caller]
    pub fn update(&self, spec: Value) -> Response {
        self.http.json("PUT", "/system/functions", &self.with_image(spec))
    }

    /// Deletes a function, whatever comes of it.
    #[track_caller]
    pub fn delete(&self, name: &str) -> Response {
        self.http.json("DELETE", "/system/functions", &json!({"functionName": name}))
    }

    /// Wants so many replicas, whatever comes of it.
    #[track_caller]
    pub fn scale(&self, name: &str, replicas: u64) -> Response {
        let body = json!({"serviceName": name, "replicas": replicas});
        self.http.json("POST", &format!("/system/scale-function/{name}"), &body)
    }

    /// The status of a function that exists. `name` may have a namespace.
    #[track_caller]
    pub fn status(&self, name: &str) -> Value {
        self.http.get(&status_target(name)).expect(200).value()
    }

    /// How many replicas are ready.
    #[track_caller]
    pub fn available(&self, name: &str) -> u64 {
        self.status(name)["availableReplicas"].as_u64().unwrap_or(0)
    }

    /// Waits until exactly so many replicas are ready.
    #[track_caller]
    pub fn await_ready(&self, name: &str, replicas: u64) {
        eventually(&format!("{name} has {replicas} ready replicas"), || {
            (self.available(name) == replicas).then_some(())
        });
    }

    /// Starts an invocation.
    pub fn invoke(&self, method: &str, function_and_rest: &str) -> Request {
        self.http.request(method, &format!("/function/{function_and_rest}"))
    }

    /// Invokes by GET.
    #[track_caller]
    pub fn call(&self, function_and_rest: &str) -> Response {
        self.http.get(&format!("/function/{function_and_rest}"))
    }

    /// What the probe's /id tells of the replica that answered.
    #[track_caller]
    pub fn identity(&self, name: &str) -> Value {
        self.call(&format!("{name}/id")).expect(200).value()
    }

    /// The names of the functions in a namespace.
    #[track_caller]
    pub fn list(&self, namespace: &str) -> Vec<String> {
        let answer = self.http.get(&format!("/system/functions?namespace={namespace}")).expect(200).value();
        let all = answer.as_array().expect("an array").iter();
        let mut names: Vec<_> = all.map(|f| f["name"].as_str().expect("a name").to_owned()).collect();
        names.sort();
        names
    }

    fn with_image(&self, mut spec: Value) -> Value {
        if spec.get("image").is_none() {
            spec["image"] = json!(self.image);
        }
        spec
    }
}

fn status_target(name: &str) -> String {
    match name.split_once('.') {
        Some((name, namespace)) => format!("/system/function/{name}?namespace={namespace}"),
        None => format!("/system/function/{name}"),
    }
}
