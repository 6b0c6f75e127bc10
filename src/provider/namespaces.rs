//! Namespaces: groups of functions and secrets. The default one always exists.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Kind, Result};
use crate::files;
use crate::function::Namespace;

/// What is kept of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NamespaceSpec {
    /// Labels, echoed.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Annotations, echoed.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// The store of namespaces, one file each.
#[derive(Debug)]
pub struct Namespaces {
    root: PathBuf,
    default: Namespace,
}

impl Namespaces {
    /// Namespaces under `root`, besides `default`.
    pub fn new(root: PathBuf, default: Namespace) -> Self {
        Self { root, default }
    }

    fn path(&self, namespace: &Namespace) -> PathBuf {
        self.root.join(format!("{namespace}.json"))
    }

    /// The namespace of functions that name none.
    pub fn default(&self) -> &Namespace {
        &self.default
    }

    /// All names, the default first, each once.
    pub fn list(&self) -> Result<Vec<Namespace>> {
        let stored = files::names(&self.root)?;
        let stored = stored.iter().filter_map(|file| file.strip_suffix(".json")?.parse().ok());
        let others = stored.filter(|namespace| *namespace != self.default);
        Ok(std::iter::once(self.default.clone()).chain(others).collect())
    }

    /// The namespace, or a failure that names it.
    pub fn get(&self, namespace: &Namespace) -> Result<NamespaceSpec> {
        match files::read_json(&self.path(namespace))? {
            Some(spec) => Ok(spec),
            None if *namespace == self.default => Ok(NamespaceSpec::default()),
            None => Err(Fault::not_found(format!("namespace {namespace} does not exist"))),
        }
    }

    /// Reads a request's namespace: the default when it is empty, and one that exists otherwise.
    pub fn resolve(&self, text: &str) -> Result<Namespace> {
        if text.is_empty() {
            return Ok(self.default.clone());
        }
        let namespace: Namespace = text.parse()?;
        if namespace != self.default && !self.path(&namespace).is_file() {
            return Err(Fault::invalid(format!(
                "namespace {namespace} does not exist; create it with faas-cli namespace create {namespace}"
            )));
        }
        Ok(namespace)
    }

    /// Makes a namespace; `Busy` when it is there.
    pub fn create(&self, namespace: &Namespace, spec: &NamespaceSpec) -> Result<()> {
        if *namespace == self.default || self.path(namespace).is_file() {
            return Err(Fault::new(Kind::Busy, format!("namespace {namespace} already exists")));
        }
        files::replace_json(&self.path(namespace), spec)
    }

    /// Replaces labels and annotations.
    pub fn update(&self, namespace: &Namespace, spec: &NamespaceSpec) -> Result<()> {
        self.get(namespace)?;
        files::replace_json(&self.path(namespace), spec)
    }

    /// Removes a namespace. That it has no functions is the caller's to check.
    pub fn delete(&self, namespace: &Namespace) -> Result<()> {
        self.get(namespace)?;
        if *namespace == self.default {
            return Err(Fault::invalid(format!("namespace {namespace} is the default one and stays")));
        }
        files::remove(&self.path(namespace)).map(|_| ())
    }
}

impl super::Provider {
    /// Removes a namespace and its secrets; one that still has functions stays.
    pub fn delete_namespace(&self, namespace: &Namespace) -> Result<()> {
        self.namespaces.get(namespace)?;
        let functions = self.catalog.all().iter().filter(|f| f.key.namespace == *namespace).count();
        if functions > 0 {
            return Err(Fault::new(
                Kind::Busy,
                format!("namespace {namespace} still has {functions} functions; remove them first"),
            ));
        }
        self.namespaces.delete(namespace)?;
        self.secrets.delete_all(namespace)
    }
}
