//! Finds the files of the folder that are ready.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use image::DynamicImage;
use padim::Error;
use padim::dataset::{Entry, Reason};
use padim::preprocess::{DecodeOptions, decode_bytes_with};

use super::common::{Outcome, tell};
use super::put_away;

/// A file in the line.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub name: OsString,
    /// Whether a failure is final, if the file is still unchanged.
    pub last_try: bool,
    pub bytes: Bytes,
    size: u64,
    modified: Option<SystemTime>,
}

/// The bytes of a file, once they are read. Only these are scored, drawn and kept.
pub type Bytes = Arc<OnceLock<Vec<u8>>>;

/// Bytes that a file may have besides its pixels.
const HEADERS: u64 = 16 << 20;

/// Reads and decodes a file.
pub fn open(path: &Path, bytes: &Bytes, options: DecodeOptions) -> padim::Result<DynamicImage> {
    let name = path.display().to_string();
    let most = options.limits.max_bytes.saturating_add(HEADERS);
    let mut read = Vec::new();
    File::open(path)
        .and_then(|file| file.take(most.saturating_add(1)).read_to_end(&mut read))
        .map_err(|error| Error::other(format!("cannot read the image {name}: {error}")))?;
    if read.len() as u64 > most {
        let reason = format!(
            "the image {name} has more than {most} bytes; if the file can be trusted, raise the limits \
             by `with_decode_limits`"
        );
        return Err(Error::other(reason));
    }
    decode_bytes_with(bytes.get_or_init(|| read), &name, options)
}

/// The files in the folder and their states. Files that are gone are removed.
pub struct Folder {
    path: PathBuf,
    patience: Duration,
    files: Mutex<HashMap<OsString, Known>>,
    others: Mutex<HashMap<OsString, Other>>,
    retried: AtomicU64,
    left_out: AtomicU64,
}

/// Something in the folder that is never scored.
struct Other {
    reason: String,
    told: bool,
    /// Whether the current look has seen it.
    look: bool,
}

/// What is known of a file.
#[derive(Debug, Clone, Copy)]
struct Known {
    size: u64,
    modified: Option<SystemTime>,
    /// When it was first seen in this state.
    since: Instant,
    state: State,
    /// Whether the current look has seen the file.
    look: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// Seen once with this size and time.
    New,
    InLine,
    /// Could not be decoded with this size and time.
    Failed,
}

impl Folder {
    pub fn new(path: &Path, patience: Duration) -> Outcome<Self> {
        put_away::recover(path)?;
        let (files, others, retried, left_out) = Default::default();
        Ok(Self { path: path.to_owned(), patience, files, others, retried, left_out })
    }

    /// Whether a failure is final: the file has not changed for long enough, also while in the line.
    pub fn is_final(&self, ticket: &Ticket) -> bool {
        let now = std::fs::metadata(self.path_of(ticket)).ok();
        let same = now
            .is_none_or(|now| (now.len(), now.modified().ok()) == (ticket.size, ticket.modified));
        ticket.last_try && same
    }

    pub fn path_of(&self, ticket: &Ticket) -> PathBuf {
        self.path.join(&ticket.name)
    }

    /// The number of repeated tries.
    pub fn retried(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }

    /// The number of files, folders and links that were left out.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Notes something that is never scored. It is told at the second look, because another program may be
    /// about to rename it.
    fn leave_out(&self, name: OsString, reason: String) {
        let mut others = self.others();
        match others.get_mut(&name) {
            Some(other) => {
                other.look = true;
                self.tell(&name, other);
            }
            None => _ = others.insert(name, Other { reason, told: false, look: true }),
        }
    }

    fn tell(&self, name: &OsStr, other: &mut Other) {
        if !std::mem::replace(&mut other.told, true) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            tell!("left out: {}: {}", name.display(), other.reason);
        }
    }

    /// Tells of what was seen only once.
    pub fn tell_rest(&self) {
        self.others().iter_mut().for_each(|(name, other)| self.tell(name, other));
    }

    fn others(&self) -> MutexGuard<'_, HashMap<OsString, Other>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, HashMap<OsString, Known>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the folder and passes the ready files to `submit`, the oldest first, until `submit`
    /// returns `false`. Returns whether the folder has no more files.
    pub fn look(&self, mut submit: impl FnMut(Ticket, PathBuf) -> Outcome<bool>) -> Outcome<bool> {
        let failed = |e| format!("cannot read the folder {}: {e}", self.path.display());
        let mut ready = Vec::new();
        {
            let entries = std::fs::read_dir(&self.path).map_err(failed)?;
            let mut files = self.files();
            files.values_mut().for_each(|file| file.look = false);
            self.others().values_mut().for_each(|other| other.look = false);
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name();
                match Entry::of(&entry.path()) {
                    Entry::Image => {}
                    // Nothing to tell: hidden, being written, or gone already.
                    Entry::LeftOut(Reason::Hidden | Reason::Unfinished | Reason::Refused) => {
                        continue;
                    }
                    Entry::LeftOut(reason) => {
                        self.leave_out(name, reason.to_string());
                        continue;
                    }
                    _ => {
                        self.leave_out(name, "a folder".into());
                        continue;
                    }
                }
                // Links are followed. The file may be gone already.
                let Ok(about) = std::fs::metadata(entry.path()) else { continue };
                let (size, modified) = (about.len(), about.modified().ok());
                let seen =
                    Known { size, modified, since: Instant::now(), state: State::New, look: true };
                let Some(file) = files.get_mut(&name) else {
                    files.insert(name, seen);
                    continue;
                };
                file.look = true;
                let same = (file.size, file.modified) == (size, modified);
                let last_try = file.since.elapsed() >= self.patience;
                match file.state {
                    State::InLine => {}
                    state if !same => {
                        self.retried
                            .fetch_add(u64::from(state == State::Failed), Ordering::Relaxed);
                        *file = seen;
                    }
                    State::Failed if !last_try => {}
                    state => {
                        file.state = State::InLine;
                        let again = u64::from(state == State::Failed);
                        self.retried.fetch_add(again, Ordering::Relaxed);
                        let bytes = Bytes::default();
                        ready.push(Ticket { name, last_try, bytes, size, modified });
                    }
                }
            }
            files.retain(|_, file| file.look || file.state == State::InLine);
            self.others().retain(|_, other| other.look);
        }
        ready.sort_by(|a, b| (a.modified, &a.name).cmp(&(b.modified, &b.name)));
        let mut ready = ready.into_iter();
        for ticket in ready.by_ref() {
            let path = self.path_of(&ticket);
            if !submit(ticket, path)? {
                break;
            }
        }
        for ticket in ready {
            self.forget(&ticket);
        }
        Ok(self.files().is_empty())
    }

    /// Removes a file that is finished, or that must be examined again.
    pub fn forget(&self, ticket: &Ticket) {
        self.files().remove(&ticket.name);
    }

    /// Marks a file that could not be decoded. It is tried again when it changes, or after it has not
    /// changed for long enough.
    pub fn wait_for_change(&self, ticket: &Ticket) {
        if let Some(file) = self.files().get_mut(&ticket.name) {
            file.state = State::Failed;
        }
    }
}
