//! axum WebSocket: the same broadcast, one text message for each event.

use axum::{
    Router,
    extract::{
        RawQuery, State, WebSocketUpgrade,
        ws::{Message, Utf8Bytes, WebSocket},
    },
    response::Response,
    routing::{get, post},
    serve::ListenerExt,
};
use tiny_sse_benches::{HELLO, Load, PLAIN, POLL, address, capacity};
use tokio::{
    net::TcpListener,
    sync::broadcast::{self, error::RecvError},
    time,
};

type Channel = broadcast::Sender<Utf8Bytes>;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let (channel, _) = broadcast::channel::<Utf8Bytes>(capacity());
    let app = Router::new()
        .route("/plain", get(|| async { PLAIN }))
        .route(
            "/poll",
            get(|| async { ([("content-type", "application/json")], POLL) }),
        )
        .route("/events", get(events))
        .route("/publish", post(publish))
        .route("/load/events", get(events))
        .route("/load/publish", get(load_publish))
        .with_state(channel);

    let listener = TcpListener::bind(address()).await?.tap_io(|socket| {
        let _ = socket.set_nodelay(true);
    });
    axum::serve(listener, app).await
}

async fn events(State(channel): State<Channel>, upgrade: WebSocketUpgrade) -> Response {
    let receiver = channel.subscribe();
    upgrade.on_upgrade(|socket| serve(socket, receiver))
}

/// Sends until the client has gone, and reads meanwhile, so that pings are answered and a close is seen.
async fn serve(mut socket: WebSocket, mut receiver: broadcast::Receiver<Utf8Bytes>) {
    if socket.send(Message::text(HELLO)).await.is_err() {
        return;
    }
    loop {
        tokio::select! {
            text = receiver.recv() => match text {
                Ok(text) => if socket.send(Message::Text(text)).await.is_err() { return },
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            message = socket.recv() => match message {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
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
