//! Checks that must hold for every file with any contents: no panic, no allocation much larger than the
//! file, and if it loads, it works. The fuzzers (`fuzz/`) call these functions with random bytes, the
//! test suite with the files that the fuzzers have found.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use padim::backbone::{FeatureMaps, LayerInfo, ResNetBlock, ResNetConfig};
use padim::burn::nn::pool::AvgPool2dConfig;
use padim::burn::tensor::{Device, Tensor};
use padim::dataset::{Dataset, Table};
use padim::fingerprint::Fingerprint;
use padim::preprocess::{
    DecodeLimits, Frame, FrameFormat, FrameLayout, Mask, Normalization, PreprocessConfig,
    Preprocessor, Resize, ResizeArithmetic, decode_bytes_with, decode_file_with,
};
use padim::{Backbone, Detector, PartialFit, Result, image};

/// The folder for the files: in memory, if the system has such a folder.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn written(folder: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("file");
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A cheap backbone with a known fingerprint: the mean colors of 4x4 pixels.
#[derive(Debug)]
pub struct Squares([LayerInfo; 1]);

impl Squares {
    pub fn new() -> Self {
        Self([LayerInfo { name: "squares".into(), channels: 3, stride: 4 }])
    }
}

impl Backbone for Squares {
    fn layers(&self) -> &[LayerInfo] {
        &self.0
    }
    fn device(&self) -> Device {
        Device::flex()
    }
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(["squares"])
    }
    fn forward(&self, images: Tensor<4>) -> Result<FeatureMaps> {
        let pool = AvgPool2dConfig::new([4, 4]).with_strides([4, 4]).init();
        FeatureMaps::new(vec![pool.forward(images)])
    }
}

/// Checks the file as it is, and with a corrected checksum, which random bytes would not have.
pub fn detector_file(bytes: &[u8]) {
    let folder = folder();
    read_detector(&folder, &written(&folder, bytes));
    if let Some((contents, _)) = bytes.split_last_chunk::<4>() {
        let checksum = crc32fast::hash(contents).to_le_bytes();
        read_detector(&folder, &written(&folder, &[contents, &checksum[..]].concat()));
    }
}

fn read_detector(folder: &tempfile::TempDir, path: &Path) {
    let device = Device::flex();
    let squares: Arc<dyn Backbone> = Arc::new(Squares::new());
    if let Ok(detector) = Detector::load(path, &device) {
        let saved = folder.path().join("saved");
        detector.save(&saved).unwrap();
        let again = Detector::load(&saved, &device).unwrap();
        use_detector(&detector, &again);
    }
    if let Ok(detector) = Detector::load(path, squares.clone()) {
        let saved = folder.path().join("saved");
        detector.save_without_backbone(&saved).unwrap();
        let again = Detector::load(&saved, squares.clone()).unwrap();
        use_detector(&detector, &again);
    }
    if let Ok(fit) = PartialFit::load(path, squares)
        && fit.statistics().dimension() <= 8
    {
        let _ = fit.finish();
    }
}

/// Checks that a detector and its saved and loaded copy give the same scores.
fn use_detector(detector: &Detector, again: &Detector) {
    let small = |size: [usize; 2]| size.iter().all(|&side| side <= 64);
    let resized = detector.config().preprocess.resize.resized([9, 11]);
    if small(resized) && small(detector.input_size()) && small(detector.model().grid()) {
        let image = || image::RgbImage::from_fn(11, 9, |x, y| image::Rgb([x as u8, 40, y as u8]));
        match (detector.predict(image()), again.predict(image())) {
            (Ok(one), Ok(other)) => {
                assert!(one == other && !one.image_score.is_nan());
                let _ = (one.map_in_original().unwrap(), detector.anomaly_regions(&one));
            }
            (Err(_), Err(_)) => (),
            (one, other) => panic!("{one:?} {other:?}"),
        }
    }
}

/// The network whose weights [`weights`] tries to read.
pub fn network() -> ResNetConfig {
    ResNetConfig {
        block: ResNetBlock::Basic,
        stem_channels: 2,
        blocks: [1, 1, 1],
        planes: [2, 2, 2],
        base_width: 64,
        layers: vec![1],
    }
}

/// Checks a file of weights of any format.
pub fn weights(bytes: &[u8]) {
    let folder = folder();
    if let Ok(network) = network().load(written(&folder, bytes), &Device::flex()) {
        let maps = network.forward(Tensor::ones([1, 3, 8, 8], &Device::flex())).unwrap();
        assert_eq!(maps.maps()[0].dims(), [1, 2, 2, 2]);
    }
}

/// Checks a pickle alone, and packed as by PyTorch with correct checksums, which random bytes would not
/// have.
pub fn pickle(bytes: &[u8]) {
    weights(bytes);
    if !bytes.starts_with(b"PK") {
        weights(&checkpoint(bytes));
    }
}

/// A `.pth` file with this pickle and one storage `0` of 4 KiB: a zip archive without compression.
pub fn checkpoint(pickle: &[u8]) -> Vec<u8> {
    let storage = vec![0x3C; 4096];
    let entries: [(&str, &[u8]); 3] =
        [("a/data.pkl", pickle), ("a/byteorder", b"little"), ("a/data/0", &storage)];
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let offset = archive.len() as u32;
        let length = (content.len() as u32).to_le_bytes();
        // Version, flags, method, time, date; then the common fields of both kinds of header.
        let mut common = vec![10, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        common.extend(crc32fast::hash(content).to_le_bytes());
        common.extend([length, length].concat());
        common.extend([name.len() as u8, 0, 0, 0]);
        archive.extend([b"PK\x03\x04", &common[..], name.as_bytes(), content].concat());
        directory.extend([b"PK\x01\x02\x0A\x00", &common[..], &[0; 10]].concat());
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, length) = (archive.len() as u32, directory.len() as u32);
    archive.extend(directory);
    archive.extend(b"PK\x05\x06\0\0\0\0\x03\0\x03\0");
    archive.extend([length.to_le_bytes(), start.to_le_bytes()].concat());
    archive.extend([0, 0]);
    archive
}

/// Checks an image file.
pub fn image(bytes: &[u8]) {
    let folder = folder();
    let limits = DecodeLimits { max_pixels: 1 << 16, max_bytes: 1 << 19 };
    let Ok(image) = decode_file_with(written(&folder, bytes), limits) else { return };
    assert!(u64::from(image.width()) * u64::from(image.height()) <= limits.max_pixels);
    preprocess(&image);
}

/// Checks a frame: seven bytes of format, height, width and stride, then its pixels.
pub fn frame(bytes: &[u8]) {
    let Some((&[format, h0, h1, w0, w1, s0, s1], data)) = bytes.split_first_chunk::<7>() else {
        return;
    };
    let format = FrameFormat::ALL[usize::from(format) % FrameFormat::ALL.len()];
    let [height, width, stride] =
        [[h0, h1], [w0, w1], [s0, s1]].map(|pair| usize::from(u16::from_le_bytes(pair)));
    let layout = FrameLayout::new(format, [height, width]).with_stride(stride);
    let Ok(frame) = Frame::new(data, layout) else { return };
    let image = frame.to_image().unwrap();
    assert_eq!([image.height() as usize, image.width() as usize], [height, width]);
    // Nothing is larger than its pixels: at most 12 bits become 3 values of 16.
    assert!(image.as_bytes().len() <= 6 * data.len().max(1));
    preprocess(&image);
}

/// Checks an image read as a mask.
pub fn mask(bytes: &[u8]) {
    let limits = DecodeLimits { max_pixels: 1 << 16, max_bytes: 1 << 19 };
    let Ok(image) = decode_bytes_with(bytes, "mask", limits) else { return };
    let (mask, size) = (Mask::of(&image), [image.height() as usize, image.width() as usize]);
    assert_eq!(mask.size(), size);
    assert_eq!(mask.marked().len(), size[0] * size[1]);
    assert!(mask.fits(size) && mask.fits([2 * size[0], 2 * size[1]]));
    // The picture of a mask is the same mask.
    let value = |&marked: &bool| if marked { 255 } else { 0 };
    let values = mask.marked().iter().map(value).collect();
    let picture = image::GrayImage::from_raw(image.width(), image.height(), values).unwrap();
    let again = Mask::of(&picture.into());
    assert_eq!(again.marked(), mask.marked());
    assert_eq!(again.unusual_values(), None);
}

/// Checks a CSV file that lists images.
pub fn table(bytes: &[u8]) {
    let folder = folder();
    let table = Table::new(written(&folder, bytes)).with_good_name("fine");
    let Ok(names) = table.categories() else { return };
    assert!(!names.is_empty());
    for name in names {
        let Ok(category) = table.category(&name) else { continue };
        assert!(category.train.iter().all(|sample| !sample.is_defective()));
        let report = category.intake();
        assert!(report.to_string().contains(&category.train.len().to_string()));
    }
}

/// Checks the network's input from an image, with both kinds of resize arithmetic and as a mask.
fn preprocess(image: &image::DynamicImage) {
    for arithmetic in [ResizeArithmetic::Pil, ResizeArithmetic::Float { antialias: true }] {
        let config = PreprocessConfig::default()
            .with_resize(Resize::square(12))
            .with_crop(Some(8))
            .with_arithmetic(arithmetic);
        let preprocessor = Preprocessor::new(config, Normalization::IMAGENET).unwrap();
        if let Ok(input) = preprocessor.process(image) {
            assert!(input.values.len() == 3 * 8 * 8 && input.values.iter().all(|v| v.is_finite()));
            assert_eq!(preprocessor.process_mask(image).unwrap().len(), 8 * 8);
        }
    }
}
