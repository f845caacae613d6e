//! Runs this on a reused or a new thread, within a cap.
//!
//! A new thread costs some 100 µs, a reused one a wake-up. New threads start each other, so that whoever hands over an
//! item makes at most one of them.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a thread waits for another item before it ends.
const KEEP: Duration = Duration::from_secs(5);

/// Threads that all do the same with the items they are given. Those that wait end when this is dropped.
pub(crate) struct Threads<T> {
    shared: Arc<Shared<T>>,
}

/// What the threads are called, how many there may be, and how large their stacks are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    /// Threads that stay even when there is nothing to do.
    pub(crate) least: usize,
    pub(crate) most: usize,
    pub(crate) stack_bytes: usize,
}

struct Shared<T> {
    plan: Plan,
    handle: Box<dyn Fn(T) + Send + Sync>,
    state: Mutex<State<T>>,
    wake: Condvar,
    gone: Condvar,
}

struct State<T> {
    queue: VecDeque<T>,
    threads: usize,
    /// Of the threads, those that are about to look into the queue.
    waiting: usize,
    starting: usize,
    closed: bool,
}

impl<T: Send + 'static> Threads<T> {
    pub(crate) fn new(
        plan: Plan,
        handle: impl Fn(T) + Send + Sync + 'static,
    ) -> io::Result<Threads<T>> {
        let shared = Arc::new(Shared {
            plan,
            handle: Box::new(handle),
            state: Mutex::new(State {
                queue: VecDeque::new(),
                threads: plan.least,
                waiting: 0,
                starting: plan.least,
                closed: false,
            }),
            wake: Condvar::new(),
            gone: Condvar::new(),
        });
        let threads = Threads { shared };
        for _ in 0..plan.least {
            threads.shared.start()?;
        }
        Ok(threads)
    }

    /// Has the item handled by a thread that is free or new; gives it back when there is none to be had.
    pub(crate) fn run(&self, item: T) -> Result<(), T> {
        let mut state = self.shared.lock();
        let ready = state.waiting + state.starting;
        if state.queue.len() >= ready + (self.shared.plan.most - state.threads) {
            return Err(item);
        }
        state.queue.push_back(item);
        // One that is starting will start the next.
        if state.starting == 0 && state.queue.len() > ready {
            state.threads += 1;
            state.starting += 1;
            drop(state);
            if self.shared.start().is_err() {
                return self.shared.lock().queue.pop_back().map_or(Ok(()), Err);
            }
        } else {
            drop(state);
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// Puts the item at the end of the queue, however long that is; only wakes, never starts a thread itself.
    pub(crate) fn enqueue(&self, item: T) {
        self.shared.lock().queue.push_back(item);
        self.shared.wake.notify_one();
    }
}

impl<T> Threads<T> {
    /// Lets the threads end as they become free, and waits for that, at most until `deadline`. Says how many are left.
    pub(crate) fn close(&self, deadline: Instant) -> usize {
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.wake.notify_all();
        while state.threads > 0 {
            let remaining = deadline.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                break;
            }
            let waited = self.shared.gone.wait_timeout(state, remaining);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.threads
    }
}

impl<T> Drop for Threads<T> {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl<T> Shared<T> {
    /// Nothing that runs under this lock can leave it half changed.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Shared<T> {
    /// Starts a thread that is already counted.
    fn start(self: &Arc<Shared<T>>) -> io::Result<()> {
        let shared = Arc::clone(self);
        let started = thread::Builder::new()
            .name(self.plan.name.to_string())
            .stack_size(self.plan.stack_bytes)
            .spawn(move || shared.serve());
        if let Err(error) = started {
            let mut state = self.lock();
            state.starting -= 1;
            state.threads -= 1;
            return Err(error);
        }
        Ok(())
    }

    fn serve(self: Arc<Shared<T>>) {
        let _leaving = Leaving(&self);
        self.lock().starting -= 1;
        while let Some(item) = self.next() {
            (self.handle)(item);
        }
    }

    /// Waits for an item; `None` when the thread shall end.
    fn next(self: &Arc<Shared<T>>) -> Option<T> {
        let mut state = self.lock();
        let mut rested = false;
        loop {
            if let Some(item) = state.queue.pop_front() {
                let another = state.queue.len() > state.waiting + state.starting
                    && state.threads < self.plan.most;
                if another {
                    state.threads += 1;
                    state.starting += 1;
                }
                drop(state);
                if another && self.start().is_err() && self.plan.least == 0 {
                    // No thread is sure to come back for the last item: refuse it.
                    drop(self.lock().queue.pop_back());
                }
                return Some(item);
            }
            if state.closed || (rested && state.threads > self.plan.least) {
                return None;
            }
            state.waiting += 1;
            let (woken, timeout) = self
                .wake
                .wait_timeout(state, KEEP)
                .unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.waiting -= 1;
            rested = timeout.timed_out();
        }
    }
}

/// Takes a thread out of the count, also when the handler panics.
struct Leaving<'a, T>(&'a Shared<T>);

impl<T> Drop for Leaving<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.threads -= 1;
        if state.threads == 0 {
            self.0.gone.notify_all();
        }
    }
}
