//! The smallest server that broadcasts a clock.

use std::{convert::Infallible, time::Duration};

use http_body_util::StreamBody;
use hyper::{
    Request, Response,
    body::{Body, Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::broadcast, time};
use tokio_stream::{StreamExt, wrappers::BroadcastStream};

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
    let listener = TcpListener::bind("127.0.0.1:7733").await?;
    loop {
        let (socket, _) = listener.accept().await?;
        let clock = clock.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| events(request, clock.clone()));
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

async fn events(
    request: Request<Incoming>,
    clock: Clock,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let seconds = BroadcastStream::new(clock.subscribe()).filter_map(Result::ok);
    let frames = seconds.map(|second| Ok(Frame::data(Bytes::from(format!("data: {second}\n\n")))));
    let mut response = Response::new(StreamBody::new(frames));
    if request.uri().path() == "/events" {
        let event_stream = hyper::header::HeaderValue::from_static("text/event-stream");
        response
            .headers_mut()
            .insert(hyper::header::CONTENT_TYPE, event_stream);
    } else {
        *response.status_mut() = hyper::StatusCode::NOT_FOUND;
    }
    Ok(response)
}
