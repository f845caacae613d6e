//! Writes the chunked transfer coding (RFC 9112 section 7.1), without extensions and trailers:
//!
//! ```text
//! chunked-body = *chunk last-chunk CRLF
//! chunk        = chunk-size CRLF chunk-data CRLF
//! last-chunk   = "0" CRLF
//!
//! 9\r\n            the size in hexadecimal digits
//! data: a\n\n\r\n  nine bytes and CRLF
//! 0\r\n\r\n        the end; without it the client knows that the stream broke off
//! ```

use std::io::Write;

/// How a client finds the end of a stream. Decided once, when the head of the response is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// By the last chunk, for HTTP/1.1. Each piece of the stream is a chunk.
    Chunked,
    /// By the end of the connection, for HTTP/1.0 (RFC 9112 section 6.3). The bytes have no framing, so the client cannot tell
    /// a whole stream from one that broke off.
    CloseDelimited,
}

impl Coding {
    /// Appends one piece of a stream, given in parts, which spares the caller a copy of them. An empty piece is left out: a
    /// chunk of size zero would end the body.
    pub(crate) fn append(self, out: &mut Vec<u8>, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len == 0 {
            return;
        }
        if self == Coding::Chunked {
            // Writing to a vector cannot fail.
            let _ = write!(out, "{len:x}\r\n");
        }
        for part in parts {
            out.extend_from_slice(part);
        }
        if self == Coding::Chunked {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Appends the end of a stream: `last-chunk trailer-section CRLF`, with an empty trailer section. A close-delimited stream
    /// has no bytes for its end.
    pub(crate) fn append_end(self, out: &mut Vec<u8>) {
        if self == Coding::Chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(coding: Coding, pieces: &[&str], expected: &str) {
        let mut out = Vec::new();
        for piece in pieces {
            coding.append(&mut out, &[piece.as_bytes()]);
        }
        coding.append_end(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn each_piece_is_one_chunk() {
        check(
            Coding::Chunked,
            &["data: a\n\n"],
            "9\r\ndata: a\n\n\r\n0\r\n\r\n",
        ); // Size in hex, data, CRLF.
        check(
            Coding::Chunked,
            &["0123456789abcdef", "x"],
            "10\r\n0123456789abcdef\r\n1\r\nx\r\n0\r\n\r\n",
        ); // 16 is 10.
        check(Coding::Chunked, &["", "x"], "1\r\nx\r\n0\r\n\r\n"); // An empty piece would end the body.
        check(Coding::CloseDelimited, &["a", "", "b"], "ab"); // HTTP/1.0 has no chunks.
    }
}
