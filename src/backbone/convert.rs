//! Writes only the weights that a network needs to a new file.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use half::f16;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};

use super::checkpoint::Checkpoint;
use super::parameters::Site;
use crate::error::{Error, FileKind, Result};
use crate::files::write_atomically;
use crate::host::f32_to_bytes;
use crate::names::named;
use crate::weights::sha256;

/// The floating point type in which weights are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightPrecision {
    /// 32 bits: the same network.
    F32,
    /// 16 bits for the weights of convolutions. Batch norms and biases are small and keep 32 bits.
    F16,
}

named!(
    WeightPrecision,
    "precision",
    [("f32", WeightPrecision::F32), ("f16", WeightPrecision::F16)]
);

/// A summary of the written file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConvertedWeights {
    /// The number of tensors.
    pub tensors: usize,
    /// The length of the file, in bytes.
    pub bytes: u64,
    /// The origin in the file's metadata: architecture, layers, precision, and the name and SHA-256 of
    /// the source file.
    pub origin: String,
}

/// Copies the tensors of a network from one file to another, without those whose names begin with one
/// of `unused`. `title`: the readable name of the network.
pub(super) fn convert(
    sites: &[Site],
    unused: &[String],
    title: &str,
    [source, target]: [&Path; 2],
    precision: WeightPrecision,
) -> Result<ConvertedWeights> {
    let mut checkpoint = Checkpoint::read(source, unused)?;
    let mut tensors = Vec::new();
    for site in sites {
        for (name, shape) in site.tensors() {
            let values = checkpoint.take(&name, &shape)?;
            let (dtype, bytes) = match precision {
                WeightPrecision::F16 if shape.len() == 4 => (Dtype::F16, to_f16(&values, &name)?),
                _ => (Dtype::F32, f32_to_bytes(&values)),
            };
            tensors.push((name, dtype, shape, bytes));
        }
        if let Some(norm) = &site.norm {
            checkpoint.discard(&format!("{}.num_batches_tracked", norm.name));
        }
    }
    checkpoint.finish()?;

    let origin = origin(title, source, precision)?;
    let failed = |e: safetensors::SafeTensorError| Error::Weights {
        path: target.to_owned(),
        reason: format!("they cannot be written as safetensors: {e}"),
    };
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        Ok((name, TensorView::new(*dtype, shape.clone(), bytes).map_err(failed)?))
    });
    let views: Vec<_> = views.collect::<Result<_>>()?;
    // Only one entry: a `HashMap` would write several in random order.
    let metadata = HashMap::from([("origin".to_owned(), origin.clone())]);
    let file = serialize(views, Some(metadata)).map_err(failed)?;
    write_atomically(FileKind::Weights, target, |writer| writer.write_all(&file))?;
    Ok(ConvertedWeights { tensors: tensors.len(), bytes: file.len() as u64, origin })
}

fn to_f16(values: &[f32], name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(2 * values.len());
    for &value in values {
        let half = f16::from_f32(value);
        if !half.is_finite() {
            return Err(Error::NotFinite { what: format!("the tensor `{name}` in 16 bits") });
        }
        bytes.extend(half.to_le_bytes());
    }
    Ok(bytes)
}

fn origin(title: &str, source: &Path, precision: WeightPrecision) -> Result<String> {
    let name = source.file_name().unwrap_or_default().to_string_lossy();
    let hash = sha256(source)?;
    Ok(format!("{title} in {precision}, from {name} (SHA-256 {hash})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::{
        Backbone, EfficientNetConfig, EfficientNetStage, ResNetBlock, ResNetConfig,
    };
    use crate::golden;
    use burn::tensor::Device;
    use safetensors::SafeTensors;

    fn tiny() -> ResNetConfig {
        ResNetConfig {
            block: ResNetBlock::Basic,
            stem_channels: 4,
            blocks: [2, 2, 2],
            planes: [4, 6, 8],
            base_width: 64,
            layers: vec![1, 2, 3],
        }
    }

    #[test]
    fn in_32_bits_it_is_the_same_network_without_what_lies_behind() {
        let folder = tempfile::tempdir().unwrap();
        let device = Device::flex();
        let source = golden::path("loader/tiny_basic_wrapped_zip.pth");
        for layers in [vec![1], vec![2], vec![1, 3]] {
            let config = tiny().with_layers(layers.clone());
            let target = folder.path().join("trunk.safetensors");
            let written = config.convert(&source, &target, WeightPrecision::F32).unwrap();
            let expected = config.load(&source, &device).unwrap().fingerprint();
            assert_eq!(config.load(&target, &device).unwrap().fingerprint(), expected);

            let bytes = std::fs::read(&target).unwrap();
            assert_eq!(bytes.len() as u64, written.bytes);
            let file = SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(file.len(), written.tensors);
            let last = layers.last().unwrap();
            let behind = (last + 1..=4).map(|layer| format!("layer{layer}."));
            let behind: Vec<_> = behind.chain(["fc.".to_owned()]).collect();
            let names = file.names();
            assert!(names.iter().all(|name| !behind.iter().any(|b| name.starts_with(b))));
            // The file lacks the tensors of a deeper network.
            assert!(config.with_layers([last + 1]).load(&target, &device).is_err());

            let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
            assert_eq!(metadata.metadata().as_ref().unwrap()["origin"], written.origin);
            let hash = sha256(&source).unwrap();
            assert!(written.origin.contains("tiny_basic_wrapped_zip.pth"), "{}", written.origin);
            assert!(
                written.origin.contains(&hash) && written.origin.contains(&format!("{layers:?}"))
            );
        }
    }

    #[test]
    fn in_16_bits_convolutions_are_rounded_once_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let device = Device::flex();
        let source = golden::path("loader/tiny_basic.safetensors");
        let half = folder.path().join("half.safetensors");
        let again = folder.path().join("again.safetensors");
        let whole = folder.path().join("whole.safetensors");
        tiny().convert(&source, &half, WeightPrecision::F16).unwrap();
        tiny().convert(&half, &again, WeightPrecision::F16).unwrap();
        tiny().convert(&half, &whole, WeightPrecision::F32).unwrap();
        let fingerprint = |path: &Path| tiny().load(path, &device).unwrap().fingerprint();
        assert_ne!(fingerprint(&half), fingerprint(&source));
        assert_eq!(fingerprint(&half), fingerprint(&again));
        assert_eq!(fingerprint(&half), fingerprint(&whole));

        let bytes = [&source, &half].map(|path| std::fs::read(path).unwrap());
        let [exact, half] = bytes.each_ref().map(|bytes| SafeTensors::deserialize(bytes).unwrap());
        for (name, view) in half.tensors() {
            let exact: Vec<f32> =
                crate::host::f32_from_bytes(exact.tensor(&name).unwrap().data()).collect();
            if view.shape().len() == 4 {
                assert_eq!(view.dtype(), Dtype::F16);
                let rounded = view.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]));
                assert!(rounded.eq(exact.iter().map(|&v| f16::from_f32(v))), "{name}");
            } else {
                assert!(crate::host::f32_from_bytes(view.data()).eq(exact), "{name}");
            }
        }
    }

    #[test]
    fn the_same_source_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let source = golden::path("loader/tiny_basic_zip.pth");
        let files = ["a", "b"].map(|name| {
            let target = folder.path().join(name);
            tiny().convert(&source, &target, WeightPrecision::F16).unwrap();
            std::fs::read(target).unwrap()
        });
        assert!(files[0] == files[1]);
    }

    #[test]
    fn an_efficientnet_is_converted_with_its_biases() {
        let folder = tempfile::tempdir().unwrap();
        let device = Device::flex();
        let config = EfficientNetConfig {
            stem_channels: 8,
            stages: vec![
                EfficientNetStage::new(1, 8, 1, 3, 1),
                EfficientNetStage::new(2, 16, 2, 5, 2),
            ],
            blocks: vec![1, 2],
        };
        let source = golden::path("loader/efficientnet_tiny.pth");
        let target = folder.path().join("trunk.safetensors");
        config.convert(&source, &target, WeightPrecision::F32).unwrap();
        let fingerprint = |path: &Path| config.load(path, &device).unwrap().fingerprint();
        assert_eq!(fingerprint(&target), fingerprint(&source));
        assert!(config.with_blocks([3]).load(&target, &device).is_err(), "it is behind");
    }

    #[test]
    fn what_does_not_fit_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("trunk.safetensors");
        let source = golden::path("loader/tiny_bottleneck.safetensors");
        let convert = |source: &Path, precision| tiny().convert(source, &target, precision);
        assert!(convert(&source, WeightPrecision::F32).is_err(), "another network");
        // A weight beyond the range of 16 bits.
        let mut bytes = std::fs::read(golden::path("loader/tiny_basic.safetensors")).unwrap();
        let (length, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let (first, _) = metadata.info("conv1.weight").unwrap().data_offsets;
        bytes[8 + length + first..][..4].copy_from_slice(&70_000.0_f32.to_le_bytes());
        let large = folder.path().join("large.safetensors");
        std::fs::write(&large, bytes).unwrap();
        let error = convert(&large, WeightPrecision::F16).unwrap_err();
        assert!(error.to_string().contains("conv1.weight"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        convert(&large, WeightPrecision::F32).unwrap();
    }
}
