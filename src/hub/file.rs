//! The log's file: an event stream like any other, with a comment in front of each event that says what recovery needs.
//!
//! ```text
//! : epoch 5c0f9a3be1d27764 from 1
//!
//! : 1 8c2f01aa 41 news
//! id: 5c0f9a3be1d27764-1
//! data: hello
//!
//! ```
//!
//! The comment holds the sequence number, a checksum (CRC-32 of what follows in the line's other fields and of the
//! event), the event's length in bytes, and its topics, divided by tabs. `cat`, `grep` and every parser of event streams
//! can read the file. An event is there when it is whole: what a crash leaves of the last one is cut off.
//!
//! The newest segment has the path that was asked for; a full one is renamed to that path and its first sequence number.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::config::{Durability, FileHistory};
use super::frame::Frame;
use super::log::Numbered;
use super::topics::{self, TopicSet};
use crate::http::Coding;

/// Longest comment line: 64 topics of 256 bytes, and the numbers.
const MAX_LINE_BYTES: u64 = 32 * 1024;

/// An epoch and its first sequence number. It ends where the next one begins.
pub(crate) type Epoch = (u64, u64);

/// What the file held when it was opened.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    pub(crate) epochs: Vec<Epoch>,
    /// The last number in use.
    pub(crate) head: u64,
    /// The last number that the file no longer has.
    pub(crate) floor: u64,
}

/// The segments there are, for those who read them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segments(Arc<Mutex<VecDeque<Segment>>>);

#[derive(Clone, Debug)]
struct Segment {
    path: PathBuf,
    first: u64,
    bytes: u64,
    begun: SystemTime,
}

/// The writing end, owned by the hub thread.
#[derive(Debug)]
pub(crate) struct Store {
    config: FileHistory,
    /// Locked for as long as the store lives.
    _lock: File,
    file: File,
    /// Where the last whole event ends; what lies behind is cut off before the next append.
    good: u64,
    torn: bool,
    epoch: Epoch,
    next: u64,
    segments: Segments,
}

impl Store {
    /// Opens or creates the file, gives each event that it holds to `keep`, in order, and begins a new epoch.
    ///
    /// # Errors
    ///
    /// What the system says; `WouldBlock` when another process has the file, `InvalidData` when it is something else.
    pub(crate) fn open(
        config: FileHistory,
        epoch: u64,
        report: &dyn Fn(&str),
        mut keep: impl FnMut(Numbered),
    ) -> io::Result<(Store, Recovered)> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(with_suffix(&config.path, "lock"))?;
        lock.try_lock().map_err(|error| {
            let error = io::Error::from(error);
            let text = format!(
                "{} is in use by another process: {error}",
                config.path.display()
            );
            io::Error::new(error.kind(), text)
        })?;
        let segments = Segments::default();
        let mut recovered = Recovered::default();
        let mut paths = older_segments(&config.path)?;
        paths.push(config.path.clone());
        for path in &paths {
            if path.exists() {
                let newest = *path == config.path;
                recover(path, newest, &mut recovered, &segments, report, &mut keep)?;
            }
        }
        // No number that was given out is given out again, also where its event is damaged.
        recovered.head = recovered.head.max(recovered.floor);
        recovered.epochs.push((epoch, recovered.head + 1));
        let epoch = (epoch, recovered.head + 1);
        let (file, good) = open_segment(&config.path)?;
        let mut store = Store {
            config,
            _lock: lock,
            file,
            good,
            torn: false,
            epoch,
            next: epoch.1,
            segments,
        };
        if good == 0 {
            store.note_segment();
        }
        store.write(epoch_line(epoch).as_bytes())?;
        Ok((store, recovered))
    }

    pub(crate) fn segments(&self) -> Segments {
        self.segments.clone()
    }

    /// Appends a round with one write and, where that is asked for, one sync. Says up to which number the file has been
    /// cut off at its old end.
    ///
    /// # Errors
    ///
    /// What the system says; then nothing of the round is in the file.
    pub(crate) fn append(&mut self, round: &[Numbered]) -> io::Result<Option<u64>> {
        let floor = self.make_room()?;
        let mut bytes = Vec::new();
        for event in round {
            append_record(&mut bytes, event);
        }
        self.write(&bytes)?;
        self.next = round.last().map_or(self.next, |event| event.sequence + 1);
        Ok(floor)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.good)?;
            self.torn = false;
        }
        self.torn = true;
        self.file.write_all(bytes)?;
        if self.config.durability == Durability::Sync {
            self.file.sync_data()?;
        }
        self.torn = false;
        self.good += bytes.len() as u64;
        if let Some(newest) = self.segments.lock().back_mut() {
            newest.bytes = self.good;
        }
        Ok(())
    }

    /// Begins a new segment where the old one is full or gone, and removes those that are too many or too old.
    fn make_room(&mut self) -> io::Result<Option<u64>> {
        let path = self.config.path.clone();
        let gone = !path.try_exists()?;
        if !gone && self.good < self.config.segment_bytes {
            return Ok(None);
        }
        if !gone {
            let first = self.segments.lock().back().map_or(1, |newest| newest.first);
            let full = with_suffix(&path, &format!("{first:020}"));
            fs::rename(&path, &full)?;
            if let Some(newest) = self.segments.lock().back_mut() {
                newest.path = full;
            }
        }
        (self.file, self.good) = open_segment(&path)?;
        self.torn = false;
        let mut floor = None;
        if gone {
            // Nobody can read what was removed under our feet.
            let mut segments = self.segments.lock();
            segments.pop_back();
            floor = Some(self.next - 1);
        }
        self.note_segment();
        self.write(epoch_line(self.epoch).as_bytes())?;
        if self.config.durability == Durability::Sync {
            sync_folder(&path)?;
        }
        Ok(floor.max(self.remove_old()))
    }

    fn note_segment(&mut self) {
        self.segments.lock().push_back(Segment {
            path: self.config.path.clone(),
            first: self.next,
            bytes: 0,
            begun: SystemTime::now(),
        });
    }

    fn remove_old(&self) -> Option<u64> {
        let mut floor = None;
        let mut segments = self.segments.lock();
        while segments.len() > 1 {
            let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
            // A segment is as old as its last event, which is when the next one began.
            let age = segments[1].begun.elapsed().unwrap_or_default();
            let old = self.config.age.is_some_and(|most| age > most);
            if bytes <= self.config.bytes && !old {
                break;
            }
            // One that cannot be removed is tried again with the next segment.
            if fs::remove_file(&segments[0].path).is_err() && segments[0].path.exists() {
                break;
            }
            segments.pop_front();
            floor = Some(segments[0].first - 1);
        }
        floor
    }
}

impl Segments {
    /// Nothing that runs under this lock can leave it half changed.
    fn lock(&self) -> MutexGuard<'_, VecDeque<Segment>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment that has, or would have, the event behind a cursor.
    fn behind(&self, cursor: u64) -> Option<PathBuf> {
        let segments = self.lock();
        let holds = segments
            .iter()
            .rev()
            .find(|segment| segment.first <= cursor + 1);
        holds
            .or(segments.front())
            .map(|segment| segment.path.clone())
    }
}

/// Reads events from the segments, for a reader whose cursor is older than what memory holds.
#[derive(Debug)]
pub(crate) struct DiskReader {
    segments: Segments,
    records: Option<Records>,
    /// Read, but perhaps not sent.
    events: Vec<(u64, Frame)>,
    /// All up to here have been read.
    reached: u64,
}

impl DiskReader {
    pub(crate) fn new(segments: &Segments) -> DiskReader {
        DiskReader {
            segments: segments.clone(),
            records: None,
            events: Vec::new(),
            reached: 0,
        }
    }

    /// The events of these topics behind `cursor` and up to `head`, at most about `max_bytes` or one event. `None` when
    /// the file has nothing more.
    pub(crate) fn read(
        &mut self,
        topics: &TopicSet,
        cursor: u64,
        head: u64,
        max_bytes: usize,
    ) -> io::Result<Option<Scanned>> {
        self.events.retain(|(sequence, _)| *sequence > cursor);
        self.reached = self.reached.max(cursor);
        let (mut bytes, mut scanned) = (0, 0);
        while self.events.is_empty() || bytes > 0 {
            if bytes >= max_bytes || scanned >= 16 * max_bytes || self.reached >= head {
                break;
            }
            let Some(record) = self.next()? else { break };
            scanned += record.text.len();
            self.reached = record.sequence;
            if record.topics.iter().any(|name| topics.contains(name)) {
                let frame = Frame::from_text(&record.text);
                bytes += frame.len();
                self.events.push((record.sequence, frame));
            }
        }
        Ok((self.reached > cursor).then(|| Scanned {
            events: self.events.clone(),
            reached: self.reached,
        }))
    }

    /// The next record behind what has been read, in this segment or the next one.
    fn next(&mut self) -> io::Result<Option<Record>> {
        for _ in 0..2 {
            while let Some(records) = &mut self.records
                && let Some(record) = records.next_record()?
            {
                if record.sequence > self.reached {
                    return Ok(Some(record));
                }
            }
            let Some(path) = self.segments.behind(self.reached) else {
                return Ok(None);
            };
            self.records = Some(Records::open(&path)?);
        }
        Ok(None)
    }
}

/// What a reader gets out of the file at a time.
#[derive(Debug)]
pub(crate) struct Scanned {
    pub(crate) events: Vec<(u64, Frame)>,
    /// How far that has come: past events of other topics, too.
    pub(crate) reached: u64,
}

/// One event as the file has it.
struct Record {
    sequence: u64,
    topics: TopicSet,
    text: Vec<u8>,
}

/// What comes next in a segment.
enum Item {
    Record(Record),
    Epoch(Epoch),
}

/// The records of one segment, in order.
#[derive(Debug)]
struct Records {
    file: BufReader<File>,
    /// Behind the last whole item.
    position: u64,
}

impl Records {
    fn open(path: &Path) -> io::Result<Records> {
        let file = BufReader::with_capacity(64 * 1024, File::open(path)?);
        Ok(Records { file, position: 0 })
    }

    fn next_record(&mut self) -> io::Result<Option<Record>> {
        loop {
            match self.next_item()? {
                Some(Ok(Item::Record(record))) => return Ok(Some(record)),
                Some(Ok(Item::Epoch(_))) => {}
                // What is damaged is not read on; recovery finds out how far that goes.
                Some(Err(Damaged)) | None => return Ok(None),
            }
        }
    }

    /// The next item; `None` at the end of the file.
    fn next_item(&mut self) -> io::Result<Option<Result<Item, Damaged>>> {
        let mut line = Vec::new();
        self.file
            .by_ref()
            .take(MAX_LINE_BYTES)
            .read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        let Some(header) = line
            .strip_prefix(b": ")
            .and_then(|line| line.strip_suffix(b"\n"))
        else {
            return Ok(Some(Err(Damaged)));
        };
        let Ok(header) = std::str::from_utf8(header) else {
            return Ok(Some(Err(Damaged)));
        };
        if let Some(epoch) = parse_epoch(header) {
            let mut blank = [0];
            let whole = self.file.read(&mut blank)? == 1 && blank == *b"\n";
            self.position += line.len() as u64 + 1;
            return Ok(Some(if whole {
                Ok(Item::Epoch(epoch))
            } else {
                Err(Damaged)
            }));
        }
        let Some((sequence, crc, length, names)) = parse_header(header) else {
            return Ok(Some(Err(Damaged)));
        };
        let mut text = Vec::new();
        self.file.by_ref().take(length).read_to_end(&mut text)?;
        let topics = topics::check(&names.split('\t').collect::<Vec<_>>());
        let (true, Ok(topics)) = (crc == checksum(sequence, names, &text), topics) else {
            return Ok(Some(Err(Damaged)));
        };
        self.position += line.len() as u64 + length;
        Ok(Some(Ok(Item::Record(Record {
            sequence,
            topics,
            text,
        }))))
    }

    /// Goes on from the next place behind `from` where an item could begin.
    fn resume_behind(path: &Path, from: u64) -> io::Result<Option<Records>> {
        let bytes = fs::read(path)?;
        let mut at = from as usize;
        while let Some(next) = bytes.get(at..).and_then(|rest| find(rest, b"\n: ")) {
            at += next + 1;
            let mut records = Records::open(path)?;
            records.file.seek_relative(at as i64)?;
            records.position = at as u64;
            if let Some(Ok(_)) = records.next_item()? {
                let mut records = Records::open(path)?;
                records.file.seek_relative(at as i64)?;
                records.position = at as u64;
                return Ok(Some(records));
            }
        }
        Ok(None)
    }
}

/// Not what was written here.
#[derive(Debug)]
struct Damaged;

/// Reads one segment at the start. A damaged tail is cut off; behind damage in the middle the history begins anew, so
/// that whoever was before it is told of a gap.
fn recover(
    path: &Path,
    newest: bool,
    recovered: &mut Recovered,
    segments: &Segments,
    report: &dyn Fn(&str),
    keep: &mut impl FnMut(Numbered),
) -> io::Result<()> {
    let mut records = Records::open(path)?;
    let begun = fs::metadata(path)?
        .modified()
        .unwrap_or(SystemTime::UNIX_EPOCH);
    let mut first = None;
    loop {
        match records.next_item()? {
            None => break,
            Some(Ok(Item::Epoch(epoch))) => {
                if recovered.epochs.last() != Some(&epoch) {
                    recovered.epochs.push(epoch);
                }
                if recovered.head < epoch.1 - 1 {
                    // What was before has been removed, or is damaged.
                    recovered.head = epoch.1 - 1;
                    recovered.floor = recovered.head;
                }
            }
            Some(Ok(Item::Record(record))) => {
                if record.sequence <= recovered.head {
                    continue;
                }
                if record.sequence != recovered.head + 1 {
                    recovered.floor = record.sequence - 1;
                }
                recovered.head = record.sequence;
                first.get_or_insert(record.sequence);
                let text = Frame::from_text(&record.text);
                let callers_id = callers_id(&record.text);
                keep(Numbered {
                    sequence: record.sequence,
                    topics: record.topics,
                    frame: text,
                    callers_id,
                });
            }
            Some(Err(Damaged)) => {
                let from = records.position;
                let name = path.display();
                if let Some(rest) = Records::resume_behind(path, from)? {
                    report(&format!(
                        "{name} is damaged at byte {from}; the history begins anew behind it"
                    ));
                    recovered.floor = recovered.head + 1;
                    records = rest;
                    continue;
                }
                if newest && from == 0 && !may_be_ours(path)? {
                    let text = format!("{name} is not a history, and stays as it is");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                report(&format!(
                    "{name} is cut off at byte {from}, behind its last whole event"
                ));
                if newest {
                    OpenOptions::new().write(true).open(path)?.set_len(from)?;
                } else {
                    recovered.floor = recovered.head + 1;
                }
                break;
            }
        }
    }
    segments.lock().push_back(Segment {
        path: path.to_path_buf(),
        first: first.unwrap_or(recovered.head + 1),
        bytes: fs::metadata(path)?.len(),
        begun,
    });
    Ok(())
}

/// Whether a file in which nothing is whole can be the beginning of one of ours: torn, or only zeros after a power failure.
/// Whatever else it is, it is not ours to cut off.
fn may_be_ours(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(8).read_to_end(&mut start)?;
    Ok(b": epoch ".starts_with(&start) || start.iter().all(|&byte| byte == 0))
}

fn append_record(out: &mut Vec<u8>, event: &Numbered) {
    let names: Vec<&str> = event.topics.iter().map(|name| &**name).collect();
    let names = names.join("\t");
    let text = event.frame.bytes(Coding::Bare);
    let crc = checksum(event.sequence, &names, text);
    // Writing to a vector cannot fail.
    let _ = writeln!(out, ": {} {crc:08x} {} {names}", event.sequence, text.len());
    out.extend_from_slice(text);
}

fn parse_header(line: &str) -> Option<(u64, u32, u64, &str)> {
    let mut parts = line.splitn(4, ' ');
    let sequence = parts.next()?.parse().ok()?;
    let crc = u32::from_str_radix(parts.next()?, 16).ok()?;
    Some((sequence, crc, parts.next()?.parse().ok()?, parts.next()?))
}

fn epoch_line((epoch, first): Epoch) -> String {
    let crc = checksum(first, "epoch", &epoch.to_be_bytes());
    format!(": epoch {epoch:016x} from {first} {crc:08x}\n\n")
}

fn parse_epoch(line: &str) -> Option<Epoch> {
    let (epoch, rest) = line.strip_prefix("epoch ")?.split_once(" from ")?;
    let (first, _) = rest.split_once(' ')?;
    let epoch = (u64::from_str_radix(epoch, 16).ok()?, first.parse().ok()?);
    (epoch_line(epoch).trim_end() == format!(": {line}")).then_some(epoch)
}

/// The id of an event that brought its own.
fn callers_id(text: &[u8]) -> Option<Arc<str>> {
    let line = text.split(|byte| *byte == b'\n').next()?;
    let id = std::str::from_utf8(line.strip_prefix(b"id: ")?).ok()?;
    super::id::check_callers(id).is_ok().then(|| id.into())
}

/// CRC-32 as in IEEE 802.3, over all that a record says.
fn checksum(sequence: u64, names: &str, text: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 {
                    0xedb8_8320 ^ (value >> 1)
                } else {
                    value >> 1
                };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    let parts = [&sequence.to_be_bytes()[..], names.as_bytes(), b"\n", text];
    let bytes = parts.into_iter().flatten();
    !bytes.fold(!0, |crc, byte| {
        TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8)
    })
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// The full segments, oldest first: their names end in 20 digits.
fn older_segments(path: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = with_suffix(path, "");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(path))? {
        let candidate = entry?.path();
        let name = candidate.file_name().unwrap_or_default().to_string_lossy();
        let prefix = prefix.file_name().unwrap_or_default().to_string_lossy();
        let digits = name.strip_prefix(&*prefix);
        if digits.is_some_and(|d| d.len() == 20 && d.bytes().all(|b| b.is_ascii_digit())) {
            found.push(candidate);
        }
    }
    found.sort();
    Ok(found)
}

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| *folder != Path::new(""))
        .unwrap_or(Path::new("."))
}

/// Has a rename and a new file survive a power failure.
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

fn open_segment(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}
