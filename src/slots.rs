//! Who is connected: the count, its bounds, and the way to reach everyone at shutdown.

use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
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
    open: Mutex<Open>,
    emptied: Condvar,
}

#[derive(Default)]
struct Open {
    /// Each at its slot's place, and nobody at those that are free.
    places: Vec<Place>,
    free: Vec<usize>,
}

#[derive(Default)]
struct Place {
    connected: Weak<Connected>,
    /// The address that this connection counts for.
    address: Option<IpAddr>,
}

/// One connection's socket, shared by its owner and, for shutdown, the slots.
pub(crate) struct Connected {
    pub(crate) stream: TcpStream,
    /// Waiting for a next request: nothing is lost when shutdown wakes it.
    pub(crate) idle: AtomicBool,
}

/// One connection's place in the count. Freed on drop; declare it after the socket, so that the descriptor goes first.
pub(crate) struct Slot {
    pub(crate) slots: Arc<Slots>,
    /// `None` where there was no room.
    place: Option<usize>,
    /// As in its place.
    address: Option<IpAddr>,
}

impl Slots {
    pub(crate) fn new(config: Config, on_error: ErrorHook) -> Arc<Slots> {
        Arc::new(Slots {
            config,
            on_error,
            closing: Arc::default(),
            has_reported_tls: AtomicBool::new(false),
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
        let room = !self.is_closing()
            && open.len() < self.config.max_connections
            && address.is_none_or(|address| open.has_room_for(address, &self.config));
        let connected = Arc::downgrade(connected);
        Slot {
            slots: Arc::clone(self),
            place: room.then(|| open.take_place(Place { connected, address })),
            address,
        }
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
            if connected.idle.load(Ordering::SeqCst) {
                let _ = connected.stream.shutdown(Shutdown::Read);
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
            .wait_timeout_while(self.lock(), remaining, |open| open.len() > 0)
            .unwrap_or_else(PoisonError::into_inner);
        open.len()
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
            idle: AtomicBool::new(false),
        }
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
            open.places[place] = Place::default();
            open.free.push(place);
        }
        // Nobody waits before that, and to tell nobody costs a system call too.
        if open.len() == 0 && self.slots.is_closing() {
            self.slots.emptied.notify_all();
        }
    }
}

impl Open {
    fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// One more from this address is not too many. Looks at all, where there is a limit: that takes less than the thread
    /// that a connection wakes.
    #[inline(never)] // As with `lock`.
    fn has_room_for(&self, address: IpAddr, config: &Config) -> bool {
        let from_there = |place: &&Place| place.address == Some(address);
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
