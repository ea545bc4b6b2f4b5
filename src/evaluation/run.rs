//! Scores the images of a test set and compares them with the truth.

use std::ops::ControlFlow;

use super::metrics::{Metrics, pixel_scores};
use super::report::{Decisions, FailedImage, ImageReport, Report};
use crate::dataset::{Category, Sample};
use crate::detector::{Prediction, Predictor};
use crate::error::{Error, Result};
use crate::preprocess::{ImageInput, InputRegion};
use crate::scoring::AnomalyMap;

/// A test image that is done, in [`evaluate_each`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Evaluated<'a> {
    /// The number of images that are done, with this one.
    pub done: usize,
    /// The number of test images.
    pub total: usize,
    /// The image.
    pub sample: &'a Sample,
    /// Its prediction; `None` if it could not be scored.
    pub prediction: Option<&'a Prediction>,
    /// The true defect in the network's input, row-major, if localization takes the image in.
    pub truth: Option<&'a [bool]>,
}

/// Scores the test images of a category and compares the predictions with the truth. The maps of all images
/// are in memory meanwhile, if there are masks.
///
/// An image that cannot be scored is noted in [`Report::failed`], and the others are evaluated. Metrics that
/// these do not define are `None`. If some defective images have a mask and others have none, localization is
/// evaluated over the good images and those with a mask. Pixels outside of the detector's region of interest
/// do not count.
///
/// ```no_run
/// use padim::dataset::{Dataset, Mvtec};
/// use padim::evaluation::evaluate;
/// use padim::{Padim, PadimConfig, ResNet18, Weights};
///
/// let device = burn::tensor::Device::flex();
/// let category = Mvtec::new("mvtec_anomaly_detection").category("bottle")?;
/// let padim = Padim::new(PadimConfig::default(), ResNet18::load(Weights::Bundled, &device)?)?;
/// let detector = padim.fit(&category.train)?;
/// let report = evaluate(&detector, &category)?;
/// println!("image AUROC {:?}, AUPRO {:?}", report.metrics.image_auroc, report.metrics.aupro);
/// for undefined in &report.metrics.undefined {
///     println!("{undefined}"); // such as: aupro is undefined: no defective image has a mask
/// }
/// # Ok::<(), padim::Error>(())
/// ```
///
/// # Errors
///
/// The error of the first image if no image can be scored; [`Error::NotFinite`] if scores are NaN or
/// infinite.
pub fn evaluate(detector: &dyn Predictor, category: &Category) -> Result<Report> {
    evaluate_with(detector, category, |_, _| ControlFlow::Continue(()))
}

/// As [`evaluate`]. `progress` is told how many images of how many are done, and can stop the work.
///
/// # Errors
///
/// As [`evaluate`]; [`Error::Cancelled`] if `progress` returns [`ControlFlow::Break`].
pub fn evaluate_with(
    detector: &dyn Predictor,
    category: &Category,
    mut progress: impl FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Report> {
    evaluate_each(detector, category, |image| progress(image.done, image.total))
}

/// As [`evaluate`]. `each` gets each image with its prediction, for example to draw it, and can stop the
/// work.
///
/// # Errors
///
/// As [`evaluate`]; [`Error::Cancelled`] if `each` returns [`ControlFlow::Break`].
pub fn evaluate_each(
    detector: &dyn Predictor,
    category: &Category,
    mut each: impl FnMut(Evaluated<'_>) -> ControlFlow<()>,
) -> Result<Report> {
    let test = &category.test;
    let mut work = Work::new(detector, test);
    let mut samples = test.iter().enumerate();
    detector.predict_each(&mut test.iter().map(ImageInput::from), &mut |prediction| {
        let Some((place, sample)) = samples.next() else { return Ok(()) };
        let mut tell = |prediction: Option<&Prediction>, truth: Option<&[bool]>| {
            let (done, total) = (place + 1, test.len());
            match each(Evaluated { done, total, sample, prediction, truth }) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(Error::Cancelled),
            }
        };
        match prediction {
            Ok(prediction) => {
                let truth = work.truth(sample, &prediction);
                tell(Some(&prediction), truth.as_deref())?;
                work.add(sample, prediction, truth)
            }
            Err(error) => {
                work.fail(sample, error);
                tell(None, None)
            }
        }
    })?;
    work.report(category)
}

/// What is known of the images so far.
struct Work<'a> {
    detector: &'a dyn Predictor,
    /// Whether a defective image has a mask.
    has_masks: bool,
    images: Vec<ImageReport>,
    defective: Vec<bool>,
    maps: Vec<TrueMap>,
    failed: Vec<FailedImage>,
    first_error: Option<Error>,
    without_mask: usize,
}

/// A map with its truth, both in the frame of the image before a registration.
struct TrueMap {
    map: AnomalyMap,
    truth: Vec<bool>,
    /// The region of interest, if a registration has moved it.
    moved_region: Option<Vec<bool>>,
}

impl<'a> Work<'a> {
    fn new(detector: &'a dyn Predictor, test: &[Sample]) -> Self {
        Self {
            detector,
            has_masks: test.iter().any(|sample| sample.is_defective() && sample.mask.is_some()),
            images: Vec::with_capacity(test.len()),
            defective: Vec::with_capacity(test.len()),
            maps: Vec::new(),
            failed: Vec::new(),
            first_error: None,
            without_mask: 0,
        }
    }

    fn fail(&mut self, sample: &Sample, error: Error) {
        let reason = error.to_string();
        self.failed.push(FailedImage { path: sample.path.clone(), reason });
        self.first_error.get_or_insert(error);
    }

    /// The truth of an image that localization takes in.
    fn truth(&mut self, sample: &Sample, prediction: &Prediction) -> Option<Vec<bool>> {
        if !self.has_masks {
            return None;
        }
        if sample.is_defective() && sample.mask.is_none() {
            return None;
        }
        match sample.truth(self.detector.preprocessor(), prediction.anomaly_map.size()) {
            Ok(truth) => Some(truth),
            Err(error) => {
                self.fail(sample, error);
                None
            }
        }
    }

    fn add(
        &mut self,
        sample: &Sample,
        prediction: Prediction,
        truth: Option<Vec<bool>>,
    ) -> Result<()> {
        self.images.push(ImageReport {
            path: sample.path.clone(),
            defect: sample.defect.clone(),
            image_score: prediction.image_score,
            is_defective: prediction.is_defective,
        });
        self.defective.push(sample.is_defective());
        match truth {
            Some(truth) => self.maps.push(TrueMap::new(prediction, truth, self.detector.region())?),
            None => self.without_mask += usize::from(sample.is_defective()),
        }
        Ok(())
    }

    fn report(self, category: &Category) -> Result<Report> {
        let Self { detector, images, defective, maps, failed, first_error, without_mask, .. } =
            self;
        if let Some(error) = first_error.filter(|_| images.is_empty()) {
            return Err(error);
        }
        let scores: Vec<f32> = images.iter().map(|image| image.image_score).collect();
        let region = detector.region().map(InputRegion::mask);
        let pixels = maps
            .iter()
            .map(|of| pixel_scores(&of.map, &of.truth, of.moved_region.as_deref().or(region)));
        let pixels = pixels.collect::<Result<Vec<_>>>()?;
        let reason = match without_mask == defective.iter().filter(|truth| **truth).count() {
            true if without_mask == 0 => Some("there is no defective image"),
            true => Some("no defective image has a mask that can be used"),
            false => None,
        };
        Ok(Report {
            category: category.name.clone(),
            metrics: Metrics::of_scores(&scores, &defective, &pixels, reason)?,
            decisions: Decisions::of(&images, &defective),
            images,
            failed,
            without_mask,
        })
    }
}

impl TrueMap {
    /// Masks are those of the image before its registration, so the map goes back there, and the region of
    /// interest with it.
    fn new(prediction: Prediction, truth: Vec<bool>, region: Option<&InputRegion>) -> Result<Self> {
        let Some(alignment) = &prediction.alignment else {
            return Ok(Self { map: prediction.anomaly_map, truth, moved_region: None });
        };
        let moved_region = region.map(|region| {
            let inside: Vec<f32> = region.mask().iter().map(|i| f32::from(u8::from(*i))).collect();
            let moved = alignment.map_to_input(&inside, &prediction.geometry);
            moved.iter().map(|share| *share > 0.5).collect()
        });
        Ok(Self { map: prediction.map_in_input()?, truth, moved_region })
    }
}
