//! `golden/embedding`, `golden/gaussian` and `golden/maps`.

use padim::backbone::FeatureMaps;
use padim::embedding::{ChannelSelection, PatchEmbedder};
use padim::gaussian::{
    CovarianceDivisor, GaussianConfig, GaussianEstimator, GaussianModel, Precision, Storage,
};
use padim::scoring::{AnomalyMap, AnomalyScorer, Blur, Border, ScoringConfig, Upsampling};

use crate::golden::{self, relative_error};
use crate::{devices, tensor, values};

#[test]
fn golden_embedding_maps() {
    let file = golden::tensors("embedding.safetensors");
    for case in ["even", "odd", "ratio"] {
        for device in devices() {
            let maps = ["l1", "l2", "l3"].map(|layer| {
                let golden = &file[&format!("{case}/{layer}")];
                tensor::<4>(golden.f32(), golden.dims(), &device)
            });
            let indices = file[&format!("{case}/idx")].usize();
            let selection = ChannelSelection::Indices(indices.clone());
            let embedder = PatchEmbedder::new(&[4, 6, 8], &selection).unwrap();
            assert_eq!(embedder.indices(), indices);
            let embedding = embedder.embed(&FeatureMaps::new(maps.to_vec()).unwrap()).unwrap();
            let expected = &file[&format!("{case}/out")];
            assert_eq!(embedding.dims(), expected.dims());
            assert!(values(embedding) == expected.f32(), "{case} on {device:?}");
        }
    }
}

#[test]
fn golden_embedding_draws() {
    let file = golden::tensors("embedding.safetensors");
    for (total, count) in [(448, 100), (1792, 550)] {
        let python = ChannelSelection::Random { count, seed: 1024 }.indices(total).unwrap();
        assert_eq!(python, file[&format!("idx_python_1024_{total}_{count}")].usize());
        let torch = ChannelSelection::RandomTorch { count, seed: 0 }.indices(total).unwrap();
        assert_eq!(torch, file[&format!("idx_torch_0_{total}_{count}")].usize());
    }
}

/// Fits and scores a case of the golden file: `x [n, c, p]`, `q [m, c, p]`.
fn fit(file: &golden::GoldenFile, case: &str, config: GaussianConfig) -> (GaussianModel, Vec<f32>) {
    let (x, q) = (&file[&format!("{case}/x")], &file[&format!("{case}/q")]);
    let [n, c, p] = x.dims();
    let device = devices().remove(0);
    let mut estimator = GaussianEstimator::new(config, c, [1, p]).unwrap();
    // Batches of different sizes, so that merging is also checked.
    let mut first = 0;
    while first < n {
        let batch = 3.min(n - first);
        let part = x.f32()[first * c * p..(first + batch) * c * p].to_vec();
        estimator.update(tensor(part, [batch, c, 1, p], &device)).unwrap();
        first += batch;
    }
    let model = estimator.finish().unwrap();
    let [m, _, _] = q.dims();
    let distance = model.mahalanobis_distance(tensor(q.f32(), [m, c, 1, p], &device)).unwrap();
    (model, values(distance))
}

/// The largest relative error of an element, for distances.
fn worst_relative(actual: &[f32], expected: &[f64]) -> f64 {
    let error = |(&a, e): (&f32, &f64)| (f64::from(a) - e).abs() / e.abs();
    actual.iter().zip(expected).map(error).fold(0.0, f64::max)
}

#[test]
fn golden_gaussian() {
    let file = golden::tensors("gaussian.safetensors");
    for case in ["full", "rankdef", "n2", "scaled"] {
        let [n, c, _] = file[&format!("{case}/x")].dims();
        let mut storages = vec![Storage::FullInverse, Storage::Triangle(Precision::F32)];
        if n <= c {
            storages.push(Storage::LowRank(Precision::F32));
        }
        for storage in storages {
            golden_gaussian_case(&file, case, storage);
        }
    }
}

fn golden_gaussian_case(file: &golden::GoldenFile, case: &str, storage: Storage) {
    let paper = || GaussianConfig::default().with_storage(storage);
    let (model, distances) = fit(file, case, paper());
    let expect = |part: &str| &file[&format!("{case}/{part}")];
    let error = worst_relative(&distances, &expect("dist").values);
    println!("{case} as {storage}: distance off by {error:.1e}");
    assert!(error < 1e-5, "{case} as {storage}: distance off by {error:.1e}");
    assert!(relative_error(model.means(), &expect("mean").values) < 1e-6, "{case}");

    let d = model.dimension();
    for position in 0..model.grid()[1] {
        let matrices = [
            ("cov", model.covariance(position).unwrap()),
            ("inv", model.inverse_covariance(position).unwrap()),
            ("chol_lower", model.covariance(position).unwrap().cholesky().unwrap().l()),
        ];
        for (part, matrix) in matrices {
            let expected = &expect(part).values[position * d * d..(position + 1) * d * d];
            let actual: Vec<f32> = matrix.transpose().iter().map(|&v| v as f32).collect();
            let error = relative_error(&actual, expected);
            // The covariance is not stored. Inverting the stored matrix magnifies its rounding.
            let kept = matches!(storage, Storage::Triangle(_)) || part == "inv";
            let tolerance = if kept { 1e-5 } else { 1e-4 };
            assert!(error < tolerance, "{case} {part} {position} as {storage}: {error:.1e}");
        }
    }

    let anomalib = paper().with_epsilon(0.01 + 1e-5);
    let (_, distances) = fit(file, case, anomalib);
    assert!(worst_relative(&distances, &expect("dist_anomalib_eps").values) < 1e-5, "{case}");
    let biased = paper().with_divisor(CovarianceDivisor::Biased);
    let (_, distances) = fit(file, case, biased);
    assert!(worst_relative(&distances, &expect("dist_biased_N").values) < 1e-5, "{case}");
}

/// Scores one map `[h, w]` and enlarges it to `size`.
fn score(map: &golden::Golden, size: [usize; 2], config: ScoringConfig) -> AnomalyMap {
    let [h, w] = map.dims();
    let distances = tensor(map.f32(), [1, h, w], &devices()[0]);
    AnomalyScorer::new(config).unwrap().score(distances, size).unwrap().remove(0).map
}

fn config(upsampling: Upsampling, blur: Option<(f64, Border)>) -> ScoringConfig {
    let blur = blur.map(|(sigma, border)| Blur { sigma, border });
    ScoringConfig::default().with_upsampling(upsampling).with_blur(blur)
}

#[test]
fn golden_maps_small() {
    use Border::{EdgeNotRepeated, EdgeRepeated};
    use Upsampling::{Bicubic, Bilinear};
    let file = golden::tensors("maps.safetensors");
    for size in [56, 25] {
        let cases = [
            ("bilinear", config(Bilinear, None)),
            ("bicubic_am075", config(Bicubic, None)),
            ("blur_scipy", config(Bilinear, Some((4.0, EdgeRepeated)))),
            ("blur_reflect", config(Bilinear, Some((4.0, EdgeNotRepeated)))),
        ];
        for (name, config) in cases {
            let map = score(&file["small/in"], [size, size], config);
            let expected = &file[&format!("small/{name}_{size}")];
            let error = relative_error(map.values(), &expected.values);
            assert!(error < 1e-6, "{name}_{size}: {error:.1e}");
        }
    }
}

#[test]
fn golden_maps_smaller_than_the_blur() {
    let file = golden::tensors("maps.safetensors");
    for (name, sigma) in [("", 4.0), ("_s0.5", 0.5), ("_s1", 1.0), ("_s2.5", 2.5)] {
        let blur = config(Upsampling::Bilinear, Some((sigma, Border::EdgeRepeated)));
        let map = score(&file["tiny/in"], [9, 7], blur);
        let error = relative_error(map.values(), &file[&format!("tiny/blur_scipy{name}")].values);
        assert!(error < 1e-6, "sigma {sigma}: {error:.1e}");
    }
}

#[test]
fn golden_maps_full_size() {
    let file = golden::tensors("maps.safetensors");
    let grid = golden::Golden {
        shape: vec![56, 56],
        values: golden::input(&[1, 1, 56, 56]).iter().map(|&v| f64::from(v.abs())).collect(),
    };
    let cases = [
        ("up", None),
        ("blur_scipy", Some((4.0, Border::EdgeRepeated))),
        ("blur_reflect", Some((4.0, Border::EdgeNotRepeated))),
    ];
    for ((name, blur), max) in cases.into_iter().zip(&file["full/max"].values[1..]) {
        let map = score(&grid, [224, 224], config(Upsampling::Bilinear, blur));
        let samples = file[&format!("full/{name}/idx")].usize();
        let samples: Vec<f32> = samples.into_iter().map(|i| map.values()[i]).collect();
        let error = relative_error(&samples, &file[&format!("full/{name}/val")].values);
        assert!(error < 1e-6, "{name}: {error:.1e}");
        assert!((f64::from(map.max()) - max).abs() < 1e-5, "{name}");
    }
}
