//! The smallest server that broadcasts a clock.

use std::time::Duration;

use actix_web::{App, HttpServer, Responder, get, rt::time, web::Data};
use actix_web_lab::sse;
use tokio::sync::broadcast;
use tokio_stream::{StreamExt, wrappers::BroadcastStream};

type Clock = broadcast::Sender<u64>;

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let clock = Clock::new(16);
    let ticks = clock.clone();
    actix_web::rt::spawn(async move {
        for second in 0.. {
            let _ = ticks.send(second);
            time::sleep(Duration::from_secs(1)).await;
        }
    });
    let app = move || {
        App::new()
            .app_data(Data::new(clock.clone()))
            .service(events)
    };
    HttpServer::new(app).bind(("127.0.0.1", 7733))?.run().await
}

#[get("/events")]
async fn events(clock: Data<Clock>) -> impl Responder {
    let seconds = BroadcastStream::new(clock.subscribe()).filter_map(Result::ok);
    let events = seconds.map(|second| sse::Data::new(second.to_string()).into());
    sse::Sse::from_infallible_stream(events).with_keep_alive(Duration::from_secs(15))
}
