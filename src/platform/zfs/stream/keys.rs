//! Ed25519 keys in the files that openssl(1) writes: `openssl genpkey -algorithm ed25519 -out image.key` and
//! `openssl pkey -in image.key -pubout -out image.pub` (PKCS#8, RFC 5958, and SubjectPublicKeyInfo, RFC 8410).

use std::path::Path;

use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

use crate::fault::{Context, Fault, Kind, Result};

/// What a SubjectPublicKeyInfo of an Ed25519 key begins with (RFC 8410, section 10.1); 32 bytes of key follow.
const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What is signed begins with this, so that a signature means one thing only.
const CONTEXT: &[u8] = b"faas-jails image archive 1\n";

/// A private key.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// Reads a private key file.
    pub fn read(path: &Path) -> Result<Self> {
        let pem = std::fs::read(path).context(|| format!("cannot read key {}", path.display()))?;
        Self::parse(&pem).context(|| format!("cannot use key {}", path.display()))
    }

    /// Reads a private key: PEM, PKCS#8.
    pub fn parse(pem: &[u8]) -> Result<Self> {
        let no_key =
            || Fault::invalid("it is no Ed25519 private key: make one with openssl genpkey -algorithm ed25519");
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|error| no_key().because(error))?;
        // openssl leaves out the public half, which is what "unchecked" is about.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der());
        pair.map(Self).map_err(|error| no_key().because(error.to_string()))
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(&[CONTEXT, message].concat()).as_ref().to_vec()
    }
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    /// Reads a public key file.
    pub fn read(path: &Path) -> Result<Self> {
        let pem = std::fs::read(path).context(|| format!("cannot read key {}", path.display()))?;
        Self::parse(&pem).context(|| format!("cannot use key {}", path.display()))
    }

    /// Reads a public key: PEM, SubjectPublicKeyInfo.
    pub fn parse(pem: &[u8]) -> Result<Self> {
        let no_key = || Fault::invalid("it is no Ed25519 public key: make one with openssl pkey -in KEY -pubout");
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|error| no_key().because(error))?;
        match der.as_ref().strip_prefix(&PREFIX) {
            Some(key) if key.len() == 32 => Ok(Self(key.to_vec())),
            _ => Err(no_key()),
        }
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(&[CONTEXT, message].concat(), signature).is_ok()
    }
}

/// Whose archives are imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Those signed with one of these keys.
    Keys(Vec<PublicKey>),
    /// Anybody's: the digests still guard against damage. ZFS parses the streams in the kernel.
    Anyone,
}

impl Trust {
    /// Is this message to be believed?
    pub(super) fn check(&self, message: &[u8], signature: Option<&[u8]>) -> Result<()> {
        let refused = |why: &str| Err(Fault::new(Kind::Invalid, format!("the archive is not trusted: {why}")));
        match (self, signature) {
            (Trust::Anyone, _) => Ok(()),
            (Trust::Keys(_), None) => refused("it is not signed"),
            (Trust::Keys(keys), _) if keys.is_empty() => {
                refused("no key is; name the file with its signer's public key under trusted_keys in [images]")
            }
            (Trust::Keys(keys), Some(signature)) => match keys.iter().any(|key| key.verifies(message, signature)) {
                true => Ok(()),
                false => refused("none of the trusted keys has signed it, or it was changed since"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What OpenSSL 3.0 made by the two commands above.
    const PRIVATE: &str = "MC4CAQAwBQYDK2VwBCIEINE8riMmLDbN8k9kUzqKb/PVjoR2fOmAutm2vLS9E00Y";
    const PUBLIC: &str = "MCowBQYDK2VwAyEAjqx0GBxmRsknR+rYiLghlFgZZfurwoqJFFTGD3DRMBM=";
    const OTHER: &str = "MCowBQYDK2VwAyEAQekVc8e3CJ7BMNs7kqFGxWCMkSVwWm4oBX6dpr73cug=";

    fn pem(kind: &str, body: &str) -> Vec<u8> {
        format!("-----BEGIN {kind} KEY-----\n{body}\n-----END {kind} KEY-----\n").into_bytes()
    }

    fn public(body: &str) -> PublicKey {
        PublicKey::parse(&pem("PUBLIC", body)).unwrap()
    }

    #[test]
    fn keys_that_openssl_made_sign_and_verify() {
        let signature = SigningKey::parse(&pem("PRIVATE", PRIVATE)).unwrap().sign(b"message");
        let trust = Trust::Keys(vec![public(OTHER), public(PUBLIC)]);
        trust.check(b"message", Some(&signature)).unwrap();
        for (message, signature) in [
            (&b"massage"[..], Some(&signature[..])),
            (b"message", None),
            (b"message", Some(&[0; 64])),
            (b"", Some(b"")),
        ] {
            assert_eq!(trust.check(message, signature).unwrap_err().kind(), Kind::Invalid);
        }
        for keys in [vec![], vec![public(OTHER)]] {
            assert!(Trust::Keys(keys).check(b"message", Some(&signature)).is_err());
        }
        Trust::Anyone.check(b"message", None).unwrap();
    }

    #[test]
    fn what_is_no_key_is_told() {
        for text in [Vec::new(), pem("PUBLIC", "AAAA"), pem("PRIVATE", PRIVATE)] {
            let fault = PublicKey::parse(&text).unwrap_err();
            assert!(fault.to_string().contains("openssl"), "{fault}");
        }
        assert!(SigningKey::parse(&pem("PUBLIC", PUBLIC)).is_err());
    }
}
