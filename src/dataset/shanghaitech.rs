//! The layout of ShanghaiTech Campus.

use std::path::{Path, PathBuf};

use super::category::{Category, Dataset, MaskFile, Sample};
use super::errors::{failed, unknown};
use super::good::GOOD;
use super::left_out::LeftOut;
use super::listing::{folders, frames, name};
use super::npy;
use crate::error::Result;

/// ShanghaiTech Campus (STC): videos of 13 scenes. Each scene is a category. The training videos
/// must have been split into frames.
///
/// ```text
/// training/frames/01_001/000.jpg          frames of scene 01's training videos
/// testing/frames/01_0014/000.jpg          frames of its test videos
/// testing/test_frame_mask/01_0014.npy     which of them are anomalous
/// testing/test_pixel_mask/01_0014.npy     and where: [frames, height, width]
/// ```
///
/// Consecutive frames are nearly equal, so by default only every fifth is used for training. The
/// paper uses 256x256 pixels, without a crop.
#[derive(Debug, Clone)]
pub struct ShanghaiTech {
    root: PathBuf,
    train_step: usize,
    test_step: usize,
}

impl ShanghaiTech {
    /// The data set in the folder `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), train_step: 5, test_step: 1 }
    }

    /// Uses only every `train`-th frame of the training videos and every `test`-th frame of the
    /// test videos. 0 counts as 1. Default: 5 and 1.
    pub fn every(self, train: usize, test: usize) -> Self {
        Self { train_step: train.max(1), test_step: test.max(1), ..self }
    }

    /// The videos of `part`, each with its scene.
    fn films(&self, part: &str) -> Result<Vec<(String, PathBuf)>> {
        let folder = self.root.join(part).join("frames");
        if !folder.is_dir() {
            let reason =
                "expected a folder of videos, each a folder of frames such as 01_001/000.jpg";
            return Err(failed(&folder, reason));
        }
        let scene = |film: PathBuf| {
            let name = name(&film)?;
            Ok((name.split('_').next().unwrap_or_default().to_owned(), film))
        };
        folders(&folder)?.into_iter().map(scene).collect()
    }

    fn test_frames(&self, film: &Path, left_out: &mut LeftOut) -> Result<Vec<Sample>> {
        let file = format!("{}.npy", name(film)?);
        let masks = self.root.join("testing/test_pixel_mask").join(&file);
        let flags = self.root.join("testing/test_frame_mask").join(&file);
        let flags = npy::flags(&flags)?;
        let list = frames(film)?;
        left_out.extend(list.left_out);
        let frames = list.images;
        let masked = npy::frame_count(&masks)?;
        if frames.len() != flags.len() || frames.len() != masked {
            let reason = format!(
                "has {} frames, but {} in test_frame_mask and {masked} in test_pixel_mask",
                frames.len(),
                flags.len()
            );
            return Err(failed(film, reason));
        }
        let sample = |(number, (path, strange)): (usize, (PathBuf, bool))| {
            let mask = strange.then(|| MaskFile::Frame { path: masks.clone(), number });
            let defect = if strange { "anomaly" } else { GOOD };
            Sample::new(path, defect, mask)
        };
        let frames = frames.into_iter().zip(flags).enumerate();
        Ok(frames.step_by(self.test_step).map(sample).collect())
    }
}

impl Dataset for ShanghaiTech {
    fn categories(&self) -> Result<Vec<String>> {
        let mut scenes: Vec<String> =
            self.films("training")?.into_iter().map(|(scene, _)| scene).collect();
        scenes.sort();
        scenes.dedup();
        if scenes.is_empty() {
            return Err(failed(&self.root, "there is no video in training/frames"));
        }
        Ok(scenes)
    }

    fn category(&self, scene: &str) -> Result<Category> {
        let of_scene = |part| {
            let films = self.films(part)?.into_iter();
            Ok(films.filter(|(s, _)| s == scene).map(|(_, film)| film).collect::<Vec<_>>())
        };
        let mut category = Category::new(scene, Vec::new(), Vec::new());
        for film in of_scene("training")? {
            let list = frames(&film)?;
            category.left_out.extend(list.left_out);
            let images = list.images.into_iter().step_by(self.train_step).map(Sample::good);
            category.train.extend(images);
        }
        if category.train.is_empty() {
            return Err(unknown(&self.root, scene, &self.categories()?));
        }
        for film in of_scene("testing")? {
            let test = self.test_frames(&film, &mut category.left_out)?;
            category.test.extend(test);
        }
        Ok(category)
    }
}

#[cfg(test)]
mod tests {
    use super::super::npy::tests::npy;
    use super::super::testing::{dataset_error, touch, write};
    use super::*;
    use crate::preprocess::DecodeOptions;

    #[test]
    fn films_are_put_together_by_scene() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for film in ["training/frames/01_001", "training/frames/01_002", "testing/frames/01_0014"] {
            let frames: Vec<String> = (0..4).map(|i| format!("{film}/{i:03}.jpg")).collect();
            touch(root, &frames.iter().map(String::as_str).collect::<Vec<_>>());
        }
        touch(root, &["training/frames/02_001/000.jpg"]);
        let flags = npy("|b1", "(4,)", &[0, 0, 1, 0]);
        write(root, "testing/test_frame_mask/01_0014.npy", &flags);
        write(
            root,
            "testing/test_pixel_mask/01_0014.npy",
            &npy("|u1", "(4, 1, 2)", &[0, 0, 0, 0, 0, 1, 0, 0]),
        );

        let stc = ShanghaiTech::new(root);
        assert_eq!(stc.categories().unwrap(), ["01", "02"]);
        let scene = stc.category("01").unwrap();
        let names = |samples: &[Sample]| -> Vec<String> {
            let relative = samples.iter().map(|s| s.path.strip_prefix(root).unwrap());
            relative.map(|p| p.display().to_string()).collect()
        };
        assert_eq!(
            names(&scene.train),
            ["training/frames/01_001/000.jpg", "training/frames/01_002/000.jpg"]
        );
        assert_eq!(scene.test.len(), 4);
        let defective: Vec<bool> = scene.test.iter().map(Sample::is_defective).collect();
        assert_eq!(defective, [false, false, true, false]);
        let mask = scene.test[2]
            .mask
            .as_ref()
            .unwrap()
            .open(DecodeOptions::default())
            .unwrap()
            .into_luma8();
        assert_eq!(mask.as_raw(), &[0, 255]);
        let sparse = stc.clone().every(1, 2).category("01").unwrap();
        assert_eq!((sparse.train.len(), sparse.test.len()), (8, 2));
        // The mask stays with its frame.
        assert_eq!(sparse.test[1], scene.test[2]);
        assert!(stc.category("02").unwrap().test.is_empty());
        assert!(dataset_error(stc.category("03")).contains("01, 02"));

        touch(root, &["testing/frames/01_0014/004.jpg"]);
        let message = dataset_error(stc.category("01"));
        assert!(message.contains("5 frames") && message.contains("4 in"), "{message}");
    }
    /// Videos of more than 999 frames, or with frame names without leading zeros.
    #[test]
    fn frames_are_in_the_order_of_their_numbers() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let numbers = [8, 9, 10, 99, 100, 101, 999, 1000, 1001];
        for film in ["training/frames/01_001", "testing/frames/01_0014"] {
            numbers.iter().for_each(|i| touch(root, &[&format!("{film}/{i}.jpg")]));
        }
        let flags: Vec<u8> = numbers.iter().map(|&i| u8::from(i >= 1000)).collect();
        write(root, "testing/test_frame_mask/01_0014.npy", &npy("|b1", "(9,)", &flags));
        let masks = npy("|u1", "(9, 1, 1)", &flags);
        write(root, "testing/test_pixel_mask/01_0014.npy", &masks);
        let scene = ShanghaiTech::new(root).every(1, 1).category("01").unwrap();
        for samples in [&scene.train, &scene.test] {
            let stems = samples.iter().map(|s| s.path.file_stem().unwrap().to_str().unwrap());
            let read: Vec<u32> = stems.map(|stem| stem.parse().unwrap()).collect();
            assert_eq!(read, numbers);
        }
        for (sample, flag) in scene.test.iter().zip(flags) {
            assert_eq!(sample.is_defective(), flag == 1, "{}", sample.path.display());
        }
    }
}
