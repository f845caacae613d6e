//! The smallest server that broadcasts a clock.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    extract::State,
    response::sse::{Event, KeepAlive, Sse},
    routing::get,
};
use tokio::{net::TcpListener, sync::broadcast, time};
use tokio_stream::{Stream, StreamExt, wrappers::BroadcastStream};

type Clock = broadcast::Sender<u64>;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let clock = Clock::new(16);
    let ticks = clock.clone();
    tokio::spawn(async move {
        for second in 0.. {
            let _ = ticks.send(second);
            time::sleep(Duration::from_secs(1)).await;
        }
    });
    let app = Router::new()
        .route("/events", get(events))
        .with_state(clock);
    axum::serve(TcpListener::bind("127.0.0.1:7733").await?, app).await
}

async fn events(State(clock): State<Clock>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let seconds = BroadcastStream::new(clock.subscribe()).filter_map(Result::ok);
    Sse::new(seconds.map(|second| Ok(Event::default().data(second.to_string()))))
        .keep_alive(KeepAlive::default())
}
