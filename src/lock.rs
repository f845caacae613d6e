//! The one place where poison is ignored. Each critical section of this crate leaves its data whole at every point where it
//! may panic, so a poisoned lock says nothing about the data.

use std::sync::{LockResult, Mutex, MutexGuard, PoisonError};

/// Locks a mutex, also after a panic of another holder.
#[inline(never)] // One copy for each type, where `unwrap_or_else` would be inlined at each call.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    ignore_poison(mutex.lock())
}

/// Returns the guard that a lock, or a wait on a condition variable, returns with or without poison.
pub(crate) fn ignore_poison<T>(guard: LockResult<T>) -> T {
    guard.unwrap_or_else(PoisonError::into_inner)
}
