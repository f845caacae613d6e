//! axum: `Sse` over a `tokio::sync::broadcast` channel, as its documentation shows both.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    extract::{RawQuery, State},
    response::sse::{Event, KeepAlive, Sse},
    routing::{get, post},
    serve::ListenerExt,
};
use futures_util::stream::{self, Stream, StreamExt};
use tiny_sse_benches::{HELLO, Load, PLAIN, POLL, address, capacity};
use tokio::{net::TcpListener, sync::broadcast, time};
use tokio_stream::wrappers::BroadcastStream;

type Channel = broadcast::Sender<Arc<str>>;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let (channel, _) = broadcast::channel::<Arc<str>>(capacity());
    let app = Router::new()
        .route("/plain", get(|| async { PLAIN }))
        .route(
            "/poll",
            get(|| async { ([("content-type", "application/json")], POLL) }),
        )
        .route("/events", get(events))
        .route("/publish", post(publish))
        .route("/load/events", get(load_events))
        .route("/load/publish", get(load_publish))
        .with_state(channel);

    let listener = TcpListener::bind(address()).await?.tap_io(|socket| {
        let _ = socket.set_nodelay(true);
    });
    axum::serve(listener, app).await
}

async fn events(
    State(channel): State<Channel>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(live(&channel)).keep_alive(KeepAlive::default())
}

async fn load_events(
    State(channel): State<Channel>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let hello = stream::iter([Ok(Event::default().data(HELLO))]);
    Sse::new(hello.chain(live(&channel))).keep_alive(KeepAlive::default())
}

/// What is published from now on. A reader that lags behind the channel's capacity loses the oldest.
fn live(channel: &Channel) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
    BroadcastStream::new(channel.subscribe())
        .filter_map(|text| async { text.ok() })
        .map(|text| Ok(Event::default().data(text)))
}

async fn publish(State(channel): State<Channel>, text: String) {
    let _ = channel.send(text.into());
}

async fn load_publish(State(channel): State<Channel>, RawQuery(query): RawQuery) -> &'static str {
    let load = Load::from_query(&query.unwrap_or_default());
    for index in 0..load.count {
        if let Some(due) = load.due(index) {
            time::sleep_until(due.into()).await;
        }
        let _ = channel.send(load.payload().into());
    }
    PLAIN
}
