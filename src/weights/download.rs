//! Downloading weights into the cache.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use ureq::http::{Response, header};
use ureq::{Agent, Body};

use super::environment::Environment;
use super::published::{PublishedWeights, sha256, without_password};
use super::source::Weights;
use crate::error::{Error, FileKind, Result};

/// The progress of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchProgress {
    /// Bytes so far, including those of an earlier, interrupted download. Goes back to 0 if the
    /// server cannot resume.
    pub done: u64,
    /// The file's size in bytes, if the server reports it.
    pub total: Option<u64>,
}

impl Weights {
    /// The path of the file, as [`find`](Self::find) gives it. A published file that is not found
    /// is first downloaded into the cache of this crate.
    ///
    /// ```no_run
    /// use burn::tensor::Device;
    /// use padim::{Weights, WideResNet50};
    /// use padim::weights::TorchvisionNetwork;
    ///
    /// let weights = Weights::torchvision(TorchvisionNetwork::WideResNet50);
    /// let path = weights.fetch()?;
    /// let backbone = WideResNet50::load(path, &Device::flex())?;
    /// # Ok::<(), padim::Error>(())
    /// ```
    ///
    /// `PADIM_WEIGHTS_URL` (the URL of a mirror, without the file's name) replaces the base URL if
    /// it is set. The proxy variables `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are
    /// respected. Unencrypted connections are refused, unless the URL begins with `http://`. An
    /// interrupted download is resumed. The file gets its name only when it is complete and its
    /// hash is right. If several processes fetch it at once, one of them downloads.
    ///
    /// # Errors
    ///
    /// As [`find`](Self::find); [`Error::Download`] if the download fails or its hash is wrong,
    /// [`Error::Io`] if the file cannot be written, [`Error::InvalidConfig`] if there is no cache
    /// folder.
    pub fn fetch(&self) -> Result<PathBuf> {
        self.fetch_with(|_| ControlFlow::Continue(()))
    }

    /// As [`fetch`](Self::fetch). `progress` is called as bytes arrive, and can stop the download.
    ///
    /// # Errors
    ///
    /// As [`fetch`](Self::fetch); [`Error::Cancelled`] if `progress` returns [`ControlFlow::Break`].
    pub fn fetch_with(
        &self,
        progress: impl FnMut(FetchProgress) -> ControlFlow<()>,
    ) -> Result<PathBuf> {
        match self {
            Self::Published(weights) => {
                weights.fetch(&Environment::of_process(), &Client::default(), progress)
            }
            _ => self.find(),
        }
    }
}

impl PublishedWeights {
    fn fetch(
        &self,
        environment: &Environment,
        client: &Client,
        progress: impl FnMut(FetchProgress) -> ControlFlow<()>,
    ) -> Result<PathBuf> {
        match self.find_in(environment) {
            Err(Error::WeightsNotFound { .. }) => self.download(environment, client, progress),
            found => found,
        }
    }

    fn download(
        &self,
        environment: &Environment,
        client: &Client,
        mut progress: impl FnMut(FetchProgress) -> ControlFlow<()>,
    ) -> Result<PathBuf> {
        let folder = environment.cache().ok_or_else(|| {
            Error::config("PADIM_CACHE_DIR", "must be set, because there is no home folder")
        })?;
        fs::create_dir_all(&folder).map_err(Error::io(
            FileKind::Weights,
            "make the folder",
            &folder,
        ))?;
        let target = folder.join(&self.file);

        // The lock is a separate file, which is never removed. With a lock on `.part`, a process
        // that waited for it would lock the wrong file after the rename. The system releases the
        // lock when a process dies.
        let lock_path = folder.join(format!("{}.lock", self.file));
        let lock = open(&lock_path)?;
        lock.lock().map_err(Error::io(FileKind::Weights, "lock", &lock_path))?;
        if target.is_file() {
            return self.checked(target); // The process that had the lock downloaded it.
        }

        let url = self.url(environment);
        let part_path = folder.join(format!("{}.part", self.file));
        let part = open(&part_path)?;
        // An earlier process may have died between the last byte and the rename.
        if !sha256(&part_path)?.starts_with(&self.digits) {
            client.transfer(&url, &part, &part_path, &mut progress)?;
        }
        let actual = sha256(&part_path)?;
        if !actual.starts_with(&self.digits) {
            drop(part);
            fs::remove_file(&part_path).map_err(Error::io(
                FileKind::Weights,
                "remove",
                &part_path,
            ))?;
            let (expected, actual) = (&self.digits, &actual[..self.digits.len()]);
            return Err(failed(
                &url,
                format!(
                    "expected a SHA-256 that begins with {expected}, got {actual}; the download \
                     was removed; try again, or check what the server sends"
                ),
            ));
        }
        part.sync_all().map_err(Error::io(FileKind::Weights, "write", &part_path))?;
        drop(part);
        fs::rename(&part_path, &target).map_err(Error::io(FileKind::Weights, "write", &target))?;
        Ok(target)
    }
}

/// The HTTP client and its retry settings.
struct Client {
    agent: Agent,
    /// How many connections are tried, and the pause after the first failure, which doubles each time.
    attempts: u32,
    pause: Duration,
}

impl Default for Client {
    fn default() -> Self {
        let config = Agent::config_builder().timeout_per_read(Some(Duration::from_secs(30)));
        Self { agent: agent(config), attempts: 6, pause: Duration::from_millis(500) }
    }
}

fn agent(config: ureq::config::ConfigBuilder<ureq::typestate::AgentScope>) -> Agent {
    config
        .timeout_resolve(Some(Duration::from_secs(15)))
        .timeout_connect(Some(Duration::from_secs(15)))
        .max_redirects(5)
        .http_status_as_error(false)
        // No compression, so that lengths and ranges are those of the file itself.
        .accept_encoding("identity")
        .user_agent(concat!("padim/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

/// Why a download failed.
enum Failure {
    /// Temporary: another attempt may succeed.
    Passing(String),
    Final(Error),
}

impl Client {
    /// Downloads the missing rest of `part`, with up to `attempts` connections.
    fn transfer(
        &self,
        url: &str,
        part: &File,
        path: &Path,
        progress: &mut impl FnMut(FetchProgress) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut pause = self.pause;
        for attempt in 1.. {
            match self.attempt(url, part, path, progress) {
                Ok(()) => break,
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(reason)) if attempt == self.attempts => {
                    let reason = format!(
                        "{reason} (attempt {attempt}, the last one); try again later to resume"
                    );
                    return Err(failed(url, reason));
                }
                Err(Failure::Passing(_)) => thread::sleep(pause),
            }
            pause *= 2;
        }
        Ok(())
    }

    fn attempt(
        &self,
        url: &str,
        mut part: &File,
        path: &Path,
        progress: &mut impl FnMut(FetchProgress) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let unwritable =
            |source| Failure::Final(Error::io(FileKind::Weights, "write", path)(source));
        let start_over = || part.set_len(0).and_then(|()| (&*part).rewind()).map_err(unwritable);

        let before = part.seek(SeekFrom::End(0)).map_err(unwritable)?;
        let encrypted = !url.starts_with("http://");
        let mut request = self.agent.get(url).config().https_only(encrypted).build();
        if before > 0 {
            request = request.header(header::RANGE, format!("bytes={before}-"));
        }
        let response = request.call().map_err(|error| refused(url, error))?;
        let mut done = match response.status().as_u16() {
            206 if begins_at(&response, before) => before,
            200 => start_over().map(|()| 0)?,
            // The server has another file, or sent another part of it.
            206 | 416 => {
                start_over()?;
                return Err(Failure::Passing("the server sent another part of the file".into()));
            }
            408 | 429 | 500.. => {
                return Err(Failure::Passing(format!("the server answers {}", response.status())));
            }
            _ => {
                let reason = format!("the server answers {}", response.status());
                return Err(Failure::Final(failed(url, reason)));
            }
        };

        let total = response.body().content_length().map(|length| length.saturating_add(done));
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        loop {
            if progress(FetchProgress { done, total }).is_break() {
                return Err(Failure::Final(Error::Cancelled));
            }
            let read = body.read(&mut buffer).map_err(|error| {
                let of = total.map_or(String::new(), |total| format!(" of {total}"));
                Failure::Passing(format!("the connection ends after {done}{of} bytes: {error}"))
            })?;
            if read == 0 {
                break;
            }
            part.write_all(&buffer[..read]).map_err(unwritable)?;
            done += read as u64;
        }
        match total {
            Some(total) if total != done => {
                Err(Failure::Passing(format!("expected {total} bytes, got {done}")))
            }
            _ => Ok(()),
        }
    }
}

/// Opens a file for writing and keeps its content.
fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).open(path).map_err(Error::io(
        FileKind::Weights,
        "write",
        path,
    ))
}

/// Whether a partial response begins at byte `start`.
fn begins_at(response: &Response<Body>, start: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {start}-")))
}

fn refused(url: &str, error: ureq::Error) -> Failure {
    let reason = error.to_string();
    match error {
        // A rejected certificate: another attempt would fail, too.
        ureq::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {}
        ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::ConnectionFailed
        | ureq::Error::Protocol(_) => return Failure::Passing(reason),
        _ => {}
    }
    Failure::Final(failed(url, reason))
}

fn failed(url: &str, reason: String) -> Error {
    Error::Download { url: without_password(url), reason }
}

#[cfg(test)]
mod tests;
