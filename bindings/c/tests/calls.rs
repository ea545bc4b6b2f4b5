//! Calls as a program in C makes them, right and wrong: wrong ones are errors, never a crash.

mod common;

use std::ffi::{CStr, CString};
use std::mem::size_of;
use std::path::Path;
use std::ptr::{null, null_mut};

use padim::Detector;
use padim_c::*;

use PadimStatus::{
    PadimErrorArgument as ARGUMENT, PadimErrorConfig as CONFIG, PadimErrorDetector as DETECTOR,
    PadimErrorImage as IMAGE, PadimErrorIo as IO, PadimOk as OK,
};

const NONE: PadimDetector = PadimDetector { id: 0 };

fn message() -> String {
    unsafe { CStr::from_ptr(padim_last_error()) }.to_str().unwrap().to_owned()
}

fn c(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

fn load(path: &Path) -> PadimDetector {
    let mut detector = NONE;
    assert_eq!(
        unsafe { padim_detector_load(c(path).as_ptr(), &mut detector) },
        OK,
        "{}",
        message()
    );
    detector
}

fn result(prediction: PadimPrediction) -> PadimResult {
    let mut result = PadimResult { struct_size: size_of::<PadimResult>(), ..Default::default() };
    assert_eq!(unsafe { padim_prediction_result(prediction, &mut result) }, OK, "{}", message());
    result
}

fn frame(picture: &image::RgbImage) -> PadimFrame {
    PadimFrame {
        struct_size: size_of::<PadimFrame>(),
        data: picture.as_raw().as_ptr(),
        length: picture.as_raw().len(),
        format: c"RGB8".as_ptr(),
        height: picture.height() as usize,
        width: picture.width() as usize,
        stride: 0,
    }
}

fn regions(
    detector: PadimDetector,
    prediction: PadimPrediction,
    regions: &mut [PadimRegion],
) -> (PadimStatus, usize) {
    let mut count = usize::MAX;
    let (pointer, capacity) = (regions.as_mut_ptr(), regions.len());
    let status =
        unsafe { padim_prediction_regions(detector, prediction, pointer, capacity, &mut count) };
    (status, count)
}

#[test]
fn all_ways_give_the_results_of_rust_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("part.padim");
    let expected = common::detector();
    expected.save(&saved).unwrap();
    let from_file = load(&saved);
    let bytes = std::fs::read(&saved).unwrap();
    let mut from_memory = NONE;
    let status =
        unsafe { padim_detector_load_memory(bytes.as_ptr(), bytes.len(), &mut from_memory) };
    assert_eq!(status, OK);

    let mut info =
        PadimDetectorInfo { struct_size: size_of::<PadimDetectorInfo>(), ..Default::default() };
    assert_eq!(unsafe { padim_detector_info(from_memory, &mut info) }, OK);
    let thresholds = expected.thresholds().unwrap();
    assert_eq!([info.input_height, info.input_width], [48, 48]);
    assert!(info.has_threshold && info.is_calibrated && !info.is_tiled);
    assert_eq!((info.threshold, info.calibration_images), (thresholds.image, 19));
    assert_eq!(Some(info.pixel_threshold), thresholds.pixel);

    for path in common::pictures(folder.path()) {
        let truth = expected.predict(&path).unwrap();
        let picture = image::open(&path).unwrap().to_rgb8();
        let file = std::fs::read(&path).unwrap();
        let mut predictions = [PadimPrediction { id: 0 }; 4];
        let [a, b, d, e] = &mut predictions;
        unsafe {
            assert_eq!(padim_predict_file(from_file, c(&path).as_ptr(), a), OK);
            assert_eq!(padim_predict_frame(from_file, &frame(&picture), b), OK);
            assert_eq!(
                padim_predict_encoded(from_memory, file.as_ptr(), file.len(), null(), d),
                OK
            );
            assert_eq!(padim_predict_frames(from_memory, &frame(&picture), 1, e), OK);
        }
        for prediction in predictions {
            let result = result(prediction);
            assert_eq!(result.image_score, truth.image_score);
            assert_eq!(result.normalized_score, truth.normalized_score);
            assert_eq!(Some(result.p_value), truth.p_value);
            let verdict = if truth.is_defective.unwrap() {
                PadimVerdict::PadimDefective
            } else {
                PadimVerdict::PadimGood
            };
            assert_eq!(result.verdict, verdict);
            assert_eq!([result.map_height, result.map_width], truth.anomaly_map.size());
            assert_eq!([result.original_height, result.original_width], [56, 70]);

            let mut ours = null();
            let mut copy = vec![0.0; result.map_height * result.map_width];
            let mut original = vec![0.0; 56 * 70];
            let map = unsafe {
                assert_eq!(padim_prediction_map(prediction, &mut ours), OK);
                let length = copy.len();
                assert_eq!(padim_prediction_copy_map(prediction, copy.as_mut_ptr(), length), OK);
                let (buffer, length) = (original.as_mut_ptr(), original.len());
                assert_eq!(padim_prediction_copy_original_map(prediction, buffer, length), OK);
                std::slice::from_raw_parts(ours, copy.len())
            };
            assert_eq!(map, truth.anomaly_map.values());
            assert_eq!(copy, truth.anomaly_map.values());
            assert_eq!(original, truth.map_in_original().unwrap().values());

            let found = expected.anomaly_regions(&truth).unwrap();
            let mut places = vec![PadimRegion::default(); found.len() + 1];
            assert_eq!(regions(from_file, prediction, &mut places), (OK, found.len()));
            for (region, truth) in places.iter().zip(&found) {
                assert_eq!([region.top, region.left], [truth.top, truth.left]);
                assert_eq!([region.height, region.width], [truth.height, truth.width]);
                assert_eq!(
                    (region.area, region.peak, region.mean),
                    (truth.area, truth.peak, truth.mean)
                );
            }
            assert_eq!(regions(from_file, prediction, &mut []), (OK, found.len()));
            assert_eq!(padim_prediction_free(prediction), OK);
        }
    }
    // Both are the same detector, and are saved as the same file.
    let again = folder.path().join("again.padim");
    assert_eq!(unsafe { padim_detector_save(from_memory, c(&again).as_ptr()) }, OK);
    assert_eq!(std::fs::read(&again).unwrap(), bytes);
    for detector in [from_file, from_memory] {
        assert_eq!(padim_detector_free(detector), OK);
        assert_eq!(padim_detector_free(detector), ARGUMENT);
    }
}

#[test]
fn a_detector_is_fitted_calibrated_and_saved() {
    let folder = tempfile::tempdir().unwrap();
    let settings = c"{\"preprocess\": {\"resize\": {\"exact\": {\"height\": 48, \"width\": 48}}}}";
    let options = PadimFitOptions { config_json: settings.as_ptr(), ..Default::default() };
    let mut fit = PadimFit { id: 0 };
    let mut detector = NONE;
    let mut calibration = PadimCalibration { id: 0 };
    let file = |i: u32| {
        let path = folder.path().join(format!("{i}.png"));
        common::good(i).save(&path).unwrap();
        path
    };
    unsafe {
        assert_eq!(padim_fit_new(&options, &mut fit), OK, "{}", message());
        for i in 0..12 {
            let path = file(i);
            let bytes = std::fs::read(&path).unwrap();
            let status = match i % 3 {
                0 => padim_fit_add_file(fit, c(&path).as_ptr()),
                1 => padim_fit_add_frame(fit, &frame(&common::good(i))),
                _ => padim_fit_add_encoded(fit, bytes.as_ptr(), bytes.len(), c"part".as_ptr()),
            };
            assert_eq!(status, OK, "{}", message());
        }
        assert_eq!(padim_fit_finish(fit, &mut detector), OK, "{}", message());
        assert_eq!(padim_fit_finish(fit, &mut detector), ARGUMENT);

        assert_eq!(padim_calibration_new(detector, 0.0, 0.0, &mut calibration), OK);
        for i in 100..119 {
            let status = padim_calibration_add_frame(calibration, &frame(&common::good(i)));
            assert_eq!(status, OK, "{}", message());
        }
        assert_eq!(padim_calibration_finish(calibration), OK, "{}", message());
        let saved = folder.path().join("part.padim");
        assert_eq!(padim_detector_save(detector, c(&saved).as_ptr()), OK);
        let loaded = Detector::load(&saved, &padim::burn::tensor::Device::flex()).unwrap();
        let expected = common::detector();
        assert_eq!(loaded.thresholds(), expected.thresholds());
        let defect = common::defective();
        assert_eq!(loaded.predict(&defect).unwrap(), expected.predict(&defect).unwrap());
        assert_eq!(loaded.predict(&defect).unwrap().is_defective, Some(true));
    }
    assert_eq!(padim_detector_free(detector), OK);
}

#[test]
fn failed_and_abandoned_fits_are_told_and_leave_nothing() {
    let mut fit = PadimFit { id: 0 };
    let mut detector = NONE;
    unsafe {
        assert_eq!(padim_fit_new(null(), &mut fit), OK);
        assert_eq!(padim_fit_add_file(fit, c"missing.png".as_ptr()), OK);
        // The error of the image comes with a later call.
        let mut status = OK;
        for _ in 0..1000 {
            if status == OK {
                status = padim_fit_add_frame(fit, &frame(&common::good(1)));
            }
        }
        assert_eq!(status, IO);
        assert!(message().contains("missing.png"), "{}", message());
        assert_eq!(padim_fit_add_frame(fit, &frame(&common::good(1))), ARGUMENT);
        assert_eq!(padim_fit_finish(fit, &mut detector), ARGUMENT);
        assert_eq!(detector, NONE);

        assert_eq!(padim_fit_new(null(), &mut fit), OK);
        assert_eq!(padim_fit_finish(fit, &mut detector), CONFIG, "no images");
        assert_eq!(padim_fit_new(null(), &mut fit), OK);
        assert_eq!(padim_fit_add_frame(fit, &frame(&common::good(1))), OK);
        assert_eq!(padim_fit_free(fit), OK);
        assert_eq!(padim_fit_free(fit), ARGUMENT);

        for (json, word) in
            [(c"{", "EOF"), (c"{\"no\": 1}", "no"), (c"{\"batch_size\": 0}", "batch")]
        {
            let options = PadimFitOptions { config_json: json.as_ptr(), ..Default::default() };
            assert_ne!(padim_fit_new(&options, &mut fit), OK);
            assert!(message().contains(word), "{}", message());
        }
        let options = PadimFitOptions { backbone: c"vgg".as_ptr(), ..Default::default() };
        assert_eq!(padim_fit_new(&options, &mut fit), ARGUMENT);
        let options = PadimFitOptions { weights: c"missing.pth".as_ptr(), ..Default::default() };
        assert_eq!(padim_fit_new(&options, &mut fit), IO);
        assert_eq!(padim_fit_new(&PadimFitOptions::default(), null_mut()), ARGUMENT);
    }
}

#[test]
fn wrong_arguments_are_errors_that_say_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("part.padim");
    common::detector().save(&saved).unwrap();
    let detector = load(&saved);
    let picture = common::good(5);
    let mut prediction = PadimPrediction { id: 0 };
    let mut other = NONE;
    let said = |status: PadimStatus, expected: PadimStatus, word: &str| {
        assert_eq!(status, expected, "{}", message());
        assert!(message().contains(word), "{:?} in {:?}", word, message());
    };
    unsafe {
        // Null pointers.
        said(padim_detector_load(null(), &mut other), ARGUMENT, "path is null");
        said(padim_detector_load(c(&saved).as_ptr(), null_mut()), ARGUMENT, "null");
        said(padim_detector_load_memory(null(), 7, &mut other), ARGUMENT, "null");
        said(padim_detector_save(detector, null()), ARGUMENT, "null");
        said(padim_detector_info(detector, null_mut()), ARGUMENT, "null");
        said(padim_predict_file(detector, null(), &mut prediction), ARGUMENT, "null");
        said(padim_predict_file(detector, c"a".as_ptr(), null_mut()), ARGUMENT, "null");
        said(padim_predict_frame(detector, null(), &mut prediction), ARGUMENT, "frame is null");
        said(padim_predict_frame(detector, &frame(&picture), null_mut()), ARGUMENT, "null");
        said(padim_predict_frames(detector, null(), 2, &mut prediction), ARGUMENT, "null");
        said(padim_predict_frames(detector, &frame(&picture), 1, null_mut()), ARGUMENT, "null");
        assert_eq!(padim_predict_frames(detector, null(), 0, null_mut()), OK);
        said(padim_predict_encoded(detector, null(), 9, null(), &mut prediction), ARGUMENT, "null");
        said(
            padim_predict_encoded(detector, null(), 0, null(), &mut prediction),
            ARGUMENT,
            "no bytes",
        );

        // Files that are missing, cut or something else.
        said(padim_detector_load(c"missing".as_ptr(), &mut other), IO, "missing");
        let bytes = std::fs::read(&saved).unwrap();
        for length in [1, 10, 100, bytes.len() / 2, bytes.len() - 1] {
            let status = padim_detector_load_memory(bytes.as_ptr(), length, &mut other);
            said(status, DETECTOR, "not a usable padim detector");
        }
        said(
            padim_predict_file(detector, c(&saved).as_ptr(), &mut prediction),
            IMAGE,
            "part.padim",
        );
        let status = padim_predict_encoded(
            detector,
            b"<html>".as_ptr(),
            6,
            c"part 7".as_ptr(),
            &mut prediction,
        );
        said(status, IMAGE, "part 7");
        let latin1 = CString::new([0xE4, 0x2E]).unwrap();
        said(padim_predict_file(detector, latin1.as_ptr(), &mut prediction), ARGUMENT, "UTF-8");

        // Frames of wrong sizes.
        let right = frame(&picture);
        for (wrong, status, word) in [
            (PadimFrame { struct_size: 0, ..right }, ARGUMENT, "struct_size"),
            (PadimFrame { struct_size: 8, ..right }, ARGUMENT, "struct_size"),
            (PadimFrame { data: null(), ..right }, ARGUMENT, "null"),
            (PadimFrame { length: right.length - 1, ..right }, IMAGE, "expected"),
            (PadimFrame { length: 0, ..right }, IMAGE, "expected"),
            (PadimFrame { length: usize::MAX, ..right }, ARGUMENT, "cannot have"),
            (PadimFrame { format: null(), ..right }, ARGUMENT, "null"),
            (PadimFrame { format: c"RGB9".as_ptr(), ..right }, CONFIG, "RGB9"),
            (PadimFrame { height: 0, ..right }, CONFIG, "frame"),
            (PadimFrame { width: usize::MAX, ..right }, CONFIG, "frame"),
            (PadimFrame { stride: 1, ..right }, CONFIG, "stride"),
            (PadimFrame { stride: usize::MAX, ..right }, IMAGE, "expected"),
        ] {
            said(padim_predict_frame(detector, &wrong, &mut prediction), status, word);
        }
        // A larger struct of a later version is fine.
        let later = PadimFrame { struct_size: 1000, ..right };
        assert_eq!(padim_predict_frame(detector, &later, &mut prediction), OK);

        // Handles of nothing, and of something else.
        for id in [0, u64::MAX, prediction.id] {
            let wrong = PadimDetector { id };
            said(padim_predict_frame(wrong, &right, &mut prediction), ARGUMENT, "handle");
            said(padim_detector_free(wrong), ARGUMENT, "handle");
        }
        said(padim_prediction_free(PadimPrediction { id: detector.id }), ARGUMENT, "handle");

        // Buffers of wrong sizes; nothing is written.
        let mut buffer = [7.0_f32; 56 * 70 + 1];
        for length in [0, 1, 48 * 48 - 1, 56 * 70 + 1] {
            let pointer = buffer.as_mut_ptr();
            said(padim_prediction_copy_map(prediction, pointer, length), ARGUMENT, "2304");
            let status = padim_prediction_copy_original_map(prediction, pointer, length);
            said(status, ARGUMENT, "3920");
        }
        assert!(buffer.iter().all(|&v| v == 7.0));
        said(padim_prediction_copy_map(prediction, null_mut(), 48 * 48), ARGUMENT, "null");
        let mut small = PadimResult { struct_size: 4, ..Default::default() };
        said(padim_prediction_result(prediction, &mut small), ARGUMENT, "struct_size");
        let mut count = 3;
        let status = padim_prediction_regions(detector, prediction, null_mut(), 5, &mut count);
        said(status, ARGUMENT, "null");
        assert_eq!(count, 3);

        // Rates that a calibration cannot have, and too few images.
        let mut calibration = PadimCalibration { id: 0 };
        for rate in [-1.0, 1.0, f64::NAN] {
            said(padim_calibration_new(detector, rate, 0.0, &mut calibration), CONFIG, "rate");
        }
        assert_eq!(padim_calibration_new(detector, 0.0, 0.0, &mut calibration), OK);
        assert_eq!(padim_calibration_add_frame(calibration, &right), OK);
        assert_ne!(padim_calibration_finish(calibration), OK);
        assert_eq!(padim_calibration_free(calibration), ARGUMENT);
    }
    assert_eq!(padim_detector_free(detector), OK);
}

#[test]
fn threads_share_a_detector_that_is_freed_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("part.padim");
    common::detector().save(&saved).unwrap();
    let detector = load(&saved);
    let picture = common::defective();
    let mut first = PadimPrediction { id: 0 };
    assert_eq!(unsafe { padim_predict_frame(detector, &frame(&picture), &mut first) }, OK);
    let expected = result(first).image_score;
    let scored: usize = std::thread::scope(|scope| {
        let run = |number: usize| {
            let picture = &picture;
            scope.spawn(move || {
                let mut scored = 0;
                for _ in 0..3 {
                    let mut prediction = PadimPrediction { id: 0 };
                    match unsafe { padim_predict_frame(detector, &frame(picture), &mut prediction) }
                    {
                        OK => {
                            assert_eq!(result(prediction).image_score, expected);
                            assert_eq!(padim_prediction_free(prediction), OK);
                            scored += 1;
                        }
                        status => {
                            assert_eq!(status, ARGUMENT);
                            assert!(message().contains("freed"), "{}", message());
                        }
                    }
                    if number == 40 {
                        padim_detector_free(detector);
                    }
                }
                scored
            })
        };
        let threads: Vec<_> = (0..64).map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    println!("{scored} of 192 predictions came before the detector was freed");
    assert!(scored > 0);
    assert_eq!(unsafe { padim_predict_frame(detector, &frame(&picture), &mut first) }, ARGUMENT);
}
