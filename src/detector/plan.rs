//! How much memory a fit and a prediction will take, before they begin.

use std::fmt;

use super::Padim;
use crate::gaussian::{Block, PENDING, sample_limit, trapezoid_len};
use crate::{Error, GaussianEstimator, Result, Storage};

/// Bytes that a fit and a prediction take at their peak, beyond the program itself (some tens of
/// megabytes). The sizes of statistics and model are exact, the network's part is an
/// estimate; the whole holds within a fifth.
///
/// ```
/// use burn::tensor::Device;
/// use padim::{Padim, PadimConfig, ResNet18, Weights};
///
/// let backbone = ResNet18::load(Weights::Bundled, &Device::flex())?;
/// let padim = Padim::new(PadimConfig::default(), backbone)?;
/// let plan = padim.memory_plan(200)?;
/// assert!(plan.fit < 400_000_000 && plan.model < 34_000_000);
/// println!("{plan}");
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryPlan {
    /// The form that the Gaussians will have. [`Storage::Auto`] is resolved as if 16 bits will do.
    pub storage: Storage,
    /// The network's weights; 0 for a backbone that does not tell.
    pub network: usize,
    /// What a batch of images takes on its way, from pixels to embedding vectors.
    pub batch: usize,
    /// What is known of all images before the covariances are factorised.
    pub statistics: usize,
    /// The means and Gaussians, in memory and in the detector's file.
    pub model: usize,
    /// The peak of a fit.
    pub fit: usize,
    /// The peak of predictions by a loaded detector.
    pub predict: usize,
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mega = |bytes: usize| format!("{:.0} MB", bytes as f64 / 1e6);
        write!(
            f,
            "fit {}, predict {} (network {}, batch {}, statistics {}, model {} as {})",
            mega(self.fit),
            mega(self.predict),
            mega(self.network),
            mega(self.batch),
            mega(self.statistics),
            mega(self.model),
            self.storage
        )
    }
}

impl Padim {
    /// How much memory a fit of so many images will take, their copies by augmentation not counted.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the size of the network's input depends on the images, so that no
    /// plan can be made; if the settings do not go with so many images; or if the sizes are beyond
    /// all measure.
    pub fn memory_plan(&self, images: usize) -> Result<MemoryPlan> {
        let size = self.config.preprocess.input_size();
        let Some([height, width]) = size else {
            let reason = "without a crop, a plan needs an exact size to resize to";
            return Err(Error::config("resize", reason));
        };
        self.plan_for([height, width], images, images)
    }

    /// The plan of a fit for input of `[height, width]`, where each position sees so many vectors and the
    /// network so many inputs.
    pub(super) fn plan_for(
        &self,
        [height, width]: [usize; 2],
        images: usize,
        inputs: usize,
    ) -> Result<MemoryPlan> {
        let stride = self.backbone.layers().first().map_or(1, |layer| layer.stride.max(1));
        let grid = [height.div_ceil(stride), width.div_ceil(stride)];
        let positions = self.positions(grid)?.with_pooled(self.config.gaussian.pooled);
        let dimension = self.embedder.dimension();
        let copies =
            self.config.augmentation.as_ref().map_or(0, |augmentation| augmentation.copies);
        let images = images.saturating_mul(1 + copies);
        let vectors = positions.vectors(images);
        let (storage, rows) =
            GaussianEstimator::foreseen(&self.config.gaussian, dimension, vectors)?;
        let batch_size = self.config.batch_size.min(inputs.max(1));
        let network = self.extractor.backbone().memory_estimate([batch_size, 3, height, width]);
        let network = network.unwrap_or_default();
        let sizes = Sizes {
            positions: positions.gaussians(),
            dimension,
            vectors,
            model: storage.numbers(dimension, rows).unwrap_or(0) * storage.precision().bytes(),
        };
        sizes
            .plan()
            .and_then(|[statistics, model, gaussians]| {
                // Two batches of pixels; the embedding.
                let pixels = 2 * 3 * height * width;
                let vectors = grid[0] * grid[1] * dimension;
                let batch = network
                    .activations
                    .checked_add(4 * batch_size * vectors)?
                    .checked_add(4 * batch_size * pixels)?;
                let fixed = network.weights.checked_add(batch)?;
                Some(MemoryPlan {
                    storage,
                    network: network.weights,
                    batch,
                    statistics,
                    model,
                    // What batches took is not given back before the covariances are factorised.
                    fit: fixed.checked_add(statistics.max(gaussians))?,
                    predict: fixed.checked_add(model)?,
                })
            })
            .ok_or_else(|| Error::config("channels", "such a fit would take more than all memory"))
    }
}

impl MemoryPlan {
    /// The plan for so many models like the one that this is the plan of, some fitted at once, where images,
    /// tiles and maps have so many pixels.
    pub(super) fn for_tiles(
        self,
        [models, at_once]: [usize; 2],
        [image, tile, map]: [usize; 3],
    ) -> Result<Self> {
        let Self { network, batch, statistics, model, .. } = self;
        let whole = || {
            // The image in work and the next one, in 8-bit colour, and the tiles that threads cut out and
            // convert.
            let cut = rayon::current_num_threads().checked_mul(2 * 3 * tile)?;
            let images = image.checked_mul(2 * 3)?.checked_add(cut)?;
            let map = map.checked_mul(4)?;
            let fixed = network.checked_add(batch)?.checked_add(images)?;
            // One is finished after the other, beside what others know and those that are done.
            let waiting = statistics.max(model).checked_mul(at_once - 1)?;
            let done = model.checked_mul(models - at_once)?;
            let last = self.fit - network - batch;
            let all = model.checked_mul(models)?;
            Some(Self {
                model: all,
                statistics: statistics.checked_mul(at_once)?,
                fit: fixed.checked_add(last)?.checked_add(waiting)?.checked_add(done)?,
                predict: fixed.checked_add(all)?.checked_add(map)?,
                ..self
            })
        };
        whole().ok_or_else(|| Error::config("tile", "such a fit would take more than all memory"))
    }
}

/// What decides the size of the Gaussians' part.
struct Sizes {
    positions: usize,
    dimension: usize,
    /// Of a position.
    vectors: usize,
    /// Bytes of a position's Gaussian without its mean.
    model: usize,
}

impl Sizes {
    /// Bytes of the statistics, of the model, and the peak while one is made into the other.
    fn plan(&self) -> Option<[usize; 3]> {
        let Self { positions, dimension, vectors: images, model } = *self;
        let limit = sample_limit(dimension);
        let vectors = |count: usize| count.checked_mul(4 * dimension);
        let sums = trapezoid_len(dimension, dimension).checked_add(2 * dimension + 1)?;
        let sums = sums.checked_mul(8)?;
        let block = Block::size(positions, dimension);
        let model_bytes = model.checked_add(4 * (dimension + 1))?;
        let all = |bytes: usize| bytes.checked_mul(positions);
        let few = images <= limit;
        // Vectors that wait to be summed come on top of the sums.
        let waiting = vectors(images.min(PENDING))?;
        let statistics = if few { vectors(images)? } else { sums.checked_add(waiting)? };
        let folding = if few { 0 } else { all(vectors(limit)?)?.checked_add(block * sums)? };
        // Means and scales lie beside; every block that is done makes room for the next.
        let begin = all(statistics)?.checked_add(block * model)?;
        let end = all(model)?.checked_add(block * statistics)?;
        let beside = all(4 * (dimension + 1))?;
        // A thread holds the covariance, its factor and what that is made of, in f64.
        let matrices = rayon::current_num_threads().checked_mul(5 * 8 * dimension * dimension)?;
        let factorising = begin.max(end).checked_add(beside)?.checked_add(matrices)?;
        Some([all(statistics)?.max(folding), all(model_bytes)?, factorising.max(folding)])
    }
}
