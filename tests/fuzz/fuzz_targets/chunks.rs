//! A chunked body: what is read must not depend on how the bytes arrive, and must be what a second, plain reading of
//! RFC 9112 section 7.1 finds in the same bytes.

#![no_main]

#[path = "../../../src/config.rs"]
#[allow(dead_code, unreachable_pub)] // Some of the limits are used.
mod config;
#[path = "../http.rs"]
mod http;
#[path = "../../../src/lock.rs"]
#[allow(dead_code)]
mod lock;

use http::{Framing, MAX_BODY_BYTES, Pieces, read_body, refusal};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (most, bytes) = input;
    let whole = read(bytes, usize::MAX);
    assert_eq!(whole, read(bytes, 1 + usize::from(most)));
    assert_eq!(whole, read(bytes, 1));
    if let Ok((body, rest)) = whole {
        // The crate refuses more than RFC 9112 asks for. A body that it takes must be valid chunks, with the same data.
        let (plain, plain_rest) = plain_reading(bytes).expect("taken, and yet not chunked");
        assert_eq!((body, rest), (plain, plain_rest.len()));
    }
});

/// The body, and how many bytes are left after it.
fn read(bytes: &[u8], most: usize) -> Result<(Vec<u8>, usize), String> {
    let mut reader = Pieces { bytes, most };
    match read_body(&mut reader, Framing::Chunked, MAX_BODY_BYTES) {
        Ok(body) => {
            assert!(body.len() <= MAX_BODY_BYTES && body.capacity() <= 4 * MAX_BODY_BYTES);
            Ok((body, reader.bytes.len()))
        }
        Err(error) => Err(refusal(&error)),
    }
}

fn plain_reading(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let line = line(&mut bytes)?;
        // A blank may stand before an extension.
        let digits = line.split(|&byte| byte == b';').next()?;
        let digits = digits.trim_ascii_end();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        body.extend(bytes.get(..size)?);
        bytes = bytes[size..].strip_prefix(b"\r\n")?;
    }
    while let trailer = line(&mut bytes)?
        && !trailer.is_empty()
    {
        trailer
            .iter()
            .position(|&byte| byte == b':')
            .filter(|&at| at > 0)?;
    }
    Some((body, bytes))
}

fn line<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let line = &bytes[..end];
    *bytes = &bytes[end + 2..];
    (!line.contains(&b'\n') && !line.contains(&b'\r')).then_some(line)
}
