//! actix-web with actix-web-lab's `sse`: the broadcaster of the actix examples, a bounded channel for each client,
//! published to all of them at once. It waits for the slowest, so nothing is lost.

use std::{sync::Mutex, time::Duration};

use actix_web::{
    App, HttpRequest, HttpServer, Responder, get,
    http::header::ContentType,
    post,
    rt::time,
    web::{self, Data},
};
use actix_web_lab::sse::{self, Sse};
use futures_util::future::join_all;
use tiny_sse_benches::{HELLO, Load, PLAIN, POLL, address, capacity};
use tokio::sync::mpsc;

#[derive(Default)]
struct Broadcaster {
    clients: Mutex<Vec<mpsc::Sender<sse::Event>>>,
}

impl Broadcaster {
    async fn subscribe(&self, first: Option<&'static str>) -> impl Responder + use<> {
        let (sender, receiver) = mpsc::channel(capacity());
        if let Some(text) = first {
            let _ = sender.send(sse::Data::new(text).into()).await;
        }
        self.clients.lock().unwrap().push(sender);
        Sse::from_infallible_receiver(receiver).with_keep_alive(Duration::from_secs(15))
    }

    async fn broadcast(&self, text: String) {
        let clients = self.clients.lock().unwrap().clone();
        let event = sse::Event::from(sse::Data::new(text));
        join_all(clients.iter().map(|client| client.send(event.clone()))).await;
    }

    /// Forgets the clients that have gone, every so often.
    async fn sweep(&self) {
        loop {
            time::sleep(Duration::from_secs(1)).await;
            self.clients
                .lock()
                .unwrap()
                .retain(|client| !client.is_closed());
        }
    }
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let broadcaster = Data::new(Broadcaster::default());
    let sweeper = broadcaster.clone();
    actix_web::rt::spawn(async move { sweeper.sweep().await });

    HttpServer::new(move || {
        App::new()
            .app_data(broadcaster.clone())
            .service(plain)
            .service(poll)
            .service(events)
            .service(publish)
            .service(load_events)
            .service(load_publish)
    })
    .tcp_nodelay(true)
    .bind(address())?
    .run()
    .await
}

#[get("/plain")]
async fn plain() -> impl Responder {
    PLAIN
}

#[get("/poll")]
async fn poll() -> impl Responder {
    POLL.customize().insert_header(ContentType::json())
}

#[get("/events")]
async fn events(broadcaster: Data<Broadcaster>) -> impl Responder {
    broadcaster.subscribe(None).await
}

#[post("/publish")]
async fn publish(broadcaster: Data<Broadcaster>, text: String) -> impl Responder {
    broadcaster.broadcast(text).await;
    PLAIN
}

#[get("/load/events")]
async fn load_events(broadcaster: Data<Broadcaster>) -> impl Responder {
    broadcaster.subscribe(Some(HELLO)).await
}

#[get("/load/publish")]
async fn load_publish(broadcaster: Data<Broadcaster>, request: HttpRequest) -> impl Responder {
    let load = Load::from_query(request.query_string());
    for index in 0..load.count {
        if let Some(due) = load.due(index) {
            time::sleep_until(due.into()).await;
        }
        broadcaster.broadcast(load.payload()).await;
    }
    web::Bytes::from_static(PLAIN.as_bytes())
}
