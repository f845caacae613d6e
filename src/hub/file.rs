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
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

/// The segments there are, oldest first, for those who read them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Segments(Arc<Mutex<VecDeque<Segment>>>);

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    first: u64,
}

/// The writing end, owned by the hub thread.
#[derive(Debug)]
pub(crate) struct Store {
    config: FileHistory,
    /// Locked for as long as the store lives.
    _lock: File,
    file: File,
    /// Where the last whole item ends.
    good: u64,
    /// Something may stand behind that; it is cut off before the next write.
    torn: bool,
    epoch: Epoch,
    /// The last number that nobody can read any more.
    floor: u64,
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
        let lock = lock(&config.path)?;
        let file = open_newest(&config.path)?;
        let mut store = Store {
            config,
            _lock: lock,
            file,
            good: 0,
            torn: true,
            epoch: (epoch, 1),
            floor: 0,
            segments: Segments::default(),
        };
        let mut recovered = Recovered::default();
        let newest = &store.config.path;
        let mut paths = full_segments(newest)?;
        paths.push(newest.clone());
        for path in paths {
            let before = recovered.head;
            store.good = recovered.read(&path, newest, report, &mut keep)?;
            let first = before.max(recovered.floor) + 1;
            store.segments.lock().push_back(Segment { path, first });
        }
        // No number that was given out is given out again, also where its event is damaged.
        recovered.head = recovered.head.max(recovered.floor);
        store.floor = recovered.floor;
        store.epoch = (epoch, recovered.head + 1);
        recovered.epochs.push(store.epoch);
        store.write(epoch_line(store.epoch).as_bytes())?;
        store.sync_folder()?;
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
    pub(crate) fn append(&mut self, round: &[Numbered]) -> io::Result<u64> {
        if let Some(event) = round.first() {
            self.make_room(event.sequence)?;
        }
        let mut bytes = Vec::new();
        if self.good == 0 {
            bytes.extend_from_slice(epoch_line(self.epoch).as_bytes());
        }
        for event in round {
            append_record(&mut bytes, event);
        }
        self.write(&bytes)?;
        Ok(self.floor)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.good)?;
            self.file.seek(SeekFrom::Start(self.good))?;
        }
        self.torn = true;
        self.file.write_all(bytes)?;
        if self.config.durability == Durability::Sync {
            self.file.sync_data()?;
        }
        self.torn = false;
        self.good += bytes.len() as u64;
        Ok(())
    }

    /// Begins a new segment, from the event `next` on, where the newest is full or gone.
    fn make_room(&mut self, next: u64) -> io::Result<()> {
        let path = self.config.path.clone();
        let exists = path.try_exists()?;
        if exists && self.good < self.config.segment_bytes {
            return Ok(());
        }
        if exists && let Some(newest) = self.segments.lock().back_mut() {
            let full = with_suffix(&path, &format!("{:020}", newest.first));
            fs::rename(&path, &full)?;
            newest.path = full;
        }
        self.file = open_newest(&path)?;
        (self.good, self.torn) = (0, false);
        let mut segments = self.segments.lock();
        if segments.back().is_some_and(|newest| newest.path == path) {
            // Nobody can read what was removed under our feet.
            segments.pop_back();
            self.floor = next - 1;
        }
        segments.push_back(Segment { path, first: next });
        drop(segments);
        self.remove_old();
        self.sync_folder()
    }

    /// Removes the segments that are too many or too old. One that cannot be removed is tried again with the next one.
    fn remove_old(&mut self) {
        let mut segments = self.segments.lock();
        let about = |segment: &Segment| fs::metadata(&segment.path);
        let mut bytes: u64 = segments.iter().flat_map(about).map(|it| it.len()).sum();
        while segments.len() > 1 {
            // Another may have removed it already.
            if let Ok(oldest) = about(&segments[0]) {
                // It was last written with its last event.
                let age = oldest.modified().ok().and_then(|at| at.elapsed().ok());
                let old = self.config.age.is_some_and(|most| age > Some(most));
                let fits = bytes <= self.config.bytes && !old;
                if fits || fs::remove_file(&segments[0].path).is_err() {
                    break;
                }
                bytes -= oldest.len();
            }
            segments.pop_front();
            self.floor = self.floor.max(segments[0].first - 1);
        }
    }

    /// Has a rename and a new file survive a power failure. Windows opens no folders.
    fn sync_folder(&self) -> io::Result<()> {
        if self.config.durability == Durability::Sync && cfg!(unix) {
            File::open(folder(&self.config.path))?.sync_all()?;
        }
        Ok(())
    }
}

impl Recovered {
    /// Reads one segment, and says where its last whole item ends. Behind damage the history begins anew, so that whoever
    /// was before it is told of a gap; only of what is torn at the end of the newest nobody has heard.
    fn read(
        &mut self,
        path: &Path,
        newest: &Path,
        report: &dyn Fn(&str),
        keep: &mut dyn FnMut(Numbered),
    ) -> io::Result<u64> {
        let mut records = Records::open(path, 0)?;
        loop {
            while let Some(item) = records.next_item() {
                self.take(item, keep);
            }
            let (name, good) = (path.display(), records.position);
            if good == fs::metadata(path)?.len() {
                return Ok(good);
            }
            let Some(rest) = Records::behind_damage(path, good)? else {
                if path != newest {
                    self.floor = self.head + 1;
                } else if good == 0 && !may_be_ours(path)? {
                    let text = format!("{name} is not a history, and stays as it is");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                report(&format!(
                    "{name} is cut off at byte {good}, behind its last whole event"
                ));
                return Ok(good);
            };
            report(&format!(
                "{name} is damaged at byte {good}; the history begins anew behind it"
            ));
            self.floor = self.head + 1;
            records = rest;
        }
    }

    fn take(&mut self, item: Item, keep: &mut dyn FnMut(Numbered)) {
        match item {
            Item::Epoch(epoch) => {
                self.skip_to(epoch.1);
                if self.epochs.last() != Some(&epoch) {
                    self.epochs.push(epoch);
                }
            }
            Item::Record(record) if record.sequence > self.head => {
                self.skip_to(record.sequence);
                self.head = record.sequence;
                keep(Numbered {
                    sequence: record.sequence,
                    topics: record.topics,
                    frame: Frame::from_text(&record.text),
                    callers_id: callers_id(&record.text),
                });
            }
            Item::Record(_) => {}
        }
    }

    /// What is missing before this number has been removed, or is damaged.
    fn skip_to(&mut self, next: u64) {
        if self.head + 1 < next {
            self.head = next - 1;
            self.floor = self.head;
        }
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
        let mut newest_first = segments.iter().rev();
        let holds = newest_first.find(|segment| segment.first <= cursor + 1)?;
        Some(holds.path.clone())
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

    /// The events of these topics behind `cursor` and up to `head`, at most about `max_bytes` or one event. Where there
    /// are none yet, the cursor moves past those of other topics. `None` when the file has nothing more.
    pub(crate) fn read(
        &mut self,
        topics: &TopicSet,
        cursor: &mut u64,
        head: u64,
        max_bytes: usize,
    ) -> Option<Vec<(u64, Frame)>> {
        self.events.retain(|(sequence, _)| sequence > cursor);
        self.reached = self.reached.max(*cursor);
        let mut bytes: usize = self.events.iter().map(|(_, frame)| frame.len()).sum();
        let mut scanned = 0;
        while bytes < max_bytes && scanned < 16 * max_bytes && self.reached < head {
            let Some(record) = self.next() else { break };
            scanned += record.text.len();
            self.reached = record.sequence;
            if record.topics.iter().any(|name| topics.contains(name)) {
                let frame = Frame::from_text(&record.text);
                bytes += frame.len();
                self.events.push((record.sequence, frame));
            }
        }
        if self.reached <= *cursor {
            return None;
        }
        if self.events.is_empty() {
            *cursor = self.reached;
        }
        Some(self.events.clone())
    }

    /// The record behind what has been read, in this segment or the next one. `None` also where it cannot be read: it is
    /// damaged, or has just been removed.
    fn next(&mut self) -> Option<Record> {
        let next = self.reached + 1;
        for _ in 0..2 {
            while let Some(item) = self.records.as_mut().and_then(Records::next_item) {
                if let Item::Record(record) = item
                    && record.sequence >= next
                {
                    return (record.sequence == next).then_some(record);
                }
            }
            let path = self.segments.behind(self.reached)?;
            self.records = Some(Records::open(&path, 0).ok()?);
        }
        None
    }
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

/// What one segment holds, in order.
#[derive(Debug)]
struct Records {
    file: BufReader<File>,
    /// Behind the last whole item.
    position: u64,
}

impl Records {
    fn open(path: &Path, position: u64) -> io::Result<Records> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(position))?;
        let file = BufReader::with_capacity(64 * 1024, file);
        Ok(Records { file, position })
    }

    /// The next item; `None` when nothing follows that is whole and readable.
    fn next_item(&mut self) -> Option<Item> {
        let mut line = String::new();
        let mut limited = self.file.by_ref().take(MAX_LINE_BYTES);
        limited.read_line(&mut line).ok()?;
        let header = line.strip_prefix(": ")?.strip_suffix('\n')?;
        if let Some(epoch) = parse_epoch(header) {
            let mut blank = [0];
            self.file.read_exact(&mut blank).ok()?;
            if blank != *b"\n" {
                return None;
            }
            self.position += line.len() as u64 + 1;
            return Some(Item::Epoch(epoch));
        }
        let (sequence, crc, length, names) = parse_header(header)?;
        let mut text = Vec::new();
        self.file
            .by_ref()
            .take(length)
            .read_to_end(&mut text)
            .ok()?;
        let topics = topics::check(&names.split('\t').collect::<Vec<_>>()).ok()?;
        if crc != checksum(sequence, names, &text) {
            return None;
        }
        self.position += line.len() as u64 + length;
        Some(Item::Record(Record {
            sequence,
            topics,
            text,
        }))
    }

    /// Goes on from the next place behind `from` where an item is whole.
    fn behind_damage(path: &Path, from: u64) -> io::Result<Option<Records>> {
        let bytes = fs::read(path)?;
        let behind = bytes.get(from as usize..).unwrap_or_default();
        for (at, _) in behind.windows(3).enumerate().filter(|(_, w)| w == b"\n: ") {
            let start = from + at as u64 + 1;
            if Records::open(path, start)?.next_item().is_some() {
                return Records::open(path, start).map(Some);
            }
        }
        Ok(None)
    }
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

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Keeps other processes away for as long as it is open.
fn lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    let lock = options.open(with_suffix(path, "lock"))?;
    match lock.try_lock().map_err(io::Error::from) {
        Ok(()) => Ok(lock),
        Err(error) => {
            let name = path.display();
            let text = format!("{name} is in use by another process: {error}");
            Err(io::Error::new(error.kind(), text))
        }
    }
}

/// The full segments, oldest first: their names end in 20 digits.
fn full_segments(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(path))? {
        let candidate = entry?.path();
        let digits = candidate.extension().unwrap_or_default().as_encoded_bytes();
        let numbered = digits.len() == 20 && digits.iter().all(u8::is_ascii_digit);
        if numbered && candidate.file_stem() == path.file_name() {
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

fn open_newest(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).open(path)
}
