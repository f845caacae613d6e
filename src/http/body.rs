//! A request body, within limits (RFC 9112 sections 6 and 7): as many bytes as `Content-Length` says, or chunks.

use std::io::{BufRead, Read};

use super::head::{
    Framing, RequestError, cut, is_token, is_value_byte, malformed, read_fields, read_line, refused,
};

/// A chunk size's digits: those of a `u64`, which so cannot overflow.
const MAX_SIZE_DIGITS: usize = 16;
/// All chunk extensions of a body together. Nobody uses them but to keep a server busy.
const MAX_EXTENSION_BYTES: usize = 4096;
/// The trailer section, which nothing here uses.
const MAX_TRAILER_BYTES: usize = 8192;
const MAX_TRAILER_FIELDS: usize = 64;

/// Reads a whole body. What it reserves follows what has come, never what was announced.
///
/// # Errors
///
/// Every error is terminal: what follows on the connection has no known meaning any more.
pub(crate) fn read_body(
    reader: &mut impl BufRead,
    framing: Framing,
    max_body_bytes: usize,
) -> Result<Vec<u8>, RequestError> {
    let mut body = Vec::new();
    match framing {
        Framing::Length(length) => append(reader, length, max_body_bytes, &mut body)?,
        Framing::Chunked => read_chunks(reader, max_body_bytes, &mut body)?,
    }
    Ok(body)
}

fn read_chunks(
    reader: &mut impl BufRead,
    max_body_bytes: usize,
    body: &mut Vec<u8>,
) -> Result<(), RequestError> {
    let too_long = malformed("chunk extensions are too long");
    let max_line_bytes = (MAX_SIZE_DIGITS + MAX_EXTENSION_BYTES + 2) as u64;
    let mut line = Vec::new();
    let mut extension_bytes = MAX_EXTENSION_BYTES;
    loop {
        if !read_line(&mut reader.take(max_line_bytes), &mut line, too_long)? {
            return Err(cut());
        }
        let (size, extension) = chunk_size(&line)?;
        // The total is bounded, not the one line (RFC 9112 section 7.1.1).
        extension_bytes = extension_bytes.checked_sub(extension).ok_or(too_long)?;
        if size == 0 {
            // Trailers are checked as fields are, and dropped (RFC 9112 section 7.1.2).
            return read_fields(
                reader,
                &mut line,
                MAX_TRAILER_BYTES,
                MAX_TRAILER_FIELDS,
                &mut |_, _| (),
            );
        }

        append(reader, size, max_body_bytes, body)?;
        // The data says nothing about its end: only the size does, and CRLF confirms it (RFC 9112 section 7.1).
        line.clear();
        append(reader, 2, usize::MAX, &mut line)?;
        if line != b"\r\n" {
            return Err(malformed("chunk data does not end in CRLF"));
        }
    }
}

/// The size that a chunk's first line gives, and how long its extensions are.
fn chunk_size(line: &[u8]) -> Result<(u64, usize), RequestError> {
    let end = line
        .iter()
        .position(|&byte| byte == b';')
        .unwrap_or(line.len());
    let (digits, extension) = line.split_at(end);
    // `1*HEXDIG` (RFC 9112 section 7.1), which `from_str_radix` alone would not insist on. The white space that RFC 9110
    // section 5.6.3 would have removed before an extension is refused: no client sends it, those who smuggle do.
    let size = str::from_utf8(digits)
        .ok()
        .filter(|digits| digits.len() <= MAX_SIZE_DIGITS)
        .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let Some(size) = size else {
        let reason = "chunk size is not one to sixteen hexadecimal digits";
        return Err(malformed(reason));
    };
    // Extensions are ignored (RFC 9112 section 7.1.1), but a CR or LF in one may be a line end to somebody else.
    if !extension.iter().copied().all(is_value_byte) {
        return Err(malformed("chunk extension holds a control character"));
    }
    // To who reads quoted strings, the line would go on behind an open one. An escape is refused as well: who does not
    // know it counts quotes otherwise.
    let quotes = extension.iter().filter(|&&byte| byte == b'"').count();
    if quotes % 2 == 1 || extension.contains(&b'\\') {
        let reason = "chunk extension holds an open quote or a backslash";
        return Err(malformed(reason));
    }
    if let [b';', rest @ ..] = extension {
        let mut parts = rest
            .trim_ascii_start()
            .split(|byte| b" \t=;".contains(byte));
        if !parts.next().is_some_and(is_token) {
            return Err(malformed("chunk extension has no name"));
        }
    }
    Ok((size, extension.len()))
}

/// Appends the next `length` bytes.
fn append(
    reader: &mut impl BufRead,
    length: u64,
    max_body_bytes: usize,
    body: &mut Vec<u8>,
) -> Result<(), RequestError> {
    if length > (max_body_bytes - body.len()) as u64 {
        return Err(refused(413, "body is too large"));
    }
    match reader.take(length).read_to_end(body)? as u64 == length {
        true => Ok(()),
        false => Err(cut()),
    }
}
