//! The detector file.
//!
//! ```text
//! "PADIM\r\n\x1a"   8 bytes, as PNG's: shows damage by text conversion
//! version           u32
//! header length     u64
//! header            bincode: settings, channels, layers, sizes, the backbone's description
//! means             f32, [positions, dimension]
//! whitenings        f32, [positions, dimension * (dimension + 1) / 2]
//! backbone weights  f32, where embedded: weight and bias of each convolution
//! CRC-32            u32, of all before
//! ```
//!
//! All numbers are little-endian. Every length follows from the header, and must agree with the
//! file's length before anything is allocated.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use bincode::config::{Configuration, LittleEndian, Varint};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::backbone::{FoldedConvolution, FoldedParameters};
use crate::files::write_atomically;
use crate::host::{f32_from_bytes, f32_to_bytes};
use crate::{
    AnomalyScorer, Backbone, BackboneSnapshot, ChannelSelection, Detector, Error, Fingerprint,
    GaussianModel, LayerInfo, Normalization, PadimConfig, PatchEmbedder, Preprocessor, ResNet,
    ResNetConfig, Result,
};

const MAGIC: [u8; 8] = *b"PADIM\r\n\x1a";
const VERSION: u32 = 1;
/// A header holds settings and a few thousand indices.
const MAX_HEADER: usize = 1 << 20;

/// Everything in a detector file that is not a large array.
#[derive(Serialize, Deserialize)]
struct Header {
    config: PadimConfig,
    normalization: Normalization,
    layers: Vec<LayerInfo>,
    indices: Vec<usize>,
    input_size: [usize; 2],
    grid: [usize; 2],
    image_count: usize,
    fingerprint: Fingerprint,
    /// Where the weights are embedded.
    backbone: Option<ResNetConfig>,
}

fn encoding() -> Configuration<LittleEndian, Varint, bincode::config::Limit<MAX_HEADER>> {
    bincode::config::standard().with_limit::<MAX_HEADER>()
}

impl Detector {
    /// Saves everything that decides a score, the backbone's weights included, in one file.
    ///
    /// The file is written beside its target and renamed when complete; on an error nothing is left
    /// behind, and a file that was there before stays as it was.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be written, [`Error::BackboneNotEmbedded`] if the backbone is
    /// a network of your own.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let snapshot = self.backbone.snapshot()?.ok_or_else(|| Error::BackboneNotEmbedded {
            reason: "this backbone cannot be embedded in a detector file; use \
                     `save_without_backbone` and `load_with_backbone`"
                .into(),
        })?;
        self.write(path.as_ref(), Some(snapshot))
    }

    /// Saves everything but the backbone's weights, of which only the fingerprint is kept. Load it
    /// with [`load_with_backbone`](Self::load_with_backbone).
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be written.
    pub fn save_without_backbone(&self, path: impl AsRef<Path>) -> Result<()> {
        self.write(path.as_ref(), None)
    }

    /// Loads a detector with its embedded backbone onto a device. It scores as the one that was
    /// saved, bit for bit on the same kind of device.
    ///
    /// # Errors
    ///
    /// [`Error::BackboneNotEmbedded`] if the file holds no weights; [`Error::Io`],
    /// [`Error::InvalidDetectorFile`] or [`Error::UnsupportedVersion`] if it cannot be used.
    ///
    /// ```
    /// # use padim::*;
    /// # let device = burn::tensor::Device::flex();
    /// # let small = PreprocessConfig { resize: Resize::square(32), crop: None, ..Default::default() };
    /// # let config = PadimConfig { preprocess: small, ..Default::default() };
    /// # let images = || (0..3).map(|i| image::RgbImage::from_pixel(40, 40, image::Rgb([i * 9; 3])));
    /// # let detector = Padim::new(config, ResNet18::untrained(0, &device)?)?.fit(images(), |_| ())?;
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("screw.padim");
    /// detector.save(&path)?;
    /// let loaded = Detector::load(&path, &device)?;
    /// assert_eq!(loaded.predict_batch(images())?, detector.predict_batch(images())?);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        let (header, mut body) = Body::open(path)?;
        let Some(config) = header.backbone.clone() else {
            return Err(Error::BackboneNotEmbedded {
                reason: format!(
                    "{} holds no backbone; use `load_with_backbone` with the weights {}",
                    path.display(),
                    header.fingerprint
                ),
            });
        };
        let model = body.model(&header)?;
        let convolutions = body.convolutions(&config)?;
        body.finish()?;
        let mut source = FoldedParameters { convolutions: convolutions.into_iter() };
        let backbone = ResNet::build(config, &mut source, device)
            .map_err(|e| invalid(path, format!("its backbone cannot be built: {e}")))?;
        header.into_detector(path, model, Arc::new(backbone))
    }

    /// Loads a detector and uses it with the given backbone, on the backbone's device.
    ///
    /// # Errors
    ///
    /// [`Error::BackboneMismatch`] if the backbone has other weights than those the detector was
    /// fitted with; otherwise as [`load`](Self::load).
    pub fn load_with_backbone(
        path: impl AsRef<Path>,
        backbone: impl Backbone + 'static,
    ) -> Result<Self> {
        let path = path.as_ref();
        let (header, mut body) = Body::open(path)?;
        let model = body.model(&header)?;
        if let Some(config) = &header.backbone {
            body.convolutions(config)?;
        }
        body.finish()?;
        header.into_detector(path, model, Arc::new(backbone))
    }

    fn write(&self, path: &Path, snapshot: Option<BackboneSnapshot>) -> Result<()> {
        let (backbone, convolutions) = match snapshot {
            Some(snapshot) => (Some(snapshot.config), snapshot.parameters),
            None => (None, Vec::new()),
        };
        let header = Header {
            config: self.config.clone(),
            normalization: self.backbone.normalization(),
            layers: self.backbone.layers().to_vec(),
            indices: self.embedder.indices().to_vec(),
            input_size: self.input_size,
            grid: self.model.grid(),
            image_count: self.model.image_count(),
            fingerprint: self.backbone.fingerprint(),
            backbone,
        };
        let header = bincode::serde::encode_to_vec(&header, encoding())
            .map_err(|e| Error::config("detector", format!("cannot be encoded: {e}")))?;
        write_atomically(path, |file| {
            let mut writer = ChecksumWriter { inner: file, checksum: crc32fast::Hasher::new() };
            writer.write_all(&MAGIC)?;
            writer.write_all(&VERSION.to_le_bytes())?;
            writer.write_all(&(header.len() as u64).to_le_bytes())?;
            writer.write_all(&header)?;
            write_f32(&mut writer, self.model.means())?;
            write_f32(&mut writer, self.model.whitenings())?;
            for convolution in &convolutions {
                write_f32(&mut writer, &convolution.weight)?;
                write_f32(&mut writer, &convolution.bias)?;
            }
            let checksum = writer.checksum.clone().finalize();
            writer.inner.write_all(&checksum.to_le_bytes())
        })
    }
}

impl Header {
    /// The number of f32 values behind the header, unless it is beyond all measure.
    fn value_count(&self) -> Option<u64> {
        let product = |factors: &[usize]| {
            factors.iter().try_fold(1_u64, |product, &n| product.checked_mul(n as u64))
        };
        let d = self.indices.len();
        let triangle = product(&[d, d + 1])? / 2;
        let positions = product(&self.grid)?;
        let model = positions.checked_mul(triangle.checked_add(d as u64)?)?;
        let convolutions = match &self.backbone {
            Some(config) => config.convolutions(),
            None => Vec::new(),
        };
        convolutions.iter().try_fold(model, |sum, (_, shape)| {
            sum.checked_add(product(shape)?)?.checked_add(shape[0] as u64)
        })
    }

    fn into_detector(
        self,
        path: &Path,
        model: GaussianModel,
        backbone: Arc<dyn Backbone>,
    ) -> Result<Detector> {
        if backbone.fingerprint() != self.fingerprint {
            let actual = backbone.fingerprint();
            return Err(Error::BackboneMismatch { expected: self.fingerprint, actual });
        }
        if backbone.layers() != self.layers {
            let expected = format!("{:?}", self.layers);
            return Err(Error::shape("backbone layers", expected, backbone.layers()));
        }
        if backbone.normalization() != self.normalization {
            let expected = format!("{:?}", self.normalization);
            return Err(Error::shape("backbone normalization", expected, backbone.normalization()));
        }
        let channels: Vec<usize> = self.layers.iter().map(|layer| layer.channels).collect();
        let checked = |error: Error| invalid(path, error.to_string());
        self.config.validate().map_err(checked)?;
        if self.config.preprocess.input_size().is_some_and(|size| size != self.input_size) {
            return Err(invalid(path, "its input size is not that of its settings"));
        }
        let selection = ChannelSelection::Indices(self.indices);
        Ok(Detector {
            preprocessor: Preprocessor::new(self.config.preprocess.clone(), self.normalization)
                .map_err(checked)?,
            embedder: PatchEmbedder::new(&channels, &selection).map_err(checked)?,
            scorer: AnomalyScorer::new(self.config.scoring.clone()).map_err(checked)?,
            config: self.config,
            input_size: self.input_size,
            model,
            backbone,
        })
    }
}

fn invalid(path: &Path, reason: impl Into<String>) -> Error {
    Error::InvalidDetectorFile { path: path.to_owned(), reason: reason.into() }
}

/// The arrays of an open detector file, in their order.
struct Body<'a> {
    path: &'a Path,
    reader: ChecksumReader<BufReader<File>>,
}

impl<'a> Body<'a> {
    /// Reads and checks everything before the arrays.
    fn open(path: &'a Path) -> Result<(Header, Self)> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        let reader = ChecksumReader {
            inner: BufReader::with_capacity(1 << 20, file),
            checksum: crc32fast::Hasher::new(),
        };
        let mut body = Self { path, reader };

        if body.bytes::<8>()? != MAGIC {
            return Err(invalid(path, "it does not begin as a padim detector does"));
        }
        let version = u32::from_le_bytes(body.bytes()?);
        if version == 0 || version > VERSION {
            let path = path.to_owned();
            return Err(Error::UnsupportedVersion { path, version, supported: VERSION });
        }
        let header_length = u64::from_le_bytes(body.bytes()?);
        if header_length > MAX_HEADER as u64 {
            let reason =
                format!("its header claims {header_length} bytes, {MAX_HEADER} are allowed");
            return Err(invalid(path, reason));
        }
        let mut bytes = vec![0; header_length as usize];
        body.reader.read_exact(&mut bytes).map_err(|e| body.failed(e))?;
        let (header, used): (Header, usize) = bincode::serde::decode_from_slice(&bytes, encoding())
            .map_err(|e| invalid(path, format!("its header is damaged: {e}")))?;
        if used != bytes.len() {
            return Err(invalid(path, "its header is longer than its contents"));
        }
        if let Some(config) = &header.backbone {
            config.validate().map_err(|e| invalid(path, e.to_string()))?;
        }
        let fixed = (MAGIC.len() + 4 + 8 + 4) as u64 + header_length;
        let expected = header
            .value_count()
            .and_then(|values| values.checked_mul(4))
            .and_then(|bytes| bytes.checked_add(fixed));
        if expected != Some(length) || header.grid.contains(&0) || header.input_size.contains(&0) {
            let reason = match expected {
                Some(expected) => format!("it has {length} bytes instead of {expected}"),
                None => "the sizes in its header are beyond all measure".into(),
            };
            return Err(invalid(path, reason));
        }
        Ok((header, body))
    }

    fn model(&mut self, header: &Header) -> Result<GaussianModel> {
        let d = header.indices.len();
        let positions = header.grid[0] * header.grid[1];
        let means = self.values(positions * d)?;
        let whitenings = self.values(positions * (d * (d + 1) / 2))?;
        GaussianModel::from_parts(d, header.grid, header.image_count, means, whitenings)
            .map_err(|e| invalid(self.path, e.to_string()))
    }

    fn convolutions(&mut self, config: &ResNetConfig) -> Result<Vec<FoldedConvolution>> {
        let read = |(name, shape): (String, [usize; 4])| {
            let weight = self.values(shape.iter().product())?;
            let bias = self.values(shape[0])?;
            Ok(FoldedConvolution { name, shape, weight, bias })
        };
        config.convolutions().into_iter().map(read).collect()
    }

    /// Reads the checksum and compares.
    fn finish(mut self) -> Result<()> {
        let actual = self.reader.checksum.clone().finalize();
        if u32::from_le_bytes(self.bytes()?) == actual {
            return Ok(());
        }
        Err(invalid(self.path, "its checksum is wrong: it was damaged after it was written"))
    }

    /// Reads `count` values. The file's length has been checked to hold them.
    fn values(&mut self, count: usize) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        values.try_reserve_exact(count).map_err(|_| {
            invalid(self.path, format!("its {count} values do not fit into memory"))
        })?;
        let mut buffer = vec![0; 4 * BLOCK.min(count)];
        while values.len() < count {
            let part = &mut buffer[..4 * BLOCK.min(count - values.len())];
            self.reader.read_exact(part).map_err(|e| self.failed(e))?;
            values.extend(f32_from_bytes(part));
        }
        Ok(values)
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(|e| self.failed(e))?;
        Ok(bytes)
    }

    fn failed(&self, error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return invalid(self.path, "it ends too early");
        }
        Error::io("read", self.path)(error)
    }
}

/// The number of values that are converted at a time.
const BLOCK: usize = 1 << 16;

fn write_f32(writer: &mut impl Write, values: &[f32]) -> io::Result<()> {
    values.chunks(BLOCK).try_for_each(|block| writer.write_all(&f32_to_bytes(block)))
}

struct ChecksumWriter<'a, W> {
    inner: &'a mut W,
    checksum: crc32fast::Hasher,
}

impl<W: Write> Write for ChecksumWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.checksum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct ChecksumReader<R> {
    inner: R,
    checksum: crc32fast::Hasher,
}

impl<R: Read> Read for ChecksumReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.checksum.update(&buffer[..read]);
        Ok(read)
    }
}
