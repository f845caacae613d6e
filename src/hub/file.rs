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
//! | `history.before-5c0f9a3be1d27764` | the newest segment before that epoch, where recovery could not read its end |
//!
//! A hub locks the segments themselves. A lock on a name would not keep out a hub that comes through another name.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::archive::{Entries, Entry, EventLog};
use super::config::{Durability, History, HubConfig};
use super::frame::Frame;
use super::id::{self, EventId};
use super::log::{Epoch, Log, Numbered};
use super::topics;
use crate::http::Coding;
use crate::lock::lock;
use crate::random::random_u64;

/// Longest comment line: 64 topics of 256 bytes, and the numbers.
const MAX_LINE_BYTES: u64 = 32 * 1024;

/// Bytes that are read at a time, unless an event needs more.
const BLOCK_BYTES: usize = 64 * 1024;

/// The writing end, and the reading end.
pub(crate) type Opened = (Box<dyn Store>, Box<dyn EventLog>);

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
    log.raise_archive_lost_to(0);
    let mut places = full_segments(&path)?;
    let mut full = Vec::new();
    for place in &places {
        full.push(Segment::open(&place.path)?);
        recover(&place.path, log, config)?;
    }
    // A name that no full segment has, also where nothing of the last one could be read.
    let first = 1 + places.last().map_or(0, |last| last.first).max(log.head);
    let valid_len = recover(&path, log, config)?;
    let len = newest.file.metadata()?.len();
    let mark = open_regular(&with_suffix(&path, "next"))?;
    let last = match read_mark(&mark) {
        Some(acknowledged) => acknowledged.max(log.head),
        // Where the end is missing, at least one acknowledged event may be.
        None => log.head + u64::from(valid_len < len || (len == 0 && !full.is_empty())),
    };
    // No sequence is given out again, and the log takes those that it has not seen for lost.
    let epoch = (random_u64(), last + 1);
    log.begin_epoch(epoch);
    if valid_len < len {
        let copy = with_suffix(&path, &format!("before-{:016x}", epoch.0));
        fs::copy(&path, &copy)?;
        File::open(&copy)?.sync_all()?;
        let (name, copy) = (path.display(), copy.display());
        config.report(&format!(
            "{copy} is a copy of {name}, which now ends at byte {valid_len}"
        ));
    }
    let place = path.clone();
    places.push(Place { path: place, first });
    let places = Arc::new(Mutex::new(places));
    let mut store = FileStore {
        given: given.to_path_buf(),
        path,
        history: config.history.clone(),
        newest,
        full,
        mark,
        valid_len,
        has_partial_tail: true,
        epoch,
        removed_to: 0,
        places: Arc::clone(&places),
    };
    store.write(epoch_line(epoch).as_bytes())?;
    store.write_mark(epoch.1)?;
    store.sync_folder()?;
    Ok((Box::new(store), Box::new(FileLog(places))))
}

/// Gives the log what one segment holds, and returns where its last whole item ends.
fn recover(path: &Path, log: &mut Log, config: &HubConfig) -> io::Result<u64> {
    let report = |from, to| {
        let name = path.display();
        config.report(&format!(
            "{name} cannot be read from byte {from} to byte {to}"
        ));
    };
    let mut items = Items::open(path)?;
    let mut is_damaged = false;
    loop {
        let from = items.position;
        let Some((begin, item)) = items.next()? else {
            break;
        };
        if begin > from {
            is_damaged = true;
            report(from, begin);
        }
        match item {
            Item::Epoch(epoch) => log.begin_epoch(epoch),
            Item::Event(event) => {
                // The damage may have been the line of this event's epoch.
                let id =
                    wire_id(event.frame.bytes(Coding::CloseDelimited)).and_then(EventId::parse);
                let new = id.filter(|id| is_damaged && id.epoch != log.next_id().epoch);
                if let Some(id) = new {
                    log.begin_epoch((id.epoch, event.sequence));
                }
                log.restore(event);
            }
        }
    }
    let end = items.file.seek(SeekFrom::End(0))?;
    if items.position < end {
        if items.position == 0 && !items.may_be_new()? {
            let text = "is not a history, and stays as it is";
            return Err(problem(path, ErrorKind::InvalidData, text));
        }
        report(items.position, end);
    }
    Ok(items.position)
}

/// The path of a segment, and its first sequence.
struct Place {
    path: PathBuf,
    first: u64,
}

/// The segments that there are, oldest first. Shared by the store, which changes the list, and its readers.
type Places = Arc<Mutex<Vec<Place>>>;

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
        // On Windows a lock would keep readers away as well, and opening has kept other writers away.
        if let Err(error) = if cfg!(windows) {
            Ok(())
        } else {
            file.try_lock()
        } {
            let owner = match error {
                TryLockError::Error(error) => return Err(problem(path, error.kind(), error)),
                _ if lock(&LOCKED).contains(&id) => "is in use by another hub of this process",
                _ => "is in use by another process",
            };
            return Err(problem(path, ErrorKind::WouldBlock, owner));
        }
        lock(&LOCKED).push(id);
        Ok(Segment { file, id })
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
        let mut file = &self.newest.file;
        if self.has_partial_tail {
            file.set_len(self.valid_len)?;
            file.seek(SeekFrom::Start(self.valid_len))?;
        }
        self.has_partial_tail = true;
        let written = file
            .write_all(bytes)
            .and_then(|()| match self.history.durability {
                Durability::Sync => file.sync_data(),
                Durability::Os => Ok(()),
            });
        if written.is_err() {
            // Some events may be whole, but all of the batch is refused: nobody may find them, now or after a restart.
            let _ = file.set_len(self.valid_len);
            return written;
        }
        self.has_partial_tail = false;
        self.valid_len += bytes.len() as u64;
        Ok(())
    }

    fn write_mark(&mut self, next: u64) -> io::Result<()> {
        self.mark.seek(SeekFrom::Start(0))?;
        let line = epoch_line((self.epoch.0, next));
        self.mark.write_all(line.as_bytes())
    }

    /// Begins a new segment with the event `next`, where the newest one is full or was removed.
    fn make_room(&mut self, next: u64) -> io::Result<()> {
        let at = |path: &Path| fs::metadata(path).ok().map(|found| file_id(&found));
        let is_in_place = match (at(&self.given), at(&self.path)) {
            (Some(id), _) if id == self.newest.id => true,
            (None, None) => false,
            _ => return Err(self.replaced()),
        };
        let bytes = self.history.file_bytes;
        // Each segment holds a descriptor: at most 256 of them.
        let max_len = (bytes / 16).clamp(4 * 1024, (bytes / 256).max(16 * 1024 * 1024));
        if is_in_place && self.valid_len < max_len {
            return Ok(());
        }
        let mut places = lock(&self.places);
        if is_in_place && let Some(newest) = places.last_mut() {
            let full = with_suffix(&self.path, &format!("{:020}", newest.first));
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
        let path = self.path.clone();
        places.push(Place { path, first: next });
        drop(places);
        self.remove_old();
        self.sync_folder()
    }

    fn replaced(&self) -> io::Error {
        let text = "is not the file any more that this hub writes to; \
            move that one back, or move away what is there now";
        problem(&self.given, ErrorKind::Other, text)
    }

    /// Removes the oldest segments while all are too large. One that cannot be removed is tried again with the next one.
    fn remove_old(&mut self) {
        let mut places = lock(&self.places);
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
            self.removed_to = places[0].first.saturating_sub(1);
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

/// The segments as readers see them.
struct FileLog(Places);

impl EventLog for FileLog {
    fn read(&self, after: u64) -> io::Result<Entries> {
        Ok(Box::new(FileEntries {
            places: Arc::clone(&self.0),
            after,
            segment: None,
        }))
    }
}

/// The entries of one segment after the other. What is damaged or was removed is left out.
struct FileEntries {
    places: Places,
    after: u64,
    /// The segment that is being read, and its first sequence.
    segment: Option<(u64, Items)>,
}

impl Iterator for FileEntries {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        loop {
            if let Some((_, items)) = &mut self.segment
                && let Ok(Some((_, item))) = items.next()
            {
                match item {
                    Item::Event(event) if event.sequence > self.after => {
                        return Some(Ok(entry(&event)));
                    }
                    _ => continue,
                }
            }
            let (first, path) = self.next_place()?;
            // A segment that was just removed has nothing: another call finds the oldest that is there.
            self.segment = Some((first, Items::open(&path).ok()?));
        }
    }
}

impl FileEntries {
    /// The segment after the one that was read; at first the one that has, or would have, the event asked for.
    fn next_place(&self) -> Option<(u64, PathBuf)> {
        let places = lock(&self.places);
        let place = match &self.segment {
            Some((first, _)) => places.iter().find(|place| place.first > *first),
            None => {
                let has = |place: &&Place| place.first <= self.after + 1;
                places.iter().rfind(has).or(places.first())
            }
        }?;
        Some((place.first, place.path.clone()))
    }
}

fn entry(event: &Numbered) -> Entry {
    Entry {
        sequence: event.sequence,
        topics: event.topics.iter().map(|name| name.to_string()).collect(),
        event: event.frame.event(),
    }
}

/// A whole record of a segment.
enum Item {
    Event(Numbered),
    Epoch(Epoch),
}

/// Reads the items of one segment, in order.
struct Items {
    file: BufReader<File>,
    /// Where the last item ends.
    position: u64,
}

impl Items {
    fn open(path: &Path) -> io::Result<Items> {
        let file = BufReader::with_capacity(BLOCK_BYTES, File::open(path)?);
        Ok(Items { file, position: 0 })
    }

    /// Returns the next whole item and where it begins, which is later than the last one's end where there is damage.
    fn next(&mut self) -> io::Result<Option<(u64, Item)>> {
        let mut begin = self.position;
        loop {
            if let Some((item, len)) = read_item(&mut self.file)? {
                self.position = begin + len;
                return Ok(Some((begin, item)));
            }
            // An item begins after a blank line, as no comment within an event does.
            self.seek(begin)?;
            let mut line = Vec::new();
            while line != b"\n" {
                line.clear();
                match self.file.read_until(b'\n', &mut line)? {
                    0 => {
                        self.seek(self.position)?;
                        return Ok(None);
                    }
                    len => begin += len as u64,
                }
            }
        }
    }

    /// Goes to a place in the file, and keeps what has been read where that is near.
    fn seek(&mut self, to: u64) -> io::Result<()> {
        let here = self.file.stream_position()?;
        self.file.seek_relative(to.wrapping_sub(here) as i64)
    }

    /// Whether a file without a whole item can be a history that a crash or a power failure stopped at its beginning: the
    /// file has a part of the first line, or zeros. Anything else is not ours to cut off.
    fn may_be_new(&mut self) -> io::Result<bool> {
        let line = epoch_line((0, 0));
        let mut bytes = Vec::new();
        self.file.rewind()?;
        let limit = line.len() as u64;
        self.file.by_ref().take(limit).read_to_end(&mut bytes)?;
        let start = &bytes[..bytes.len().min(8)];
        let is_part = bytes.len() < line.len() && line.as_bytes().starts_with(start);
        Ok(is_part || start.iter().all(|byte| *byte == 0))
    }
}

/// Reads the item at the file's position. Returns it with its length, or `None` when none is whole there.
fn read_item(file: &mut BufReader<File>) -> io::Result<Option<(Item, u64)>> {
    let (mut line, mut text) = (Vec::new(), Vec::new());
    file.take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    let Some(line) = line
        .strip_prefix(b": ")
        .and_then(|line| line.strip_suffix(b"\n"))
    else {
        return Ok(None);
    };
    let Ok(line) = str::from_utf8(line) else {
        return Ok(None);
    };
    let epoch = parse_epoch(line);
    let fields: Vec<&str> = line.splitn(4, ' ').collect();
    // An epoch has a blank line for its text.
    let len = match epoch {
        Some(_) => Some(1),
        None => fields.get(2).and_then(|len| len.parse().ok()),
    };
    let Some(len) = len else { return Ok(None) };
    file.take(len).read_to_end(&mut text)?;
    let item = match epoch {
        Some(epoch) => (text == b"\n").then_some(Item::Epoch(epoch)),
        None => parse_event(&fields, &text).map(Item::Event),
    };
    Ok(item.map(|item| (item, (line.len() + 3 + text.len()) as u64)))
}

fn parse_event(fields: &[&str], text: &[u8]) -> Option<Numbered> {
    let [sequence, sum, len, names] = fields else {
        return None;
    };
    let sequence = sequence.parse().ok()?;
    let sum = u64::from_str_radix(sum, 16).ok()?;
    if sum != checksum(sequence, names, text) || len.parse() != Ok(text.len()) {
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

fn append_event(out: &mut Vec<u8>, event: &Numbered) {
    let names: Vec<&str> = event.topics.iter().map(|name| &**name).collect();
    let names = names.join("\t");
    let text = event.frame.bytes(Coding::CloseDelimited);
    let (sequence, len) = (event.sequence, text.len());
    let sum = checksum(sequence, &names, text);
    // Writing to a vector cannot fail.
    let _ = writeln!(out, ": {sequence} {sum:016x} {len} {names}");
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

/// Reads the last acknowledged sequence.
fn read_mark(mark: &File) -> Option<u64> {
    let read = read_item(&mut BufReader::new(mark.try_clone().ok()?)).ok()?;
    match read? {
        (Item::Epoch((_, next)), _) => next.checked_sub(1),
        (Item::Event(_), _) => None,
    }
}

/// The id of an event on the wire.
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

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// The full segments, oldest first: their names end in 20 digits.
fn full_segments(newest: &Path) -> io::Result<Vec<Place>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(newest))? {
        let path = entry?.path();
        let number = path.extension().unwrap_or_default().to_str();
        if let Some(digits) = number.filter(|digits| digits.len() == 20)
            && path.file_stem() == newest.file_name()
            && let Ok(first) = digits.parse()
        {
            found.push(Place { path, first });
        }
    }
    found.sort_by_key(|place| place.first);
    Ok(found)
}

fn folder(path: &Path) -> &Path {
    let folder = path.parent();
    folder
        .filter(|folder| *folder != "")
        .unwrap_or(Path::new("."))
}

/// Opens a regular file to read and write, and creates it where there is none.
fn open_regular(path: &Path) -> io::Result<File> {
    // Opening or reading anything else may never end.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(problem(
            path,
            ErrorKind::InvalidData,
            "is not a regular file",
        ));
    }
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    // Others may read and rename the file, and not write to it.
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 1 | 4);
    options.open(path).map_err(|error| {
        let folder = folder(path);
        let missing = if folder.exists() { path } else { folder };
        problem(missing, error.kind(), format!("cannot be opened: {error}"))
    })
}

fn problem(path: &Path, kind: ErrorKind, text: impl Display) -> io::Error {
    io::Error::new(kind, format!("{} {text}", path.display()))
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
    use crate::hub::archive::{ArchiveReader, Found};

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
        let (mut store, archive) = open(&path, &config, &mut log).unwrap();
        let mut reader = ArchiveReader::default();
        let mut cursor = 0;
        let mut read = |head| {
            let topics = topics::check(vec!["a"]).unwrap();
            let id = |sequence| log.id(sequence);
            let found = reader.read(&*archive, &topics, cursor, head, 1, &id);
            let Found::Events(events, _) = found else {
                panic!("no events")
            };
            let (sequence, frame) = events.last().unwrap();
            cursor = *sequence;
            String::from_utf8_lossy(frame.bytes(Coding::CloseDelimited)).to_string()
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
