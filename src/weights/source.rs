//! Where weights come from.

use std::fs;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::published::PublishedWeights;
use crate::error::{Error, FileKind, Result};
use crate::names::named;

/// The content of [`Weights::Bundled`].
pub(crate) const BUNDLED: &[u8] = include_bytes!("bundled.safetensors");

/// Where a network's `load` takes its weights from. `load` also accepts a path.
///
/// ```
/// use burn::tensor::Device;
/// use padim::{ResNet18, Weights};
/// use padim::weights::TorchvisionNetwork;
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
    /// Weights of [`ResNet18`](crate::ResNet18) up to layer3 that are part of this crate: they need
    /// no file and no internet. This project trained them on synthetic pictures. They detect less
    /// than weights trained on ImageNet; the README has the figures.
    Bundled,
    /// A file with any name. Its hash is not checked, because it may hold converted or self-trained
    /// weights.
    File(PathBuf),
    /// A published file, searched for on this machine.
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

named!(
    TorchvisionNetwork,
    "network",
    [
        ("resnet18", TorchvisionNetwork::ResNet18),
        ("wide_resnet50", TorchvisionNetwork::WideResNet50),
        ("efficientnet_b5", TorchvisionNetwork::EfficientNetB5)
    ]
);

impl Weights {
    /// The weights that torchvision publishes for a network, as used in the paper.
    pub fn torchvision(network: TorchvisionNetwork) -> Self {
        let (name, digits) = match network {
            TorchvisionNetwork::ResNet18 => ("resnet18", "f37072fd"),
            TorchvisionNetwork::WideResNet50 => ("wide_resnet50_2", "95faca4d"),
            TorchvisionNetwork::EfficientNetB5 => ("efficientnet_b5_lukemelas", "1a07897c"),
        };
        Self::Published(PublishedWeights::torchvision(name, digits))
    }

    /// Your own weights at `base_url`, named by the convention of PyTorch's hub: before its
    /// extension, the name ends with the first 8 or more hexadecimal digits of the file's SHA-256.
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
    /// [`Error::InvalidConfig`] for a name without these digits, with a leading dot, or with
    /// characters other than ASCII letters, digits and `-_.`, which could have a meaning in a URL
    /// or a path.
    pub fn named(file: impl Into<String>, base_url: impl Into<String>) -> Result<Self> {
        PublishedWeights::new(file.into(), base_url.into()).map(Self::Published)
    }

    /// The path of the file. A published file is searched for in these folders, in this order:
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
    /// [`Error::WeightsNotFound`] if it is in none of them, [`Error::Weights`] if its hash is
    /// wrong, [`Error::Io`] if it cannot be read, [`Error::InvalidConfig`] for the bundled weights,
    /// which have no path.
    pub fn find(&self) -> Result<PathBuf> {
        match self {
            Self::Bundled => Err(Error::config(
                "weights",
                "the bundled weights have no path; give `Weights::Bundled` to `ResNet18::load`",
            )),
            Self::File(path) => fs::metadata(path).map(|_| path.clone()).map_err(Error::io(
                FileKind::Weights,
                "read",
                path,
            )),
            Self::Published(weights) => weights.find_in(&Environment::of_process()),
        }
    }

    /// Refuses the bundled weights, for every network except ResNet18.
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
