//! `golden/e2e_tiny`: from images to scores with the tiny network.

use padim::embedding::ChannelSelection;
use padim::gaussian::{GaussianConfig, Precision, Storage};
use padim::{Padim, PadimConfig};

use crate::golden::{self, relative_error};
use crate::{devices, tensor};

#[test]
fn golden_e2e_tiny() {
    let file = golden::tensors("e2e_tiny.safetensors");
    let side = 64;
    let image_len = 3 * side * side;
    let train = golden::input(&[12, 3, side, side]);
    let mut test = golden::input(&[2, 3, side, side]);
    for c in 0..3 {
        for y in 20..30 {
            for x in 20..30 {
                test[((3 + c) * side + y) * side + x] += 3.0;
            }
        }
    }
    for device in devices() {
        let image = |values: &[f32]| tensor(values.to_vec(), [3, side, side], &device);
        let backbone = crate::tiny_basic()
            .load(golden::path("loader/tiny_basic.safetensors"), &device)
            .unwrap();
        let config = PadimConfig::default()
            .with_channels(ChannelSelection::Indices(file["idx"].usize()))
            .with_gaussian(
                GaussianConfig::default().with_storage(Storage::Triangle(Precision::F32)),
            )
            .with_batch_size(5);
        let padim = Padim::new(config, backbone).unwrap();
        let detector = padim.fit(train.chunks(image_len).map(image)).unwrap();

        let model = detector.model();
        assert!(relative_error(model.means(), &file["mean"].values) < 1e-5);
        let inverse = &file["inv_first4"];
        for position in 0..4 {
            let actual = model.inverse_covariance(position).unwrap();
            let actual: Vec<f32> = actual.iter().map(|&v| v as f32).collect();
            let error = relative_error(&actual, &inverse.values[position * 64..][..64]);
            // The inverse magnifies the f32 rounding of the features; the distances below do not.
            assert!(error < 1e-4, "inverse at {position}: {error:.1e}");
        }

        let predictions = detector.predict_batch(test.chunks(image_len).map(image)).unwrap();
        let scores: Vec<f32> = predictions.iter().map(|p| p.image_score).collect();
        let score_error = relative_error(&scores, &file["score"].values);
        let map = predictions[1].anomaly_map.values();
        let map_error = relative_error(map, &file["blurred_image1"].values);
        println!("{device:?}: score off by {score_error:.1e}, map by {map_error:.1e}");
        assert!(score_error < 1e-5 && map_error < 1e-5);
    }
}
