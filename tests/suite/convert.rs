//! Converts weights and anomalib's checkpoints, by the library and by the example `convert` as a
//! program.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};

use burn::tensor::Device;
use nalgebra::{DMatrix, DVector};
use padim::anomalib::AnomalibCheckpoint;
use padim::embedding::{ChannelSelection, PatchEmbedder};
use padim::gaussian::GaussianModel;
use padim::preprocess::{PreprocessConfig, RegionOfInterest, Resize};
use padim::scoring::{AnomalyScorer, ScoreNormalization};
use padim::{Backbone, Detector, Error, Padim, PadimConfig, ResNet18, Result, burn, nalgebra};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors, serialize};

use crate::golden::{self, relative_error};
use crate::tensor;

fn run(program: &Path, folder: &Path, arguments: &[&str]) -> Output {
    Command::new(program).current_dir(folder).args(arguments).output().unwrap()
}

fn told(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Compares with anomalib's own checkpoint, maps, scores and labels.
#[test]
fn golden_anomalib() {
    let device = Device::flex();
    let checkpoint = AnomalibCheckpoint::read(golden::path("anomalib/padim.ckpt")).unwrap();
    assert_eq!(checkpoint.network().planes, [4, 6, 8]);
    assert_eq!(checkpoint.channels().len(), 8);
    assert_eq!(checkpoint.position_count(), 16 * 12);
    let detector = checkpoint.into_detector(&device).unwrap();
    assert_eq!(detector.input_size(), [64, 48]);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("part.padim");
    detector.save(&file).unwrap();
    let expected = golden::tensors("anomalib/expected.safetensors");
    let pixels = 64 * 48;
    for detector in [detector, Detector::load(&file, &device).unwrap()] {
        let images = (0..3).map(|i| golden::path(&format!("anomalib/{i}.png")));
        for (i, prediction) in detector.predict_batch(images).unwrap().iter().enumerate() {
            let map = prediction.anomaly_map.values();
            let error = relative_error(map, &expected["map"].values[i * pixels..][..pixels]);
            let score = relative_error(
                &[prediction.image_score, prediction.normalized_score],
                &[expected["score"].values[i], expected["normalized"].values[i]],
            );
            println!("picture {i}: map off by {error:.1e}, score by {score:.1e}");
            assert!(error < 1e-5 && score < 1e-5);
            let normalized = f64::from(prediction.normalized_score);
            assert!((normalized - expected["normalized"].values[i]).abs() < 1e-5);
            assert_eq!(prediction.is_defective, Some(expected["label"].values[i] == 1.0), "{i}");
        }
        assert!(detector.thresholds().unwrap().pixel.is_some());
    }
}

/// A state dict in anomalib's layout: tensors by their names.
#[derive(Clone)]
struct StateDict(BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

const SIDE: usize = 24;
const GRID: usize = 6;
const CHANNELS: [usize; 3] = [17, 0, 9];
const NETWORK: &str = "model.feature_extractor.feature_extractor.";

impl StateDict {
    /// The tiny network of the golden files, with a different Gaussian at each position.
    fn new() -> Self {
        let mut state = Self(BTreeMap::new());
        let bytes = std::fs::read(golden::path("loader/tiny_basic.safetensors")).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            if !name.starts_with("layer4") && !name.starts_with("fc") {
                let tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
                state.0.insert(format!("{NETWORK}{name}"), tensor);
            }
        }
        let indices = CHANNELS.iter().flat_map(|&c| (c as i64).to_le_bytes()).collect();
        state.0.insert("model.idx".into(), (Dtype::I64, vec![3], indices));
        let means = golden::uniform("means", 3 * GRID * GRID);
        state.put("model.gaussian.mean", &[3, GRID * GRID], means.iter().map(|&u| u as f32));
        let inverses = (0..GRID * GRID).flat_map(|p| {
            let root = golden::uniform(&format!("root:{p}"), 9).into_iter().map(|u| 4.0 * u - 2.0);
            let root = DMatrix::from_iterator(3, 3, root);
            let inverse = &root * root.transpose() + DMatrix::identity(3, 3) * 0.5;
            inverse.iter().map(|&v| v as f32).collect::<Vec<_>>()
        });
        state.put("model.gaussian.inv_covariance", &[GRID * GRID, 3, 3], inverses);
        state
    }

    fn put(&mut self, name: &str, shape: &[usize], values: impl IntoIterator<Item = f32>) {
        let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
        self.0.insert(name.to_owned(), (Dtype::F32, shape.to_vec(), bytes));
    }

    fn values(&self, name: &str) -> Vec<f32> {
        let bytes = self.0[name].2.chunks_exact(4);
        bytes.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn write(&self, path: &Path) {
        let views = self.0.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        std::fs::write(path, serialize(views, None).unwrap()).unwrap();
    }

    fn detector(&self, folder: &Path) -> Result<Detector> {
        let path = folder.join("state.safetensors");
        self.write(&path);
        AnomalibCheckpoint::read(&path)?.into_detector(&Device::flex())
    }
}

/// Compares with the separate steps: network, embedding, the paper's formula in f64, and scoring.
#[test]
fn a_state_dict_scores_as_its_parts() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let state = StateDict::new();
    let detector = state.detector(folder).unwrap();
    assert_eq!(detector.input_size(), [SIDE, SIDE], "a square of its positions");
    assert_eq!(detector.channel_indices(), CHANNELS);
    assert!(detector.thresholds().is_none());

    let device = Device::flex();
    let network = crate::tiny_basic();
    let network = network.load(golden::path("loader/tiny_basic.safetensors"), &device).unwrap();
    assert_eq!(detector.backbone_fingerprint(), network.fingerprint());
    let images = tensor(golden::input(&[2, 3, SIDE, SIDE]), [2, 3, SIDE, SIDE], &device);
    let selection = ChannelSelection::Indices(CHANNELS.to_vec());
    let embedder = PatchEmbedder::new(&[4, 6, 8], &selection).unwrap();
    let embedding = embedder.embed(&network.forward(images.clone()).unwrap()).unwrap();
    let embedding = crate::values(embedding);
    let (means, inverses) =
        (state.values("model.gaussian.mean"), state.values("model.gaussian.inv_covariance"));
    let positions = GRID * GRID;
    let distance = |i: usize| {
        let (image, p) = (i / positions, i % positions);
        let x = DVector::from_fn(3, |c, _| {
            let value = embedding[(image * 3 + c) * positions + p];
            f64::from(value) - f64::from(means[c * positions + p])
        });
        let inverse = inverses[p * 9..][..9].iter().map(|&v| f64::from(v));
        let inverse = DMatrix::from_iterator(3, 3, inverse);
        x.dot(&(inverse * &x)).sqrt() as f32
    };
    let distances = tensor((0..2 * positions).map(distance).collect(), [2, GRID, GRID], &device);
    let scorer = AnomalyScorer::new(PadimConfig::anomalib().scoring).unwrap();
    let expected = scorer.score(distances, [SIDE, SIDE]).unwrap();
    let actual = detector.predict_tensor(images).unwrap();
    for (actual, expected) in actual.iter().zip(&expected) {
        let map: Vec<f64> = expected.map.values().iter().map(|&v| f64::from(v)).collect();
        assert!(relative_error(actual.anomaly_map.values(), &map) < 1e-5);
        assert!((actual.image_score / expected.image_score - 1.0).abs() < 1e-5);
    }
    let path = folder.join("part.padim");
    detector.save(&path).unwrap();
    assert_eq!(Detector::load(&path, &device).unwrap().model(), detector.model());
}

#[test]
fn names_and_thresholds_stand_where_anomalib_puts_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = StateDict::new();
    for (name, value) in [
        ("_image_threshold", 12.0),
        ("_pixel_threshold", f32::NAN),
        ("image_min", 4.0),
        ("image_max", 20.0),
        ("pixel_min", 1.0),
        ("pixel_max", 21.0),
    ] {
        state.put(&format!("post_processor.{name}"), &[], [value]);
    }
    let detector = state.detector(folder.path()).unwrap();
    let around = ScoreNormalization::AroundThreshold { threshold: 12.0, min: 4.0, max: 20.0 };
    assert_eq!(detector.config().scoring.normalization, around);
    let decision = detector.thresholds().unwrap();
    let above = 12.0_f32.next_up();
    assert_eq!((decision.image, decision.pixel), (above, Some(above)));

    // Only the state dict of `PadimModel`.
    let bare = state.0.iter().map(|(name, tensor)| {
        (name.strip_prefix("model.").unwrap_or(name).to_owned(), tensor.clone())
    });
    let bare = StateDict(bare.collect()).detector(folder.path()).unwrap();
    assert_eq!(bare.model(), detector.model());
}

#[test]
fn layers_and_input_size_can_be_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let mut state = StateDict::new();
    let indices = [9_i64, 0, 3].iter().flat_map(|c| c.to_le_bytes()).collect();
    state.0.insert("model.idx".into(), (Dtype::I64, vec![3], indices));
    state.write(&path);
    let read = || AnomalibCheckpoint::read(&path).unwrap();
    let device = Device::flex();
    let oblong = read().with_input_size([12, 48]).into_detector(&device).unwrap();
    assert_eq!(oblong.model().grid(), [3, 12]);
    // Layer 2 has half the resolution of layer 1.
    let later = read().with_layers([2, 3]).into_detector(&device).unwrap();
    assert_eq!(later.input_size(), [2 * SIDE, 2 * SIDE]);
    let shallow = read().with_layers([1, 2]).into_detector(&device).unwrap();
    assert_eq!(shallow.input_size(), [SIDE, SIDE]);

    let error = read().with_input_size([32, 32]).into_detector(&device).unwrap_err().to_string();
    assert!(error.contains("[8, 8]") && error.contains("36"), "{error}");
    for layers in [vec![], vec![0], vec![2, 1], vec![4]] {
        let error = read().with_layers(layers).into_detector(&device).unwrap_err();
        assert!(matches!(error, Error::InvalidConfig { field: "layers", .. }), "{error}");
    }
    let error = read().with_layers([1]).into_detector(&device).unwrap_err();
    assert!(matches!(error, Error::InvalidConfig { .. }), "channel 9 of 4: {error}");
    assert!(read().with_input_size([0, 0]).into_detector(&device).is_err());
}

#[test]
fn malformed_state_dicts_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let inverse = "model.gaussian.inv_covariance";
    let positions = GRID * GRID;
    type Change = Box<dyn Fn(&mut StateDict)>;
    let set = |name: &'static str, place: usize, value: f32| -> Change {
        Box::new(move |state| {
            let bytes = &mut state.0.get_mut(name).unwrap().2;
            bytes[4 * place..][..4].copy_from_slice(&value.to_le_bytes());
        })
    };
    let remove = |name: &'static str| -> Change {
        Box::new(move |state| drop(state.0.remove(name).unwrap()))
    };
    let shape = |name: &'static str, shape: &'static [usize]| -> Change {
        Box::new(move |state| {
            let values = vec![1.0; shape.iter().product()];
            state.put(name, shape, values);
        })
    };
    let index = |index: i64| -> Change {
        Box::new(move |state| {
            let bytes = [index, 1, 2].iter().flat_map(|i| i.to_le_bytes()).collect();
            state.0.insert("model.idx".into(), (Dtype::I64, vec![3], bytes));
        })
    };
    let cases: Vec<(Change, &str)> = vec![
        (remove(inverse), "it is no PaDiM of anomalib"),
        (remove("model.gaussian.mean"), "`gaussian.mean`"),
        (remove("model.idx"), "`idx`"),
        (shape("model.idx", &[3]), "indices"),
        (index(-1), "indices"),
        (index(18), "18"),
        (shape(inverse, &[0]), "not been fitted"),
        (shape(inverse, &[0, 3, 3]), "not been fitted"),
        (shape(inverse, &[36, 3, 2]), "gaussian.inv_covariance"),
        (shape("model.gaussian.mean", &[36, 3]), "gaussian.mean"),
        (set(inverse, 4, f32::NAN), "gaussian.inv_covariance"),
        (set("model.gaussian.mean", 0, f32::INFINITY), "gaussian.mean"),
        (set(inverse, 9 * (positions - 1) + 1, 999.0), "not symmetric"),
        (set(inverse, 9 * 7, -1.0), "position 7"),
        (
            Box::new(move |state| {
                state.put("model.gaussian.mean", &[3, 7], vec![0.0; 21]);
                state.put(inverse, &[7, 3, 3], vec![1.0; 63]);
            }),
            "no square",
        ),
        (remove("model.feature_extractor.feature_extractor.conv1.weight"), "conv1.weight"),
        (remove("model.feature_extractor.feature_extractor.bn1.bias"), "bn1.bias"),
        (shape("model.feature_extractor.feature_extractor.extra.weight", &[1]), "extra.weight"),
        (shape("other.gaussian.inv_covariance", &[1, 1, 1]), "it is no PaDiM"),
    ];
    for (number, (change, word)) in cases.iter().enumerate() {
        let mut state = StateDict::new();
        change(&mut state);
        let error = state.detector(folder.path()).unwrap_err().to_string();
        assert!(error.contains(word), "case {number}, {word}: {error}");
    }
    for (name, bytes) in [("empty", b"".as_slice()), ("text", b"no checkpoint at all")] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        assert!(AnomalibCheckpoint::read(&path).is_err(), "{name}");
    }
    let missing = AnomalibCheckpoint::read(folder.path().join("none.ckpt")).unwrap_err();
    assert!(matches!(missing, Error::Io { .. }), "{missing}");
}

#[test]
fn gaussians_must_go_with_the_network() {
    let device = Device::flex();
    let padim = |channels: Vec<usize>, resize| {
        let preprocess = PreprocessConfig::default().with_resize(resize).with_crop(None);
        let channels = ChannelSelection::Indices(channels);
        let config = PadimConfig::default().with_preprocess(preprocess).with_channels(channels);
        Padim::new(config, ResNet18::untrained(0, &device).unwrap()).unwrap()
    };
    let model = |grid: [usize; 2]| {
        let count = grid[0] * grid[1];
        let inverses = [2.0, 0.5, 0.5, 1.0].repeat(count);
        GaussianModel::from_inverses(grid, &vec![0.5; 2 * count], &inverses).unwrap()
    };
    let refused = |padim: Padim, grid, size| {
        let error = padim.with_gaussians(model(grid), size).unwrap_err();
        assert!(matches!(error, Error::ShapeMismatch { .. }), "{error}");
    };
    let square = Resize::square(32);
    padim(vec![3, 400], square).with_gaussians(model([8, 8]), [32, 32]).unwrap();
    padim(vec![3, 400], Resize::ShortSide(32)).with_gaussians(model([8, 10]), [32, 40]).unwrap();
    refused(padim(vec![3, 400], square), [8, 8], [32, 31]);
    refused(padim(vec![3, 400], square), [8, 7], [32, 32]);
    refused(padim(vec![3, 400, 2], square), [8, 8], [32, 32]);
    refused(padim(vec![3, 400], Resize::ShortSide(32)), [8, 8], [0, 0]);
    let region =
        RegionOfInterest::polygon([32, 32], &[[0.0, 0.0], [32.0, 0.0], [0.0, 32.0]]).unwrap();
    refused(padim(vec![3, 400], square).with_region(&region).unwrap(), [8, 8], [32, 32]);
}

#[test]
fn pickled_code_is_not_executed() {
    let program = crate::example("convert");
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = |name: &str| golden::path(name).display().to_string();
    // Malicious code outside the tensors is ignored.
    let checkpoint = file("anomalib/malicious.pt");
    let arguments = ["anomalib", "--checkpoint", &checkpoint, "--out", "part.padim"];
    told(&run(&program, folder, &arguments));
    let detector = Detector::load(folder.join("part.padim"), &Device::flex()).unwrap();
    assert_eq!(detector.model().means()[..4], [0.0, 1.0, 0.1, 1.1]);
    // Malicious code in place of a tensor: the tensor is missing.
    let checkpoint = file("anomalib/malicious_mean.pt");
    let arguments = ["anomalib", "--checkpoint", &checkpoint, "--out", "other.padim"];
    let output = run(&program, folder, &arguments);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("gaussian.mean"), "{error}");

    let files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(files, ["part.padim"], "nothing has run, and nothing half-written is left");
}

#[test]
fn the_example_converts_weights() {
    let program = crate::example("convert");
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let device = Device::flex();
    // ResNet18 with the formula's weights, including the classifier.
    let mut state = StateDict(BTreeMap::new());
    let mut planes_in = 64;
    let mut convolution = |name: &str, norm: &str, shape: [usize; 4]| {
        let name = format!("{name}.weight");
        state.put(&name, &shape, golden::weight(&name, &shape));
        for part in ["weight", "bias", "running_mean", "running_var"] {
            let name = format!("{norm}.{part}");
            state.put(&name, &shape[..1], golden::weight(&name, &shape[..1]));
        }
    };
    convolution("conv1", "bn1", [64, 3, 7, 7]);
    for (layer, planes) in [(1, 64), (2, 128), (3, 256)] {
        for block in 0..2 {
            let prefix = format!("layer{layer}.{block}");
            let input = if block == 0 { planes_in } else { planes };
            let names = |n| (format!("{prefix}.conv{n}"), format!("{prefix}.bn{n}"));
            let (conv, norm) = names(1);
            convolution(&conv, &norm, [planes, input, 3, 3]);
            let (conv, norm) = names(2);
            convolution(&conv, &norm, [planes, planes, 3, 3]);
            if planes != input {
                let (conv, norm) =
                    (format!("{prefix}.downsample.0"), format!("{prefix}.downsample.1"));
                convolution(&conv, &norm, [planes, input, 1, 1]);
            }
        }
        planes_in = planes;
    }
    state.put("fc.weight", &[1000, 512], vec![0.0; 512_000]);
    state.put("fc.bias", &[1000], vec![0.0; 1000]);
    state.write(&folder.join("whole.safetensors"));

    let source = ResNet18::load(folder.join("whole.safetensors"), &device).unwrap();
    let convert = |out: &str, more: &[&str]| {
        let arguments = ["weights", "--weights", "whole.safetensors", "--out", out];
        run(&program, folder, &[&arguments, more].concat())
    };
    let text = told(&convert("whole32.safetensors", &[]));
    assert!(
        text.contains("torchvision resnet18, layers [1, 2, 3] in f32, from whole.safetensors"),
        "{text}"
    );
    assert!(text.contains("the same network as the source"), "{text}");
    assert!(text.contains(&source.fingerprint().to_string()), "{text}");
    let converted = ResNet18::load(folder.join("whole32.safetensors"), &device).unwrap();
    assert_eq!(converted.fingerprint(), source.fingerprint());

    let text = told(&convert("half.safetensors", &["--precision", "f16"]));
    let converted = ResNet18::load(folder.join("half.safetensors"), &device).unwrap();
    assert!(text.contains(&format!("fingerprint {}", converted.fingerprint())), "{text}");
    assert_ne!(converted.fingerprint(), source.fingerprint());
    for layer in ["layer1", "layer2", "layer3"] {
        let line = text.lines().find(|line| line.starts_with(layer)).unwrap();
        let change: f64 = line.split_whitespace().nth(5).unwrap().parse().unwrap();
        assert!(change > 1e-6 && change < 5e-3, "{line}");
    }
    let size = |name: &str| std::fs::metadata(folder.join(name)).unwrap().len() as f64;
    assert!(size("half.safetensors") < 0.52 * size("whole32.safetensors"));
    assert!(size("whole32.safetensors") < size("whole.safetensors") - 4.0 * 512_000.0);

    let shallow = told(&convert("shallow.safetensors", &["--maps", "1"]));
    assert!(shallow.contains("layers [1]"), "{shallow}");
    assert!(ResNet18::load(folder.join("shallow.safetensors"), &device).is_err());
    let wrong = convert("wrong.safetensors", &["--backbone", "wide_resnet50"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("layer1.0.conv1.weight"), "{wrong:?}");
    assert!(!folder.join("wrong.safetensors").exists());
}

#[test]
fn the_example_converts_anomalibs_checkpoint() {
    let program = crate::example("convert");
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let checkpoint = golden::path("anomalib/padim.ckpt").display().to_string();
    let convert = |more: &[&str]| {
        let arguments = ["anomalib", "--checkpoint", &checkpoint, "--out", "part.padim"];
        run(&program, folder, &[&arguments, more].concat())
    };
    let expected = golden::tensors("anomalib/expected.safetensors");
    for (storage, tolerance) in [("triangle-f32", 1e-5), ("triangle-f16", 1e-3), ("full", 1e-5)] {
        let text = told(&convert(&["--storage", storage]));
        assert!(
            text.contains("AroundThreshold") && text.contains("thresholds: Thresholds"),
            "{text}"
        );
        assert!(text.contains(storage), "{text}");
        let detector = Detector::load(folder.join("part.padim"), &Device::flex()).unwrap();
        let prediction = detector.predict(golden::path("anomalib/1.png")).unwrap();
        let error = relative_error(&[prediction.image_score], &expected["score"].values[1..2]);
        println!("{storage}: score off by {error:.1e}");
        assert!(error < tolerance, "{storage}: {error:.1e}");
        assert_eq!(prediction.is_defective, Some(true));
    }
    let output = convert(&["--input-size", "64,64"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("input size") && error.contains("192"), "{error}");
}
