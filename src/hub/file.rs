//! The history's file: append, recover, and read what memory has no more. [`record`](super::record) has its format.
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
use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::archive::{Entries, Entry, EventLog};
use super::config::{Durability, History, HubConfig};
use super::log::{Epoch, Log, Numbered};
use super::record::{self, Record, Records};
use crate::lock::lock;
use crate::random::random_u64;

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
    let newest = LockedFile::open(given)?;
    // Renaming a symbolic link would leave the file where it is.
    let path = fs::canonicalize(given)?;
    // Tells the log that there is a file.
    log.raise_archive_lost_to(0);
    let (mut segments, mut full) = (full_segments(&path)?, Vec::new());
    for segment in &segments {
        full.push(LockedFile::open(&segment.path)?);
        recover(&segment.path, log, config)?;
    }
    // Later than that of the last full segment, also where nothing of that one could be read.
    let named = segments.last().map_or(0, |last| last.first);
    let first = named.max(log.head).saturating_add(1);
    let valid_len = recover(&path, log, config)?;
    let len = newest.file.metadata()?.len();
    let mark = open_regular(&with_suffix(&path, "next"))?;
    let last = match record::read_epoch(&mark) {
        Some((_, next)) => next.saturating_sub(1).max(log.head),
        // Where the end is missing, at least one acknowledged event may be.
        None => log.head + u64::from(valid_len < len || (len == 0 && !full.is_empty())),
    };
    // The epoch begins after all that may have been acknowledged. What the log has not seen of that is lost.
    let epoch = (random_u64(), last + 1);
    log.begin_epoch(epoch);
    if valid_len < len {
        keep_copy(&path, epoch, config)?;
    }
    let newest_path = path.clone();
    segments.push(Segment {
        path: newest_path,
        first,
    });
    let segments = Arc::new(Mutex::new(segments));
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
        segments: Arc::clone(&segments),
    };
    store.write(record::epoch_line(epoch).as_bytes())?;
    store.write_mark(epoch.1)?;
    store.sync_folder()?;
    Ok((Box::new(store), Box::new(FileLog(segments))))
}

/// Gives the log what one segment holds, and returns where its last whole record ends.
fn recover(path: &Path, log: &mut Log, config: &HubConfig) -> io::Result<u64> {
    let report = |from, to| {
        let name = path.display();
        let text = format!("{name} cannot be read from byte {from} to byte {to}");
        config.report(&text);
    };
    let mut records = Records::of(File::open(path)?);
    let mut is_damaged = false;
    loop {
        let end = records.position;
        let Some((begin, record)) = records.next()? else {
            break;
        };
        if begin > end {
            is_damaged = true;
            report(end, begin);
        }
        let (epoch, first) = match &record {
            Record::Epoch((epoch, first)) => (Some(*epoch), *first),
            // The damage may have been the line of this event's epoch.
            Record::Event(event) if is_damaged => (record::epoch_in_id(event), event.sequence),
            Record::Event(event) => (None, event.sequence),
        };
        if let Some(epoch) = epoch.filter(|epoch| *epoch != log.next_id().epoch) {
            log.begin_epoch((epoch, first));
        }
        if let Record::Event(event) = record {
            log.restore(event);
        }
    }
    let (end, len) = (records.position, records.len()?);
    if end == 0 && !records.may_be_new()? {
        let text = "is not a history, and stays as it is";
        return Err(problem(path, ErrorKind::InvalidData, text));
    }
    if end < len {
        report(end, len);
    }
    Ok(end)
}

/// Copies a segment that is about to be cut off.
fn keep_copy(path: &Path, epoch: Epoch, config: &HubConfig) -> io::Result<()> {
    let copy = with_suffix(path, &format!("before-{:016x}", epoch.0));
    let copied = fs::copy(path, &copy).and_then(|_| File::open(&copy)?.sync_all());
    copied.map_err(|error| failed(&copy, "written", &error))?;
    let (name, copy) = (path.display(), copy.display());
    config.report(&format!("{name} is cut off there; {copy} is a copy"));
    Ok(())
}

/// A part of the history.
struct Segment {
    path: PathBuf,
    /// Its first sequence.
    first: u64,
}

/// The segments that there are, oldest first. Shared by the store, which changes the list, and its readers.
type Segments = Arc<Mutex<Vec<Segment>>>;

/// What tells two files apart, whatever their names: device and inode.
type FileId = (u64, u64);

/// What the hubs of this process have locked.
static LOCKED: Mutex<Vec<FileId>> = Mutex::new(Vec::new());

/// A segment's file. No other hub, in this process or in another one, can open the file until this value is dropped.
struct LockedFile {
    file: File,
    id: FileId,
}

impl LockedFile {
    /// Opens and locks a file, and creates it where there is none.
    fn open(path: &Path) -> io::Result<LockedFile> {
        let file = open_regular(path)?;
        let id = file_id(&file.metadata()?);
        // On Windows a lock would keep readers away as well, and opening has kept other writers away.
        let locked = match cfg!(windows) {
            true => Ok(()),
            false => file.try_lock(),
        };
        if let Err(error) = locked {
            let owner = match error {
                TryLockError::Error(error) => return Err(failed(path, "locked", &error)),
                _ if lock(&LOCKED).contains(&id) => "is in use by another hub of this process",
                _ => "is in use by another process",
            };
            return Err(problem(path, ErrorKind::WouldBlock, owner));
        }
        lock(&LOCKED).push(id);
        Ok(LockedFile { file, id })
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        lock(&LOCKED).retain(|locked| *locked != self.id);
        // Closing would not unlock the file while a child process that is being started has a copy of the descriptor.
        let _ = self.file.unlock();
    }
}

/// Writes the newest segment, and removes the oldest ones.
struct FileStore {
    /// The path that the caller gave, under which a restart will look for the newest segment.
    given: PathBuf,
    /// The same without symbolic links.
    path: PathBuf,
    history: History,
    newest: LockedFile,
    /// Those of `segments` before the last.
    full: Vec<LockedFile>,
    /// The file for the sequence after the last acknowledged one.
    mark: File,
    /// Where the last whole record of the newest segment ends.
    valid_len: u64,
    /// The file may have bytes after that. The next write cuts them off first.
    has_partial_tail: bool,
    epoch: Epoch,
    /// The last sequence that was removed at the old end.
    removed_to: u64,
    segments: Segments,
}

impl Store for FileStore {
    fn append(&mut self, batch: &[Numbered]) -> io::Result<u64> {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
            return Ok(self.removed_to);
        };
        self.make_room(first.sequence)?;
        let mut bytes = Vec::new();
        if self.valid_len == 0 {
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
        let line = record::epoch_line((self.epoch.0, next));
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
        let mut segments = lock(&self.segments);
        if is_in_place && let Some(newest) = segments.last_mut() {
            let full = with_suffix(&self.path, &format!("{:020}", newest.first));
            fs::rename(&self.path, &full)?;
            newest.path = full;
        }
        let newest = LockedFile::open(&self.path)?;
        if newest.file.metadata()?.len() > 0 {
            return Err(self.replaced());
        }
        let older = mem::replace(&mut self.newest, newest);
        (self.valid_len, self.has_partial_tail) = (0, false);
        // Where the newest one was removed, readers go on with what memory has of its events.
        if segments.pop_if(|newest| newest.path == self.path).is_none() {
            self.full.push(older);
        }
        let path = self.path.clone();
        segments.push(Segment { path, first: next });
        drop(segments);
        self.remove_old();
        self.sync_folder()
    }

    fn replaced(&self) -> io::Error {
        let text = "is not the file any more that this hub writes to; \
            move that one back, or move away what is there now";
        problem(&self.given, ErrorKind::Other, text)
    }

    /// Removes the oldest segments while all together are too large. One that cannot be removed is tried again after the
    /// next rotation.
    fn remove_old(&mut self) {
        let mut segments = lock(&self.segments);
        let len = |segment: &Segment| fs::metadata(&segment.path).map_or(0, |it| it.len());
        let mut bytes: u64 = segments.iter().map(len).sum();
        while segments.len() > 1 && bytes > self.history.file_bytes {
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
        if self.history.durability == Durability::Sync && cfg!(unix) {
            File::open(folder(&self.path))?.sync_all()?;
        }
        Ok(())
    }
}

/// The segments as readers see them.
struct FileLog(Segments);

impl EventLog for FileLog {
    fn read(&self, after: u64) -> io::Result<Entries> {
        Ok(Box::new(FileEntries {
            segments: Arc::clone(&self.0),
            after,
            current: None,
        }))
    }
}

/// The entries of one segment after the other. What is damaged or was removed is left out.
struct FileEntries {
    segments: Segments,
    after: u64,
    /// The segment that is being read, by its first sequence.
    current: Option<(u64, Records)>,
}

impl Iterator for FileEntries {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        loop {
            while let Some((_, records)) = &mut self.current
                && let Ok(Some((_, record))) = records.next()
            {
                if let Record::Event(event) = record
                    && event.sequence > self.after
                {
                    return Some(Ok(Entry {
                        sequence: event.sequence,
                        topics: event.topics.iter().map(|name| name.to_string()).collect(),
                        event: event.frame.event(),
                    }));
                }
            }
            self.current = Some(self.next_segment()?);
        }
    }
}

impl FileEntries {
    /// Opens the segment after the one that was read; at first the one that has, or would have, the event asked for. Opened
    /// under the lock, since the newest one is renamed when it is full, and another gets its name.
    fn next_segment(&self) -> Option<(u64, Records)> {
        let segments = lock(&self.segments);
        let segment = match &self.current {
            Some((first, _)) => segments.iter().find(|segment| segment.first > *first),
            None => {
                let has = |segment: &&Segment| segment.first <= self.after + 1;
                segments.iter().rfind(has).or(segments.first())
            }
        }?;
        // A segment that was just removed has nothing: another call finds the oldest that is there.
        let file = File::open(&segment.path).ok()?;
        Some((segment.first, Records::of(file)))
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// The full segments, oldest first: their names end in 20 digits.
fn full_segments(newest: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(newest))? {
        let path = entry?.path();
        let number = path.extension().unwrap_or_default().to_str();
        if let Some(digits) = number.filter(|digits| digits.len() == 20)
            && path.file_stem() == newest.file_name()
            && let Ok(first) = digits.parse()
        {
            found.push(Segment { path, first });
        }
    }
    found.sort_by_key(|segment| segment.first);
    Ok(found)
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Opens a regular file to read and write, and creates it where there is none.
fn open_regular(path: &Path) -> io::Result<File> {
    // Opening or reading anything else may never end.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let text = "is not a regular file";
        return Err(problem(path, ErrorKind::InvalidData, text));
    }
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    // Others may read and rename the file, and not write to it.
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::share_mode(&mut options, 1 | 4);
    options.open(path).map_err(|error| {
        let folder = folder(path);
        let missing = if folder.exists() { path } else { folder };
        failed(missing, "opened", &error)
    })
}

fn failed(path: &Path, what: &str, error: &io::Error) -> io::Error {
    problem(path, error.kind(), &format!("cannot be {what}: {error}"))
}

fn problem(path: &Path, kind: ErrorKind, text: &str) -> io::Error {
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

    /// A round that fails may leave whole events, until they are cut off: a reader that finds them there is not to send
    /// them once others have their numbers.
    #[test]
    fn a_reader_forgets_what_was_refused() {
        let folder = std::env::temp_dir().join(format!("tiny-sse-refused-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("history");
        let config = HubConfig {
            history: History {
                durability: Durability::Os,
                ..History::file(&path)
            },
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

    /// A child process that is being started has copies of all descriptors for a moment.
    #[test]
    fn a_copied_descriptor_does_not_keep_the_lock() {
        let name = format!("tiny-sse-copied-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let locked = LockedFile::open(&path).unwrap();
        let _copy = locked.file.try_clone().unwrap();
        drop(locked);
        drop(LockedFile::open(&path).unwrap());
        fs::remove_file(&path).unwrap();
    }
}
