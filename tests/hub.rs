//! The hub over sockets: topics, ids, resuming, gaps, slow readers, long-poll, and the control over who reads.
//!
//! Each claim is tested with and without the fast half: a hub without writer threads serves each reader on a thread of its own,
//! and keeps every promise.

mod support;

mod fast {
    const WRITER_THREADS: usize = 2;
    include!("claims/hub.rs");
}

mod plain {
    const WRITER_THREADS: usize = 0;
    include!("claims/hub.rs");
}
