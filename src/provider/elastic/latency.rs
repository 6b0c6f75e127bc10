//! [`Latency`]: how long a function's answers take, counted on the invoke path in one atomic addition.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Four to every doubling, from a microsecond to more than half an hour: a quantile is at most a fifth too high.
const BUCKETS: usize = 4 * 32;

/// Answers by how long they took.
#[derive(Debug)]
pub struct Latency([AtomicU64; BUCKETS]);

impl Default for Latency {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Latency {
    /// Counts one answer.
    pub fn count(&self, took: Duration) {
        self.0[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// Answers so far: a bucket's upper bound in microseconds and its number, where there are any.
    pub fn counts(&self) -> Vec<(u64, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed)).enumerate();
        counts.filter(|(_, count)| *count > 0).map(|(bucket, count)| (bound(bucket), count)).collect()
    }
}

fn bucket(took: Duration) -> usize {
    // At least four, so that there are two bits below the highest one: they say the quarter of the octave.
    let scaled = (took.as_micros().min(u128::from(u32::MAX)) as u64 + 1) * 4;
    let octave = scaled.ilog2() as usize - 2;
    let quarter = (scaled >> octave) as usize & 3;
    (octave * 4 + quarter).min(BUCKETS - 1)
}

/// The first number of microseconds that is beyond the bucket.
fn bound(bucket: usize) -> u64 {
    let (octave, quarter) = (bucket / 4, bucket as u64 % 4);
    ((5 + quarter) << octave).div_ceil(4) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_below_its_bound_and_little_less() {
        for micros in (0..2000).chain([4095, 4096, 5000, 1_000_000, 60_000_000, 4_000_000_000]) {
            let bound = bound(bucket(Duration::from_micros(micros)));
            assert!(bound > micros, "{micros} is counted below {bound}");
            assert!(bound as f64 <= (micros + 1) as f64 * 1.25, "{micros} is counted as {bound}");
        }
        let latency = Latency::default();
        for micros in [100, 100, 90_000] {
            latency.count(Duration::from_micros(micros));
        }
        latency.count(Duration::MAX);
        let counts = latency.counts();
        assert_eq!(counts.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 1, 1]);
    }
}
