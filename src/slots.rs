//! Who is connected: the count, its bounds, and the way to reach everyone at shutdown.

use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use crate::config::Config;

/// What a server reports when something goes wrong that has no caller to tell.
pub(crate) type ErrorHook = Arc<dyn Fn(&str) + Send + Sync>;

/// The open connections of one server.
pub(crate) struct Slots {
    pub(crate) config: Config,
    on_error: ErrorHook,
    /// Set once the server shuts down.
    pub(crate) closing: Arc<AtomicBool>,
    open: Mutex<Open>,
    emptied: Condvar,
}

#[derive(Default)]
struct Open {
    last_key: u64,
    connections: HashMap<u64, Weak<Connected>>,
    /// Kept only where `max_connections_per_address` is set.
    by_address: HashMap<IpAddr, usize>,
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
    key: u64,
    /// The address that this connection counts for.
    address: Option<IpAddr>,
}

impl Slots {
    pub(crate) fn new(config: Config, on_error: ErrorHook) -> Arc<Slots> {
        Arc::new(Slots {
            config,
            on_error,
            closing: Arc::default(),
            open: Mutex::default(),
            emptied: Condvar::new(),
        })
    }

    /// Takes a place for a connection. Where there is none, the slot that comes back counts for nothing.
    pub(crate) fn admit(
        self: &Arc<Slots>,
        connected: &Arc<Connected>,
        address: IpAddr,
    ) -> Result<Slot, Slot> {
        let mut open = self.lock();
        open.last_key += 1;
        let mut slot = Slot {
            slots: Arc::clone(self),
            key: open.last_key,
            address: None,
        };
        if self.is_closing() || open.connections.len() >= self.config.max_connections {
            return Err(slot);
        }
        // Behind a trusted proxy the client is known only when the head has been read.
        if !self.config.trusted_proxies.contains(&address) {
            if !open.count(&self.config, address) {
                return Err(slot);
            }
            slot.address = Some(address);
        }
        open.connections.insert(slot.key, Arc::downgrade(connected));
        Ok(slot)
    }

    /// Reports what has no caller to tell. A hook that panics does not take the thread along that has to tell.
    pub(crate) fn report(&self, problem: &str) {
        let _ = panic::catch_unwind(AssertUnwindSafe(|| (self.on_error)(problem)));
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Tells everyone to end: streams see it at their next look, idle connections are woken.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        for connected in self.everyone() {
            if connected.idle.load(Ordering::SeqCst) {
                let _ = connected.stream.shutdown(Shutdown::Read);
            }
        }
    }

    /// Cuts off whoever is still connected; their threads find out at their next read or write.
    pub(crate) fn cut_off(&self) {
        for connected in self.everyone() {
            let _ = connected.stream.shutdown(Shutdown::Both);
        }
    }

    /// Waits until nobody is connected, at most until `deadline`, and says how many are left.
    pub(crate) fn wait_until_empty(&self, deadline: Instant) -> usize {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let (open, _) = self
            .emptied
            .wait_timeout_while(self.lock(), remaining, |open| !open.connections.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        open.connections.len()
    }

    fn everyone(&self) -> Vec<Arc<Connected>> {
        self.lock()
            .connections
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Nothing that runs under this lock can leave it half changed, so a poisoned one is as good as any.
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
    /// Counts the connection for the client behind a proxy, in place of the address it counted for before; false when
    /// that client has too many.
    pub(crate) fn move_to(&mut self, address: IpAddr) -> bool {
        if self.address == Some(address) {
            return true;
        }
        let mut open = self.slots.lock();
        let counted = open.count(&self.slots.config, address);
        if counted && let Some(before) = self.address.replace(address) {
            open.uncount(before);
        }
        counted
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.slots.lock();
        open.connections.remove(&self.key);
        if let Some(address) = self.address {
            open.uncount(address);
        }
        if open.connections.is_empty() {
            self.slots.emptied.notify_all();
        }
    }
}

impl Open {
    /// Counts one more for this address; false when it has as many as it may.
    fn count(&mut self, config: &Config, address: IpAddr) -> bool {
        let Some(most) = config.max_connections_per_address else {
            return true;
        };
        let count = self.by_address.entry(address).or_insert(0);
        let room = *count < most;
        *count += usize::from(room);
        room
    }

    fn uncount(&mut self, address: IpAddr) {
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}
