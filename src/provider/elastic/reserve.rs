//! Starts share the host with what serves already: only so many at once, and only while memory is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::fault::{Fault, Kind, Result};
use crate::platform;
use crate::provider::Provider;

/// Between two looks at the memory that is left.
const PAUSE: Duration = Duration::from_millis(50);

/// A place among the replicas that are being started at once. Dropping it gives it back.
pub(in crate::provider) struct Slot<'a> {
    _permit: tokio::sync::SemaphorePermit<'a>,
}

/// Somebody is having a frozen replica removed.
#[derive(Debug, Default)]
pub(in crate::provider) struct Reclaim(Arc<AtomicBool>);

impl Provider {
    /// Waits until one more replica may be started: in turn, and with memory left. After `ready_wait` without memory
    /// it fails.
    pub(in crate::provider) fn slot(&self) -> Result<Slot<'_>> {
        let permit = self.background.block_on(self.starts.acquire()).expect("the semaphore is never closed");
        let begun = Instant::now();
        while let Some(left) = self.too_little()? {
            if begun.elapsed() >= self.config.ready_wait {
                let [left, reserve] = [left, self.config.elastic.reserve_bytes].map(|bytes| bytes >> 20);
                let text = format!(
                    "this host has {left} MiB of memory left, and elastic.reserve_bytes keeps {reserve} MiB free; stop something or lower it"
                );
                return Err(Fault::new(Kind::Exhausted, text));
            }
            self.reclaim_soon();
            std::thread::sleep(PAUSE);
        }
        Ok(Slot { _permit: permit })
    }

    /// Bytes of memory that are left, if that is less than the reserve.
    fn too_little(&self) -> Result<Option<u64>> {
        let reserve = self.config.elastic.reserve_bytes;
        if reserve == 0 {
            return Ok(None);
        }
        Ok(Some(platform::memory_available()?).filter(|left| *left < reserve))
    }

    /// Has what was frozen longest removed. In the background: it takes that function's lock, and the caller may hold
    /// another one's.
    fn reclaim_soon(&self) {
        let running = Arc::clone(&self.reclaim.0);
        if running.swap(true, Ordering::SeqCst) {
            return;
        }
        let provider = self.me();
        self.background.spawn_blocking(move || {
            provider.remove_oldest_frozen();
            running.store(false, Ordering::SeqCst);
        });
    }

    /// Frozen replicas make room when the host has too little memory left.
    pub(super) fn keep_reserve(&self) {
        if matches!(self.too_little(), Ok(Some(_))) {
            self.reclaim_soon();
        }
    }
}
