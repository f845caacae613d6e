//! One connection: read a request, answer it, keep alive or become a stream (RFC 9112 section 9).

use std::io::{self, BufRead, BufReader};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::config::Config;
use crate::http::{
    Body, Framing, Head, Manner, Request, RequestError, Response, Stream, StreamHead, Version,
    read_body, read_head,
};
use crate::random::jitter;
use crate::router::{Found, Router};
use crate::socket::{DeadlineReader, Socket};

type Reader = BufReader<DeadlineReader>;

/// As much of an answer leaves in one write with its head, at the price of a copy.
const ONE_WRITE_BYTES: usize = 16 * 1024;

/// How long a closing connection waits for the client to take its answer and close.
const LINGER: Duration = Duration::from_secs(1);

/// How long a client that will be refused has, from its request head to the end.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// A response and what the request says about how to send it.
struct Answer {
    response: Response,
    manner: Manner,
}

/// Serves a connection until it ends or has become a stream that others carry on.
pub(crate) fn serve(socket: Socket, router: &Router) {
    if let Some((stream, head, socket)) = answer_requests(socket, router) {
        stream(head, socket);
    }
}

/// Answers requests, up to the one whose answer is a stream. Not part of the caller, so that a stream's thread has its
/// stack to itself: each page counts ten thousand times.
#[inline(never)]
fn answer_requests(mut socket: Socket, router: &Router) -> Option<(Stream, StreamHead, Socket)> {
    socket.prepare(socket.config().write_timeout).ok()?;
    let mut reader = BufReader::with_capacity(socket.config().read_buffer_bytes, socket.reader());
    let mut out = Vec::new();
    // A fresh connection has no time to be idle: it came with something to ask.
    let mut patience = socket.config().head_timeout;
    while await_request(&socket, &mut reader, patience) {
        patience = socket.config().idle_timeout;
        let mut answer = match next_request(&mut socket, &mut reader, router) {
            Ok((head, found)) => Answer {
                response: router.answer(&head.request, &found),
                manner: head.manner,
            },
            Err(refusal) => refusal?,
        };
        if let Some(error) = &answer.response.error {
            socket.report(error);
        }
        answer.manner.keep_alive &= !socket.is_closing();
        let sent = match answer.response.take_body() {
            Body::Whole(body) => send_whole(&socket, &answer, &body, &mut out),
            Body::Stream(stream) => {
                let head = answer.response.stream_head(answer.manner.version);
                if !answer.manner.head_only {
                    // A stream is the last answer on its connection.
                    return Some((stream, head, socket));
                }
                answer.manner.keep_alive &= answer.manner.version == Version::Http11;
                socket.write_all(&head.bytes)
            }
        };
        sent.ok()?;
        if !answer.manner.keep_alive {
            let mut rest = reader.into_inner();
            rest.set_deadline(LINGER);
            socket.linger(rest);
            return None;
        }
        // One moment for the others: a request that has come by then costs no sleep and no wake-up.
        thread::yield_now();
    }
    None
}

/// Waits for the first byte of a request; false when none comes.
fn await_request(socket: &Socket, reader: &mut Reader, patience: Duration) -> bool {
    if !reader.buffer().is_empty() {
        return true;
    }
    if !socket.wait_idle() {
        return false;
    }
    reader.get_mut().set_deadline(patience);
    let came = reader.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
    socket.end_idle();
    came
}

/// Reads one request and finds its handler. An error is the answer in its place, or that there is nobody to answer.
#[inline(never)] // As above.
fn next_request<'a>(
    socket: &mut Socket,
    reader: &mut Reader,
    router: &'a Router,
) -> Result<(Head, Found<'a>), Option<Answer>> {
    reader.get_mut().set_deadline(socket.config().head_timeout);
    let head = read_head(reader, socket.config()).map_err(refusal)?;
    let mut head = head.ok_or(None)?;
    let request = &mut head.request;
    request.peer = socket.peer();
    request.closing = Arc::clone(socket.closing());
    request.client_ip = client_ip(request, &socket.config().trusted_proxies);
    if !socket.count_for(request.client_ip) {
        return Err(Some(overload(&head, socket.config())));
    }
    let found = router.find(request);
    if head.expects_continue && !matches!(found, Found::Handler(_)) {
        // The final answer comes instead of a 100, and the body never (RFC 9110 section 10.1.1).
        head.manner.keep_alive = false;
        return Ok((head, found));
    }
    let config = socket.config();
    // A body that is announced as too large is refused without a 100.
    let fits =
        !matches!(head.framing, Framing::Length(length) if length > config.max_body_bytes as u64);
    if head.expects_continue && reader.buffer().is_empty() && fits {
        socket
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            .map_err(|_| None)?;
    }
    reader.get_mut().set_body_deadline(config);
    request.body = read_body(reader, head.framing, config.max_body_bytes).map_err(refusal)?;
    Ok((head, found))
}

/// What could not be read is answered, where there is somebody to answer, and ends the connection: where the next
/// request would begin is not known (RFC 9112 section 9.6).
fn refusal(error: RequestError) -> Option<Answer> {
    Some(Answer {
        response: Response::text(format!("{}\n", error.reason)).with_status(error.status?),
        manner: Manner {
            version: Version::Http11,
            head_only: false,
            keep_alive: false,
        },
    })
}

fn send_whole(socket: &Socket, answer: &Answer, body: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let Answer { response, manner } = answer;
    out.clear();
    response.append_whole_head(out, body.len(), *manner);
    if manner.head_only || !response.has_content() {
        return socket.write_all(out);
    }
    let (first, rest) = body.split_at(body.len().min(ONE_WRITE_BYTES));
    out.extend_from_slice(first);
    socket.write_all(out)?;
    socket.write_all(rest)
}

/// The last address of `X-Forwarded-For` that is not a trusted proxy's own: each proxy adds the one that it saw, so
/// what stands before it is only what the client claims.
fn client_ip(request: &Request, trusted: &[IpAddr]) -> IpAddr {
    let mut client = request.peer.ip();
    let lines: Vec<&str> = request.headers("x-forwarded-for").collect();
    for address in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        if !trusted.contains(&client) {
            break;
        }
        // What is no address ends what can be believed.
        let Ok(address) = address.trim().parse::<IpAddr>() else {
            break;
        };
        client = address.to_canonical();
    }
    client
}

/// Tells a client that there is no room, in the way that it understands.
pub(crate) fn refuse(socket: Socket) {
    if socket.prepare(REFUSAL_TIMEOUT).is_err() {
        return;
    }
    let mut reader = BufReader::with_capacity(1024, socket.reader());
    reader.get_mut().set_deadline(REFUSAL_TIMEOUT);
    let answer = match read_head(&mut reader, socket.config()) {
        Ok(head) => head.map(|head| overload(&head, socket.config())),
        Err(error) => refusal(error),
    };
    if let Some(mut answer) = answer
        && let Body::Whole(body) = answer.response.take_body()
        && send_whole(&socket, &answer, &body, &mut Vec::new()).is_ok()
    {
        socket.linger(reader.into_inner());
    }
}

/// A browser that gets a 503 for an event stream never tries again, so it gets a stream that tells it to come back and
/// ends. Everyone else gets 503.
fn overload(head: &Head, config: &Config) -> Answer {
    let wait = Duration::from_secs(1) + jitter(config.reconnect_spread);
    let mut accepted = head.request.headers("accept");
    let response = if accepted.any(|accept| accept.contains("text/event-stream")) {
        let text = format!(": too many connections\nretry: {}\n\n", wait.as_millis());
        Response::bytes("text/event-stream", text.into_bytes())
            .with_field("Cache-Control", "no-cache, no-transform")
    } else {
        Response::of_status(503).with_field("Retry-After", wait.as_secs().to_string())
    };
    Answer {
        response,
        manner: Manner {
            keep_alive: false,
            ..head.manner
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_speak_for_others() {
        #[track_caller]
        fn check(trusted: &[&str], forwarded: &[&str], expected: &str) {
            let fields: Vec<_> = forwarded
                .iter()
                .map(|value| ("X-Forwarded-For", *value))
                .collect();
            let mut request = Request::for_test("GET", "/", &fields);
            request.peer = "10.0.0.1:5000".parse().unwrap();
            let trusted: Vec<IpAddr> = trusted.iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(client_ip(&request, &trusted).to_string(), expected);
        }
        check(&[], &["1.2.3.4"], "10.0.0.1"); // Nobody is trusted: anybody can send this field.
        check(&["10.0.0.1"], &[], "10.0.0.1"); // The proxy itself asks.
        check(&["10.0.0.1"], &["1.2.3.4"], "1.2.3.4"); // The proxy speaks for its client.
        check(&["10.0.0.1"], &["9.9.9.9, 1.2.3.4"], "1.2.3.4"); // What stands before is the client's claim.
        check(&["10.0.0.1"], &["9.9.9.9", "1.2.3.4"], "1.2.3.4"); // Several lines are one list (RFC 9110 section 5.3).
        check(&["10.0.0.1", "10.0.0.2"], &["1.2.3.4, 10.0.0.2"], "1.2.3.4"); // A chain of proxies.
        check(&["10.0.0.1"], &["1.2.3.4, unknown"], "10.0.0.1"); // No address: nothing before it counts.
        check(&["10.0.0.1"], &["::1"], "::1"); // IPv6.
    }
}
