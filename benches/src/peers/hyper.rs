//! hyper: no event type of its own, so each event is encoded once and its bytes are shared by all streams.

use std::convert::Infallible;

use futures_util::stream::{self, StreamExt};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Frame, Incoming},
    header::{CACHE_CONTROL, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tiny_sse_benches::{HELLO, Load, PLAIN, POLL, address, capacity};
use tokio::{net::TcpListener, sync::broadcast, time};
use tokio_stream::wrappers::BroadcastStream;

type Channel = broadcast::Sender<Bytes>;
type Body = BoxBody<Bytes, Infallible>;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let (channel, _) = broadcast::channel(capacity());
    let listener = TcpListener::bind(address()).await?;
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            time::sleep(time::Duration::from_millis(50)).await;
            continue;
        };
        let _ = socket.set_nodelay(true);
        let channel = channel.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, channel.clone()));
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    channel: Channel,
) -> Result<Response<Body>, hyper::Error> {
    Ok(match (request.method(), request.uri().path()) {
        (&Method::GET, "/plain") => whole("text/plain", PLAIN),
        (&Method::GET, "/poll") => whole("application/json", POLL),
        (&Method::GET, "/events") => events(&channel, None),
        (&Method::GET, "/load/events") => events(&channel, Some(encode(HELLO))),
        (&Method::POST, "/publish") => {
            let text = request.into_body().collect().await?.to_bytes();
            let _ = channel.send(encode(&String::from_utf8_lossy(&text)));
            whole("text/plain", PLAIN)
        }
        (&Method::GET, "/load/publish") => {
            publish(
                &channel,
                Load::from_query(request.uri().query().unwrap_or_default()),
            )
            .await;
            whole("text/plain", PLAIN)
        }
        _ => {
            let mut response = whole("text/plain", "not found");
            *response.status_mut() = hyper::StatusCode::NOT_FOUND;
            response
        }
    })
}

fn whole(content_type: &'static str, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())).boxed());
    let content_type = hyper::header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// What is published from now on. A reader that lags behind the channel's capacity loses the oldest.
fn events(channel: &Channel, first: Option<Bytes>) -> Response<Body> {
    let live = BroadcastStream::new(channel.subscribe()).filter_map(|event| async { event.ok() });
    let frames = stream::iter(first)
        .chain(live)
        .map(|event| Ok(Frame::data(event)));
    Response::builder()
        .header(CONTENT_TYPE, "text/event-stream")
        .header(CACHE_CONTROL, "no-cache")
        .body(BodyExt::boxed(StreamBody::new(frames)))
        .expect("the head is valid")
}

async fn publish(channel: &Channel, load: Load) {
    for index in 0..load.count {
        if let Some(due) = load.due(index) {
            time::sleep_until(due.into()).await;
        }
        let _ = channel.send(encode(&load.payload()));
    }
}

fn encode(text: &str) -> Bytes {
    format!("data: {text}\n\n").into()
}
