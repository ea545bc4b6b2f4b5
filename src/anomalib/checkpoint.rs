//! A PaDiM model that was fitted by anomalib.

use std::path::Path;

use burn::tensor::Device;

use super::scores::AnomalibScores;
use super::settings::Settings;
use crate::backbone::{Checkpoint, Network, ResNetBlock, ResNetConfig};
use crate::detector::{Detector, Padim, PadimConfig};
use crate::embedding::ChannelSelection;
use crate::error::{Error, Result};
use crate::gaussian::GaussianModel;
use crate::preprocess::{PreprocessConfig, Resize};
use crate::scoring::ScoringConfig;

/// The name prefix of the network in anomalib's model.
const NETWORK: &str = "feature_extractor.feature_extractor.";
const MEAN: &str = "gaussian.mean";
const INVERSE: &str = "gaussian.inv_covariance";

/// A fitted PaDiM of anomalib (`anomalib.models.Padim`): network, channels, mean and inverse covariance
/// at each position, preprocessing and thresholds.
///
/// It is read from a Lightning checkpoint (`model.ckpt`) or a state dict of it (`torch.save` of
/// `model.state_dict()`, or safetensors). The network must be a torchvision ResNet: resnet18 to
/// resnet152 or a wide one, up to layer3. A state dict does not contain the layers, the input size and
/// the preprocessing. Then anomalib's defaults are assumed: all layers in the file, and a square input
/// without a crop.
///
/// Up to rounding, the detector gives the same anomaly maps and image scores as anomalib's `Engine`
/// with the checkpoint. (Models that anomalib exports to other formats resize without antialiasing, so
/// their scores differ slightly.)
///
/// ```no_run
/// use padim::anomalib::AnomalibCheckpoint;
/// use padim::burn::tensor::Device;
///
/// let checkpoint = AnomalibCheckpoint::read("model.ckpt")?;
/// println!("{:?}", checkpoint.scores());
/// let detector = checkpoint.into_detector(&Device::flex())?;
/// detector.save("part.padim")?;
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug)]
pub struct AnomalibCheckpoint {
    network: ResNetConfig,
    weights: Checkpoint,
    channels: Vec<usize>,
    /// `[dimension, positions]`
    means: Vec<f32>,
    /// `[positions, dimension, dimension]`
    inverses: Vec<f32>,
    preprocess: Option<PreprocessConfig>,
    scores: AnomalibScores,
}

impl AnomalibCheckpoint {
    /// Reads a checkpoint. Pickled code is never executed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] and [`Error::Weights`] tell why a file cannot be read; [`Error::MissingTensor`],
    /// [`Error::TensorShape`] and [`Error::TensorType`] name the tensor that does not fit;
    /// [`Error::InvalidConfig`] for networks, layers and preprocessing that this crate does not
    /// support.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let fail = |reason: String| Error::Weights { path: path.to_owned(), reason };
        let mut checkpoint = Checkpoint::read(path, &[]).map_err(|error| match error {
            Error::Weights { path, reason } => Error::Weights { path, reason: advice(&reason) },
            other => other,
        })?;
        let ends: Vec<&str> =
            checkpoint.names().filter_map(|name| name.strip_suffix(INVERSE)).collect();
        let &[prefix] = ends.as_slice() else {
            let reason = format!("it is no PaDiM of anomalib: it has {} `{INVERSE}`", ends.len());
            return Err(fail(reason));
        };
        let prefix = prefix.to_owned();
        let mut model = checkpoint.split_off(&prefix);
        let weights = model.split_off(NETWORK);

        let (positions, dimension) = match model.shape(INVERSE) {
            Some(&[positions, dimension, _]) if positions > 0 && dimension > 0 => {
                (positions, dimension)
            }
            _ => return Err(fail("its Gaussians are empty: it has not been fitted".into())),
        };
        let channels = model.take_indices("idx", dimension)?;
        let means = model.take(MEAN, &[dimension, positions])?;
        let inverses = model.take(INVERSE, &[positions, dimension, dimension])?;

        let settings = Settings::read(path)?;
        let scores = AnomalibScores::new(&checkpoint, &prefix, &settings);
        let layers = settings.layers.unwrap_or_else(|| present_layers(&weights));
        let network = network(&weights)?.with_layers(layers);
        network.validate()?;
        let preprocess = settings.preprocess;
        Ok(Self { network, weights, channels, means, inverses, preprocess, scores })
    }

    /// Sets the layers of the embedding, instead of those of the file: an increasing list of 1, 2 and
    /// 3. Later layers are removed.
    #[must_use]
    pub fn with_layers(mut self, layers: impl Into<Vec<usize>>) -> Self {
        self.network = self.network.with_layers(layers);
        self
    }

    /// Sets the network's input size `[height, width]` in pixels. Images are resized to it, as by
    /// anomalib's default.
    #[must_use]
    pub fn with_input_size(mut self, [height, width]: [usize; 2]) -> Self {
        self.preprocess = Some(PreprocessConfig {
            resize: Resize::Exact { height, width },
            ..PadimConfig::anomalib().preprocess
        });
        self
    }

    /// The description of the network.
    pub fn network(&self) -> &ResNetConfig {
        &self.network
    }

    /// The selected channels of the concatenated layers, in anomalib's order.
    pub fn channels(&self) -> &[usize] {
        &self.channels
    }

    /// The number of positions that have a Gaussian.
    pub fn position_count(&self) -> usize {
        self.means.len() / self.channels.len().max(1)
    }

    /// The preprocessing; `None` if the file does not contain it.
    pub fn preprocess(&self) -> Option<&PreprocessConfig> {
        self.preprocess.as_ref()
    }

    /// anomalib's thresholds and ranges.
    pub fn scores(&self) -> &AnomalibScores {
        &self.scores
    }

    /// Makes a detector with the settings [`PadimConfig::anomalib`] and with the checkpoint's channels,
    /// layers, input size, normalization of image scores and thresholds. The Gaussians have 32 bits;
    /// [`Detector::with_storage`] converts them to half the size.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the number of positions does not fit the input size, or if a matrix
    /// is not symmetric; [`Error::NotPositiveDefinite`] if a matrix is not positive definite; the
    /// errors of [`ResNetConfig::load`] for weights that do not fit.
    pub fn into_detector(mut self, device: &Device) -> Result<Detector> {
        self.network.validate()?;
        let preprocess = match &self.preprocess {
            Some(preprocess) => preprocess.clone(),
            None => self.square()?,
        };
        let stride = self.stride();
        let positions = self.position_count();
        let input_size = preprocess.input_size().ok_or_else(|| {
            let reason = "the preprocessing gives no fixed size; set the input size";
            Error::config("input size", reason)
        })?;
        let grid = input_size.map(|side| side.div_ceil(stride));
        if grid[0].checked_mul(grid[1]) != Some(positions) {
            let reason = format!(
                "an input of {input_size:?} pixels has {grid:?} positions at stride {stride}, the \
                 checkpoint has {positions}; set the input size, or the layers"
            );
            return Err(Error::config("input size", reason));
        }
        let dimension = self.channels.len();
        let means: Vec<f32> = (0..positions)
            .flat_map(|p| (0..dimension).map(move |c| c * positions + p))
            .map(|i| self.means[i])
            .collect();
        let model = GaussianModel::from_inverses(grid, &means, &self.inverses)?;
        drop(self.inverses);
        let defaults = PadimConfig::anomalib();
        let normalization = self.scores.normalization();
        let mut config = PadimConfig {
            preprocess,
            channels: ChannelSelection::Indices(self.channels),
            scoring: ScoringConfig { normalization, ..defaults.scoring },
            ..defaults
        };
        config.gaussian.storage = model.storage();
        self.network.unused().iter().for_each(|unused| drop(self.weights.split_off(unused)));
        let network = self.network.load_from(self.weights, device)?;
        let detector = Padim::new(config, network)?.with_gaussians(model, input_size)?;
        detector.with_thresholds(self.scores.thresholds())
    }

    /// Input pixels per position, along each axis.
    fn stride(&self) -> usize {
        self.network.layer_infos().first().map_or(1, |layer| layer.stride)
    }

    /// anomalib's default preprocessing, for a square input with the checkpoint's number of positions.
    fn square(&self) -> Result<PreprocessConfig> {
        let positions = self.position_count();
        let side = positions.isqrt();
        if side * side != positions {
            let reason = format!("{positions} positions are no square; set the input size");
            return Err(Error::config("input size", reason));
        }
        let resize = Resize::square(side * self.stride());
        Ok(PreprocessConfig { resize, ..PadimConfig::anomalib().preprocess })
    }
}

/// Adds advice to the error for an unreadable pickle. Usually, the pickle holds the model object.
fn advice(reason: &str) -> String {
    format!(
        "{reason}. If it holds a whole model, save only its tensors, with Python: \
         torch.save(torch.load(\"model.pt\", weights_only=False)[\"model\"].state_dict(), \
         \"state.pt\"); if it is a Lightning checkpoint of an older anomalib: \
         torch.save(torch.load(\"model.ckpt\", weights_only=False)[\"state_dict\"], \"state.pt\")"
    )
}

/// The layers among 1, 2 and 3 that have tensors.
fn present_layers(weights: &Checkpoint) -> Vec<usize> {
    let present = |layer: &usize| weights.shape(&format!("layer{layer}.0.conv1.weight")).is_some();
    (1..=3).filter(present).collect()
}

/// Describes a residual network by the shapes of its tensors. For missing layers, the values are
/// placeholders that are never used.
fn network(weights: &Checkpoint) -> Result<ResNetConfig> {
    let channels = |name: &str| {
        let shape = weights.shape(name).unwrap_or_default();
        shape.first().copied().ok_or_else(|| Error::MissingTensor {
            name: format!("{NETWORK}{name}"),
            expected: vec![64, 3, 7, 7],
        })
    };
    let stem_channels = channels("conv1.weight")?;
    let bottleneck = weights.shape("layer1.0.conv3.weight").is_some();
    let block = if bottleneck { ResNetBlock::Bottleneck } else { ResNetBlock::Basic };
    let (mut blocks, mut planes) = ([1; 3], [1; 3]);
    let mut base_width = 64;
    for layer in 1..=3 {
        let count = (0..)
            .take_while(|b| weights.shape(&format!("layer{layer}.{b}.conv1.weight")).is_some())
            .count();
        if count == 0 && layer > 1 {
            planes[layer - 1] = planes[layer - 2];
            continue;
        }
        blocks[layer - 1] = count;
        let narrow = channels(&format!("layer{layer}.0.conv1.weight"))?;
        planes[layer - 1] = narrow;
        if bottleneck {
            planes[layer - 1] = channels(&format!("layer{layer}.0.conv3.weight"))? / 4;
            base_width = narrow.saturating_mul(64) / planes[layer - 1].max(1);
        }
    }
    Ok(ResNetConfig { block, stem_channels, blocks, planes, base_width, layers: vec![1] })
}
