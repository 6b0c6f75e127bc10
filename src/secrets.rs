//! Secrets: one file each, by namespace; shown to a replica as copies in its image user's name.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::fault::{Context, Fault, Kind, Result};
use crate::files;
use crate::function::Namespace;
use crate::sandbox::User;

/// Largest secret, in bytes: what Kubernetes allows.
pub const SECRET_MAX: usize = 1 << 20;

/// The store of secrets.
#[derive(Debug)]
pub struct Secrets {
    root: PathBuf,
}

/// A secret's name is a DNS subdomain (RFC 1123), as faas-cli demands: it is also a file name.
pub fn check_name(name: &str) -> Result<()> {
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    match name {
        "" => Err(Fault::invalid("non-empty name is required")),
        _ if name.len() <= 253 && name.split('.').all(label) => Ok(()),
        _ => Err(Fault::invalid(format!(
            "secret name ({}) is invalid: lower-case letters, digits, - and single dots between them",
            name.escape_debug()
        ))),
    }
}

impl Secrets {
    /// Secrets under `root`, one directory a namespace.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    fn path(&self, namespace: &Namespace, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.root.join(namespace.as_str()).join(name))
    }

    /// Names of a namespace's secrets, sorted.
    pub fn list(&self, namespace: &Namespace) -> Result<Vec<String>> {
        files::names(&self.root.join(namespace.as_str()))
    }

    /// Stores a new secret; `Busy` when it is there.
    pub fn create(&self, namespace: &Namespace, name: &str, value: &[u8]) -> Result<()> {
        let path = self.path(namespace, name)?;
        if path.exists() {
            return Err(Fault::new(Kind::Busy, format!("secret {name} already exists in namespace {namespace}")));
        }
        write(&path, name, value)
    }

    /// Replaces a secret's value; `NotFound` when it is not there.
    pub fn update(&self, namespace: &Namespace, name: &str, value: &[u8]) -> Result<()> {
        let path = self.path(namespace, name)?;
        if !path.exists() {
            return Err(missing(namespace, name));
        }
        write(&path, name, value)
    }

    /// Removes a secret; `NotFound` when it is not there.
    pub fn delete(&self, namespace: &Namespace, name: &str) -> Result<()> {
        match files::remove(&self.path(namespace, name)?)? {
            true => Ok(()),
            false => Err(missing(namespace, name)),
        }
    }

    /// Removes all of a namespace's secrets.
    pub fn delete_all(&self, namespace: &Namespace) -> Result<()> {
        files::remove_tree(&self.root.join(namespace.as_str())).map(|_| ())
    }

    /// Fails with a sentence when one of these is not there.
    pub fn check(&self, namespace: &Namespace, names: &[String]) -> Result<()> {
        for name in names {
            if !self.path(namespace, name)?.is_file() {
                return Err(Fault::invalid(format!(
                    "unable to find secret: {name} in namespace {namespace}; create it with faas-cli secret create"
                )));
            }
        }
        Ok(())
    }

    /// The values of these secrets.
    pub fn values(&self, namespace: &Namespace, names: &[String]) -> Result<Vec<Vec<u8>>> {
        let read =
            |name: &String| fs::read(self.path(namespace, name)?).context(|| format!("unable to read secret: {name}"));
        names.iter().map(read).collect()
    }

    /// Copies these secrets into the new directory `into`, readable by `user` only.
    pub fn place(&self, namespace: &Namespace, names: &[String], into: &Path, user: &User) -> Result<()> {
        let what = || format!("cannot place secrets in {}", into.display());
        fs::create_dir_all(into).context(what)?;
        for name in names {
            let value = fs::read(self.path(namespace, name)?).context(|| format!("unable to find secret: {name}"))?;
            let file = into.join(name);
            files::replace(&file, &value)?;
            own(&file, user, 0o400).context(what)?;
        }
        own(into, user, 0o500).context(what)
    }
}

fn own(path: &Path, user: &User, mode: u32) -> std::io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    chown(path, Some(user.uid), Some(user.gid))
}

fn write(path: &Path, name: &str, value: &[u8]) -> Result<()> {
    if value.len() > SECRET_MAX {
        return Err(Fault::invalid(format!("secret {name} has {} bytes; at most {SECRET_MAX} are kept", value.len())));
    }
    files::replace(path, value)
}

fn missing(namespace: &Namespace, name: &str) -> Fault {
    Fault::not_found(format!("secret {name} does not exist in namespace {namespace}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_lives_and_dies() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(dir.path().join("secrets"));
        let ns: Namespace = "dev".parse().unwrap();
        assert_eq!(secrets.update(&ns, "key", b"x").unwrap_err().kind(), Kind::NotFound);
        secrets.create(&ns, "key", b"\x00\xff").unwrap();
        assert_eq!(secrets.create(&ns, "key", b"y").unwrap_err().kind(), Kind::Busy);
        secrets.update(&ns, "key", b"z").unwrap();
        assert_eq!(secrets.list(&ns).unwrap(), ["key"]);
        secrets.delete(&ns, "key").unwrap();
        assert_eq!(secrets.delete(&ns, "key").unwrap_err().kind(), Kind::NotFound);
        assert!(secrets.list(&ns).unwrap().is_empty());
    }

    #[test]
    fn names_never_leave_the_store() {
        for bad in ["", "..", ".", "a/b", "../x", "/etc/passwd", ".hidden", "a..b", "A", "a\0b"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "api-key", "tls.crt", "0"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
    }
}
