//! HTTP/1.1 over real sockets.

mod support;

use support::start;
use tiny_sse::Config;

#[test]
fn a_connection_answers_one_request_after_the_other() {
    let server = start(Config::default(), |server| {
        server.get("/hello", |_| "hello\n")
    });
    let mut client = server.connect();
    for _ in 0..3 {
        let answer = client.get("/hello");
        assert_eq!((answer.status(), answer.text()), (200, "hello\n"));
    }
}
