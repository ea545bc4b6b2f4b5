//! Finds the files of the folder that are ready.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use image::DynamicImage;
use padim::Error;
use padim::dataset::Entry;
use padim::preprocess::{DecodeOptions, decode_file_with};

use super::common::Outcome;

/// A file in the line.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub name: OsString,
    /// Whether a failure is final, if the file is still unchanged.
    pub last_try: bool,
    size: u64,
    modified: Option<SystemTime>,
}

/// Decodes a file. A JPEG must have its end marker, because half a JPEG decodes, too, with a gray rest.
pub fn open(path: &Path, options: DecodeOptions) -> padim::Result<DynamicImage> {
    // Whatever cannot be read gives its error below.
    let bytes = std::fs::read(path).unwrap_or_default();
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    if bytes.starts_with(&[0xFF, 0xD8]) && !bytes[..end].ends_with(&[0xFF, 0xD9]) {
        return Err(Error::other(format!("the JPEG {} ends too soon", path.display())));
    }
    decode_file_with(path, options)
}

/// The files in the folder and their states. Files that are gone are removed.
pub struct Folder {
    path: PathBuf,
    patience: Duration,
    files: Mutex<HashMap<OsString, File>>,
    retried: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct File {
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
    pub fn new(path: &Path, patience: Duration) -> Self {
        let (files, retried) = Default::default();
        Self { path: path.to_owned(), patience, files, retried }
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

    fn files(&self) -> MutexGuard<'_, HashMap<OsString, File>> {
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
            for entry in entries {
                let entry = entry.map_err(failed)?;
                let name = entry.file_name();
                // The file may be gone already; then ignore it.
                let Some(about) = entry
                    .metadata()
                    .ok()
                    .filter(|a| a.is_file() && Entry::of(&entry.path()) == Entry::Image)
                else {
                    continue;
                };
                let (size, modified) = (about.len(), about.modified().ok());
                let seen =
                    File { size, modified, since: Instant::now(), state: State::New, look: true };
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
                        ready.push(Ticket { name, last_try, size, modified });
                    }
                }
            }
            files.retain(|_, file| file.look || file.state == State::InLine);
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
