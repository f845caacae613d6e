//! Who is connected: the count, its bounds, and the way to reach everyone at shutdown.

use std::mem;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use crate::config::Config;
use crate::user_code::{ErrorHook, guarded};

/// The open connections of one server.
pub(crate) struct Slots {
    pub(crate) config: Config,
    on_error: ErrorHook,
    /// Set once the server shuts down.
    pub(crate) closing: Arc<AtomicBool>,
    pub(crate) has_reported_tls: AtomicBool,
    /// Counts the waits for a next request, to tell which began first.
    idle_waits: AtomicUsize,
    open: Mutex<Open>,
    emptied: Condvar,
}

#[derive(Default)]
struct Open {
    /// Each at its slot's place, and nobody at those that are free.
    places: Vec<Place>,
    free: Vec<usize>,
    /// How many of the places are those of connections that give way, and do not count any more.
    leaving: usize,
}

#[derive(Default)]
struct Place {
    connected: Weak<Connected>,
    is_leaving: bool,
    /// The address that this connection counts for.
    address: Option<IpAddr>,
}

/// One connection's socket, shared by its owner and, for shutdown, the slots.
pub(crate) struct Connected {
    pub(crate) stream: TcpStream,
    /// [`BUSY`], [`NEW`], or the number of its wait for a next request.
    pub(crate) idle: AtomicUsize,
}

/// The connection serves a request, or was chosen to give way.
pub(crate) const BUSY: usize = 0;

/// The connection waits for its first request. It gives way to nobody: the request may be on its way.
pub(crate) const NEW: usize = 1;

/// One connection's place in the count. Freed on drop; declare it after the socket, so that the descriptor goes first.
pub(crate) struct Slot {
    pub(crate) slots: Arc<Slots>,
    /// `None` where there was no room.
    place: Option<usize>,
    /// As in its place.
    address: Option<IpAddr>,
    /// An idle connection gave way to this one.
    pub(crate) has_evicted: bool,
}

impl Slots {
    pub(crate) fn new(config: Config, on_error: ErrorHook) -> Arc<Slots> {
        Arc::new(Slots {
            config,
            on_error,
            closing: Arc::default(),
            has_reported_tls: AtomicBool::new(false),
            idle_waits: AtomicUsize::new(0),
            open: Mutex::default(),
            emptied: Condvar::new(),
        })
    }

    /// Takes a place for a connection, if there is one.
    pub(crate) fn admit(self: &Arc<Slots>, connected: &Arc<Connected>, address: IpAddr) -> Slot {
        // Behind a trusted proxy the client is known only when the head has been read.
        let is_proxy = self.config.trusted_proxies.contains(&address);
        let address = (!is_proxy).then_some(address);
        let mut open = self.lock();
        let is_welcome = !self.is_closing()
            && address.is_none_or(|address| open.has_room_for(address, &self.config));
        let mut evicted = None;
        if is_welcome && open.len() >= self.config.max_connections {
            evicted = self.choose_idle(&mut open);
        }
        let room = is_welcome && open.len() < self.config.max_connections;
        let place = Place {
            connected: Arc::downgrade(connected),
            is_leaving: false,
            address,
        };
        let place = room.then(|| open.take_place(place));
        drop(open);
        let has_evicted = evicted.is_some();
        evicted.inspect(|evicted| evicted.end_wait());
        Slot {
            slots: Arc::clone(self),
            place,
            address,
            has_evicted,
        }
    }

    /// Has the connection that has waited longest for a next request close, and its thread take another one; false when no
    /// connection waits.
    pub(crate) fn evict_idle(&self) -> bool {
        let evicted = self.choose_idle(&mut self.lock());
        evicted.inspect(|evicted| evicted.end_wait()).is_some()
    }

    /// Chooses the connection that has waited longest for a next request, which does not count any more.
    fn choose_idle(&self, open: &mut Open) -> Option<Arc<Connected>> {
        let now = self.idle_waits.load(Ordering::SeqCst);
        loop {
            let idle = open.places.iter_mut().filter_map(|place| {
                let connected = place.connected.upgrade()?;
                match connected.idle.load(Ordering::SeqCst) {
                    BUSY | NEW => None,
                    mark => Some((now.wrapping_sub(mark), mark, place, connected)),
                }
            });
            let (_, mark, place, connected) = idle.max_by_key(|(age, ..)| *age)?;
            // A request may have come meanwhile.
            let chosen =
                (connected.idle).compare_exchange(mark, BUSY, Ordering::SeqCst, Ordering::SeqCst);
            if chosen.is_ok() {
                place.is_leaving = true;
                open.leaving += 1;
                return Some(connected);
            }
        }
    }

    /// The mark of a wait that begins now.
    pub(crate) fn next_idle_mark(&self) -> usize {
        let wait = self.idle_waits.fetch_add(1, Ordering::SeqCst);
        wait.max(NEW + 1)
    }

    /// Reports a problem that has no caller to tell.
    pub(crate) fn report(&self, problem: &str) {
        guarded(|| (self.on_error)(problem));
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Tells everyone to end: streams see it at their next look, idle connections are woken.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.with_everyone(&|connected| {
            if connected.idle.load(Ordering::SeqCst) != BUSY {
                connected.end_wait();
            }
        });
    }

    /// Cuts off whoever is still connected; their threads find out at their next read or write.
    pub(crate) fn cut_off(&self) {
        self.with_everyone(&|connected| {
            let _ = connected.stream.shutdown(Shutdown::Both);
        });
    }

    /// Waits until nobody is connected, at most until `deadline`, and says how many are left.
    pub(crate) fn wait_until_empty(&self, deadline: Instant) -> usize {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let (open, _) = self
            .emptied
            .wait_timeout_while(self.lock(), remaining, |open| !open.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        open.places.len() - open.free.len()
    }

    fn with_everyone(&self, end: &dyn Fn(&Connected)) {
        let connected = |place: &Place| place.connected.upgrade();
        let everyone: Vec<_> = self.lock().places.iter().filter_map(connected).collect();
        everyone.iter().for_each(|connected| end(connected));
    }

    /// Nothing that runs under this lock can leave it half changed, so a poisoned one is as good as any.
    #[inline(never)] // Else its code would be there many times.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connected {
    pub(crate) fn new(stream: TcpStream) -> Connected {
        Connected {
            stream,
            idle: AtomicUsize::new(BUSY),
        }
    }

    /// Ends the wait for a next request. A request that has come already is still read.
    fn end_wait(&self) {
        let _ = self.stream.shutdown(Shutdown::Read);
    }
}

impl Slot {
    /// There was room for the connection.
    pub(crate) fn is_taken(&self) -> bool {
        self.place.is_some()
    }

    /// Counts the connection for the client behind a proxy, in place of the address it counted for before; false when
    /// that client has too many.
    pub(crate) fn move_to(&mut self, address: IpAddr) -> bool {
        if self.address == Some(address) {
            return true;
        }
        let mut open = self.slots.lock();
        let room = open.has_room_for(address, &self.slots.config);
        if room && let Some(place) = self.place {
            open.places[place].address = Some(address);
            self.address = Some(address);
        }
        room
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.slots.lock();
        if let Some(place) = self.place {
            let left = mem::take(&mut open.places[place]);
            open.leaving -= usize::from(left.is_leaving);
            open.free.push(place);
        }
        // Nobody waits before that, and to tell nobody costs a system call too.
        if open.is_empty() && self.slots.is_closing() {
            self.slots.emptied.notify_all();
        }
    }
}

impl Open {
    /// How many connections count.
    fn len(&self) -> usize {
        self.places.len() - self.free.len() - self.leaving
    }

    fn is_empty(&self) -> bool {
        self.places.len() == self.free.len()
    }

    /// One more from this address is not too many. Looks at all, where there is a limit: that takes less than the thread
    /// that a connection wakes.
    #[inline(never)] // As with `lock`.
    fn has_room_for(&self, address: IpAddr, config: &Config) -> bool {
        let from_there = |place: &&Place| place.address == Some(address) && !place.is_leaving;
        let count = || self.places.iter().filter(from_there).count();
        (config.max_connections_per_address).is_none_or(|most| count() < most)
    }

    fn take_place(&mut self, taken: Place) -> usize {
        let Some(place) = self.free.pop() else {
            self.places.push(taken);
            return self.places.len() - 1;
        };
        self.places[place] = taken;
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn the_connection_that_has_waited_longest_gives_way() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let slots = Slots::new(Config::default(), Arc::new(|_| ()));
        let connect = || {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let connected = Arc::new(Connected::new(stream));
            let slot = slots.admit(&connected, Ipv4Addr::LOCALHOST.into());
            (connected, slot)
        };
        let open: Vec<_> = (0..5).map(|_| connect()).collect();
        let wait = |index: usize| {
            let mark = slots.next_idle_mark();
            open[index].0.idle.store(mark, Ordering::SeqCst);
        };
        // The marks wrap around while they wait.
        slots.idle_waits.store(usize::MAX - 1, Ordering::SeqCst);
        [0, 1, 2, 0].into_iter().for_each(wait);
        open[3].0.idle.store(NEW, Ordering::SeqCst);
        let evicted = || {
            let connected = slots.choose_idle(&mut slots.lock())?;
            open.iter()
                .position(|(open, _)| Arc::ptr_eq(open, &connected))
        };
        assert_eq!(evicted(), Some(1));
        assert_eq!(evicted(), Some(2));
        assert_eq!(slots.lock().len(), 3);
        assert_eq!(evicted(), Some(0));
        assert_eq!(evicted(), None); // One has not asked yet, one is in a request.
        drop(open);
        let table = slots.lock();
        assert_eq!((table.len(), table.leaving), (0, 0));
    }
}
