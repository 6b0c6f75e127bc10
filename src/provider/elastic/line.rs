//! [`Line`]: requests of one function that wait for a replica. Bounded; first come, first served.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Where requests wait. Whoever is rung tries to take a replica; who leaves rings the next, so that no ring is lost
/// on a request that has given up.
#[derive(Debug, Default)]
pub struct Line {
    /// How many wait; read on every call, so outside the lock.
    length: AtomicUsize,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    bells: BTreeMap<u64, Arc<Notify>>,
}

/// A place in the line. Dropping it leaves.
#[derive(Debug)]
pub(in crate::provider) struct Place {
    line: Arc<Line>,
    number: u64,
    bell: Arc<Notify>,
}

impl Line {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.length.load(Ordering::SeqCst)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the last place; `None` when `most` wait already.
    pub(in crate::provider) fn join(self: &Arc<Self>, most: usize) -> Option<Place> {
        let mut places = self.places();
        if places.bells.len() >= most {
            return None;
        }
        let (number, bell) = (places.next, Arc::new(Notify::new()));
        places.next += 1;
        places.bells.insert(number, Arc::clone(&bell));
        self.length.store(places.bells.len(), Ordering::SeqCst);
        Some(Place { line: Arc::clone(self), number, bell })
    }

    /// Rings the first `count`. Costs nothing when nobody waits.
    pub(in crate::provider) fn ring(&self, count: usize) {
        if self.is_empty() {
            return;
        }
        for bell in self.places().bells.values().take(count) {
            bell.notify_one();
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether nobody has waited longer.
    pub fn is_first(&self) -> bool {
        self.line.places().bells.first_key_value().is_some_and(|(first, _)| *first == self.number)
    }

    /// Waits until it is rung; at once if it was since the last time.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.line.places();
        places.bells.remove(&self.number);
        self.line.length.store(places.bells.len(), Ordering::SeqCst);
        if let Some((_, next)) = places.bells.first_key_value() {
            next.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn is_rung(place: &Place) -> bool {
        tokio::time::timeout(Duration::from_millis(20), place.rung()).await.is_ok()
    }

    #[tokio::test]
    async fn the_first_is_rung_and_who_leaves_rings_the_next() {
        let line = Arc::new(Line::default());
        let [a, b, c] = [(); 3].map(|()| line.join(3).unwrap());
        assert!(line.join(3).is_none() && line.len() == 3);
        line.ring(1);
        assert!(a.is_first() && is_rung(&a).await && !is_rung(&b).await);
        drop(a);
        assert!(b.is_first() && is_rung(&b).await && !is_rung(&c).await);
        // One that was rung and gives up does not keep it to itself.
        line.ring(1);
        drop(b);
        assert!(is_rung(&c).await);
        drop(c);
        assert!(line.is_empty() && line.join(1).is_some());
    }
}
