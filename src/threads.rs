//! Runs this on a reused or a new thread, within a cap.
//!
//! A new thread costs some 100 µs, a reused one a wake-up. New threads start each other, so that whoever hands over an
//! item makes at most one of them.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::user_code::guarded;

/// How long a thread waits for another item before it ends.
const KEEP: Duration = Duration::from_secs(5);

/// Starts a thread of this name; without a size of its own its stack has the usual one. Boxed, as there is a copy of what
/// std does for each type of closure.
pub(crate) fn spawn(
    name: &str,
    stack_bytes: Option<usize>,
    run: Box<dyn FnOnce() + Send>,
) -> io::Result<()> {
    let mut builder = thread::Builder::new().name(name.to_string());
    if let Some(bytes) = stack_bytes {
        builder = builder.stack_size(bytes);
    }
    // The payload of a panic would end the process where its `Drop` panics in std.
    let run = || {
        guarded(run);
    };
    builder.spawn(run).map(drop)
}

/// Threads that all do the same with the items they are given. Those that wait end when this is dropped.
pub(crate) struct Threads<T> {
    shared: Arc<Shared<T>>,
}

/// What the threads are called, how many there may be, and how large their stacks are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolConfig {
    pub(crate) name: &'static str,
    /// Threads that stay even when there is nothing to do.
    pub(crate) min_threads: usize,
    pub(crate) max_threads: usize,
    pub(crate) stack_bytes: usize,
}

struct Shared<T> {
    config: PoolConfig,
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
    #[inline(never)] // As with `lock`.
    pub(crate) fn new(config: PoolConfig, handle: Box<dyn Fn(T) + Send + Sync>) -> Threads<T> {
        let shared = Arc::new(Shared {
            config,
            handle,
            state: Mutex::new(State {
                queue: VecDeque::new(),
                threads: 0,
                waiting: 0,
                starting: 0,
                closed: false,
            }),
            wake: Condvar::new(),
            gone: Condvar::new(),
        });
        Threads { shared }
    }

    /// Starts the threads that stay.
    pub(crate) fn start_min_threads(&self) -> io::Result<()> {
        for _ in 0..self.shared.config.min_threads {
            self.shared.start(self.shared.lock())?;
        }
        Ok(())
    }

    /// Has the item handled by a thread that is free or new; gives it back when there is none to be had, or no more.
    pub(crate) fn run(&self, item: T) -> Result<(), T> {
        let mut state = self.shared.lock();
        let ready = state.ready();
        if state.closed
            || state.queue.len() >= ready + (self.shared.config.max_threads - state.threads)
        {
            return Err(item);
        }
        state.queue.push_back(item);
        // One that is starting will start the next.
        if state.starting == 0 && state.queue.len() > ready {
            if self.shared.start(state).is_err() {
                // Others may have come meanwhile, in the hope of this thread: they are refused with it.
                let mut stranded = self.shared.lock().stranded();
                return stranded.pop_back().map_or(Ok(()), Err);
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

    /// Items wait for a thread.
    pub(crate) fn has_queue(&self) -> bool {
        !self.shared.lock().queue.is_empty()
    }

    /// Lets the threads end as they become free, and waits for that, at most until `deadline`. Says how many are left.
    pub(crate) fn close(&self, deadline: Instant) -> usize {
        let mut state = self.shared.lock();
        state.closed = true;
        self.shared.wake.notify_all();
        let remaining = deadline.saturating_duration_since(Instant::now());
        let gone = &self.shared.gone;
        let (state, _) = gone
            .wait_timeout_while(state, remaining, |state| state.threads > 0)
            .unwrap_or_else(PoisonError::into_inner);
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
    #[inline(never)] // Else its code would be there many times.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Shared<T> {
    /// Counts one thread more and starts it.
    fn start(self: &Arc<Shared<T>>, mut state: MutexGuard<'_, State<T>>) -> io::Result<()> {
        state.threads += 1;
        state.starting += 1;
        drop(state);
        let shared = Arc::clone(self);
        let stack_bytes = Some(self.config.stack_bytes);
        let started = spawn(self.config.name, stack_bytes, Box::new(|| shared.serve()));
        if started.is_err() {
            let mut state = self.lock();
            state.starting -= 1;
            state.threads -= 1;
        }
        started
    }

    fn serve(self: Arc<Shared<T>>) {
        let mut state = self.lock();
        // In one step with the look into the queue: until then this thread is on its way to an item.
        state.starting -= 1;
        while let Some(item) = self.next(state) {
            // A panic ends one item, not the thread.
            guarded(|| (self.handle)(item));
            state = self.lock();
        }
    }

    /// Waits for an item; `None` when the thread shall end, and is no longer counted.
    fn next<'a>(self: &'a Arc<Shared<T>>, mut state: MutexGuard<'a, State<T>>) -> Option<T> {
        let mut rested = false;
        loop {
            if let Some(item) = state.queue.pop_front() {
                let another =
                    state.queue.len() > state.ready() && state.threads < self.config.max_threads;
                if another && self.start(state).is_err() && self.config.min_threads == 0 {
                    // No thread is sure to come back for them: they are refused.
                    let stranded = self.lock().stranded();
                    drop(stranded);
                }
                return Some(item);
            }
            if state.closed || (rested && state.threads > self.config.min_threads) {
                state.threads -= 1;
                if state.threads == 0 {
                    self.gone.notify_all();
                }
                return None;
            }
            state.waiting += 1;
            // One moment for those who have something to hand over: what comes now costs no sleep and no wake-up.
            drop(state);
            thread::yield_now();
            state = self.lock();
            if state.queue.is_empty() && !state.closed {
                let timeout;
                (state, timeout) = self
                    .wake
                    .wait_timeout(state, KEEP)
                    .unwrap_or_else(PoisonError::into_inner);
                rested = timeout.timed_out();
            }
            state.waiting -= 1;
        }
    }
}

impl<T> State<T> {
    /// Threads that will look into the queue without having to finish anything before.
    fn ready(&self) -> usize {
        self.waiting + self.starting
    }

    /// Takes out what no thread is on its way to.
    fn stranded(&mut self) -> VecDeque<T> {
        self.queue.split_off(self.queue.len().min(self.ready()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::sync::mpsc::{self, Receiver, Sender};
    use std::thread::ThreadId;

    fn start_threads<T: Send + 'static>(
        config: PoolConfig,
        handle: impl Fn(T) + Send + Sync + 'static,
    ) -> io::Result<Threads<T>> {
        let threads = Threads::new(config, Box::new(handle));
        threads.start_min_threads()?;
        Ok(threads)
    }

    /// A thread that hangs fails its test after so long.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn config(min_threads: usize, max_threads: usize) -> PoolConfig {
        PoolConfig {
            name: "test",
            min_threads,
            max_threads,
            stack_bytes: 256 * 1024,
        }
    }

    /// A task says who runs it, then waits to be let go.
    struct Task {
        started: Sender<ThreadId>,
        go: Receiver<()>,
    }

    fn run_task(task: Task) {
        task.started.send(thread::current().id()).unwrap();
        // An error is a dropped sender, which lets go as well.
        let _ = task.go.recv_timeout(PATIENCE);
    }

    fn task(started: &Sender<ThreadId>) -> (Task, Sender<()>) {
        let (let_go, go) = mpsc::channel();
        let started = started.clone();
        (Task { started, go }, let_go)
    }

    fn in_a_minute() -> Instant {
        Instant::now() + PATIENCE
    }

    /// Comes back when so many threads wait for an item.
    fn until_waiting<T>(threads: &Threads<T>, waiting: usize) {
        let give_up = in_a_minute();
        while threads.shared.lock().waiting != waiting {
            assert!(Instant::now() < give_up);
            thread::yield_now();
        }
    }

    #[test]
    fn a_thread_that_is_free_takes_the_next_item() {
        let threads = start_threads(config(0, 10), run_task).unwrap();
        let (started, starts) = mpsc::channel();
        let mut ids = HashSet::new();
        for _ in 0..10 {
            let (task, let_go) = task(&started);
            assert!(threads.run(task).is_ok());
            ids.insert(starts.recv_timeout(PATIENCE).unwrap());
            drop(let_go);
            until_waiting(&threads, 1);
        }
        assert_eq!(ids.len(), 1);
    }

    #[test]
    fn as_many_run_at_once_as_the_cap_says_and_no_more() {
        for max_threads in [0, 1, 2, 16] {
            let threads = start_threads(config(0, max_threads), run_task).unwrap();
            let (started, starts) = mpsc::channel();
            let mut running = Vec::new();
            for _ in 0..max_threads {
                let (task, let_go) = task(&started);
                assert!(threads.run(task).is_ok());
                running.push(let_go);
            }
            let (one_more, _) = task(&started);
            assert!(threads.run(one_more).is_err());

            let ids: HashSet<_> = (0..max_threads)
                .map(|_| starts.recv_timeout(PATIENCE).unwrap())
                .collect();
            assert_eq!(ids.len(), max_threads);
            if running.pop().is_some() {
                until_waiting(&threads, 1);
                let (task, let_go) = task(&started);
                assert!(threads.run(task).is_ok(), "one has become free");
                starts.recv_timeout(PATIENCE).unwrap();
                running.push(let_go);
            }
            drop(running);
            assert_eq!(threads.close(in_a_minute()), 0);
        }
    }

    /// A thread that has started but not yet looked into the queue is on its way there.
    #[test]
    fn nothing_is_refused_below_the_cap_whenever_it_comes() {
        for round in 0..1000 {
            // Each handler waits for the other: they come to an end only if both run at once.
            let together = Arc::new(Barrier::new(2));
            let threads = start_threads(config(0, 2), move |()| {
                together.wait();
            })
            .unwrap();
            assert_eq!(threads.run(()), Ok(()));
            // Long enough, in some of the rounds, for the first thread to be just then about to look.
            (0..round).for_each(|_| std::hint::spin_loop());
            assert_eq!(threads.run(()), Ok(()), "round {round}");
            assert_eq!(threads.close(in_a_minute()), 0);
        }
    }

    #[test]
    fn new_threads_start_each_other() {
        let (started, starts) = mpsc::channel();
        let threads = start_threads(config(0, 100), run_task).unwrap();
        let mut running = Vec::new();
        for _ in 0..100 {
            let (task, let_go) = task(&started);
            threads.enqueue(task);
            running.push(let_go);
        }
        let (one_more, _) = task(&started);
        assert!(threads.run(one_more).is_err(), "100 wait for 100 threads");

        // As `run` does for the first of them.
        threads.shared.start(threads.shared.lock()).unwrap();
        let ids: HashSet<_> = (0..100)
            .map(|_| starts.recv_timeout(PATIENCE).unwrap())
            .collect();
        assert_eq!(ids.len(), 100);
    }

    #[test]
    fn a_panic_costs_no_thread() {
        let (sender, answers) = mpsc::channel();
        let threads = start_threads(config(1, 1), move |item: Option<&'static str>| {
            sender.send(item.expect("a panic on purpose")).unwrap();
        })
        .unwrap();
        for _ in 0..3 {
            threads.enqueue(None);
            threads.enqueue(Some("next"));
            assert_eq!(answers.recv_timeout(PATIENCE), Ok("next"));
        }
        assert_eq!(threads.shared.lock().threads, 1);
        assert_eq!(threads.close(in_a_minute()), 0);
    }

    #[test]
    fn a_thread_that_cannot_be_made_gives_the_item_back() {
        let endless = PoolConfig {
            stack_bytes: usize::MAX / 4 * 3, // More than any address space has in one piece.
            ..config(0, 10)
        };
        let threads = start_threads(endless, |_: u32| {}).unwrap();
        for item in 0..3 {
            assert_eq!(threads.run(item), Err(item));
        }
        let state = threads.shared.lock();
        assert_eq!(
            (state.threads, state.starting, state.queue.len()),
            (0, 0, 0)
        );
    }

    #[test]
    fn closing_says_how_many_have_not_come_back() {
        let threads = start_threads(config(0, 10), run_task).unwrap();
        let (started, starts) = mpsc::channel();
        let mut running = Vec::new();
        for _ in 0..3 {
            let (task, let_go) = task(&started);
            assert!(threads.run(task).is_ok());
            running.push(let_go);
            starts.recv_timeout(PATIENCE).unwrap();
        }
        running.pop();
        until_waiting(&threads, 1);
        assert_eq!(threads.close(Instant::now()), 3); // No time: the one that waits has not had a chance to end.
        let (late, _) = task(&started);
        assert!(threads.run(late).is_err(), "closed takes nothing more");
        running.clear();
        assert_eq!(threads.close(in_a_minute()), 0);
    }

    #[test]
    fn what_waits_is_done_before_the_end() {
        let (sender, answers) = mpsc::channel();
        let threads = start_threads(config(1, 1), move |n| sender.send(n).unwrap()).unwrap();
        for n in 0..100 {
            threads.enqueue(n);
        }
        assert_eq!(threads.close(in_a_minute()), 0);
        assert!((0..100).eq(answers.try_iter()));
    }

    #[test]
    fn those_that_wait_end_when_it_is_dropped() {
        let threads = start_threads(config(3, 3), |()| {}).unwrap();
        until_waiting(&threads, 3);
        let shared = Arc::clone(&threads.shared);
        drop(threads);
        let give_up = in_a_minute();
        while shared.lock().threads > 0 {
            assert!(Instant::now() < give_up);
            thread::yield_now();
        }
    }
}
