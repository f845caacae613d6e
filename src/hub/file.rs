//! The history's file: append, recover, and read what is no longer in memory. [`record`] has its format.
//!
//! | file | what it has |
//! | --- | --- |
//! | `history` | the newest segment, the only one that is written |
//! | `history.00000000000000000001` | an older, full segment, named by its first sequence |
//! | `history.next` | the sequence after the last acknowledged event, so that recovery notices a lost end |
//!
//! ```text
//!  removed first                               the only one that is written
//!  history.…0001      history.…4711      history                        history.next
//!  ┌────────────┐     ┌────────────┐     ┌────────────────┬┄┄┄┄┄┄┄┄┐    ┌───────────┐
//!  │ epoch      │     │ epoch      │     │ epoch          │        │    │ epoch     │
//!  │ 1 … 4710   │     │ 4711 … 8500│     │ 8501 … 9000    │        │    │ from 9001 │
//!  └────────────┘     └────────────┘     └────────────────┴┄┄┄┄┄┄┄┄┘    └───────────┘
//!                                                        len   partial tail of a failed write
//! ```
//!
//! **Writing.** A batch is one write at the end of the newest segment. The bytes of a failed write are cut off, at once or
//! before the next write: no reader may find an event that was refused. A full segment is renamed, and a new one takes its
//! name: it is locked before, as `history.new`, so that no other hub can lock it first. The oldest segments are removed while
//! all together are too large.
//!
//! **Recovery.** Opening a history reads all segments into the log, which keeps what it has room for. Bytes that are no record
//! are reported, passed over, and left where they are: at the end of the newest segment as in the middle of any. A new epoch
//! begins after the last event that may have been acknowledged. If events are missing before it, their readers are told of a
//! gap.
//!
//! | what happened | what it leads to |
//! | --- | --- |
//! | the process was killed in a write | the whole records of the batch are kept; the partial one is passed over, and is no gap |
//! | a loss of power took records, and not `history.next` | the numbers in between are lost: a gap |
//! | another program cut the file off | the numbers that are missing are lost: a gap |
//! | bytes in the middle are damaged | a gap to the last of the damaged records, for all readers that were before them |
//! | the file is not a history | the hub does not open, and the file stays as it is |
//! | the disk is full | all of the batch is refused, and its numbers go to the next one |
//!
//! **Reading.** A reader that needs events that are no longer in memory opens the segment that has them, and goes on from
//! segment to segment. It takes no lock while it reads. It may find events of a batch that is just being written, or of a batch
//! that will be refused: [`ArchiveReader`](super::archive::ArchiveReader) takes none after the newest event of the log.
//!
//! **Locks.** A hub locks the segments themselves. A lock on a name would not keep out a hub that comes through another name.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::iter;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::archive::{Entries, Entry, EventLog};
use super::config::{Durability, HubConfig};
use super::log::{Epoch, Log, Numbered};
use super::record::{self, Record, Records};
use crate::lock::lock;
use crate::random::random_u64;
use crate::user_code::guarded;

/// Stands between a damaged end and what follows. No record has a CR, so no line that follows can complete the damaged bytes to
/// a record.
const SEPARATOR: &str = "\r\n\n";

/// Opens or creates a history's file, gives all that it holds to the log, and begins a new epoch. Returns the writing end and
/// the reading end.
///
/// # Errors
///
/// The system's error; `WouldBlock` when another hub has the file, `InvalidData` when the file is not a history.
pub(crate) fn open(
    given: &Path,
    config: &HubConfig,
    log: &mut Log,
) -> io::Result<(FileStore, FileLog)> {
    // Locked before the full segments: a hub that is about to rename the newest one keeps its lock.
    let newest = LockedFile::open(given, true)?;
    let opened = open_locked(given, newest, config, log);
    opened.map_err(|error| match error.kind() {
        // A hub that has the history has just renamed or removed the file.
        ErrorKind::NotFound => in_use(given),
        _ => error,
    })
}

/// Does the same with the newest segment's file.
fn open_locked(
    given: &Path,
    newest: LockedFile,
    config: &HubConfig,
    log: &mut Log,
) -> io::Result<(FileStore, FileLog)> {
    // Renaming a symbolic link would leave the file where it is.
    let path = fs::canonicalize(given)?;
    // Tells the log that there is a file.
    log.raise_archive_lost_to(Some(0));
    let (mut segments, mut full) = (full_segments(&path)?, Vec::new());
    for segment in &mut segments {
        let locked = LockedFile::open(&segment.path, false)?;
        segment.id = locked.id;
        full.push(locked);
        recover(&segment.path, log, config)?;
    }
    // A hub that has the history may have replaced the newest segment and removed all that were listed.
    if file_id(&fs::metadata(&path)?) != newest.id {
        return Err(in_use(&path));
    }
    // The newest segment's first number is higher than that of the last full segment, even if nothing in that one can be read.
    let named = segments.last().map_or(0, |last| last.first);
    let first = named.max(log.head).saturating_add(1);
    let end = recover(&path, log, config)?;
    let len = newest.file.metadata()?.len();
    let mark = open_regular(&beside(&path, ".next"), true)?;
    let last = match Records::of(mark.try_clone()?).next()? {
        Some((0, Record::Epoch((_, next)))) => next.saturating_sub(1).max(log.head),
        // Where the end is missing, at least one acknowledged event may be missing too.
        _ => log.head + u64::from(end < len || (len == 0 && !full.is_empty())),
    };
    // The epoch begins after all that may have been acknowledged. What the log has not seen of that is lost.
    let epoch = (random_u64(), last + 1);
    log.begin_epoch(epoch);
    segments.push(Segment {
        path: path.clone(),
        first,
        id: newest.id,
    });
    let segments = Arc::new(Mutex::new(segments));
    let mut store = FileStore {
        given: given.to_path_buf(),
        path,
        config: config.clone(),
        newest,
        full,
        mark,
        len,
        has_partial_tail: true,
        epoch,
        removed_to: 0,
        segments: Arc::clone(&segments),
    };
    // What cannot be read stays.
    let separator = if end < len { SEPARATOR } else { "" };
    store.write(format!("{separator}{}", record::epoch_line(epoch)).as_bytes())?;
    store.write_mark(epoch.1)?;
    store.sync_folder()?;
    Ok((store, FileLog(segments)))
}

/// Gives the log what one segment holds, and returns where its last whole record ends. Reports what is not a record.
///
/// # Errors
///
/// The system's error; `InvalidData` when nothing in the file is a record, and the file is not a history that was just begun.
fn recover(path: &Path, log: &mut Log, config: &HubConfig) -> io::Result<u64> {
    let name = path.display();
    let report = |from, to| {
        let problem = format!("{name} cannot be read from byte {from} to byte {to}");
        guarded(|| (config.on_error)(&problem));
    };
    let (mut records, mut end) = (Records::of(File::open(path)?), 0);
    while let Some((begin, record)) = records.next()? {
        if begin > end {
            report(end, begin);
        }
        end = records.position;
        let (epoch, first) = match &record {
            Record::Epoch((epoch, first)) => (Some(*epoch), *first),
            // The line of this event's epoch may be damaged.
            Record::Event(event) => (record::epoch_in_id(event), event.sequence),
        };
        if let Some(epoch) = epoch.filter(|epoch| *epoch != log.next_id().epoch) {
            log.begin_epoch((epoch, first));
        }
        if let Record::Event(event) = record {
            log.restore(event);
        }
    }
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    if end == 0 && !record::may_be_new(file)? {
        let text = "is not a history, and was left as it is";
        return Err(problem(path, ErrorKind::InvalidData, text));
    }
    if end < len {
        report(end, len);
    }
    Ok(end)
}

/// A part of the history. A new segment begins when the newest one has 1/16 of [`HubConfig::file_bytes`], within limits.
struct Segment {
    /// Where it is now. Only the newest one is at the history's own path.
    path: PathBuf,
    /// No event in it has a lower sequence, and all events of the segments before it have lower ones.
    first: u64,
    /// Shows a reader that another file is in its place.
    id: FileId,
}

impl Segment {
    /// Opens the segment to read it.
    ///
    /// # Errors
    ///
    /// The system's error; also when another file is in the segment's place, whose events may be those of another history.
    fn open(&self) -> io::Result<File> {
        let file = File::open(&self.path)?;
        match file_id(&file.metadata()?) == self.id {
            true => Ok(file),
            false => Err(replaced(&self.path)),
        }
    }
}

/// The segments that there are, oldest first. Shared by the store, which changes the list, and its readers.
///
/// The store renames a segment under this lock, and a reader opens one under it: so a reader never opens the new file that
/// has just got the name of an older one. A file that is open stays readable after a rename, and on Unix after its removal.
type Segments = Arc<Mutex<Vec<Segment>>>;

/// What identifies a file, whatever its name: device and inode number.
type FileId = (u64, u64);

/// A segment's file. No other hub, in this process or in another one, can open the file until this value is dropped.
struct LockedFile {
    file: File,
    /// Shows at the next append whether this is still the file that a restart would find.
    id: FileId,
}

impl LockedFile {
    /// Opens and locks a file. Where there is none, creates it if `create` says so.
    fn open(path: &Path, create: bool) -> io::Result<LockedFile> {
        let file = open_regular(path, create)?;
        // On Windows a lock would keep readers away as well, and opening has kept other writers away.
        if !cfg!(windows) {
            file.try_lock().map_err(|error| match error {
                TryLockError::Error(error) => failed(path, "locked", &error),
                _ => in_use(path),
            })?;
        }
        let id = file_id(&file.metadata()?);
        Ok(LockedFile { file, id })
    }
}

impl Drop for LockedFile {
    /// Unlocks the file.
    fn drop(&mut self) {
        // Closing would not unlock the file while a child process that is being started has a copy of the descriptor.
        let _ = self.file.unlock();
    }
}

/// Writes the newest segment, and removes the oldest ones.
///
/// The hub thread owns it. Readers share the list of segments with it, and nothing else.
pub(crate) struct FileStore {
    /// The path that the caller gave, under which a restart will look for the newest segment.
    given: PathBuf,
    /// The same without symbolic links.
    path: PathBuf,
    /// The hub's limits, of which the durability and the size of the file count here.
    config: HubConfig,
    /// The segment that is written: the last of `segments`.
    newest: LockedFile,
    /// The files of `segments` before the last, in the same order. They are open only to keep their locks.
    full: Vec<LockedFile>,
    /// The file for the sequence after the last acknowledged one.
    mark: File,
    /// How many bytes the newest segment has.
    len: u64,
    /// The file may have more bytes, of a write that failed. The next write cuts them off first.
    has_partial_tail: bool,
    /// The epoch of this hub, which stands at the beginning of each segment too.
    epoch: Epoch,
    /// The last sequence that was removed at the old end.
    removed_to: u64,
    /// Locked while a segment is added, renamed or removed.
    segments: Segments,
}

impl FileStore {
    /// Appends a batch with one write and, with [`Durability::Sync`], one sync. Returns the last sequence that was removed
    /// at the file's old end.
    ///
    /// # Errors
    ///
    /// The system's error. Then nothing of the batch counts as written.
    pub(crate) fn append(&mut self, batch: &[Numbered]) -> io::Result<u64> {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
            return Ok(self.removed_to);
        };
        self.make_room(first.sequence)?;
        let mut bytes = Vec::new();
        if self.len == 0 {
            bytes.extend_from_slice(record::epoch_line(self.epoch).as_bytes());
        }
        for event in batch {
            record::append_event(&mut bytes, event);
        }
        self.write(&bytes)?;
        // The events are in the file. With an older mark, recovery may overlook a lost end.
        let _ = self.write_mark(last.sequence + 1);
        Ok(self.removed_to)
    }

    /// Writes bytes at the end of the newest segment, all or none, and syncs them where the history asks for it.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut file = &self.newest.file;
        if self.has_partial_tail {
            file.set_len(self.len)?;
            file.seek(SeekFrom::Start(self.len))?;
        }
        let mut written = file.write_all(bytes);
        if self.config.durability == Durability::Sync {
            written = written.and_then(|()| file.sync_data());
        }
        match &written {
            Ok(()) => self.len += bytes.len() as u64,
            // Some events may be whole, but all of the batch is refused: nobody may find them, now or after a restart.
            Err(_) => drop(file.set_len(self.len)),
        }
        self.has_partial_tail = written.is_err();
        written
    }

    /// Goes on where another program has cut off the newest segment. What is written at the old end would follow zeros, and the
    /// first event would not be found.
    ///
    /// # Errors
    ///
    /// The system's error. The next call tries again.
    fn go_on_after_cut(&mut self, len: u64) -> io::Result<()> {
        let old_len = mem::replace(&mut self.len, len);
        self.has_partial_tail = true;
        // An empty segment begins as any other does.
        if len > 0 {
            let text = format!("{SEPARATOR}{}", record::epoch_line(self.epoch));
            self.write(text.as_bytes())
                .inspect_err(|_| self.len = old_len)?;
        }
        Ok(())
    }

    /// Replaces the sequence after the last acknowledged event. Recovery takes the events before this sequence that it does not
    /// find as lost.
    fn write_mark(&mut self, next: u64) -> io::Result<()> {
        self.mark.seek(SeekFrom::Start(0))?;
        let line = record::epoch_line((self.epoch.0, next));
        self.mark.write_all(line.as_bytes())
    }

    /// Begins a new segment with the event `next`, where the newest one is full or was removed.
    ///
    /// # Errors
    ///
    /// The system's error; also when another file is in this file's place, since a restart would not find what is written.
    fn make_room(&mut self, next: u64) -> io::Result<()> {
        let found = fs::metadata(&self.given).ok();
        let is_in_place = found.is_some();
        let is_replaced = match &found {
            Some(found) => file_id(found) != self.newest.id,
            // Only a link to the file has gone.
            None => self.path.exists(),
        };
        if is_replaced {
            return Err(replaced(&self.given));
        }
        if let Some(len) = found.map(|found| found.len()).filter(|len| *len < self.len) {
            self.go_on_after_cut(len)?;
        }
        if is_in_place && self.len < segment_bytes(self.config.file_bytes) {
            return Ok(());
        }
        let mut segments = lock(&self.segments);
        let new_path = match is_in_place {
            true => beside(&self.path, ".new"),
            false => self.path.clone(),
        };
        let newest = LockedFile::open(&new_path, true)?;
        if newest.file.metadata()?.len() > 0 {
            return Err(replaced(&new_path));
        }
        if is_in_place && let Some(newest) = segments.last_mut() {
            let full = beside(&self.path, &format!(".{:020}", newest.first));
            fs::rename(&self.path, &full)?;
            newest.path = full;
            // Replaces the empty file of a hub that has just tried to open the history. That hub finds the full segment locked.
            fs::rename(&new_path, &self.path)?;
        }
        let older = mem::replace(&mut self.newest, newest);
        (self.len, self.has_partial_tail) = (0, false);
        // Where the newest one was removed, readers go on with what memory has of its events.
        if segments.pop_if(|newest| newest.path == self.path).is_none() {
            self.full.push(older);
        }
        segments.push(Segment {
            path: self.path.clone(),
            first: next,
            id: self.newest.id,
        });
        drop(segments);
        self.remove_old();
        self.sync_folder()
    }

    /// Removes the oldest segments while all together are too large. A segment that cannot be removed is tried again after the
    /// next rotation.
    fn remove_old(&mut self) {
        let mut segments = lock(&self.segments);
        let len = |segment: &Segment| fs::metadata(&segment.path).map_or(0, |it| it.len());
        let mut bytes: u64 = segments.iter().map(len).sum();
        while segments.len() > 1 && bytes > self.config.file_bytes {
            let oldest = len(&segments[0]);
            if fs::remove_file(&segments[0].path).is_err() && oldest > 0 {
                break;
            }
            bytes -= oldest;
            segments.remove(0);
            self.full.remove(0);
            self.removed_to = segments[0].first.saturating_sub(1);
        }
    }

    /// Makes a rename and a new file survive a power failure. Windows opens no folders.
    fn sync_folder(&self) -> io::Result<()> {
        match self.path.parent() {
            Some(folder) if self.config.durability == Durability::Sync && cfg!(unix) => {
                File::open(folder)?.sync_all()
            }
            _ => Ok(()),
        }
    }
}

/// Returns the size at which a segment of a history of `file_bytes` is full. Each segment holds a descriptor: there are at most
/// 256 of them.
fn segment_bytes(file_bytes: u64) -> u64 {
    (file_bytes / 16).clamp(4 * 1024, (file_bytes / 256).max(16 * 1024 * 1024))
}

/// The segments as readers see them. They stay readable when the hub has gone.
pub(crate) struct FileLog(Segments);

impl EventLog for FileLog {
    /// Reads one segment after the other. What is damaged or was removed is left out. A segment that cannot be opened, as when
    /// the process has no descriptor left or another file is in its place, is an error.
    fn read(&self, after: u64) -> io::Result<Entries> {
        let (segments, mut last) = (Arc::clone(&self.0), None);
        // The segment after the one that was read; at first the one that has, or would have, the event asked for. Opened
        // under the lock, since the newest one is renamed when it is full, and another gets its name.
        let mut next_segment = move || {
            let segments = lock(&segments);
            let has = |segment: &&Segment| segment.first <= after + 1;
            let first = match last {
                Some(last) => last + 1,
                None => segments
                    .iter()
                    .rfind(has)
                    .map_or(0, |segment| segment.first),
            };
            let mut from_first = segments.iter().filter(|segment| segment.first >= first);
            from_first.find_map(|segment| {
                last = Some(segment.first);
                match segment.open() {
                    Err(error) if error.kind() == ErrorKind::NotFound => None,
                    opened => Some(opened.map(Records::of)),
                }
            })
        };
        let mut records: Option<Records> = None;
        Ok(Box::new(iter::from_fn(move || {
            loop {
                let Some(open) = &mut records else {
                    match next_segment()? {
                        Ok(opened) => records = Some(opened),
                        Err(error) => return Some(Err(error)),
                    }
                    continue;
                };
                match open.next() {
                    Ok(Some((_, Record::Event(event)))) if event.sequence > after => {
                        return Some(Ok(entry(event)));
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => records = None,
                }
            }
        })))
    }
}

/// Returns an event of the file as readers get it.
fn entry(event: Numbered) -> Entry {
    Entry {
        sequence: event.sequence,
        topics: event.topics.iter().map(|name| name.to_string()).collect(),
        event: event.frame.event(),
    }
}

/// Returns the path of a file beside the history: the mark, or a full segment.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Finds the full segments in the history's folder, oldest first. The name has all 20 digits that a `u64` can have, so that
/// a listing of the folder is in order too.
fn full_segments(newest: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(newest.parent().unwrap_or(newest))? {
        let path = entry?.path();
        let number = path.extension().and_then(OsStr::to_str);
        if let Some(first) = number.and_then(|number| number.parse().ok())
            && path == beside(newest, &format!(".{first:020}"))
        {
            // Its id is known once it is locked.
            let id = FileId::default();
            found.push(Segment { path, first, id });
        }
    }
    found.sort_by_key(|segment| segment.first);
    Ok(found)
}

/// Opens a regular file to read and write. Where there is none, creates it if `create` says so.
fn open_regular(path: &Path, create: bool) -> io::Result<File> {
    // Opening or reading anything else may never end.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let text = "is not a regular file";
        return Err(problem(path, ErrorKind::InvalidData, text));
    }
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .create(create)
        .truncate(false);
    // Others may read and rename the file, and not write to it.
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 1 | 4);
    options.open(path).map_err(|error| {
        let folder = path.parent().filter(|folder| folder.as_os_str() != "");
        let missing = folder.filter(|folder| !folder.exists());
        failed(missing.unwrap_or(path), "opened", &error)
    })
}

/// Makes the error for a write to a file that a restart would not find.
fn replaced(path: &Path) -> io::Error {
    let text = "is no longer the file that this hub writes to; \
        move that file back, or move away the file that is there now";
    problem(path, ErrorKind::Other, text)
}

/// Makes the error for a history that another hub has.
fn in_use(path: &Path) -> io::Error {
    problem(path, ErrorKind::WouldBlock, "is in use by another hub")
}

/// Makes an error that names the file, what could not be done with it, and the system's reason.
fn failed(path: &Path, what: &str, error: &io::Error) -> io::Error {
    problem(path, error.kind(), &format!("cannot be {what}: {error}"))
}

/// Makes an error whose text begins with the file's path.
fn problem(path: &Path, kind: ErrorKind, text: &str) -> io::Error {
    io::Error::new(kind, format!("{} {text}", path.display()))
}

/// Returns the device and the inode number of a file.
#[cfg(unix)]
fn file_id(file: &Metadata) -> FileId {
    use std::os::unix::fs::MetadataExt;
    (file.dev(), file.ino())
}

/// Returns the same for every file, since std has no such numbers on other systems. So a file that is replaced goes unnoticed.
#[cfg(not(unix))]
fn file_id(_: &Metadata) -> FileId {
    (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Coding;
    use crate::hub::archive::ArchiveReader;
    use crate::hub::frame::Frame;
    use crate::hub::topics;

    fn event(sequence: u64, text: &str) -> Numbered {
        Numbered {
            sequence,
            topics: topics::check(vec!["a"]).unwrap(),
            frame: Frame::from_text(format!("data: {text}\n\n").as_bytes()),
            own_id: None,
            finishes: false,
        }
    }

    /// A batch that fails may leave whole events, until they are cut off: a reader that finds them there is not to send them
    /// once others have their numbers.
    #[test]
    fn a_reader_forgets_what_was_refused() {
        let folder = std::env::temp_dir().join(format!("tiny-sse-refused-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("history");
        let config = HubConfig {
            durability: Durability::Os,
            history_file: Some(path.clone()),
            ..HubConfig::default()
        };
        let mut log = Log::new(config.clone());
        let (mut store, archive) = open(&path, &config, &mut log).unwrap();
        let mut reader = ArchiveReader::default();
        let mut cursor = 0;
        let mut read = |head| {
            let topics = topics::check(vec!["a"]).unwrap();
            let hubs_id = |entry: &Entry| Some(log.id(entry.sequence).to_string());
            let found = reader.read(&archive, &topics, cursor, head, 1, &hubs_id);
            let events = found.expect("events");
            let (sequence, frame) = events.last().unwrap();
            cursor = *sequence;
            let text = String::from_utf8_lossy(frame.bytes(Coding::CloseDelimited));
            // After the line of the id.
            text.split_once('\n').unwrap().1.to_string()
        };

        store.append(&[event(1, "one")]).unwrap();
        let mut left = Vec::new();
        record::append_event(&mut left, &event(2, "refused"));
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

    #[test]
    fn a_segment_has_a_sixteenth_within_limits() {
        const MIB: u64 = 1024 * 1024;
        let check = |file_bytes: u64, expected: u64| {
            assert_eq!(segment_bytes(file_bytes), expected, "{file_bytes}");
        };
        check(0, 4096); // At least 4 KiB.
        check(16 * 4096, 4096); // A sixteenth.
        check(16 * 4097, 4097);
        check(256 * MIB, 16 * MIB); // Still a sixteenth.
        check(257 * MIB, 16 * MIB); // At most 16 MiB.
        check(4096 * MIB, 16 * MIB); // 256 segments.
        check(4097 * MIB, 4097 * MIB / 256); // More in a segment, since there are no more segments.
        check(u64::MAX, u64::MAX / 256);
    }

    /// A child process that is being started has copies of all descriptors for a moment.
    #[test]
    fn a_copied_descriptor_does_not_keep_the_lock() {
        let name = format!("tiny-sse-copied-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let locked = LockedFile::open(&path, true).unwrap();
        let _copy = locked.file.try_clone().unwrap();
        drop(locked);
        drop(LockedFile::open(&path, true).unwrap());
        fs::remove_file(&path).unwrap();
    }
}
