//! Registries that cut connections, send elsewhere, ask for logins, or lie.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use faas_jails::fault::{Fault, Kind};
use faas_jails::image::{Credentials, Digest, Image, Progress, PullPolicy, Reference, Settings, Silent};
use faas_jails::storage::Whiteouts;

use crate::server::{Answer, Request, Server};
use crate::support::*;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// One image as a registry has it: documents and blobs by path.
#[derive(Clone)]
pub struct Content {
    by_path: Arc<HashMap<String, Vec<u8>>>,
    pub layer: String,
    manifest: Digest,
}

pub fn content() -> Content {
    // Bytes that no compressor shrinks, so that the blob is large enough to be cut several times.
    let noise: Vec<u8> =
        (0_u32..60_000).flat_map(|n| Digest::of(n.to_le_bytes()).hex().as_bytes()[..4].to_vec()).collect();
    let sample = Sample::new(vec![Tar::new().file("noise", noise).file("f", "pulled").end()]);
    let (blobs, descriptor) = sample.oci_blobs(gzip);
    let manifest: Digest = descriptor["digest"].as_str().unwrap().parse().unwrap();
    let mut by_path: HashMap<String, Vec<u8>> =
        blobs.iter().map(|blob| (format!("/v2/f/blobs/{}", Digest::of(blob)), blob.clone())).collect();
    let layer = format!("/v2/f/blobs/{}", Digest::of(&blobs[1]));
    for name in ["1".to_owned(), manifest.to_string()] {
        by_path.insert(format!("/v2/f/manifests/{name}"), blobs[2].clone());
    }
    Content { by_path: Arc::new(by_path), layer, manifest }
}

impl Content {
    /// The well-behaved answer.
    pub fn answer(&self, request: &Request) -> Answer {
        let Some(body) = self.by_path.get(&request.path) else { return Answer::new(404, "") };
        match request.range() {
            0 => Answer::new(200, body.clone()).with("Content-Type", MANIFEST),
            at => Answer::new(206, &body[at..])
                .with("Content-Range", format!("bytes {at}-{}/{}", body.len() - 1, body.len())),
        }
    }
}

pub fn quick() -> Settings {
    let mut settings = settings();
    settings.registries.backoff = Duration::from_millis(1);
    settings.registries.timeout = Duration::from_secs(5);
    settings
}

fn reference(server: &Server, rest: &str) -> Reference {
    format!("{}/{rest}", server.address).parse().unwrap()
}

pub fn pull_with(server: &Server, settings: Settings, credentials: &Credentials) -> (Bench, Result<Image, Fault>) {
    let bench = Bench::with(Whiteouts::Overlay, settings);
    let pulled = bench.store.pull(&reference(server, "f:1"), credentials, &Silent);
    bench.assert_clean();
    if let Ok(image) = &pulled {
        let file = bench.storage.dir(&image.layers[0]).join("f");
        assert_eq!(std::fs::read_to_string(file).unwrap(), "pulled");
    }
    (bench, pulled)
}

fn pull(server: &Server, credentials: &Credentials) -> Result<Image, Fault> {
    pull_with(server, quick(), credentials).1
}

pub fn none() -> Credentials {
    Credentials::default()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

macro_rules! needs_root {
    ($name:literal) => {
        if !is_root($name) {
            return;
        }
    };
}

#[test]
fn a_blob_is_resumed_where_the_connection_broke() {
    needs_root!("a_blob_is_resumed_where_the_connection_broke");
    let content = content();
    let layer = content.layer.clone();
    let server = Server::start(move |request| {
        let mut answer = content.answer(request);
        if request.path == content.layer {
            answer.cut = Some(answer.body.len().min(30_000));
        }
        answer
    });
    pull(&server, &none()).unwrap();
    let ranges: Vec<usize> = server.seen().iter().filter(|r| r.path == layer).map(Request::range).collect();
    assert!(ranges.len() > 3, "{ranges:?}");
    assert!(ranges.windows(2).all(|pair| pair[0] < pair[1]), "bytes were sent twice: {ranges:?}");
}

#[test]
fn a_registry_without_ranges_is_read_again_from_the_start() {
    needs_root!("a_registry_without_ranges_is_read_again_from_the_start");
    let content = content();
    let tries = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let whole = Request { headers: HashMap::new(), ..request.clone() };
        let mut answer = content.answer(&whole);
        if request.path == content.layer {
            let reach = 50_000 * (1 + tries.fetch_add(1, Ordering::SeqCst));
            answer.cut = Some(answer.body.len().min(reach));
        }
        answer
    });
    pull(&server, &none()).unwrap();
}

#[test]
fn a_blob_that_never_goes_on_is_given_up() {
    needs_root!("a_blob_that_never_goes_on_is_given_up");
    let content = content();
    let server = Server::start(move |request| {
        let mut answer = content.answer(request);
        if request.path == content.layer {
            answer.cut = Some(if request.range() == 0 { 1000 } else { 0 });
        }
        answer
    });
    let fault = pull(&server, &none()).unwrap_err();
    assert_eq!(fault.kind(), Kind::System);
    assert!(fault.to_string().contains("broke off at byte 1000"), "{fault}");
}

#[test]
fn what_fails_for_a_moment_is_tried_again() {
    needs_root!("what_fails_for_a_moment_is_tried_again");
    let content = content();
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| match count.fetch_add(1, Ordering::SeqCst) % 3 {
        0 => Answer::new(503, ""),
        1 => Answer::new(429, "").with("Retry-After", 0),
        _ => content.answer(request),
    });
    pull(&server, &none()).unwrap();
    let always = Server::start(|_| Answer::new(500, r#"{"errors":[{"message":"disk on fire"}]}"#));
    let fault = pull(&always, &none()).unwrap_err();
    assert_eq!(fault.kind(), Kind::System);
    assert!(fault.to_string().contains("disk on fire") && fault.to_string().contains(&always.address), "{fault}");
}

#[test]
fn a_token_is_fetched_with_the_login_and_used() {
    needs_root!("a_token_is_fetched_with_the_login_and_used");
    let tokens = Server::start(|request| match request.header("authorization") {
        Some(login) if login == basic("me", "pass") => Answer::new(200, r#"{"token":"t0k3n"}"#),
        Some(_) => Answer::new(401, ""),
        None => Answer::new(200, r#"{"access_token":"anonymous"}"#),
    });
    let content = content();
    let realm = format!("http://{}/token", tokens.address);
    let server = Server::start(move |request| match request.header("authorization") {
        Some("Bearer t0k3n") => content.answer(request),
        Some("Bearer anonymous") => Answer::new(403, ""),
        _ => Answer::new(401, "")
            .with("WWW-Authenticate", format!(r#"Bearer realm="{realm}",service="reg",scope="repository:f:pull""#)),
    });
    pull(&server, &Credentials::basic(&server.address, "me", "pass")).unwrap();
    let asked = tokens.seen();
    assert_eq!(asked.len(), 1, "one token serves the whole pull: {asked:?}");
    assert_eq!(asked[0].path, "/token?scope=repository%3Af%3Apull&service=reg");
    assert!(server.seen().iter().all(|r| r.header("authorization").is_none_or(|a| a.starts_with("Bearer "))));

    let wrong = pull(&server, &Credentials::basic(&server.address, "me", "wrong")).unwrap_err();
    assert_eq!(wrong.kind(), Kind::Denied, "{wrong}");
    assert!(wrong.to_string().contains("check the login"), "{wrong}");
    let nobody = pull(&server, &none()).unwrap_err();
    assert_eq!(nobody.kind(), Kind::Denied, "{nobody}");
    let elsewhere = pull(&server, &Credentials::basic("other.example", "me", "pass")).unwrap_err();
    assert_eq!(elsewhere.kind(), Kind::Denied, "{elsewhere}");
}

#[test]
fn an_identity_token_is_exchanged() {
    needs_root!("an_identity_token_is_exchanged");
    let content = content();
    let tokens = Server::start(|request| {
        let form = String::from_utf8(request.body.clone()).unwrap();
        match request.method == "POST"
            && form.contains("grant_type=refresh_token")
            && form.contains("refresh_token=idt")
        {
            true => Answer::new(200, r#"{"access_token":"t0k3n"}"#),
            false => Answer::new(401, ""),
        }
    });
    let realm = format!("http://{}/token", tokens.address);
    let server = Server::start(move |request| match request.header("authorization") {
        Some("Bearer t0k3n") => content.answer(request),
        _ => Answer::new(401, "").with("WWW-Authenticate", format!(r#"Bearer realm="{realm}",service="reg""#)),
    });
    let config = format!(r#"{{"auths":{{"http://{}/v2/":{{"identitytoken":"idt"}}}}}}"#, server.address);
    pull(&server, &Credentials::from_docker_config(config.as_bytes()).unwrap()).unwrap();
}

#[test]
fn basic_logins_come_from_the_caller_or_from_the_docker_config() {
    needs_root!("basic_logins_come_from_the_caller_or_from_the_docker_config");
    let content = content();
    let server = Server::start(move |request| match request.header("authorization") {
        Some(login) if login == basic("me", "pass") => content.answer(request),
        _ => Answer::new(401, "").with("WWW-Authenticate", r#"Basic realm="x""#),
    });
    pull(&server, &Credentials::basic(&server.address, "me", "pass")).unwrap();
    assert_eq!(pull(&server, &none()).unwrap_err().kind(), Kind::Denied);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"bWU6cGFzcw=="}}}}}}"#, server.address)).unwrap();
    let mut settings = quick();
    settings.registries.docker_config = Some(file.path().to_owned());
    pull_with(&server, settings, &none()).1.unwrap();
}

#[test]
fn a_redirect_to_another_host_carries_no_login() {
    needs_root!("a_redirect_to_another_host_carries_no_login");
    let content = content();
    let elsewhere = content.clone();
    let cdn = Server::start(move |request| elsewhere.answer(request));
    let away = cdn.address.clone();
    let server = Server::start(move |request| match request.header("authorization") {
        None => Answer::new(401, "").with("WWW-Authenticate", "Basic realm=x"),
        Some(_) if request.path == content.layer => {
            Answer::new(307, "").with("Location", format!("http://{away}{}", request.path))
        }
        Some(_) => content.answer(request),
    });
    pull(&server, &Credentials::basic(&server.address, "me", "pass")).unwrap();
    let seen = cdn.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("authorization"), None);
}

#[test]
fn a_challenge_from_another_host_is_not_answered() {
    needs_root!("a_challenge_from_another_host_is_not_answered");
    let evil_tokens = Server::start(|_| Answer::new(200, r#"{"token":"x"}"#));
    let realm = format!("http://{}/token", evil_tokens.address);
    let evil = Server::start(move |_| {
        Answer::new(401, "").with("WWW-Authenticate", format!(r#"Bearer realm="{realm}",service="x", Basic realm="x""#))
    });
    let away = evil.address.clone();
    let content = content();
    let server = Server::start(move |request| match request.path == content.layer {
        true => Answer::new(307, "").with("Location", format!("http://{away}/")),
        false => content.answer(request),
    });
    let fault = pull(&server, &Credentials::basic(&server.address, "me", "pass")).unwrap_err();
    assert_eq!(fault.kind(), Kind::Denied, "{fault}");
    assert!(evil_tokens.seen().is_empty());
    assert!(evil.seen().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn redirects_end() {
    needs_root!("redirects_end");
    let server = Server::start(|request| Answer::new(307, "").with("Location", format!("{}x", request.path)));
    let fault = pull(&server, &none()).unwrap_err();
    assert!(fault.to_string().contains("redirects"), "{fault}");
}

#[test]
fn a_foreign_layer_url_is_never_followed() {
    needs_root!("a_foreign_layer_url_is_never_followed");
    let evil = Server::start(|_| Answer::new(200, "x"));
    let content = content();
    let body = String::from_utf8(content.by_path["/v2/f/manifests/1"].clone()).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&body).unwrap();
    manifest["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
    manifest["layers"][0]["urls"] = serde_json::json!([format!("http://{}/layer", evil.address)]);
    let manifest = manifest.to_string();
    let server = Server::start(move |request| match request.path.as_str() {
        "/v2/f/manifests/1" => Answer::new(200, manifest.clone()),
        path if path == content.layer => Answer::new(404, ""),
        _ => content.answer(request),
    });
    let fault = pull(&server, &Credentials::basic(&server.address, "me", "pass")).unwrap_err();
    assert_eq!(fault.kind(), Kind::NotFound, "{fault}");
    assert!(fault.to_string().contains("outside of the registry"), "{fault}");
    assert!(evil.seen().is_empty());
}

#[test]
fn lies_are_noticed() {
    needs_root!("lies_are_noticed");
    // Another manifest than the digest asked for.
    let content = content();
    let digest = content.manifest.clone();
    let other = content.clone();
    let server = Server::start(move |request| match request.path.contains("/manifests/") {
        true => Answer::new(200, br#"{"schemaVersion":2,"config":{},"layers":[]}"#),
        false => other.answer(request),
    });
    let bench = Bench::with(Whiteouts::Overlay, quick());
    let pinned = reference(&server, &format!("f@{digest}"));
    let fault = bench.store.pull(&pinned, &none(), &Silent).unwrap_err();
    assert!(fault.to_string().contains("when asked for"), "{fault}");
    // A layer with one bit turned, and one that is longer or shorter than the manifest says.
    for damage in [0, 1, 2] {
        let content = content.clone();
        let server = Server::start(move |request| {
            let mut answer = content.answer(request);
            if request.path == content.layer {
                let last = answer.body.len() - 1;
                match damage {
                    0 => answer.body[last / 2] ^= 1,
                    1 => answer.body[last] ^= 1,
                    _ => answer.body.truncate(last),
                }
            }
            answer
        });
        pull(&server, &none()).unwrap_err();
    }
    // A manifest without end.
    let server = Server::start(|_| Answer::new(200, vec![b' '; 5 << 20]));
    let fault = pull(&server, &none()).unwrap_err();
    assert!(fault.to_string().contains("limit"), "{fault}");
}

/// Keeps the warnings.
#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Progress for Warnings {
    fn layers(&self, _: usize) {}
    fn layer_started(&self, _: &Digest, _: Option<u64>) {}
    fn bytes(&self, _: &Digest, _: u64) {}
    fn layer_done(&self, _: &Digest) {}
    fn warn(&self, sentence: &str) {
        self.0.lock().unwrap().push(sentence.to_owned());
    }
}

#[test]
fn mirrors_are_asked_first_without_the_registrys_login() {
    needs_root!("mirrors_are_asked_first_without_the_registrys_login");
    let content = content();
    let (at_mirror, at_home) = (content.clone(), content.clone());
    let mirror = Server::start(move |request| at_mirror.answer(request));
    let home = Server::start(move |request| at_home.answer(request));
    let broken = Server::start(|_| Answer::new(404, ""));
    let mut settings = quick();
    settings.registries.mirrors.insert(home.address.clone(), vec![broken.address.clone(), mirror.address.clone()]);
    let bench = Bench::with(Whiteouts::Overlay, settings);
    let warnings = Warnings::default();
    let login = Credentials::basic(&home.address, "me", "pass");
    bench.store.pull(&reference(&home, "f:1"), &login, &warnings).unwrap();
    assert!(home.seen().is_empty());
    assert!(mirror.seen().iter().chain(&broken.seen()).all(|request| request.header("authorization").is_none()));
    let warnings = warnings.0.into_inner().unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains(&broken.address), "{warnings:?}");
}

#[test]
fn an_image_that_is_here_is_used_with_a_warning_when_its_registry_is_away() {
    needs_root!("an_image_that_is_here_is_used_with_a_warning_when_its_registry_is_away");
    let content = content();
    let server = Server::start(move |request| content.answer(request));
    let (bench, image) = pull_with(&server, quick(), &none());
    drop(server);
    let (image, warnings) = (image.unwrap(), Warnings::default());
    let again = bench.store.ensure(&image.reference, PullPolicy::Always, &none(), &warnings).unwrap();
    assert_eq!(again, image);
    let warnings = warnings.0.into_inner().unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains("is used, because"), "{warnings:?}");
}

#[test]
fn a_credential_helper_is_named_and_not_run() {
    needs_root!("a_credential_helper_is_named_and_not_run");
    let content = content();
    let server = Server::start(move |request| content.answer(request));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, format!(r#"{{"credHelpers":{{"{}":"evil"}}}}"#, server.address)).unwrap();
    let mut settings = quick();
    settings.registries.docker_config = Some(file.path().to_owned());
    let bench = Bench::with(Whiteouts::Overlay, settings);
    let warnings = Warnings::default();
    bench.store.pull(&reference(&server, "f:1"), &none(), &warnings).unwrap();
    assert!(warnings.0.into_inner().unwrap()[0].contains("helpers are not run"));
}
