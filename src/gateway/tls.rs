//! TLS on the standalone port: a certificate and its key in files, read at start and again at SIGHUP.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::fault::{Context, Fault, Result};

/// What the port shows its clients; can be replaced while it serves.
#[derive(Debug)]
pub struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
}

impl Certificate {
    /// Reads the chain, the port's own certificate first, and its key; both in PEM.
    pub fn read(chain: &Path, key: &Path) -> Result<Arc<Self>> {
        let current = ArcSwap::new(Arc::new(read(chain, key)?));
        Ok(Arc::new(Self { chain: chain.to_owned(), key: key.to_owned(), current }))
    }

    /// Reads the files again. New connections get what they hold now; on failure, what they held before.
    pub fn reload(&self) -> Result<()> {
        self.current.store(Arc::new(read(&self.chain, &self.key)?));
        Ok(())
    }

    /// What a server needs: TLS 1.2 or 1.3, nothing asked of clients.
    pub fn server(self: &Arc<Self>) -> Result<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| Fault::invalid(e.to_string()))?;
        Ok(builder.with_no_client_auth().with_cert_resolver(self.clone()))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read(chain: &Path, key: &Path) -> Result<CertifiedKey> {
    let bytes = |path: &Path| std::fs::read(path).context(|| format!("cannot read {}", path.display()));
    let certificates = CertificateDer::pem_slice_iter(&bytes(chain)?)
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(|e| Fault::invalid(format!("{} holds no PEM certificate: {e}", chain.display())))?;
    if certificates.is_empty() {
        return Err(Fault::invalid(format!("{} holds no PEM certificate", chain.display())));
    }
    let private = PrivateKeyDer::from_pem_slice(&bytes(key)?)
        .map_err(|e| Fault::invalid(format!("{} holds no PEM private key: {e}", key.display())))?;
    CertifiedKey::from_der(certificates, private, &ring::default_provider())
        .map_err(|e| Fault::invalid(format!("{} and {} do not fit together: {e}", chain.display(), key.display())))
}
