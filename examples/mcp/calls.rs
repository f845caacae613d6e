//! Sessions and calls, which are kept in files so that both outlive the server. A session is a folder. A call is a file in it:
//! its first line is the request, and each further line is a message that the server has sent for it. The last of these is the
//! answer, which has an `id`.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::json::Json;

pub(crate) struct Calls {
    folder: PathBuf,
    /// The lines of each call, by `SESSION/CALL`, which is also where its file is.
    lines: Mutex<HashMap<String, Vec<String>>>,
    /// Notified when a call has one more line, or a session has ended.
    changed: Condvar,
}

impl Calls {
    /// Reads what an earlier server has kept in a folder, or makes that folder.
    pub(crate) fn open(folder: PathBuf) -> io::Result<Arc<Calls>> {
        fs::create_dir_all(&folder)?;
        let mut all = HashMap::new();
        for session in fs::read_dir(&folder)? {
            for call in fs::read_dir(session?.path())? {
                let path = call?.path();
                let mut text = fs::read_to_string(&path)?;
                // A server that was killed may have left a partial line.
                text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
                fs::write(&path, &text)?;
                let name = path.strip_prefix(&folder).unwrap_or(&path);
                let lines = text.lines().map(str::to_string).collect();
                all.insert(name.to_string_lossy().into_owned(), lines);
            }
        }
        Ok(Arc::new(Calls {
            folder,
            lines: Mutex::new(all),
            changed: Condvar::new(),
        }))
    }

    pub(crate) fn new_session(&self) -> io::Result<String> {
        let session = secret()?;
        fs::create_dir(self.folder.join(&session))?;
        Ok(session)
    }

    pub(crate) fn has_session(&self, session: &str) -> bool {
        // No other text may become a part of a path.
        let is_ours = session.len() == 32 && session.bytes().all(|b| b.is_ascii_hexdigit());
        is_ours && self.folder.join(session).is_dir()
    }

    /// Forgets a session with its calls. Calls that still run end.
    pub(crate) fn end_session(&self, session: &str) -> io::Result<()> {
        let mut lines = self.lock();
        lines.retain(|call, _| !call.starts_with(session));
        self.changed.notify_all();
        fs::remove_dir_all(self.folder.join(session))
    }

    /// Keeps the request of a new call, and returns the call's name.
    pub(crate) fn begin(&self, session: &str, request: &Json) -> io::Result<String> {
        let call = format!("{session}/{}", secret()?);
        self.lock().insert(call.clone(), Vec::new());
        self.append(&call, request.to_string())?;
        Ok(call)
    }

    /// Keeps one more line of a call, first in its file.
    pub(crate) fn append(&self, call: &str, line: String) -> io::Result<()> {
        let mut calls = self.lock();
        let lines = calls.get_mut(call).ok_or(io::ErrorKind::NotFound)?;
        let path = self.folder.join(call);
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(format!("{line}\n").as_bytes())?;
        lines.push(line);
        self.changed.notify_all();
        Ok(())
    }

    /// Returns all lines of a call, if it is known.
    pub(crate) fn lines(&self, call: &str) -> Option<Vec<String>> {
        self.lock().get(call).cloned()
    }

    /// Waits for a line of a call, and returns it; `None` if the call is not known, or no longer known.
    pub(crate) fn wait_for_line(&self, call: &str, number: usize) -> Option<String> {
        let mut calls = self.lock();
        loop {
            if let Some(line) = calls.get(call)?.get(number) {
                return Some(line.clone());
            }
            let woken = self.changed.wait(calls);
            calls = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns the calls that have no answer yet.
    pub(crate) fn unanswered(&self) -> Vec<String> {
        let calls = self.lock();
        let open = calls.iter().filter(|(_, lines)| {
            let messages = lines.iter().skip(1);
            !lines.is_empty() && !messages.clone().any(|line| is_answer(line))
        });
        open.map(|(call, _)| call.clone()).collect()
    }

    /// A thread that has panicked has left whole lines: each change is one `push`.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<String>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether a message is the last one of its call: a notification has no `id`.
pub(crate) fn is_answer(message: &str) -> bool {
    Json::parse(message.as_bytes()).is_some_and(|message| *message.get("id") != Json::Null)
}

/// Returns 128 bits that nobody can guess. `std` has no generator for secrets; a system without `/dev/urandom` has its own.
fn secret() -> io::Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
