//! Reading torchvision-layout checkpoints: `.safetensors`, and `.pth` in all its containers.
//!
//! A `.pth` file is a pickle. It is parsed for names, shapes and storages only: no class is looked
//! up and no function called, whatever the pickle asks for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use pytorch_reader::PytorchReader;
use safetensors::SafeTensors;

use crate::host::f32_from_bytes;
use crate::{Error, Result};

/// The tensors of a checkpoint by their names in the network.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    tensors: BTreeMap<String, RawTensor>,
}

#[derive(Debug)]
struct RawTensor {
    dtype: String,
    shape: Vec<usize>,
    /// Row-major little-endian values.
    bytes: Vec<u8>,
}

impl Checkpoint {
    /// Reads a file, told apart by content. Names lose the prefix `module.`, and in `.pth` files
    /// `state_dict.` before it; those that begin as one of `unused` are skipped.
    pub fn read(path: &Path, unused: &[String]) -> Result<Self> {
        let mut header = [0; 9];
        let read = File::open(path)
            .and_then(|mut file| file.read(&mut header))
            .map_err(Error::io("read", path))?;
        let tensors = if read == 9 && header[8] == b'{' {
            read_safetensors(path, unused)?
        } else {
            read_pytorch(path, unused)?
        };
        Ok(Self { tensors })
    }

    /// Takes out the tensor `name`, which must be f32 and of `shape`.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.tensors.remove(name).ok_or_else(|| Error::MissingTensor {
            name: name.to_owned(),
            expected: shape.to_vec(),
        })?;
        if tensor.shape != shape {
            return Err(Error::TensorShape {
                name: name.to_owned(),
                expected: shape.to_vec(),
                actual: tensor.shape,
            });
        }
        if tensor.dtype != "F32" {
            return Err(Error::TensorType { name: name.to_owned(), actual: tensor.dtype });
        }
        let values: Vec<f32> = f32_from_bytes(&tensor.bytes).collect();
        if values.len() != shape.iter().product::<usize>() || !values.iter().all(|v| v.is_finite())
        {
            return Err(Error::NotFinite { what: format!("the tensor `{name}`") });
        }
        Ok(values)
    }

    /// Removes a tensor that may be there but plays no part.
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
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| unreadable(path)(e.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        let name = without_module(&name);
        if used(name, unused) {
            let (dtype, shape) = (format!("{:?}", view.dtype()), view.shape().to_vec());
            insert_once(
                &mut tensors,
                name,
                RawTensor { dtype, shape, bytes: view.data().to_vec() },
            )?;
        }
    }
    Ok(tensors)
}

/// Refuses a name that is there already, with a prefix and without: either could be meant.
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
    let fail = unreadable(path);
    let reader = PytorchReader::new(path).map_err(|e| fail(e.to_string()))?;
    let wrapped = reader.tensors().keys().any(|name| name.starts_with("state_dict."));
    let mut tensors = BTreeMap::new();
    for (name, tensor) in reader.into_tensors() {
        let name = match name.strip_prefix("state_dict.") {
            Some(inner) => without_module(inner),
            None if wrapped => continue, // optimiser state and the like, beside the weights
            None => without_module(&name),
        };
        if used(name, unused) {
            let (dtype, shape) = (format!("{:?}", tensor.dtype()), tensor.shape().to_vec());
            let mut bytes = tensor.read().map_err(|e| fail(e.to_string()))?;
            if cfg!(target_endian = "big") {
                bytes.chunks_exact_mut(tensor.dtype().size()).for_each(<[u8]>::reverse);
            }
            insert_once(&mut tensors, name, RawTensor { dtype, shape, bytes })?;
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
            let raw = RawTensor { dtype: dtype.to_owned(), shape: shape.to_vec(), bytes };
            self.tensors.insert(name.to_owned(), raw);
        }
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
            let hash = format!("{:016x}", golden::fnv1a64(&tensor.bytes));
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
