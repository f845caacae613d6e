//! The crate's request reader, which is not public: its files again, in a module of the fuzz targets. Each target brings
//! `config` and `lock` besides, which those files find at the crate's root.

#![allow(dead_code, unreachable_pub, unused_imports)] // Each target uses a part of it.

#[path = "../../src/http/body.rs"]
mod body;
#[path = "../../src/http/head.rs"]
mod head;
#[path = "../../src/http/request.rs"]
mod request;
#[path = "../../src/http/target.rs"]
mod target;

use std::io::{self, BufRead, Read};

pub(crate) use body::read_body;
pub(crate) use head::{Framing, RequestError, Version};
pub(crate) use request::Request;

use crate::config::Config;

pub(crate) const MAX_BODY_BYTES: usize = 256;

pub(crate) fn config() -> Config {
    Config {
        max_request_line_bytes: 256,
        max_head_bytes: 1024,
        max_fields: 16,
        ..Config::default()
    }
}

/// A connection on which the bytes come in pieces of at most this size.
pub(crate) struct Pieces<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) most: usize,
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(&self.bytes[..self.bytes.len().min(self.most)])
    }

    fn consume(&mut self, amount: usize) {
        self.bytes = &self.bytes[amount..];
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

/// Status and reason of a refusal. Reading from memory has no other errors.
pub(crate) fn refusal(error: &RequestError) -> String {
    format!("{} {}", error.status.expect("no I/O error"), error.reason)
}
