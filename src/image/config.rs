//! An image's configuration (OCI image-spec, config.md), read leniently: Go's decoder takes keys in any case,
//! so images exist with `config.cmd`; absent and `null` are the same.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::fault::{Fault, Result};

use super::manifest::drop_nulls;
use super::target::Platform;
use super::{Digest, Layer};

/// Largest configuration that is read.
pub const CONFIG_MAX: u64 = 4 << 20;

/// What an image's configuration says, before its user is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// What it is for.
    pub platform: Platform,
    /// Diff-ids, lowest first.
    pub diff_ids: Vec<Digest>,
    /// Entrypoint, then Cmd.
    pub argv: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Absolute working directory.
    pub workdir: String,
    /// `User` as it stands.
    pub user: String,
    /// `StopSignal` as it stands.
    pub stop_signal: Option<String>,
}

/// The value under `key`, or under the same key in another case.
fn get<'v>(map: &'v Map<String, Value>, key: &str) -> Option<&'v Value> {
    map.get(key).or_else(|| map.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, value)| value))
}

fn bad(why: &str) -> Fault {
    Fault::invalid(format!("the image's config {why}"))
}

fn text(map: &Map<String, Value>, key: &str) -> Result<String> {
    match get(map, key) {
        None => Ok(String::new()),
        Some(Value::String(text)) if !text.contains('\0') => Ok(text.clone()),
        Some(_) => Err(bad(&format!("has something else than text under {key}"))),
    }
}

fn texts(map: &Map<String, Value>, key: &str) -> Result<Vec<String>> {
    let wrong = || bad(&format!("has something else than a list of texts under {key}"));
    match get(map, key) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            let text = |item: &Value| item.as_str().filter(|t| !t.contains('\0')).map(str::to_owned);
            items.iter().map(|item| text(item).ok_or_else(wrong)).collect()
        }
        Some(_) => Err(wrong()),
    }
}

impl ImageConfig {
    /// Reads a configuration.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut value: Value =
            serde_json::from_slice(bytes).map_err(|error| bad("is no JSON that can be read").because(error))?;
        drop_nulls(&mut value);
        let Value::Object(root) = value else { return Err(bad("is no JSON object")) };
        let section = |key| match get(&root, key) {
            None => Ok(Map::new()),
            Some(Value::Object(map)) => Ok(map.clone()),
            Some(_) => Err(bad(&format!("has something else than an object under {key}"))),
        };
        let (config, rootfs) = (section("config")?, section("rootfs")?);
        let mut argv = texts(&config, "Entrypoint")?;
        argv.extend(texts(&config, "Cmd")?);
        Ok(Self {
            platform: Platform {
                os: text(&root, "os")?,
                architecture: text(&root, "architecture")?,
                variant: Some(text(&root, "variant")?).filter(|v| !v.is_empty()),
                version: Some(text(&root, "os.version")?).filter(|v| !v.is_empty()),
            },
            diff_ids: texts(&rootfs, "diff_ids")?.iter().map(|id| id.parse()).collect::<Result<_>>()?,
            argv,
            env: environment(&texts(&config, "Env")?),
            workdir: absolute(&text(&config, "WorkingDir")?),
            user: text(&config, "User")?,
            stop_signal: Some(text(&config, "StopSignal")?).filter(|s| !s.is_empty()),
        })
    }

    /// The layers that the diff-ids name, with their chain-ids.
    pub fn layers(&self) -> Vec<Layer> {
        let mut parent: Option<Digest> = None;
        let mut layers = Vec::with_capacity(self.diff_ids.len());
        for diff_id in &self.diff_ids {
            let chain_id = match &parent {
                None => diff_id.clone(),
                Some(below) => Digest::of(format!("{below} {diff_id}")),
            };
            layers.push(Layer {
                diff_id: diff_id.clone(),
                chain_id: chain_id.clone(),
                parent: parent.replace(chain_id),
            });
        }
        layers
    }
}

/// `NAME=value` pairs; the last of two with one name counts, as for execve(2)'s readers that search backwards
/// and for Docker. A text without `=` has no value to give.
fn environment(pairs: &[String]) -> BTreeMap<String, String> {
    let split = |pair: &String| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    pairs.iter().filter_map(split).filter(|(name, _)| !name.is_empty()).collect()
}

fn absolute(workdir: &str) -> String {
    if workdir.starts_with('/') { workdir.to_owned() } else { format!("/{workdir}") }
}

/// The number of a signal on this system: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`. `None` when there is none.
pub fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=128).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    Some(match name {
        "HUP" => libc::SIGHUP,
        "INT" => libc::SIGINT,
        "QUIT" => libc::SIGQUIT,
        "ABRT" => libc::SIGABRT,
        "KILL" => libc::SIGKILL,
        "USR1" => libc::SIGUSR1,
        "USR2" => libc::SIGUSR2,
        "ALRM" => libc::SIGALRM,
        "TERM" => libc::SIGTERM,
        "CONT" => libc::SIGCONT,
        "WINCH" => libc::SIGWINCH,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_any_case_and_nulls_are_taken() {
        let config = ImageConfig::parse(
            br#"{"os":"freebsd","architecture":"amd64","config":{"cmd":["/bin/sh"],"Env":null,"User":null},"rootfs":{"type":"layers","diff_ids":null}}"#,
        )
        .unwrap();
        assert_eq!(config.argv, ["/bin/sh"]);
        assert_eq!((config.workdir.as_str(), config.user.as_str()), ("/", ""));
        let both = ImageConfig::parse(
            br#"{"config":{"Entrypoint":["a"],"Cmd":["b"],"cmd":["c"],"WorkingDir":"srv","Env":["A=1=2","B","=x"]}}"#,
        )
        .unwrap();
        assert_eq!(both.argv, ["a", "b"]);
        assert_eq!(both.workdir, "/srv");
        assert_eq!(both.env, [("A".to_owned(), "1=2".to_owned())].into());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "[]",
            "3",
            r#"{"config":[]}"#,
            r#"{"config":{"Cmd":"sh"}}"#,
            r#"{"config":{"Cmd":["a\u0000"]}}"#,
            r#"{"rootfs":{"diff_ids":["sha256:../../x"]}}"#,
        ] {
            assert!(ImageConfig::parse(text.as_bytes()).is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn chain_ids_are_those_of_the_specification() {
        let ids: Vec<Digest> = ["a", "b", "c"].iter().map(Digest::of).collect();
        let config = ImageConfig { diff_ids: ids.clone(), ..ImageConfig::parse(b"{}").unwrap() };
        let layers = config.layers();
        assert_eq!(layers[0].chain_id, ids[0]);
        assert_eq!(layers[1].chain_id, Digest::of(format!("{} {}", ids[0], ids[1])));
        assert_eq!(layers[2].parent, Some(layers[1].chain_id.clone()));
    }

    #[test]
    fn signals_are_named_as_docker_names_them() {
        assert_eq!(signal_number("SIGTERM"), Some(libc::SIGTERM));
        assert_eq!(signal_number("int"), Some(libc::SIGINT));
        assert_eq!(signal_number("9"), Some(9));
        assert_eq!(signal_number("SIGNONE"), None);
    }
}
