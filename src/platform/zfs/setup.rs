//! Opening the storage: is ZFS there, is the dataset there, and the three containers below it.

use std::sync::Mutex;

use super::command::{self, Below, Properties};
use super::names::{Container, Parent};
use super::refusal::Why;
use super::{Mounting, Settings, ZfsStorage, engine, fuse};
use crate::fault::{Fault, Kind, Result};

impl ZfsStorage {
    /// Checks that the parent dataset is there and makes the containers below it.
    ///
    /// Fails with `NotFound` when pool or dataset are missing, `Unsupported` when ZFS is not running; the message
    /// has the command that mends it.
    pub fn open(settings: Settings) -> Result<Self> {
        let Settings { parent, realm, mounting, engine } = settings;
        fuse::settled();
        // Before the engine is chosen: zfs(8) loads the kernel module where that is how it is done.
        let compression = inspect(&parent)?;
        mounting.prepare()?;
        for container in Container::ALL {
            provide(&parent, container, &mounting, compression)?;
        }
        let engine = engine::choose(engine);
        Ok(Self { parent, realm, mounting, engine, layers: Mutex::default() })
    }
}

/// What the containers say about compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    /// Somebody chose for the parent, or its default is to compress: inherit that.
    Inherited,
    /// The parent has the old default, off: turn on what the pool thinks best (lz4 on OpenZFS).
    On,
}

/// Is the parent a filesystem? Reads its compression in passing.
fn inspect(parent: &Parent) -> Result<Compression> {
    command::zfs(&["get", "-H", "-o", "property,value,source", "type,compression", parent.as_str()])
        .map_err(|refusal| match refusal.why {
            Why::Missing => missing(parent),
            _ => refusal.fault(format!("cannot read dataset {parent}"), parent.pool()),
        })
        .and_then(|output| read(parent, &output))
}

/// Reads `zfs get -H -o property,value,source type,compression`.
fn read(parent: &Parent, output: &str) -> Result<Compression> {
    let mut compression = Compression::Inherited;
    for line in output.lines() {
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["type", "filesystem", _] => {}
            ["type", other, _] => {
                return Err(Fault::invalid(format!(
                    "dataset {parent} is a {other}, and a filesystem is needed: name another one, or make one with \
                     zfs create"
                )));
            }
            ["compression", "off", "default"] => compression = Compression::On,
            _ => {}
        }
    }
    Ok(compression)
}

/// The pool or the dataset is not there; which, and what mends it.
fn missing(parent: &Parent) -> Fault {
    let pool = parent.pool();
    if parent.as_str() != pool && command::zfs(&["get", "-H", "-o", "value", "type", pool]).is_ok() {
        return Fault::not_found(format!(
            "dataset {parent} does not exist: make it with zfs create -p -o canmount=off {parent}"
        ));
    }
    Fault::new(
        Kind::NotFound,
        format!(
            "pool {pool} does not exist: import it with zpool import {pool}, or make it with zpool create {pool} \
             <device>"
        ),
    )
}

/// What all datasets in a container inherit. Nothing in them is trusted: no setuid, no devices; nobody asks when
/// a file was read.
fn properties(mountpoint: &str, compression: Compression) -> Vec<(&'static str, &str)> {
    let mut properties = vec![
        ("canmount", "off"),
        ("mountpoint", mountpoint),
        ("atime", "off"),
        ("devices", "off"),
        ("exec", "on"),
        ("setuid", "off"),
    ];
    if compression == Compression::On {
        properties.push(("compression", "on"));
    }
    properties
}

/// Makes a container, or gives an existing one the properties that it should have.
fn provide(parent: &Parent, container: Container, mounting: &Mounting, compression: Compression) -> Result<()> {
    let dataset = parent.container(container);
    let mountpoint = mounting.property(container)?;
    let wanted = properties(&mountpoint, compression);
    let options: Vec<String> = wanted.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let told = |refusal: super::Refusal| refusal.fault(format!("cannot prepare dataset {dataset}"), parent.pool());
    if let Some(existing) = existing(&dataset, &wanted).map_err(told)? {
        for (option, (name, value)) in options.iter().zip(&wanted) {
            if existing.get(*name).map(String::as_str) != Some(*value) {
                command::zfs(&["set", option, &dataset]).map_err(told)?;
            }
        }
        return Ok(());
    }
    let mut arguments = vec!["create"];
    options.iter().for_each(|option| arguments.extend(["-o", option]));
    arguments.push(&dataset);
    command::zfs(&arguments).map(drop).map_err(told)
}

/// A dataset's own values of these properties, if it exists.
fn existing(dataset: &str, wanted: &[(&str, &str)]) -> super::refusal::Outcome<Option<Properties>> {
    let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
    match command::get(dataset, Below::Left, &names) {
        Ok(mut datasets) => Ok(datasets.remove(dataset)),
        Err(refusal) if refusal.why == Why::Missing => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_filesystem_is_a_parent() {
        let parent = "tank/fj".parse().unwrap();
        let read = |output: &str| super::read(&parent, output);
        assert_eq!(read("type\tfilesystem\t-\ncompression\toff\tdefault\n").unwrap(), Compression::On);
        for chosen in ["off\tlocal", "on\tdefault", "zstd\tinherited from tank"] {
            let output = format!("type\tfilesystem\t-\ncompression\t{chosen}\n");
            assert_eq!(read(&output).unwrap(), Compression::Inherited, "{chosen}");
        }
        let fault = read("type\tvolume\t-\ncompression\toff\tdefault\n").unwrap_err();
        assert!(fault.kind() == Kind::Invalid && fault.to_string().contains("volume"), "{fault}");
    }
}
