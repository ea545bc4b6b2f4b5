//! Reads checkpoints with torchvision's names: `.safetensors`, and all forms of `.pth`.
//!
//! A `.pth` file is a pickle. Only names, shapes and storages are read from it. Nothing in it is
//! executed: no class is looked up and no function is called.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use pytorch_reader::PytorchReader;
use safetensors::SafeTensors;

use crate::error::{Error, FileKind, Result};
use crate::files;
use crate::host::f32_from_bytes;
use crate::weights::{BUNDLED, Weights};

/// The tensors of a checkpoint by their names in the network.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    tensors: BTreeMap<String, RawTensor>,
}

#[derive(Debug)]
struct RawTensor {
    dtype: String,
    shape: Vec<usize>,
    values: Values,
}

/// Row-major little-endian values.
#[derive(Debug)]
enum Values {
    Bytes(Vec<u8>),
    /// Read only after the shape is checked: in a pickle, a stride of 0 lets a few bytes claim to be
    /// gigabytes.
    Pickled {
        path: PathBuf,
        tensor: pytorch_reader::Tensor,
    },
}

impl RawTensor {
    fn bytes(&self) -> Result<Cow<'_, [u8]>> {
        match &self.values {
            Values::Bytes(bytes) => Ok(bytes.into()),
            Values::Pickled { path, tensor } => {
                let mut bytes = tensor.read().map_err(|e| unreadable(path)(e.to_string()))?;
                if cfg!(target_endian = "big") {
                    bytes.chunks_exact_mut(tensor.dtype().size()).for_each(<[u8]>::reverse);
                }
                Ok(bytes.into())
            }
        }
    }

    /// The values; f16 and bf16 convert exactly. `None` for other types.
    fn floats(&self) -> Result<Option<Vec<f32>>> {
        let halves = |bytes: &[u8], value: fn([u8; 2]) -> f32| {
            bytes.chunks_exact(2).map(|b| value([b[0], b[1]])).collect()
        };
        Ok(Some(match self.dtype.as_str() {
            "F32" => f32_from_bytes(&self.bytes()?).collect(),
            "F16" => halves(&self.bytes()?, |b| f16::from_le_bytes(b).to_f32()),
            "BF16" => halves(&self.bytes()?, |b| bf16::from_le_bytes(b).to_f32()),
            _ => return Ok(None),
        }))
    }

    /// Non-negative 64-bit integers; `None` for other types or values.
    fn counts(&self) -> Result<Option<Vec<usize>>> {
        if self.dtype != "I64" {
            return Ok(None);
        }
        let value = |b: &[u8]| Some(i64::from_le_bytes(b.try_into().ok()?));
        let count = |b| usize::try_from(value(b)?).ok();
        Ok(self.bytes()?.chunks_exact(8).map(count).collect())
    }
}

impl Checkpoint {
    /// Finds the weights and reads them like [`read`](Self::read).
    pub fn load(weights: &Weights, unused: &[String]) -> Result<Self> {
        match weights {
            Weights::Bundled => {
                let tensors = parse_safetensors(BUNDLED, Path::new("Weights::Bundled"), unused)?;
                Ok(Self { tensors })
            }
            _ => Self::read(&weights.find()?, unused),
        }
    }

    /// Reads a file; its content decides the format. Removes the prefix `module.` from names, and in
    /// `.pth` files `state_dict.` before it. Skips names that begin with one of `unused`.
    pub fn read(path: &Path, unused: &[String]) -> Result<Self> {
        let mut header = [0; 9];
        let (mut file, _) = files::open(FileKind::Weights, path)?;
        let read = file.read(&mut header).map_err(Error::io(FileKind::Weights, "read", path))?;
        let tensors = if read == 9 && header[8] == b'{' {
            read_safetensors(path, unused)?
        } else {
            read_pytorch(path, unused)?
        };
        Ok(Self { tensors })
    }

    /// Takes out the tensor `name`, which must have the shape `shape` and be f32, f16 or bf16.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.take_raw(name, shape)?;
        let values = tensor.floats()?.ok_or_else(|| Error::TensorType {
            name: name.to_owned(),
            actual: tensor.dtype.clone(),
        })?;
        if values.len() != shape.iter().product::<usize>() || !values.iter().all(|v| v.is_finite())
        {
            return Err(Error::NotFinite { what: format!("the tensor `{name}`") });
        }
        Ok(values)
    }

    fn take_raw(&mut self, name: &str, shape: &[usize]) -> Result<RawTensor> {
        let tensor = self.tensors.remove(name).ok_or_else(|| Error::MissingTensor {
            name: name.to_owned(),
            expected: shape.to_vec(),
        })?;
        if tensor.shape == shape {
            return Ok(tensor);
        }
        let (expected, actual) = (shape.to_vec(), tensor.shape);
        Err(Error::TensorShape { name: name.to_owned(), expected, actual })
    }

    /// Takes out the tensor `name` of `count` indices.
    pub fn take_indices(&mut self, name: &str, count: usize) -> Result<Vec<usize>> {
        let tensor = self.take_raw(name, &[count])?;
        tensor.counts()?.filter(|indices| indices.len() == count).ok_or_else(|| {
            let reason = format!("`{name}` must hold indices in 64 bits, it is {}", tensor.dtype);
            Error::config("channels", reason)
        })
    }

    /// The value of a tensor with one element, if there is one. It can be NaN.
    pub fn scalar(&self, name: &str) -> Option<f32> {
        let tensor = self.tensors.get(name)?;
        if tensor.shape.iter().any(|&side| side != 1) {
            return None;
        }
        tensor.floats().ok()??.first().copied()
    }

    /// The shape of a tensor, if the tensor exists.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.tensors.get(name)?.shape)
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Takes out the tensors whose names begin with `prefix`, and removes the prefix.
    pub fn split_off(&mut self, prefix: &str) -> Self {
        let (inside, others) = std::mem::take(&mut self.tensors)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(name, _)| name.starts_with(prefix));
        self.tensors = others;
        let without = |(name, tensor): (String, _)| (name[prefix.len()..].to_owned(), tensor);
        Self { tensors: inside.into_iter().map(without).collect() }
    }

    /// Removes an optional tensor that is not needed.
    pub fn discard(&mut self, name: &str) {
        self.tensors.remove(name);
    }

    /// Checks that every tensor has been taken.
    pub fn finish(self) -> Result<()> {
        match self.tensors.into_keys().next() {
            Some(name) => Err(Error::UnexpectedTensor { name }),
            None => Ok(()),
        }
    }
}

fn used(name: &str, unused: &[String]) -> bool {
    !unused.iter().any(|prefix| name.starts_with(prefix))
}

fn without_module(name: &str) -> &str {
    name.strip_prefix("module.").unwrap_or(name)
}

fn unreadable(path: &Path) -> impl Fn(String) -> Error + '_ {
    move |reason| Error::Weights { path: path.to_owned(), reason }
}

fn read_safetensors(path: &Path, unused: &[String]) -> Result<BTreeMap<String, RawTensor>> {
    let bytes = std::fs::read(path).map_err(Error::io(FileKind::Weights, "read", path))?;
    parse_safetensors(&bytes, path, unused)
}

fn parse_safetensors(
    bytes: &[u8],
    path: &Path,
    unused: &[String],
) -> Result<BTreeMap<String, RawTensor>> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| unreadable(path)(e.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let name = without_module(&name);
        if used(name, unused) {
            let (dtype, shape) = (format!("{:?}", view.dtype()), view.shape().to_vec());
            let values = Values::Bytes(view.data().to_vec());
            insert_once(&mut tensors, name, RawTensor { dtype, shape, values })?;
        }
    }
    Ok(tensors)
}

/// Rejects a duplicate name, for example one with and one without a prefix: it is ambiguous.
fn insert_once(
    tensors: &mut BTreeMap<String, RawTensor>,
    name: &str,
    tensor: RawTensor,
) -> Result<()> {
    match tensors.insert(name.to_owned(), tensor) {
        Some(_) => Err(Error::UnexpectedTensor { name: name.to_owned() }),
        None => Ok(()),
    }
}

fn read_pytorch(path: &Path, unused: &[String]) -> Result<BTreeMap<String, RawTensor>> {
    let reader = PytorchReader::new(path).map_err(|e| unreadable(path)(e.to_string()))?;
    let wrapped = reader.tensors().keys().any(|name| name.starts_with("state_dict."));
    let mut tensors = BTreeMap::new();
    for (full_name, tensor) in reader.into_tensors() {
        let name = match full_name.strip_prefix("state_dict.") {
            Some(inner) => without_module(inner),
            None if wrapped => continue, // such as the state of the optimizer
            None => without_module(&full_name),
        };
        if used(name, unused) {
            let (dtype, shape) = (format!("{:?}", tensor.dtype()), tensor.shape().to_vec());
            let values = Values::Pickled { path: path.to_owned(), tensor };
            insert_once(&mut tensors, name, RawTensor { dtype, shape, values })?;
        }
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    /// Checkpoints for the tests of the networks.
    impl Checkpoint {
        pub fn from_f32(tensors: Vec<(String, Vec<usize>, Vec<f32>)>) -> Self {
            let mut checkpoint = Self { tensors: BTreeMap::new() };
            for (name, shape, values) in tensors {
                checkpoint.insert(&name, "F32", &shape, crate::host::f32_to_bytes(&values));
            }
            checkpoint
        }

        pub fn insert(&mut self, name: &str, dtype: &str, shape: &[usize], bytes: Vec<u8>) {
            let (dtype, values) = (dtype.to_owned(), Values::Bytes(bytes));
            let raw = RawTensor { dtype, shape: shape.to_vec(), values };
            self.tensors.insert(name.to_owned(), raw);
        }
    }

    #[test]
    fn half_precision_is_read_exactly() {
        // 1, -2, the smallest subnormal, 65504; and in bf16 1, -2, 3.0e38.
        let half: [u16; 4] = [0x3C00, 0xC000, 1, 0x7BFF];
        let brain: [u16; 3] = [0x3F80, 0xC000, 0x7F62];
        let bytes = |bits: &[u16]| bits.iter().flat_map(|b| b.to_le_bytes()).collect::<Vec<u8>>();
        let mut checkpoint = Checkpoint { tensors: BTreeMap::new() };
        checkpoint.insert("half", "F16", &[2, 2], bytes(&half));
        checkpoint.insert("brain", "BF16", &[3], bytes(&brain));
        checkpoint.insert("not", "F16", &[1], bytes(&[0x7C00]));
        checkpoint.insert("double", "F64", &[1], vec![0; 8]);
        let values = [1.0, -2.0, 2.0_f32.powi(-24), 65504.0];
        assert_eq!(checkpoint.take("half", &[2, 2]).unwrap(), values);
        assert_eq!(checkpoint.take("brain", &[3]).unwrap()[..2], [1.0, -2.0]);
        assert!(matches!(checkpoint.take("not", &[1]), Err(Error::NotFinite { .. })));
        assert!(matches!(checkpoint.take("double", &[1]), Err(Error::TensorType { .. })));
    }

    #[test]
    fn indices_are_whole_and_not_negative() {
        let mut checkpoint = Checkpoint { tensors: BTreeMap::new() };
        let long =
            |values: &[i64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        checkpoint.insert("idx", "I64", &[3], long(&[4, 0, 447]));
        checkpoint.insert("below", "I64", &[1], long(&[-1]));
        checkpoint.insert("real", "F32", &[2], vec![0; 8]);
        assert_eq!(checkpoint.take_indices("idx", 3).unwrap(), [4, 0, 447]);
        assert!(checkpoint.take_indices("below", 1).is_err());
        assert!(checkpoint.take_indices("real", 2).is_err());
    }

    fn torch_name(dtype: &str) -> &str {
        match dtype {
            "F64" => "float64",
            "F32" => "float32",
            "F16" => "float16",
            "BF16" => "bfloat16",
            "I64" => "int64",
            "I32" => "int32",
            "I16" => "int16",
            "I8" => "int8",
            "U8" => "uint8",
            "Bool" => "bool",
            other => other,
        }
    }

    /// Every tensor of the golden list is read with its dtype, shape and bytes.
    fn assert_reads(file: &str, group: &str) {
        let unused = ["layer4.".to_owned(), "fc.".to_owned()];
        let checkpoint = Checkpoint::read(&golden::path("loader").join(file), &unused).unwrap();
        let mut found = 0;
        let expected = golden::json("loader/expected.json");
        let expected = expected[group].as_object().unwrap();
        for (name, facts) in expected.iter().filter(|(name, _)| used(name, &unused)) {
            let tensor = checkpoint.tensors.get(name).unwrap_or_else(|| panic!("{file}: {name}"));
            assert_eq!(torch_name(&tensor.dtype), facts["dtype"], "{file}: {name}");
            assert_eq!(serde_json::json!(tensor.shape), facts["shape"], "{file}: {name}");
            let hash = format!("{:016x}", golden::fnv1a64(&tensor.bytes().unwrap()));
            assert_eq!(hash, facts["fnv1a64"], "{file}: {name}");
            found += 1;
        }
        assert_eq!(checkpoint.tensors.len(), found, "{file}: nothing else is in it");
    }

    #[test]
    fn a_tensor_that_is_there_twice_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("twice.safetensors");
        let header = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
            "module.w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#;
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.extend([0; 8]);
        std::fs::write(&path, file).unwrap();
        let error = Checkpoint::read(&path, &[]).unwrap_err();
        assert!(matches!(error, Error::UnexpectedTensor { .. }), "{error}");
    }

    #[test]
    fn golden_loader_reads_every_container() {
        assert_reads("tiny_basic.safetensors", "tiny_basic");
        assert_reads("tiny_basic_zip.pth", "tiny_basic");
        assert_reads("tiny_basic_legacy.pth", "tiny_basic");
        assert_reads("tiny_basic_wrapped_zip.pth", "tiny_basic");
        assert_reads("tiny_bottleneck.safetensors", "tiny_bottleneck");
    }

    #[test]
    fn golden_loader_reads_every_dtype_and_layout() {
        assert_reads("edge_zip.pth", "edge");
        assert_reads("edge_legacy.pth", "edge");
        assert_reads("edge_zip_proto4.pth", "edge");
    }
}
