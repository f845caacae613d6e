//! User code, called so that its panic ends that call and nothing else.
//!
//! Handlers, middleware and hooks run on threads that serve others too, whose work would end with the thread. In a program with
//! `panic = "abort"` nothing can be caught: a panic ends the process.

use std::io::{self, Write};
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

/// Takes a problem that has no caller to tell. Several threads may call it at once.
pub(crate) type ErrorHook = Arc<dyn Fn(&str) + Send + Sync>;

/// Returns the hook that writes to standard error. Unlike `eprintln!` it does not panic where that cannot be written.
pub(crate) fn stderr_hook() -> ErrorHook {
    Arc::new(|problem| drop(writeln!(io::stderr(), "tiny-sse: {problem}")))
}

/// Calls user code, and returns `None` where it panics. The panic hook reports the panic.
///
/// A value that the call shares with other threads may be left half changed. Its owner has to expect that, as after any panic
/// of a thread.
pub(crate) fn guarded<T>(call: impl FnOnce() -> T) -> Option<T> {
    match panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => Some(value),
        Err(payload) => {
            // The payload's `Drop` is user code as well. When that `Drop` panics, the payload of the second panic is leaked.
            if let Err(another) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                mem::forget(another);
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value whose `Drop` panics.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic::panic_any(Bomb);
        }
    }

    #[test]
    fn a_panic_ends_one_call() {
        assert_eq!(guarded(|| 1), Some(1));
        assert_eq!(guarded(|| panic!("on purpose")), None::<i32>);
        assert_eq!(guarded(|| panic::panic_any(Bomb)), None::<i32>);
        assert_eq!(guarded(|| drop(Bomb)), None);
    }
}
