//! Where a network's weights are on this machine.

#[cfg(feature = "download")]
mod download;
mod environment;

#[cfg(feature = "download")]
pub use download::FetchProgress;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::{Error, Result};
use environment::Environment;

/// Names a file of weights, and finds it on this machine.
///
/// ```no_run
/// use burn::tensor::Device;
/// use padim::{ResNet18, TorchvisionNetwork, Weights};
///
/// let weights = Weights::torchvision(TorchvisionNetwork::ResNet18);
/// let backbone = ResNet18::load(weights.find()?, &Device::flex())?;
/// # Ok::<(), padim::Error>(())
/// ```
///
/// With the cargo feature `download`, `fetch` in the place of [`find`](Self::find) downloads what is
/// not there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights {
    file: String,
    /// How the SHA-256 of the file begins, in hexadecimal digits.
    digits: String,
    /// The file's URL without its name.
    base_url: String,
    path: Option<PathBuf>,
}

/// A network whose weights torchvision publishes, trained on ImageNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TorchvisionNetwork {
    /// [`ResNet18`](crate::ResNet18): `resnet18-f37072fd.pth`.
    ResNet18,
    /// [`WideResNet50`](crate::WideResNet50): `wide_resnet50_2-95faca4d.pth`.
    WideResNet50,
    /// [`EfficientNetB5`](crate::EfficientNetB5): `efficientnet_b5_lukemelas-1a07897c.pth`.
    EfficientNetB5,
}

impl Weights {
    /// The weights that torchvision publishes for a network, those that the paper took.
    pub fn torchvision(network: TorchvisionNetwork) -> Self {
        let (name, digits) = match network {
            TorchvisionNetwork::ResNet18 => ("resnet18", "f37072fd"),
            TorchvisionNetwork::WideResNet50 => ("wide_resnet50_2", "95faca4d"),
            TorchvisionNetwork::EfficientNetB5 => ("efficientnet_b5_lukemelas", "1a07897c"),
        };
        Self {
            file: format!("{name}-{digits}.pth"),
            digits: digits.to_owned(),
            base_url: "https://download.pytorch.org/models/".to_owned(),
            path: None,
        }
    }

    /// Weights of your own at `base_url`, by the convention of PyTorch's hub: the file's name ends
    /// with the first digits of its SHA-256, eight or more.
    ///
    /// ```
    /// use padim::Weights;
    ///
    /// Weights::named("screws-0123abcd.safetensors", "https://weights.example.com/padim")?;
    /// # Ok::<(), padim::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] for another name, and for characters other than ASCII letters, digits
    /// and `-_.`, which would mean something in a URL or a path.
    pub fn named(file: impl Into<String>, base_url: impl Into<String>) -> Result<Self> {
        let file = file.into();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        match digits_in(&file).map(str::to_owned) {
            Some(digits) if file.bytes().all(plain) && !file.starts_with('.') => {
                Ok(Self { file, digits, base_url: base_url.into(), path: None })
            }
            _ => Err(Error::config(
                "weights",
                format!("expected a name such as resnet18-f37072fd.pth, got {file:?}"),
            )),
        }
    }

    /// Takes this file and looks nowhere else. It may have any name, and its hash is not checked:
    /// people convert weights, and train their own.
    pub fn at(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The path of the file: the one given by [`at`](Self::at), else the first one there is in
    ///
    /// 1. the folder `PADIM_WEIGHTS_DIR`,
    /// 2. the cache of this crate: `PADIM_CACHE_DIR`, else `$XDG_CACHE_HOME/padim`, else
    ///    `~/.cache/padim` (on Windows `%LOCALAPPDATA%\padim`, on macOS `~/Library/Caches/padim`),
    /// 3. the cache of PyTorch's hub: `$TORCH_HOME/hub/checkpoints`, else
    ///    `$XDG_CACHE_HOME/torch/hub/checkpoints`, else `~/.cache/torch/hub/checkpoints`.
    ///
    /// A file from a folder is hashed, which takes some tenths of a second: its SHA-256 must begin
    /// with the digits in its name.
    ///
    /// # Errors
    ///
    /// [`Error::WeightsNotFound`] if it is nowhere, [`Error::Weights`] if it has another hash,
    /// [`Error::Io`] if it cannot be read.
    pub fn find(&self) -> Result<PathBuf> {
        self.find_in(&Environment::of_process())
    }

    fn find_in(&self, environment: &Environment) -> Result<PathBuf> {
        if let Some(path) = &self.path {
            return fs::metadata(path).map(|_| path.clone()).map_err(Error::io("read", path));
        }
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

    /// The path again, if the file there has the right hash.
    fn checked(&self, path: PathBuf) -> Result<PathBuf> {
        let actual = sha256(&path)?;
        if actual.starts_with(&self.digits) {
            return Ok(path);
        }
        let reason = format!(
            "expected a SHA-256 that begins with {}, got {}; the file is damaged or another one, \
             remove it",
            self.digits,
            &actual[..self.digits.len()]
        );
        Err(Error::Weights { path, reason })
    }

    /// Where the file is on the internet, or on the mirror that the environment names.
    fn url(&self, environment: &Environment) -> String {
        let base = environment.weights_url().unwrap_or_else(|| self.base_url.clone());
        format!("{}/{}", base.trim_end_matches('/'), self.file)
    }
}

/// The digits at the end of a name such as `resnet18-f37072fd.pth`.
fn digits_in(file: &str) -> Option<&str> {
    let (stem, _) = file.rsplit_once('.')?;
    let (_, digits) = stem.rsplit_once('-')?;
    let hexadecimal = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (hexadecimal && (8..=64).contains(&digits.len())).then_some(digits)
}

/// The SHA-256 of a file, in hexadecimal digits.
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
    hash().map_err(Error::io("read", path))?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A URL for messages, which end up in logs: a mirror's may hold a password.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests;
