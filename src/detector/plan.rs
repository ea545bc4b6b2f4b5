//! Estimates the memory of a fit and of predictions before they run.

use std::fmt;

use super::good_peak::LastImages;
use super::padim::Padim;
use crate::backbone::BackboneMemory;
use crate::error::{Error, Result};
use crate::gaussian::{Block, GaussianStatistics, PENDING, Storage, sample_limit, trapezoid_len};
use crate::host::{LARGEST_BUFFER, is_host};
use crate::preprocess::ResizeArithmetic;

/// The peak memory of a fit and of predictions in bytes, without the program itself (some tens of
/// megabytes). The sizes of statistics and model are exact; the sizes of images and network are
/// estimates. The totals are accurate to 20 %.
///
/// The plan assumes that images come as files or as
/// [`ImageInput::Deferred`](crate::ImageInput::Deferred), which are decoded when they are used, in
/// 8-bit color. It does not include images that are passed already decoded.
///
/// ```
/// use burn::tensor::Device;
/// use padim::{Padim, PadimConfig, ResNet18, Weights};
///
/// let backbone = ResNet18::load(Weights::Bundled, &Device::flex())?;
/// let padim = Padim::new(PadimConfig::default(), backbone)?;
/// let plan = padim.memory_plan([1024, 1024], 200)?;
/// assert!(plan.fit < 400_000_000 && plan.model < 34_000_000);
/// println!("{plan}");
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryPlan {
    /// The storage of the Gaussians. [`Storage::Auto`] is resolved with the assumption that 16 bits are
    /// precise enough.
    pub storage: Storage,
    /// The network's weights; 0 if the backbone gives no estimate.
    pub network: usize,
    /// The processing of a batch, from decoded files to embedding vectors.
    pub batch: usize,
    /// The statistics of all images before the covariances are factorized.
    pub statistics: usize,
    /// The means and Gaussians, in memory and in the detector's file.
    pub model: usize,
    /// The peak of a fit in host memory.
    pub fit: usize,
    /// The peak of predictions by a loaded detector in host memory. A calibration takes the same, plus
    /// 8 bytes for each pixel above the threshold that its rate allows.
    pub predict: usize,
    /// The peak in the memory of the backbone's device, in 32 bits; 0 for a CPU. The device's allocator
    /// reserves more; for small models, up to about twice as much.
    pub device: usize,
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
        )?;
        if self.device > 0 {
            write!(f, ", on the device {}", mega(self.device))?;
        }
        Ok(())
    }
}

impl Padim {
    /// The memory of a fit with a number of images of `[height, width]` pixels, and of predictions for
    /// such images.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if the settings do not fit the number of images, or if the memory
    /// exceeds the address space; [`Error::UnusableImage`] for images without pixels.
    pub fn memory_plan(&self, image_size: [usize; 2], images: usize) -> Result<MemoryPlan> {
        self.plan_for(image_size, images, images)
    }

    /// As [`memory_plan`](Self::memory_plan), for [`fit_calibrated`](Self::fit_calibrated) with a
    /// number of folds. It keeps the statistics of every fold, plus the merged statistics of the other
    /// folds.
    ///
    /// # Errors
    ///
    /// As [`memory_plan`](Self::memory_plan).
    pub fn calibrated_memory_plan(
        &self,
        image_size: [usize; 2],
        images: usize,
        folds: usize,
    ) -> Result<MemoryPlan> {
        let parts = self.parts(image_size, images, images)?;
        let plan = || {
            let whole = parts.plan()?;
            let vectors = parts.sizes.vectors.div_ceil(folds.max(1));
            let fold = Sizes { vectors, ..parts.sizes }.plan()?.statistics;
            let folds = fold.checked_mul(folds)?;
            // Copies of the folds are merged one after the other and then factorized. While a fold is
            // scored, the Gaussians of the other folds take the place of the merged statistics.
            let merging = whole.fit.checked_add(fold)?;
            let fit = merging.max(whole.predict).checked_add(folds)?;
            Some(MemoryPlan { statistics: whole.statistics.checked_add(folds)?, fit, ..whole })
        };
        plan().ok_or_else(too_large)
    }

    /// The plan of a fit for images of `[height, width]` pixels. `images`: the vectors per position.
    /// `inputs`: the inputs of the network.
    pub(super) fn plan_for(
        &self,
        image_size: [usize; 2],
        images: usize,
        inputs: usize,
    ) -> Result<MemoryPlan> {
        self.parts(image_size, images, inputs)?.plan().ok_or_else(too_large)
    }

    fn parts(&self, image_size: [usize; 2], images: usize, inputs: usize) -> Result<Parts> {
        let input_size = self.preprocessor.geometry(image_size)?.input_size();
        let [height, width] = input_size;
        let grid = self.extractor.grid(input_size);
        let positions = self.positions(grid)?;
        let dimension = self.embedder.dimension();
        let vectors = positions.vectors(self.copied(images));
        let (storage, rows) =
            GaussianStatistics::foreseen(&self.config.gaussian, dimension, vectors)?;
        let batch_size = self.config.batch_size.min(inputs.max(1));
        let is_host = is_host(&self.backbone.device());
        let at_once = self.extractor.at_once(batch_size, input_size);
        let network = self.extractor.backbone().memory_estimate([at_once, 3, height, width]);
        Ok(Parts {
            storage,
            network: network.unwrap_or_default(),
            originals: self.originals(image_size, input_size, batch_size),
            batch_size,
            at_once,
            pixels: height * width,
            grid: grid[0] * grid[1],
            window: self.config.neighborhood.pow(2),
            rows,
            is_host,
            sizes: Sizes {
                positions: positions.gaussians(),
                dimension,
                vectors,
                model: storage.numbers(dimension, rows).unwrap_or(0) * storage.precision().bytes(),
            },
        })
    }

    /// Bytes of the images that are decoded at the same time, one per thread, including temporary
    /// copies of the preprocessing; `None` on overflow.
    fn originals(
        &self,
        [height, width]: [usize; 2],
        [_, input_width]: [usize; 2],
        batch_size: usize,
    ) -> Option<usize> {
        let Self { config, registration, .. } = self;
        let pixels = height.checked_mul(width)?;
        // In 8-bit color: the decoded, the registered, the rotated and the mirrored image.
        let copies = 1
            + usize::from(registration.is_some())
            + if config.augmentation.is_some() { 2 } else { 0 };
        // At most: the intermediate image of resizing has the final width, but still the full height; of
        // floating-point numbers, for one channel at a time.
        let narrow = height.checked_mul(input_width)?;
        let resizing = match config.preprocess.arithmetic {
            ResizeArithmetic::Pil => narrow.checked_mul(3)?,
            ResizeArithmetic::Float { .. } => narrow.checked_mul(4)?,
        };
        let each = pixels.checked_mul(3 * copies)?.checked_add(resizing)?;
        each.checked_mul(rayon::current_num_threads().min(batch_size))
    }
}

fn too_large() -> Error {
    Error::config("channels", "the fit would exceed the address space; use fewer channels")
}

/// The sizes from which a plan is computed.
struct Parts {
    storage: Storage,
    network: BackboneMemory,
    /// Bytes of decoded images.
    originals: Option<usize>,
    batch_size: usize,
    /// Images that the network processes at once.
    at_once: usize,
    /// Pixels of a network input.
    pixels: usize,
    /// All positions of the grid, inside and outside the region.
    grid: usize,
    /// Number of Gaussians with which each vector is compared.
    window: usize,
    /// Rows of a position's Gaussian.
    rows: usize,
    is_host: bool,
    sizes: Sizes,
}

impl Parts {
    fn plan(&self) -> Option<MemoryPlan> {
        let Self { storage, network, batch_size, at_once, is_host, .. } = *self;
        let PlannedSizes { statistics, model, factorising } = self.sizes.plan()?;
        // Two batches of network input.
        let inputs = (4 * batch_size).checked_mul(2 * 3 * self.pixels)?;
        let vectors = (4 * at_once).checked_mul(self.grid * self.sizes.dimension)?;
        // The embeddings of the last images.
        let each = (4 * self.grid).checked_mul(self.sizes.dimension)?;
        let last = each.checked_mul(LastImages::most(each).min(self.sizes.vectors))?;
        let computed = network.activations.checked_add(vectors)?;
        let originals = self.originals?;
        let images = inputs.checked_add(originals)?;
        let (batch, fixed, windows) = match is_host {
            true => {
                let batch = images.checked_add(computed)?;
                // The distances to all Gaussians of the windows.
                let windows = if self.window == 1 { 0 } else { self.window };
                let windows = (4 * batch_size).checked_mul(windows * self.sizes.positions)?;
                (batch, network.weights.checked_add(batch)?, windows)
            }
            false => (images, images, 0),
        };
        Some(MemoryPlan {
            storage,
            network: network.weights,
            batch,
            statistics,
            model,
            // Before the factorization, allocators return only the memory of decoded images, which are
            // large blocks, not that of the other buffers.
            fit: (fixed - originals)
                .checked_add(statistics.checked_add(originals)?.max(factorising))?
                .checked_add(last)?,
            predict: fixed.checked_add(model)?.checked_add(windows)?,
            device: if is_host { 0 } else { self.on_device(computed)? },
        })
    }

    /// Bytes in the memory of a GPU: `computed` by the network, and the data of fits and predictions.
    fn on_device(&self, computed: usize) -> Option<usize> {
        let Sizes { positions, dimension: d, .. } = self.sizes;
        let matrix = self.storage.device_numbers(d, self.rows)?;
        let gaussians = matrix.checked_add(4 * d)?.checked_mul(4 * positions)?;
        let windows = (2 * 4 * (self.window - 1)).checked_mul(positions)?;
        let input = (4 * self.at_once).checked_mul(3 * self.pixels)?;
        // Vectors minus the mean, and their products with the matrices.
        let vectors = (2 * 4 * self.at_once).checked_mul(self.grid * d)?;
        let scored = gaussians.checked_add(windows)?.checked_add(vectors)?;
        // Embeddings that wait on the device during a fit.
        let waiting = (4 * self.grid * d).checked_mul(self.sizes.vectors)?.min(2 * LARGEST_BUFFER);
        let peak = scored.max(waiting).checked_add(computed)?.checked_add(input)?;
        peak.checked_add(self.network.weights)
    }
}

impl MemoryPlan {
    /// Scales this plan to `models` models, `at_once` of them fitted together. `image` and `map`: their
    /// numbers of pixels.
    pub(super) fn for_tiles(
        self,
        [models, at_once]: [usize; 2],
        [image, map]: [usize; 2],
    ) -> Result<Self> {
        let Self { statistics, model, .. } = self;
        let whole = || {
            // The current image and the next one, in 8-bit color.
            let images = image.checked_mul(2 * 3)?;
            let map = map.checked_mul(4)?;
            // Models are finished one after the other. Meanwhile, the statistics of the waiting models
            // and the finished models exist.
            let waiting = statistics.max(model).checked_mul(at_once - 1)?;
            let done = model.checked_mul(models - at_once)?;
            let others = model.checked_mul(models - 1)?;
            Some(Self {
                model: model.checked_mul(models)?,
                statistics: statistics.checked_mul(at_once)?,
                fit: self.fit.checked_add(images)?.checked_add(waiting)?.checked_add(done)?,
                predict: self.predict.checked_add(images)?.checked_add(others)?.checked_add(map)?,
                // Only one model at a time is on the device.
                ..self
            })
        };
        whole().ok_or_else(|| Error::config("tile", "the fit would exceed the address space"))
    }
}

/// Bytes of the statistics, of the model, and the peak while the model is computed.
struct PlannedSizes {
    statistics: usize,
    model: usize,
    factorising: usize,
}

/// The sizes that determine the memory of statistics and model.
#[derive(Clone, Copy)]
struct Sizes {
    positions: usize,
    dimension: usize,
    /// Vectors per position.
    vectors: usize,
    /// Bytes of a position's Gaussian without its mean.
    model: usize,
}

impl Sizes {
    fn plan(&self) -> Option<PlannedSizes> {
        let Self { positions, dimension, vectors: images, model } = *self;
        let limit = sample_limit(dimension);
        let vectors = |count: usize| count.checked_mul(4 * dimension);
        let sums = trapezoid_len(dimension, dimension).checked_add(2 * dimension + 1)?;
        let sums = sums.checked_mul(8)?;
        let block = Block::size(positions, dimension);
        let model_bytes = model.checked_add(4 * (dimension + 1))?;
        let all = |bytes: usize| bytes.checked_mul(positions);
        let few = images <= limit;
        // In addition to the sums, there are vectors that wait to be summed.
        let waiting = vectors(images.min(PENDING))?;
        let statistics = if few { vectors(images)? } else { sums.checked_add(waiting)? };
        let folding = if few { 0 } else { all(vectors(limit)?)?.checked_add(block * sums)? };
        // Means and scales are stored separately; every finished block frees memory for the next.
        let begin = all(statistics)?.checked_add(block * model)?;
        let end = all(model)?.checked_add(block * statistics)?;
        let beside = all(4 * (dimension + 1))?;
        // Each thread holds the covariance, its factor and temporary matrices, in f64.
        let matrices = rayon::current_num_threads().checked_mul(5 * 8 * dimension * dimension)?;
        let factorising = begin.max(end).checked_add(beside)?.checked_add(matrices)?;
        Some(PlannedSizes {
            statistics: all(statistics)?.max(folding),
            model: all(model_bytes)?,
            factorising: factorising.max(folding),
        })
    }
}
