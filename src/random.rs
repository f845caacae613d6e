//! Numbers that need to differ, not to be secret: from the keys that `std` makes for its hash maps, and from the clock.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns a random number. It is no secret: std has no generator for secrets.
pub(crate) fn random_u64() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Returns a duration below `max`, in whole milliseconds, for what must not happen all at once. The clock's nanoseconds are
/// random enough, without a system call. They are mixed, as the last digits of some clocks never change.
pub(crate) fn jitter(max: Duration) -> Duration {
    let max = (max.as_millis() as u64).max(1);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = now.unwrap_or_default().as_nanos() as u64;
    // Fibonacci hashing: of all multipliers, the golden ratio spreads neighbouring numbers furthest apart.
    let mixed = nanos.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    Duration::from_millis(mixed % max)
}
