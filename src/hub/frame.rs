//! Encoded events: each once as a chunk of its own, and several of them as one write that can break off anywhere.

use std::io::Write;
use std::sync::{Arc, OnceLock};

use crate::event::Event;
use crate::http::Coding;

/// An event's bytes as one chunk, shared by everyone who sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    chunk: Arc<[u8]>,
    /// Where the bare event begins, behind the chunk size; it ends before the chunk's CRLF.
    text: u8,
}

impl Frame {
    /// Encodes an event under an id of the hub's, or under its own where `id` is `None`. `scratch` is only there to be
    /// used again.
    pub(crate) fn encode(event: &Event, id: Option<&str>, scratch: &mut Vec<u8>) -> Frame {
        scratch.clear();
        match id {
            Some(id) => event.encode_with_id(id, scratch),
            None => event.encode(scratch),
        }
        Frame::from_text(scratch)
    }

    /// Frames the text of an event, blank line included.
    pub(crate) fn from_text(text: &[u8]) -> Frame {
        let mut size = [0; 18];
        let mut rest = &mut size[..];
        // 16 digits and a line end fit; the array is that long.
        let _ = write!(rest, "{:x}\r\n", text.len());
        let start = 18 - rest.len();
        let pieces = [&size[..start], text, b"\r\n"];
        Frame {
            chunk: pieces.concat().into(),
            text: start as u8,
        }
    }

    /// The bytes for a stream of this coding.
    pub(crate) fn bytes(&self, coding: Coding) -> &[u8] {
        match coding {
            Coding::Chunked => &self.chunk,
            Coding::Bare => &self.chunk[usize::from(self.text)..self.chunk.len() - 2],
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.chunk.len()
    }

    /// The same event for code in this process; shares the bytes.
    pub(crate) fn event(&self) -> Event {
        let text = usize::from(self.text)..self.chunk.len() - 2;
        Event::shared(Arc::clone(&self.chunk), text)
    }
}

/// Events that leave in one write.
#[derive(Debug)]
pub(crate) struct Batch {
    coding: Coding,
    events: Vec<(u64, Frame)>,
    /// All bytes, put together once by whoever needs them first; a single event needs no copy.
    joined: OnceLock<Vec<u8>>,
}

/// Where a write of a [`Batch`] broke off: in an event, be it before its first byte.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BrokenOff {
    /// Events up to and with the torn one.
    pub(crate) begun: usize,
    /// The sequence number of the torn one.
    pub(crate) last: u64,
    pub(crate) torn: Torn,
}

/// What is left to send of an event, before anything else may be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Torn {
    bytes: TornBytes,
    from: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum TornBytes {
    Frame(Frame, Coding),
    /// What is no event: the head of a response, a heartbeat.
    Own(Vec<u8>),
}

impl Batch {
    pub(crate) fn new(events: Vec<(u64, Frame)>, coding: Coding) -> Batch {
        Batch {
            coding,
            events,
            joined: OnceLock::new(),
        }
    }

    /// How many events.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn last(&self) -> Option<u64> {
        self.events.last().map(|(sequence, _)| *sequence)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        if let [(_, frame)] = &self.events[..] {
            return frame.bytes(self.coding);
        }
        self.joined.get_or_init(|| {
            let all: Vec<&[u8]> = self
                .events
                .iter()
                .map(|(_, frame)| frame.bytes(self.coding))
                .collect();
            all.concat()
        })
    }

    /// Finds the event in which a write of `written` bytes broke off, unless it took all.
    pub(crate) fn broken_off(&self, written: usize) -> Option<BrokenOff> {
        let mut before = 0;
        for (index, (sequence, frame)) in self.events.iter().enumerate() {
            let len = frame.bytes(self.coding).len();
            if written < before + len {
                let torn = Torn::frame(frame.clone(), self.coding, written - before);
                return Some(BrokenOff {
                    begun: index + 1,
                    last: *sequence,
                    torn,
                });
            }
            before += len;
        }
        None
    }
}

impl Torn {
    pub(crate) fn frame(frame: Frame, coding: Coding, from: usize) -> Torn {
        Torn {
            bytes: TornBytes::Frame(frame, coding),
            from,
        }
    }

    pub(crate) fn own(bytes: Vec<u8>) -> Torn {
        Torn {
            bytes: TornBytes::Own(bytes),
            from: 0,
        }
    }

    /// What is still to be written.
    pub(crate) fn rest(&self) -> &[u8] {
        match &self.bytes {
            TornBytes::Frame(frame, coding) => &frame.bytes(*coding)[self.from..],
            TornBytes::Own(bytes) => &bytes[self.from..],
        }
    }

    /// Notes that `n` more bytes were written.
    pub(crate) fn advance(&mut self, n: usize) {
        self.from += n;
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
        assert_eq!(frame.bytes(Coding::Bare), b"id: e-1\ndata: 0123456789\n\n");
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
        fn check(batch: &Batch, written: usize, begun: usize, last: u64, rest: &[u8]) {
            let broken = batch.broken_off(written).unwrap();
            assert_eq!(
                (broken.begun, broken.last, broken.torn.rest()),
                (begun, last, rest)
            );
        }
        check(&batch, 0, 1, 7, b"1\r\na\r\n"); // Nothing was taken: the first is still whole.
        check(&batch, 1, 1, 7, b"\r\na\r\n"); // In the first chunk's size.
        check(&batch, 5, 1, 7, b"\n"); // Before its last byte.
        check(&batch, 6, 2, 9, b"2\r\nbc\r\n"); // Between the two.
        check(&batch, 7, 2, 9, b"\r\nbc\r\n"); // In the second.
        check(&batch, 12, 2, 9, b"\n"); // Before the very last byte.
        assert_eq!(batch.broken_off(13), None); // All of it.
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
                let broken = batch.broken_off(taken).unwrap();
                let mut torn = broken.torn;
                let mut sent = whole[..taken].to_vec();
                // The rest goes out in two parts.
                let half = torn.rest().len() / 2;
                sent.extend_from_slice(&torn.rest()[..half]);
                torn.advance(half);
                sent.extend_from_slice(torn.rest());
                assert_eq!(broken.last, broken.begun as u64);
                for (_, frame) in &events[broken.begun..] {
                    sent.extend_from_slice(frame.bytes(Coding::Chunked));
                }
                assert!(sent == whole, "{taken} of {sizes:?}");
            }
            assert_eq!(batch.broken_off(whole.len()), None);
        };
        check(&[1, 15, 16, 255, 256, 3000], 1);
        check(&[1, 1024 * 1024, 1], 65_521);
    }
}
