//! Images and network input that are not square.

use image::{Rgb, RgbImage};
use padim::embedding::ChannelSelection;
use padim::gaussian::{GaussianConfig, Precision, Storage};
use padim::preprocess::{PreprocessConfig, RegionOfInterest, Resize};
use padim::{Detector, Padim, PadimConfig, Thresholds, image};

use crate::detector::backbone;
use crate::devices;

fn good([height, width]: [u32; 2], i: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(x / 2 + i * 5) as u8, (y / 3) as u8, ((x ^ y) / 2 + i * 3) as u8])
    })
}

/// Fits, predicts, saves and loads with images of `original` pixels and network input of `input`
/// pixels. A spot in the lower right must be found.
fn end_to_end(input: [usize; 2], original: [u32; 2], region: bool) {
    let [height, width] = input;
    let [rows, columns] = original;
    let config = PadimConfig::default()
        .with_preprocess(
            PreprocessConfig::default()
                .with_resize(Resize::Exact { height, width })
                .with_crop(None),
        )
        .with_channels(ChannelSelection::random(8, 3))
        .with_gaussian(GaussianConfig::default().with_storage(Storage::Triangle(Precision::F16)))
        .with_batch_size(2);
    let mut padim = Padim::new(config, backbone()).unwrap();
    if region {
        // The lower half.
        let [h, w] = original.map(f64::from);
        let corners = [[0.0, h / 2.0], [w, h / 2.0], [w, h], [0.0, h]];
        let region = RegionOfInterest::polygon([rows as usize, columns as usize], &corners);
        padim = padim.with_region(&region.unwrap()).unwrap();
    }
    let plan = padim.memory_plan(original.map(|side| side as usize), 4).unwrap();
    let detector = padim.fit((0..4).map(|i| good(original, i))).unwrap();
    assert_eq!(detector.input_size(), input);
    assert_eq!(detector.model().grid(), [height.div_ceil(4), width.div_ceil(4)]);
    assert_eq!(plan.model, detector.model().size_in_bytes(), "{plan}");

    let (top, left, side) = (rows * 3 / 4, columns * 4 / 5, rows / 10);
    let mut bad = good(original, 2);
    for (x, y) in (0..side).flat_map(|x| (0..side).map(move |y| (left + x, top + y))) {
        bad.put_pixel(x, y, Rgb([255, 0, 255]));
    }
    let prediction = detector.predict(bad.clone()).unwrap();
    assert_eq!(prediction.anomaly_map.size(), input);
    let map = prediction.map_in_original().unwrap();
    assert_eq!(map.size(), original.map(|side| side as usize));
    if region {
        assert_eq!(map.at(rows as usize / 4, columns as usize / 2), Some(0.0));
    }

    // The region at half of the maximum is around the spot.
    let decision = Thresholds::fixed(0.0).with_pixel_threshold(map.max() / 2.0);
    let detector = detector.with_thresholds(Some(decision)).unwrap();
    let defects = detector.anomaly_regions(&prediction).unwrap();
    let defect = defects[0];
    let middle = |start: usize, len: usize| (start + len / 2) as f64;
    let off_by = [
        middle(defect.top, defect.height) - f64::from(top + side / 2),
        middle(defect.left, defect.width) - f64::from(left + side / 2),
    ];
    assert!(off_by.iter().all(|d| d.abs() < f64::from(side)), "{off_by:?} {defect:?}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.padim");
    detector.save(&path).unwrap();
    let loaded = Detector::load(&path, &devices()[0]).unwrap();
    assert_eq!(loaded.predict(bad.clone()).unwrap(), detector.predict(bad).unwrap());
    assert_eq!(loaded.region(), detector.region());
}

#[test]
fn camera_frames_as_they_are() {
    end_to_end([480, 640], [480, 640], false);
}

#[test]
fn odd_sizes_from_images_of_other_shapes() {
    end_to_end([479, 641], [300, 500], false);
    end_to_end([97, 33], [211, 103], false);
}

#[test]
fn a_region_of_interest() {
    end_to_end([240, 321], [480, 640], true);
}
