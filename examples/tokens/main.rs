//! Tokens: the answer to one POST as a stream, in the way that the APIs of language models do it.
//!
//! Run it with `cargo run --example tokens`, open <http://127.0.0.1:7733/>, ask something and cancel the answer half way;
//! or type
//!
//! ```text
//! curl -N -d 'What is an event stream?' http://127.0.0.1:7733/answer
//! ```
//!
//! Word by word comes `data: {"delta":"You "}`, then `data: {"delta":"asked "}` and so on, and at last `data: [DONE]`, by
//! which a client knows that the answer is whole and not cut off. Stop curl before that: within about a second the server
//! prints `cancelled after 31 tokens`, since the producer's next send fails when its reader has left. Nothing goes on
//! computing for nobody.
//!
//! An `EventSource` can only GET, so the page reads the stream with `fetch`. This is also a case for a stream of one's own
//! and not for a hub: nobody else reads it, and there is nothing to come back to.

use std::sync::mpsc::SyncSender;
use std::time::Duration;
use std::{env, io, thread};

use tiny_sse::{Event, Response, Server, Sse};

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(include_str!("page.html")))
        .post("/answer", |request| {
            let words = String::from_utf8_lossy(request.body())
                .split_whitespace()
                .count();
            Sse::spawn(move |events| generate(words, &events))
        });
    println!("tokens at http://{}", server.addr());
    server.run()
}

/// Stands in for a model.
const ANSWER: &str = "An event stream is a response that does not end: a head that says text/event-stream, and then \
    lines of text for as long as the connection lives. A line that begins with data: belongs to an event, and a blank \
    line sends the event off. That is nearly all of it, which is why curl can read it, a browser reconnects by itself, \
    and every proxy that speaks HTTP passes it on. This answer came to you in that way, a word at a time.";

/// Sends one token after the other, until there are no more or the client has left.
fn generate(words: usize, events: &SyncSender<Event>) {
    let text = format!("You asked in {words} words. {ANSWER}");
    for (number, token) in text.split_inclusive(' ').enumerate() {
        // These words need no escaping in JSON; a real model's would.
        let event = Event::data(format!(r#"{{"delta":"{token}"}}"#));
        if events.send(event).is_err() {
            println!("cancelled after {number} tokens");
            return;
        }
        thread::sleep(Duration::from_millis(60));
    }
    // Not with `Sse::last`, which comes as well where a producer gives up.
    if events.send(Event::data("[DONE]")).is_ok() {
        println!("answered in full");
    }
}
