//! A pool of threads with a queue: each item is handled on a reused or a new thread, within a limit.
//!
//! Starting a thread costs some 100 µs, reusing one a wake-up. A caller starts a thread only where none is on its way to the
//! queue; a thread that finds more items in the queue than threads on their way to it starts the next one. So a caller that
//! accepts connections is held up by one start at most, however many come at once.
//!
//! ```text
//!           start                  item                      handled
//!  (none) ────────▶ ready ─────────────────▶ busy ──────────────────────▶ ready
//!                     └── nothing for 5 s, or the pool is closed ──▶ (ended)
//! ```

use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::lock::{ignore_poison, lock};
use crate::user_code::guarded;

/// How long a thread waits for another item before it ends. A burst of items within this time after another one starts no new
/// threads.
const KEEP: Duration = Duration::from_secs(5);

/// Stack in bytes of a thread that runs user code, as std would make it.
pub(crate) const USER_STACK_BYTES: usize = 2 << 20;

/// Starts a thread of this name. The closure is boxed, since std's code is compiled once for each type of closure.
pub(crate) fn spawn(name: &str, stack_bytes: usize, run: Job) -> io::Result<()> {
    let builder = thread::Builder::new().name(name.to_string());
    // std aborts the process when the payload of a thread's panic panics in its own `Drop`.
    let run = || guarded(run).unwrap_or_default();
    builder.stack_size(stack_bytes).spawn(run).map(drop)
}

/// What a thread runs. It owns all that it uses, since the thread may outlive the function that starts it.
type Job = Box<dyn FnOnce() + Send>;

/// Runs user code on the one thread for such jobs, which the first job starts. The calling thread serves others too, and the
/// job may wait for those. Where the thread cannot be started, the job runs on the calling thread.
pub(crate) fn run_apart(job: Job) {
    static CALLBACKS: LazyLock<Option<Threads<Job>>> = LazyLock::new(|| {
        let run = Box::new(|job: Job| job());
        Threads::new("sse-callbacks", 1..=1, USER_STACK_BYTES, run).ok()
    });
    match &*CALLBACKS {
        Some(thread) => thread.enqueue(job),
        None => guarded(job).unwrap_or_default(),
    }
}

/// A pool of threads that all handle items in the same way. A drop closes the pool and does not wait: idle threads end, and
/// busy ones after the items that are in the queue.
pub(crate) struct Threads<T: Send + 'static> {
    shared: Arc<Shared<T>>,
}

/// The closure that handles an item. It runs without the lock, on several threads at once.
type Handle<T> = Arc<dyn Fn(T) + Send + Sync>;

/// What a pool and its threads share. The lock of the state is held for one step, and never while an item is handled.
struct Shared<T> {
    /// The name of each thread, as a debugger and the system show it.
    name: &'static str,
    /// The numbers of threads that stay while there is nothing to do, and that may run at once.
    limits: RangeInclusive<usize>,
    stack_bytes: usize,
    state: Mutex<State<T>>,
    /// Notified for each item that is put into the queue.
    wake: Condvar,
    /// Notified when the last thread has ended, and when `handle` has been dropped.
    gone: Condvar,
}

/// What the lock of a pool guards. A thread is on its way to each item, unless the maximum number of threads run. To keep this
/// so, each thread that takes an item leaves `queue` no longer than `ready`, or starts another thread.
///
/// ```text
///                                       queue   busy   ready   threads
/// three items have come                 a b c   3      2       5
/// a thread takes a: 2 items, 1 ready    b c     4      1       5
/// so it starts another thread           b c     4      2       6
/// ```
struct State<T> {
    /// Handles each item. A thread has a clone of the closure only while it handles an item. So the call of `close` that finds
    /// no thread left drops the closure and all that the closure owns. `None` afterwards.
    handle: Option<Handle<T>>,
    /// The thread whose call of `close` is dropping `handle`. Calls on other threads wait for this.
    dropping: Option<ThreadId>,
    /// The items that no thread has taken yet, the oldest first.
    queue: VecDeque<T>,
    /// The threads that run, those that have just been started included.
    threads: usize,
    /// Of the threads, those on their way to the queue: they wait for an item, or have just been started.
    ready: usize,
    /// Threads end when the queue is empty, and nothing is taken any more.
    closed: bool,
}

impl<T: Send + 'static> Threads<T> {
    /// Makes a pool of threads with this name and this size of stack. The lower limit is the number of threads that start now
    /// and stay while there is nothing to do. The upper limit is the number of threads that may run at once.
    ///
    /// # Errors
    ///
    /// The system's error when a thread cannot be started.
    #[inline(never)] // One copy for each type of item.
    pub(crate) fn new(
        name: &'static str,
        limits: RangeInclusive<usize>,
        stack_bytes: usize,
        handle: Box<dyn Fn(T) + Send + Sync>,
    ) -> io::Result<Threads<T>> {
        let min_threads = *limits.start();
        let shared = Arc::new(Shared {
            name,
            limits,
            stack_bytes,
            state: Mutex::new(State {
                handle: Some(Arc::from(handle)),
                dropping: None,
                queue: VecDeque::new(),
                threads: 0,
                ready: 0,
                closed: false,
            }),
            wake: Condvar::new(),
            gone: Condvar::new(),
        });
        let threads = Threads { shared };
        for _ in 0..min_threads {
            threads.shared.start(lock(&threads.shared.state))?;
        }
        Ok(threads)
    }

    /// Has the item handled by an idle or a new thread.
    ///
    /// # Errors
    ///
    /// Gives the item back when all threads are busy and no more are allowed or possible, or when the pool is closed.
    pub(crate) fn run(&self, item: T) -> Result<(), T> {
        let mut state = lock(&self.shared.state);
        let free = state.ready + (self.shared.limits.end() - state.threads);
        if state.closed || state.queue.len() >= free {
            return Err(item);
        }
        state.queue.push_back(item);
        if state.ready > 0 {
            // Where this is not enough, the thread that is on its way starts the next one.
            drop(state);
            self.shared.wake.notify_one();
        } else if self.shared.start(state).is_err() {
            // Other items may have been queued for this thread meanwhile. They are dropped.
            return self.shared.take_stranded().pop_back().map_or(Ok(()), Err);
        }
        Ok(())
    }

    /// Puts the item at the end of the queue, whose length is not limited. Wakes a thread, and starts none. This is for a
    /// caller that must not be held up, or that knows that a thread will soon be free.
    pub(crate) fn enqueue(&self, item: T) {
        lock(&self.shared.state).queue.push_back(item);
        self.shared.wake.notify_one();
    }

    /// Returns whether items wait for a thread.
    pub(crate) fn has_queue(&self) -> bool {
        !lock(&self.shared.state).queue.is_empty()
    }

    /// Has each thread end when there is no item for it, and waits for all of them, at most until `deadline`. Returns how many
    /// are left. If no thread is left, the closure that handles the items has been dropped.
    pub(crate) fn close(&self, deadline: Instant) -> usize {
        let mut state = lock(&self.shared.state);
        state.closed = true;
        self.shared.wake.notify_all();
        let remaining = deadline.saturating_duration_since(Instant::now());
        let caller = thread::current().id();
        let is_dropping = |state: &State<T>| state.dropping.is_some_and(|id| id != caller);
        let is_left = |state: &mut State<T>| state.threads > 0 || is_dropping(state);
        let waited = (self.shared.gone).wait_timeout_while(state, remaining, is_left);
        let (mut state, _) = ignore_poison(waited);
        let threads = state.threads;
        if let Some(handle) = state.handle.take_if(|_| threads == 0) {
            state.dropping = Some(caller);
            drop(state); // The handle owns values of user code, whose drop may take long.
            guarded(|| drop(handle));
            lock(&self.shared.state).dropping = None;
            self.shared.gone.notify_all();
        }
        threads
    }
}

impl<T: Send + 'static> Drop for Threads<T> {
    fn drop(&mut self) {
        self.close(Instant::now());
    }
}

impl<T: Send + 'static> Shared<T> {
    /// Counts and starts one more thread. Starting takes long, so the lock is released first. The thread counts as ready at
    /// once, and is taken off the count if it could not be started.
    fn start(self: &Arc<Shared<T>>, mut state: MutexGuard<'_, State<T>>) -> io::Result<()> {
        state.threads += 1;
        state.ready += 1;
        drop(state);
        let shared = Arc::clone(self);
        let serve = Box::new(|| shared.serve());
        let started = spawn(self.name, self.stack_bytes, serve);
        if started.is_err() {
            let mut state = lock(&self.state);
            state.threads -= 1;
            state.ready -= 1;
        }
        started
    }

    /// Takes out the items that no thread is on its way to, after a thread could not be started.
    fn take_stranded(&self) -> VecDeque<T> {
        let mut state = lock(&self.state);
        let awaited = state.queue.len().min(state.ready);
        state.queue.split_off(awaited)
    }

    /// Handles one item after the other, on a thread of the pool. [`start`](Shared::start) has counted the thread as ready,
    /// [`next`](Shared::next) takes it off that count with each item, and the loop puts it back.
    fn serve(self: Arc<Shared<T>>) {
        let mut state = lock(&self.state);
        while let Some((item, handle)) = self.next(state) {
            // A panic ends one item, not the thread.
            guarded(|| handle(item));
            drop(handle);
            state = lock(&self.state);
            state.ready += 1;
        }
    }

    /// Waits for an item, as one of the threads that are ready, and returns the item and the closure that handles it. Returns
    /// `None` when the thread is to end, which it has then taken off the count.
    fn next<'a>(
        self: &'a Arc<Shared<T>>,
        mut state: MutexGuard<'a, State<T>>,
    ) -> Option<(T, Handle<T>)> {
        let (min_threads, max_threads) = (*self.limits.start(), *self.limits.end());
        let is_idle = |state: &mut State<T>| state.queue.is_empty() && !state.closed;
        let mut rested = false;
        while is_idle(&mut state) && !(rested && state.threads > min_threads) {
            // Yields once before it sleeps: an item that comes now costs no wake-up.
            drop(state);
            thread::yield_now();
            let waited = (self.wake).wait_timeout_while(lock(&self.state), KEEP, is_idle);
            let timeout;
            (state, timeout) = ignore_poison(waited);
            rested = timeout.timed_out();
        }
        state.ready -= 1;
        let item = state.queue.pop_front();
        let Some(next) = item.zip(state.handle.clone()) else {
            state.threads -= 1;
            if state.threads == 0 {
                self.gone.notify_all();
            }
            return None;
        };
        let another = state.queue.len() > state.ready && state.threads < max_threads;
        if another && self.start(state).is_err() && min_threads == 0 {
            // No thread is on its way to these items. They are dropped.
            drop(self.take_stranded());
        }
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{self, Receiver, Sender};
    use std::sync::{Barrier, Weak};

    /// Enough for what a test does.
    const STACK_BYTES: usize = 256 * 1024;

    fn start_threads<T: Send + 'static>(
        limits: RangeInclusive<usize>,
        handle: impl Fn(T) + Send + Sync + 'static,
    ) -> io::Result<Threads<T>> {
        Threads::new("test", limits, STACK_BYTES, Box::new(handle))
    }

    /// How long a thread may take before its test fails.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Tells which thread runs it, then waits until it may end.
    struct Task {
        started: Sender<ThreadId>,
        go: Receiver<()>,
    }

    fn run_task(task: Task) {
        task.started.send(thread::current().id()).unwrap();
        // An error is a dropped sender, which ends the task as well.
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

    /// Returns when this number of threads are ready for an item.
    fn until_ready<T: Send + 'static>(threads: &Threads<T>, ready: usize) {
        let give_up = in_a_minute();
        while lock(&threads.shared.state).ready != ready {
            assert!(Instant::now() < give_up);
            thread::yield_now();
        }
    }

    #[test]
    fn a_thread_that_is_free_takes_the_next_item() {
        let threads = start_threads(0..=10, run_task).unwrap();
        let (started, starts) = mpsc::channel();
        let mut ids = HashSet::new();
        for _ in 0..10 {
            let (task, let_go) = task(&started);
            assert!(threads.run(task).is_ok());
            ids.insert(starts.recv_timeout(PATIENCE).unwrap());
            drop(let_go);
            until_ready(&threads, 1);
        }
        assert_eq!(ids.len(), 1);
    }

    #[test]
    fn as_many_run_at_once_as_the_cap_says_and_no_more() {
        for max_threads in [0, 1, 2, 16] {
            let threads = start_threads(0..=max_threads, run_task).unwrap();
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
                until_ready(&threads, 1);
                let (task, let_go) = task(&started);
                assert!(threads.run(task).is_ok(), "one has become free");
                starts.recv_timeout(PATIENCE).unwrap();
                running.push(let_go);
            }
            drop(running);
            assert_eq!(threads.close(in_a_minute()), 0);
        }
    }

    /// A thread that has started and not yet checked the queue counts as on its way to it.
    #[test]
    fn nothing_is_refused_below_the_cap_whenever_it_comes() {
        for round in 0..1000 {
            // Each handler waits for the other, so that both end only if they run at once.
            let together = Arc::new(Barrier::new(2));
            let threads = start_threads(0..=2, move |()| {
                together.wait();
            })
            .unwrap();
            assert_eq!(threads.run(()), Ok(()));
            // In some of the rounds the first thread is about to check the queue now.
            (0..round).for_each(|_| std::hint::spin_loop());
            assert_eq!(threads.run(()), Ok(()), "round {round}");
            assert_eq!(threads.close(in_a_minute()), 0);
        }
    }

    #[test]
    fn new_threads_start_each_other() {
        let (started, starts) = mpsc::channel();
        let threads = start_threads(0..=100, run_task).unwrap();
        let mut running = Vec::new();
        for _ in 0..100 {
            let (task, let_go) = task(&started);
            threads.enqueue(task);
            running.push(let_go);
        }
        let (one_more, _) = task(&started);
        assert!(threads.run(one_more).is_err(), "100 wait for 100 threads");

        // As `run` does for the first item.
        threads.shared.start(lock(&threads.shared.state)).unwrap();
        let ids: HashSet<_> = (0..100)
            .map(|_| starts.recv_timeout(PATIENCE).unwrap())
            .collect();
        assert_eq!(ids.len(), 100);
    }

    #[test]
    fn a_panic_costs_no_thread() {
        let (sender, answers) = mpsc::channel();
        let threads = start_threads(1..=1, move |item: Option<&'static str>| {
            sender.send(item.expect("a panic on purpose")).unwrap();
        })
        .unwrap();
        for _ in 0..3 {
            threads.enqueue(None);
            threads.enqueue(Some("next"));
            assert_eq!(answers.recv_timeout(PATIENCE), Ok("next"));
        }
        assert_eq!(lock(&threads.shared.state).threads, 1);
        assert_eq!(threads.close(in_a_minute()), 0);
    }

    #[test]
    fn a_thread_that_cannot_be_made_gives_the_item_back() {
        let endless = usize::MAX / 4 * 3; // More than any address space has in one piece.
        let threads = Threads::new("test", 0..=10, endless, Box::new(|_: u32| {})).unwrap();
        for item in 0..3 {
            assert_eq!(threads.run(item), Err(item));
        }
        let state = lock(&threads.shared.state);
        assert_eq!((state.threads, state.ready, state.queue.len()), (0, 0, 0));
    }

    #[test]
    fn closing_says_how_many_have_not_come_back() {
        let threads = start_threads(0..=10, run_task).unwrap();
        let (started, starts) = mpsc::channel();
        let mut running = Vec::new();
        for _ in 0..3 {
            let (task, let_go) = task(&started);
            assert!(threads.run(task).is_ok());
            running.push(let_go);
            starts.recv_timeout(PATIENCE).unwrap();
        }
        running.pop();
        until_ready(&threads, 1);
        assert_eq!(threads.close(Instant::now()), 3); // The idle thread has had no time to end.
        let (late, _) = task(&started);
        assert!(threads.run(late).is_err(), "closed takes nothing more");
        running.clear();
        assert_eq!(threads.close(in_a_minute()), 0);
    }

    #[test]
    fn nothing_of_the_handler_is_left_when_no_thread_is() {
        for _ in 0..1000 {
            let owned = Arc::new(());
            let held = Arc::clone(&owned);
            let threads = start_threads(2..=2, move |()| drop(Arc::clone(&held))).unwrap();
            threads.enqueue(());
            assert_eq!(threads.close(in_a_minute()), 0);
            assert_eq!(Arc::strong_count(&owned), 1);
        }
    }

    #[test]
    fn each_call_of_close_waits_for_the_drop_of_the_handler() {
        struct Slow(Sender<()>, Receiver<()>, Arc<AtomicBool>);
        impl Drop for Slow {
            fn drop(&mut self) {
                self.0.send(()).unwrap();
                // Only a call that does not wait ends this before its time.
                let _ = self.1.recv_timeout(Duration::from_millis(50));
                self.2.store(true, Ordering::SeqCst);
            }
        }
        let (begun, begins) = mpsc::channel();
        let (closed, closes) = mpsc::channel();
        let is_dropped = Arc::new(AtomicBool::new(false));
        let slow = Mutex::new(Slow(begun, closes, Arc::clone(&is_dropped)));
        let threads = start_threads(1..=1, move |()| drop(lock(&slow))).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| threads.close(in_a_minute()));
            begins.recv_timeout(PATIENCE).unwrap();
            assert_eq!(threads.close(in_a_minute()), 0);
            let was_dropped = is_dropped.load(Ordering::SeqCst);
            let _ = closed.send(());
            assert!(was_dropped);
        });
    }

    /// A handler may own a value whose drop shuts the server down.
    #[test]
    fn the_drop_of_the_handler_may_close_the_pool_too() {
        struct Closer(Weak<Threads<()>>, Sender<usize>);
        impl Drop for Closer {
            fn drop(&mut self) {
                let threads = self.0.upgrade().unwrap();
                self.1.send(threads.close(in_a_minute())).unwrap();
            }
        }
        let (sender, closed) = mpsc::channel();
        let threads = Arc::new_cyclic(|threads| {
            let closer = Mutex::new(Closer(Weak::clone(threads), sender));
            start_threads(1..=1, move |()| drop(lock(&closer))).unwrap()
        });
        let begin = Instant::now();
        assert_eq!(threads.close(in_a_minute()), 0);
        assert_eq!(closed.try_recv(), Ok(0));
        assert!(begin.elapsed() < PATIENCE / 2);
    }

    #[test]
    fn what_waits_is_done_before_the_end() {
        let (sender, answers) = mpsc::channel();
        let threads = start_threads(1..=1, move |n| sender.send(n).unwrap()).unwrap();
        for n in 0..100 {
            threads.enqueue(n);
        }
        assert_eq!(threads.close(in_a_minute()), 0);
        assert!((0..100).eq(answers.try_iter()));
    }

    #[test]
    fn those_that_have_nothing_to_do_end_and_the_least_number_stays() {
        let (started, starts) = mpsc::channel();
        let busy = |threads: &Threads<Task>, count: usize| {
            let running: Vec<_> = (0..count)
                .map(|_| {
                    let (task, let_go) = task(&started);
                    assert!(threads.run(task).is_ok());
                    starts.recv_timeout(PATIENCE).unwrap();
                    let_go
                })
                .collect();
            drop(running);
        };
        let kept = start_threads(2..=3, run_task).unwrap();
        busy(&kept, 3);
        // Its thread waits for as long, and begins to wait later.
        let none_kept = start_threads(0..=1, run_task).unwrap();
        busy(&none_kept, 1);
        let until = |threads: &Threads<Task>, count: usize| {
            let give_up = in_a_minute();
            while lock(&threads.shared.state).threads != count {
                assert!(Instant::now() < give_up);
                thread::sleep(Duration::from_millis(2));
            }
        };
        until(&none_kept, 0);
        until(&kept, 2);
        busy(&kept, 2);
    }

    #[test]
    fn those_that_wait_end_when_it_is_dropped() {
        let threads = start_threads(3..=3, |()| {}).unwrap();
        until_ready(&threads, 3);
        let shared = Arc::clone(&threads.shared);
        drop(threads);
        let give_up = in_a_minute();
        while lock(&shared.state).threads > 0 {
            assert!(Instant::now() < give_up);
            thread::yield_now();
        }
    }
}
