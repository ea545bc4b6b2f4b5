//! Which files of the folder are ready.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use image::DynamicImage;
use padim::Error;
use padim::preprocess::{DecodeLimits, decode_file_with};

use super::common::{IMAGE_EXTENSIONS, Outcome};

/// A file on its way through the line.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub name: OsString,
    /// Whether a failure now is for good, if the file is still as it was.
    pub last_try: bool,
    size: u64,
    modified: Option<SystemTime>,
}

/// Decodes a file. Half a JPEG would decode, too, with a grey rest: it must have its end.
pub fn open(path: &Path, limits: DecodeLimits) -> padim::Result<DynamicImage> {
    let failed = |reason| Error::Io { action: "read", path: path.to_owned(), reason };
    let bytes = std::fs::read(path).map_err(failed)?;
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    if bytes.starts_with(&[0xFF, 0xD8]) && !bytes[..end].ends_with(&[0xFF, 0xD9]) {
        let (name, reason) = (path.display().to_string(), "the JPEG ends too soon".to_owned());
        return Err(Error::UnusableImage { name, reason });
    }
    decode_file_with(path, limits)
}

/// The files that are in the folder, and where they are on their way. It forgets those that are gone.
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
    /// When it was first seen so.
    since: Instant,
    state: State,
    /// The look in which it was last seen.
    look: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// Seen once as it is.
    New,
    InLine,
    /// It could not be decoded as it is.
    Failed,
}

impl Folder {
    pub fn new(path: &Path, patience: Duration) -> Self {
        let (files, retried) = Default::default();
        Self { path: path.to_owned(), patience, files, retried }
    }

    /// Whether a failure is for good: the file has stood still, also while it was in the line.
    pub fn is_final(&self, ticket: &Ticket) -> bool {
        let now = std::fs::metadata(self.path_of(ticket)).ok();
        let same = now
            .is_none_or(|now| (now.len(), now.modified().ok()) == (ticket.size, ticket.modified));
        ticket.last_try && same
    }

    pub fn path_of(&self, ticket: &Ticket) -> PathBuf {
        self.path.join(&ticket.name)
    }

    /// How many files were given to the line more than once.
    pub fn retried(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }

    fn files(&self) -> MutexGuard<'_, HashMap<OsString, File>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the folder and gives the files that are ready to `submit`, the oldest first, until that
    /// says stop. Gives whether there are none left at all.
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
                // What is gone by now is none of ours.
                let Some(about) = entry.metadata().ok().filter(|a| a.is_file() && is_image(&name))
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

    /// The file was worked on and is gone, or is to be looked at anew.
    pub fn forget(&self, ticket: &Ticket) {
        self.files().remove(&ticket.name);
    }

    /// The file could not be decoded: it is tried again when it changes, or has stood still long enough.
    pub fn wait_for_change(&self, ticket: &Ticket) {
        if let Some(file) = self.files().get_mut(&ticket.name) {
            file.state = State::Failed;
        }
    }
}

fn is_image(name: &OsString) -> bool {
    let path = Path::new(name);
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    IMAGE_EXTENSIONS.contains(&extension.as_str()) && !name.to_string_lossy().starts_with('.')
}
