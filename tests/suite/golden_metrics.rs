//! Compares the metrics with a reference in Python, which was checked against scikit-learn.

use padim::metrics::{PixelScores, aupro, image_auroc, image_f1_max, pixel_auroc, pixel_f1_max};
use padim::{Error, Result};
use serde_json::Value;

use crate::golden;

fn cases(kind: &str) -> Vec<Value> {
    let cases = golden::json("metrics.json")[kind].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

fn floats(values: &Value) -> Vec<f32> {
    values.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

/// Null in the file means that the metric is undefined.
fn check(actual: Result<f64>, expected: &Value, case: &Value) {
    match (actual, expected.as_f64()) {
        (Ok(a), Some(e)) => assert!((a - e).abs() <= 1e-9, "{}: {a} is not {e}", case["name"]),
        (Err(Error::UndefinedMetric { .. }), None) => {}
        (a, e) => panic!("{}: {a:?} is not {e:?}", case["name"]),
    }
}

fn labelled(case: &Value) -> (Vec<f32>, Vec<bool>) {
    let truth = case["y"].as_array().unwrap().iter().map(|v| v == 1).collect();
    (floats(&case["s"]), truth)
}

#[test]
fn golden_metrics_roc() {
    for case in cases("roc") {
        let (scores, truth) = labelled(&case);
        check(image_auroc(&scores, &truth), &case["auroc"], &case);
        let image = PixelScores::new(&scores, &truth, [1, truth.len()]).unwrap();
        check(pixel_auroc(&[image]), &case["auroc"], &case);
    }
}

#[test]
fn golden_metrics_f1() {
    for case in cases("roc") {
        let (scores, truth) = labelled(&case);
        let image = PixelScores::new(&scores, &truth, [1, truth.len()]).unwrap();
        for best in [image_f1_max(&scores, &truth), pixel_f1_max(&[image])] {
            if let Ok(best) = &best {
                let threshold = case["threshold"].as_f64().unwrap() as f32;
                assert_eq!(best.threshold, threshold, "{}", case["name"]);
            }
            check(best.map(|b| b.f1), &case["f1"], &case);
        }
    }
}

#[test]
fn golden_metrics_pro() {
    for case in cases("pro") {
        let shape: Vec<usize> = case["shape"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_u64().unwrap() as usize)
            .collect();
        let scores = floats(&case["maps"]);
        let truth: Vec<bool> = case["masks"].as_str().unwrap().bytes().map(|b| b == b'1').collect();
        let (size, area) = ([shape[1], shape[2]], shape[1] * shape[2]);
        let images: Vec<_> = scores
            .chunks(area)
            .zip(truth.chunks(area))
            .map(|(s, t)| PixelScores::new(s, t, size).unwrap())
            .collect();
        assert_eq!(images.len(), shape[0]);
        check(pixel_auroc(&images), &case["pixel_auroc"], &case);
        for (name, limit) in [("au_pro_05", 0.05), ("au_pro_30", 0.3), ("au_pro_100", 1.0)] {
            // Without a normal pixel, the false positive rate is undefined. The reference gives 0,
            // which would mean the worst possible detector.
            let all_defective = !truth.contains(&false);
            let expected = if all_defective { &Value::Null } else { &case[name] };
            check(aupro(&images, limit), expected, &case);
        }
    }
}
