//! What the user deployed, as validated types: names, quantities, the spec. Raw input ends here.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, Result};
use crate::image::Reference;

/// Longest name that OpenFaaS allows: a DNS label (RFC 1123).
pub const NAME_MAX: usize = 63;

fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    (1..=NAME_MAX).contains(&bytes.len())
        && bytes.iter().all(inner)
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

macro_rules! dns_label {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Fault;
            fn from_str(text: &str) -> Result<Self> {
                if is_dns_label(text) {
                    return Ok(Self(text.to_owned()));
                }
                Err(Fault::invalid(format!(
                    "{} ({}) is invalid, must be a valid DNS entry: lower-case letters, digits and -, at most {NAME_MAX}",
                    $what, text.escape_debug()
                )))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Fault;
            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

dns_label! {
    /// A function's name: a DNS label, so it has no dot and `name.namespace` splits one way only.
    FunctionName, "service:"
}
dns_label! {
    /// A namespace: a DNS label.
    Namespace, "namespace:"
}

/// A function's full name, shown as `name.namespace`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FunctionKey {
    /// Where it lives.
    pub namespace: Namespace,
    /// What it is called there.
    pub name: FunctionName,
}

impl FunctionKey {
    /// Reads `name` or `name.namespace`; the namespace is what follows the last dot.
    pub fn parse(text: &str, default: &Namespace) -> Result<Self> {
        match text.rsplit_once('.') {
            Some((name, namespace)) => Ok(Self { name: name.parse()?, namespace: namespace.parse()? }),
            None => Ok(Self { name: text.parse()?, namespace: default.clone() }),
        }
    }
}

impl fmt::Display for FunctionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

/// Which daemon something belongs to, when several share a host: part of every name that this program
/// gives to a jail, cgroup, dataset or interface. One to four lower-case letters or digits, so that an
/// interface name (15 bytes on Linux and FreeBSD) can hold it with a replica's id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Realm(String);

impl Realm {
    /// The realm as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Realm {
    fn default() -> Self {
        Self("fj".to_owned())
    }
}

impl FromStr for Realm {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self> {
        let fits = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if fits {
            return Ok(Self(text.to_owned()));
        }
        Err(Fault::invalid(format!(
            "realm ({}) is invalid: one to four lower-case letters or digits",
            text.escape_debug()
        )))
    }
}

impl TryFrom<String> for Realm {
    type Error = Fault;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Realm> for String {
    fn from(realm: Realm) -> String {
        realm.0
    }
}

impl fmt::Display for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of one replica, `realm_namespace_function_id`: the name of its jail, its cgroup, its dataset,
/// its directory. Labels have no underscore, so it splits one way only; it has no dot, which jail names
/// must not have (jail(8)); it is at most 4+1+63+1+63+1+8 = 141 bytes, and a jail name may have 256.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReplicaName {
    realm: Realm,
    function: FunctionKey,
    id: String,
}

impl ReplicaName {
    /// Length of the random part.
    pub const ID_LEN: usize = 8;

    /// A new, random name for a replica of `function`.
    pub fn new(realm: &Realm, function: &FunctionKey) -> Self {
        use rand::Rng;
        // No vowels and no digits that look like letters: ids are read aloud, and spell nothing.
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut rng = rand::rng();
        let id = (0..Self::ID_LEN).map(|_| ALPHABET[rng.random_range(0..ALPHABET.len())] as char).collect();
        Self { realm: realm.clone(), function: function.clone(), id }
    }

    /// The daemon it belongs to.
    pub fn realm(&self) -> &Realm {
        &self.realm
    }

    /// The function it is a copy of.
    pub fn function(&self) -> &FunctionKey {
        &self.function
    }

    /// The random part, eight letters and digits, unique on the host.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A name for this replica's network interface: realm and id, at most 12 bytes.
    pub fn interface(&self) -> String {
        format!("{}{}", self.realm, self.id)
    }
}

impl FromStr for ReplicaName {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Fault::invalid(format!("{} is no replica name", text.escape_debug()));
        let mut parts = text.split('_');
        let mut next = || parts.next().ok_or_else(bad);
        let (realm, namespace, name, id) = (next()?, next()?, next()?, next()?);
        let fits = id.len() == Self::ID_LEN && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if !fits || parts.next().is_some() {
            return Err(bad());
        }
        Ok(Self {
            realm: realm.parse()?,
            function: FunctionKey { namespace: namespace.parse()?, name: name.parse()? },
            id: id.to_owned(),
        })
    }
}

impl TryFrom<String> for ReplicaName {
    type Error = Fault;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ReplicaName> for String {
    fn from(name: ReplicaName) -> String {
        name.to_string()
    }
}

impl fmt::Display for ReplicaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FunctionKey { namespace, name } = &self.function;
        write!(f, "{}_{namespace}_{name}_{}", self.realm, self.id)
    }
}

/// A Kubernetes quantity (apimachinery, `resource.Quantity`): `512`, `1.5`, `100m`, `64Mi`, `1e6`.
/// Kept in thousandths, which is the finest that the grammar's `m` suffix needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    milli: u128,
}

impl Quantity {
    /// Whole units, rounded up: bytes of memory.
    pub fn units(self) -> u64 {
        u64::try_from(self.milli.div_ceil(1000)).unwrap_or(u64::MAX)
    }

    /// Thousandths: of a processor.
    pub fn millis(self) -> u64 {
        u64::try_from(self.milli).unwrap_or(u64::MAX)
    }
}

impl FromStr for Quantity {
    type Err = Fault;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Fault::invalid(format!(
                "quantity ({}) is invalid: a number, or one with a suffix such as 100m, 64Mi, 1G",
                text.escape_debug()
            ))
        };
        let body = text.strip_prefix('+').unwrap_or(text);
        let end = body.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(body.len());
        let (number, suffix) = body.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        // 18 digits of each part are more than any machine has, and keep the arithmetic in u128.
        if whole.len() + fraction.len() == 0 || fraction.contains('.') || whole.len() > 18 || fraction.len() > 18 {
            return Err(bad());
        }
        let power = |base: u128, exponent: u32| base.checked_pow(exponent).ok_or_else(bad);
        // The value is digits * multiplier / divisor, in thousandths.
        let (multiplier, divisor) = match suffix {
            "" => (1000, 1),
            "n" => (1, 1_000_000),
            "u" => (1, 1000),
            "m" => (1, 1),
            "k" => (1000 * 1000, 1),
            "M" => (1000 * power(10, 6)?, 1),
            "G" => (1000 * power(10, 9)?, 1),
            "T" => (1000 * power(10, 12)?, 1),
            "P" => (1000 * power(10, 15)?, 1),
            "E" => (1000 * power(10, 18)?, 1),
            "Ki" => (1000 << 10, 1),
            "Mi" => (1000 << 20, 1),
            "Gi" => (1000 << 30, 1),
            "Ti" => (1000 << 40, 1),
            "Pi" => (1000u128 << 50, 1),
            "Ei" => (1000u128 << 60, 1),
            exponent => {
                let exponent = exponent.strip_prefix(['e', 'E']).ok_or_else(bad)?;
                match exponent.parse::<i32>().map_err(|_| bad())? {
                    up @ 0..=18 => (1000 * power(10, up as u32)?, 1),
                    down @ -18..=-1 => (1000, power(10, down.unsigned_abs())?),
                    _ => return Err(bad()),
                }
            }
        };
        let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| bad())?;
        let scaled = digits.checked_mul(multiplier).ok_or_else(bad)?;
        let divisor = power(10, fraction.len() as u32)?.checked_mul(divisor).ok_or_else(bad)?;
        Ok(Self { milli: scaled.div_ceil(divisor) })
    }
}

/// Memory and processor quantities exactly as the user wrote them; echoed verbatim.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Resources {
    /// A quantity of bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// A quantity of processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
}

/// A deployed function: what one spec file holds. Everything in it has been checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionSpec {
    /// Its full name.
    pub key: FunctionKey,
    /// The image, as the user wrote it.
    pub image: Reference,
    /// The watchdog's process, given to it as `fprocess`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_process: Option<String>,
    /// Environment, over the image's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Names of secrets it may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// Labels, echoed verbatim; some have a meaning (see [`crate::provider`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations, echoed verbatim; some have a meaning.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Placement constraints: there is one machine, so they are kept and echoed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
    /// Enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Resources>,
    /// Kept and echoed: one machine has nothing to place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Resources>,
    /// Root read-only, with a writable /tmp.
    #[serde(default)]
    pub read_only_root: bool,
    /// How many replicas are wanted; 0 starts one when a request comes.
    pub replicas: u32,
    /// When it was first deployed.
    pub created: jiff::Timestamp,
    /// Counts deploys and updates of this function; replicas of an older revision are replaced.
    pub revision: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_of_the_kubernetes_grammar() {
        for (text, units, millis) in [
            ("0", 0, 0),
            ("1", 1, 1000),
            ("0.5", 1, 500),
            (".5", 1, 500),
            ("1.", 1, 1000),
            ("100m", 1, 100),
            ("64Mi", 64 << 20, (64 << 20) * 1000),
            ("1.5Gi", 3 << 29, (3u64 << 29) * 1000),
            ("128974848", 128974848, 128974848000),
            ("129e6", 129_000_000, 129_000_000_000),
            ("129M", 129_000_000, 129_000_000_000),
            ("5E-1", 1, 500),
            ("1k", 1000, 1_000_000),
            ("2500u", 1, 3),
        ] {
            let quantity: Quantity = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((quantity.units(), quantity.millis()), (units, millis), "{text}");
        }
        for text in ["", " 1", "-1", "1 Mi", "Mi", "1mi", "1.2.3", "1e", "1e99", "0x10", "1KiB", "9999999999999999999E"]
        {
            assert!(text.parse::<Quantity>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "figlet", "a-b", "0x", &"a".repeat(63)] {
            assert!(good.parse::<FunctionName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "a/b", "..", "é", &"a".repeat(64)] {
            assert!(bad.parse::<FunctionName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_namespace_follows_the_last_dot() {
        let default: Namespace = "openfaas-fn".parse().unwrap();
        assert_eq!(FunctionKey::parse("f", &default).unwrap().to_string(), "f.openfaas-fn");
        assert_eq!(FunctionKey::parse("f.dev", &default).unwrap().to_string(), "f.dev");
        assert!(FunctionKey::parse("f.g.dev", &default).is_err());
        assert!(FunctionKey::parse(".dev", &default).is_err());
    }

    proptest! {
        #[test]
        fn replica_names_survive_the_kernel(ns in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name in "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?") {
            let key = FunctionKey { namespace: ns.parse().unwrap(), name: name.parse().unwrap() };
            let replica = ReplicaName::new(&Realm::default(), &key);
            let text = replica.to_string();
            prop_assert!(!text.contains('.') && text.len() <= 141 && replica.interface().len() <= 12);
            prop_assert_eq!(text.parse::<ReplicaName>().unwrap(), replica);
        }

        #[test]
        fn any_text_is_a_name_or_an_error(text in ".*") {
            let _ = text.parse::<ReplicaName>();
            let _ = text.parse::<Quantity>();
        }
    }
}
