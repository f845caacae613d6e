//! How long to wait before the next connection to Redis.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LAST: Duration = Duration::from_secs(2);

/// Doubles the wait with each failure. Half of the wait is random, so that the nodes do not come back in step.
pub(crate) struct BackOff(Duration);

impl BackOff {
    pub(crate) fn new() -> BackOff {
        BackOff(FIRST)
    }

    /// Returns the wait after a connection that lasted this long.
    pub(crate) fn next(&mut self, lasted: Duration) -> Duration {
        // A connection that only timed out has not worked.
        if lasted > 2 * LAST {
            self.0 = FIRST;
        }
        let wait = self.0;
        self.0 = (wait * 2).min(LAST);
        let random = RandomState::new().hash_one(wait) as u32;
        wait / 2 + (wait / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}
