//! A small detector and pictures.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use image::{Rgb, RgbImage};
use padim::burn::tensor::Device;
use padim::{CalibrationConfig, Detector, Padim, PadimConfig, ResNet18, Weights};

pub fn good(i: u32) -> RgbImage {
    RgbImage::from_fn(70, 56, |x, y| {
        let noise = ((x * 7919 + y * 104_729 + i * 1_299_721) % 17) as u8;
        Rgb([(x * 3) as u8 / 2 + noise, (y * 4) as u8 / 2 + noise, ((x ^ y) * 2) as u8 / 2 + noise])
    })
}

pub fn defective() -> RgbImage {
    let mut image = good(2);
    for (x, y) in (20..36).flat_map(|x| (24..40).map(move |y| (x, y))) {
        image.put_pixel(x, y, Rgb([255, 0, 255]));
    }
    image
}

/// A calibrated detector.
pub fn detector() -> Detector {
    let backbone = ResNet18::load(Weights::Bundled, &Device::flex()).unwrap();
    let padim = Padim::new(PadimConfig::default().with_input_size([48, 48]), backbone).unwrap();
    let mut detector = padim.fit((0..12).map(good)).unwrap();
    detector.calibrate((100..119).map(good), &CalibrationConfig::default()).unwrap();
    detector
}

/// Ten pictures; the last is defective.
pub fn pictures(folder: &Path) -> Vec<PathBuf> {
    let save = |i: u32| {
        let path = folder.join(format!("{i}.png"));
        let picture = if i == 9 { defective() } else { good(200 + i) };
        picture.save(&path).unwrap();
        path
    };
    (0..10).map(save).collect()
}
