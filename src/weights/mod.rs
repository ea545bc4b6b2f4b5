//! Where a network's weights come from: out of this crate, from a file, or from where they are
//! published.

#[cfg(feature = "download")]
mod download;
mod environment;
mod published;

#[cfg(feature = "download")]
pub use download::FetchProgress;
pub use published::PublishedWeights;
pub(crate) use published::sha256;

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use environment::Environment;

/// The file that [`Weights::Bundled`] is.
pub(crate) const BUNDLED: &[u8] = include_bytes!("bundled.safetensors");

/// The weights of a network, as its `load` takes them. A path will do in their place.
///
/// ```
/// use burn::tensor::Device;
/// use padim::{ResNet18, TorchvisionNetwork, Weights};
///
/// let device = Device::flex();
/// let backbone = ResNet18::load(Weights::Bundled, &device)?;
/// # if false {
/// let backbone = ResNet18::load("resnet18-f37072fd.pth", &device)?;
/// let backbone = ResNet18::load(Weights::torchvision(TorchvisionNetwork::ResNet18), &device)?;
/// # }
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Weights {
    /// A trunk of [`ResNet18`](crate::ResNet18) that lies in this crate: no file, no network. This
    /// project trained it, on pictures that it draws itself. It sees less than the weights that were
    /// trained on ImageNet; the README has the figures.
    Bundled,
    /// A file, which may have any name. Its hash is not checked: people convert weights, and train
    /// their own.
    File(PathBuf),
    /// A file that someone publishes, looked for on this machine.
    Published(PublishedWeights),
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
        Self::Published(PublishedWeights::torchvision(name, digits))
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
        PublishedWeights::new(file.into(), base_url.into()).map(Self::Published)
    }

    /// The path of the file: a file's own, that of a published one the first there is in
    ///
    /// 1. the folder `PADIM_WEIGHTS_DIR`,
    /// 2. the cache of this crate: `PADIM_CACHE_DIR`, else `$XDG_CACHE_HOME/padim`, else
    ///    `~/.cache/padim` (on Windows `%LOCALAPPDATA%\padim`, on macOS `~/Library/Caches/padim`),
    /// 3. the cache of PyTorch's hub: `$TORCH_HOME/hub/checkpoints`, else
    ///    `$XDG_CACHE_HOME/torch/hub/checkpoints`, else `~/.cache/torch/hub/checkpoints`.
    ///
    /// A published file is hashed, which takes some tenths of a second: its SHA-256 must begin with
    /// the digits in its name.
    ///
    /// # Errors
    ///
    /// [`Error::WeightsNotFound`] if it is nowhere, [`Error::Weights`] if it has another hash,
    /// [`Error::Io`] if it cannot be read, [`Error::InvalidConfig`] for the bundled weights, which
    /// are no file.
    pub fn find(&self) -> Result<PathBuf> {
        match self {
            Self::Bundled => Err(Error::config(
                "weights",
                "the bundled weights have no path; give `Weights::Bundled` to `ResNet18::load`",
            )),
            Self::File(path) => {
                fs::metadata(path).map(|_| path.clone()).map_err(Error::io("read", path))
            }
            Self::Published(weights) => weights.find_in(&Environment::of_process()),
        }
    }

    /// For every network but ResNet18.
    pub(crate) fn require_other_than_bundled(&self) -> Result<()> {
        match self {
            Self::Bundled => Err(Error::config(
                "weights",
                "the bundled weights are those of ResNet18; for another network give a file, or \
                 `Weights::torchvision`",
            )),
            _ => Ok(()),
        }
    }
}

impl<P: AsRef<Path>> From<P> for Weights {
    fn from(path: P) -> Self {
        Self::File(path.as_ref().to_owned())
    }
}

impl From<&Weights> for Weights {
    fn from(weights: &Weights) -> Self {
        weights.clone()
    }
}

#[cfg(test)]
mod tests;
