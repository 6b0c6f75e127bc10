//! Work that several callers want at once is done once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Work under way, by name.
#[derive(Debug)]
pub struct Flights<T> {
    open: Mutex<HashMap<String, Arc<OnceLock<T>>>>,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self { open: Mutex::default() }
    }
}

/// Whether a caller takes what others are about to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// Work that has begun serves this caller too.
    Any,
    /// Only work that begins now; later callers may join it.
    New,
}

impl<T: Clone> Flights<T> {
    /// The result of the work named `key`: of `work`, or of somebody else's that is under way. Should that one panic,
    /// another caller's `work` runs in its place.
    pub fn share(&self, key: &str, join: Join, work: impl FnOnce() -> T) -> T {
        let flight = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            match join {
                Join::Any => Arc::clone(open.entry(key.to_owned()).or_default()),
                Join::New => {
                    let flight = Arc::default();
                    open.insert(key.to_owned(), Arc::clone(&flight));
                    flight
                }
            }
        };
        let result = flight.get_or_init(work).clone();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(key).is_some_and(|other| Arc::ptr_eq(other, &flight)) {
            open.remove(key);
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, mpsc};

    use super::*;

    #[test]
    fn ten_callers_at_once_share_one_piece_of_work_and_another_name_shares_nothing() {
        let (flights, done, together) = (Flights::default(), AtomicUsize::new(0), Barrier::new(11));
        std::thread::scope(|scope| {
            for caller in 0..11 {
                let (flights, done, together) = (&flights, &done, &together);
                scope.spawn(move || {
                    let key = if caller == 10 { "other" } else { "one" };
                    together.wait();
                    let result = flights.share(key, Join::Any, || {
                        done.fetch_add(1, Ordering::SeqCst);
                        // Long enough for the others to arrive; were it not, the count would tell.
                        std::thread::sleep(std::time::Duration::from_millis(300));
                        key
                    });
                    assert_eq!(result, key);
                });
            }
        });
        assert_eq!(done.into_inner(), 2);
        assert!(flights.open.into_inner().unwrap().is_empty());
    }

    #[test]
    fn who_wants_new_work_is_not_given_old_and_later_callers_join_the_new() {
        let flights = Flights::default();
        let (begun, is_begun) = mpsc::channel();
        let (go, may_go) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let shared = &flights;
            let old = scope.spawn(move || {
                shared.share("k", Join::Any, || {
                    begun.send(()).unwrap();
                    may_go.recv().unwrap();
                    "old"
                })
            });
            is_begun.recv().unwrap();
            assert_eq!(flights.share("k", Join::New, || "new"), "new");
            go.send(()).unwrap();
            assert_eq!(old.join().unwrap(), "old");
        });
        assert!(flights.open.into_inner().unwrap().is_empty());
    }
}
