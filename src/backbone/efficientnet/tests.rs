use super::*;
use crate::backbone::EfficientNetB5;
use crate::backbone::checkpoint::Checkpoint;
use crate::golden;
use crate::host::{to_device, to_host};

/// The devices of the enabled backend features.
fn devices() -> Vec<Device> {
    vec![
        Device::flex(),
        #[cfg(feature = "ndarray")]
        #[allow(deprecated)]
        Device::ndarray(),
    ]
}

/// Tolerance relative to the largest magnitude of a golden tensor. Measured: 4e-7; torch itself in f32
/// differs by up to 6e-7.
const TOLERANCE: f64 = 1e-5;

/// All tensors of a torchvision checkpoint, by the formula at the top of
/// `tests/golden/make_efficientnet.py`.
fn formula_checkpoint(config: &EfficientNetConfig) -> Checkpoint {
    let (stem, blocks) = config.plan();
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: &[usize]| {
        let values = match shape {
            [count, filter @ ..] if filter.len() == 3 => {
                let length: usize = filter.iter().product();
                let limit = (4.0 / length as f64).sqrt();
                let uniform = golden::uniform(&name, count * length).into_iter();
                uniform.map(|u| ((2.0 * u - 1.0) * limit) as f32).collect()
            }
            _ => golden::weight(&name, shape),
        };
        tensors.push((name, shape.to_vec(), values));
    };
    for site in std::iter::once(&stem).chain(blocks.iter().flat_map(Block::convolutions)) {
        let channels = [site.shape[0]];
        add(format!("{}.weight", site.name), &site.shape);
        match &site.norm {
            Some(norm) => ["weight", "bias", "running_mean", "running_var"]
                .into_iter()
                .for_each(|part| add(format!("{}.{part}", norm.name), &channels)),
            None => add(format!("{}.bias", site.name), &channels),
        }
    }
    Checkpoint::from_f32(tensors)
}

fn build(config: &EfficientNetConfig, mut checkpoint: Checkpoint) -> Result<EfficientNet> {
    let network = network::build(config, &mut checkpoint, &Device::flex())?;
    checkpoint.finish()?;
    Ok(network)
}

fn input(shape: [usize; 4], device: &Device) -> Tensor<4> {
    to_device(golden::input(&shape), shape, device)
}

/// The largest difference between a run's intermediate results and their golden values.
fn check_maps(network: &EfficientNet, shape: [usize; 4], file: &golden::GoldenFile) -> f64 {
    let images = input(shape, &network.device);
    let stem = ("stem".to_owned(), silu(network.stem.forward(images.clone())));
    let maps = network.forward(images).unwrap();
    let maps = network.layers().iter().zip(maps.maps());
    let maps = maps.map(|(layer, map)| (layer.name.clone(), map.clone()));
    let prefix = shape.map(|n| n.to_string()).join("x");
    let errors = std::iter::once(stem).chain(maps).map(|(node, map)| {
        let part = |part: &str| &file[&format!("{prefix}/{node}/{part}")];
        assert_eq!(map.dims().to_vec(), part("shape").usize(), "{prefix} {node}");
        let values = to_host(map).unwrap();
        golden::check_node(&values, part, TOLERANCE, &format!("{prefix} {node}"))
    });
    errors.fold(0.0, f64::max)
}

#[test]
fn golden_backbone_efficientnet_b5() {
    let file = golden::tensors("backbone_efficientnet_b5.safetensors");
    let config = EfficientNetB5::config().with_blocks([1, 2, 4, 7, 9, 20, 26]);
    for device in devices() {
        let mut checkpoint = formula_checkpoint(&config);
        let network = network::build(&config, &mut checkpoint, &device).unwrap();
        checkpoint.finish().unwrap();
        for shape in [[1, 3, 224, 224], [2, 3, 64, 64], [1, 3, 97, 131]] {
            let error = check_maps(&network, shape, &file);
            println!("{device:?} {shape:?}: worst error {error:.1e} of the largest magnitude");
        }
    }
}

#[test]
fn the_papers_layers_are_the_default() {
    let network = EfficientNetB5::untrained(0, &Device::flex()).unwrap();
    let layer = |name: &str, channels, stride| LayerInfo { name: name.into(), channels, stride };
    let expected = [layer("block7", 40, 4), layer("block20", 128, 16), layer("block26", 176, 16)];
    assert_eq!(network.layers(), expected);
    // Counted from 1, the blocks are in the stages that the paper calls levels.
    let places: Vec<(usize, usize)> = network.config.places().collect();
    assert_eq!([7, 20, 26].map(|block| places[block - 1].0 + 1), [2, 4, 5]);
}

/// The network of `efficientnet_tiny`, with all blocks as output.
fn tiny() -> EfficientNetConfig {
    let stage = EfficientNetStage::new;
    EfficientNetConfig {
        stem_channels: 8,
        stages: vec![stage(1, 8, 1, 3, 1), stage(2, 16, 2, 5, 2)],
        blocks: vec![1, 2, 3],
    }
}

fn load_tiny(blocks: &[usize], container: &str) -> EfficientNet {
    let file = golden::path("loader").join(format!("efficientnet_tiny.{container}"));
    tiny().with_blocks(blocks).load(file, &Device::flex()).unwrap()
}

#[test]
fn golden_tiny_efficientnet_from_both_containers() {
    let file = golden::tensors("efficientnet_tiny_out.safetensors");
    let all = load_tiny(&[1, 2, 3], "pth");
    let again = load_tiny(&[1, 2, 3], "safetensors");
    assert_eq!(all.fingerprint(), again.fingerprint());
    for network in [all, again] {
        println!("worst error {:.1e}", check_maps(&network, [2, 3, 45, 37], &file));
    }
}

#[test]
fn fewer_blocks_are_the_same_maps_and_need_no_more_weights() {
    let images = input([2, 3, 45, 37], &Device::flex());
    let all = load_tiny(&[1, 2, 3], "safetensors").forward(images.clone()).unwrap();
    for blocks in [vec![1], vec![2], vec![1, 3]] {
        let network = load_tiny(&blocks, "safetensors");
        assert_eq!(network.blocks.len(), *blocks.last().unwrap());
        let some = network.forward(images.clone()).unwrap();
        assert_eq!(some.maps().len(), blocks.len());
        for (map, block) in some.maps().iter().zip(blocks) {
            let expected = to_host(all.maps()[block - 1].clone()).unwrap();
            assert_eq!(to_host(map.clone()).unwrap(), expected);
        }
    }
    // The checkpoint must have all tensors up to the last output block, and no unknown ones.
    let config = tiny().with_blocks([3]);
    assert!(build(&config, formula_checkpoint(&config)).is_ok());
    assert!(build(&config, formula_checkpoint(&tiny().with_blocks([2]))).is_err());
    assert!(build(&tiny().with_blocks([2]), formula_checkpoint(&config)).is_err());
}

#[test]
fn descriptions_that_make_no_network_are_refused() {
    let refuse = |config: EfficientNetConfig, field: &str| {
        let error = config.untrained(0, &Device::flex()).unwrap_err();
        assert!(matches!(error, Error::InvalidConfig { .. }), "{error}");
        assert!(error.to_string().contains(field), "{error}");
    };
    for blocks in [vec![], vec![0], vec![4], vec![2, 1], vec![1, 1]] {
        refuse(tiny().with_blocks(blocks), "blocks: must be a rising list from 1 to 3");
    }
    let with = |change: fn(&mut EfficientNetConfig)| {
        let mut config = tiny();
        change(&mut config);
        config
    };
    refuse(with(|config| config.stages.clear()), "1 to 16 stages");
    refuse(with(|config| config.stages = vec![config.stages[0]; 17]), "1 to 16 stages");
    refuse(with(|config| config.stem_channels = 0), "counts");
    refuse(with(|config| config.stages[1].channels = MAX_COUNT + 1), "counts");
    refuse(with(|config| config.stages[1].expansion = 0), "counts");
    refuse(with(|config| config.stages[1].kernel = 4), "kernels must be odd");
    refuse(with(|config| config.stages[1].stride = 3), "strides 1 or 2");
    refuse(with(|config| config.stages[0].count = MAX_BLOCKS), "blocks");
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let refuse = |change: &dyn Fn(&mut Checkpoint)| {
        let mut checkpoint = formula_checkpoint(&tiny());
        change(&mut checkpoint);
        build(&tiny(), checkpoint).unwrap_err().to_string()
    };
    let missing = refuse(&|c| c.discard("features.2.1.block.2.fc1.bias"));
    assert!(missing.contains("lack the tensor `features.2.1.block.2.fc1.bias`"), "{missing}");

    let name = "features.2.2.block.0.0.weight";
    let extra = refuse(&|c| c.insert(name, "F32", &[1], vec![0; 4]));
    assert!(extra.contains(&format!("`{name}` that the network does not have")), "{extra}");

    let name = "features.2.0.block.1.0.weight";
    let shape = refuse(&|c| c.insert(name, "F32", &[16, 1, 3, 3], vec![0; 4 * 16 * 9]));
    let expected = format!("`{name}` has shape [16, 1, 3, 3], the network needs [16, 1, 5, 5]");
    assert!(shape.contains(&expected), "{shape}");

    let name = "features.1.0.block.1.fc2.bias";
    let dtype = refuse(&|c| c.insert(name, "F64", &[8], vec![0; 64]));
    assert!(dtype.contains(&format!("`{name}` has data type F64")), "{dtype}");

    let nan = refuse(&|c| c.insert(name, "F32", &[8], f32::NAN.to_le_bytes().repeat(8)));
    assert!(nan.contains(&format!("values in the tensor `{name}`")), "{nan}");
}

#[test]
fn the_checkpoint_of_another_network_is_refused() {
    let error = tiny().load(golden::path("loader/tiny_basic.safetensors"), &Device::flex());
    assert!(matches!(error, Err(Error::MissingTensor { .. })));
}

#[test]
fn a_snapshot_builds_the_same_network() {
    let device = Device::flex();
    let network = tiny().with_blocks([1, 2]).untrained(3, &device).unwrap();
    let snapshot = network.snapshot().unwrap().unwrap();
    let again = snapshot.build(&device).unwrap();
    assert_eq!(network.fingerprint(), again.fingerprint());
    assert_eq!(network.layers(), again.layers());
    let other = tiny().with_blocks([1, 2]).untrained(4, &device).unwrap();
    assert_ne!(network.fingerprint(), other.fingerprint());
}

#[test]
fn untrained_features_are_of_a_sound_size_and_differ() {
    let device = Device::flex();
    let network = EfficientNetB5::untrained(0, &device).unwrap();
    let maps = network.forward(input([2, 3, 64, 64], &device)).unwrap();
    for (layer, map) in network.layers().iter().zip(maps.maps()) {
        let [batch, channels, height, width] = map.dims();
        let values = to_host(map.clone()).unwrap();
        assert!(values.iter().all(|v| v.is_finite()), "{}", layer.name);
        let spread = |values: &[f32]| {
            let mean = values.iter().sum::<f32>() / values.len() as f32;
            (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / values.len() as f32).sqrt()
        };
        let all = spread(&values);
        println!("{}: standard deviation {all}", layer.name);
        assert!((0.1..10.0).contains(&all), "{}: {all}", layer.name);
        // No channel is constant over all positions.
        for (i, channel) in values.chunks(height * width).enumerate() {
            assert!(spread(channel) > 1e-3 * all, "{}: channel {}", layer.name, i % channels);
        }
        let [first, second] = [&values[..values.len() / batch], &values[values.len() / batch..]];
        assert_ne!(first, second);
    }
}

#[test]
fn images_alone_and_in_a_batch_have_the_same_maps() {
    let network = load_tiny(&[1, 3], "safetensors");
    let images = input([3, 3, 45, 37], &network.device);
    let together = network.forward(images.clone()).unwrap();
    let alone = network.forward(images.narrow(0, 1, 1)).unwrap();
    for (together, alone) in together.maps().iter().zip(alone.maps()) {
        let expected = to_host(together.clone().narrow(0, 1, 1)).unwrap();
        assert_eq!(to_host(alone.clone()).unwrap(), expected);
    }
}

#[test]
fn input_that_is_no_rgb_batch_is_refused() {
    let network = tiny().untrained(0, &Device::flex()).unwrap();
    let grey = Tensor::zeros([1, 1, 32, 32], &Device::flex());
    assert!(matches!(network.forward(grey), Err(Error::ShapeMismatch { .. })));
    let dot = network.forward(Tensor::zeros([1, 3, 1, 1], &Device::flex())).unwrap();
    assert_eq!(dot.maps()[2].dims(), [1, 16, 1, 1]);
}
