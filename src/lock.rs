//! The one place for locks whose poison is ignored.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, also after a panic of another holder. Each critical section of this crate leaves its data whole at every
/// point where it may panic, so a poisoned lock says nothing about the data.
#[inline(never)] // One copy for each type, where `unwrap_or_else` would be inlined at each call.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
