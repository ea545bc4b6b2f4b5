//! Reads the golden values, and computes the formulas of their inputs (see the top of
//! `tests/golden/make_golden.py`). Shared by the unit tests and the integration tests.
#![allow(dead_code)]

use std::collections::HashMap;
use std::path::PathBuf;

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

pub fn json(name: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}

/// A tensor of a golden file, converted to f64.
#[derive(Debug, Clone)]
pub struct Golden {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Golden {
    pub fn f32(&self) -> Vec<f32> {
        self.values.iter().map(|&v| v as f32).collect()
    }

    pub fn usize(&self) -> Vec<usize> {
        self.values.iter().map(|&v| v as usize).collect()
    }

    pub fn u8(&self) -> Vec<u8> {
        self.values.iter().map(|&v| v as u8).collect()
    }

    pub fn dims<const D: usize>(&self) -> [usize; D] {
        self.shape.clone().try_into().unwrap()
    }
}

pub struct GoldenFile(HashMap<String, Golden>);

impl std::ops::Index<&str> for GoldenFile {
    type Output = Golden;
    fn index(&self, name: &str) -> &Golden {
        self.0.get(name).unwrap_or_else(|| panic!("no golden tensor {name}"))
    }
}

pub fn tensors(name: &str) -> GoldenFile {
    use safetensors::Dtype;
    let bytes = std::fs::read(path(name)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let decode = |view: &safetensors::tensor::TensorView<'_>| -> Vec<f64> {
        let data = view.data();
        match view.dtype() {
            Dtype::F64 => {
                data.chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
            }
            Dtype::F32 => {
                data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect()
            }
            Dtype::I64 => {
                data.chunks(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect()
            }
            Dtype::I32 => {
                data.chunks(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()).into()).collect()
            }
            Dtype::U8 => data.iter().map(|&b| b.into()).collect(),
            other => panic!("golden dtype {other:?}"),
        }
    };
    GoldenFile(
        file.tensors()
            .into_iter()
            .map(|(name, view)| {
                (name, Golden { shape: view.shape().to_vec(), values: decode(&view) })
            })
            .collect(),
    )
}

pub fn fnv1a64(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// `u(name, i)` for `i` in `0..n`: uniform in `[0, 1)`.
pub fn uniform(name: &str, n: usize) -> Vec<f64> {
    let seed = fnv1a64(name.as_bytes());
    (1..=n as u64)
        .map(|i| {
            let mut z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            (z >> 40) as f64 / f64::from(1 << 24)
        })
        .collect()
}

/// The formula weight of a state-dict key.
pub fn weight(name: &str, shape: &[usize]) -> Vec<f32> {
    let value = |u: f64| match shape {
        [_, cin, kh, kw] => (2.0 * u - 1.0) * (6.0 / (cin * kh * kw) as f64).sqrt(),
        _ if name.ends_with("running_var") || name.ends_with(".weight") => 0.5 + u,
        _ => 0.2 * (2.0 * u - 1.0),
    };
    uniform(name, shape.iter().product()).into_iter().map(|u| value(u) as f32).collect()
}

/// The formula input of a shape.
pub fn input(shape: &[usize]) -> Vec<f32> {
    let sides: Vec<String> = shape.iter().map(usize::to_string).collect();
    let u = uniform(&format!("input:{}", sides.join("x")), shape.iter().product());
    u.into_iter().map(|u| (4.0 * u - 2.0) as f32).collect()
}

/// The integer test picture, with interleaved channels.
pub fn picture(height: usize, width: usize, channels: usize) -> Vec<u8> {
    let mut pixels = Vec::with_capacity(height * width * channels);
    for y in 0..height {
        for x in 0..width {
            for c in 0..channels {
                let waves = (3 * x * x + 5 * y * y + 7 * x * y + 91 * c) >> 4;
                pixels.push((waves + 40 * (((x >> 3) + (y >> 3)) & 1)) as u8);
            }
        }
    }
    pixels
}

/// The largest difference, relative to the largest expected magnitude.
pub fn relative_error(actual: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let scale = expected.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs()));
    let worst = actual
        .iter()
        .zip(expected)
        .map(|(&a, e)| (f64::from(a) - e).abs())
        .fold(0.0, |m: f64, e| if e.is_nan() { f64::INFINITY } else { m.max(e) });
    worst / scale
}

/// Compares sampled values and the statistics mean, absmean, std, min, max, l2 and probe of a tensor,
/// with a tolerance relative to its largest magnitude. Returns the largest difference of a sample.
pub fn check_node<'a>(
    values: &[f32],
    part: impl Fn(&str) -> &'a Golden,
    tolerance: f64,
    name: &str,
) -> f64 {
    let stats = &part("stats").values;
    let scale = stats[3].abs().max(stats[4].abs());
    let samples = part("idx").usize().into_iter().map(|i| f64::from(values[i]));
    let worst = samples
        .zip(&part("val").values)
        .map(|(actual, expected)| (actual - expected).abs() / scale)
        .fold(0.0, f64::max);
    assert!(worst < tolerance, "{name}: sample off by {worst:.1e}");

    let n = values.len() as f64;
    let wide = || values.iter().map(|&v| f64::from(v));
    let mean = wide().sum::<f64>() / n;
    let probe = uniform("probe", values.len());
    let actual = [
        mean,
        wide().map(f64::abs).sum::<f64>() / n,
        (wide().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt(),
        wide().fold(f64::INFINITY, f64::min),
        wide().fold(f64::NEG_INFINITY, f64::max),
        wide().map(|v| v * v).sum::<f64>().sqrt(),
        wide().zip(probe).map(|(v, u)| v * (2.0 * u - 1.0)).sum::<f64>(),
    ];
    // Sums over n values, where each value may differ by the tolerance.
    let scales = [scale, scale, scale, scale, scale, stats[5], stats[5]];
    for ((actual, expected), scale) in actual.iter().zip(stats).zip(scales) {
        assert!((actual - expected).abs() < tolerance * scale, "{name}: {actual} not {expected}");
    }
    worst
}
