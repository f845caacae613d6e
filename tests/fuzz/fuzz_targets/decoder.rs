//! An event stream: what is decoded must not depend on how the bytes arrive, and must be what a second, plain reading of
//! [WHATWG's algorithm](https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation)
//! finds in the same bytes.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tiny_sse::{Decoded, Decoder, Message};

const MAX_EVENT_BYTES: usize = 64;

fuzz_target!(|input: (u8, &[u8])| {
    let (most, bytes) = input;
    let most = 1 + usize::from(most);
    let unlimited = |most| decode(Decoder::new(), bytes, most).expect("a short stream");
    let (whole, last_id) = unlimited(usize::MAX);
    assert_eq!((&whole, &last_id), (&unlimited(most).0, &unlimited(most).1));
    assert_eq!((&whole, &last_id), (&unlimited(1).0, &unlimited(1).1));
    assert_eq!((whole, last_id), plain_reading(bytes));

    // How much fits must not depend on it either.
    let limited = |most| decode(Decoder::new().max_event_bytes(MAX_EVENT_BYTES), bytes, most);
    assert_eq!(limited(usize::MAX), limited(most));
    assert_eq!(limited(usize::MAX), limited(1));
});

type Seen = (Vec<Decoded>, String);

fn decode(mut decoder: Decoder, bytes: &[u8], most: usize) -> Result<Seen, String> {
    let mut items = Vec::new();
    for mut piece in bytes.chunks(most.min(bytes.len().max(1))) {
        loop {
            match decoder.decode(&mut piece) {
                Ok(Some(item)) => items.push(item),
                Ok(None) => break,
                Err(error) => return Err(format!("{error} behind {items:?}")),
            }
        }
        assert!(piece.is_empty());
    }
    Ok((items, decoder.last_event_id().to_string()))
}

fn plain_reading(bytes: &[u8]) -> Seen {
    let text = String::from_utf8_lossy(bytes);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.split('\n').collect();
    lines.pop(); // The text without a line end.

    let mut items = Vec::new();
    let (mut event, mut data, mut id, mut last_id) =
        (String::new(), String::new(), String::new(), String::new());
    for line in lines {
        if line.is_empty() {
            last_id.clone_from(&id);
            let name = std::mem::take(&mut event);
            if let Some(data) = std::mem::take(&mut data).strip_suffix('\n') {
                items.push(Decoded::Message(Message {
                    event: if name.is_empty() {
                        "message".to_string()
                    } else {
                        name
                    },
                    data: data.to_string(),
                    last_event_id: last_id.clone(),
                }));
            }
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => items.push(Decoded::Comment(value.to_string())),
            "event" => event = value.to_string(),
            "data" => data = data + value + "\n",
            "id" if !value.contains('\0') => id = value.to_string(),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                let milliseconds = value.parse().unwrap_or(u64::MAX);
                items.push(Decoded::Retry(Duration::from_millis(milliseconds)));
            }
            _ => {}
        }
    }
    (items, last_id)
}
