//! Follow: `curl -N` that survives restarts, and says what it did.
//!
//! Run it with `cargo run --example follow -- http://127.0.0.1:7733/`, beside a server such as `cargo run --example resume`.
//! It prints each message as it stands in the stream, and on standard error what happens to the connection. Stop the server,
//! start it again, and you see
//!
//! ```text
//! data: 1700000000
//!
//! the server has ended the stream: trying again in 1.4 s, after the event 6ad1c3e5b2f04c97-12
//! Connection refused (os error 111): trying again in 3.2 s, after the event 6ad1c3e5b2f04c97-12
//! data: 1700000009
//! ```
//!
//! A second argument is the id to start after. The program ends when the server answers 204, or with an error when the address
//! has no event stream.

use std::{env, io};

use tiny_sse::EventSource;

fn main() -> io::Result<()> {
    let mut args = env::args().skip(1);
    let url = args.next().unwrap_or("http://127.0.0.1:7733/".to_string());
    let mut source = EventSource::new(&url)?.after(&args.next().unwrap_or_default())?;
    while let Some(next) = source.next() {
        match next {
            Ok(message) => {
                if message.event != "message" {
                    println!("event: {}", message.event);
                }
                for line in message.data.split('\n') {
                    println!("data: {line}");
                }
                println!();
            }
            // Another attempt would fail too.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
            Err(error) => {
                let after = match source.last_event_id() {
                    "" => String::new(),
                    id => format!(", after the event {id}"),
                };
                let pause = source.pause().as_secs_f64();
                eprintln!("{error}: trying again in {pause:.1} s{after}");
            }
        }
    }
    eprintln!("the server has no more: it answers 204");
    Ok(())
}
