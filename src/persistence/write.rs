//! Writes a file.

use std::io::{self, Write};
use std::path::Path;

use super::format::{ChecksumWriter, MAGIC, VERSION, write_values};
use super::header::{
    BackboneSection, Header, ModelSection, ProjectionSection, Settings, StatisticsSection,
    TilesSection,
};
use crate::backbone::{BackboneSnapshot, FoldedConvolution};
use crate::detector::{Detector, Padim, Registration, TiledDetector};
use crate::error::{Error, FileKind, Result};
use crate::files::{remove_left_over, write_atomically};
use crate::gaussian::{GaussianModel, GaussianStatistics, Numbers, PackedSums};

/// The contents of a file.
pub struct Contents<'a> {
    pub padim: &'a Padim,
    pub input_size: [usize; 2],
    pub grid: [usize; 2],
    pub snapshot: Option<BackboneSnapshot>,
    pub detector: Option<&'a Detector>,
    pub statistics: Option<&'a GaussianStatistics>,
    pub tiles: Option<&'a TiledDetector>,
}

impl<'a> Contents<'a> {
    /// The contents for a detector. `embed`: whether to write the backbone's weights.
    pub fn of(
        detector: &'a Detector,
        embed: bool,
        tiles: Option<&'a TiledDetector>,
    ) -> Result<Self> {
        if let Some(custom) = &detector.padim.custom_score {
            let reason = format!(
                "the score `{}` is code, which no file can hold; use one of `ImageScore`, or set it by \
                 `set_image_score` before saving",
                custom.name
            );
            return Err(Error::config("image_score", reason));
        }
        let snapshot = match embed {
            false => None,
            true => Some(detector.padim.backbone.snapshot()?.ok_or_else(|| {
                Error::BackboneNotEmbedded {
                    reason: "this backbone cannot be embedded in a detector file; use \
                             `save_without_backbone`, and pass the backbone to `load`"
                        .into(),
                }
            })?),
        };
        Ok(Self {
            padim: &detector.padim,
            input_size: detector.input_size,
            grid: detector.model.grid(),
            snapshot,
            detector: Some(detector),
            statistics: detector.statistics.as_deref(),
            tiles,
        })
    }

    /// Writes a temporary file and renames it.
    pub fn save(mut self, path: &Path) -> Result<()> {
        let (header, convolutions) = self.header()?;
        remove_left_over(path);
        write_atomically(FileKind::Detector, path, |file| self.write(file, &header, &convolutions))
    }

    /// Writes to any writer.
    pub fn save_to(mut self, writer: &mut impl Write) -> Result<()> {
        let (header, convolutions) = self.header()?;
        let written = self.write(writer, &header, &convolutions).and_then(|()| writer.flush());
        written.map_err(Error::io(FileKind::Detector, "write", Path::new("the given writer")))
    }

    fn header(&mut self) -> Result<(Vec<u8>, Vec<FoldedConvolution>)> {
        let Padim { config, backbone, embedder, region, registration, .. } = self.padim;
        let (backbone_section, convolutions) = match self.snapshot.take() {
            Some(BackboneSnapshot { network, settings, parameters }) => {
                (Some(BackboneSection { network, settings }), parameters)
            }
            None => (None, Vec::new()),
        };
        let statistics = self.statistics.map(|statistics| StatisticsSection {
            dimension: statistics.dimension(),
            tally: statistics.tally().clone(),
            blocks: statistics.blocks().iter().map(|block| block.positions).collect(),
            summed: statistics.is_summed(),
        });
        let others = self.tiles.map_or(&[][..], |tiles| &tiles.others);
        let header = Header {
            settings: Settings {
                config: config.clone(),
                registration: registration.as_ref().map(Registration::stored),
                normalization: backbone.normalization(),
                layers: backbone.layers().to_vec(),
                indices: embedder.indices().to_vec(),
                input_size: self.input_size,
                grid: self.grid,
                fingerprint: backbone.fingerprint(),
            },
            backbone: backbone_section,
            region: region.as_ref().map(|_| ()),
            projection: embedder
                .projection()
                .map(|projection| ProjectionSection { components: projection.components() }),
            model: self.detector.map(|detector| ModelSection::of(&detector.model)),
            statistics,
            thresholds: self.detector.and_then(|detector| detector.thresholds.clone()),
            good_peak: self.detector.and_then(|detector| detector.good_peak),
            tiles: self
                .tiles
                .map(|tiles| TilesSection { tiling: tiles.tiling, image_size: tiles.image_size }),
            tile_models: others.iter().map(ModelSection::of).collect(),
            metadata: self.detector.map(|detector| detector.metadata.clone()).unwrap_or_default(),
        };
        Ok((header.encode()?, convolutions))
    }

    fn write(
        &self,
        writer: &mut impl Write,
        header: &[u8],
        convolutions: &[FoldedConvolution],
    ) -> io::Result<()> {
        let mut writer = ChecksumWriter::new(writer);
        writer.write_all(&MAGIC)?;
        writer.write_all(&VERSION.to_le_bytes())?;
        writer.write_all(&(header.len() as u64).to_le_bytes())?;
        writer.write_all(header)?;
        for convolution in convolutions {
            write_values(&mut writer, &convolution.weight)?;
            write_values(&mut writer, &convolution.bias)?;
        }
        if let Some(region) = &self.padim.region {
            let byte = |bits: &[bool]| {
                bits.iter().enumerate().fold(0_u8, |byte, (i, &bit)| byte | u8::from(bit) << i)
            };
            writer.write_all(&region.mask().chunks(8).map(byte).collect::<Vec<u8>>())?;
        }
        if let Some(projection) = self.padim.embedder.projection() {
            write_values(&mut writer, projection.matrix())?;
        }
        if let Some(detector) = self.detector {
            write_model(&mut writer, &detector.model)?;
        }
        for block in self.statistics.map_or(&[][..], GaussianStatistics::blocks) {
            write_values(&mut writer, &block.samples)?;
            for values in block.sums.iter().flat_map(PackedSums::arrays) {
                write_values(&mut writer, values)?;
            }
        }
        for model in self.tiles.map_or(&[][..], |tiles| &tiles.others) {
            write_model(&mut writer, model)?;
        }
        writer.finish()
    }
}

fn write_model(writer: &mut impl Write, model: &GaussianModel) -> io::Result<()> {
    write_values(writer, model.means())?;
    write_values(writer, model.scales())?;
    match model.numbers() {
        Numbers::F32(values) => write_values(writer, values),
        Numbers::F16(bits) => write_values(writer, bits),
    }
}
