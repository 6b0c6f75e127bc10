//! The token that the admin routes ask for, and with a listener beyond loopback the function route too.

use std::path::{Path, PathBuf};

use rand::Rng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Settings;
use crate::fault::{Context, Fault, Result};
use crate::setup::{MARK, MarkedFile};

/// The file in `secret_mount_path` that holds it.
pub const FILE: &str = "island-token";

/// Fewest characters of a token.
const SHORTEST: usize = 16;

/// The token of Sky Island's example configuration, which was public.
const EXAMPLE: &str = "asdfasdfasdfasdf";

/// What a caller must send. Only its digest is kept.
#[derive(Debug)]
pub struct Token(Vec<u8>);

impl Token {
    /// Reads the token: the file's one line that does not begin with `#`. There is no default.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let shown = path.display();
        let text = std::fs::read_to_string(&path).context(|| {
            format!("[island] listens, and its token cannot be read from {shown} (faas-jails init makes one)")
        })?;
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (Some(token), None) = (lines.next(), lines.next()) else {
            return Err(Fault::invalid(format!("{shown} must hold one line, the token")));
        };
        if token.len() < SHORTEST || token == EXAMPLE {
            return Err(Fault::invalid(format!("the token in {shown} is easily guessed; have {SHORTEST} characters")));
        }
        Ok(Self(digest(token.as_bytes())))
    }

    /// Whether this is the token. Takes the same time wherever they differ, and whatever their lengths.
    pub fn accepts(&self, sent: &[u8]) -> bool {
        digest(sent).ct_eq(&self.0).into()
    }
}

fn digest(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

/// The file as `faas-jails init` makes it, if this configuration needs one.
pub fn item(settings: &Settings, secrets: &Path) -> Option<MarkedFile> {
    settings.listen?;
    let token: [u8; 24] = rand::rng().random();
    let path: PathBuf = secrets.join(FILE);
    let content = format!("{MARK}\n{}\n", hex::encode(token));
    let hint = format!(", sent as {}", settings.token_header);
    Some(MarkedFile { name: "island token", path, content, mode: 0o600, hint })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::Item;

    #[test]
    fn a_token_is_read_and_nothing_else_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let fault = Token::read(dir.path()).unwrap_err().to_string();
        assert!(fault.contains("island-token") && fault.contains("faas-jails init"), "{fault}");
        let settings = Settings { listen: Some(([127, 0, 0, 1], 0).into()), ..Settings::default() };
        item(&settings, dir.path()).unwrap().make().unwrap();
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        let written = text.lines().last().unwrap().to_owned();
        let token = Token::read(dir.path()).unwrap();
        assert!(token.accepts(written.as_bytes()));
        for wrong in ["", &written[1..], &format!("{written} "), EXAMPLE, &text] {
            assert!(!token.accepts(wrong.as_bytes()), "{wrong}");
        }
        assert!(item(&Settings::default(), dir.path()).is_none());
    }

    #[test]
    fn an_empty_a_short_and_the_published_token_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "# only a comment\n", "short\n", "asdfasdfasdfasdf\n", "two-tokens-are-one-too-many\nx\n"] {
            std::fs::write(dir.path().join(FILE), text).unwrap();
            assert!(Token::read(dir.path()).is_err(), "{text:?}");
        }
    }
}
