//! Random numbers that need to differ, not to be secret: from the keys that `std` makes for its hash maps.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// A random number; std has no generator for secrets, so never use it for one.
pub(crate) fn random_u64() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A random duration below `most`, in whole milliseconds.
pub(crate) fn jitter(most: Duration) -> Duration {
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(random_u64() % most)
}
