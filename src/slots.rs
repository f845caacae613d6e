//! Who is connected: the count, its bounds, and the way to reach everyone at shutdown.

use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::config::Config;

/// What a server reports when something goes wrong that has no caller to tell.
pub(crate) type ErrorHook = Arc<dyn Fn(&str) + Send + Sync>;

/// The open connections of one server.
pub(crate) struct Slots {
    pub(crate) config: Config,
    on_error: ErrorHook,
    closing: Arc<AtomicBool>,
    open: Mutex<Open>,
    changed: Condvar,
}

#[derive(Default)]
struct Open {
    next_key: u64,
    connections: HashMap<u64, Weak<Connected>>,
    /// Kept only where `max_connections_per_address` is set.
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's socket, shared by its owner and, for shutdown, the slots.
pub(crate) struct Connected {
    pub(crate) stream: TcpStream,
    /// Waiting for a next request: nothing is lost when shutdown wakes it.
    idle: AtomicBool,
}

/// One connection's place in the count. Freed on drop; declare it after the socket, so that the descriptor goes first.
pub(crate) struct Slot {
    pub(crate) slots: Arc<Slots>,
    key: u64,
    /// The address that this connection counts for.
    address: Option<IpAddr>,
}

/// Why a connection was not admitted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Slots {
    pub(crate) fn new(config: Config, on_error: ErrorHook) -> Arc<Slots> {
        Arc::new(Slots {
            config,
            on_error,
            closing: Arc::default(),
            open: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Takes a place for a connection, or gives the stream back.
    pub(crate) fn admit(
        self: &Arc<Slots>,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<(Arc<Connected>, Slot), TcpStream> {
        let mut open = self.lock();
        if self.is_closing() || open.connections.len() >= self.config.max_connections {
            return Err(stream);
        }
        // Behind a trusted proxy the client is known only when the head has been read.
        let address = Some(peer.ip()).filter(|ip| !self.config.trusted_proxies.contains(ip));
        if let Some(ip) = address
            && open.count(&self.config, ip).is_err()
        {
            return Err(stream);
        }
        let connected = Arc::new(Connected::new(stream));
        let key = open.next_key;
        open.next_key += 1;
        open.connections.insert(key, Arc::downgrade(&connected));
        drop(open);
        Ok((
            connected,
            Slot {
                slots: Arc::clone(self),
                key,
                address,
            },
        ))
    }

    /// Set once the server shuts down.
    pub(crate) fn closing(&self) -> &Arc<AtomicBool> {
        &self.closing
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
        let mut open = self.lock();
        while !open.connections.is_empty() {
            let remaining = deadline.saturating_duration_since(Instant::now());
            if remaining == Duration::ZERO {
                break;
            }
            open = self
                .changed
                .wait_timeout(open, remaining)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
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

    /// Marks the connection as waiting for a request, and says whether it may.
    pub(crate) fn wait_idle(&self, slot: &Slot) -> bool {
        // First the mark, then the look: a shutdown that comes between sees the mark.
        self.idle.store(true, Ordering::SeqCst);
        !slot.slots.is_closing()
    }

    pub(crate) fn end_idle(&self) {
        self.idle.store(false, Ordering::SeqCst);
    }
}

impl Slot {
    /// Counts the connection for the client behind a proxy, in place of the address it counted for before.
    pub(crate) fn move_to(&mut self, address: IpAddr) -> Result<(), Full> {
        if self.address == Some(address) {
            return Ok(());
        }
        let mut open = self.slots.lock();
        open.count(&self.slots.config, address)?;
        if let Some(before) = self.address.replace(address) {
            open.uncount(before);
        }
        Ok(())
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
            self.slots.changed.notify_all();
        }
    }
}

impl Open {
    fn count(&mut self, config: &Config, address: IpAddr) -> Result<(), Full> {
        let Some(most) = config.max_connections_per_address else {
            return Ok(());
        };
        let count = self.by_address.entry(address).or_insert(0);
        if *count >= most {
            return Err(Full);
        }
        *count += 1;
        Ok(())
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
