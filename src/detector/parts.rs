//! Detectors of Gaussians that come from elsewhere.

use burn::tensor::Tensor;

use super::fitted::Detector;
use super::padim::Padim;
use crate::error::{Error, Result};
use crate::gaussian::{GaussianConfig, GaussianModel, Storage};

impl Padim {
    /// A detector with Gaussians that were not fitted here, for network inputs `[height, width]`. The
    /// network runs once to see that they go with it.
    ///
    /// ```
    /// # use padim::{Error, Padim, PadimConfig, ResNet18, Weights, burn, image};
    /// # use padim::embedding::ChannelSelection;
    /// # use padim::gaussian::GaussianModel;
    /// # use padim::preprocess::{PreprocessConfig, Resize};
    /// # let device = burn::tensor::Device::flex();
    /// let config = PadimConfig {
    ///     preprocess: PreprocessConfig { resize: Resize::square(32), crop: None, ..Default::default() },
    ///     channels: ChannelSelection::Indices(vec![5, 80]),
    ///     ..PadimConfig::default()
    /// };
    /// let padim = Padim::new(config, ResNet18::load(Weights::Bundled, &device)?)?;
    /// let (means, inverses) = ([[0.5, 0.1]; 64], [[20.0, 3.0, 3.0, 50.0]; 64]);
    /// let model = GaussianModel::from_inverses([8, 8], means.as_flattened(), inverses.as_flattened())?;
    /// let detector = padim.with_gaussians(model, [32, 32])?;
    /// println!("{}", detector.predict(image::RgbImage::new(40, 40))?.image_score);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] for Gaussians of another dimension, grid, region or form than the settings,
    /// the network and the input size give, and for an input size that the preprocessing does not give.
    pub fn with_gaussians(self, model: GaussianModel, input_size: [usize; 2]) -> Result<Detector> {
        if let Some(size) = self.config.preprocess.input_size().filter(|size| *size != input_size) {
            return Err(Error::shape("input size", format!("{size:?}"), input_size));
        }
        let [height, width] = input_size;
        let empty = Tensor::zeros([1, 3, height, width], &self.backbone.device());
        let [_, dimension, rows, columns] = self.extractor.embed(empty)?.shape();
        if (dimension, [rows, columns]) != (model.dimension(), model.grid()) {
            let expected = format!("{dimension} dimensions at {rows}x{columns} positions");
            let [rows, columns] = model.grid();
            let actual = format!("{} at {rows}x{columns}", model.dimension());
            return Err(Error::shape("Gaussians", expected, actual));
        }
        if model.is_pooled() != self.config.gaussian.pooled {
            let [expected, actual] = [self.config.gaussian.pooled, model.is_pooled()]
                .map(|pooled| if pooled { "pooled ones" } else { "one for each position" });
            let expected = format!("{expected}, as `pooled` says in the settings");
            return Err(Error::shape("Gaussians", expected, actual));
        }
        if self.positions(model.grid())? != model.shape().positions {
            let expected = "those of the positions inside the region of interest";
            return Err(Error::shape("Gaussians", expected, model.position_count()));
        }
        let GaussianConfig { storage, components, .. } = self.config.gaussian;
        if storage != Storage::Auto && storage != model.storage() {
            let expected = format!("{storage}, as the settings say, or `auto` there");
            return Err(Error::shape("storage of the Gaussians", expected, model.storage()));
        }
        if components != model.components() {
            let expected = format!("{components:?}, as the settings say");
            return Err(Error::shape("components", expected, model.components()));
        }
        Ok(Detector::new(self, input_size, model))
    }
}
