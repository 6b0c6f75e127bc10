//! [`Fault`]: how everything below the API fails. One sentence that names the thing and the way out.

use std::error::Error;
use std::fmt;

/// What sort of failure a [`Fault`] is, for callers that act on it. The sentence is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The thing named does not exist.
    NotFound,
    /// It exists already, or somebody else holds it.
    Busy,
    /// The user's input breaks a rule.
    Invalid,
    /// A remote party asked for other credentials.
    Denied,
    /// No space, quota, address or other countable thing is left.
    Exhausted,
    /// This host, kernel or configuration cannot do it.
    Unsupported,
    /// Anything else: the system said no.
    System,
}

/// A failure: one sentence, its cause, and what went wrong while undoing the work, when that failed too.
#[derive(Debug)]
pub struct Fault {
    kind: Kind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    cleanup: Vec<Fault>,
}

/// Shorthand for results below the API.
pub type Result<T, E = Fault> = std::result::Result<T, E>;

impl Fault {
    /// A failure with no deeper cause.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None, cleanup: Vec::new() }
    }

    /// The user's input breaks a rule.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// The thing named does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// The same failure with its cause.
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same failure, saying also that undoing failed. Both are shown.
    pub fn and_cleanup(mut self, cleanup: Result<()>) -> Self {
        if let Err(fault) = cleanup {
            self.cleanup.push(fault);
        }
        self
    }

    /// The same failure seen from further out: `what` was being done.
    pub fn within(self, what: impl Into<String>) -> Self {
        Self { kind: self.kind, message: what.into(), source: Some(Box::new(self)), cleanup: Vec::new() }
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut source = self.source.as_deref().map(|e| e as &dyn Error);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            // A Fault prints its own causes.
            source = cause.downcast_ref::<Fault>().map_or_else(|| cause.source(), |_| None);
        }
        for fault in &self.cleanup {
            write!(f, " (and undoing it failed: {fault})")?;
        }
        Ok(())
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn Error + 'static))
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as E;
        let kind = match error.kind() {
            E::NotFound => Kind::NotFound,
            E::AlreadyExists | E::ResourceBusy => Kind::Busy,
            E::StorageFull | E::QuotaExceeded => Kind::Exhausted,
            E::Unsupported => Kind::Unsupported,
            _ => Kind::System,
        };
        Self::new(kind, error.to_string())
    }
}

/// Adds what was being done to an error on its way up.
pub trait Context<T> {
    /// Names what was being done; the closure runs on failure only.
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Fault>> Context<T> for std::result::Result<T, E> {
    fn context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| error.into().within(what()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_the_failure_and_the_failed_cleanup_are_shown() {
        let fault = Err::<(), _>(std::io::Error::other("pool is full"))
            .context(|| "cannot clone tank/x")
            .unwrap_err()
            .and_cleanup(Err(Fault::new(Kind::Busy, "dataset tank/x is busy")));
        assert_eq!(
            fault.to_string(),
            "cannot clone tank/x: pool is full (and undoing it failed: dataset tank/x is busy)"
        );
    }

    #[test]
    fn kind_survives_context() {
        let inner = Fault::not_found("no such tag");
        assert_eq!(inner.within("pulling alpine").kind(), Kind::NotFound);
    }
}
