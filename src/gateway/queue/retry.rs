//! When a call is tried again: what the queue's settings say, and over them the function's annotations.

use std::time::Duration;

use crate::gateway::config;
use crate::provider::Retry;

/// Answers after which a call is tried again (OpenFaaS's queue-worker, `httpRetryCodes`).
const CODES: [u16; 6] = [408, 429, 500, 502, 503, 504];

/// How a function's calls are tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    attempts: u32,
    codes: Vec<u16>,
    min_wait: Duration,
    max_wait: Duration,
}

impl Policy {
    /// The settings, and over them what the function asks for.
    pub fn new(settings: &config::Queue, retry: &Retry) -> Self {
        Self {
            attempts: retry.attempts.unwrap_or(settings.attempts),
            codes: retry.codes.clone().unwrap_or(CODES.to_vec()),
            min_wait: retry.min_wait.unwrap_or(settings.min_wait),
            max_wait: retry.max_wait.unwrap_or(settings.max_wait),
        }
    }

    /// The pause before the next attempt, after `attempts` of them; none when it is not to be tried again.
    pub fn pause(&self, status: u16, attempts: u32) -> Option<Duration> {
        if attempts >= self.attempts || !self.codes.contains(&status) {
            return None;
        }
        let doubled = 1u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        Some(self.min_wait.saturating_mul(doubled).min(self.max_wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_end_with_the_last_attempt() {
        let policy = Policy::new(&config::Queue::default(), &Retry::default());
        let seconds = |attempts| policy.pause(503, attempts).map(|pause| pause.as_secs());
        assert_eq!(
            (1..=10).map(seconds).collect::<Vec<_>>(),
            [Some(1), Some(2), Some(4), Some(8), Some(16), Some(32), Some(64), Some(120), Some(120), None]
        );
        assert_eq!(policy.pause(200, 1), None);
        assert_eq!(policy.pause(404, 1), None);
    }

    #[test]
    fn a_function_may_ask_for_something_else() {
        let retry = Retry { attempts: Some(99), codes: Some(vec![418]), min_wait: None, max_wait: None };
        let policy = Policy::new(&config::Queue::default(), &retry);
        assert_eq!(policy.pause(503, 1), None);
        assert_eq!(policy.pause(418, 98), Some(Duration::from_secs(120)));
    }
}
