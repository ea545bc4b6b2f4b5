//! Published weight files, and where to find them on this machine.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::environment::Environment;
use crate::error::{Error, FileKind, Result};

/// A published weight file. By the convention of PyTorch's hub, its name ends with the first digits
/// of its SHA-256. Made by [`Weights::torchvision`](super::Weights::torchvision) and
/// [`Weights::named`](super::Weights::named).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedWeights {
    pub(super) file: String,
    /// The first hexadecimal digits of the file's SHA-256.
    pub(super) digits: String,
    /// The file's URL without its name.
    pub(super) base_url: String,
}

impl PublishedWeights {
    pub(super) fn new(file: String, base_url: String) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        match digits_in(&file).map(str::to_owned) {
            Some(digits) if file.bytes().all(plain) && !file.starts_with('.') => {
                Ok(Self { file, digits, base_url })
            }
            _ => Err(Error::config(
                "weights",
                format!("expected a name such as resnet18-f37072fd.pth, got {file:?}"),
            )),
        }
    }

    pub(super) fn torchvision(name: &str, digits: &str) -> Self {
        Self {
            file: format!("{name}-{digits}.pth"),
            digits: digits.to_owned(),
            base_url: "https://download.pytorch.org/models/".to_owned(),
        }
    }

    /// The file's name.
    pub fn file(&self) -> &str {
        &self.file
    }

    pub(super) fn find_in(&self, environment: &Environment) -> Result<PathBuf> {
        let folders = environment.folders();
        match folders.iter().map(|folder| folder.join(&self.file)).find(|path| path.is_file()) {
            Some(path) => self.checked(path),
            None => Err(Error::WeightsNotFound {
                file: self.file.clone(),
                digits: self.digits.clone(),
                url: without_password(&self.url(environment)),
                folders,
            }),
        }
    }

    /// Returns `path` if the file has the right hash.
    pub(super) fn checked(&self, path: PathBuf) -> Result<PathBuf> {
        let actual = sha256(&path)?;
        if actual.starts_with(&self.digits) {
            return Ok(path);
        }
        let reason = format!(
            "expected a SHA-256 that begins with {}, got {}; the file is damaged or the wrong one, \
             remove it",
            self.digits,
            &actual[..self.digits.len()]
        );
        Err(Error::Weights { path, reason })
    }

    /// The file's URL, on the mirror that the environment names, if any.
    pub(super) fn url(&self, environment: &Environment) -> String {
        let base = environment.weights_url().unwrap_or_else(|| self.base_url.clone());
        format!("{}/{}", base.trim_end_matches('/'), self.file)
    }
}

/// The hash digits in a name such as `resnet18-f37072fd.pth`.
fn digits_in(file: &str) -> Option<&str> {
    let (stem, _) = file.rsplit_once('.')?;
    let (_, digits) = stem.rsplit_once('-')?;
    let hexadecimal = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (hexadecimal && (8..=64).contains(&digits.len())).then_some(digits)
}

pub(crate) fn sha256(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut hash = || {
        let mut file = File::open(path)?;
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                count => hasher.update(&buffer[..count]),
            }
        }
    };
    hash().map_err(Error::io(FileKind::Weights, "read", path))?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A URL for messages, without user name and password, because messages end up in logs.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}
