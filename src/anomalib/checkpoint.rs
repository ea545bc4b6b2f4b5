//! A PaDiM that anomalib has fitted.

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

/// Where anomalib's model has its network.
const NETWORK: &str = "feature_extractor.feature_extractor.";
const MEAN: &str = "gaussian.mean";
const INVERSE: &str = "gaussian.inv_covariance";

/// What anomalib has saved of a fitted PaDiM (`anomalib.models.Padim`): network, channels, mean and
/// inverse covariance at each position, preprocessing and thresholds.
///
/// It takes a Lightning checkpoint (`model.ckpt`) or a state dict of it (`torch.save` of
/// `model.state_dict()`, or safetensors), with residual networks of torchvision's layout: resnet18 to
/// resnet152 and the wide ones, up to layer3. A state dict does not tell the layers, the input size and
/// the preprocessing; anomalib's defaults are then assumed: all layers that it holds, a square, resized
/// to and not cropped.
///
/// The detector gives the anomaly maps and image scores that anomalib's `Engine` gives with the
/// checkpoint, within rounding. (What anomalib exports for other programs resizes without antialiasing
/// and scores a little differently.)
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
    /// [`Error::InvalidConfig`] for networks, layers and preprocessing that this crate does not have.
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

    /// Sets which layers make up the embedding, if the file does not tell or tells something else: a
    /// rising list of 1, 2 and 3. Those behind the last one are left out.
    #[must_use]
    pub fn with_layers(mut self, layers: impl Into<Vec<usize>>) -> Self {
        self.network = self.network.with_layers(layers);
        self
    }

    /// Sets the network's input size `[height, width]`, to which images are resized as anomalib does by
    /// default.
    #[must_use]
    pub fn with_input_size(mut self, [height, width]: [usize; 2]) -> Self {
        self.preprocess = Some(PreprocessConfig {
            resize: Resize::Exact { height, width },
            ..PadimConfig::anomalib().preprocess
        });
        self
    }

    /// The network, as its tensors and settings describe it.
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

    /// How images become network input; `None` if the file does not tell.
    pub fn preprocess(&self) -> Option<&PreprocessConfig> {
        self.preprocess.as_ref()
    }

    /// anomalib's thresholds and ranges.
    pub fn scores(&self) -> &AnomalibScores {
        &self.scores
    }

    /// Makes a detector with the settings [`PadimConfig::anomalib`], the checkpoint's own channels,
    /// layers and input size, its normalisation of image scores and its thresholds. Gaussians are kept
    /// in 32 bits; [`Detector::with_storage`] makes them half as large.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if positions do not go with the input size, and for matrices that are
    /// not symmetric; [`Error::NotPositiveDefinite`] for those that no covariance has; the errors of
    /// [`ResNetConfig::load`] for weights that do not fit.
    pub fn into_detector(mut self, device: &Device) -> Result<Detector> {
        self.network.validate()?;
        let preprocess = match &self.preprocess {
            Some(preprocess) => preprocess.clone(),
            None => self.square()?,
        };
        let stride = self.stride();
        let positions = self.position_count();
        let input_size = preprocess.input_size().ok_or_else(|| {
            let reason = "depends on the image; set it";
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

    /// Pixels of network input for a position.
    fn stride(&self) -> usize {
        self.network.layer_infos().first().map_or(1, |layer| layer.stride)
    }

    /// The preprocessing of anomalib for a square of as many positions.
    fn square(&self) -> Result<PreprocessConfig> {
        let positions = self.position_count();
        let side = positions.isqrt();
        if side * side != positions {
            let reason = format!("cannot be told from {positions} positions, no square; set it");
            return Err(Error::config("input size", reason));
        }
        let resize = Resize::square(side * self.stride());
        Ok(PreprocessConfig { resize, ..PadimConfig::anomalib().preprocess })
    }
}

/// Says what to do about a pickle that cannot be read: mostly one that holds the model itself.
fn advice(reason: &str) -> String {
    format!(
        "{reason}. If it holds a whole model, write its tensors alone, with Python: \
         torch.save(torch.load(\"model.pt\", weights_only=False)[\"model\"].state_dict(), \
         \"state.pt\"); if it is a Lightning checkpoint of an older anomalib: \
         torch.save(torch.load(\"model.ckpt\", weights_only=False)[\"state_dict\"], \"state.pt\")"
    )
}

/// The layers 1, 2 and 3 of which there are tensors.
fn present_layers(weights: &Checkpoint) -> Vec<usize> {
    let present = |layer: &usize| weights.shape(&format!("layer{layer}.0.conv1.weight")).is_some();
    (1..=3).filter(present).collect()
}

/// A residual network by the shapes of its tensors. Of layers that are not there, nothing depends on what
/// it says.
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
