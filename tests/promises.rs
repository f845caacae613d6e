//! Promises 1 and 3 held together: every reader gets the published sequence of its topics, in order and each event once,
//! except what a gap has announced before; whatever the others do.
//!
//! `PROMISES_ROUNDS=100 cargo test --release --test promises` runs for minutes, each round with a seed of its own.
//!
//! Each claim is held with and without the fast half: a hub without writer threads serves each reader on a thread of its
//! own, and keeps every promise. The third module holds them for hubs that follow one log, from one to another of which
//! readers go.

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
