//! MCP: a server of the Model Context Protocol (2025-11-25, streamable HTTP), whose calls survive a lost connection and a
//! restart of the server.
//!
//! Run it with `cargo run --example mcp` and give `http://127.0.0.1:7733/mcp` to a client of that protocol: the client finds
//! one tool, `count`, which counts slowly and reports its progress. By hand:
//!
//! ```text
//! curl -i -d '{"jsonrpc":"2.0","id":1,"method":"initialize"}' http://127.0.0.1:7733/mcp
//! curl -N -H 'Mcp-Session-Id: SESSION' -H 'MCP-Protocol-Version: 2025-11-25' -d '{"jsonrpc":"2.0","id":2,
//!     "method":"tools/call","params":{"name":"count","arguments":{"to":50},"_meta":{"progressToken":1}}}' \
//!     http://127.0.0.1:7733/mcp
//! ```
//!
//! The second answer is a stream. It begins with an id and empty data, so that a client can resume before anything has
//! happened. Then the progress notifications come, and the result ends the stream. Stop curl, or restart the server, and ask
//! for what follows the last id that you have seen:
//!
//! ```text
//! curl -N -H 'Mcp-Session-Id: SESSION' -H 'Last-Event-ID: ID' http://127.0.0.1:7733/mcp
//! ```
//!
//! A call does not depend on the connection on which it came: a thread works on it and keeps each message in a file
//! (`calls.rs`), and a stream sends what is kept and what is added. At its start the server goes on with the calls that have
//! no answer. Sessions are kept until a client ends them with DELETE.

mod calls;
#[path = "../shared/json.rs"]
mod json;

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;
use std::{env, io, thread};

use calls::{Calls, is_answer};
use json::Json;
use tiny_sse::{
    Event, InvalidField, Method, Request, Response, Server, Sse, allow_hosts, allow_same_origin,
};

/// The newest version of the protocol here, and the only one whose clients expect an event with empty data.
const VERSION: &str = "2025-11-25";

/// Older versions, which do not differ from the newest one in what this server does.
const OLDER_VERSIONS: [&str; 2] = ["2025-06-18", "2025-03-26"];

const TOOLS: &str = r#"{"tools":[{"name":"count","description":"Counts slowly","inputSchema":{"type":"object","properties":{"to":{"type":"integer","minimum":1,"maximum":1000}},"required":["to"]}}]}"#;

fn main() -> io::Result<()> {
    let port = env::args().nth(1).unwrap_or("7733".to_string());
    let calls = Calls::open(env::temp_dir().join("tiny-sse-mcp"))?;
    for call in calls.unanswered() {
        work(&calls, call)?;
    }
    let resumed = Arc::clone(&calls);
    let ended = Arc::clone(&calls);
    let server = Server::bind(format!("127.0.0.1:{port}"))?
        .middleware(allow_hosts(["localhost", "127.0.0.1"])?)
        .middleware(allow_same_origin())
        .post("/mcp", move |request| answer(&calls, request))
        .get("/mcp", move |request| resume(&resumed, request))
        .route(Method::Delete, "/mcp", move |request| end(&ended, request));
    println!("mcp at http://{}", server.addr());
    server.run()
}

/// Answers a message of the client: a request, or a notification.
fn answer(calls: &Arc<Calls>, request: &Request) -> Result<Response, Response> {
    let Some(message) = Json::parse(request.body()) else {
        return Err(error(&Json::Null, -32700, "not JSON").with_status(400));
    };
    let id = message.get("id");
    let method = message.get("method").text().unwrap_or("");
    if method == "initialize" {
        let session = calls.new_session().map_err(Response::failed)?;
        return Ok(initialize(&message).with_header("Mcp-Session-Id", session));
    }
    let session = session(calls, request)?;
    Ok(match method {
        _ if *id == Json::Null => Response::new(202),
        "ping" => result(id, "{}"),
        "tools/list" => result(id, TOOLS),
        "tools/call" if count_to(&message).is_none() => error(
            id,
            -32602,
            "the one tool is count, with `to` from 1 to 1000",
        ),
        "tools/call" => {
            let call = calls.begin(session, &message).map_err(Response::failed)?;
            work(calls, call.clone()).map_err(Response::failed)?;
            let is_primed = request.header("mcp-protocol-version") == Some(VERSION);
            let first = event("", &call, 0)?.retry(Duration::from_millis(500));
            let stream = stream(calls, call, 1);
            stream.first(is_primed.then_some(first)).into()
        }
        _ => error(id, -32601, "no such method"),
    })
}

fn initialize(message: &Json) -> Response {
    let wanted = message.get("params").get("protocolVersion").text();
    let older = OLDER_VERSIONS.into_iter().find(|&old| wanted == Some(old));
    let version = older.unwrap_or(VERSION);
    let version = format!(
        r#"{{"protocolVersion":"{version}","capabilities":{{"tools":{{}}}},"serverInfo":{{"name":"tiny-sse mcp","version":"1"}}}}"#
    );
    result(message.get("id"), &version)
}

/// Sends what follows an event of a call. There is no stream apart from those of calls.
fn resume(calls: &Arc<Calls>, request: &Request) -> Result<Response, Response> {
    let session = session(calls, request)?;
    let Some(id) = request.last_event_id() else {
        return Err(Response::new(405).with_header("Allow", "POST, DELETE"));
    };
    let unknown = || Response::text("no such event\n").with_status(400);
    let (call, number) = id.rsplit_once('-').ok_or_else(unknown)?;
    let number: usize = number.parse().map_err(|_| unknown())?;
    let call = format!("{session}/{call}");
    let lines = calls.lines(&call).ok_or_else(unknown)?;
    if number >= lines.len() {
        return Err(unknown());
    }
    Ok(stream(calls, call, number + 1).into())
}

fn end(calls: &Calls, request: &Request) -> Result<Response, Response> {
    let session = session(calls, request)?;
    calls.end_session(session).map_err(Response::failed)?;
    Ok(Response::new(204))
}

/// Returns the session that a request names. A client that gets 404 begins a new one.
fn session<'a>(calls: &Calls, request: &'a Request) -> Result<&'a str, Response> {
    let named = request.header("mcp-session-id");
    let session = named.ok_or_else(|| Response::text("no session\n").with_status(400))?;
    match calls.has_session(session) {
        true => Ok(session),
        false => Err(Response::text("no such session\n").with_status(404)),
    }
}

/// Sends the messages of a call from this one on, up to its answer.
fn stream(calls: &Arc<Calls>, call: String, first: usize) -> Sse {
    let calls = Arc::clone(calls);
    Sse::spawn(move |events: SyncSender<Event>| {
        for number in first.. {
            let Some(message) = calls.wait_for_line(&call, number) else {
                return; // The session has ended.
            };
            let Ok(event) = event(&message, &call, number) else {
                return;
            };
            if events.send(event).is_err() || is_answer(&message) {
                return;
            }
        }
    })
}

/// Returns a message as an event, whose id says the call and the number of the message in it.
fn event(message: &str, call: &str, number: usize) -> Result<Event, InvalidField> {
    let (_session, call) = call.split_once('/').unwrap_or_default();
    Event::data(message).id(format!("{call}-{number}"))
}

/// Works on a call, new or not, on a thread of its own.
fn work(calls: &Arc<Calls>, call: String) -> io::Result<()> {
    let calls = Arc::clone(calls);
    let worker = thread::Builder::new().spawn(move || {
        if let Err(error) = count(&calls, &call) {
            println!("{call} has ended: {error}");
        }
    });
    worker.map(drop)
}

/// The tool: counts on from where the call is, and reports its progress if the client asks for this.
fn count(calls: &Calls, call: &str) -> io::Result<()> {
    let lines = calls.lines(call).unwrap_or_default();
    let request = lines.first().and_then(|line| Json::parse(line.as_bytes()));
    let request = request.ok_or(io::ErrorKind::InvalidData)?;
    let to = count_to(&request).ok_or(io::ErrorKind::InvalidData)?;
    let token = request.get("params").get("_meta").get("progressToken");
    for number in lines.len()..=to {
        thread::sleep(Duration::from_millis(100));
        if *token != Json::Null {
            let progress =
                format!(r#"{{"progressToken":{token},"progress":{number},"total":{to}}}"#);
            let method = "notifications/progress";
            let message = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{progress}}}"#);
            calls.append(call, message)?;
        }
    }
    let content = format!(r#"{{"content":[{{"type":"text","text":"counted to {to}"}}]}}"#);
    calls.append(call, respond(request.get("id"), "result", &content))
}

/// Returns how far a call of the tool is to count.
fn count_to(request: &Json) -> Option<usize> {
    let params = request.get("params");
    let Json::Number(to) = params.get("arguments").get("to") else {
        return None;
    };
    let to = to.parse().ok().filter(|to| (1..=1000).contains(to))?;
    (params.get("name").text() == Some("count")).then_some(to)
}

/// Writes a response of JSON-RPC: `what` is `result` or `error`.
fn respond(id: &Json, what: &str, value: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"{what}":{value}}}"#)
}

fn result(id: &Json, value: &str) -> Response {
    Response::json(respond(id, "result", value))
}

fn error(id: &Json, code: i32, message: &str) -> Response {
    let error = format!(r#"{{"code":{code},"message":"{message}"}}"#);
    Response::json(respond(id, "error", &error))
}
