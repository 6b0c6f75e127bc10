//! Prometheus's text format, version 0.0.4, for values that are read when somebody asks.

use std::fmt::Write;

/// What a family's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// Families one after the other.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// Declares a family and writes its samples: labels with their values, and the value. Label values must need no
    /// escape, which names of functions, namespaces and replicas do not.
    pub fn family<L: AsRef<[(&'static str, String)]>>(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, f64)>,
    ) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in samples {
            let labels: Vec<String> =
                labels.as_ref().iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
            let _ = match labels.is_empty() {
                true => writeln!(self.0, "{name} {value}"),
                false => writeln!(self.0, "{name}{{{}}} {value}", labels.join(",")),
            };
        }
    }

    /// A family with one sample and no label.
    pub fn single(&mut self, kind: Kind, name: &str, help: &str, value: f64) {
        self.family(kind, name, help, [([], value)]);
    }

    /// All of it.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_declared_and_then_filled() {
        let mut page = Page::default();
        page.family(Kind::Counter, "a_total", "All.", [([("x", "1".to_owned()), ("y", "2".to_owned())], 0.5)]);
        page.single(Kind::Gauge, "b", "Now.", 3.0);
        let text = "# HELP a_total All.\n# TYPE a_total counter\na_total{x=\"1\",y=\"2\"} 0.5\n\
                    # HELP b Now.\n# TYPE b gauge\nb 3\n";
        assert_eq!(String::from_utf8(page.into_bytes()).unwrap(), text);
    }
}
