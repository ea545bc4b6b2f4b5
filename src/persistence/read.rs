//! Reads a file.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use super::format::{CHUNK, ChecksumReader, MAGIC, MAX_HEADER, VERSION, Value, invalid};
use super::header::{Header, Kind, ModelSection, ProjectionSection, Settings, StatisticsSection};
use crate::backbone::{Backbone, FoldedConvolution};
use crate::decision::Thresholds;
use crate::detector::{Detector, Padim, Registration};
use crate::embedding::{ChannelSelection, PatchEmbedder, Projection};
use crate::error::{Error, FileKind, Result};
use crate::files::open;
use crate::gaussian::{
    Block, GaussianModel, GaussianStatistics, ImageWeights, ModelShape, Numbers, PackedSums,
    Positions, Precision,
};
use crate::host::{all_finite, all_of};
use crate::preprocess::InputRegion;

/// The contents of a file.
pub struct Parts {
    pub padim: Padim,
    pub input_size: [usize; 2],
    pub model: Option<GaussianModel>,
    pub statistics: Option<GaussianStatistics>,
    /// The models of further tile positions.
    pub others: Vec<GaussianModel>,
    thresholds: Option<Thresholds>,
    good_peak: Option<f32>,
    metadata: BTreeMap<String, String>,
}

impl Parts {
    /// Builds the detector of a file, or the detector of the first tile.
    pub fn detector(self, path: &Path) -> Result<Detector> {
        let Self { padim, input_size, model, statistics, metadata, good_peak, .. } = self;
        let model = model.ok_or_else(|| invalid(path, "it holds no Gaussians"))?;
        let mut detector = Detector {
            statistics: statistics.map(Arc::new),
            metadata,
            good_peak: good_peak.filter(|peak| peak.is_finite()),
            ..Detector::new(padim, input_size, model)
        };
        detector.set_thresholds(self.thresholds).map_err(|e| invalid(path, e.to_string()))?;
        Ok(detector)
    }
}

impl Settings {
    fn into_padim(
        self,
        path: &Path,
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
        let registration = self.registration.map(Registration::from_stored);
        let config = self.config;
        config.validate().map_err(checked)?;
        if config.preprocess.input_size().is_some_and(|size| size != self.input_size) {
            return Err(invalid(path, "its input size is not that of its settings"));
        }
        let selection = ChannelSelection::Indices(self.indices);
        let mut embedder = PatchEmbedder::new(&channels, &selection).map_err(checked)?;
        if let Some(projection) = projection {
            embedder = embedder.with_projection(projection).map_err(checked)?;
        }
        let padim = Padim::assembled(config, backbone, embedder).map_err(checked)?;
        Ok(Padim { registration, ..padim })
    }
}

/// A function that gives the backbone of a file; it reads or skips the embedded weights.
pub type MakeBackbone<'a> = dyn FnOnce(&Header, &mut Body<'_>) -> Result<Arc<dyn Backbone>> + 'a;

/// Reads a file of a kind. If the checksum is wrong, every error says so.
pub fn read<T>(
    path: &Path,
    kind: Kind,
    use_file: impl FnOnce(Header, &mut Body<'_>) -> Result<T>,
) -> Result<T> {
    let (file, length) = open(FileKind::Detector, path)?;
    let reader = Box::new(BufReader::with_capacity(1 << 20, file));
    read_body(Body::new(path, reader, length), kind, use_file)
}

/// As [`read`], from any reader. The whole file is in memory while it is read.
pub fn read_from<T>(
    mut reader: impl Read,
    kind: Kind,
    use_file: impl FnOnce(Header, &mut Body<'_>) -> Result<T>,
) -> Result<T> {
    let name = Path::new("the given reader");
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(Error::io(FileKind::Detector, "read", name))?;
    let length = bytes.len() as u64;
    read_body(Body::new(name, Box::new(Cursor::new(bytes)), length), kind, use_file)
}

fn read_body<T>(
    mut body: Body<'_>,
    kind: Kind,
    use_file: impl FnOnce(Header, &mut Body<'_>) -> Result<T>,
) -> Result<T> {
    let path = body.path;
    let outcome = body.open().and_then(|header| {
        header.require(path, kind)?;
        use_file(header, &mut body)
    });
    outcome.map_err(|error| match error {
        Error::Io { .. } | Error::UnsupportedVersion { .. } => error,
        _ if !body.is_damaged() => error,
        Error::InvalidDetectorFile { reason, .. } if reason != DAMAGED => {
            invalid(path, format!("{reason} ({DAMAGED})"))
        }
        _ => invalid(path, DAMAGED),
    })
}

const DAMAGED: &str = "its checksum is wrong: it was damaged after it was written";

/// The arrays of an open file, in their order.
pub struct Body<'a> {
    pub path: &'a Path,
    reader: ChecksumReader<'a>,
    /// The length of the whole file.
    length: u64,
    header_length: u64,
    /// Whether the magic bytes and the version are right.
    known: bool,
    /// The names and shapes of the embedded convolutions.
    convolutions: Vec<(String, [usize; 4])>,
}

impl<'a> Body<'a> {
    fn new(path: &'a Path, reader: Box<dyn Read + 'a>, length: u64) -> Self {
        let reader = ChecksumReader::new(reader);
        Self { path, reader, length, header_length: 0, known: false, convolutions: Vec::new() }
    }

    /// Reads and checks everything before the arrays.
    fn open(&mut self) -> Result<Header> {
        let (path, length) = (self.path, self.length);
        if self.bytes::<8>()? != MAGIC {
            return Err(invalid(path, "it does not begin with the bytes of a padim file"));
        }
        let version = u32::from_le_bytes(self.bytes()?);
        if version != VERSION {
            let path = path.to_owned();
            return Err(Error::UnsupportedVersion { path, version, supported: VERSION });
        }
        self.known = true;
        self.header_length = u64::from_le_bytes(self.bytes()?);
        if self.header_length > length.min(MAX_HEADER as u64) {
            let claimed = self.header_length;
            let most = length.min(MAX_HEADER as u64);
            let reason = format!("its header claims {claimed} bytes, {most} are possible");
            return Err(invalid(path, reason));
        }
        let mut bytes = vec![0; self.header_length as usize];
        self.reader.read_exact(&mut bytes).map_err(|e| self.failed(e))?;
        let header = Header::decode(path, &bytes)?;
        self.convolutions = header.convolutions(path)?;
        let Settings { grid, input_size, .. } = &header.settings;
        if grid.contains(&0) || input_size.contains(&0) {
            return Err(invalid(path, "it has an empty grid or input"));
        }
        // The number of positions inside a region is known only after reading the region.
        let all = grid[0].checked_mul(grid[1]);
        let most = all.and_then(|all| header.array_bytes(&self.convolutions, all));
        if header.region.is_none() {
            self.check_length(most)?;
        } else if input_size[0].checked_mul(input_size[1]).is_none_or(|n| n as u64 / 8 > length)
            || grid.iter().zip(input_size).any(|(positions, pixels)| positions > pixels)
        {
            return Err(invalid(path, "its region, grid and input do not fit together"));
        }
        Ok(header)
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

    /// Reads a detector, or the detector of the first tile.
    pub fn detector(&mut self, header: Header, backbone: Box<MakeBackbone>) -> Result<Detector> {
        let path = self.path;
        self.parts(header, backbone)?.detector(path)
    }

    /// Reads all arrays.
    pub fn parts(&mut self, header: Header, backbone: Box<MakeBackbone>) -> Result<Parts> {
        let path = self.path;
        let Settings { grid, input_size, .. } = header.settings;
        let checked = |error: Error| invalid(path, error.to_string());
        // The network first, so that the temporary memory for building it is free again when the
        // Gaussians are read.
        let backbone = backbone(&header, self)?;
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
        let inside = region.as_ref().map(|region| region.positions(grid));
        let pooled = header.settings.config.gaussian.pooled;
        let positions = Positions::of(grid, inside.as_deref(), pooled).map_err(checked)?;
        self.check_length(header.array_bytes(&self.convolutions, positions.len()))?;
        let projection = match header.projection {
            Some(ProjectionSection { components }) => {
                let channels = header.settings.indices.len();
                let matrix = self.values(components * channels)?;
                Some(Projection::new(components, channels, matrix).map_err(checked)?)
            }
            None => None,
        };
        let mut padim = header.settings.into_padim(path, backbone, projection)?;
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
        let others = header.tile_models.into_iter();
        let others = others.map(|section| self.model(section, dimension, &positions));
        let others = others.collect::<Result<_>>()?;
        self.finish()?;
        let Header { thresholds, good_peak, metadata, .. } = header;
        Ok(Parts { padim, input_size, model, statistics, others, thresholds, good_peak, metadata })
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
    ) -> Result<(ImageWeights, Vec<Block>)> {
        let StatisticsSection { tally, blocks: sizes, summed, .. } = section;
        let path = self.path;
        let damaged = |reason: &str| Err(invalid(path, reason));
        let not_finite = || damaged("its statistics hold NaN or infinite values");
        // Checked first: with zero images or dimensions, the length of the file would not limit the
        // number of positions. Pooled statistics have only sums, no vectors.
        if !tally.is_sound(summed) || positions.pooled() && !(summed && tally.weights.is_empty()) {
            return damaged("the weights of its images are invalid");
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
            if !all_finite(&block.samples) {
                return not_finite();
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
                if !sums.arrays().iter().all(|values| all_of(values, |v| v.is_finite())) {
                    return not_finite();
                }
                block.sums = Some(sums);
            }
        }
        Ok((tally, blocks))
    }

    /// Reads the embedded weights of the backbone. With a region, the file's length is not checked yet.
    pub fn convolutions(&mut self) -> Result<Vec<FoldedConvolution>> {
        let places = self.convolutions.clone();
        let read = |(name, shape): (String, [usize; 4])| {
            let count = self.weight_count(shape)?;
            let weight = self.values(count)?;
            let bias = self.values(shape[0])?;
            Ok(FoldedConvolution { name, shape, weight, bias })
        };
        places.into_iter().map(read).collect()
    }

    /// Skips the embedded weights of the backbone.
    pub fn skip_convolutions(&mut self) -> Result<()> {
        for (_, shape) in self.convolutions.clone() {
            let count = (self.weight_count(shape)? + shape[0]) as u64 * 4;
            let skipped = io::copy(&mut self.reader.by_ref().take(count), &mut io::sink());
            if skipped.map_err(|e| self.failed(e))? != count {
                return Err(invalid(self.path, "it ends too early"));
            }
        }
        Ok(())
    }

    fn weight_count(&self, shape: [usize; 4]) -> Result<usize> {
        let count = shape.iter().try_fold(1_usize, |count, &n| count.checked_mul(n));
        let count = count.filter(|&count| count as u64 <= self.length / 4);
        count.ok_or_else(|| invalid(self.path, "it is too short for its backbone"))
    }

    /// Checks the checksum at the end.
    fn finish(&mut self) -> Result<()> {
        let actual = self.reader.checksum();
        if u32::from_le_bytes(self.bytes()?) == actual {
            return Ok(());
        }
        Err(invalid(self.path, DAMAGED))
    }

    /// Reads the rest of the file after an error, and returns whether the checksum is wrong.
    fn is_damaged(&mut self) -> bool {
        let rest = self.length.saturating_sub(4).checked_sub(self.reader.position());
        let (true, Some(rest)) = (self.known, rest) else { return false };
        if io::copy(&mut self.reader.by_ref().take(rest), &mut io::sink()).is_err() {
            return false;
        }
        let actual = self.reader.checksum();
        self.bytes().is_ok_and(|stored| u32::from_le_bytes(stored) != actual)
    }

    /// Reads `count` values in chunks. The caller has checked that the file is long enough.
    fn values<T: Value>(&mut self, count: usize) -> Result<Vec<T>> {
        let mut values = Vec::new();
        values.try_reserve_exact(count).map_err(|_| {
            invalid(self.path, format!("its {count} values do not fit into memory"))
        })?;
        let mut buffer = vec![0; T::BYTES * CHUNK.min(count)];
        while values.len() < count {
            let part = &mut buffer[..T::BYTES * CHUNK.min(count - values.len())];
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
        Error::io(FileKind::Detector, "read", self.path)(error)
    }
}
