//! The records of a history's file, which is an event stream like any other, with a comment before each event.
//!
//! ```text
//! : epoch 5c0f9a3be1d27764 from 1 8a08aa7f01c18f19
//!
//! : 1 3516dbc49fe79101 36 news
//! id: 5c0f9a3be1d27764-1
//! data: hello
//!
//! ```
//!
//! The comment has the event's sequence, a checksum, the event's length in bytes, and its topics with tabs between them.
//! `cat`, `grep` and every parser of event streams can read the file.
//!
//! ```abnf
//! file   = *(epoch / record)
//! epoch  = ": epoch " 16HEXDIG " from " 1*DIGIT " " sum LF LF
//! record = ": " 1*DIGIT " " sum " " 1*DIGIT " " topic *(HTAB topic) LF event
//! sum    = 16HEXDIG
//! ```
//!
//! Anything else is damage, which is passed over: the next record begins after a blank line. A comment that was published
//! within an event may have the form of a record. It is not taken for one, since only the end of an event is a blank line. A
//! record is whole if its comment is, byte for byte, the one that its text would get.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::sync::Arc;

use super::frame::Frame;
use super::id::{self, EventId};
use super::log::{Epoch, Numbered};
use super::topics;
use crate::http::Coding;

/// Maximum length of a comment line: 64 topics of 256 bytes, and the numbers.
const MAX_LINE_BYTES: u64 = 32 * 1024;

/// Bytes that are read at a time, unless an event needs more.
const BLOCK_BYTES: usize = 64 * 1024;

/// A comment line of ours, with the event that follows it.
pub(crate) enum Record {
    /// An event, as it goes back into the log.
    Event(Numbered),
    /// The events from here on have this epoch, until the next such line.
    Epoch(Epoch),
}

/// Reads the records of a file, in order. Anything else is passed over.
pub(crate) struct Records {
    /// Buffered, since most records are small.
    file: BufReader<File>,
    /// Where the last record ends.
    pub(crate) position: u64,
}

impl Records {
    /// Reads from the beginning of a file.
    pub(crate) fn of(file: File) -> Records {
        let file = BufReader::with_capacity(BLOCK_BYTES, file);
        Records { file, position: 0 }
    }

    /// Reads the next whole record, and returns where it begins: after the end of the last record, where there is damage between
    /// them. Returns `None` where the file has no more records.
    pub(crate) fn next(&mut self) -> io::Result<Option<(u64, Record)>> {
        let mut begin = self.position;
        loop {
            if let Some((record, len)) = read_record(&mut self.file)? {
                self.position = begin + len;
                return Ok(Some((begin, record)));
            }
            // A record begins after a blank line, as no comment within an event does.
            let here = self.file.stream_position()?;
            self.file.seek_relative(begin.wrapping_sub(here) as i64)?;
            loop {
                // No line is in memory, since a damaged one has any length.
                let len = self.file.skip_until(b'\n')?;
                begin += len as u64;
                match len {
                    0 => return Ok(None),
                    1 => break,
                    _ => {}
                }
            }
        }
    }
}

/// Returns whether a file without a whole record can be a history that a crash or a power failure stopped at its beginning: the
/// file has a part of the first line, or zeros. Any other file is somebody else's.
pub(crate) fn may_be_new(file: File) -> io::Result<bool> {
    let is_short = file.metadata()?.len() < epoch_line((0, 0)).len() as u64;
    let mut start = Vec::new();
    file.take(8).read_to_end(&mut start)?;
    let is_part = is_short && b": epoch ".starts_with(&start);
    Ok(is_part || start.iter().all(|byte| *byte == 0))
}

/// Reads the record at the file's position. Returns the record and its length, or `None` when none is whole there.
fn read_record(file: &mut BufReader<File>) -> io::Result<Option<(Record, u64)>> {
    let mut line = Vec::new();
    file.take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    let line = str::from_utf8(&line).ok();
    let line = line.filter(|line| line.starts_with(": ")).unwrap_or("");
    let len = match line.split(' ').nth(3) {
        Some("from") => 1, // The blank line after the line of an epoch.
        len => len.and_then(|len| len.parse().ok()).unwrap_or(0),
    };
    // At most a block, since the length may be damaged.
    let mut text = Vec::with_capacity(BLOCK_BYTES.min(len as usize));
    file.take(len).read_to_end(&mut text)?;
    let epoch = parse_epoch(line).filter(|_| text == b"\n");
    let event = || parse_event(line, &text).map(Record::Event);
    let record = epoch.map(Record::Epoch).or_else(event);
    Ok(record.map(|record| (record, (line.len() + text.len()) as u64)))
}

/// Reads an event, if its line is the one that its text would get: then neither is damaged.
fn parse_event(line: &str, text: &[u8]) -> Option<Numbered> {
    let mut fields = line.strip_suffix('\n')?.splitn(5, ' ').skip(1);
    let sequence = fields.next()?.parse().ok()?;
    let names = fields.nth(2)?;
    if line != event_line(sequence, names, text) {
        return None;
    }
    let id = wire_id(text);
    let own_id = id.filter(|id| id::check_callers(id).is_ok());
    Some(Numbered {
        sequence,
        topics: topics::check(names.split('\t').collect()).ok()?,
        frame: Frame::from_text(text),
        own_id: own_id.map(Arc::from),
        finishes: id.is_some_and(id::is_ending),
    })
}

/// Returns the comment line before an event's text.
fn event_line(sequence: u64, names: &str, text: &[u8]) -> String {
    let (sum, len) = (checksum(sequence, names, text), text.len());
    format!(": {sequence} {sum:016x} {len} {names}\n")
}

/// Appends an event's record.
pub(crate) fn append_event(out: &mut Vec<u8>, event: &Numbered) {
    let names: Vec<&str> = event.topics.iter().map(|name| &**name).collect();
    let text = event.frame.bytes(Coding::CloseDelimited);
    out.extend_from_slice(event_line(event.sequence, &names.join("\t"), text).as_bytes());
    out.extend_from_slice(text);
}

/// Returns the record with which each epoch and each segment begins.
pub(crate) fn epoch_line((epoch, first): Epoch) -> String {
    let sum = checksum(first, "epoch", &epoch.to_be_bytes());
    format!(": epoch {epoch:016x} from {first} {sum:016x}\n\n")
}

/// Reads an epoch, if its line is exactly the one that it would get.
fn parse_epoch(line: &str) -> Option<Epoch> {
    let (epoch, rest) = line.strip_prefix(": epoch ")?.split_once(" from ")?;
    let (first, _) = rest.split_once(' ')?;
    let epoch = (u64::from_str_radix(epoch, 16).ok()?, first.parse().ok()?);
    (epoch_line(epoch).strip_suffix('\n')? == line).then_some(epoch)
}

/// Returns the epoch in an event's id, where the hub gave the id.
pub(crate) fn epoch_in_id(event: &Numbered) -> Option<u64> {
    let id = wire_id(event.frame.bytes(Coding::CloseDelimited));
    id.and_then(EventId::parse).map(|id| id.epoch)
}

/// Returns the id of an event on the wire.
fn wire_id(text: &[u8]) -> Option<&str> {
    let line = text.split(|byte| *byte == b'\n').next()?;
    str::from_utf8(line.strip_prefix(b"id: ")?).ok()
}

/// Computes FNV-1a of 64 bits over all parts of a record. One damaged byte always changes the checksum; any other damage
/// leaves it unchanged once in 2^64 times.
fn checksum(sequence: u64, names: &str, text: &[u8]) -> u64 {
    let parts = [&sequence.to_be_bytes()[..], names.as_bytes(), b"\n", text];
    let bytes = parts.into_iter().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
