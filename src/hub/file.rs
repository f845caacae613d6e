//! The log's file: an event stream like any other, with a comment in front of each event that says what recovery needs.
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
//! The comment holds the sequence number, a checksum (of what follows in the line's other fields and of the event), the
//! event's length in bytes, and its topics, divided by tabs. `cat`, `grep` and every parser of event streams
//! can read the file. An event is there when it is whole: what a crash leaves of the last one is cut off.
//!
//! The newest segment has the path that was asked for; a full one is renamed to that path and its first sequence number.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::config::{Durability, History, HubConfig};
use super::frame::Frame;
use super::log::{Epoch, Log, Numbered};
use super::topics::{self, TopicSet};
use crate::http::Coding;
use crate::random::random_u64;

/// Longest comment line: 64 topics of 256 bytes, and the numbers.
const MAX_LINE_BYTES: usize = 32 * 1024;

/// Bytes that are read at a time, unless an event needs more.
const BLOCK_BYTES: usize = 64 * 1024;

/// How many bytes of any topics a reader passes at a time for each byte that it may take: some milliseconds, so that it
/// looks in between whether it is to end, and others get their turn.
const PASSED_FOR_ONE: usize = 64;

/// The writing end, and what makes a reader.
pub(crate) type Opened = (Box<dyn Store>, Readers);

/// The writing end, owned by the hub thread.
pub(crate) trait Store: Send {
    /// Appends a round with one write and, where that is asked for, one sync. Says up to which number the file has been
    /// cut off at its old end.
    ///
    /// # Errors
    ///
    /// What the system says; then nothing of the round is in the file.
    fn append(&mut self, round: &[Numbered]) -> io::Result<u64>;
}

pub(crate) type Readers = Box<dyn Fn() -> Box<dyn OnDisk> + Send + Sync>;

/// The file for a reader whose cursor is older than what memory holds.
pub(crate) trait OnDisk: Send {
    /// The events of these topics behind `cursor` and up to `head`, at most about `max_bytes` or one event. None where
    /// many of other topics stand before them: then the cursor moves past those. `None` when the file has nothing more.
    fn read(
        &mut self,
        topics: &TopicSet,
        cursor: &mut u64,
        head: u64,
        max_bytes: usize,
    ) -> Option<Vec<(u64, Frame)>>;
}

/// Opens or creates a history's file, gives all that it holds to the log, and begins a new epoch.
///
/// # Errors
///
/// What the system says; `WouldBlock` when another process has the file, `InvalidData` when it is something else.
pub(crate) fn open(newest: &Path, config: &HubConfig, log: &mut Log) -> io::Result<Opened> {
    let lock = lock(newest)?;
    let file = open_to_write(newest)?;
    let mut paths = full_segments(newest)?;
    paths.push(newest.to_path_buf());
    let mut segments = Vec::new();
    let mut good = 0;
    let mut floor = 0;
    for path in paths {
        let before = log.head;
        good = recover(&path, newest, log, &*config.on_error)?;
        floor = log.raise_file_lost_to(floor);
        let first = before.max(floor) + 1;
        segments.push(Segment { path, first });
    }
    // No number that was given out is given out again, also where its event is damaged.
    let epoch = (random_u64(), log.head.max(floor) + 1);
    log.begin_epoch(epoch);
    let segments = Segments(Arc::new(Mutex::new(segments)));
    let mut store = FileStore {
        path: newest.to_path_buf(),
        history: config.history.clone(),
        _lock: lock,
        file,
        good,
        torn: true,
        epoch,
        floor,
        segments: segments.clone(),
    };
    store.write(epoch_line(epoch).as_bytes())?;
    store.sync_folder()?;
    let reader = move || -> Box<dyn OnDisk> {
        Box::new(DiskReader {
            segments: segments.clone(),
            items: None,
            events: Vec::new(),
            reached: 0,
            settled: 0,
        })
    };
    Ok((Box::new(store), Box::new(reader)))
}

/// The segments there are, oldest first, for those who read them.
#[derive(Clone)]
struct Segments(Arc<Mutex<Vec<Segment>>>);

struct Segment {
    path: PathBuf,
    first: u64,
}

impl Segments {
    /// Nothing that runs under this lock can leave it half changed.
    fn lock(&self) -> MutexGuard<'_, Vec<Segment>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the segment that has, or would have, the event behind a cursor. `None` also where it has just been removed.
    fn open(&self, cursor: u64) -> Option<Items> {
        let segments = self.lock();
        let mut newest_first = segments.iter().rev();
        let holds = newest_first.find(|segment| segment.first <= cursor + 1)?;
        let path = holds.path.clone();
        drop(segments);
        Items::open(&path).ok()
    }
}

struct FileStore {
    path: PathBuf,
    history: History,
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

impl Store for FileStore {
    fn append(&mut self, round: &[Numbered]) -> io::Result<u64> {
        if let Some(event) = round.first() {
            self.make_room(event.sequence)?;
        }
        let mut bytes = Vec::new();
        if self.good == 0 {
            bytes.extend_from_slice(epoch_line(self.epoch).as_bytes());
        }
        for event in round {
            append_event(&mut bytes, event);
        }
        self.write(&bytes)?;
        Ok(self.floor)
    }
}

impl FileStore {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.good)?;
            self.file.seek(SeekFrom::Start(self.good))?;
        }
        self.torn = true;
        if let Err(error) = self.write_through(bytes) {
            // Its first events may be whole. They were refused: nobody is to find them, now or after a restart.
            let _ = self.file.set_len(self.good);
            return Err(error);
        }
        self.torn = false;
        self.good += bytes.len() as u64;
        Ok(())
    }

    fn write_through(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        match self.history.durability {
            Durability::Sync => self.file.sync_data(),
            Durability::Os => Ok(()),
        }
    }

    /// Begins a new segment, from the event `next` on, where the newest is full or gone.
    fn make_room(&mut self, next: u64) -> io::Result<()> {
        let path = self.path.clone();
        let exists = path.try_exists()?;
        let most = (self.history.file_bytes / 16).clamp(4 * 1024, 16 * 1024 * 1024);
        if exists && self.good < most {
            return Ok(());
        }
        if exists && let Some(newest) = self.segments.lock().last_mut() {
            let full = with_suffix(&path, &format!("{:020}", newest.first));
            fs::rename(&path, &full)?;
            newest.path = full;
        }
        self.file = open_to_write(&path)?;
        (self.good, self.torn) = (0, false);
        let mut segments = self.segments.lock();
        // What was removed under our feet: readers go on with what memory has of it.
        segments.pop_if(|newest| newest.path == path);
        segments.push(Segment { path, first: next });
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
                let old = self.history.file_age.is_some_and(|most| age > Some(most));
                let fits = bytes <= self.history.file_bytes && !old;
                if fits || fs::remove_file(&segments[0].path).is_err() {
                    break;
                }
                bytes -= oldest.len();
            }
            segments.remove(0);
            self.floor = self.floor.max(segments[0].first - 1);
        }
    }

    /// Has a rename and a new file survive a power failure. Windows opens no folders.
    fn sync_folder(&self) -> io::Result<()> {
        if self.history.durability == Durability::Sync && cfg!(unix) {
            File::open(folder(&self.path))?.sync_all()?;
        }
        Ok(())
    }
}

/// Reads one segment, and says where its last whole item ends. Behind damage the history begins anew, so that whoever was
/// before it is told of a gap; only of what is torn at the end of the newest nobody has heard.
fn recover(path: &Path, newest: &Path, log: &mut Log, report: &dyn Fn(&str)) -> io::Result<u64> {
    let name = path.display();
    let mut items = Items::open(path)?;
    loop {
        while let Some(item) = items.next()? {
            match item {
                Item::Epoch(epoch) => log.begin_epoch(epoch),
                Item::Event(event) => log.restore(event),
            }
        }
        let good = items.position;
        if items.rest().is_empty() {
            return Ok(good);
        }
        if !items.skip_damage() {
            if path != newest {
                log.raise_file_lost_to(log.head + 1);
            } else if good == 0 && !items.may_be_ours() {
                let text = format!("{name} is not a history, and stays as it is");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            report(&format!(
                "{name} is cut off at byte {good}, behind its last whole event"
            ));
            return Ok(good);
        }
        report(&format!(
            "{name} is damaged at byte {good}; the history begins anew behind it"
        ));
        log.raise_file_lost_to(log.head + 1);
    }
}

struct DiskReader {
    segments: Segments,
    items: Option<Items>,
    /// Read, but perhaps not sent.
    events: Vec<(u64, Frame)>,
    /// All up to here have been read.
    reached: u64,
    /// What was read behind this may have been refused since, and its numbers given to others.
    settled: u64,
}

impl OnDisk for DiskReader {
    fn read(
        &mut self,
        topics: &TopicSet,
        cursor: &mut u64,
        head: u64,
        max_bytes: usize,
    ) -> Option<Vec<(u64, Frame)>> {
        self.events.retain(|(sequence, _)| sequence > cursor);
        self.reached = self.reached.max(*cursor);
        let mut bytes: usize = self.events.iter().map(|(_, frame)| frame.len()).sum();
        let mut passed = 0;
        while bytes < max_bytes && passed / PASSED_FOR_ONE < max_bytes && self.reached < head {
            let Some(event) = self.next(head) else { break };
            self.reached = event.sequence;
            passed += event.frame.len();
            if event.topics.iter().any(|name| topics.contains(name)) {
                bytes += event.frame.len();
                self.events.push((event.sequence, event.frame));
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
}

impl DiskReader {
    /// The event behind what has been read, in this segment or the next one. `None` also where it cannot be read: it is
    /// damaged, or has just been removed.
    fn next(&mut self, head: u64) -> Option<Numbered> {
        let next = self.reached + 1;
        if next > self.settled {
            self.settled = head;
            if let Some(items) = &mut self.items {
                items.forget_rest().ok()?;
            }
        }
        for _ in 0..2 {
            while let Some(items) = &mut self.items
                && let Ok(Some(item)) = items.next_whole()
            {
                if let Item::Event(event) = item
                    && event.sequence >= next
                {
                    return (event.sequence == next).then_some(event);
                }
            }
            self.items = Some(self.segments.open(self.reached)?);
        }
        None
    }
}

/// What comes next in a segment.
enum Item {
    Event(Numbered),
    Epoch(Epoch),
}

/// What one segment holds, in order.
struct Items {
    file: File,
    /// What has been read of it.
    bytes: Vec<u8>,
    /// So many of these have been taken.
    taken: usize,
    /// Where that is in the file: behind the last whole item.
    position: u64,
}

impl Items {
    fn open(path: &Path) -> io::Result<Items> {
        Ok(Items {
            file: File::open(path)?,
            bytes: Vec::new(),
            taken: 0,
            position: 0,
        })
    }

    /// What has been read and not taken: all there is, once no item has come.
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// The next item; `None` when nothing follows that is whole.
    fn next(&mut self) -> io::Result<Option<Item>> {
        loop {
            if let Some((item, len)) = parse_item(self.rest()) {
                self.take(len);
                return Ok(Some(item));
            }
            self.bytes.drain(..self.taken);
            self.taken = 0;
            // Twice as many each time, so that a large event is not looked at often.
            let more = self.bytes.len().max(BLOCK_BYTES) as u64;
            let mut file = (&self.file).take(more);
            if file.read_to_end(&mut self.bytes)? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next item, be it behind damage.
    fn next_whole(&mut self) -> io::Result<Option<Item>> {
        loop {
            let item = self.next()?;
            if item.is_some() || !self.skip_damage() {
                return Ok(item);
            }
        }
    }

    /// Reads again what follows.
    fn forget_rest(&mut self) -> io::Result<()> {
        self.bytes.clear();
        self.taken = 0;
        self.file.seek(SeekFrom::Start(self.position)).map(drop)
    }

    /// Goes on from the next place where an item is whole; false when there is none. It begins behind a blank line, as no
    /// comment within an event does.
    fn skip_damage(&mut self) -> bool {
        let rest = self.rest();
        let mut lines = (2..rest.len()).filter(|at| rest[at - 2..].starts_with(b"\n\n: "));
        let whole = lines.find(|at| parse_item(&rest[*at..]).is_some());
        self.take(whole.unwrap_or(0));
        whole.is_some()
    }

    /// Whether a file in which nothing is whole can be the beginning of one of ours: torn, or only zeros after a power
    /// failure. Whatever else it is, it is not ours to cut off.
    fn may_be_ours(&self) -> bool {
        let start = &self.bytes[..self.bytes.len().min(8)];
        b": epoch ".starts_with(start) || start.iter().all(|&byte| byte == 0)
    }

    fn take(&mut self, len: usize) {
        self.taken += len;
        self.position += len as u64;
    }
}

/// The item at the beginning of these bytes, and its length; `None` when none is whole there.
fn parse_item(bytes: &[u8]) -> Option<(Item, usize)> {
    let mut line = bytes.iter().take(MAX_LINE_BYTES);
    let end = line.position(|byte| *byte == b'\n')?;
    let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
    let line = str::from_utf8(line).ok()?.strip_prefix(": ")?;
    if let Some(epoch) = parse_epoch(line) {
        return rest
            .starts_with(b"\n")
            .then_some((Item::Epoch(epoch), end + 2));
    }
    let mut fields = line.splitn(4, ' ');
    let sequence = fields.next()?.parse().ok()?;
    let sum = u64::from_str_radix(fields.next()?, 16).ok()?;
    let text = rest.get(..fields.next()?.parse().ok()?)?;
    let names = fields.next()?;
    if sum != checksum(sequence, names, text) {
        return None;
    }
    let event = Numbered {
        sequence,
        topics: topics::check(names.split('\t').collect()).ok()?,
        frame: Frame::from_text(text),
        own_id: callers_id(text),
        finishes: is_finishing(text),
    };
    Some((Item::Event(event), end + 1 + text.len()))
}

fn append_event(out: &mut Vec<u8>, event: &Numbered) {
    let mut names = String::new();
    for name in &*event.topics {
        if !names.is_empty() {
            names.push('\t');
        }
        names.push_str(name);
    }
    let text = event.frame.bytes(Coding::Bare);
    let sum = checksum(event.sequence, &names, text);
    // Writing to a vector cannot fail.
    let _ = writeln!(
        out,
        ": {} {sum:016x} {} {names}",
        event.sequence,
        text.len()
    );
    out.extend_from_slice(text);
}

fn epoch_line((epoch, first): Epoch) -> String {
    let sum = checksum(first, "epoch", &epoch.to_be_bytes());
    format!(": epoch {epoch:016x} from {first} {sum:016x}\n\n")
}

fn parse_epoch(line: &str) -> Option<Epoch> {
    let (epoch, rest) = line.strip_prefix("epoch ")?.split_once(" from ")?;
    let (first, _) = rest.split_once(' ')?;
    let epoch = (u64::from_str_radix(epoch, 16).ok()?, first.parse().ok()?);
    (epoch_line(epoch).trim_end() == format!(": {line}")).then_some(epoch)
}

/// The id of an event that brought its own.
fn callers_id(text: &[u8]) -> Option<Arc<str>> {
    let id = wire_id(text)?;
    super::id::check_callers(id).is_ok().then(|| id.into())
}

/// Whether the event is the last of its topics.
fn is_finishing(text: &[u8]) -> bool {
    wire_id(text).is_some_and(super::id::is_ending)
}

fn wire_id(text: &[u8]) -> Option<&str> {
    let line = text.split(|byte| *byte == b'\n').next()?;
    str::from_utf8(line.strip_prefix(b"id: ")?).ok()
}

/// FNV-1a of 64 bits, over all that a record says: one damaged byte always changes it, and whatever else happens to it
/// leaves it as it was once in 2^64 times.
fn checksum(sequence: u64, names: &str, text: &[u8]) -> u64 {
    let parts = [&sequence.to_be_bytes()[..], names.as_bytes(), b"\n", text];
    let bytes = parts.into_iter().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
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
    let lock = open_to_write(&with_suffix(path, "lock"))?;
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
            let place = found.partition_point(|other| *other < candidate);
            found.insert(place, candidate);
        }
    }
    Ok(found)
}

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| *folder != Path::new(""))
        .unwrap_or(Path::new("."))
}

fn open_to_write(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let opened = options.create(true).truncate(false).write(true).open(path);
    opened.map_err(|error| {
        let text = format!("{}: {error}", path.display());
        io::Error::new(error.kind(), text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64, text: &str) -> Numbered {
        Numbered {
            sequence,
            topics: topics::check(vec!["a"]).unwrap(),
            frame: Frame::from_text(format!("data: {text}\n\n").as_bytes()),
            own_id: None,
            finishes: false,
        }
    }

    /// A round that fails may leave whole events, until they are cut off: a reader that finds them there is not to send
    /// them once others have their numbers.
    #[test]
    fn a_reader_forgets_what_was_refused() {
        let folder = std::env::temp_dir().join(format!("tiny-sse-refused-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("history");
        let config = HubConfig {
            history: History::file(&path).durability(Durability::Os),
            ..HubConfig::default()
        };
        let mut log = Log::new(config.history.clone());
        let (mut store, readers) = open(&path, &config, &mut log).unwrap();
        let mut reader = readers();
        let mut cursor = 0;
        let mut read = |head| {
            let topics = topics::check(vec!["a"]).unwrap();
            let events = reader.read(&topics, &mut cursor, head, 1).unwrap();
            let (sequence, frame) = events.last().unwrap();
            cursor = *sequence;
            String::from_utf8_lossy(frame.bytes(Coding::Bare)).to_string()
        };

        store.append(&[event(1, "one")]).unwrap();
        let mut left = Vec::new();
        append_event(&mut left, &event(2, "refused"));
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(&left).unwrap();
        assert_eq!(read(1), "data: one\n\n");
        file.set_len(file.metadata().unwrap().len() - left.len() as u64)
            .unwrap();
        store.append(&[event(2, "two"), event(3, "three")]).unwrap();
        assert_eq!(read(3), "data: two\n\n");
        assert_eq!(read(3), "data: three\n\n");
        fs::remove_dir_all(&folder).unwrap();
    }
}
