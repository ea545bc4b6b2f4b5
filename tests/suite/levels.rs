//! Deep images, transparent images and camera frames in fits and predictions.

use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageBuffer, Luma, LumaA, Rgb, Rgba};
use padim::detector::{Augmentation, Registration};
use padim::preprocess::{
    Alpha, DecodeOptions, Frame, FrameFormat, FrameLayout, InputWarning, Levels, ResizeArithmetic,
};
use padim::{
    CalibrationConfig, Detector, Error, ImageInput, Padim, PadimConfig, TiledDetector, TiledPadim,
    TilingConfig, image,
};

use crate::detector::{backbone, config, defective, good};

type Gray16 = ImageBuffer<Luma<u16>, Vec<u16>>;

/// A gray picture in all 16 bits, with black and white.
fn gray(i: u32) -> Gray16 {
    picture(&good(i).into())
}

fn picture(image: &DynamicImage) -> Gray16 {
    let noise = |x: u32, y: u32| (x * 7919 + y * 104_729) as u16 % 256;
    let luma = image.to_luma8();
    let mut deep = Gray16::from_fn(70, 56, |x, y| {
        Luma([(u16::from(luma.get_pixel(x, y).0[0]) << 8) | noise(x, y)])
    });
    deep.put_pixel(1, 0, Luma([0]));
    deep.put_pixel(35, 28, Luma([u16::MAX]));
    deep
}

/// The same picture of a camera with fewer bits.
fn of_bits(image: &Gray16, bits: u8) -> Gray16 {
    let shifted = image.as_raw().iter().map(|v| v >> (16 - bits)).collect();
    Gray16::from_raw(image.width(), image.height(), shifted).unwrap()
}

fn padim_of(config: PadimConfig) -> Padim {
    Padim::new(config, backbone()).unwrap()
}

fn padim() -> Padim {
    padim_of(config())
}

fn with_levels(levels: Levels) -> PadimConfig {
    config().with_preprocess(config().preprocess.with_levels(levels))
}

fn files(folder: &Path, bits: u8) -> Vec<PathBuf> {
    let file = |i: u32| {
        let path = folder.join(format!("{bits}-{i}.png"));
        of_bits(&gray(i), bits).save(&path).unwrap();
        path
    };
    (0..6).map(file).collect()
}

#[test]
fn a_camera_of_any_bits_scores_like_one_of_16() {
    let folder = tempfile::tempdir().unwrap();
    let strange = picture(&defective().into());
    let mut expected = None;
    for bits in [16, 14, 12, 10] {
        let detector = padim().fit(files(folder.path(), bits)).unwrap();
        assert_eq!(detector.config().preprocess.levels, Levels::Bits(bits));
        let saved = folder.path().join("saved.padim");
        detector.save_without_backbone(&saved).unwrap();
        let loaded = Detector::load_with_backbone(&saved, backbone()).unwrap();
        let path = folder.path().join("strange.png");
        of_bits(&strange, bits).save(&path).unwrap();
        let prediction = loaded.predict(&path).unwrap();
        assert_eq!(prediction.input.warnings(), [] as [String; 0]);
        let expected = expected.get_or_insert_with(|| prediction.clone());
        assert_eq!(prediction.anomaly_map, expected.anomaly_map, "{bits}");
        let summary = detector.input_summary().unwrap();
        assert_eq!((summary.images, summary.deep, summary.warnings.len()), (6, 6, 0));
        assert!(summary.to_string().contains(&format!("bits:{bits}")), "{summary}");
    }
    // The high byte, as in 8 bits.
    let high = |image: &Gray16| DynamicImage::from(image.clone()).into_luma8();
    let eight = padim().fit((0..6).map(|i| high(&gray(i)))).unwrap();
    let close = eight.predict(high(&strange)).unwrap().image_score;
    assert!((close / expected.unwrap().image_score - 1.0).abs() < 0.05);
}

#[test]
fn floats_score_like_integers_of_the_same_values() {
    let config = || {
        let float = ResizeArithmetic::Float { antialias: true };
        config().with_preprocess(config().preprocess.with_arithmetic(float))
    };
    let float = |image: &Gray16, most: f32| -> DynamicImage {
        let value = |v: u16| most * f32::from(v) / 65535.0;
        ImageBuffer::from_fn(70, 56, |x, y| Rgb([value(image.get_pixel(x, y).0[0]); 3])).into()
    };
    let strange = picture(&defective().into());
    let expected = padim_of(config()).fit((0..6).map(gray)).unwrap().predict(&strange).unwrap();
    for (most, levels) in
        [(1.0, "0..1"), (255.0, "0..255"), (4095.0, "0..4095"), (1e6, "0..1000000")]
    {
        let detector = padim_of(config()).fit((0..6).map(|i| float(&gray(i), most))).unwrap();
        assert_eq!(detector.config().preprocess.levels.to_string(), levels);
        let prediction = detector.predict(float(&strange, most)).unwrap();
        let ratio = prediction.image_score / expected.image_score;
        assert!((ratio - 1.0).abs() < 1e-3, "{most}: {ratio}");
    }
}

#[test]
fn an_image_beyond_the_chosen_levels_stops_the_fit_and_says_what_to_do() {
    let dark = || (0..3).map(|i| of_bits(&gray(i), 10));
    let images = || dark().chain([of_bits(&gray(3), 12)]);
    let text = padim().fit(images()).unwrap_err().to_string();
    for part in ["number 3", "0..4095", "0..1023", "with_levels", "bits:14"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let all = Levels::of_images(images(), DecodeOptions::default()).unwrap();
    assert_eq!(all, Levels::Bits(12));
    padim_of(with_levels(all)).fit(images()).unwrap();
    // Given levels clip, and count.
    let detector = padim_of(with_levels(Levels::Bits(10))).fit(images()).unwrap();
    let warned = &detector.input_summary().unwrap().warnings[0];
    assert_eq!((warned.kind, warned.images), (InputWarning::Clipped, 1));
    assert_eq!(warned.first, "number 3");
    // In an extension, too: the levels are given by then.
    let mut fit = padim().partial_fit(dark()).unwrap();
    assert!(fit.extend([of_bits(&gray(3), 12)]).is_err());
    fit.extend([of_bits(&gray(4), 10)]).unwrap();
    assert_eq!(fit.input_summary().unwrap().images, 4);
    let mut detector = fit.finish_extendable().unwrap();
    assert_eq!(detector.config().preprocess.levels, Levels::Bits(10));
    detector.extend([of_bits(&gray(3), 12)]).unwrap();
    assert_eq!(detector.input_summary().unwrap().warnings[0].images, 1);
}

#[test]
fn fits_that_chose_other_levels_do_not_merge() {
    let part = |bits| padim().partial_fit((0..3).map(|i| of_bits(&gray(i), bits))).unwrap();
    let mut fit = part(12);
    fit.merge(part(12)).unwrap();
    assert_eq!(fit.input_summary().unwrap().images, 6);
    let error = fit.merge(part(14)).unwrap_err().to_string();
    assert!(error.contains("bits:12 and bits:14") && error.contains("with_levels"), "{error}");
    // The folds of a calibration are parts of one fit.
    let images: Vec<Gray16> =
        (0..8).map(|i| of_bits(&gray(i), if i % 2 == 0 { 12 } else { 10 })).collect();
    let calibration = CalibrationConfig::default().with_image_false_alarm_rate(0.2);
    let detector = padim().fit_calibrated(&images, 2, &calibration).unwrap();
    assert_eq!(detector.config().preprocess.levels, Levels::Bits(12));
    assert_eq!(detector.input_summary().unwrap().images, 8);
}

#[test]
fn tiles_copies_registered_images_and_projections_use_the_chosen_levels() {
    let tiling = TilingConfig::default().with_tile([32, 32]).with_overlap(8);
    let whole = config().with_input_size([32, 32]);
    let mut predictions = Vec::new();
    let score = |bits: u8| {
        let images = || (0..6).map(move |i| of_bits(&gray(i), bits));
        let strange = of_bits(&picture(&defective().into()), bits);
        let tiled = TiledPadim::new(whole.clone(), tiling, backbone()).unwrap();
        let tiled: [TiledDetector; 2] =
            [tiled.fit(images()).unwrap(), tiled.fit_within(1 << 30, images()).unwrap()];
        let [a, b] = tiled.map(|tiled| {
            assert_eq!(tiled.config().preprocess.levels, Levels::Bits(bits));
            assert_eq!(tiled.input_summary().unwrap().images, 6);
            tiled.predict(&strange).unwrap()
        });
        assert_eq!(a, b);
        assert_eq!(a.input.deep.unwrap().gray_levels, 256.min(a.input.deep.unwrap().gray_levels));
        let augmentation = Augmentation::default().with_copies(2).with_degrees(0.0).with_shift(0.0);
        let copied = padim_of(config().with_augmentation(Some(augmentation)));
        let shift = Registration::aligning("none", |image| {
            assert!(image.as_luma16().is_some());
            let center = [f64::from(image.width()) / 2.0, f64::from(image.height()) / 2.0];
            Ok(padim::preprocess::Alignment { center, degrees: 0.0 })
        });
        let copied = copied.with_registration(shift).fit(images()).unwrap();
        assert_eq!(copied.input_summary().unwrap().images, 6, "copies do not count");
        let projected = padim().fit_projection(5, images()).unwrap();
        assert_eq!(projected.config().preprocess.levels, Levels::Bits(bits));
        let projected = projected.fit(images()).unwrap();
        let score = |detector: &Detector| detector.predict(&strange).unwrap().image_score;
        [a.image_score, score(&copied), score(&projected)]
    };
    for bits in [12, 16] {
        predictions.push(score(bits));
    }
    assert_eq!(predictions[0], predictions[1]);
}

#[test]
fn a_detector_of_8_bits_reads_deep_images_as_16_bits_and_says_so() {
    let detector = padim().fit((0..4).map(good)).unwrap();
    assert_eq!(detector.config().preprocess.levels, Levels::Auto);
    assert!(detector.input_summary().unwrap().warnings.is_empty());
    let shallow = detector.predict(good(2)).unwrap();
    assert!(shallow.input.deep.is_none() && shallow.input.warnings().is_empty());
    assert_eq!(shallow.input.seen_share, shallow.geometry.seen_share());
    let deep = DynamicImage::from(good(2)).into_rgb16();
    let prediction = detector.predict(deep).unwrap();
    assert_eq!(prediction.anomaly_map, shallow.anomaly_map);
    assert!(prediction.input.warnings()[0].contains("fitted on images of 8 bits"));
    let twelve = detector.predict(of_bits(&gray(2), 12)).unwrap().input;
    let kinds = [InputWarning::Unexpected, InputWarning::FewGrayLevels];
    assert_eq!(twelve.warning_kinds(), kinds);
    // A later image of a fit is counted in its summary.
    let mixed: Vec<DynamicImage> = (0..3).map(|i| good(i).into()).chain([gray(3).into()]).collect();
    let summary = padim().fit(mixed).unwrap().input_summary().unwrap().clone();
    assert_eq!((summary.deep, summary.warnings[0].kind), (1, InputWarning::Unexpected));
    assert!(summary.to_string().lines().last().unwrap().starts_with("warning: number 3: "));
}

/// Packs values of 12 bits as `Mono12p`.
fn packed(image: &Gray16) -> Vec<u8> {
    let pairs = image.as_raw().chunks(2).map(|pair| [pair[0], pair[1]].map(u32::from));
    pairs.flat_map(|[a, b]| (a | b << 12).to_le_bytes().into_iter().take(3)).collect()
}

#[test]
fn a_frame_scores_like_a_file_with_the_same_values() {
    let folder = tempfile::tempdir().unwrap();
    let layout = FrameLayout::new(FrameFormat::Mono12p, [56, 70]);
    let frame = |image: &Gray16| ImageInput::owned_frame("frame", packed(image), layout).unwrap();
    let twelve = |i: u32| of_bits(&gray(i), 12);
    let strange = of_bits(&picture(&defective().into()), 12);
    let path = folder.path().join("strange.png");
    strange.save(&path).unwrap();
    let (bytes, strange_frame) = (packed(&strange), frame(&strange));
    let borrowed = ImageInput::frame("frame", Frame::new(&bytes, layout).unwrap()).unwrap();
    let of_files = padim().fit((0..6).map(twelve)).unwrap();
    let of_frames = padim().fit((0..6).map(|i| frame(&twelve(i)))).unwrap();
    let expected = of_files.predict(&path).unwrap();
    for detector in [&of_files, &of_frames] {
        for input in [strange_frame.clone(), borrowed.clone(), (&path).into()] {
            assert_eq!(detector.predict(input).unwrap(), expected);
        }
    }
    // White is where the frame says, whatever levels say; except for a range.
    let of_16 = padim_of(with_levels(Levels::Bits(16))).fit((0..6).map(|i| frame(&twelve(i))));
    let of_16 = of_16.unwrap();
    assert_eq!(of_16.predict(strange_frame.clone()).unwrap(), expected);
    let of_8 = padim().fit((0..4).map(good)).unwrap();
    assert!(of_8.predict(strange_frame.clone()).unwrap().input.warnings().is_empty());
    let range = with_levels(Levels::Range { low: 0.0, high: 8190.0 });
    let dark = padim_of(range).fit((0..6).map(|i| frame(&twelve(i)))).unwrap();
    let report = dark.predict(strange_frame.clone()).unwrap().input.deep.unwrap();
    assert_eq!((report.levels, report.values), ([0.0, 8190.0], [0.0, 4095.0]));
    // Bits survive copies and tiles.
    let copies = Augmentation::default().with_copies(1);
    let of_copies = padim_of(with_levels(Levels::Bits(16)).with_augmentation(Some(copies.clone())));
    let of_copies = of_copies.fit((0..3).map(|i| frame(&twelve(i)))).unwrap();
    let plain = padim_of(with_levels(Levels::Bits(12)).with_augmentation(Some(copies)));
    let plain = plain.fit((0..3).map(twelve)).unwrap();
    let [a, b] =
        [of_copies, plain].map(|detector| detector.predict(strange_frame_of(&bytes)).unwrap());
    assert_eq!(a, b);
    let tiling = TilingConfig::default().with_tile([32, 32]).with_overlap(8);
    let whole = with_levels(Levels::Bits(16)).with_input_size([32, 32]);
    let tiled = TiledPadim::new(whole, tiling, backbone()).unwrap();
    let tiled = tiled.fit((0..4).map(|i| frame(&twelve(i)))).unwrap();
    assert_eq!(tiled.predict(strange_frame).unwrap().input.deep.unwrap().levels, [0.0, 4095.0]);
}

fn strange_frame_of(bytes: &[u8]) -> DynamicImage {
    let layout = FrameLayout::new(FrameFormat::Mono12p, [56, 70]);
    // Without its bits, but read as 16 bits by neither detector.
    let image = Frame::new(bytes, layout).unwrap().to_image().unwrap();
    let full = image.as_luma16().unwrap().as_raw().iter().map(|v| (v >> 4) as u8).collect();
    image::GrayImage::from_raw(70, 56, full).unwrap().into()
}

#[test]
fn hidden_colors_under_transparency_do_not_decide() {
    let image = |hidden: u8| {
        let plain = good(2);
        ImageBuffer::from_fn(70, 56, move |x, y| {
            let [r, g, b] = plain.get_pixel(x, y).0;
            if x < 20 { Rgba([hidden, hidden, hidden, 0]) } else { Rgba([r, g, b, 255]) }
        })
    };
    let detector = padim().fit((0..4).map(good)).unwrap();
    let [a, b] = [0, 255].map(|hidden| detector.predict(image(hidden)).unwrap());
    assert_eq!(a, b);
    assert!(a.input.transparent);
    let opaque: DynamicImage = DynamicImage::from(good(2)).into_rgba8().into();
    let expected = detector.predict(good(2)).unwrap();
    assert_eq!(detector.predict(opaque).unwrap(), expected, "bit for bit");
    let drop = config().preprocess.with_alpha(Alpha::Drop);
    let detector = padim_of(config().with_preprocess(drop)).fit((0..4).map(good)).unwrap();
    let [a, b] = [0, 255].map(|hidden| detector.predict(image(hidden)).unwrap());
    assert_ne!(a.image_score, b.image_score);
    // A registration sees the picture on its background, too.
    let shape = |hidden: u8| {
        ImageBuffer::from_fn(70, 56, move |x, y| {
            let inside = (10..50).contains(&x) && (20..28 + x / 10).contains(&y);
            if inside { LumaA([30, 255]) } else { LumaA([hidden, 0]) }
        })
    };
    let upright = Registration::principal_axis(0.0);
    let registered =
        padim().with_registration(upright).fit((0..3).map(|i| shape(i * 100))).unwrap();
    let [a, b] = [30, 200].map(|hidden| registered.predict(shape(hidden)).unwrap());
    assert_eq!(a, b);
}

#[test]
fn the_presets_of_python_programs_read_as_pil() {
    for preset in [PadimConfig::paper(), PadimConfig::xiahaifeng(), PadimConfig::anomalib()] {
        assert_eq!(preset.preprocess.alpha, Alpha::Drop);
    }
    assert_eq!(PadimConfig::xiahaifeng().preprocess.levels, Levels::Pil);
    let detector = padim_of(with_levels(Levels::Pil)).fit((0..3).map(gray)).unwrap();
    let report = detector.predict(gray(1)).unwrap().input;
    assert_eq!(detector.config().preprocess.levels, Levels::Pil);
    assert_eq!(report.warning_kinds()[0], InputWarning::Clipped);
}

#[test]
fn mixed_kinds_and_invalid_levels_are_errors() {
    let float = DynamicImage::from(gray(1)).into_rgb32f();
    let error = padim().fit([DynamicImage::from(gray(0)), float.into()]).unwrap_err();
    assert!(matches!(error, Error::InvalidConfig { field: "levels", .. }), "{error}");
    let config = with_levels(Levels::Bits(7));
    assert!(Padim::new(config, backbone()).unwrap_err().to_string().contains("8..=16"));
}
