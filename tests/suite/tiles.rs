//! Images in tiles: comparison with single tiles, seams, files, mistakes.

use image::{DynamicImage, Rgb, RgbImage};
use padim::detector::{FitProgress, FitStage};
use padim::embedding::ChannelSelection;
use padim::gaussian::{GaussianModel, Precision, Storage};
use padim::preprocess::{PreprocessConfig, Resize};
use padim::scoring::{AnomalyMap, ImageScore};
use padim::tiling::TileModels;
use padim::{
    CalibrationConfig, Detector, Error, ImageInput, Padim, PadimConfig, Prediction, TiledDetector,
    TiledPadim, TilingConfig, image,
};
use std::ops::ControlFlow;

use crate::detector::backbone;
use crate::{devices, tensor};

/// Noise that depends only on the position and the seed.
fn noise(x: u32, y: u32, seed: u32) -> u32 {
    let mut z =
        x.wrapping_mul(0x9E37_79B1) ^ y.wrapping_mul(0x85EB_CA77) ^ seed.wrapping_mul(0xC2B2_AE3D);
    z = (z ^ (z >> 15)).wrapping_mul(0x2C1B_3C6D);
    z = (z ^ (z >> 12)).wrapping_mul(0x297A_2D39);
    z ^ (z >> 15)
}

/// A piece of cloth with the same statistics everywhere, beginning at column `left`.
fn cloth([height, width]: [u32; 2], seed: u32, left: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let x = x + left;
        let grain = |channel: u32| noise(x, y, seed * 3 + channel) % 60;
        let thread = if (x % 8 < 4) == (y % 8 < 4) { 120 } else { 70 };
        Rgb([0, 1, 2].map(|channel| (thread + grain(channel)) as u8))
    })
}

fn spoilt(mut image: RgbImage, [left, top]: [u32; 2], side: u32) -> RgbImage {
    for (x, y) in (0..side).flat_map(|x| (0..side).map(move |y| (left + x, top + y))) {
        image.put_pixel(x, y, Rgb([255, 0, 255]));
    }
    image
}

fn config([height, width]: [usize; 2]) -> PadimConfig {
    PadimConfig::default()
        .with_preprocess(
            PreprocessConfig::default()
                .with_resize(Resize::Exact { height, width })
                .with_crop(None),
        )
        .with_channels(ChannelSelection::random(12, 3))
        .with_batch_size(5)
}

fn tiled(tiling: TilingConfig, input: [usize; 2]) -> TiledPadim {
    TiledPadim::new(config(input), tiling, backbone()).unwrap()
}

fn own_models() -> TilingConfig {
    let tiling = TilingConfig::default().with_tile([48, 64]).with_overlap(16);
    tiling.with_models(TileModels::PerPosition)
}

fn one_model() -> TilingConfig {
    own_models().with_models(TileModels::Shared)
}
const SIZE: [u32; 2] = [101, 170];

fn per_position() -> TiledDetector {
    tiled(own_models(), [48, 64]).fit((0..6).map(|i| cloth(SIZE, i, 0))).unwrap()
}

fn tiles(image: &RgbImage, tiling: &TilingConfig) -> Vec<RgbImage> {
    let size = [image.height() as usize, image.width() as usize];
    let origins = tiling.origins(size).unwrap();
    let [height, width] = tiling.tile.map(|side| side as u32);
    let cut = |&[top, left]: &[usize; 2]| {
        image::imageops::crop_imm(image, left as u32, top as u32, width, height).to_image()
    };
    origins.iter().map(cut).collect()
}

/// Scores each tile with a plain detector and blends the maps by the definition, in f64. The network's
/// input has the size of a tile.
fn naive(detectors: &[Detector], image: &RgbImage, tiling: &TilingConfig) -> Vec<f64> {
    let size = [image.height() as usize, image.width() as usize];
    let origins = tiling.origins(size).unwrap();
    let fade = |begin: f64| {
        let t = (2.0 * begin / tiling.overlap as f64 - 0.5).clamp(0.0, 1.0);
        3.0 * t * t - 2.0 * t * t * t
    };
    let weight = |axis: usize, origin: usize, i: usize| {
        let begin = (i - origin) as f64 + 0.5;
        let up = if origin == 0 { 1.0 } else { fade(begin) };
        let last = origin + tiling.tile[axis] == size[axis];
        up * if last { 1.0 } else { fade(tiling.tile[axis] as f64 - begin) }
    };
    let (mut sums, mut weights) = (vec![0.0; size[0] * size[1]], vec![0.0; size[0] * size[1]]);
    for (k, (tile, [top, left])) in tiles(image, tiling).into_iter().zip(origins).enumerate() {
        let map = detectors[k.min(detectors.len() - 1)].predict(tile).unwrap().anomaly_map;
        for (y, x) in (0..tiling.tile[0]).flat_map(|y| (0..tiling.tile[1]).map(move |x| (y, x))) {
            let w = weight(0, top, top + y) * weight(1, left, left + x);
            sums[(top + y) * size[1] + left + x] += w * f64::from(map.at(y, x).unwrap());
            weights[(top + y) * size[1] + left + x] += w;
        }
    }
    sums.iter().zip(&weights).map(|(sum, weight)| sum / weight).collect()
}

fn agrees(prediction: &Prediction, expected: &[f64]) {
    let map = &prediction.anomaly_map;
    let highest = expected.iter().copied().fold(0.0, f64::max);
    for (found, expected) in map.values().iter().zip(expected) {
        assert!((f64::from(*found) - expected).abs() < 1e-4 * highest, "{found} {expected}");
    }
    assert_eq!(map.values().len(), expected.len());
    assert_eq!(prediction.image_score, map.max());
    assert!((f64::from(prediction.image_score) - highest).abs() < 1e-4 * highest);
}

#[test]
fn as_each_tile_by_a_plain_detector() {
    let images: Vec<RgbImage> = (0..6).map(|i| cloth(SIZE, i, 0)).collect();
    let padim = Padim::new(config([48, 64]), backbone()).unwrap();
    let test = spoilt(cloth(SIZE, 9, 0), [90, 20], 20);

    let columns: Vec<Vec<RgbImage>> = images.iter().map(|i| tiles(i, &own_models())).collect();
    let of_position = |k: usize| padim.fit(columns.iter().map(|tiles| tiles[k].clone())).unwrap();
    let detectors: Vec<Detector> = (0..columns[0].len()).map(of_position).collect();
    assert_eq!(detectors.len(), 12);
    let detector = per_position();
    assert!(detector.models().eq(detectors.iter().map(Detector::model)));
    agrees(&detector.predict(test.clone()).unwrap(), &naive(&detectors, &test, &own_models()));

    let shared = padim.fit(columns.concat()).unwrap();
    let detector = tiled(one_model(), [48, 64]).fit(images).unwrap();
    assert_eq!(detector.models().count(), 1);
    agrees(&detector.predict(test.clone()).unwrap(), &naive(&[shared], &test, &one_model()));
    // Any image size works.
    let large = cloth([150, 64], 3, 0);
    assert_eq!(detector.predict(large).unwrap().anomaly_map.size(), [150, 64]);
}

#[test]
fn one_tile_is_the_image_itself() {
    let tiling = TilingConfig::default()
        .with_tile([60, 80])
        .with_overlap(16)
        .with_models(TileModels::PerPosition);
    let images = || (0..4).map(|i| cloth([60, 80], i, 0));
    for input in [[60, 80], [30, 40]] {
        let whole = Padim::new(config(input), backbone()).unwrap().fit(images()).unwrap();
        let tiled = tiled(tiling, input).fit(images()).unwrap();
        let test = cloth([60, 80], 7, 0);
        assert_eq!(tiled.predict(test.clone()).unwrap(), whole.predict(test).unwrap());
    }
}

#[test]
fn content_that_moves_by_a_stride_moves_the_map() {
    // The network's input has half the size of a tile; the stride is 48 pixels, 24 in the map.
    let tiling = TilingConfig::default()
        .with_tile([64, 64])
        .with_overlap(16)
        .with_models(TileModels::Shared);
    let detector = tiled(tiling, [32, 32]).fit((0..3).map(|i| cloth([160, 304], i, 0))).unwrap();
    let predict = |left| detector.predict(cloth([160, 304], 8, left)).unwrap().anomaly_map;
    let (here, there) = (predict(0), predict(48));
    assert_eq!(here.size(), [80, 152]);
    // Tiles begin at columns 0, 48, .. 240, which are columns 0, 24, .. 120 of the map. The first and
    // the last tile have a neighbor only on one side, so their overlaps are left out.
    let (mut largest, mut seen) = (0.0_f32, 0);
    for (y, x) in (0..80).flat_map(|y| (8..120 - 24).map(move |x| (y, x))) {
        let (a, b) = (here.at(y, x + 24).unwrap(), there.at(y, x).unwrap());
        largest = largest.max((a - b).abs() / a);
        seen += 1;
    }
    assert!(seen > 0 && largest < 1e-5, "{largest}");
}

/// The root mean square of the differences between adjacent columns: inside the overlaps of tiles, and
/// elsewhere.
fn steps(map: &AnomalyMap, tiling: &TilingConfig) -> [f64; 2] {
    let [height, width] = map.size();
    let lines: Vec<usize> = tiling
        .origins([height, width])
        .unwrap()
        .into_iter()
        .filter(|[_, left]| *left > 0)
        .flat_map(|[_, left]| left..=left + tiling.overlap)
        .collect();
    assert!(!lines.is_empty());
    let mut sums = [(0.0, 0); 2];
    for (y, x) in (0..height).flat_map(|y| (1..width).map(move |x| (y, x))) {
        let step = f64::from(map.at(y, x).unwrap() - map.at(y, x - 1).unwrap());
        let (sum, count) = &mut sums[usize::from(!lines.contains(&x))];
        *sum += step * step;
        *count += 1;
    }
    sums.map(|(sum, count)| (sum / f64::from(count)).sqrt())
}

#[test]
fn seams_are_no_steeper_than_anything_else() {
    for models in [TileModels::Shared, TileModels::PerPosition] {
        let ratio = |overlap: usize| {
            let tiling = TilingConfig::default()
                .with_tile([64, 64])
                .with_overlap(overlap)
                .with_models(models);
            let good = (0..8).map(|i| cloth([150, 250], i, 0));
            let detector = tiled(tiling, [64, 64]).fit(good).unwrap();
            let map = detector.predict(cloth([150, 250], 20, 0)).unwrap().anomaly_map;
            let [seams, others] = steps(&map, &tiling);
            seams / others
        };
        let (blended, cut) = (ratio(24), ratio(0));
        println!("{models:?}: steps at seams {blended:.2} of others, {cut:.2} without an overlap");
        assert!(blended < 1.25 && cut > 2.0, "{models:?}: {blended} {cut}");
    }
}

#[test]
fn a_fit_within_little_memory_is_the_same() {
    const IMAGES: usize = 24;
    let images = || (0..IMAGES as u32).map(|i| cloth(SIZE, i, 0));
    let size = SIZE.map(|side| side as usize);
    let mut config = config([48, 64]);
    config.gaussian.storage = Storage::Triangle(Precision::F16);
    let padim = TiledPadim::new(config.clone(), own_models(), backbone()).unwrap();
    let plan = padim.memory_plan(size, IMAGES).unwrap();
    let expected = padim.fit(images()).unwrap();
    let model: usize = expected.models().map(GaussianModel::size_in_bytes).sum();
    assert_eq!(plan.model, model, "{plan}");
    let mut passes = 0;
    let count = |progress: FitProgress| {
        passes += usize::from((progress.stage, progress.done) == (FitStage::Embedding, IMAGES));
        ControlFlow::Continue(())
    };
    let detector = padim.fit_within_with(plan.fit - plan.statistics / 2, images(), count).unwrap();
    assert!((2..12).contains(&passes), "{passes}");
    assert!(detector.models().eq(expected.models()));
    let error = padim.fit_within(1_000_000, images()).unwrap_err().to_string();
    assert!(error.contains("1000000"), "{error}");

    let shared = TiledPadim::new(config, one_model(), backbone()).unwrap();
    let plan = shared.memory_plan(size, IMAGES).unwrap();
    let detector = shared.fit_within(plan.fit, images()).unwrap();
    assert!(detector.models().eq(shared.fit(images()).unwrap().models()));
}

#[test]
fn saved_and_loaded_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiles.padim");
    let shared = tiled(one_model(), [48, 64]).fit([cloth(SIZE, 0, 0)]).unwrap();
    let test = spoilt(cloth(SIZE, 9, 0), [90, 20], 20);
    for mut saved in [per_position(), shared] {
        let half = CalibrationConfig::default().with_image_false_alarm_rate(0.5);
        saved.calibrate((30..34).map(|i| cloth(SIZE, i, 0)), &half).unwrap();
        saved.save(&path).unwrap();
        let loaded = TiledDetector::load(&path, &devices()[0]).unwrap();
        assert!(loaded.models().eq(saved.models()));
        assert_eq!(loaded.tiling(), saved.tiling());
        assert_eq!(loaded.image_size(), saved.image_size());
        assert_eq!(loaded.thresholds(), saved.thresholds());
        assert_eq!(loaded.predict(test.clone()).unwrap(), saved.predict(test.clone()).unwrap());
        let again = folder.path().join("again.padim");
        loaded.save(&again).unwrap();
        assert!(std::fs::read(&path).unwrap() == std::fs::read(&again).unwrap());

        let error = Detector::load(&path, &devices()[0]).unwrap_err().to_string();
        assert!(error.contains("TiledDetector::load"), "{error}");
        saved.save_without_backbone(&path).unwrap();
        let loaded = TiledDetector::load_with_backbone(&path, backbone()).unwrap();
        assert_eq!(loaded.predict(test.clone()).unwrap(), saved.predict(test.clone()).unwrap());
        let error = TiledDetector::load(&path, &devices()[0]).unwrap_err();
        assert!(matches!(error, Error::BackboneNotEmbedded { .. }), "{error}");
    }
    crate::detector::detector().save_without_backbone(&path).unwrap();
    let error = TiledDetector::load_with_backbone(&path, backbone()).unwrap_err().to_string();
    assert!(error.contains("Detector::load"), "{error}");
}

/// Changes each byte of the header: gives an error or a detector, no panic and no huge allocation.
#[test]
fn damaged_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiles.padim");
    let tiling = TilingConfig::default()
        .with_tile([32, 32])
        .with_overlap(8)
        .with_models(TileModels::PerPosition);
    let images = (0..3).map(|i| cloth([32, 50], i, 0));
    let saved = tiled(tiling, [32, 32]).fit(images).unwrap();
    saved.save_without_backbone(&path).unwrap();
    let valid = std::fs::read(&path).unwrap();
    let header_end = crate::sections::header_end(&valid);
    let network = std::sync::Arc::new(backbone());
    for at in 20..header_end {
        let mut file = valid.clone();
        file[at] ^= 0x01;
        // Correct the checksum, as an attacker would.
        let end = file.len() - 4;
        let checksum = crc32fast::hash(&file[..end]).to_le_bytes();
        file[end..].copy_from_slice(&checksum);
        std::fs::write(&path, &file).unwrap();
        if let Ok(loaded) = TiledDetector::load(&path, network.clone()) {
            let _ = loaded.predict(cloth([32, 50], 1, 0));
        }
    }
    std::fs::write(&path, &valid[..valid.len() - 9]).unwrap();
    let error = TiledDetector::load(&path, network).unwrap_err().to_string();
    assert!(error.contains("bytes instead of"), "{error}");
}

#[test]
fn a_calibrated_detector_marks_across_tiles() {
    let tiling = TilingConfig::default()
        .with_tile([64, 64])
        .with_overlap(16)
        .with_models(TileModels::Shared);
    let mut detector =
        tiled(tiling, [64, 64]).fit((0..4).map(|i| cloth([160, 200], i, 0))).unwrap();
    let mut seen = 0;
    let good = (10..29).map(|i| cloth([160, 200], i, 0));
    detector
        .calibrate_with(good, &Default::default(), |progress| {
            assert_eq!((progress.stage, progress.total), (FitStage::Calibrating, Some(19)));
            seen = progress.done;
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, 19);
    // Rows 60 to 84 and columns 40 to 64, where four tiles overlap.
    let prediction = detector.predict(spoilt(cloth([160, 200], 40, 0), [40, 60], 24)).unwrap();
    assert_eq!(prediction.is_defective, Some(true));
    assert_eq!(prediction.p_value, Some(0.05));
    let defects = detector.anomaly_regions(&prediction).unwrap();
    let strangest = defects[0];
    assert!(
        (40..=62).contains(&strangest.top) && (20..=42).contains(&strangest.left),
        "{strangest:?}"
    );
    assert!(
        (22..70).contains(&strangest.height) && (22..70).contains(&strangest.width),
        "{strangest:?}"
    );
    let alone = defects.iter().filter(|defect| defect.peak > strangest.peak / 2.0).count();
    assert_eq!(alone, 1);

    let silent = detector.with_thresholds(None).unwrap();
    assert!(silent.anomaly_regions(&prediction).is_err());
}

#[test]
fn the_score_before_the_blur_is_that_of_a_tile() {
    let mut config = config([48, 64]);
    config.scoring.image_score = ImageScore::MaxBeforeBlur;
    let images = || (0..6).map(|i| cloth(SIZE, i, 0));
    let sharp = TiledPadim::new(config.clone(), one_model(), backbone()).unwrap();
    let sharp = sharp.fit(images()).unwrap();
    let test = cloth(SIZE, 9, 0);
    let prediction = sharp.predict(test.clone()).unwrap();
    let all = images().flat_map(|image| tiles(&image, &one_model())).collect::<Vec<_>>();
    let plain = Padim::new(config, backbone()).unwrap().fit(all).unwrap();
    let scores = plain.predict_batch(tiles(&test, &one_model())).unwrap().into_iter();
    let highest = scores.map(|p| p.image_score).fold(0.0, f32::max);
    assert_eq!(prediction.image_score, highest);
    assert!(highest > prediction.anomaly_map.max());
}

#[test]
fn mistakes_are_told_and_spare_others() {
    let detector = per_position();
    let input = tensor(vec![0.0; 3 * 48 * 64], [3, 48, 64], &devices()[0]);
    let inputs: Vec<ImageInput> = vec![
        cloth([40, 170], 0, 0).into(),
        cloth([101, 171], 0, 0).into(),
        "missing.png".into(),
        input.into(),
        DynamicImage::from(cloth(SIZE, 1, 0)).into(),
    ];
    let results: Vec<_> = detector.predict_iter(inputs).collect();
    let expected = [
        Some("number 0: it has 40x170 pixels (height x width), less than a tile of 48x64"),
        Some("number 1: it has [101, 171] pixels"),
        Some("missing.png"),
        Some("number 3: it is network input"),
        None,
    ];
    assert_eq!(results.len(), expected.len());
    for (result, expected) in results.iter().zip(expected) {
        match (result, expected) {
            (Ok(_), None) => (),
            (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
            other => panic!("{other:?}"),
        }
    }
    let padim = tiled(own_models(), [48, 64]);
    let error = padim.fit([cloth(SIZE, 0, 0), cloth([120, 170], 0, 0)]).unwrap_err();
    assert!(error.to_string().contains("TileModels::Shared"), "{error}");
    for count in [0, 1] {
        let images = || (0..count).map(|i| cloth(SIZE, i, 0));
        for error in [padim.fit(images()), padim.fit_within(usize::MAX, images())] {
            assert!(
                matches!(error, Err(Error::TooFewImages { count: c, .. }) if c == count as usize)
            );
        }
    }
    let crop = config([48, 64]).with_preprocess(PreprocessConfig::default().with_crop(Some(48)));
    let refused = TiledPadim::new(crop, one_model(), backbone());
    assert!(matches!(refused, Err(Error::InvalidConfig { field: "crop", .. })));
    let wide = one_model().with_overlap(25);
    let refused = TiledPadim::new(config([48, 64]), wide, backbone());
    assert!(matches!(refused, Err(Error::InvalidConfig { field: "overlap", .. })));
}

#[test]
fn a_pool_of_one_thread_does() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let test = cloth(SIZE, 9, 0);
    let expected = per_position().predict(test.clone()).unwrap();
    pool.install(|| assert_eq!(per_position().predict(test).unwrap(), expected));
}
