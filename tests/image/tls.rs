//! Registries behind TLS: whose certificates are believed, and that nothing goes back to plain text.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use faas_jails::fault::Kind;
use faas_jails::image::Credentials;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::misbehaviour::{content, none, pull_with, quick};
use crate::server::{Answer, Server};
use crate::support::is_root;

/// An authority's certificate, and a server's certificate for `localhost` that it signed; made with openssl(1).
struct Authority {
    dir: tempfile::TempDir,
    server: Arc<ServerConfig>,
}

fn openssl(dir: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' ')).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success(), "openssl {arguments}");
}

impl Authority {
    /// `None`, loudly, where openssl(1) is not installed.
    fn new(test: &str) -> Option<Self> {
        if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: {test} needs the program openssl");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        std::fs::write(at.join("names"), "subjectAltName=DNS:localhost").unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(at, &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=test-authority"));
        openssl(at, &format!("req -new {key} -keyout server.key -out server.csr -subj /CN=localhost"));
        openssl(
            at,
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -set_serial 1 -days 2 -extfile names -out server.pem",
        );
        let certificate = CertificateDer::from_pem_file(at.join("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(at.join("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let server = server.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        Some(Self { dir, server: Arc::new(server) })
    }
}

/// By a name that means this host and is not one of those that are spoken to in plain text.
fn named(mut server: Server) -> Server {
    let port = server.address.rsplit_once(':').unwrap().1;
    server.address = format!("LOCALHOST:{port}");
    server
}

#[test]
fn a_registry_is_believed_by_a_configured_authority_only() {
    let test = "a_registry_is_believed_by_a_configured_authority_only";
    let Some(authority) = Authority::new(test).filter(|_| is_root(test)) else { return };
    let content = content();
    let server = named(Server::start_tls(authority.server.clone(), move |request| content.answer(request)));
    let mut settings = quick();
    settings.registries.attempts = 1;
    let fault = pull_with(&server, settings.clone(), &none()).1.unwrap_err();
    assert_eq!(fault.kind(), Kind::System, "{fault}");
    settings.registries.certificates = Some(authority.dir.path().join("ca.pem"));
    pull_with(&server, settings, &none()).1.unwrap();
}

#[test]
fn a_registry_is_spoken_to_in_plain_text_where_that_is_configured_only() {
    let test = "a_registry_is_spoken_to_in_plain_text_where_that_is_configured_only";
    if !is_root(test) {
        return;
    }
    let content = content();
    let server = named(Server::start(move |request| content.answer(request)));
    let mut settings = quick();
    settings.registries.attempts = 1;
    pull_with(&server, settings.clone(), &none()).1.unwrap_err();
    assert!(server.seen().is_empty(), "plain text was spoken unasked");
    settings.registries.insecure.insert(server.address.clone());
    pull_with(&server, settings, &none()).1.unwrap();
}

#[test]
fn no_redirect_and_no_token_server_leads_back_to_plain_text() {
    let test = "no_redirect_and_no_token_server_leads_back_to_plain_text";
    let Some(authority) = Authority::new(test).filter(|_| is_root(test)) else { return };
    let plain = Server::start(|_| Answer::new(200, "{}"));
    let mut settings = quick();
    settings.registries.certificates = Some(authority.dir.path().join("ca.pem"));
    let to = format!("http://{}/", plain.address);
    let realm = format!(r#"Bearer realm="{to}",service="x""#);
    for answer in [("Location", 307, to), ("WWW-Authenticate", 401, realm)] {
        let (header, status, value) = answer;
        let server = Server::start_tls(authority.server.clone(), move |_| Answer::new(status, "").with(header, &value));
        let server = named(server);
        let login = Credentials::basic(&server.address, "me", "pass");
        let fault = pull_with(&server, settings.clone(), &login).1.unwrap_err();
        assert!(fault.to_string().contains("not encrypted"), "{fault}");
    }
    assert!(plain.seen().is_empty());
}
