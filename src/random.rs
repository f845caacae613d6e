//! Numbers that need to differ, not to be secret: from the keys that `std` makes for its hash maps, and from the clock.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A random number; std has no generator for secrets, so never use it for one.
pub(crate) fn random_u64() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A duration below `most`, in whole milliseconds, for what must not happen all at once. The clock is enough for that, and
/// asks the system for nothing; its digits are mixed, as the last ones of some clocks never change.
pub(crate) fn jitter(most: Duration) -> Duration {
    let most = (most.as_millis() as u64).max(1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = now.unwrap_or_default().as_nanos() as u64;
    // The golden ratio's digits spread numbers that are close together furthest apart.
    let mixed = nanos.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    Duration::from_millis(mixed % most)
}
