//! A request body, read within limits: of the length that `Content-Length` gives, or in chunks (RFC 9112 sections 6 and 7).
//!
//! ```text
//! chunked-body    = *chunk last-chunk trailer-section CRLF
//! chunk           = chunk-size [ chunk-ext ] CRLF chunk-data CRLF
//! chunk-size      = 1*HEXDIG
//! last-chunk      = 1*("0") [ chunk-ext ] CRLF
//! trailer-section = *( field-line CRLF )
//!
//! 5;a=b\r\n       a size, and an extension that is skipped
//! hello\r\n
//! 0\r\n           the last chunk
//! \r\n            the end of an empty trailer section
//! ```

use std::io::{BufRead, Read};

use super::head::{
    Framing, RequestError, UNEXPECTED_END, is_token, is_value_byte, malformed, read_fields,
    read_line, refused,
};

/// Digits of a chunk size: as many as a `u64` has, so that none overflows. A digit after these counts as a malformed extension.
const MAX_SIZE_DIGITS: usize = 16;
/// Bytes of all chunk extensions of a body together. Known clients send none; an attacker can send any number.
const MAX_EXTENSION_BYTES: usize = 4096;
/// Maximum bytes and fields of the trailer section, which is read and dropped.
const TRAILER_LIMITS: (usize, usize) = (8192, 64);

/// Reads a whole body. The memory follows the bytes that have arrived, never the length that was announced. After the return
/// the reader stands at the first byte of the next request.
///
/// # Errors
///
/// For a body that is malformed, too large, too late or not whole. Every error is terminal: where the next request begins is
/// not known.
pub(crate) fn read_body(
    reader: &mut impl BufRead,
    framing: Framing,
    max_body_bytes: usize,
) -> Result<Vec<u8>, RequestError> {
    let mut body = Vec::new();
    if let Framing::Length(length) = framing {
        append(reader, length, max_body_bytes, &mut body)?;
        return Ok(body);
    }
    let too_long = malformed("chunk extensions are too long");
    let max_line_bytes = (MAX_SIZE_DIGITS + MAX_EXTENSION_BYTES + 2) as u64;
    let mut line = Vec::new();
    let mut extension_bytes = MAX_EXTENSION_BYTES;
    loop {
        if !read_line(&mut reader.take(max_line_bytes), &mut line, too_long)? {
            return Err(UNEXPECTED_END);
        }
        let (size, extension) = chunk_size(&line)?;
        // The limit is for all lines together (RFC 9112 section 7.1.1).
        extension_bytes = extension_bytes.checked_sub(extension).ok_or(too_long)?;
        if size == 0 {
            // `trailer-section = *( field-line CRLF )`, which a server may drop (RFC 9112 section 7.1.2).
            read_fields(reader, &mut line, TRAILER_LIMITS, &mut Vec::new())?;
            return Ok(body);
        }

        append(reader, size, max_body_bytes, &mut body)?;
        // Only the size says where the data ends; CRLF confirms it.
        line.clear();
        append(reader, 2, usize::MAX, &mut line)?;
        if line != b"\r\n" {
            return Err(malformed("chunk data does not end in CRLF"));
        }
    }
}

/// Parses `chunk-size [ chunk-ext ]`, where `chunk-size = 1*HEXDIG` (RFC 9112 section 7.1). Returns the size, and the length of
/// the extensions: `b"1f;a=b"` is `(31, 4)`.
pub(crate) fn chunk_size(line: &[u8]) -> Result<(u64, usize), RequestError> {
    let is_end = |byte: &u8| !byte.is_ascii_hexdigit();
    let end = line.iter().position(is_end).unwrap_or(line.len());
    let (digits, extensions) = line.split_at(end.min(MAX_SIZE_DIGITS));
    let size = u64::from_str_radix(str::from_utf8(digits).unwrap_or_default(), 16);
    match (size, after_extensions(extensions)) {
        (Ok(size), Some([])) if extensions.iter().copied().all(is_value_byte) => {
            Ok((size, extensions.len()))
        }
        _ => Err(malformed("chunk size or extension is malformed")),
    }
}

/// Skips `chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )` (RFC 9112 section 7.1.1). Returns the
/// bytes after the extensions, or `None` where one is malformed.
fn after_extensions(mut rest: &[u8]) -> Option<&[u8]> {
    while let [b';', after @ ..] = rest.trim_ascii_start() {
        rest = after_token(after.trim_ascii_start())?;
        if let [b'=', value @ ..] = rest.trim_ascii_start() {
            // `chunk-ext-val = token / quoted-string`
            rest = match value.trim_ascii_start() {
                [b'"', quoted @ ..] => after_quoted(quoted)?,
                token => after_token(token)?,
            };
        }
    }
    Some(rest)
}

/// Skips `token = 1*tchar` (RFC 9110 section 5.6.2).
fn after_token(text: &[u8]) -> Option<&[u8]> {
    let is_end = |byte: &u8| !is_token(&[*byte]);
    let end = text.iter().position(is_end).unwrap_or(text.len());
    (end > 0).then(|| &text[end..])
}

/// Skips the rest of `quoted-string = DQUOTE *( qdtext / quoted-pair ) DQUOTE` (RFC 9110 section 5.6.4).
fn after_quoted(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [b'"', after @ ..] => return Some(after),
            // `quoted-pair = "\" ( HTAB / SP / VCHAR / obs-text )`
            [b'\\', _, after @ ..] | [_, after @ ..] => after,
            [] => return None,
        }
    }
}

/// Appends the next `length` bytes to `body`, which never has more than `max_body_bytes`.
///
/// # Errors
///
/// 413 before anything is read, where the bytes do not fit; 400 where the connection ends before them.
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
        false => Err(UNEXPECTED_END),
    }
}
