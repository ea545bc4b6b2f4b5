//! Every layout of a data set, from files to metrics, with the same code.

use std::path::{Path, PathBuf};

use image::{DynamicImage, GrayImage, Luma};
use padim::dataset::{
    Btad, Category, Dataset, Folder, Mvtec, RotatedCrops, Sample, ShanghaiTech, Table, Visa,
};
use padim::metrics::{self, PixelScores};
use padim::preprocess::PreprocessConfig;
use padim::{Padim, image};

use crate::detector::{backbone, config, defective, good};

/// The defective pixels of [`defective`].
fn truth(x: u32, y: u32) -> bool {
    (20..36).contains(&x) && (24..40).contains(&y)
}

fn mask(bright: u8) -> DynamicImage {
    GrayImage::from_fn(70, 56, |x, y| Luma([if truth(x, y) { bright } else { 0 }])).into()
}

fn save(root: &Path, file: &str, image: impl Into<DynamicImage>) -> PathBuf {
    let path = root.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.into().save(&path).unwrap();
    path
}

fn write(root: &Path, file: &str, content: impl AsRef<[u8]>) {
    let path = root.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// A file in NumPy's format.
fn npy(shape: &str, values: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
    let header = format!("{header:<117}\n");
    let len = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &len[..], header.as_bytes(), values].concat()
}

/// Saves six good images with these names, for training.
fn train(root: &Path, name: impl Fn(u32) -> String) {
    (0..6).for_each(|i| drop(save(root, &name(i), good(i))));
}

/// Image and pixel AUROC of a category.
fn evaluate(category: &Category, preprocess: PreprocessConfig) -> [f64; 2] {
    let config = config().with_preprocess(preprocess);
    let padim = Padim::new(config, backbone()).unwrap();
    let detector = padim.fit(&category.train).unwrap();
    let predictions = detector.predict_batch(&category.test).unwrap();
    let scores: Vec<f32> = predictions.iter().map(|p| p.image_score).collect();
    let defective: Vec<bool> = category.test.iter().map(Sample::is_defective).collect();
    let images = category.test.iter().zip(&predictions);
    let truths: Vec<Vec<bool>> = images
        .map(|(image, p)| image.truth(detector.preprocessor(), p.anomaly_map.size()).unwrap())
        .collect();
    let maps = predictions.iter().map(|p| &p.anomaly_map).zip(&truths);
    let pixels: Vec<PixelScores<'_>> = maps
        .map(|(map, truth)| PixelScores::new(map.values(), truth, map.size()).unwrap())
        .collect();
    [metrics::image_auroc(&scores, &defective).unwrap(), metrics::pixel_auroc(&pixels).unwrap()]
}

fn finds_the_defect(dataset: &dyn Dataset) {
    let names = dataset.categories().unwrap();
    let category = dataset.category(&names[0]).unwrap();
    assert!(category.has_masks());
    let [image, pixel] = evaluate(&category, config().preprocess);
    assert!(image == 1.0 && pixel > 0.9, "{}: {image} {pixel}", category.name);
}

pub fn mvtec(root: &Path) -> Mvtec {
    train(root, |i| format!("plate/train/good/{i}.png"));
    save(root, "plate/test/good/6.png", good(6));
    save(root, "plate/test/spot/0.png", defective());
    save(root, "plate/ground_truth/spot/0_mask.png", mask(255));
    Mvtec::new(root)
}

pub fn btad(root: &Path) -> Btad {
    train(root, |i| format!("01/train/ok/{i}.bmp"));
    save(root, "01/test/ok/6.bmp", good(6));
    save(root, "01/test/ko/7.bmp", defective());
    save(root, "01/ground_truth/ko/7.png", mask(255));
    Btad::new(root)
}

pub fn visa(root: &Path) -> Visa {
    let mut split = "object,split,label,image,mask\n".to_owned();
    train(root, |i| format!("pcb/Normal/{i}.png"));
    (0..6).for_each(|i| split += &format!("pcb,train,normal,pcb/Normal/{i}.png,\n"));
    save(root, "pcb/Normal/6.png", good(6));
    save(root, "pcb/Anomaly/0.png", defective());
    save(root, "pcb/Masks/0.png", mask(3));
    split +=
        "pcb,test,normal,pcb/Normal/6.png,\npcb,test,anomaly,pcb/Anomaly/0.png,pcb/Masks/0.png\n";
    write(root, "split_csv/1cls.csv", split);
    Visa::new(root)
}

pub fn folder(root: &Path) -> Folder {
    (0..8).for_each(|i| drop(save(root, &format!("good/{i}.png"), good(i))));
    save(root, "spot/0.png", defective());
    save(root, "masks/0.png", mask(255));
    let folder = Folder::new("plates", root.join("good")).with_defects(root.join("spot"));
    folder.with_masks(root.join("masks"))
}

/// A table of the images of [`folder`].
pub fn table(root: &Path) -> Table {
    let mut table = "path,split,label,mask\n".to_owned();
    (0..6).for_each(|i| table += &format!("good/{i}.png,train,,\n"));
    table += "good/6.png,test,good,\nspot/0.png,test,spot,masks/0.png\n";
    write(root, "plates.csv", table);
    Table::new(root.join("plates.csv"))
}

pub fn shanghaitech(root: &Path) -> ShanghaiTech {
    train(root, |i| format!("training/frames/01_001/{i:03}.png"));
    save(root, "testing/frames/01_0014/000.png", good(6));
    save(root, "testing/frames/01_0014/001.png", defective());
    write(root, "testing/test_frame_mask/01_0014.npy", npy("(2,)", &[0, 1]));
    let bright = |i: u32| u8::from(i >= 56 * 70 && truth(i % 70, i / 70 - 56));
    let masks: Vec<u8> = (0..2 * 56 * 70).map(bright).collect();
    write(root, "testing/test_pixel_mask/01_0014.npy", npy("(2, 56, 70)", &masks));
    ShanghaiTech::new(root).every(1, 1)
}

#[test]
fn every_layout() {
    let folders: [_; 5] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let [mvtec_root, btad_root, visa_root, folder_root, films] =
        folders.each_ref().map(|f| f.path());
    finds_the_defect(&mvtec(mvtec_root));
    finds_the_defect(&btad(btad_root));
    finds_the_defect(&visa(visa_root));
    finds_the_defect(&folder(folder_root));
    finds_the_defect(&table(folder_root));
    finds_the_defect(&shanghaitech(films));
}

#[test]
fn rotated_crops_are_the_same_each_time_and_their_masks_follow() {
    let root = tempfile::tempdir().unwrap();
    let version = RotatedCrops::new(mvtec(root.path()), 1).with_sizes(64, 48).unwrap();
    let category = version.category("plate").unwrap();
    let pictures = |category: &Category| -> Vec<Vec<u8>> {
        let samples = category.train.iter().chain(&category.test);
        samples.map(|s| s.open().unwrap().into_rgb8().into_raw()).collect()
    };
    let first = pictures(&category);
    assert_eq!(first, pictures(&version.category("plate").unwrap()));
    assert!(first.iter().all(|picture| picture.len() == 3 * 48 * 48));
    // Parts that move are harder, but a spot of another color is still found.
    let [image, pixel] = evaluate(&category, version.preprocess());
    assert!(image == 1.0 && pixel > 0.7, "{image} {pixel}");

    // The error names an image that cannot be decoded.
    std::fs::write(root.path().join("plate/train/good/3.png"), b"no picture").unwrap();
    let padim = Padim::new(config(), backbone()).unwrap();
    let error = padim.fit(&category.train).unwrap_err().to_string();
    assert!(error.contains("3.png"), "{error}");
}
