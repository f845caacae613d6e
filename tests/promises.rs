//! Promises 1 and 3 tested together: every reader gets the published sequence of its topics, in order and each event once,
//! except for events that a gap has announced before. This holds whatever the other readers do.
//!
//! `PROMISES_ROUNDS=100 cargo test --release --test promises` runs for minutes, each round with a seed of its own.
//!
//! Each claim is tested with and without the fast half: a hub without writer threads serves each reader on a thread of its own,
//! and keeps every promise. The third module tests the claims for several hubs that follow one log, with readers that go from
//! one hub to another.

mod support;

mod fast {
    const WRITER_THREADS: usize = 2;
    include!("claims/promises.rs");
}

mod plain {
    const WRITER_THREADS: usize = 0;
    include!("claims/promises.rs");
}

mod followed {
    include!("claims/followed.rs");
}
