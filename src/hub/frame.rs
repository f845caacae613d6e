//! Encoded events: each once as a chunk for all readers, and several in one write that may be partial.
//!
//! ```text
//! 1a CR LF  id: e-1 LF data: 0123456789 LF LF  CR LF
//!           └────────── the event ──────────┘
//! └───────────────── the chunk ────────────────────┘
//! ```
//!
//! A chunked stream sends the chunk. A close-delimited stream sends the event, which also goes into the history's file and to
//! code in this process. An event is encoded once for all readers that get it out of memory.
//!
//! Here a write of a batch of two events, 7 and 9, ends within the second:
//!
//! ```text
//!  batch    ├───── event 7 ─────┼───────── event 9 ─────────┤
//!  socket   ├──────────── written ───────────┤─── unsent ───┤     begun: 2, last: 9
//! ```
//!
//! The stream sends the unsent bytes before anything else, and its cursor is after event 9 already.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::event::Event;
use crate::http::Coding;
use crate::stream::Unsent;

/// An event's bytes as one chunk (RFC 9112 section 7.1), shared by all threads that send them. The bytes never change, so they
/// need no lock: a clone counts one reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The chunk's size, the event, and their line ends.
    chunk: Arc<[u8]>,
    /// Where the event begins, after the chunk size: at most 16 digits and a CRLF. It ends before the chunk's last CRLF.
    text: u8,
}

impl Frame {
    /// Encodes an event under an id of the hub's, or under its own id where `id` is `None`. `scratch` saves an allocation.
    pub(crate) fn encode(event: &Event, id: Option<&str>, scratch: &mut Vec<u8>) -> Frame {
        scratch.clear();
        event.encode(id, scratch);
        Frame::from_text(scratch)
    }

    /// Frames the text of an event, which is never empty: its blank line is included.
    pub(crate) fn from_text(text: &[u8]) -> Frame {
        // 16 digits and two CRLF.
        let mut chunk = Vec::with_capacity(text.len() + 20);
        Coding::Chunked.append(&mut chunk, &[text]);
        Frame {
            text: (chunk.len() - text.len() - 2) as u8,
            chunk: chunk.into(),
        }
    }

    /// Returns the bytes for a stream of this coding.
    pub(crate) fn bytes(&self, coding: Coding) -> &[u8] {
        &self.chunk[self.range(coding)]
    }

    /// Returns where the bytes for a stream of this coding are in the chunk.
    fn range(&self, coding: Coding) -> Range<usize> {
        match coding {
            Coding::Chunked => 0..self.chunk.len(),
            Coding::CloseDelimited => usize::from(self.text)..self.chunk.len() - 2,
        }
    }

    /// Returns the size of the chunk in bytes.
    pub(crate) fn len(&self) -> usize {
        self.chunk.len()
    }

    /// Returns the same event for code in this process; shares the bytes.
    pub(crate) fn event(&self) -> Event {
        Event::shared(Arc::clone(&self.chunk), self.range(Coding::CloseDelimited))
    }

    /// Returns the event without its first `sent` bytes; shares the others.
    fn unsent(&self, coding: Coding, sent: usize) -> Unsent {
        let mut rest = self.range(coding);
        rest.start += sent;
        Unsent::new(Arc::clone(&self.chunk), rest)
    }
}

/// Events with their sequence numbers, in ascending order. The numbers may have holes: events of other topics.
pub(crate) type Events = Vec<(u64, Frame)>;

/// Events that leave in one write. All writers share the batch of a group; a reader that catches up makes a batch for itself.
#[derive(Debug)]
pub(crate) struct Batch {
    /// How the streams that get the batch are coded, all in the same way.
    coding: Coding,
    /// The events, which share their bytes with the log.
    events: Events,
    /// All bytes, put together by the first thread that needs them. A single event needs no copy.
    joined: OnceLock<Vec<u8>>,
}

/// How far a write of a [`Batch`] came. The events before `last` were written whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WriteProgress {
    /// The number of events that have begun, including the first one that did not fit.
    pub(crate) begun: u64,
    /// The sequence number of the last of these events.
    pub(crate) last: u64,
    /// The rest of that event, where the write was partial.
    pub(crate) unsent: Option<Unsent>,
}

impl Batch {
    /// Makes a batch of events for streams of one coding.
    pub(crate) fn new(events: Events, coding: Coding) -> Batch {
        Batch {
            coding,
            events,
            joined: OnceLock::new(),
        }
    }

    /// Returns the number of events.
    pub(crate) fn len(&self) -> u64 {
        self.events.len() as u64
    }

    /// Returns the sequence number of the last event; 0 for an empty batch.
    pub(crate) fn last(&self) -> u64 {
        self.events.last().map_or(0, |(sequence, _)| *sequence)
    }

    /// Returns the bytes of all events, one after the other.
    pub(crate) fn bytes(&self) -> &[u8] {
        if let [(_, frame)] = &self.events[..] {
            return frame.bytes(self.coding);
        }
        self.joined.get_or_init(|| {
            let frames = self.events.iter().map(|(_, frame)| frame);
            let all: Vec<&[u8]> = frames.map(|frame| frame.bytes(self.coding)).collect();
            all.concat()
        })
    }

    /// Returns how far a write of `written` bytes came. A write that ends between two events has begun the second, of which all
    /// bytes are unsent.
    pub(crate) fn progress(&self, written: usize) -> WriteProgress {
        let mut before = 0;
        for (begun, (sequence, frame)) in (1..).zip(&self.events) {
            let len = frame.bytes(self.coding).len();
            if written < before + len {
                return WriteProgress {
                    begun,
                    last: *sequence,
                    unsent: Some(frame.unsent(self.coding, written - before)),
                };
            }
            before += len;
        }
        WriteProgress {
            begun: self.len(),
            last: self.last(),
            unsent: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Frame {
        Frame::from_text(text.as_bytes())
    }

    #[test]
    fn a_frame_is_one_chunk_around_the_event() {
        let event = Event::data("0123456789");
        let frame = Frame::encode(&event, Some("e-1"), &mut Vec::new());
        assert_eq!(
            frame.bytes(Coding::CloseDelimited),
            b"id: e-1\ndata: 0123456789\n\n"
        );
        assert_eq!(
            frame.bytes(Coding::Chunked),
            b"1a\r\nid: e-1\ndata: 0123456789\n\n\r\n"
        );
        assert_eq!(frame.event().to_string(), "id: e-1\ndata: 0123456789\n\n");
    }

    #[test]
    fn a_write_breaks_off_anywhere() {
        let texts = [frame("a"), frame("bc")]; // Six bytes, then seven.
        let batch = Batch::new(
            vec![(7, texts[0].clone()), (9, texts[1].clone())],
            Coding::Chunked,
        );
        assert_eq!(batch.bytes(), b"1\r\na\r\n2\r\nbc\r\n");
        #[track_caller]
        fn check(batch: &Batch, written: usize, begun: u64, last: u64, rest: &[u8]) {
            let reached = batch.progress(written);
            assert_eq!((reached.begun, reached.last), (begun, last));
            assert_eq!(reached.unsent.unwrap().rest(), rest);
        }
        check(&batch, 0, 1, 7, b"1\r\na\r\n"); // Nothing was taken: the first is still whole.
        check(&batch, 1, 1, 7, b"\r\na\r\n"); // In the first chunk's size.
        check(&batch, 5, 1, 7, b"\n"); // Before its last byte.
        check(&batch, 6, 2, 9, b"2\r\nbc\r\n"); // Between the two.
        check(&batch, 7, 2, 9, b"\r\nbc\r\n"); // In the second.
        check(&batch, 12, 2, 9, b"\n"); // Before the very last byte.
        let all = batch.progress(13);
        assert_eq!((all.begun, all.last, all.unsent), (2, 9, None));
    }

    /// A socket that takes so many bytes and then would block, for every number of bytes.
    #[test]
    fn nothing_is_lost_wherever_a_write_breaks_off() {
        let check = |sizes: &[usize], step: usize| {
            let frames = sizes.iter().map(|size| frame(&"x".repeat(*size)));
            let events: Vec<(u64, Frame)> = (1..).zip(frames).collect();
            let batch = Batch::new(events.clone(), Coding::Chunked);
            let whole = batch.bytes();
            for taken in (0..whole.len()).step_by(step) {
                let reached = batch.progress(taken);
                let mut unsent = reached.unsent.unwrap();
                let mut sent = whole[..taken].to_vec();
                // The rest goes out in two parts.
                let half = unsent.rest().len() / 2;
                sent.extend_from_slice(&unsent.rest()[..half]);
                unsent.advance(half);
                sent.extend_from_slice(unsent.rest());
                assert_eq!(reached.last, reached.begun);
                for (_, frame) in &events[reached.begun as usize..] {
                    sent.extend_from_slice(frame.bytes(Coding::Chunked));
                }
                assert!(sent == whole, "{taken} of {sizes:?}");
            }
            assert_eq!(batch.progress(whole.len()).unsent, None);
        };
        check(&[1, 15, 16, 255, 256, 3000], 1);
        check(&[1, 1024 * 1024, 1], 65_521);
    }
}
