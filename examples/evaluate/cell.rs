//! One cell of the tables: a variant that is fitted and evaluated on a category.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use image::RgbImage;
use image::codecs::jpeg::JpegEncoder;
use padim::dataset::{Category, GOOD, Sample};
use padim::detector::FitStage;
use padim::fingerprint::Fingerprint;
use padim::metrics::{self, PixelScores};
use padim::preprocess::DecodeLimits;
use padim::scoring::AnomalyMap;
use padim::visualize::ScoreRange;
use padim::{Backbone, Detector, Padim, PadimConfig};
use serde::{Deserialize, Serialize};

use crate::common::{self, Outcome};
use crate::measured::{Measured, defined};
use crate::motion::Motion;
use crate::variant::Reduction;

/// The metrics: names in files, and column headings.
pub const METRICS: [(&str, &str); 7] = [
    ("image_auroc", "image AUROC"),
    ("pixel_auroc", "pixel AUROC"),
    ("aupro", "AUPRO"),
    ("image_average_precision", "image AP"),
    ("pixel_average_precision", "pixel AP"),
    ("image_f1_max", "image F1"),
    ("pixel_f1_max", "pixel F1"),
];

/// Metrics by name, from 0 to 1; `None` if undefined.
pub type Metrics = BTreeMap<String, Option<f64>>;

/// Identifies a cell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name {
    pub dataset: String,
    pub preset: String,
    pub backbone: String,
    pub variant: String,
    pub category: String,
    pub seed: u64,
}

/// The results of a finished cell.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    #[serde(flatten)]
    pub name: Name,
    pub train_images: usize,
    pub test_images: usize,
    /// Defective images without a mask; localization leaves them out.
    #[serde(default)]
    pub without_mask: usize,
    /// Test images that could not be scored; all metrics leave them out.
    #[serde(default)]
    pub failed: Vec<FailedImage>,
    pub metrics: Metrics,
    pub intervals: BTreeMap<String, [f64; 2]>,
    pub defects: Vec<DefectType>,
    pub images: Vec<Image>,
    /// The threshold with the largest F1.
    pub image_threshold: Option<f32>,
    pub curves: Curves,
    pub aupro_limit: f64,
    pub fit_seconds: f64,
    pub predict_seconds: f64,
    pub model_bytes: usize,
    pub storage: String,
    pub panels: Vec<Panel>,
}

/// The metrics of one kind of defect against the good images.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DefectType {
    pub name: String,
    pub images: usize,
    pub metrics: Metrics,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    pub path: String,
    pub defect: String,
    pub score: f32,
}

/// A test image that could not be scored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FailedImage {
    pub path: String,
    pub reason: String,
}

/// Curves as points from (0, 0) to (1, 1).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Curves {
    pub image_roc: Option<Vec<[f64; 2]>>,
    pub pixel_roc: Option<Vec<[f64; 2]>>,
    pub pro: Option<Vec<[f64; 2]>>,
}

/// A panel: an image, its ground truth, its map and the overlay.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Panel {
    /// Index of the image.
    pub image: usize,
    pub kind: String,
    /// A `data:` URL.
    pub picture: String,
}

/// The settings of the measurements.
#[derive(Debug, Clone)]
pub struct Wishes {
    pub aupro_limit: f64,
    /// Bootstrap draws per confidence interval; 0 for no intervals.
    pub interval_draws: usize,
    /// Images of each kind in the report; 0 for none.
    pub sheet: usize,
}

/// The inputs of a cell.
pub struct Job {
    pub name: Name,
    pub config: PadimConfig,
    /// One backbone per detector; the maps of several detectors are added.
    pub backbones: Vec<Arc<dyn Backbone>>,
    pub reduction: Reduction,
    pub motion: Motion,
    pub half: bool,
    pub category: Category,
    pub limits: DecodeLimits,
    pub wishes: Wishes,
}

impl Job {
    /// Created when needed, because a `Padim` that has run keeps a prepared network in memory.
    fn padims(&self) -> impl Iterator<Item = padim::Result<Padim>> {
        let padim = |network: &Arc<dyn Backbone>| {
            let padim = Padim::new(self.config.clone(), network.clone())?;
            let padim = padim.with_decode_limits(self.limits);
            self.motion.padim(padim)
        };
        self.backbones.iter().map(padim)
    }

    /// A fingerprint of everything that affects the result. `contents`: the hashes of the files.
    pub fn key(&self, contents: &[String]) -> padim::Result<Fingerprint> {
        let mut pieces = vec![format!("padim {}", env!("CARGO_PKG_VERSION"))];
        pieces.push(format!("{:?} {:?} {:?}", self.name, self.reduction, self.wishes));
        for padim in self.padims() {
            let padim = padim?;
            let (config, embedder) = (padim.config(), padim.embedder());
            let registration = padim.registration();
            pieces.push(format!("{config:?} {registration:?}"));
            pieces.push(format!("{embedder:?} {}", padim.backbone().fingerprint()));
        }
        pieces.push(format!("{:?}", self.category));
        pieces.extend_from_slice(contents);
        Ok(Fingerprint::of(pieces))
    }

    /// The number of image passes, for the progress.
    pub fn steps(&self) -> u64 {
        let Category { train, test, .. } = &self.category;
        let passes = match self.reduction {
            Reduction::Components(_) => 2,
            _ => 1,
        };
        let fitted = passes * self.motion.images(&self.config) * train.len();
        (self.backbones.len() * (fitted + test.len())) as u64
    }

    /// The peak memory in bytes, if it can be planned.
    pub fn memory(&self) -> Option<usize> {
        let of_fit = |padim: padim::Result<Padim>| {
            let train = &self.category.train;
            let size = padim::preprocess::image_size(&train.first()?.path).ok()?;
            let plan = padim.ok()?.memory_plan(size, train.len()).ok()?;
            Some(plan.fit.max(plan.predict))
        };
        let detector = self.padims().map(of_fit).collect::<Option<Vec<_>>>()?;
        let size = self.config.preprocess.input_size()?;
        // Maps as f32 and ground truth masks.
        let maps = 5 * size[0] * size[1] * self.category.test.len();
        Some(detector.into_iter().max()? + maps)
    }

    /// Fits and evaluates; calls `step` for the progress.
    pub fn run(&self, step: &dyn Fn(u64)) -> Outcome<Cell> {
        let (train, all) = (&self.category.train, &self.category.test);
        // In the end, those that can be scored.
        let (mut test, mut failed): (Vec<&Sample>, _) = (all.iter().collect(), Vec::new());
        let mut results = Results::default();
        let (mut fit_seconds, mut predict_seconds, mut model_bytes) = (0.0, 0.0, 0);
        let mut last: Option<Detector> = None;
        for padim in self.padims() {
            let start = Instant::now();
            let mut detector = self.fit(&padim?, step)?;
            common::tell_input(&detector);
            if self.half {
                detector = detector.with_half_precision()?;
            }
            fit_seconds += start.elapsed().as_secs_f64();
            model_bytes += detector.model().size_in_bytes();
            let start = Instant::now();
            let mut scored = Vec::with_capacity(test.len());
            for (&sample, prediction) in
                test.iter().zip(detector.predict_iter(test.iter().copied()))
            {
                step(1);
                match prediction {
                    Ok(prediction) => {
                        results.add(scored.len(), prediction)?;
                        scored.push(sample);
                    }
                    // The maps of several detectors are added, so all need the same images.
                    Err(error) if last.is_some() => return Err(error.into()),
                    Err(error) => failed.push(FailedImage {
                        path: sample.path.display().to_string(),
                        reason: common::advice(&error),
                    }),
                }
            }
            test = scored;
            predict_seconds += start.elapsed().as_secs_f64();
            last = Some(detector);
        }
        let detector = last.ok_or("there is nothing to fit")?;
        let Results { scores, maps } = results;

        let defective: Vec<bool> = test.iter().map(|image| image.is_defective()).collect();
        // Localization takes the good images and the defective ones that have a mask.
        let has_mask = |i: &&Sample| i.is_defective() && i.mask.is_some();
        let masked = test.iter().any(has_mask);
        let truth = test.iter().zip(&maps).map(|(image, map)| {
            let wanted = masked && (has_mask(image) || !image.is_defective());
            wanted.then(|| image.truth(detector.preprocessor(), map.size())).transpose()
        });
        let truth = truth.collect::<padim::Result<Vec<Option<Vec<bool>>>>>()?;
        let pixels = maps.iter().zip(&truth).map(|(map, truth)| {
            truth.as_ref().map(|t| PixelScores::new(map.values(), t, map.size())).transpose()
        });
        let pixels = pixels.collect::<padim::Result<Vec<_>>>()?;
        let all = Measured { scores: &scores, defective: &defective, pixels: &pixels };
        let limit = self.wishes.aupro_limit;
        let defect_type = |name: &str| -> Outcome<DefectType> {
            let chosen: Vec<usize> =
                (0..test.len()).filter(|&i| [name, GOOD].contains(&&*test[i].defect)).collect();
            let images = chosen.iter().filter(|&&i| defective[i]).count();
            let metrics = all.of(&chosen, |part| part.metrics(limit))?;
            Ok(DefectType { name: name.to_owned(), images, metrics })
        };
        let mut kinds: Vec<&str> = test.iter().map(|i| &*i.defect).filter(|d| *d != GOOD).collect();
        kinds.sort_unstable();
        kinds.dedup();

        let threshold = defined(metrics::image_f1_max(&scores, &defective))?.map(|f1| f1.threshold);
        let image = |(sample, &score): (&&Sample, &f32)| Image {
            path: sample.path.display().to_string(),
            defect: sample.defect.clone(),
            score,
        };
        Ok(Cell {
            name: self.name.clone(),
            train_images: train.len(),
            test_images: test.len(),
            without_mask: test.iter().filter(|i| i.is_defective() && i.mask.is_none()).count(),
            failed,
            metrics: all.metrics(limit)?,
            intervals: all.intervals(&self.wishes)?,
            defects: kinds.into_iter().map(defect_type).collect::<Outcome<_>>()?,
            images: test.iter().zip(&scores).map(image).collect(),
            image_threshold: threshold,
            curves: all.curves()?,
            aupro_limit: limit,
            fit_seconds,
            predict_seconds,
            model_bytes,
            storage: detector.model().storage().to_string(),
            panels: self.panels(&detector, &test, &scores, &maps, &truth, threshold)?,
        })
    }

    fn fit(&self, padim: &Padim, step: &dyn Fn(u64)) -> Outcome<Detector> {
        let train = &self.category.train;
        let mut progress = {
            let mut last = (FitStage::Embedding, 0);
            move |progress: padim::detector::FitProgress| {
                if progress.stage != FitStage::Factorizing {
                    let before = if last.0 == progress.stage { last.1 } else { 0 };
                    last = (progress.stage, progress.done);
                    step((progress.done - before) as u64);
                }
                ControlFlow::Continue(())
            }
        };
        Ok(match self.reduction {
            Reduction::Components(count) => padim
                .clone()
                .fit_projection_with(count, train, &mut progress)?
                .fit_with(train, &mut progress)?,
            _ => padim.fit_with(train, progress)?,
        })
    }

    /// Panels of the images with the worst and the best scores of each kind.
    fn panels(
        &self,
        detector: &Detector,
        test: &[&Sample],
        scores: &[f32],
        maps: &[AnomalyMap],
        truth: &[Option<Vec<bool>>],
        threshold: Option<f32>,
    ) -> Outcome<Vec<Panel>> {
        let Some(range) = ScoreRange::of(maps).filter(|_| self.wishes.sheet > 0) else {
            return Ok(Vec::new());
        };
        let mut rising: Vec<usize> = (0..test.len()).collect();
        rising.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        let (defective, good): (Vec<usize>, Vec<usize>) =
            rising.into_iter().partition(|&i| test[i].is_defective());
        let kinds = [
            ("defective, lowest score", &defective, false),
            ("good, highest score", &good, true),
            ("defective, highest score", &defective, true),
            ("good, lowest score", &good, false),
        ];
        let mut panels: Vec<Panel> = Vec::new();
        for (kind, images, from_the_top) in kinds {
            let ends: Vec<usize> = if from_the_top {
                images.iter().rev().copied().take(self.wishes.sheet).collect()
            } else {
                images.iter().copied().take(self.wishes.sheet).collect()
            };
            for image in ends {
                // With few images, one image can be both worst and best.
                if panels.iter().any(|panel| panel.image == image) {
                    continue;
                }
                let picture = test[image].picture(detector.preprocessor())?;
                let truth = truth[image].as_deref();
                let panel = common::result_panel(&picture, truth, &maps[image], range, threshold)?;
                panels.push(Panel { image, kind: kind.to_owned(), picture: data_address(&panel)? });
            }
        }
        Ok(panels)
    }
}

/// Scores and maps of the test images, summed over detectors.
#[derive(Default)]
struct Results {
    scores: Vec<f32>,
    maps: Vec<AnomalyMap>,
}

impl Results {
    fn add(&mut self, place: usize, prediction: padim::Prediction) -> Outcome {
        // Maps without registration, so that all variants are measured with the same ground truth
        // pixels.
        let own = prediction.map_in_input()?;
        match self.maps.get_mut(place) {
            None => {
                self.scores.push(prediction.image_score);
                self.maps.push(own);
            }
            Some(map) => {
                let sum = map.values().iter().zip(own.values());
                *map = AnomalyMap::new(map.size(), sum.map(|(a, b)| a + b).collect())?;
                self.scores[place] = map.max();
            }
        }
        Ok(())
    }
}

fn data_address(picture: &RgbImage) -> Outcome<String> {
    let mut jpeg = Cursor::new(Vec::new());
    JpegEncoder::new_with_quality(&mut jpeg, 85).encode_image(picture)?;
    Ok(format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(jpeg.into_inner())))
}

impl Cell {
    /// Reads a finished cell; `None` if the file is missing or invalid.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Writes the cell atomically.
    pub fn write(&self, path: &Path) -> Outcome {
        let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
        common::write_text(&temporary, &serde_json::to_string(self)?)?;
        std::fs::rename(&temporary, path)
            .map_err(|e| format!("cannot write {}: {e}", path.display()).into())
    }
}

/// For the progress output.
impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { preset, variant, category, seed, .. } = self;
        write!(f, "{category}, {preset}, {variant}, seed {seed}")
    }
}
