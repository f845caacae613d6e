//! The smallest server that broadcasts a clock.

use std::{sync::LazyLock, time::Duration};

use hyperlane::{
    CONTENT_TYPE, Context, Server, ServerConfig, ServerHook, Status, Stream, TEXT_EVENT_STREAM,
};
use tokio::{sync::broadcast, time};

static CLOCK: LazyLock<broadcast::Sender<u64>> = LazyLock::new(|| broadcast::Sender::new(16));

#[tokio::main]
async fn main() {
    tokio::spawn(async {
        for second in 0.. {
            let _ = CLOCK.send(second);
            time::sleep(Duration::from_secs(1)).await;
        }
    });
    let mut config = ServerConfig::default();
    config.set_address("127.0.0.1:7733");
    let mut server = Server::default();
    server.server_config(config).route::<Events>("/events");
    if let Ok(running) = server.run().await {
        running.wait().await;
    }
}

struct Events;

impl ServerHook for Events {
    async fn new(_: &mut Stream, _: &mut Context) -> Self {
        Self
    }

    async fn handle(self, stream: &mut Stream, context: &mut Context) -> Status {
        let mut clock = CLOCK.subscribe();
        let head = context
            .get_mut_response()
            .set_header(CONTENT_TYPE, TEXT_EVENT_STREAM)
            .build();
        let mut sent = stream.try_send(head).await;
        while sent.is_ok() {
            let Ok(second) = clock.recv().await else {
                break;
            };
            sent = stream.try_send(format!("data: {second}\n\n")).await;
        }
        stream.set_closed(true);
        Status::Reject
    }
}
