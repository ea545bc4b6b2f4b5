//! The data sets on the command line.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use padim::PadimConfig;
use padim::dataset::{
    Btad, Category, Dataset, Folder, IntakeReport, Mvtec, RotatedCrops, ShanghaiTech, Table, Visa,
};
use padim::preprocess::{Normalization, PreprocessConfig, Preprocessor};

use crate::common::Outcome;

/// The syntax of `--dataset`.
pub const SYNTAX: &str = "mvtec:DIR[,name=NAME][,good=NAME].., visa:DIR, btad:DIR, stc:DIR[,train=5][,test=1], \
    csv:FILE[,good=LABEL].. or folder:DIR[,defects=DIR]..[,good=NAME]..[,masks=DIR][,test=DIR][,share=0.2][,seed=0][,name=NAME]; \
    the prefix rd: rotates and crops its images";

/// The layout of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Mvtec,
    ShanghaiTech,
    Other,
}

/// A data set of the command line.
#[derive(Clone)]
pub struct Source {
    pub text: String,
    pub layout: Layout,
    /// Whether images are rotated and cropped at random (Rd-MVTec AD).
    pub rotated: bool,
    dataset: Arc<dyn Dataset>,
    /// The name for its only category.
    name: Option<String>,
}

impl Source {
    /// The categories by their names in the data set and in the tables.
    pub fn categories(&self) -> Outcome<Vec<(String, String)>> {
        let names = self.dataset.categories()?;
        match (&self.name, names.as_slice()) {
            (Some(name), [own]) => Ok(vec![(own.clone(), name.clone())]),
            (Some(_), _) => {
                let reason = "a name is for one category; this has";
                Err(format!("{}: {reason} {}", self.text, names.join(", ")).into())
            }
            (None, _) => Ok(names.into_iter().map(|name| (name.clone(), name)).collect()),
        }
    }

    /// A category; with `rd:`, rotated and cropped by a seed.
    pub fn category(&self, name: &str, seed: u64, config: &PadimConfig) -> Outcome<Category> {
        if !self.rotated {
            return Ok(self.dataset.category(name)?);
        }
        Ok(self.version(seed, config).category(name)?)
    }

    fn version(&self, seed: u64, config: &PadimConfig) -> RotatedCrops<Arc<dyn Dataset>> {
        RotatedCrops::new(self.dataset.clone(), seed).with_filter(config.preprocess.filter)
    }

    /// Looks into the files of a category, which will be preprocessed like this.
    pub fn examine(&self, name: &str, config: PreprocessConfig) -> Outcome<IntakeReport> {
        let preprocessor = Preprocessor::new(config, Normalization::IMAGENET)?;
        Ok(self.dataset.category(name)?.examine(&preprocessor)?)
    }

    /// The preprocessing of its images.
    pub fn preprocess(&self, config: &PadimConfig) -> PreprocessConfig {
        let own = config.preprocess.clone();
        if self.rotated {
            let PreprocessConfig { resize, crop, .. } = self.version(0, config).preprocess();
            return own.with_resize(resize).with_crop(crop);
        }
        match self.layout {
            // The paper resizes the frames of ShanghaiTech Campus and does not crop them.
            Layout::ShanghaiTech => {
                own.with_resize(padim::preprocess::Resize::square(256)).with_crop(None)
            }
            _ => own,
        }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rotated, rest) = match text.strip_prefix("rd:") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let wrong = || format!("expected {SYNTAX}");
        let (kind, rest) = rest.split_once(':').ok_or_else(wrong)?;
        let mut parts = rest.split(',');
        let path = parts.next().filter(|path| !path.is_empty()).ok_or_else(wrong)?;
        let options = parts
            .map(|part| part.split_once('=').ok_or_else(|| format!("{part:?} has no value")))
            .collect::<Result<Vec<_>, _>>()?;
        let known = |names: &[&str]| match options.iter().find(|(name, _)| !names.contains(name)) {
            Some((name, _)) => Err(format!("{kind}: knows no option {name:?}; {}", wrong())),
            None => Ok(()),
        };
        let last = |name: &str| options.iter().rev().find(|o| o.0 == name).map(|o| o.1);
        let number = |name: &str, default: f64| match last(name) {
            Some(value) => value.parse().map_err(|_| format!("{name}={value} is no number")),
            None => Ok(default),
        };
        let good: Vec<String> =
            options.iter().filter(|o| o.0 == "good").map(|o| o.1.to_owned()).collect();
        let (layout, dataset): (_, Arc<dyn Dataset>) = match kind {
            "folder" => {
                known(&["defects", "masks", "test", "share", "seed", "name", "good"])?;
                let defects = options.iter().filter(|o| o.0 == "defects").map(|o| o.1.into());
                let defects: Vec<PathBuf> = defects.collect();
                let mut folder = match defects.is_empty() {
                    true => Folder::guess(path, &good).map_err(|error| error.to_string())?,
                    false => Folder::new(own_name(Path::new(path)), path),
                };
                folder = defects.into_iter().fold(folder, Folder::with_defects);
                folder = folder.with_split(number("share", 0.2)?, number("seed", 0.0)? as u64);
                if let Some(masks) = last("masks") {
                    folder = folder.with_masks(masks);
                }
                if let Some(test) = last("test") {
                    folder = folder.with_good_test(test);
                }
                (Layout::Other, Arc::new(folder))
            }
            "stc" => {
                known(&["train", "test"])?;
                let (train, test) = (number("train", 5.0)?, number("test", 1.0)?);
                let frames = ShanghaiTech::new(path).every(train as usize, test as usize);
                (Layout::ShanghaiTech, Arc::new(frames))
            }
            "mvtec" => {
                known(&["name", "good"])?;
                let mvtec = good.into_iter().fold(Mvtec::new(path), Mvtec::with_good_name);
                (Layout::Mvtec, Arc::new(mvtec))
            }
            "csv" => {
                known(&["good"])?;
                let table = good.into_iter().fold(Table::new(path), Table::with_good_name);
                (Layout::Other, Arc::new(table))
            }
            _ => {
                known(&[])?;
                match kind {
                    "visa" => (Layout::Other, Arc::new(Visa::new(path))),
                    "btad" => (Layout::Other, Arc::new(Btad::new(path))),
                    _ => return Err(wrong()),
                }
            }
        };
        let name = last("name").map(str::to_owned);
        Ok(Self { text: text.to_owned(), layout, rotated, dataset, name })
    }
}

/// The name of a folder, for its only category.
fn own_name(folder: &Path) -> String {
    folder.file_name().map_or("images".into(), |name| name.to_string_lossy().into_owned())
}
