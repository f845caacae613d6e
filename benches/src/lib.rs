//! The paths and data that the compared servers and the load generator have in common.
//!
//! Every server listens on 127.0.0.1, takes its port from the only argument or from `$PORT`, and answers
//!
//! - `GET /plain`: `ok`;
//! - `GET /poll`: about 100 bytes of JSON;
//! - `GET /events`, `POST /publish`: an event stream, and the body as an event on it;
//! - `GET /load/events`: a first event `hello` at once, then what is published;
//! - `GET /load/publish?n=K&size=B&rate=R`: publishes K events of B bytes, R a second or as fast as it can (0), and
//!   answers once all are handed over.

pub mod arguments;

use std::{
    env,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The data of the first event on `/load/events`.
pub const HELLO: &str = "hello";

/// The body of `/plain`.
pub const PLAIN: &str = "ok";

/// The body of `/poll`, what a polling client would ask for again and again.
pub const POLL: &str = r#"{"events":[{"id":"1","event":"message","data":"nothing new under the sun"}],"last_event_id":"1"}"#;

/// Returns the address to listen on: the port is the only argument, or `$PORT`, or any free one.
pub fn address() -> (&'static str, u16) {
    let port = env::args().nth(1).or_else(|| env::var("PORT").ok());
    let port = port.map_or(0, |port| port.parse().expect("the port is a number"));
    ("127.0.0.1", port)
}

/// Returns how many events a channel holds before a reader that lags loses some: `$CAP`, or 1,024.
pub fn capacity() -> usize {
    env::var("CAP")
        .ok()
        .and_then(|capacity| capacity.parse().ok())
        .unwrap_or(1024)
}

/// One `/load/publish` request.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub count: u32,
    size: usize,
    rate: u32,
    start: Instant,
}

impl Load {
    /// Reads `n=K&size=B&rate=R`; what is missing is 1 event, 100 bytes, as fast as it goes.
    pub fn from_query(query: &str) -> Load {
        let value = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name)?.1.parse::<u32>().ok()
        };
        Load {
            count: value("n").unwrap_or(1),
            size: value("size").unwrap_or(100) as usize,
            rate: value("rate").unwrap_or(0),
            start: Instant::now(),
        }
    }

    /// Returns when to publish event `index`, where a rate was asked for and that moment is still to come.
    pub fn due(&self, index: u32) -> Option<Instant> {
        let interval = Duration::from_secs(1).checked_div(self.rate)?;
        let due = self.start + interval * index;
        (due > Instant::now()).then_some(due)
    }

    /// Returns the data of one event: the stamp, to be taken right before it is published, and padding.
    pub fn payload(&self) -> String {
        let mut text = format!("@{};", unix_nanos());
        let padding = self.size.saturating_sub(text.len());
        text.extend(std::iter::repeat_n('x', padding));
        text
    }
}

/// Returns the nanoseconds since 1970, by the clock that server and load generator share.
pub fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}
