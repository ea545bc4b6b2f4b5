//! Detectors with Gaussians from another source.

use burn::tensor::Tensor;

use super::fitted::Detector;
use super::padim::Padim;
use crate::error::{Error, Result};
use crate::gaussian::{GaussianConfig, GaussianModel, Storage};

impl Padim {
    /// Makes a detector with given Gaussians, for network input of `[height, width]` pixels. The
    /// network runs once to check that the Gaussians fit it.
    ///
    /// ```
    /// # use padim::{Error, Padim, PadimConfig, ResNet18, Weights, burn, image};
    /// # use padim::embedding::ChannelSelection;
    /// # use padim::gaussian::GaussianModel;
    /// # use padim::preprocess::{PreprocessConfig, Resize};
    /// # let device = burn::tensor::Device::flex();
    /// let config = PadimConfig::default().with_preprocess(PreprocessConfig::default().with_resize(Resize::square(32)).with_crop(None)).with_channels(ChannelSelection::Indices(vec![5, 80]));
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
    /// [`Error::ShapeMismatch`] if the Gaussians have another dimension, grid, region or storage than
    /// the settings, the network and the input size require, or if the preprocessing gives another
    /// input size.
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
                .map(|pooled| if pooled { "one pooled Gaussian" } else { "one for each position" });
            let expected = format!("{expected}, by the setting `pooled`");
            return Err(Error::shape("Gaussians", expected, actual));
        }
        if self.positions(model.grid())? != model.shape().positions {
            let expected = "one for each position inside the region of interest";
            return Err(Error::shape("Gaussians", expected, model.position_count()));
        }
        let GaussianConfig { storage, components, .. } = self.config.gaussian;
        if storage != Storage::Auto && storage != model.storage() {
            let expected = format!("{storage}, by the settings (`auto` accepts any)");
            return Err(Error::shape("storage of the Gaussians", expected, model.storage()));
        }
        if components != model.components() {
            let expected = format!("{components:?}, by the settings");
            return Err(Error::shape("components", expected, model.components()));
        }
        Ok(Detector::new(self, input_size, model))
    }
}
