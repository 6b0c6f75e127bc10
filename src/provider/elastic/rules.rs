//! [`Rules`]: what a function's labels and annotations say about how many replicas it has.
//!
//! Labels, their defaults and their meaning are those of OpenFaaS's paid autoscaler (docs.openfaas.com,
//! architecture/autoscaling). One thing differs: a function that carries none of the labels of load scaling keeps its
//! number of replicas. On a single host, twenty replicas at 50 requests/s are nothing that should just happen.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use super::Settings;
use crate::config::parse_duration;
use crate::fault::{Context, Fault, Result};
use crate::provider::annotations::PUBLISH;

const MIN: &str = "com.openfaas.scale.min";
const MAX: &str = "com.openfaas.scale.max";
const FACTOR: &str = "com.openfaas.scale.factor";
const TYPE: &str = "com.openfaas.scale.type";
const TARGET: &str = "com.openfaas.scale.target";
const PROPORTION: &str = "com.openfaas.scale.target-proportion";
const WINDOW: &str = "com.openfaas.scale.down.window";
const ZERO: &str = "com.openfaas.scale.zero";
const ZERO_DURATION: &str = "com.openfaas.scale.zero-duration";

/// Annotation: an idle replica is stopped in place after this long.
const FREEZE: &str = "com.faas-jails.freeze";
/// Annotation: most requests that one replica serves at once; further ones wait.
const MAX_INFLIGHT: &str = "com.faas-jails.max-inflight";

/// How many replicas a function has, and when that changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Replicas at least, while it is not at zero.
    pub min: u32,
    /// Replicas that load brings at most.
    pub max: u32,
    /// How load is measured; `None`: it changes nothing.
    pub load: Option<Load>,
    /// Idle for so long, it goes to zero; `None`: never.
    pub zero: Option<Duration>,
    /// Idle for so long, its replicas are frozen; `None`: never.
    pub freeze: Option<Duration>,
    /// Most requests that a replica serves at once; `usize::MAX` is no limit.
    pub max_inflight: usize,
}

/// How load is measured, and how much of it a replica should have.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// What is measured.
    pub measure: Measure,
    /// Load of one replica: the target times the proportion of it.
    pub per_replica: f64,
    /// Down goes to the highest number that was due within so long.
    pub window: Duration,
}

/// What load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Requests a second.
    Rps,
    /// Requests being served or waiting.
    Capacity,
    /// Thousandths of a processor.
    Cpu,
}

type Texts = BTreeMap<String, String>;

impl Rules {
    /// Reads labels and annotations; an error names the one that makes no sense.
    pub fn read(labels: &Texts, annotations: &Texts, settings: &Settings) -> Result<Self> {
        let min = number(labels, MIN, 0, u32::MAX)?.unwrap_or(1).max(1);
        let most = number(labels, MAX, 1, u32::MAX)?;
        // A bad factor makes the stock gateway answer 404 to every call.
        number(labels, FACTOR, 1, 100)?;
        if most.is_some_and(|max| max < min) {
            let max = most.unwrap_or(min);
            return Err(Fault::invalid(format!(
                "label {MAX} ({max}) is below {MIN} ({min}); raise the one or lower the other"
            )));
        }
        let max = most.unwrap_or(min.max(20));
        let measure = one(labels, "label", TYPE, "rps, capacity or cpu", measure)?;
        let target = one(labels, "label", TARGET, "a number above 0", |text| positive(text, f64::MAX))?;
        let proportion = one(labels, "label", PROPORTION, "a number above 0 and up to 1", |text| positive(text, 1.0))?;
        let window = duration(labels, "label", WINDOW)?.unwrap_or(Duration::from_secs(60));
        let asked = most.is_some() || measure.is_some() || target.is_some() || proportion.is_some();
        let load = (asked && min < max).then(|| Load {
            measure: measure.unwrap_or(Measure::Rps),
            per_replica: target.unwrap_or(50.0) * proportion.unwrap_or(0.9),
            window,
        });
        let zero = one(labels, "label", ZERO, "true or false", |text| text.parse().ok())?;
        let freeze = duration(annotations, "annotation", FREEZE)?;
        let published = annotations.contains_key(PUBLISH);
        if published && (zero == Some(true) || freeze.is_some()) {
            let asked = if freeze.is_some() { FREEZE } else { ZERO };
            return Err(Fault::invalid(format!(
                "{asked} and {PUBLISH} do not go together: what comes through published ports is not seen here, so \
                 nobody knows when the function is idle; leave one of them out"
            )));
        }
        let after = duration(labels, "label", ZERO_DURATION)?.unwrap_or(settings.zero_duration);
        let room = one(annotations, "annotation", MAX_INFLIGHT, "a whole number above 0", |text| {
            text.parse().ok().filter(|room| *room > 0)
        })?;
        Ok(Self {
            min,
            max,
            load,
            zero: (zero.unwrap_or(settings.scale_zero) && !published).then_some(after),
            freeze,
            max_inflight: room.unwrap_or(usize::MAX),
        })
    }

    /// The rules of a function that has none.
    pub fn fixed(settings: &Settings) -> Self {
        Self::read(&Texts::new(), &Texts::new(), settings).expect("nothing to read")
    }

    /// How many replicas a deploy has of it, where there are `now` of the version before.
    pub(in crate::provider) fn deployed(&self, labels: &Texts, now: Option<u32>) -> u32 {
        match now {
            Some(now) if self.load.is_some() => now.clamp(self.min, self.max),
            Some(now) if labels.get(MIN).is_none_or(|min| min == "0") => now,
            _ => self.min,
        }
    }
}

fn measure(text: &str) -> Option<Measure> {
    match text {
        "rps" => Some(Measure::Rps),
        "capacity" => Some(Measure::Capacity),
        "cpu" => Some(Measure::Cpu),
        _ => None,
    }
}

fn positive(text: &str, most: f64) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0 && *number <= most)
}

fn one<T>(texts: &Texts, kind: &str, name: &str, rule: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
    let Some(text) = texts.get(name) else { return Ok(None) };
    let wrong = || Fault::invalid(format!("{kind} {name} ({}) is invalid: {rule}", text.escape_debug()));
    read(text).map(Some).ok_or_else(wrong)
}

fn number<T: FromStr + PartialOrd + Display>(labels: &Texts, name: &str, least: T, most: T) -> Result<Option<T>> {
    let upto = if name == FACTOR { format!(" up to {most}") } else { String::new() };
    let rule = format!("a whole number from {least}{upto}");
    one(labels, "label", name, &rule, |text| text.parse().ok().filter(|n| *n >= least && *n <= most))
}

fn duration(texts: &Texts, kind: &str, name: &str) -> Result<Option<Duration>> {
    let Some(text) = texts.get(name) else { return Ok(None) };
    let read = parse_duration(text).context(|| format!("{kind} {name}"))?;
    match read.is_zero() {
        true => Err(Fault::invalid(format!("{kind} {name} ({}) is invalid: more than nothing", text.escape_debug()))),
        false => Ok(Some(read)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pairs: &[(&str, &str)]) -> Texts {
        pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
    }

    fn rules(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Result<Rules> {
        Rules::read(&texts(labels), &texts(annotations), &Settings::default())
    }

    /// Which labels turn load scaling on, and what they mean together.
    #[test]
    fn the_table_of_labels() {
        type Row<'a> = (&'a [(&'a str, &'a str)], u32, u32, Option<(Measure, f64)>);
        let table: [Row; 9] = [
            (&[], 1, 20, None),
            (&[(MIN, "3")], 3, 20, None),
            (&[(MIN, "30")], 30, 30, None),
            (&[(MAX, "5")], 1, 5, Some((Measure::Rps, 45.0))),
            (&[(MIN, "2"), (MAX, "2"), (TYPE, "rps")], 2, 2, None),
            (&[(TYPE, "capacity"), (TARGET, "10")], 1, 20, Some((Measure::Capacity, 9.0))),
            (&[(TYPE, "cpu"), (TARGET, "500"), (PROPORTION, "1.0")], 1, 20, Some((Measure::Cpu, 500.0))),
            (&[(PROPORTION, "0.5"), (MIN, "0")], 1, 20, Some((Measure::Rps, 25.0))),
            (&[(TARGET, "2.5"), (MIN, "4"), (MAX, "8")], 4, 8, Some((Measure::Rps, 2.25))),
        ];
        for (labels, min, max, load) in table {
            let rules = rules(labels, &[]).unwrap();
            assert_eq!((rules.min, rules.max), (min, max), "{labels:?}");
            assert_eq!(rules.load.map(|l| (l.measure, l.per_replica)), load, "{labels:?}");
        }
    }

    #[test]
    fn zero_freeze_and_concurrency() {
        let none = rules(&[], &[]).unwrap();
        assert_eq!((none.zero, none.freeze, none.max_inflight), (None, None, usize::MAX));
        let all = rules(&[(ZERO, "true"), (ZERO_DURATION, "90s")], &[(FREEZE, "5s"), (MAX_INFLIGHT, "3")]).unwrap();
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!((all.zero, all.freeze, all.max_inflight), (seconds(90), seconds(5), 3));
        assert_eq!(rules(&[(ZERO, "true")], &[]).unwrap().zero, seconds(900));
        let on = Settings { scale_zero: true, zero_duration: Duration::from_secs(7), ..Settings::default() };
        assert_eq!(Rules::fixed(&on).zero, seconds(7));
        assert_eq!(Rules::read(&texts(&[(ZERO, "false")]), &texts(&[]), &on).unwrap().zero, None);
    }

    #[test]
    fn what_publishes_ports_is_never_idle() {
        let published = (PUBLISH, "8000:80");
        for (label, annotation) in [(Some((ZERO, "true")), None), (None, Some((FREEZE, "5s")))] {
            let annotations: Vec<_> = [published].into_iter().chain(annotation).collect();
            let labels: Vec<_> = label.into_iter().collect();
            assert!(rules(&labels, &annotations).unwrap_err().to_string().contains("do not go together"));
        }
        let on = Settings { scale_zero: true, ..Settings::default() };
        assert_eq!(Rules::read(&texts(&[]), &texts(&[published]), &on).unwrap().zero, None);
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name() {
        for (name, values) in [
            (MIN, &["-1", "many", "4294967296"][..]),
            (MAX, &["0", "", "1.5"]),
            (FACTOR, &["0", "101", "x"]),
            (TYPE, &["RPS", "custom", ""]),
            (TARGET, &["0", "-5", "inf", "NaN", "much"]),
            (PROPORTION, &["0", "1.01", "-0.5"]),
            (WINDOW, &["soon", "0s", "-1m"]),
            (ZERO, &["yes", "1", ""]),
            (ZERO_DURATION, &["0", "15 m", "never"]),
        ] {
            for value in values {
                let fault = rules(&[(name, value)], &[]).unwrap_err().to_string();
                assert!(fault.contains(name), "{name}={value}: {fault}");
            }
        }
        for (name, value) in [(FREEZE, "0s"), (FREEZE, "true"), (MAX_INFLIGHT, "0"), (MAX_INFLIGHT, "-1")] {
            assert!(rules(&[], &[(name, value)]).unwrap_err().to_string().contains(name));
        }
        assert!(rules(&[(MIN, "3"), (MAX, "2")], &[]).unwrap_err().to_string().contains(MAX));
    }

    #[test]
    fn a_deploy_keeps_what_load_has_brought() {
        let scaled = texts(&[(MAX, "5")]);
        let minimum = texts(&[(MIN, "2")]);
        for (labels, now, replicas) in [
            (&scaled, None, 1),
            (&scaled, Some(4), 4),
            (&scaled, Some(0), 1),
            (&scaled, Some(9), 5),
            (&minimum, None, 2),
            (&minimum, Some(7), 2),
            (&Texts::new(), Some(7), 7),
            (&Texts::new(), Some(0), 0),
        ] {
            let rules = Rules::read(labels, &Texts::new(), &Settings::default()).unwrap();
            assert_eq!(rules.deployed(labels, now), replicas, "{labels:?} {now:?}");
        }
    }
}
