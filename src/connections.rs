//! The open connections of a server: their number, its limits, and the way to reach all of them at shutdown.
//!
//! A thread that waits for a request cannot be interrupted by std. To end the wait, another thread shuts down the reading side
//! of the socket: the read returns, with the request if one has come. The state of a connection is a number that its own thread
//! writes and other threads compare, so that a request costs no lock:
//!
//! ```text
//!  NEW ──first byte──▶ BUSY ──response──▶ number of the wait ──next request──▶ BUSY
//!                                                 │
//!                                                 └──chosen to give way, by another thread──▶ BUSY
//! ```
//!
//! A thread that finds BUSY after its wait knows that its connection was chosen. It serves the request that may have come, and
//! closes the connection. Numbers of waits are compared by their distance to the counter, which may wrap around: a mark must
//! never be ahead of the counter, so [`NEW`] is the only mark between BUSY and the smallest number.

use std::fmt;
use std::mem;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Instant;

use crate::config::Config;
use crate::lock::{ignore_poison, lock};
use crate::user_code::{ErrorHook, guarded};

/// The open connections of one server, and its counters. Shared by the threads that accept and all connections.
pub(crate) struct Connections {
    /// The limits and times of the server, which do not change while it runs.
    pub(crate) config: Config,
    /// The program's hook for problems, called by [`report`](Connections::report) alone.
    on_error: ErrorHook,
    /// Set when the server shuts down, and never reset. Each request has it too, for a long poll.
    pub(crate) closing: Arc<AtomicBool>,
    /// The error hook was told that a client has tried TLS.
    pub(crate) has_reported_tls: AtomicBool,
    /// Connections that were accepted, refused ones included.
    accepted: AtomicUsize,
    /// Connections for which there was no room.
    pub(crate) refused: AtomicUsize,
    /// Responses by class of status: 2xx to 5xx.
    responses: [AtomicUsize; 4],
    /// The number of waits for a next request so far. Each wait takes its number from here, so the smallest number is that of
    /// the wait that began first.
    pub(crate) idle_waits: AtomicUsize,
    /// Locked when a connection begins or ends, and for figures, eviction and shutdown. A request locks it only where the
    /// server has a limit for each address.
    table: Mutex<Table>,
    /// Notified when the last connection of a server that shuts down has ended.
    emptied: Condvar,
}

/// The permits that are taken. Its lock is held for one step, and never across a system call.
///
/// A vector with a list of free indexes, so that a permit finds its entry without a search:
///
/// ```text
/// index      0        1        2           3
/// entries    taken    empty    leaving     taken
/// free       [1]
/// leaving    1        len() is 4 - 1 - 1 = 2, and 3 connections are open
/// ```
#[derive(Default)]
struct Table {
    /// The entry of each permit, at the index that the permit holds. The entries at the `free` indexes are empty.
    entries: Vec<Entry>,
    /// The indexes of entries without a permit. The last one is used first.
    free: Vec<usize>,
    /// The number of entries with `is_leaving`, which do not count any more.
    leaving: usize,
}

/// What the table knows of one connection.
#[derive(Default)]
struct Entry {
    /// Weak, so that the table keeps no descriptor open when the owner of the connection has dropped it.
    connected: Weak<SharedStream>,
    /// The connection gives way to another one.
    is_leaving: bool,
    /// The client address whose connections this one is counted among; `None` behind a trusted proxy, where the client is
    /// not known before the first head.
    address: Option<IpAddr>,
}

/// One connection's socket. Its owner holds it strongly, the table weakly, for shutdown and eviction.
pub(crate) struct SharedStream {
    /// A thread that finds the stream through the table only shuts it down, which needs no lock and ends a read or a write that
    /// waits.
    pub(crate) stream: TcpStream,
    /// The client's address, or that of a proxy in between.
    pub(crate) peer: SocketAddr,
    /// [`BUSY`], [`NEW`], or the number of its wait for a next request.
    pub(crate) idle: AtomicUsize,
    /// The connection carries a stream.
    pub(crate) is_stream: AtomicBool,
}

/// What a server has done so far, and what it is doing, from [`ServerHandle::stats`](crate::ServerHandle::stats). Displayed, it
/// is Prometheus's text format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Connections that are open now.
    pub connections: usize,
    /// Streams that are open now; each has its connection.
    pub streams: usize,
    /// Connections that were accepted.
    pub accepted: usize,
    /// Of those, connections that were refused for want of room.
    pub refused: usize,
    /// Responses with a status of 2xx, 3xx, 4xx and 5xx.
    pub responses: [usize; 4],
}

impl fmt::Display for ServerStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = [
            ("sse_server_connections", "gauge", self.connections),
            ("sse_server_streams", "gauge", self.streams),
            ("sse_server_accepted_total", "counter", self.accepted),
            ("sse_server_refused_total", "counter", self.refused),
        ];
        for (name, kind, value) in figures {
            writeln!(f, "# TYPE {name} {kind}\n{name} {value}")?;
        }
        let name = "sse_server_responses_total";
        writeln!(f, "# TYPE {name} counter")?;
        for (count, class) in self.responses.iter().zip(2..) {
            writeln!(f, "{name}{{class=\"{class}xx\"}} {count}")?;
        }
        Ok(())
    }
}

/// The connection serves a request, or was chosen to give way.
pub(crate) const BUSY: usize = 0;

/// The connection waits for its first request. It gives way to nobody: the request may be on its way.
pub(crate) const NEW: usize = 1;

/// The right to be one of the server's connections; its entry is freed on drop. Declare a permit after the socket, so that
/// the descriptor is closed first.
pub(crate) struct ConnectionPermit {
    /// The table of the entry. A connection reaches the server's limits and its error hook through it.
    pub(crate) connections: Arc<Connections>,
    /// The index of the entry; `None` where there was no room.
    entry: Option<usize>,
    /// An idle connection gave way to this one.
    pub(crate) has_evicted: bool,
}

impl Connections {
    /// Makes an empty table with these limits.
    pub(crate) fn new(config: Config, on_error: ErrorHook) -> Arc<Connections> {
        Arc::new(Connections {
            config,
            on_error,
            closing: Arc::default(),
            has_reported_tls: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            responses: Default::default(),
            idle_waits: AtomicUsize::new(0),
            table: Mutex::default(),
            emptied: Condvar::new(),
        })
    }

    /// Gives a connection a permit. Where the table is full, the connection that has been idle longest gives way.
    ///
    /// This comes before the connection has a thread, so a crowd is turned away without starting threads for it.
    pub(crate) fn admit(
        self: &Arc<Connections>,
        connected: &Arc<SharedStream>,
    ) -> ConnectionPermit {
        let address = connected.peer.ip();
        // Behind a trusted proxy the client is known only when the head has been read.
        let is_proxy = self.config.trusted_proxies.contains(&address);
        let address = (!is_proxy).then_some(address);
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let mut table = lock(&self.table);
        let is_welcome = address.is_none_or(|address| table.has_room_for(address, &self.config));
        let max = self.config.max_connections;
        let is_full = is_welcome && table.len() >= max;
        let evicted = is_full.then(|| self.choose_idle(&mut table)).flatten();
        let has_room = is_welcome && table.len() < max;
        let entry = Entry {
            connected: Arc::downgrade(connected),
            is_leaving: false,
            address,
        };
        let entry = has_room.then(|| table.add(entry));
        drop(table);
        ConnectionPermit {
            connections: Arc::clone(self),
            entry,
            has_evicted: evicted.inspect(|evicted| evicted.end_wait()).is_some(),
        }
    }

    /// Has the connection that has been idle longest close, so that its thread is free; false when no connection is idle.
    pub(crate) fn evict_idle(&self) -> bool {
        let evicted = self.choose_idle(&mut lock(&self.table));
        evicted.inspect(|evicted| evicted.end_wait()).is_some()
    }

    /// Chooses the connection that has waited longest for a next request. From then on, this connection does not count.
    ///
    /// Where a request comes at this moment, either the wait ends first, and the search goes on, or the connection serves that
    /// request as its last one.
    fn choose_idle(&self, table: &mut Table) -> Option<Arc<SharedStream>> {
        let now = self.idle_waits.load(Ordering::SeqCst);
        loop {
            let idle = table.entries.iter_mut().filter_map(|entry| {
                let connected = entry.connected.upgrade()?;
                match connected.idle.load(Ordering::SeqCst) {
                    BUSY | NEW => None,
                    mark => Some((now.wrapping_sub(mark), mark, entry, connected)),
                }
            });
            let (_, mark, entry, connected) = idle.max_by_key(|(age, ..)| *age)?;
            // A request may have come meanwhile.
            let chosen =
                (connected.idle).compare_exchange(mark, BUSY, Ordering::SeqCst, Ordering::SeqCst);
            if chosen.is_ok() {
                entry.is_leaving = true;
                table.leaving += 1;
                return Some(connected);
            }
        }
    }

    /// Counts a response in the class of its status: 204 in the first count, which is that of 2xx.
    pub(crate) fn count_response(&self, status: u16) {
        let class = usize::from(status / 100).saturating_sub(2);
        self.responses[class.min(3)].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the figures as they are now.
    pub(crate) fn stats(&self) -> ServerStats {
        let everyone = self.everyone();
        let streams = (everyone.iter()).filter(|other| other.is_stream.load(Ordering::Relaxed));
        ServerStats {
            connections: lock(&self.table).len(),
            streams: streams.count(),
            accepted: self.accepted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            responses: (self.responses.each_ref()).map(|count| count.load(Ordering::Relaxed)),
        }
    }

    /// Reports a problem that has no caller to tell.
    pub(crate) fn report(&self, problem: &str) {
        guarded(|| (self.on_error)(problem));
    }

    /// Returns whether the server is shutting down.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// Begins the shutdown: streams see it at their next check, and idle connections are woken.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        self.end_waits(NEW + 1);
    }

    /// Ends the waits for a request whose mark is at least this one: [`NEW`] for every wait.
    pub(crate) fn end_waits(&self, from: usize) {
        for connected in self.everyone() {
            if connected.idle.load(Ordering::SeqCst) >= from {
                connected.end_wait();
            }
        }
    }

    /// Cuts off all connections, in both directions. Their threads notice this at their next read or write, or at once where
    /// they wait in one now.
    pub(crate) fn cut_off(&self) {
        for connected in self.everyone() {
            let _ = connected.stream.shutdown(Shutdown::Both);
        }
    }

    /// Waits until no connection is open, at most until `deadline`, and returns how many are left.
    pub(crate) fn wait_until_empty(&self, deadline: Instant) -> usize {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let is_open = |table: &mut Table| !table.is_empty();
        let waited = (self.emptied).wait_timeout_while(lock(&self.table), remaining, is_open);
        let (table, _) = ignore_poison(waited);
        table.entries.len() - table.free.len()
    }

    /// Returns all connections, so that none of them is dealt with under the lock.
    fn everyone(&self) -> Vec<Arc<SharedStream>> {
        let connected = |entry: &Entry| entry.connected.upgrade();
        let table = lock(&self.table);
        (table.entries.iter()).filter_map(connected).collect()
    }
}

impl SharedStream {
    /// Shares the stream of a connection that has asked for nothing yet.
    pub(crate) fn new(stream: TcpStream, peer: SocketAddr) -> SharedStream {
        SharedStream {
            stream,
            peer,
            idle: AtomicUsize::new(NEW),
            is_stream: AtomicBool::new(false),
        }
    }

    /// Ends the wait for a next request. A request that has come already is still read.
    fn end_wait(&self) {
        let _ = self.stream.shutdown(Shutdown::Read);
    }
}

impl ConnectionPermit {
    /// Returns whether there was room for the connection.
    pub(crate) fn is_taken(&self) -> bool {
        self.entry.is_some()
    }

    /// Counts the connection among those of the client behind a proxy, and no longer among those of the client before; false
    /// when the client has too many.
    pub(crate) fn move_to(&self, address: IpAddr) -> bool {
        let (config, Some(entry)) = (&self.connections.config, self.entry) else {
            return true;
        };
        if config.max_connections_per_address.is_none() {
            return true;
        }
        let mut table = lock(&self.connections.table);
        let has_room =
            table.entries[entry].address == Some(address) || table.has_room_for(address, config);
        if has_room {
            table.entries[entry].address = Some(address);
        }
        has_room
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut table = lock(&self.connections.table);
        if let Some(entry) = self.entry {
            let left = mem::take(&mut table.entries[entry]);
            table.leaving -= usize::from(left.is_leaving);
            table.free.push(entry);
        }
        // Only a shutdown waits for this, and a notification costs a system call.
        if table.is_empty() && self.connections.is_closing() {
            self.connections.emptied.notify_all();
        }
    }
}

impl Table {
    /// Returns the number of connections that count.
    fn len(&self) -> usize {
        self.entries.len() - self.free.len() - self.leaving
    }

    /// Returns whether no connection is open, not even one that gives way.
    fn is_empty(&self) -> bool {
        self.entries.len() == self.free.len()
    }

    /// Returns whether this address may have one more connection. Where there is a limit, this reads the whole table: 10,000
    /// entries take less time than the wake-up of the connection's thread.
    fn has_room_for(&self, address: IpAddr, config: &Config) -> bool {
        let from_there = |entry: &&Entry| entry.address == Some(address) && !entry.is_leaving;
        let count = || self.entries.iter().filter(from_there).count();
        (config.max_connections_per_address).is_none_or(|most| count() < most)
    }

    /// Puts an entry at a free index, and returns the index. Free indexes are used first, so the table is as long as the
    /// largest number of connections so far.
    fn add(&mut self, taken: Entry) -> usize {
        let Some(entry) = self.free.pop() else {
            self.entries.push(taken);
            return self.entries.len() - 1;
        };
        self.entries[entry] = taken;
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn the_connection_that_has_waited_longest_gives_way() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connections = Connections::new(Config::default(), Arc::new(|_| ()));
        let connect = || {
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let peer = (Ipv4Addr::LOCALHOST, 1).into();
            let connected = Arc::new(SharedStream::new(stream, peer));
            let permit = connections.admit(&connected);
            (connected, permit)
        };
        let table: Vec<_> = (0..5).map(|_| connect()).collect();
        let wait = |index: usize| {
            let mark = connections.idle_waits.fetch_add(1, Ordering::SeqCst);
            let mark = mark.max(NEW + 1);
            table[index].0.idle.store(mark, Ordering::SeqCst);
        };
        // The marks wrap around while they wait.
        connections
            .idle_waits
            .store(usize::MAX - 1, Ordering::SeqCst);
        [0, 1, 2, 0].into_iter().for_each(wait);
        table[4].0.idle.store(BUSY, Ordering::SeqCst);
        let evicted = || {
            let connected = connections.choose_idle(&mut lock(&connections.table))?;
            table
                .iter()
                .position(|(table, _)| Arc::ptr_eq(table, &connected))
        };
        assert_eq!(evicted(), Some(1));
        assert_eq!(evicted(), Some(2));
        assert_eq!(lock(&connections.table).len(), 3);
        assert_eq!(evicted(), Some(0));
        assert_eq!(evicted(), None); // One has not asked yet, one is in a request.
        drop(table);
        let table = lock(&connections.table);
        assert_eq!((table.len(), table.leaving), (0, 0));
    }
}
