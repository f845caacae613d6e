//! Tokens: the response to one POST is a stream, in the wire format that the APIs of language models share.
//!
//! Run it with `cargo run --example tokens`, open <http://127.0.0.1:7733/>, ask something and cancel the answer half way.
//! Or type
//!
//! ```text
//! curl -N -d '{"stream": true, "messages": [{"role": "user", "content": "What is an event stream?"}]}' \
//!     http://127.0.0.1:7733/v1/chat/completions
//! ```
//!
//! You see an event for each word. Its data is a `chat.completion.chunk` with one token in its `delta`. The last event is
//! `data: [DONE]`, which tells the client that the answer is complete. Stop curl before that: within about a second the
//! server prints `cancelled after 31 tokens`, because the producer's next send fails once its client has left. So no
//! thread computes an answer that nobody reads.
//!
//! Without `"stream": true` the response is one JSON text. An invalid request gets 400, with the reason as JSON. So the
//! official clients work with this server: give them `http://127.0.0.1:7733/v1` as the base URL, and any key.
//!
//! An `EventSource` can only send GET, so the page reads the stream with `fetch`. The stream has its own channel, and
//! no hub: it has one reader, and nothing to resume.

#[path = "../shared/json.rs"]
mod json;

use std::sync::mpsc::SyncSender;
use std::time::{Duration, UNIX_EPOCH};
use std::{env, io, thread};

use json::Json;
use tiny_sse::{Event, Request, Response, Server, Sse};

/// The page, after the head that the pages of all examples share.
const PAGE: &str = concat!(include_str!("../head.html"), include_str!("page.html"));

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .get("/", |_request| Response::html(PAGE))
        .get("/main.rs", |_request| include_str!("main.rs"))
        .get("/next.rs", |_request| include_str!("../mcp/main.rs"))
        .post("/v1/chat/completions", complete);
    println!("tokens at http://{}", server.addr());
    server.run()
}

/// Answers a conversation, as a stream where the client wants one.
fn complete(request: &Request) -> Response {
    let Some(body) = Json::parse(request.body()) else {
        return refuse("the body is not JSON");
    };
    let Some(question) = body.get("messages").items().last() else {
        return refuse("there is no message to answer");
    };
    let text = format!("You asked in {} words. {ANSWER}", words(question));
    let model = body.get("model").text().unwrap_or("parrot").to_string();
    if *body.get("stream") == Json::Bool(true) {
        return Sse::spawn(move |events| generate(&text, &model, &events)).into();
    }
    let text = Json::Text(text);
    Response::json(completion(
        "chat.completion",
        &model,
        &format!(r#""message":{{"role":"assistant","content":{text}}},"finish_reason":"stop""#),
    ))
}

/// Counts the words of a message, whose content is a text or a list of parts with a text each.
fn words(message: &Json) -> usize {
    let content = message.get("content");
    let parts = content.items().iter().map(|part| part.get("text"));
    let texts = parts.chain([content]).filter_map(Json::text);
    texts.map(|text| text.split_whitespace().count()).sum()
}

/// The answer of the model that this example does not have.
const ANSWER: &str = "An event stream is a response that does not end: a head that says text/event-stream, and then \
    lines of text for as long as the connection lives. A line that begins with data: belongs to an event, and a blank \
    line sends the event off. That is nearly all of it, which is why curl can read it, a browser reconnects by itself, \
    and every proxy that speaks HTTP passes it on. This answer came to you in that way, a word at a time.";

/// Sends one token after another until the answer is complete or the client has left.
fn generate(text: &str, model: &str, events: &SyncSender<Event>) {
    let chunk = |rest: &str| Event::data(completion("chat.completion.chunk", model, rest));
    for (number, token) in text.split_inclusive(' ').enumerate() {
        let token = Json::from(token);
        let delta = format!(r#""delta":{{"content":{token}}},"finish_reason":null"#);
        if events.send(chunk(&delta)).is_err() {
            println!("cancelled after {number} tokens");
            return;
        }
        thread::sleep(Duration::from_millis(60));
    }
    // `Sse::last` would also send it after a producer that gave up.
    let last = chunk(r#""delta":{},"finish_reason":"stop""#);
    if events.send(last).is_ok() && events.send(Event::data("[DONE]")).is_ok() {
        println!("answered in full");
    }
}

/// Writes a completion, or a chunk of one, with one choice.
fn completion(object: &str, model: &str, choice: &str) -> String {
    let created = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let model = Json::from(model);
    format!(
        r#"{{"id":"chatcmpl-1","object":"{object}","created":{created},"model":{model},"choices":[{{"index":0,{choice}}}]}}"#
    )
}

fn refuse(reason: &str) -> Response {
    let error = format!(r#"{{"error":{{"message":"{reason}","type":"invalid_request_error"}}}}"#);
    Response::json(error + "\n").with_status(400)
}
