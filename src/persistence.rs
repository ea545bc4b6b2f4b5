//! The file of a detector or of a partial fit.
//!
//! ```text
//! "PADIM\r\n\x1a"   8 bytes, as PNG's: shows damage by text conversion
//! version           u32
//! header length     u64
//! header            bincode: named sections, each bincode in itself; see below
//! backbone weights  f32, where embedded: weight and bias of each convolution
//! region            bits, row-major, the first pixel in the lowest bit
//! projection        f32, [components, channels]
//! means             f32, [positions, dimension]
//! scales            f32, [positions]
//! Gaussians         f32 or f16, [positions, numbers of a position]
//! statistics        block by block: vectors as f32, then mean, third, fourth and scatter as f64
//! tiles             means, scales and Gaussians of each further tile position
//! CRC-32            u32, of all before
//! ```
//!
//! All numbers are little-endian. An array is there if its section is in the header: `settings`
//! always, `backbone` (a residual network) or `efficientnet`, `region`, `projection`, `model`,
//! `statistics`, `decision`, `moving` and `tiles` where they apply. Every length follows from the header,
//! and must agree with the file's length before anything is allocated. A later version adds sections; a
//! section that is not known is refused.

mod settings;
mod tiles;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use bincode::config::{Configuration, LittleEndian, Varint};
use burn::tensor::Device;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::backbone::{
    Backbone, BackboneConfig, BackboneSnapshot, FoldedConvolution, FoldedParameters, LayerInfo,
};
use crate::decision::Decision;
use crate::detector::{Detector, Padim, PartialFit, Registration, TiledDetector};
use crate::embedding::{ChannelSelection, Extractor, PatchEmbedder, Projection};
use crate::error::{Error, Result};
use crate::files::{open, remove_left_over, write_atomically};
use crate::fingerprint::Fingerprint;
use crate::gaussian::{
    Block, GaussianModel, GaussianStatistics, ModelShape, Numbers, PackedSums, Positions,
    Precision, Storage, Tally,
};
use crate::preprocess::{InputRegion, Normalization, Preprocessor};
use crate::scoring::AnomalyScorer;
use crate::tiling::TilingConfig;
use settings::{FirstSettings, MovingSection};

const MAGIC: [u8; 8] = *b"PADIM\r\n\x1a";
const VERSION: u32 = 4;
/// What later ones added, an old file simply does not have.
const OLDEST_VERSION: u32 = 2;
/// A header holds settings and a few thousand indices.
const MAX_HEADER: usize = 1 << 20;

/// The names and contents of the sections.
type Sections = BTreeMap<String, Vec<u8>>;

/// Everything that decides an embedding or a map, besides what a section of its own holds.
#[derive(Serialize, Deserialize)]
struct Settings {
    config: FirstSettings,
    normalization: Normalization,
    layers: Vec<LayerInfo>,
    indices: Vec<usize>,
    input_size: [usize; 2],
    grid: [usize; 2],
    fingerprint: Fingerprint,
}

/// The fitted Gaussians.
#[derive(Serialize, Deserialize)]
struct ModelSection {
    storage: Storage,
    dimension: usize,
    rows: usize,
    count: usize,
}

/// What an estimator knows.
#[derive(Serialize, Deserialize)]
struct StatisticsSection {
    dimension: usize,
    tally: Tally,
    /// The number of positions of each block.
    blocks: Vec<usize>,
    /// Whether there are sums besides vectors.
    summed: bool,
}

#[derive(Serialize, Deserialize)]
struct ProjectionSection {
    components: usize,
}

/// What makes a detector one of tiles.
#[derive(Serialize, Deserialize)]
struct TilesSection {
    tiling: TilingConfig,
    image_size: Option<[usize; 2]>,
    /// The models but the first.
    others: Vec<ModelSection>,
}

/// All sections.
struct Header {
    settings: Settings,
    backbone: Option<BackboneConfig>,
    /// The region itself is an array, of the input's size.
    region: Option<()>,
    projection: Option<ProjectionSection>,
    model: Option<ModelSection>,
    statistics: Option<StatisticsSection>,
    decision: Option<Decision>,
    moving: MovingSection,
    tiles: Option<TilesSection>,
}

fn encoding() -> Configuration<LittleEndian, Varint, bincode::config::Limit<MAX_HEADER>> {
    bincode::config::standard().with_limit::<MAX_HEADER>()
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    bincode::serde::encode_to_vec(value, encoding())
        .map_err(|e| Error::config("detector", format!("cannot be encoded: {e}")))
}

fn decode<T: DeserializeOwned>(path: &Path, what: &str, bytes: &[u8]) -> Result<T> {
    match bincode::serde::decode_from_slice(bytes, encoding()) {
        Ok((value, used)) if used == bytes.len() => Ok(value),
        Ok(_) => Err(invalid(path, format!("{what} is longer than its contents"))),
        Err(e) => Err(invalid(path, format!("{what} is damaged: {e}"))),
    }
}

impl Header {
    fn encode(&self) -> Result<Vec<u8>> {
        let mut sections = Sections::new();
        let mut add = |name: &str, bytes| sections.insert(name.to_owned(), bytes);
        add("settings", encode(&self.settings)?);
        match &self.backbone {
            Some(BackboneConfig::ResNet(section)) => {
                add("backbone", encode(section)?);
            }
            Some(BackboneConfig::EfficientNet(section)) => {
                add("efficientnet", encode(section)?);
            }
            None => (),
        }
        if let Some(section) = &self.region {
            add("region", encode(section)?);
        }
        if let Some(section) = &self.projection {
            add("projection", encode(section)?);
        }
        if let Some(section) = &self.model {
            add("model", encode(section)?);
        }
        if let Some(section) = &self.statistics {
            add("statistics", encode(section)?);
        }
        if let Some(section) = &self.decision {
            add("decision", encode(section)?);
        }
        if self.moving != MovingSection::NONE {
            add("moving", encode(&self.moving)?);
        }
        if let Some(section) = &self.tiles {
            add("tiles", encode(section)?);
        }
        encode(&sections)
    }

    fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        let mut sections: Sections = decode(path, "its header", bytes)?;
        fn take<T: DeserializeOwned>(
            sections: &mut Sections,
            path: &Path,
            name: &str,
        ) -> Result<Option<T>> {
            let bytes = sections.remove(name);
            bytes.map(|b| decode(path, &format!("its section `{name}`"), &b)).transpose()
        }
        let residual = take(&mut sections, path, "backbone")?.map(BackboneConfig::ResNet);
        let efficient =
            take(&mut sections, path, "efficientnet")?.map(BackboneConfig::EfficientNet);
        if residual.is_some() && efficient.is_some() {
            return Err(invalid(path, "it has two backbones"));
        }
        let header = Self {
            settings: take(&mut sections, path, "settings")?
                .ok_or_else(|| invalid(path, "it has no settings"))?,
            backbone: residual.or(efficient),
            region: take(&mut sections, path, "region")?,
            projection: take(&mut sections, path, "projection")?,
            model: take(&mut sections, path, "model")?,
            statistics: take(&mut sections, path, "statistics")?,
            decision: take(&mut sections, path, "decision")?,
            moving: take(&mut sections, path, "moving")?.unwrap_or(MovingSection::NONE),
            tiles: take(&mut sections, path, "tiles")?,
        };
        match sections.keys().next() {
            Some(name) => {
                Err(invalid(path, format!("its section `{name}` is not known; update padim")))
            }
            None => Ok(header),
        }
    }

    /// Fails if the file is not of this kind, and says what loads it.
    fn require(&self, path: &Path, wanted: Kind) -> Result<()> {
        let (actual, holds, name) = match (&self.tiles, &self.model) {
            (Some(_), _) => (Kind::Tiles, "a detector of tiles", "TiledDetector"),
            (None, Some(_)) => (Kind::Detector, "a detector without tiles", "Detector"),
            (None, None) => (Kind::Fit, "a fit that is not finished", "PartialFit"),
        };
        if actual == wanted || (wanted, actual) == (Kind::Fit, Kind::Detector) {
            return Ok(());
        }
        let load = match actual != Kind::Fit && self.backbone.is_none() {
            true => "load_with_backbone",
            false => "load",
        };
        Err(invalid(path, format!("it holds {holds}; use `{name}::{load}`")))
    }

    /// Builds the backbone of the file from its weights, if it has one.
    fn embedded<'a>(
        &self,
        path: &'a Path,
        device: &'a Device,
    ) -> Result<impl FnOnce(Vec<FoldedConvolution>) -> Result<Arc<dyn Backbone>> + use<'a>> {
        let Some(config) = self.backbone.clone() else {
            return Err(Error::BackboneNotEmbedded {
                reason: format!(
                    "{} holds no backbone; use `load_with_backbone` with the weights {}",
                    path.display(),
                    self.settings.fingerprint
                ),
            });
        };
        Ok(move |convolutions: Vec<FoldedConvolution>| {
            let mut source = FoldedParameters { convolutions: convolutions.into_iter() };
            config
                .build(&mut source, device)
                .map_err(|e| invalid(path, format!("its backbone cannot be built: {e}")))
        })
    }

    /// The number of bytes of all arrays, unless it is beyond all measure or they do not fit
    /// together. `positions` of the grid are looked at.
    fn array_bytes(&self, positions: usize) -> Option<u64> {
        // Those that have a Gaussian.
        let positions = if self.moving.pooled { positions.min(1) } else { positions };
        let product = |factors: &[usize]| {
            factors.iter().try_fold(1_u64, |product, &n| product.checked_mul(n as u64))
        };
        let mut total = 0_u64;
        let mut add = |bytes: u64| {
            total = total.checked_add(bytes)?;
            Some(())
        };
        for (_, shape) in self.backbone.iter().flat_map(BackboneConfig::convolutions) {
            add(product(&shape)?.checked_add(shape[0] as u64)?.checked_mul(4)?)?;
        }
        if self.region.is_some() {
            add(product(&self.settings.input_size)?.div_ceil(8))?;
        }
        if let Some(projection) = &self.projection {
            add(product(&[4, projection.components, self.settings.indices.len()])?)?;
        }
        let others = self.tiles.iter().flat_map(|tiles| &tiles.others);
        for model in self.model.iter().chain(others) {
            let ModelSection { storage, dimension, rows, .. } = *model;
            let each = storage.numbers(dimension, rows)?;
            add(product(&[4, positions, dimension.checked_add(1)?])?)?;
            add(product(&[storage.precision().bytes(), positions, each])?)?;
        }
        if let Some(statistics) = &self.statistics {
            let StatisticsSection { dimension, tally, blocks, summed } = statistics;
            let held: usize = blocks.iter().try_fold(0, |sum: usize, &n| sum.checked_add(n))?;
            if held != positions {
                return None;
            }
            add(product(&[4, positions, *dimension, tally.weights.len()])?)?;
            if *summed {
                let triangle = product(&[*dimension, dimension.checked_add(1)?])? / 2;
                let each = triangle.checked_add(product(&[2, *dimension])?)?.checked_add(1)?;
                add(each.checked_mul(positions as u64)?.checked_mul(8)?)?;
            }
        }
        Some(total)
    }
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
        let snapshot = self.snapshot()?;
        self.write(path.as_ref(), Some(snapshot), None)
    }

    /// Saves everything but the backbone's weights, of which only the fingerprint is kept. Load it
    /// with [`load_with_backbone`](Self::load_with_backbone).
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be written.
    pub fn save_without_backbone(&self, path: impl AsRef<Path>) -> Result<()> {
        self.write(path.as_ref(), None, None)
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
        read(path.as_ref(), Kind::Detector, |header, body| {
            let backbone = header.embedded(body.path, device)?;
            body.detector(header, backbone)
        })
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
        Self::load_with_shared_backbone(path, Arc::new(backbone))
    }

    /// As [`load_with_backbone`](Self::load_with_backbone), with a backbone that others use too.
    ///
    /// # Errors
    ///
    /// As [`load_with_backbone`](Self::load_with_backbone).
    pub fn load_with_shared_backbone(
        path: impl AsRef<Path>,
        backbone: Arc<dyn Backbone>,
    ) -> Result<Self> {
        read(path.as_ref(), Kind::Detector, |header, body| {
            body.detector(header, |_embedded| Ok(backbone))
        })
    }

    fn snapshot(&self) -> Result<BackboneSnapshot> {
        self.padim.backbone.snapshot()?.ok_or_else(|| Error::BackboneNotEmbedded {
            reason: "this backbone cannot be embedded in a detector file; use \
                     `save_without_backbone` and `load_with_backbone`"
                .into(),
        })
    }

    fn write(
        &self,
        path: &Path,
        snapshot: Option<BackboneSnapshot>,
        tiles: Option<&TiledDetector>,
    ) -> Result<()> {
        let contents = Contents {
            padim: &self.padim,
            input_size: self.input_size,
            snapshot,
            model: Some(&self.model),
            statistics: self.statistics.as_ref(),
            decision: self.decision.as_ref(),
            tiles,
        };
        contents.write(path, self.model.grid())
    }
}

impl PartialFit {
    /// Saves what is known of the images so far, and all settings, but not the backbone's weights.
    ///
    /// The file is written beside its target and renamed when complete; on an error nothing is left
    /// behind, and a file that was there before stays as it was.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let contents = Contents {
            padim: &self.padim,
            input_size: self.input_size,
            snapshot: None,
            model: None,
            statistics: Some(&self.statistics),
            decision: None,
            tiles: None,
        };
        contents.write(path.as_ref(), self.statistics.positions().grid())
    }

    /// Loads a partial fit, or the statistics that a detector has kept, and uses it with the given
    /// backbone.
    ///
    /// # Errors
    ///
    /// [`Error::BackboneMismatch`] if the backbone has other weights than those of the fit,
    /// [`Error::NoState`] for a detector that has kept nothing of its images; [`Error::Io`],
    /// [`Error::InvalidDetectorFile`] or [`Error::UnsupportedVersion`] if the file cannot be used.
    pub fn load(path: impl AsRef<Path>, backbone: Arc<dyn Backbone>) -> Result<Self> {
        read(path.as_ref(), Kind::Fit, |header, body| {
            if header.statistics.is_none() {
                return Err(Error::NoState);
            }
            let parts = body.parts(header, |_embedded| Ok(backbone))?;
            let statistics = parts.statistics.ok_or(Error::NoState)?;
            Ok(Self { padim: parts.padim, input_size: parts.input_size, statistics })
        })
    }
}

/// What is written to a file.
struct Contents<'a> {
    padim: &'a Padim,
    input_size: [usize; 2],
    snapshot: Option<BackboneSnapshot>,
    model: Option<&'a GaussianModel>,
    statistics: Option<&'a GaussianStatistics>,
    decision: Option<&'a Decision>,
    tiles: Option<&'a TiledDetector>,
}

impl Contents<'_> {
    fn write(self, path: &Path, grid: [usize; 2]) -> Result<()> {
        let Padim { config, backbone, embedder, region, .. } = self.padim;
        let (network, convolutions) = match self.snapshot {
            Some(snapshot) => (Some(snapshot.config), snapshot.parameters),
            None => (None, Vec::new()),
        };
        let header = Header {
            settings: Settings {
                config: FirstSettings::of(config),
                normalization: backbone.normalization(),
                layers: backbone.layers().to_vec(),
                indices: embedder.indices().to_vec(),
                input_size: self.input_size,
                grid,
                fingerprint: backbone.fingerprint(),
            },
            backbone: network,
            region: region.as_ref().map(|_| ()),
            projection: embedder
                .projection()
                .map(|projection| ProjectionSection { components: projection.components() }),
            model: self.model.map(ModelSection::of),
            statistics: self.statistics.map(|statistics| StatisticsSection {
                dimension: statistics.dimension(),
                tally: statistics.tally().clone(),
                blocks: statistics.blocks().iter().map(|block| block.positions).collect(),
                summed: statistics.blocks().iter().any(|block| block.sums.is_some()),
            }),
            decision: self.decision.cloned(),
            moving: MovingSection::of(self.padim),
            tiles: self.tiles.map(TilesSection::of),
        };
        let header = header.encode()?;
        remove_left_over(path);
        write_atomically(path, |file| {
            let mut writer = ChecksumWriter { inner: file, checksum: crc32fast::Hasher::new() };
            writer.write_all(&MAGIC)?;
            writer.write_all(&VERSION.to_le_bytes())?;
            writer.write_all(&(header.len() as u64).to_le_bytes())?;
            writer.write_all(&header)?;
            for convolution in &convolutions {
                write(&mut writer, &convolution.weight)?;
                write(&mut writer, &convolution.bias)?;
            }
            if let Some(region) = region {
                let byte = |bits: &[bool]| {
                    bits.iter().enumerate().fold(0_u8, |byte, (i, &bit)| byte | u8::from(bit) << i)
                };
                writer.write_all(&region.mask().chunks(8).map(byte).collect::<Vec<u8>>())?;
            }
            if let Some(projection) = embedder.projection() {
                write(&mut writer, projection.matrix())?;
            }
            if let Some(model) = self.model {
                write_model(&mut writer, model)?;
            }
            for block in self.statistics.map_or(&[][..], GaussianStatistics::blocks) {
                write(&mut writer, &block.samples)?;
                if let Some(PackedSums { mean, third, fourth, scatter }) = &block.sums {
                    for values in [mean, third, fourth, scatter] {
                        write(&mut writer, values)?;
                    }
                }
            }
            for model in self.tiles.map_or(&[][..], |tiles| &tiles.others) {
                write_model(&mut writer, model)?;
            }
            let checksum = writer.checksum.clone().finalize();
            writer.inner.write_all(&checksum.to_le_bytes())
        })
    }
}

fn write_model(writer: &mut impl Write, model: &GaussianModel) -> io::Result<()> {
    write(writer, model.means())?;
    write(writer, model.scales())?;
    match model.numbers() {
        Numbers::F32(values) => write(writer, values),
        Numbers::F16(bits) => write(writer, bits),
    }
}

impl ModelSection {
    fn of(model: &GaussianModel) -> Self {
        let ModelShape { storage, dimension, rows, count, .. } = model.shape();
        Self { storage, dimension, rows, count }
    }
}

/// What a file has given.
struct Parts {
    padim: Padim,
    input_size: [usize; 2],
    model: Option<GaussianModel>,
    statistics: Option<GaussianStatistics>,
    /// The models of further tile positions.
    others: Vec<GaussianModel>,
}

impl Parts {
    /// The detector of a file, or of its first tile.
    fn detector(self, path: &Path, decision: Option<Decision>) -> Result<Detector> {
        let Self { padim, input_size, model, statistics, .. } = self;
        let model = model.ok_or_else(|| invalid(path, "it holds no Gaussians"))?;
        let detector = Detector { padim, input_size, model, statistics, decision: None };
        detector.with_decision(decision).map_err(|e| invalid(path, e.to_string()))
    }
}

impl Settings {
    fn into_padim(
        self,
        path: &Path,
        moving: MovingSection,
        backbone: Arc<dyn Backbone>,
        projection: Option<Projection>,
    ) -> Result<Padim> {
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
        let registration = moving.registration.clone().map(Registration::from_stored);
        let config = self.config.with(moving);
        config.validate().map_err(checked)?;
        if config.preprocess.input_size().is_some_and(|size| size != self.input_size) {
            return Err(invalid(path, "its input size is not that of its settings"));
        }
        let selection = ChannelSelection::Indices(self.indices);
        let mut embedder = PatchEmbedder::new(&channels, &selection).map_err(checked)?;
        if let Some(projection) = projection {
            embedder = embedder.with_projection(projection).map_err(checked)?;
        }
        Ok(Padim {
            preprocessor: Preprocessor::new(config.preprocess.clone(), self.normalization)
                .map_err(checked)?,
            scorer: AnomalyScorer::new(config.scoring.clone()).map_err(checked)?,
            extractor: Extractor::new(&backbone, &embedder),
            embedder,
            config,
            backbone,
            region: None,
            registration,
            precision: Precision::F32,
        })
    }
}

/// What a file can be loaded as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Detector,
    Tiles,
    /// Of a detector, too: the statistics that it has kept.
    Fit,
}

/// Reads a file of a kind. If it is damaged, the error says so, whatever the damage has led to.
fn read<T>(
    path: &Path,
    kind: Kind,
    use_file: impl FnOnce(Header, Body<'_>) -> Result<T>,
) -> Result<T> {
    let outcome = Body::open(path).and_then(|(header, body)| {
        header.require(path, kind)?;
        use_file(header, body)
    });
    outcome.map_err(|error| match error {
        Error::Io { .. } | Error::UnsupportedVersion { .. } => error,
        _ if !is_damaged(path) => error,
        Error::InvalidDetectorFile { reason, .. } if reason != DAMAGED => {
            invalid(path, format!("{reason} ({DAMAGED})"))
        }
        _ => invalid(path, DAMAGED),
    })
}

const DAMAGED: &str = "its checksum is wrong: it was damaged after it was written";

/// Whether a file that begins as those of this version has another checksum than it says.
fn is_damaged(path: &Path) -> bool {
    let checksums = || -> io::Result<bool> {
        let length = std::fs::metadata(path)?.len();
        let mut reader = ChecksumReader {
            inner: BufReader::with_capacity(1 << 20, File::open(path)?),
            checksum: crc32fast::Hasher::new(),
        };
        let mut begin = [0; MAGIC.len() + 4];
        reader.read_exact(&mut begin)?;
        let (magic, version) = begin.split_at(MAGIC.len());
        let known = (OLDEST_VERSION..=VERSION).any(|known| version == known.to_le_bytes());
        if magic != MAGIC || !known {
            return Ok(false);
        }
        let contents = length.saturating_sub(4 + begin.len() as u64);
        io::copy(&mut reader.by_ref().take(contents), &mut io::sink())?;
        let actual = reader.checksum.clone().finalize();
        let mut stored = [0; 4];
        reader.read_exact(&mut stored)?;
        Ok(stored != actual.to_le_bytes())
    };
    checksums().unwrap_or(false)
}

fn invalid(path: &Path, reason: impl Into<String>) -> Error {
    Error::InvalidDetectorFile { path: path.to_owned(), reason: reason.into() }
}

/// The arrays of an open file, in their order.
struct Body<'a> {
    path: &'a Path,
    reader: ChecksumReader<BufReader<File>>,
    /// The length of the whole file.
    length: u64,
    header_length: u64,
}

impl<'a> Body<'a> {
    /// Reads and checks everything before the arrays.
    fn open(path: &'a Path) -> Result<(Header, Self)> {
        let (file, length) = open(path)?;
        let reader = ChecksumReader {
            inner: BufReader::with_capacity(1 << 20, file),
            checksum: crc32fast::Hasher::new(),
        };
        let mut body = Self { path, reader, length, header_length: 0 };

        if body.bytes::<8>()? != MAGIC {
            return Err(invalid(path, "it does not begin as a padim detector does"));
        }
        let version = u32::from_le_bytes(body.bytes()?);
        if version < OLDEST_VERSION {
            return Err(invalid(path, "it was written before the first release; fit again"));
        }
        if version > VERSION {
            let path = path.to_owned();
            return Err(Error::UnsupportedVersion { path, version, supported: VERSION });
        }
        body.header_length = u64::from_le_bytes(body.bytes()?);
        if body.header_length > MAX_HEADER as u64 {
            let claimed = body.header_length;
            let reason = format!("its header claims {claimed} bytes, {MAX_HEADER} are allowed");
            return Err(invalid(path, reason));
        }
        let mut bytes = vec![0; body.header_length as usize];
        body.reader.read_exact(&mut bytes).map_err(|e| body.failed(e))?;
        let header = Header::decode(path, &bytes)?;
        if let Some(config) = &header.backbone {
            config.validate().map_err(|e| invalid(path, e.to_string()))?;
        }
        let Settings { grid, input_size, .. } = &header.settings;
        if grid.contains(&0) || input_size.contains(&0) {
            return Err(invalid(path, "it has an empty grid or input"));
        }
        // A region can only leave out positions: what it leaves shows when it has been read.
        let most = grid[0].checked_mul(grid[1]).and_then(|all| header.array_bytes(all));
        if header.region.is_none() {
            body.check_length(most)?;
        } else if input_size[0].checked_mul(input_size[1]).is_none_or(|n| n as u64 / 8 > length)
            || grid.iter().zip(input_size).any(|(positions, pixels)| positions > pixels)
        {
            return Err(invalid(path, "its region, grid and input do not fit together"));
        }
        Ok((header, body))
    }

    fn check_length(&self, array_bytes: Option<u64>) -> Result<()> {
        let fixed = (MAGIC.len() + 4 + 8 + 4) as u64 + self.header_length;
        let expected = array_bytes.and_then(|bytes| bytes.checked_add(fixed));
        if expected == Some(self.length) {
            return Ok(());
        }
        let reason = match expected {
            Some(expected) => format!(
                "it has {} bytes instead of {expected}: it was cut off, or damaged",
                self.length
            ),
            None => "the sizes in its header do not fit together".into(),
        };
        Err(invalid(self.path, reason))
    }

    fn detector(
        self,
        header: Header,
        backbone: impl FnOnce(Vec<FoldedConvolution>) -> Result<Arc<dyn Backbone>>,
    ) -> Result<Detector> {
        let path = self.path;
        let decision = header.decision.clone();
        self.parts(header, backbone)?.detector(path, decision)
    }

    fn parts(
        mut self,
        header: Header,
        backbone: impl FnOnce(Vec<FoldedConvolution>) -> Result<Arc<dyn Backbone>>,
    ) -> Result<Parts> {
        let path = self.path;
        let Settings { grid, input_size, .. } = header.settings;
        let checked = |error: Error| invalid(path, error.to_string());
        // The network first: what it takes to build one is free again when the Gaussians come.
        let convolutions = match &header.backbone {
            Some(config) => self.convolutions(config)?,
            None => Vec::new(),
        };
        let region = match header.region {
            None => None,
            Some(()) => {
                let pixels = input_size[0] * input_size[1];
                let bytes: Vec<u8> = self.values(pixels.div_ceil(8))?;
                let bit = |i: usize| bytes[i / 8] >> (i % 8) & 1 == 1;
                Some(
                    InputRegion::new(input_size, (0..pixels).map(bit).collect())
                        .map_err(checked)?,
                )
            }
        };
        let positions = match &region {
            Some(region) => Positions::inside(grid, &region.positions(grid)),
            None => Positions::all(grid),
        };
        let positions = positions.map_err(checked)?.with_pooled(header.moving.pooled);
        self.check_length(header.array_bytes(positions.len()))?;
        let backbone = backbone(convolutions)?;
        let projection = match header.projection {
            Some(ProjectionSection { components }) => {
                let channels = header.settings.indices.len();
                let matrix = self.values(components * channels)?;
                Some(Projection::new(components, channels, matrix).map_err(checked)?)
            }
            None => None,
        };
        let mut padim = header.settings.into_padim(path, header.moving, backbone, projection)?;
        padim.region = region;
        let dimension = padim.embedder.dimension();
        padim.config.gaussian.check(dimension).map_err(checked)?;
        let model = match header.model {
            Some(section) => Some(self.model(section, dimension, &positions)?),
            None => None,
        };
        let statistics = match header.statistics {
            Some(section) => {
                let (tally, blocks) = self.statistics(section, dimension, &positions)?;
                let positions = positions.clone();
                Some(GaussianStatistics::from_parts(dimension, positions, tally, blocks))
            }
            None => None,
        };
        let others = header.tiles.map_or(Vec::new(), |tiles| tiles.others).into_iter();
        let others = others.map(|section| self.model(section, dimension, &positions));
        let others = others.collect::<Result<_>>()?;
        self.finish()?;
        Ok(Parts { padim, input_size, model, statistics, others })
    }

    fn model(
        &mut self,
        section: ModelSection,
        dimension: usize,
        positions: &Positions,
    ) -> Result<GaussianModel> {
        let ModelSection { storage, rows, count, .. } = section;
        if section.dimension != dimension {
            return Err(invalid(self.path, "its Gaussians do not fit its channels"));
        }
        let positions = positions.clone();
        let shape = ModelShape { storage, dimension, rows, positions, count };
        let each = shape.numbers().unwrap_or(0);
        let total = shape.positions.gaussians();
        let means = self.values(total * dimension)?;
        let scales = self.values(total)?;
        let numbers = match storage.precision() {
            Precision::F32 => Numbers::F32(self.values(total * each)?),
            Precision::F16 => Numbers::F16(self.values(total * each)?),
        };
        GaussianModel::from_parts(shape, means, scales, numbers)
            .map_err(|e| invalid(self.path, e.to_string()))
    }

    fn statistics(
        &mut self,
        section: StatisticsSection,
        dimension: usize,
        positions: &Positions,
    ) -> Result<(Tally, Vec<Block>)> {
        let StatisticsSection { tally, blocks: sizes, summed, .. } = section;
        let damaged = |reason: &str| Err(invalid(self.path, reason));
        // In this order: of no images and no dimensions, the file could claim any number of positions.
        // Vectors that are pooled are never kept.
        if !tally.is_sound(summed) || positions.pooled() && !(summed && tally.weights.is_empty()) {
            return damaged("the weights of its images cannot be");
        }
        if section.dimension != dimension {
            return damaged("its statistics do not fit its channels");
        }
        let mut blocks = Block::cut(positions.gaussians(), dimension);
        if !sizes.iter().eq(blocks.iter().map(|b| &b.positions)) {
            return damaged("its statistics do not fit its positions");
        }
        for block in &mut blocks {
            let samples: Vec<f32> =
                self.values(tally.weights.len() * block.positions * dimension)?;
            block.samples = samples.into();
            if !block.samples.iter().all(|v| v.is_finite()) {
                return Err(invalid(self.path, "its statistics are not all numbers"));
            }
            if summed {
                let [mean, third, fourth, scatter] =
                    PackedSums::lengths(block.positions, dimension);
                let sums = PackedSums {
                    mean: self.values(mean)?,
                    third: self.values(third)?,
                    fourth: self.values(fourth)?,
                    scatter: self.values(scatter)?,
                };
                let arrays = [&sums.mean, &sums.third, &sums.fourth, &sums.scatter];
                if !arrays.iter().all(|values| values.iter().all(|v| v.is_finite())) {
                    return Err(invalid(self.path, "its statistics are not all numbers"));
                }
                block.sums = Some(sums);
            }
        }
        Ok((tally, blocks))
    }

    fn convolutions(&mut self, config: &BackboneConfig) -> Result<Vec<FoldedConvolution>> {
        let read = |(name, shape): (String, [usize; 4])| {
            let count = shape.iter().try_fold(1_usize, |count, &n| count.checked_mul(n));
            let count = count.filter(|&count| count as u64 <= self.length / 4);
            let Some(count) = count else {
                return Err(invalid(self.path, "it is too short for its backbone"));
            };
            let weight = self.values(count)?;
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
        Err(invalid(self.path, DAMAGED))
    }

    /// Reads `count` values a block at a time. The file's length has been checked to hold them.
    fn values<T: Value>(&mut self, count: usize) -> Result<Vec<T>> {
        let mut values = Vec::new();
        values.try_reserve_exact(count).map_err(|_| {
            invalid(self.path, format!("its {count} values do not fit into memory"))
        })?;
        let mut buffer = vec![0; T::BYTES * BLOCK.min(count)];
        while values.len() < count {
            let part = &mut buffer[..T::BYTES * BLOCK.min(count - values.len())];
            self.reader.read_exact(part).map_err(|e| self.failed(e))?;
            values.extend(part.chunks_exact(T::BYTES).map(T::from_bytes));
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

/// A number that arrays in files consist of.
trait Value: Copy {
    const BYTES: usize;
    /// Little-endian; `bytes` are as many.
    fn from_bytes(bytes: &[u8]) -> Self;
    fn append_to(self, bytes: &mut Vec<u8>);
}

macro_rules! value {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const BYTES: usize = size_of::<$type>();

            fn from_bytes(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<$type>()];
                own.copy_from_slice(bytes);
                Self::from_le_bytes(own)
            }

            fn append_to(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

value!(u8, u16, f32, f64);

fn write<T: Value>(writer: &mut impl Write, values: &[T]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(T::BYTES * BLOCK.min(values.len()));
    values.chunks(BLOCK).try_for_each(|block| {
        bytes.clear();
        block.iter().for_each(|value| value.append_to(&mut bytes));
        writer.write_all(&bytes)
    })
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
