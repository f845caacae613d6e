//! The smallest server that broadcasts a clock.

use std::{
    io::{self, Write},
    sync::{
        Mutex,
        mpsc::{self, SyncSender},
    },
    thread,
    time::Duration,
};

use tiny_http::{Request, Response, Server};

static STREAMS: Mutex<Vec<SyncSender<u64>>> = Mutex::new(Vec::new());

fn main() {
    thread::spawn(|| {
        for second in 0.. {
            STREAMS
                .lock()
                .unwrap()
                .retain(|stream| stream.send(second).is_ok());
            thread::sleep(Duration::from_secs(1));
        }
    });
    let server = Server::http("127.0.0.1:7733").expect("the address is free");
    for request in server.incoming_requests() {
        thread::spawn(move || answer(request));
    }
}

fn answer(request: Request) -> io::Result<()> {
    if request.url() != "/events" {
        return request.respond(Response::empty(404));
    }
    let (sender, seconds) = mpsc::sync_channel(16);
    STREAMS.lock().unwrap().push(sender);
    let mut writer = request.into_writer();
    writer.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    for second in seconds {
        let event = format!("data: {second}\n\n");
        write!(writer, "{:x}\r\n{event}\r\n", event.len())?;
        writer.flush()?;
    }
    Ok(())
}
