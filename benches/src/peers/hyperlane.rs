//! hyperlane: the event stream of its guide and its tests, a built head and then raw writes, ended by close. It has no
//! chunked coding for HTTP/1.1, no event type and no keep-alive comment. Its handlers take no state, so the channel is
//! a static.

use std::sync::LazyLock;

use hyperlane::{
    CACHE_CONTROL, CONTENT_TYPE, Context, NO_CACHE, Server, ServerConfig, ServerHook, Status,
    Stream, TEXT_EVENT_STREAM, TEXT_PLAIN,
};
use tiny_sse_benches::{HELLO, Load, PLAIN, POLL, address, capacity};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time,
};

static CHANNEL: LazyLock<broadcast::Sender<String>> =
    LazyLock::new(|| broadcast::Sender::new(capacity()));

#[tokio::main]
async fn main() {
    let (host, port) = address();
    let mut config = ServerConfig::default();
    config
        .set_address(Server::format_bind_address(host, port))
        .set_nodelay(Some(true));
    let mut server = Server::default();
    server
        .server_config(config)
        .route::<Plain>("/plain")
        .route::<Poll>("/poll")
        .route::<Events>("/events")
        .route::<Publish>("/publish")
        .route::<LoadEvents>("/load/events")
        .route::<LoadPublish>("/load/publish")
        .response_middleware::<Respond>();
    let running = server.run().await.expect("the address is free");
    running.wait().await;
}

struct Plain;

impl ServerHook for Plain {
    async fn new(_: &mut Stream, _: &mut Context) -> Self {
        Self
    }

    async fn handle(self, _: &mut Stream, context: &mut Context) -> Status {
        whole(context, TEXT_PLAIN, PLAIN)
    }
}

struct Poll;

impl ServerHook for Poll {
    async fn new(_: &mut Stream, _: &mut Context) -> Self {
        Self
    }

    async fn handle(self, _: &mut Stream, context: &mut Context) -> Status {
        whole(context, "application/json", POLL)
    }
}

struct Events;

impl ServerHook for Events {
    async fn new(_: &mut Stream, _: &mut Context) -> Self {
        Self
    }

    async fn handle(self, stream: &mut Stream, context: &mut Context) -> Status {
        stream_events(stream, context, None).await
    }
}

struct LoadEvents;

impl ServerHook for LoadEvents {
    async fn new(_: &mut Stream, _: &mut Context) -> Self {
        Self
    }

    async fn handle(self, stream: &mut Stream, context: &mut Context) -> Status {
        stream_events(stream, context, Some(HELLO)).await
    }
}

struct Publish;

impl ServerHook for Publish {
    async fn new(_: &mut Stream, _: &mut Context) -> Self {
        Self
    }

    async fn handle(self, _: &mut Stream, context: &mut Context) -> Status {
        let _ = CHANNEL.send(context.get_request().get_body_string());
        whole(context, TEXT_PLAIN, PLAIN)
    }
}

struct LoadPublish;

impl ServerHook for LoadPublish {
    async fn new(_: &mut Stream, _: &mut Context) -> Self {
        Self
    }

    async fn handle(self, _: &mut Stream, context: &mut Context) -> Status {
        let request = context.get_request();
        let query: Vec<String> = ["n", "size", "rate"]
            .iter()
            .filter_map(|name| Some(format!("{name}={}", request.try_get_query_back(name)?)))
            .collect();
        let load = Load::from_query(&query.join("&"));
        for index in 0..load.count {
            if let Some(due) = load.due(index) {
                time::sleep_until(due.into()).await;
            }
            let _ = CHANNEL.send(load.payload());
        }
        whole(context, TEXT_PLAIN, PLAIN)
    }
}

/// Sends the whole response that a route has left in the context.
struct Respond;

impl ServerHook for Respond {
    async fn new(_: &mut Stream, _: &mut Context) -> Self {
        Self
    }

    async fn handle(self, stream: &mut Stream, context: &mut Context) -> Status {
        let answer = context.get_mut_response().build();
        if stream.try_send(answer).await.is_err() {
            stream.set_closed(true);
            return Status::Reject;
        }
        Status::Continue
    }
}

fn whole(context: &mut Context, content_type: &str, body: &str) -> Status {
    context
        .get_mut_response()
        .set_header(CONTENT_TYPE, content_type)
        .set_body(body);
    Status::Continue
}

/// Writes what is published from now on. A reader that lags behind the channel's capacity loses the oldest.
async fn stream_events(stream: &mut Stream, context: &mut Context, first: Option<&str>) -> Status {
    let mut receiver = CHANNEL.subscribe();
    let head = context
        .get_mut_response()
        .set_header(CONTENT_TYPE, TEXT_EVENT_STREAM)
        .set_header(CACHE_CONTROL, NO_CACHE)
        .set_body(Vec::new())
        .build();
    let mut sent = stream.try_send(head).await;
    if let (Ok(()), Some(text)) = (&sent, first) {
        sent = stream.try_send(format!("data: {text}\n\n")).await;
    }
    while sent.is_ok() {
        match receiver.recv().await {
            Ok(text) => sent = stream.try_send(format!("data: {text}\n\n")).await,
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => break,
        }
    }
    stream.set_closed(true);
    Status::Reject
}
