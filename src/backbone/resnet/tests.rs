use super::*;
use crate::golden::{self, relative_error};
use crate::host::{index_tensor, to_device, to_host};

/// The devices of the enabled backend features.
fn devices() -> Vec<Device> {
    vec![
        Device::flex(),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)]
        Device::ndarray(),
    ]
}

/// Tolerance relative to the largest magnitude of a golden tensor. Torch itself in f32 differs by up
/// to 2e-6.
const TOLERANCE: f64 = 1e-5;

/// All tensors of a torchvision checkpoint, by formula. `identity` names a batch norm to replace by the
/// identity.
fn formula_checkpoint(config: &ResNetConfig, identity: Option<&str>) -> Checkpoint {
    let (stem, stages) = config.plan();
    let blocks = stages.into_iter().flatten();
    let sites = blocks.flat_map(|b| b.branch.into_iter().chain(b.downsample));
    let mut tensors = Vec::new();
    for site in std::iter::once(stem).chain(sites) {
        let channels = [site.shape[0]];
        let norm = site.norm.unwrap().name;
        let name = format!("{}.weight", site.name);
        let values = golden::weight(&name, &site.shape);
        tensors.push((name, site.shape.to_vec(), values));
        for part in ["weight", "bias", "running_mean", "running_var"] {
            let name = format!("{norm}.{part}");
            let values = match part {
                _ if identity != Some(&norm) => golden::weight(&name, &channels),
                "weight" => vec![1.0; channels[0]],
                "running_var" => vec![1.0 - 1e-5; channels[0]],
                _ => vec![0.0; channels[0]],
            };
            tensors.push((name, channels.to_vec(), values));
        }
    }
    Checkpoint::from_f32(tensors)
}

/// All intermediate results of the network, by their names in the golden file.
fn nodes(network: &ResNet, conv1: &ResNet, input: Tensor<4>) -> Vec<(String, Tensor<4>)> {
    let stem = relu(network.trunk.stem.forward(input.clone()));
    let mut features = network.trunk.pool.forward(stem.clone());
    let mut nodes = vec![
        ("conv1".to_owned(), conv1.trunk.stem.forward(input)),
        ("stem_relu".to_owned(), stem),
        ("maxpool".to_owned(), features.clone()),
    ];
    for (number, blocks) in (1..).zip(&network.trunk.stages) {
        for (i, block) in blocks.iter().enumerate() {
            features = block.forward(features);
            nodes.push((format!("layer{number}.{i}"), features.clone()));
        }
        nodes.push((format!("layer{number}"), features.clone()));
    }
    nodes
}

fn check_backbone(config: ResNetConfig, file: &str) {
    let file = golden::tensors(file);
    for device in devices() {
        let build = |identity| {
            let mut checkpoint = formula_checkpoint(&config, identity);
            let network = network::build(&config, &mut checkpoint, &device).unwrap();
            checkpoint.finish().unwrap();
            network
        };
        let (network, conv1) = (build(None), build(Some("bn1")));
        let (mut worst, mut engine): (f64, f64) = (0.0, 0.0);
        for shape in [[1, 3, 224, 224], [2, 3, 64, 64], [1, 3, 97, 131]] {
            let input = to_device(golden::input(&shape), shape, &device);
            let prefix = shape.map(|n| n.to_string()).join("x");
            for (node, tensor) in nodes(&network, &conv1, input.clone()) {
                let part = |part: &str| &file[&format!("{prefix}/{node}/{part}")];
                assert_eq!(tensor.dims().to_vec(), part("shape").usize(), "{prefix} {node}");
                let values = to_host(tensor).unwrap();
                let name = format!("{prefix} {node}");
                worst = worst.max(golden::check_node(&values, part, TOLERANCE, &name));
            }
            // The public function gives the same maps; on Burn, exactly the same.
            let maps = network.forward(input.clone()).unwrap();
            let on_burn = FeatureMaps::new(network.forward_on_burn(input.clone())).unwrap();
            let traced = nodes(&network, &conv1, input);
            let layers = maps.maps().iter().zip(on_burn.maps());
            for ((map, on_burn), name) in layers.zip(["layer1", "layer2", "layer3"]) {
                let (_, expected) = traced.iter().find(|(node, _)| node == name).unwrap();
                let same = to_host(on_burn.clone()).unwrap() == to_host(expected.clone()).unwrap();
                assert!(same, "{name} differs");
                let part = |part: &str| &file[&format!("{prefix}/{name}/{part}")];
                let values = to_host(map.clone()).unwrap();
                let name = format!("{prefix} {name} by the engine");
                engine = engine.max(golden::check_node(&values, part, TOLERANCE, &name));
            }
        }
        println!(
            "{device:?}: worst error {worst:.1e} of the largest magnitude; engine {engine:.1e}"
        );
    }
}

#[test]
fn golden_backbone_r18() {
    check_backbone(crate::backbone::ResNet18::config(), "backbone_r18.safetensors");
}

#[test]
fn golden_backbone_wr50() {
    check_backbone(crate::backbone::WideResNet50::config(), "backbone_wr50.safetensors");
}

#[test]
fn golden_backbone_parameters_are_torchvisions() {
    let meta = golden::json("backbone.json");
    for (arch, config) in [
        ("r18", crate::backbone::ResNet18::config()),
        ("wr50", crate::backbone::WideResNet50::config()),
    ] {
        let mut checkpoint = formula_checkpoint(&config, None);
        for (name, shape) in meta[arch]["params"].as_object().unwrap() {
            let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
            if !name.ends_with("num_batches_tracked") {
                let values = checkpoint.take(name, &shape).unwrap();
                if let Some(first) = meta[arch]["weight_checks"].get(name) {
                    let first: Vec<f64> = serde_json::from_value(first.clone()).unwrap();
                    assert!(relative_error(&values[..3], &first) < 1e-12, "{name}");
                }
            }
        }
        checkpoint.finish().unwrap();
    }
}

fn tiny(block: ResNetBlock) -> ResNetConfig {
    let (planes, base_width) = match block {
        ResNetBlock::Basic => ([4, 6, 8], 64),
        ResNetBlock::Bottleneck => ([2, 3, 4], 128),
    };
    let blocks = [2, 2, 2];
    ResNetConfig { block, stem_channels: 4, blocks, planes, base_width, layers: vec![1, 2, 3] }
}

#[test]
fn golden_tiny_networks_from_every_container() {
    let basic = [
        "tiny_basic.safetensors",
        "tiny_basic_zip.pth",
        "tiny_basic_legacy.pth",
        "tiny_basic_wrapped_zip.pth",
    ];
    let cases = basic
        .map(|file| (tiny(ResNetBlock::Basic), file, "tiny_basic_out.safetensors"))
        .into_iter()
        .chain([(
            tiny(ResNetBlock::Bottleneck),
            "tiny_bottleneck.safetensors",
            "tiny_bottleneck_out.safetensors",
        )]);
    for (config, weights, outputs) in cases {
        let outputs = golden::tensors(outputs);
        for device in devices() {
            let weights = golden::path("loader").join(weights);
            let network = config.load(&weights, &device).unwrap();
            for shape in [[2, 3, 45, 37], [1, 3, 32, 32]] {
                let maps =
                    network.forward(to_device(golden::input(&shape), shape, &device)).unwrap();
                for (layer, map) in (1..).zip(maps.maps()) {
                    let key = format!("{}/layer{layer}", shape.map(|n| n.to_string()).join("x"));
                    let expected = &outputs[&key];
                    assert_eq!(map.dims(), expected.dims(), "{key}");
                    let error = relative_error(&to_host(map.clone()).unwrap(), &expected.values);
                    assert!(error < TOLERANCE, "{weights:?} {key} {device:?}: {error:.1e}");
                }
            }
        }
    }
}

#[test]
fn the_same_weights_have_the_same_fingerprint_whatever_the_container() {
    let device = Device::flex();
    let config = tiny(ResNetBlock::Basic);
    let load = |file: &str| config.load(golden::path("loader").join(file), &device).unwrap();
    let one = load("tiny_basic.safetensors");
    assert_eq!(one.fingerprint(), load("tiny_basic_legacy.pth").fingerprint());
    assert_ne!(one.fingerprint(), config.untrained(1, &device).unwrap().fingerprint());
    let untrained = |seed| config.untrained(seed, &device).unwrap().fingerprint();
    assert_eq!(untrained(1), untrained(1));
    assert_ne!(untrained(1), untrained(2));
}

#[test]
fn a_snapshot_builds_the_same_network() {
    let device = Device::flex();
    let config = tiny(ResNetBlock::Bottleneck).with_layers([1, 3]);
    let network = config.untrained(3, &device).unwrap();
    let snapshot = network.snapshot().unwrap().unwrap();
    let again = snapshot.build(&device).unwrap();
    assert_eq!(network.fingerprint(), again.fingerprint());
    assert_eq!(network.layers(), again.layers());
}

#[test]
fn fewer_layers_are_the_same_maps_and_need_no_more_weights() {
    let device = Device::flex();
    let config = tiny(ResNetBlock::Basic);
    let weights = golden::path("loader/tiny_basic.safetensors");
    let input = to_device(golden::input(&[1, 3, 32, 32]), [1, 3, 32, 32], &device);
    let all = config.load(&weights, &device).unwrap().forward(input.clone()).unwrap();
    for layers in [vec![1], vec![2], vec![1, 3]] {
        let network = config.clone().with_layers(layers.clone()).load(&weights, &device).unwrap();
        assert_eq!(network.layers().len(), layers.len());
        let some = network.forward(input.clone()).unwrap();
        for ((map, info), layer) in some.maps().iter().zip(network.layers()).zip(layers) {
            assert_eq!([info.channels, 32 / info.stride], map.dims()[1..3]);
            let expected = to_host(all.maps()[layer - 1].clone()).unwrap();
            assert_eq!(to_host(map.clone()).unwrap(), expected);
        }
    }
    for layers in [vec![], vec![0], vec![4], vec![2, 1], vec![1, 1]] {
        assert!(config.clone().with_layers(layers).untrained(0, &device).is_err());
    }
}

#[test]
fn a_bottleneck_without_width_is_refused() {
    let config = ResNetConfig { planes: [1, 1, 1], base_width: 1, ..tiny(ResNetBlock::Bottleneck) };
    assert!(matches!(config.untrained(0, &Device::flex()), Err(Error::InvalidConfig { .. })));
}

#[test]
fn golden_loader_rejects() {
    let device = Device::flex();
    let mut rejected = 0;
    for entry in std::fs::read_dir(golden::path("loader")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("reject_") {
            let error = tiny(ResNetBlock::Basic).load(&path, &device).unwrap_err();
            println!("{}: {error}", path.file_name().unwrap().display());
            // A pickled object is parsed as data; such a file just lacks the tensors.
            let refused = matches!(error, Error::Weights { .. } | Error::MissingTensor { .. });
            assert!(refused, "{error}");
            rejected += 1;
        }
    }
    assert_eq!(rejected, 5);
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let device = Device::flex();
    let config = tiny(ResNetBlock::Basic);
    let tensors = || formula_checkpoint(&config, None);
    let refuse = |mut checkpoint: Checkpoint| {
        let built = network::build(&config, &mut checkpoint, &device);
        built.and_then(|_| checkpoint.finish()).unwrap_err().to_string()
    };

    let mut missing = tensors();
    missing.discard("layer2.1.bn1.bias");
    assert!(refuse(missing).contains("lack the tensor `layer2.1.bn1.bias`"));

    let mut extra = tensors();
    extra.insert("layer2.2.conv1.weight", "F32", &[1], vec![0; 4]);
    assert!(refuse(extra).contains("`layer2.2.conv1.weight`"));

    let mut shape = tensors();
    shape.insert("bn1.weight", "F32", &[5], vec![0; 20]);
    assert!(refuse(shape).contains("`bn1.weight` has shape [5], the network needs [4]"));

    let mut dtype = tensors();
    dtype.insert("bn1.weight", "F64", &[4], vec![0; 32]);
    assert!(refuse(dtype).contains("`bn1.weight` has data type F64"));

    let mut nan = tensors();
    nan.insert("bn1.bias", "F32", &[4], f32::NAN.to_le_bytes().repeat(4));
    assert!(refuse(nan).contains("values in the tensor `bn1.bias`"));

    let mut negative = tensors();
    negative.insert("bn1.running_var", "F32", &[4], (-1.0_f32).to_le_bytes().repeat(4));
    assert!(refuse(negative).contains("`conv1`"));
}

#[test]
fn input_that_is_no_rgb_batch_is_refused() {
    let network = tiny(ResNetBlock::Basic).untrained(0, &Device::flex()).unwrap();
    let grey = Tensor::zeros([1, 1, 32, 32], &Device::flex());
    assert!(matches!(network.forward(grey), Err(Error::ShapeMismatch { .. })));
    let dot = network.forward(Tensor::zeros([1, 3, 1, 1], &Device::flex())).unwrap();
    assert_eq!(dot.maps()[2].dims(), [1, 8, 1, 1]);
}

/// The largest difference between the same maps, relative to their largest value.
fn difference(some: &FeatureMaps, others: &FeatureMaps) -> f64 {
    let pairs = some.maps().iter().zip(others.maps());
    pairs
        .map(|(some, other)| {
            assert_eq!(some.dims(), other.dims());
            let expected: Vec<f64> =
                to_host(other.clone()).unwrap().into_iter().map(f64::from).collect();
            relative_error(&to_host(some.clone()).unwrap(), &expected)
        })
        .fold(0.0, f64::max)
}

fn bits(maps: &FeatureMaps) -> Vec<Vec<f32>> {
    maps.maps().iter().map(|map| to_host(map.clone()).unwrap()).collect()
}

#[test]
fn the_engine_computes_what_burn_does_whatever_the_batch_and_the_threads() {
    let device = Device::flex();
    let middling = |block, planes, base_width| ResNetConfig {
        block,
        stem_channels: 40,
        blocks: [2, 1, 2],
        planes,
        base_width,
        layers: vec![1, 2, 3],
    };
    let configs = [
        middling(ResNetBlock::Basic, [40, 33, 70], 64),
        middling(ResNetBlock::Bottleneck, [9, 17, 20], 128),
    ];
    for (config, size) in configs.iter().flat_map(|c| [[65, 47], [32, 96], [7, 3]].map(|s| (c, s)))
    {
        for layers in [vec![1, 2, 3], vec![2], vec![1, 3]] {
            let network = config.clone().with_layers(layers).untrained(5, &device).unwrap();
            let [height, width] = size;
            let shape = [5, 3, height, width];
            let input = to_device(golden::input(&shape), shape, &device);
            let on_burn = FeatureMaps::new(network.forward_on_burn(input.clone())).unwrap();
            let maps = network.forward(input.clone()).unwrap();
            let error = difference(&maps, &on_burn);
            assert!(error < 1e-5, "{config:?} {size:?}: {error:e}");
            for threads in [1, 2, 3, 4] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let together = pool.install(|| network.forward(input.clone())).unwrap();
                assert_eq!(bits(&together), bits(&maps), "{threads} threads");
                let alone = pool.install(|| network.forward(input.clone().narrow(0, 3, 1)));
                let of_batch = maps.maps().iter().map(|map| map.clone().narrow(0, 3, 1)).collect();
                assert_eq!(bits(&alone.unwrap()), bits(&FeatureMaps::new(of_batch).unwrap()));
            }
        }
    }
}

#[test]
fn chosen_channels_are_those_of_the_whole_network_on_the_engine_and_on_burn() {
    for device in devices() {
        for block in [ResNetBlock::Basic, ResNetBlock::Bottleneck] {
            let whole = tiny(block).untrained(2, &device).unwrap();
            let chosen = [vec![3, 0], vec![1], vec![7, 2, 5]];
            for network in [&whole, &tiny(block).untrained(2, &device).unwrap().without_engine()] {
                let some = network.select(&chosen).unwrap();
                let names: Vec<usize> = some.layers().iter().map(|layer| layer.channels).collect();
                assert_eq!(names, [2, 1, 3]);
                assert_eq!(some.fingerprint(), whole.fingerprint());
                for shape in [[1, 3, 32, 32], [3, 3, 45, 37]] {
                    let input = to_device(golden::input(&shape), shape, &device);
                    let all = network.forward(input.clone()).unwrap();
                    let expected = all.maps().iter().zip(&chosen).map(|(map, channels)| {
                        map.clone().select(1, index_tensor(channels, &device))
                    });
                    let expected = FeatureMaps::new(expected.collect()).unwrap();
                    assert_eq!(bits(&some.forward(input).unwrap()), bits(&expected));
                }
                assert!(some.select(&chosen).is_none(), "a selection of a selection");
            }
            assert!(whole.select(&[vec![0], vec![], vec![1]]).is_none(), "nothing of a layer");
            assert!(whole.select(&[vec![0], vec![99], vec![1]]).is_none(), "no such channel");
        }
    }
}

#[test]
fn images_of_all_sizes_in_any_order_leave_nothing_behind() {
    let device = Device::flex();
    let network = tiny(ResNetBlock::Basic).untrained(4, &device).unwrap();
    let maps = |shape: [usize; 4]| {
        bits(&network.forward(to_device(golden::input(&shape), shape, &device)).unwrap())
    };
    let shapes = [[1, 3, 64, 64], [1, 3, 9, 70], [1, 3, 33, 31]];
    let first = shapes.map(maps);
    for _ in 0..2 {
        assert_eq!(shapes.map(maps), first);
    }
}

#[test]
fn input_that_is_no_number_is_refused_by_the_engine() {
    let network = tiny(ResNetBlock::Basic).untrained(0, &Device::flex()).unwrap();
    let mut values = vec![0.5; 3 * 32 * 32];
    values[77] = f32::NAN;
    let input = to_device(values, [1, 3, 32, 32], &Device::flex());
    assert!(matches!(network.forward(input), Err(Error::NotFinite { .. })));
}
