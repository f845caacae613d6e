//! The history's file: an event stream like any other, with a comment before each event for recovery.
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
//! | file | what it has |
//! | --- | --- |
//! | `history` | the newest segment, the only one that is written |
//! | `history.00000000000000000001` | an older, full segment, named by its first sequence |
//! | `history.next` | the sequence after the last acknowledged event, so that recovery notices a lost end |
//! | `history.cut-5c0f9a3be1d27764` | what recovery could not read and cut off, when it began that epoch |
//!
//! A hub locks the segments themselves. A lock on a name would not keep out a hub that comes through another name.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::config::{Durability, History, HubConfig};
use super::frame::Frame;
use super::id::{self, EventId};
use super::log::{Epoch, Log, Numbered};
use super::topics::{self, TopicSet};
use crate::http::Coding;
use crate::lock::lock;
use crate::random::random_u64;

/// Longest comment line: 64 topics of 256 bytes, and the numbers.
const MAX_LINE_BYTES: usize = 32 * 1024;

/// Bytes that are read at a time, unless an event needs more.
const BLOCK_BYTES: usize = 64 * 1024;

/// Bytes of other topics' events that a reader skips in one call, for each byte that it may take. A call then lasts some
/// milliseconds, after which its thread can serve another reader.
const SKIPPED_PER_BYTE: usize = 64;

/// The writing end, and what makes a reader.
pub(crate) type Opened = (Box<dyn Store>, Readers);

/// The writing end, owned by the hub thread.
pub(crate) trait Store: Send {
    /// Appends a batch with one write and, with [`Durability::Sync`], one sync. Returns the last sequence that was removed
    /// at the file's old end.
    ///
    /// # Errors
    ///
    /// What the system says; then nothing of the batch is in the file.
    fn append(&mut self, batch: &[Numbered]) -> io::Result<u64>;
}

pub(crate) type Readers = Box<dyn Fn() -> Box<dyn OnDisk> + Send + Sync>;

/// The file for a reader whose cursor is older than what memory holds.
pub(crate) trait OnDisk: Send {
    /// Returns the events of these topics after `cursor` and up to `head`, at most about `max_bytes` or one event. Where
    /// many events of other topics come first, returns none and moves the cursor past those. Returns `None` when the file
    /// has nothing more.
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
/// What the system says; `WouldBlock` when another hub has the file, `InvalidData` when it is no history.
pub(crate) fn open(given: &Path, config: &HubConfig, log: &mut Log) -> io::Result<Opened> {
    // Before the full segments: a hub that is about to rename the newest one keeps its lock.
    let newest = Segment::open(given)?;
    // Renaming a symbolic link would leave the file where it is.
    let path = fs::canonicalize(given)?;
    // Tells the log that there is a file.
    log.raise_file_lost_to(0);
    let (mut places, full) = recover_full(&path, log, config)?;
    let first = log.head + 1;
    let (valid_len, len) = recover(&path, &newest, log, config)?;
    let mark = open_regular(&with_suffix(&path, "next"))?;
    let last = match read_mark(&mark) {
        Some(acknowledged) => acknowledged.max(log.head),
        // Where the end is missing, at least one acknowledged event may be.
        None => log.head + u64::from(valid_len < len || (len == 0 && !full.is_empty())),
    };
    places.push(Place {
        path: path.clone(),
        first,
    });
    let places = Places(Arc::new(Mutex::new(places)));
    let mut store = FileStore {
        given: given.to_path_buf(),
        path,
        history: config.history.clone(),
        newest,
        full,
        mark,
        valid_len,
        has_partial_tail: true,
        // A later epoch never gives out a sequence again, and the log knows by this that the sequences before are lost.
        epoch: (random_u64(), last + 1),
        removed_to: 0,
        places: places.clone(),
    };
    log.begin_epoch(store.epoch);
    if valid_len < len {
        config.report(&store.copy_tail()?);
    }
    store.write(epoch_line(store.epoch).as_bytes())?;
    store.write_mark(last + 1)?;
    store.sync_folder()?;
    let reader = move || -> Box<dyn OnDisk> {
        Box::new(FileReader {
            places: places.clone(),
            items: None,
            events: Vec::new(),
            read_to: 0,
            settled_to: 0,
        })
    };
    Ok((Box::new(store), Box::new(reader)))
}

/// Locks and recovers the full segments.
fn recover_full(
    path: &Path,
    log: &mut Log,
    config: &HubConfig,
) -> io::Result<(Vec<Place>, Vec<Segment>)> {
    let (mut places, mut full) = (Vec::new(), Vec::new());
    for path in full_segments(path)? {
        let segment = Segment::open(&path)?;
        let first = log.head + 1;
        let (valid_len, len) = recover(&path, &segment, log, config)?;
        if valid_len < len {
            let name = path.display();
            config.report(&format!("{name} cannot be read after byte {valid_len}"));
        }
        places.push(Place { path, first });
        full.push(segment);
    }
    Ok((places, full))
}

/// Gives the log what one segment holds. Returns where its last whole item ends, and its length.
fn recover(
    path: &Path,
    segment: &Segment,
    log: &mut Log,
    config: &HubConfig,
) -> io::Result<(u64, u64)> {
    let name = path.display();
    let mut items = Items::open(path)?;
    let mut is_damaged = false;
    loop {
        while let Some(item) = items.next()? {
            match item {
                Item::Epoch(epoch) => log.begin_epoch(epoch),
                Item::Event(event) => {
                    // The damage may have been the line of this event's epoch.
                    let id = wire_id(event.frame.bytes(Coding::Bare)).and_then(EventId::parse);
                    let new_epoch = id.filter(|id| is_damaged && id.epoch != log.next_id().epoch);
                    if let Some(id) = new_epoch {
                        log.begin_epoch((id.epoch, event.sequence));
                    }
                    log.restore(event);
                }
            }
        }
        let valid_len = items.position;
        if !items.skip_damage() {
            if valid_len == 0 && !items.may_be_new() {
                let text = format!("{name} is not a history, and stays as it is");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            return Ok((valid_len, segment.file.metadata()?.len()));
        }
        is_damaged = true;
        let end = items.position;
        config.report(&format!(
            "{name} cannot be read from byte {valid_len} to byte {end}"
        ));
    }
}

/// The path of a segment, and its first sequence.
struct Place {
    path: PathBuf,
    first: u64,
}

/// The segments that there are, oldest first. Shared by the store, which changes the list, and its readers.
#[derive(Clone)]
struct Places(Arc<Mutex<Vec<Place>>>);

impl Places {
    /// Opens the segment that has the event after a cursor. Returns `None` also where it has just been removed.
    fn open(&self, cursor: u64) -> Option<Items> {
        let places = lock(&self.0);
        let mut newest_first = places.iter().rev();
        let holds = newest_first.find(|place| place.first <= cursor + 1)?;
        let path = holds.path.clone();
        drop(places);
        Items::open(&path).ok()
    }
}

/// What tells two files apart, whatever their names: device and inode.
type FileId = (u64, u64);

/// The segments that the hubs of this process have locked.
static LOCKED: Mutex<Vec<FileId>> = Mutex::new(Vec::new());

/// A segment that no other hub can open, in this process or in another one, until it is dropped.
struct Segment {
    file: File,
    id: FileId,
}

impl Segment {
    /// Opens and locks a segment, and creates it where there is none.
    fn open(path: &Path) -> io::Result<Segment> {
        let file = open_regular(path)?;
        let id = file_id(&file.metadata()?);
        let error = match try_lock(&file) {
            Ok(()) => {
                lock(&LOCKED).push(id);
                return Ok(Segment { file, id });
            }
            Err(TryLockError::Error(error)) => return Err(named(path, &error)),
            Err(TryLockError::WouldBlock) => io::ErrorKind::WouldBlock,
        };
        let owner = match lock(&LOCKED).contains(&id) {
            true => "another hub of this process",
            false => "another process",
        };
        let text = format!("{} is in use by {owner}", path.display());
        Err(io::Error::new(error, text))
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        lock(&LOCKED).retain(|locked| *locked != self.id);
        // Closing would not unlock the file while a child process that is being started has a copy of the descriptor.
        let _ = self.file.unlock();
    }
}

struct FileStore {
    /// The path that the caller gave, under which a restart looks for the newest segment.
    given: PathBuf,
    /// Where that is without symbolic links.
    path: PathBuf,
    history: History,
    newest: Segment,
    /// The older ones, as `places` has them before its last.
    full: Vec<Segment>,
    mark: File,
    /// Where the last whole item of the newest segment ends.
    valid_len: u64,
    /// Something may stand after that; the next write cuts it off first.
    has_partial_tail: bool,
    epoch: Epoch,
    /// The last sequence that was removed at the old end.
    removed_to: u64,
    places: Places,
}

impl Store for FileStore {
    fn append(&mut self, batch: &[Numbered]) -> io::Result<u64> {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
            return Ok(self.removed_to);
        };
        self.make_room(first.sequence)?;
        let mut bytes = Vec::new();
        if self.valid_len == 0 {
            bytes.extend_from_slice(epoch_line(self.epoch).as_bytes());
        }
        for event in batch {
            append_event(&mut bytes, event);
        }
        self.write(&bytes)?;
        // The events are in the file. With an older mark, recovery only notices less.
        let _ = self.write_mark(last.sequence + 1);
        Ok(self.removed_to)
    }
}

impl FileStore {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.has_partial_tail {
            self.newest.file.set_len(self.valid_len)?;
            self.newest.file.seek(SeekFrom::Start(self.valid_len))?;
        }
        self.has_partial_tail = true;
        if let Err(error) = self.write_through(bytes) {
            // Some events may be whole, but all of the batch is refused: nobody may find them, now or after a restart.
            let _ = self.newest.file.set_len(self.valid_len);
            return Err(error);
        }
        self.has_partial_tail = false;
        self.valid_len += bytes.len() as u64;
        Ok(())
    }

    fn write_through(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.newest.file.write_all(bytes)?;
        match self.history.durability {
            Durability::Sync => self.newest.file.sync_data(),
            Durability::Os => Ok(()),
        }
    }

    fn write_mark(&mut self, next: u64) -> io::Result<()> {
        self.mark.seek(SeekFrom::Start(0))?;
        self.mark
            .write_all(epoch_line((self.epoch.0, next)).as_bytes())
    }

    /// Copies what stands after the last whole item, before it is cut off. Returns what to report.
    fn copy_tail(&mut self) -> io::Result<String> {
        let copy = with_suffix(&self.path, &format!("cut-{:016x}", self.epoch.0));
        let tail = SeekFrom::Start(self.valid_len);
        let copied = File::create_new(&copy).and_then(|mut out| {
            self.newest.file.seek(tail)?;
            io::copy(&mut self.newest.file, &mut out)?;
            out.sync_all()
        });
        copied.map_err(|error| named(&copy, &error))?;
        Ok(format!(
            "{} cannot be read after byte {}; what stood there is in {} now",
            self.path.display(),
            self.valid_len,
            copy.display()
        ))
    }

    /// Begins a new segment with the event `next`, where the newest one is full or was removed.
    fn make_room(&mut self, next: u64) -> io::Result<()> {
        let is_in_place = self.is_in_place()?;
        let bytes = self.history.file_bytes;
        // Each segment holds a descriptor: at most 256 of them.
        let max_len = (bytes / 16).clamp(4 * 1024, (bytes / 256).max(16 * 1024 * 1024));
        if is_in_place && self.valid_len < max_len {
            return Ok(());
        }
        let mut places = lock(&self.places.0);
        if is_in_place && let Some(newest) = places.last_mut() {
            let mut first = newest.first;
            let mut full = with_suffix(&self.path, &format!("{first:020}"));
            // Only a segment of which nothing could be read has this name.
            while full.exists() {
                first += 1;
                full = with_suffix(&self.path, &format!("{first:020}"));
            }
            fs::rename(&self.path, &full)?;
            newest.path = full;
        }
        let newest = Segment::open(&self.path)?;
        if newest.file.metadata()?.len() > 0 {
            return Err(self.replaced());
        }
        let older = mem::replace(&mut self.newest, newest);
        (self.valid_len, self.has_partial_tail) = (0, false);
        // Without what was removed: readers go on with what memory has of it.
        if places.pop_if(|newest| newest.path == self.path).is_none() {
            self.full.push(older);
        }
        places.push(Place {
            path: self.path.clone(),
            first: next,
        });
        drop(places);
        self.remove_old();
        self.sync_folder()
    }

    /// Whether a restart would find the newest segment. Returns false where it would find nothing.
    fn is_in_place(&self) -> io::Result<bool> {
        let found = id_at(&self.given)?;
        if found == Some(self.newest.id) {
            return Ok(true);
        }
        match found.or(id_at(&self.path)?) {
            None => Ok(false),
            Some(_) => Err(self.replaced()),
        }
    }

    fn replaced(&self) -> io::Error {
        io::Error::other(format!(
            "{} is not the file any more that this hub writes to; move that one back, or move away what is there now",
            self.given.display()
        ))
    }

    /// Removes the oldest segments while all are too large. One that cannot be removed is tried again with the next one.
    fn remove_old(&mut self) {
        let mut places = lock(&self.places.0);
        let len = |place: &Place| fs::metadata(&place.path).map_or(0, |it| it.len());
        let mut bytes: u64 = places.iter().map(len).sum();
        while places.len() > 1 && bytes > self.history.file_bytes {
            let oldest = len(&places[0]);
            if fs::remove_file(&places[0].path).is_err() && oldest > 0 {
                break;
            }
            bytes -= oldest;
            places.remove(0);
            self.full.remove(0);
            self.removed_to = places[0].first - 1;
        }
    }

    /// Makes a rename and a new file survive a power failure. Windows opens no folders.
    fn sync_folder(&self) -> io::Result<()> {
        if self.history.durability == Durability::Sync && cfg!(unix) {
            File::open(folder(&self.path))?.sync_all()?;
        }
        Ok(())
    }
}

struct FileReader {
    places: Places,
    items: Option<Items>,
    /// Events that were returned, and perhaps not sent.
    events: Vec<(u64, Frame)>,
    /// All events up to this one have been read.
    read_to: u64,
    /// The head when `items` last filled its buffer. Events after it may have been refused since.
    settled_to: u64,
}

impl OnDisk for FileReader {
    fn read(
        &mut self,
        topics: &TopicSet,
        cursor: &mut u64,
        head: u64,
        max_bytes: usize,
    ) -> Option<Vec<(u64, Frame)>> {
        self.events.retain(|(sequence, _)| sequence > cursor);
        self.read_to = self.read_to.max(*cursor);
        let mut bytes: usize = self.events.iter().map(|(_, frame)| frame.len()).sum();
        let mut skipped = 0;
        while bytes < max_bytes && skipped / SKIPPED_PER_BYTE < max_bytes && self.read_to < head {
            let Some(event) = self.next(head) else { break };
            self.read_to = event.sequence;
            skipped += event.frame.len();
            if event.topics.iter().any(|name| topics.contains(name)) {
                bytes += event.frame.len();
                self.events.push((event.sequence, event.frame));
            }
        }
        if self.read_to <= *cursor {
            return None;
        }
        if self.events.is_empty() {
            *cursor = self.read_to;
        }
        Some(self.events.clone())
    }
}

impl FileReader {
    /// Returns the event after those that have been read, from this segment or the next one; `None` also where that event
    /// is damaged, or was just removed.
    fn next(&mut self, head: u64) -> Option<Numbered> {
        let next = self.read_to + 1;
        if next > self.settled_to {
            self.settled_to = head;
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
            self.items = Some(self.places.open(self.read_to)?);
        }
        None
    }
}

/// A whole record of a segment.
enum Item {
    Event(Numbered),
    Epoch(Epoch),
}

/// Reads the items of one segment, in order.
struct Items {
    file: File,
    /// A part of the file, as far as it has been read.
    bytes: Vec<u8>,
    /// How many of these bytes belong to items that were returned, or to damage.
    taken: usize,
    /// Where that is in the file.
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

    /// The bytes that were read after the last item: all that the file has, once there is no further item.
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// Returns the next item, or `None` when none is whole there.
    fn next(&mut self) -> io::Result<Option<Item>> {
        loop {
            if let Some((item, len)) = parse_item(self.rest()) {
                self.take(len);
                return Ok(Some(item));
            }
            self.bytes.drain(..self.taken);
            self.taken = 0;
            // Twice as many each time, so that a large event is parsed few times before it is whole.
            let more = self.bytes.len().max(BLOCK_BYTES) as u64;
            let mut file = (&self.file).take(more);
            if file.read_to_end(&mut self.bytes)? == 0 {
                return Ok(None);
            }
        }
    }

    /// Returns the next item, also from after damage.
    fn next_whole(&mut self) -> io::Result<Option<Item>> {
        loop {
            let item = self.next()?;
            if item.is_some() || !self.skip_damage() {
                return Ok(item);
            }
        }
    }

    /// Drops what was read after the last item, to read it again.
    fn forget_rest(&mut self) -> io::Result<()> {
        self.bytes.clear();
        self.taken = 0;
        self.file.seek(SeekFrom::Start(self.position)).map(drop)
    }

    /// Moves on to the next whole item, and returns false when there is none. Such an item begins after a blank line, which
    /// no comment within an event does.
    fn skip_damage(&mut self) -> bool {
        let rest = self.rest();
        let mut lines = (2..rest.len()).filter(|at| rest[at - 2..].starts_with(b"\n\n: "));
        let whole = lines.find(|at| parse_item(&rest[*at..]).is_some());
        self.take(whole.unwrap_or(0));
        whole.is_some()
    }

    /// Whether a file without a whole item can be a history that a crash or a power failure stopped at its beginning: the
    /// file has a part of the first line, or zeros. Anything else is not ours to cut off.
    fn may_be_new(&self) -> bool {
        let start = &self.bytes[..self.bytes.len().min(8)];
        let is_short = self.bytes.len() < epoch_line((0, 0)).len();
        (is_short && b": epoch ".starts_with(start)) || start.iter().all(|&byte| byte == 0)
    }

    fn take(&mut self, len: usize) {
        self.taken += len;
        self.position += len as u64;
    }
}

/// Returns the item at the beginning of these bytes and its length, or `None` when none is whole there.
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
    let names: Vec<&str> = event.topics.iter().map(|name| &**name).collect();
    let names = names.join("\t");
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

/// The id of an event whose publisher gave the id.
fn callers_id(text: &[u8]) -> Option<Arc<str>> {
    let id = wire_id(text)?;
    id::check_callers(id).is_ok().then(|| id.into())
}

/// Whether the event is the last of its topics.
fn is_finishing(text: &[u8]) -> bool {
    wire_id(text).is_some_and(id::is_ending)
}

fn wire_id(text: &[u8]) -> Option<&str> {
    let line = text.split(|byte| *byte == b'\n').next()?;
    str::from_utf8(line.strip_prefix(b"id: ")?).ok()
}

/// FNV-1a of 64 bits over all parts of a record. One damaged byte always changes the checksum; any other damage leaves it
/// unchanged once in 2^64 times.
fn checksum(sequence: u64, names: &str, text: &[u8]) -> u64 {
    let parts = [&sequence.to_be_bytes()[..], names.as_bytes(), b"\n", text];
    let bytes = parts.into_iter().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Reads the last acknowledged sequence.
fn read_mark(mark: &File) -> Option<u64> {
    let mut text = String::new();
    mark.take(MAX_LINE_BYTES as u64)
        .read_to_string(&mut text)
        .ok()?;
    let (_, next) = parse_epoch(text.lines().next()?.strip_prefix(": ")?)?;
    next.checked_sub(1)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// The full segments, oldest first: their names end in 20 digits.
fn full_segments(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(path))? {
        let candidate = entry?.path();
        let digits = candidate.extension().unwrap_or_default().as_encoded_bytes();
        let is_numbered = digits.len() == 20 && digits.iter().all(u8::is_ascii_digit);
        if is_numbered && candidate.file_stem() == path.file_name() {
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

/// Opens a regular file to read and write, and creates it where there is none.
fn open_regular(path: &Path) -> io::Result<File> {
    // Opening or reading anything else may never end.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let text = format!("{} is not a regular file", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    // Others may read and rename the file, and not write to it.
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 1 | 4);
    options
        .open(path)
        .map_err(|error| match folder(path).exists() {
            true => named(path, &error),
            false => named(folder(path), &error),
        })
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Locks a file. On Windows a lock would keep readers away as well, and opening has kept other writers away.
fn try_lock(file: &File) -> Result<(), TryLockError> {
    match cfg!(windows) {
        true => Ok(()),
        false => file.try_lock(),
    }
}

fn id_at(path: &Path) -> io::Result<Option<FileId>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(|found| Some(file_id(&found))),
    }
}

#[cfg(unix)]
fn file_id(file: &Metadata) -> FileId {
    use std::os::unix::fs::MetadataExt;
    (file.dev(), file.ino())
}

/// Elsewhere std does not tell.
#[cfg(not(unix))]
fn file_id(_: &Metadata) -> FileId {
    (0, 0)
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
