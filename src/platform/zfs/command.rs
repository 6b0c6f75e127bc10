//! zfs(8): the engine that works everywhere, and what libzfs_core has no function for: reading properties,
//! setting them, mounting. Arguments only, never a shell; output is read by pure functions.

use std::collections::BTreeMap;
use std::process::Stdio;

use super::engine::{Engine, Property};
use super::fuse;
use super::refusal::{Outcome, Refusal, Why};

/// zfs(8), found by PATH.
pub(super) struct Command;

/// Runs `zfs` and returns what it wrote to standard output.
pub(super) fn zfs(arguments: &[&str]) -> Outcome<String> {
    let turn = fuse::turn(arguments.first().copied().unwrap_or_default());
    let mut command = program(arguments);
    turn.share(&mut command);
    let output = command.output().map_err(not_started)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Refusal::read(&String::from_utf8_lossy(&output.stderr)))
}

/// A `zfs` that has not been started yet, speaking English.
pub(super) fn program(arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new("zfs");
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Why `zfs` could not even be started.
pub(super) fn not_started(error: std::io::Error) -> Refusal {
    match error.kind() {
        std::io::ErrorKind::NotFound => Refusal { why: Why::NoZfs, said: "there is no zfs command in PATH".to_owned() },
        _ => Refusal { why: Why::Other, said: format!("cannot run zfs: {error}") },
    }
}

/// Mounts a filesystem whose `mountpoint` is a directory. Mounted already is success.
pub(super) fn mount(dataset: &str, options: &[&str]) -> Outcome {
    let arguments: Vec<&str> = ["mount"].into_iter().chain(options.iter().copied()).chain([dataset]).collect();
    forgive(zfs(&arguments), &[Why::Mounted])
}

/// Unmounts a filesystem. Not mounted and not there are success.
pub(super) fn unmount(dataset: &str) -> Outcome {
    forgive(zfs(&["unmount", dataset]), &[Why::NotMounted, Why::Missing])
}

/// Makes refusals of these sorts a success.
fn forgive(outcome: Outcome<String>, forgiven: &[Why]) -> Outcome {
    match outcome {
        Err(refusal) if !forgiven.contains(&refusal.why) => Err(refusal),
        _ => Ok(()),
    }
}

/// Properties by name, of one dataset.
pub(super) type Properties = BTreeMap<String, String>;

/// Reads properties of a dataset, with `below` also of all below it, in exact numbers.
pub(super) fn get(dataset: &str, below: Below, properties: &[&str]) -> Outcome<BTreeMap<String, Properties>> {
    let properties = properties.join(",");
    let mut arguments = vec!["get", "-Hp", "-o", "name,property,value"];
    if below == Below::Included {
        arguments.push("-r");
    }
    arguments.extend([properties.as_str(), dataset]);
    zfs(&arguments).map(|output| parse(&output))
}

/// Whether [`get`] goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Below {
    /// Also the filesystems and snapshots below.
    Included,
    /// Only the one named.
    Left,
}

/// Reads `zfs get -Hp -o name,property,value`: one line each, tabs between. A value that is not set is `-`
/// and is left out. Values may have tabs themselves (user properties), names may not.
fn parse(output: &str) -> BTreeMap<String, Properties> {
    let mut datasets = BTreeMap::<String, Properties>::new();
    for line in output.lines() {
        let mut fields = line.splitn(3, '\t');
        let (Some(name), Some(property), Some(value)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let dataset = datasets.entry(name.to_owned()).or_default();
        if value != "-" {
            dataset.insert(property.to_owned(), value.to_owned());
        }
    }
    datasets
}

/// `-o name=value` for each.
pub(super) fn options(properties: &[Property]) -> Vec<String> {
    let option = |property: &Property| match property {
        Property::NoAutoMount => "canmount=noauto".to_owned(),
        Property::ReferenceQuota(bytes) => format!("refquota={bytes}"),
        Property::User(name, value) => format!("{name}={value}"),
    };
    properties.iter().flat_map(|p| ["-o".to_owned(), option(p)]).collect()
}

/// The verb, its options, its operands.
fn run(verb: &str, options: &[String], operands: &[&str]) -> Outcome {
    let options = options.iter().map(String::as_str);
    let arguments: Vec<&str> = [verb].into_iter().chain(options).chain(operands.iter().copied()).collect();
    zfs(&arguments).map(drop)
}

impl Engine for Command {
    fn describe(&self) -> &str {
        "zfs(8)"
    }

    fn create(&self, dataset: &str, properties: &[Property]) -> Outcome {
        run("create", &options(properties), &[dataset])
    }

    fn clone_snapshot(&self, snapshot: &str, dataset: &str, properties: &[Property]) -> Outcome {
        run("clone", &options(properties), &[snapshot, dataset])
    }

    fn snapshot(&self, snapshot: &str) -> Outcome {
        run("snapshot", &[], &[snapshot])
    }

    fn rename(&self, from: &str, to: &str) -> Outcome {
        run("rename", &[], &[from, to])
    }

    fn destroy(&self, name: &str) -> Outcome {
        run("destroy", &[], &[name])
    }

    fn exists(&self, name: &str) -> Outcome<bool> {
        match zfs(&["get", "-H", "-o", "value", "type", name]) {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.why == Why::Missing => Ok(false),
            Err(refusal) => Err(refusal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from zfs-fuse 0.7.0.
    const RECORDED: &str = "zxp\ttype\tfilesystem\nzxp\torigin\t-\nzxp\tused\t974848\nzxp\tfaas-jails:kind\t-\n\
        zxp/x/a@layer\ttype\tsnapshot\nzxp/x/a@layer\torigin\t-\nzxp/x/a@layer\tused\t0\n\
        zxp/x/a@layer\tfaas-jails:kind\tstaging\nzxp/x/b\torigin\tzxp/x/a@layer\nzxp/x/b\tfaas-jails:kind\tone\ttwo\n";

    #[test]
    fn recorded_properties_are_read() {
        let datasets = parse(RECORDED);
        assert_eq!(datasets.keys().collect::<Vec<_>>(), ["zxp", "zxp/x/a@layer", "zxp/x/b"]);
        assert_eq!(datasets["zxp"].get("origin"), None);
        assert_eq!(datasets["zxp"]["used"], "974848");
        assert_eq!(datasets["zxp/x/b"]["origin"], "zxp/x/a@layer");
        assert_eq!(datasets["zxp/x/b"]["faas-jails:kind"], "one\ttwo");
        assert_eq!(parse("garbage\nno\ttabs"), BTreeMap::new());
    }

    #[test]
    fn properties_become_options() {
        let made = options(&[
            Property::NoAutoMount,
            Property::ReferenceQuota(1 << 20),
            Property::User("faas-jails:kind", "root".into()),
        ]);
        assert_eq!(made, ["-o", "canmount=noauto", "-o", "refquota=1048576", "-o", "faas-jails:kind=root"]);
    }
}
