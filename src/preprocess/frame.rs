//! Frames of cameras: raw pixels in memory.

use image::{DynamicImage, GrayImage, ImageBuffer, RgbImage, RgbaImage};

use super::demosaic::demosaic;
use super::frame_format::{Channels, FrameFormat, Packing};
use super::opened::OpenedImage;
use crate::error::{Error, Result};

/// The format, size and stride of a frame.
///
/// ```
/// use padim::preprocess::{FrameFormat, FrameLayout};
///
/// let layout = FrameLayout::new(FrameFormat::Mono12p, [480, 640]).with_stride(1024);
/// assert_eq!(layout.stride()?, 1024);
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FrameLayout {
    format: FrameFormat,
    size: [usize; 2],
    /// 0 for packed rows.
    stride: usize,
}

impl FrameLayout {
    /// A frame of `[height, width]` pixels whose rows follow each other without a gap.
    pub fn new(format: FrameFormat, size: [usize; 2]) -> Self {
        Self { format, size, stride: 0 }
    }

    /// The same with this number of bytes from the beginning of a row to that of the next; 0 for rows
    /// without a gap.
    #[must_use]
    pub fn with_stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// The format of the pixels.
    pub fn format(&self) -> FrameFormat {
        self.format
    }

    /// The size `[height, width]` in pixels.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// The number of bytes from the beginning of a row to that of the next.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidConfig`] if a side is 0 or too large (for a mosaic also 1), if the stride is
    /// smaller than a row, or if packed rows would begin inside a byte.
    pub fn stride(&self) -> Result<usize> {
        let fail = |reason| Err(Error::config("frame", reason));
        let ([height, width], format) = (self.size, self.format);
        let smallest = if matches!(format.channels(), Channels::Bayer(_)) { 2 } else { 1 };
        let most = u32::MAX as usize;
        if self.size.iter().any(|&side| side < smallest || side > most) {
            return fail(format!(
                "a frame of {format} needs sides of {smallest} to {most} pixels, got {height} x \
                 {width} (height, width)"
            ));
        }
        let row = self.row_bytes();
        if self.stride == 0 && width % format.pixels_a_group() != 0 {
            return fail(format!(
                "rows of {width} pixels of {format} do not fill whole bytes, so where the next row \
                 begins is not known; give the stride, or a width that is a multiple of {}",
                format.pixels_a_group()
            ));
        }
        match self.stride {
            0 => Ok(row),
            stride if stride >= row => Ok(stride),
            stride => fail(format!(
                "a row of {width} pixels of {format} takes {row} bytes, got a stride of {stride}"
            )),
        }
    }

    /// The number of bytes of a row without a gap.
    fn row_bytes(&self) -> usize {
        let bits = self.format.bits_a_pixel();
        // For sides that `stride` has checked, this does not overflow in 64 bits.
        match self.format.packing() {
            // The two pixels of a group share a byte.
            Packing::GigE => self.size[1] / 2 * 3 + self.size[1] % 2 * 2,
            _ => self.size[1].saturating_mul(bits).div_ceil(8),
        }
    }

    /// The bytes of a pixel of the unpacked image.
    pub(super) fn bytes_decoded(&self) -> u64 {
        let channels = match self.format.channels() {
            Channels::Mono => 1,
            Channels::Color { count, .. } => count as u64,
            Channels::Bayer(_) => 3,
        };
        channels * u64::from(self.format.bits().div_ceil(8))
    }

    /// Fails if the frame does not have this number of bytes.
    pub(super) fn check(&self, length: usize) -> Result<()> {
        let ([height, width], stride) = (self.size, self.stride()?);
        let last = self.row_bytes();
        let (whole, least) = match (stride.checked_mul(height), stride.checked_mul(height - 1)) {
            (Some(whole), Some(others)) => (whole, others + last),
            _ => (usize::MAX, usize::MAX),
        };
        if (least..=whole).contains(&length) {
            return Ok(());
        }
        let expected = if least == whole {
            format!("{whole} bytes")
        } else {
            format!("{least} to {whole} bytes")
        };
        let expected = format!(
            "{expected} for {height} x {width} pixels (height, width) of {} with {stride} bytes a row",
            self.format
        );
        Err(Error::shape("frame", expected, length))
    }
}

/// A frame of a camera: raw pixels in memory, which may belong to a camera's library.
///
/// A frame knows how many bits its values have, so its white is right whatever
/// [`Levels`](super::Levels) say, except for a range. It scores as a file with the same values. To score
/// it, see [`ImageInput::frame`](super::ImageInput::frame).
///
/// ```
/// use padim::preprocess::{Frame, FrameFormat, FrameLayout};
///
/// // Two pixels of 12 bits in three bytes: 0x123 and 0xABC.
/// let layout = FrameLayout::new(FrameFormat::Mono12p, [1, 2]);
/// let image = Frame::new(&[0x23, 0xC1, 0xAB], layout)?.to_image()?;
/// assert_eq!(image.as_luma16().unwrap().as_raw(), &[0x123, 0xABC]);
///
/// let error = Frame::new(&[0; 4], layout).unwrap_err();
/// assert!(error.to_string().contains("expected 3 bytes"));
/// # Ok::<(), padim::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    data: &'a [u8],
    layout: FrameLayout,
    stride: usize,
}

impl std::fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Frame").field(&self.layout).finish()
    }
}

impl<'a> Frame<'a> {
    /// Checks that the data are a frame of this layout. The gap after the last row may be missing; other
    /// bytes after the pixels, such as chunk data, must be cut off.
    ///
    /// # Errors
    ///
    /// As [`FrameLayout::stride`], and [`Error::ShapeMismatch`] for another number of bytes.
    pub fn new(data: &'a [u8], layout: FrameLayout) -> Result<Self> {
        layout.check(data.len())?;
        Ok(Self { data, layout, stride: layout.stride()? })
    }

    /// The format, size and stride.
    pub fn layout(&self) -> FrameLayout {
        self.layout
    }

    /// The image: gray, RGB or RGBA of 8 bits, or gray or RGB of 16 bits with the values as they are. A
    /// mosaic gets its colors by bilinear interpolation.
    ///
    /// # Errors
    ///
    /// [`Error::ShapeMismatch`] if the image has more bytes than this machine can address.
    pub fn to_image(&self) -> Result<DynamicImage> {
        let [height, width] = self.layout.size;
        let [w, h] = [width, height].map(|side| side as u32);
        let is_deep = self.layout.format.bits() > 8;
        let image = match (self.layout.format.channels(), is_deep) {
            (Channels::Mono, false) => {
                GrayImage::from_raw(w, h, self.bytes(1, |row, out| out.extend_from_slice(row)))
                    .map(DynamicImage::from)
            }
            (Channels::Mono, true) => {
                let mut out = vec![0; height * width];
                let rows = out.chunks_exact_mut(width).enumerate();
                rows.for_each(|(y, into)| self.unpack(y, into));
                ImageBuffer::from_raw(w, h, out).map(DynamicImage::ImageLuma16)
            }
            (Channels::Color { count: 3, order: [0, ..] }, _) => {
                RgbImage::from_raw(w, h, self.bytes(3, |row, out| out.extend_from_slice(row)))
                    .map(DynamicImage::from)
            }
            (Channels::Color { count: 3, order: [r, g, b] }, _) => {
                let put = |row: &[u8], out: &mut Vec<u8>| {
                    out.extend(row.chunks_exact(3).flat_map(|p| [p[r], p[g], p[b]]));
                };
                RgbImage::from_raw(w, h, self.bytes(3, put)).map(DynamicImage::from)
            }
            (Channels::Color { order: [r, g, b], .. }, _) => {
                let put = |row: &[u8], out: &mut Vec<u8>| {
                    out.extend(row.chunks_exact(4).flat_map(|p| [p[r], p[g], p[b], p[3]]));
                };
                RgbaImage::from_raw(w, h, self.bytes(4, put)).map(DynamicImage::from)
            }
            (Channels::Bayer(red), false) => {
                let raw =
                    demosaic(self.layout.size, red, |y, into| self.unpack(y, into), |v| v as u8);
                RgbImage::from_raw(w, h, raw).map(DynamicImage::from)
            }
            (Channels::Bayer(red), true) => {
                let raw = demosaic(self.layout.size, red, |y, into| self.unpack(y, into), |v| v);
                ImageBuffer::from_raw(w, h, raw).map(DynamicImage::ImageRgb16)
            }
        };
        image.ok_or_else(|| Error::shape("frame", "an image", "fewer values than pixels"))
    }

    /// The image, and the bits of its values.
    pub(super) fn opened(&self) -> Result<OpenedImage> {
        let bits = self.layout.format.bits();
        Ok(OpenedImage::from(self.to_image()?).with_bits((bits > 8).then_some(bits)))
    }

    fn row(&self, y: usize) -> &'a [u8] {
        &self.data[y * self.stride..y * self.stride + self.layout.row_bytes()]
    }

    /// The bytes of an image of `channels`; `put` appends those of a row.
    fn bytes(&self, channels: usize, put: impl Fn(&[u8], &mut Vec<u8>)) -> Vec<u8> {
        let [height, width] = self.layout.size;
        let mut out = Vec::with_capacity(height * width * channels);
        (0..height).for_each(|y| put(self.row(y), &mut out));
        out
    }

    /// Writes the values of a row.
    fn unpack(&self, y: usize, into: &mut [u16]) {
        let row = self.row(y);
        let pairs = || row.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
        let bits = usize::from(self.layout.format.bits());
        match self.layout.format.packing() {
            Packing::Bytes => into.iter_mut().zip(row).for_each(|(v, &b)| *v = u16::from(b)),
            Packing::LittleEndian => {
                into.iter_mut().zip(pairs()).for_each(|(v, pair)| *v = u16::from_le_bytes(pair));
            }
            Packing::BigEndian => {
                into.iter_mut().zip(pairs()).for_each(|(v, pair)| *v = u16::from_be_bytes(pair));
            }
            Packing::Bits => {
                for (x, value) in into.iter_mut().enumerate() {
                    let at = x * bits;
                    // 10 and 12 bits begin at an even bit, so they lie in two bytes.
                    let two = u16::from_le_bytes([row[at / 8], row[at / 8 + 1]]);
                    *value = (two >> (at % 8)) & ((1 << bits) - 1);
                }
            }
            Packing::GigE => {
                let low_bits = bits - 8;
                let mask = (1 << low_bits) - 1;
                for (values, group) in into.chunks_mut(2).zip(row.chunks(3)) {
                    let join =
                        |high: u8, low: u8| u16::from(high) << low_bits | u16::from(low & mask);
                    values[0] = join(group[0], group[1]);
                    if let ([_, second], [_, low, high]) = (values, group) {
                        *second = join(*high, *low >> 4);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FrameFormat as F;

    fn values(format: F, size: [usize; 2], data: &[u8]) -> Vec<u16> {
        let image = Frame::new(data, FrameLayout::new(format, size)).unwrap().to_image().unwrap();
        assert_eq!([image.height() as usize, image.width() as usize], size);
        match image {
            DynamicImage::ImageLuma16(gray) => gray.into_raw(),
            DynamicImage::ImageRgb16(rgb) => rgb.into_raw(),
            other => other.into_bytes().into_iter().map(u16::from).collect(),
        }
    }

    #[test]
    fn each_packing_is_read_as_the_standards_write_it() {
        let row = |format, width, data: &[u8]| values(format, [1, width], data);
        assert_eq!(row(F::Mono8, 2, &[7, 255]), [7, 255]);
        assert_eq!(row(F::Mono12, 2, &[0x34, 0x02, 0xFF, 0x0F]), [0x234, 0xFFF]);
        assert_eq!(row(F::Mono12BE, 2, &[0x02, 0x34, 0x0F, 0xFF]), [0x234, 0xFFF]);
        assert_eq!(row(F::Mono16, 1, &[0x34, 0xF2]), [0xF234]);
        assert_eq!(row(F::Mono12p, 2, &[0x23, 0xC1, 0xAB]), [0x123, 0xABC]);
        assert_eq!(row(F::Mono12Packed, 2, &[0x12, 0xC3, 0xAB]), [0x123, 0xABC]);
        // 0x3A1 has the high bits 0xE8 and the low bits 01, 0x056 0x15 and 10.
        assert_eq!(row(F::Mono10Packed, 2, &[0xE8, 0x21, 0x15]), [0x3A1, 0x056]);
        let four = [0x3FF_u64, 0x001, 0x155, 0x2AA];
        let stream = four.iter().rev().fold(0, |stream, v| stream << 10 | v);
        assert_eq!(row(F::Mono10p, 4, &stream.to_le_bytes()[..5]), [0x3FF, 0x001, 0x155, 0x2AA]);
        assert_eq!(row(F::RGB8, 1, &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(row(F::BGR8, 1, &[1, 2, 3]), [3, 2, 1]);
        assert_eq!(row(F::RGBa8, 1, &[1, 2, 3, 4]), [1, 2, 3, 4]);
        assert_eq!(row(F::BGRa8, 1, &[1, 2, 3, 4]), [3, 2, 1, 4]);
    }

    #[test]
    fn each_mosaic_has_its_colors_where_its_name_says() {
        let expected = [900, 40, 3];
        let mosaics = [
            ([F::BayerRG8, F::BayerRG12, F::BayerRG12p], [0, 1, 1, 2]),
            ([F::BayerGR8, F::BayerGR12, F::BayerGR12p], [1, 0, 2, 1]),
            ([F::BayerGB8, F::BayerGB12, F::BayerGB12p], [1, 2, 0, 1]),
            ([F::BayerBG8, F::BayerBG12, F::BayerBG12p], [2, 1, 1, 0]),
        ];
        for ([bytes, words, bits], colors) in mosaics {
            let two = colors.map(|c: usize| expected[c]);
            let small: Vec<u8> = two.map(|v: u16| (v / 4) as u8).to_vec();
            assert_eq!(values(bytes, [2, 2], &small)[..3], [225, 10, 0]);
            let data: Vec<u8> = two.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert_eq!(values(words, [2, 2], &data)[9..], expected);
            let data: Vec<u8> = two
                .chunks(2)
                .flat_map(|p| [p[0] as u8, (p[0] >> 8 | p[1] << 4) as u8, (p[1] >> 4) as u8])
                .collect();
            assert_eq!(values(bits, [2, 2], &data)[6..9], expected);
        }
    }

    #[test]
    fn gaps_between_rows_are_skipped() {
        // Three pixels and a gap; the last gap may be missing.
        let data = [1, 2, 3, 99, 4, 5, 6, 99];
        let layout = FrameLayout::new(F::Mono8, [2, 3]).with_stride(4);
        for data in [&data[..], &data[..7]] {
            let image = Frame::new(data, layout).unwrap().to_image().unwrap();
            assert_eq!(image.as_bytes(), [1, 2, 3, 4, 5, 6]);
        }
        // Rows that do not fill whole bytes begin at their stride.
        let odd = FrameLayout::new(F::Mono12p, [2, 1]).with_stride(2);
        let image = Frame::new(&[0x23, 0xF1, 0x56, 0xF4], odd).unwrap().to_image().unwrap();
        assert_eq!(image.as_luma16().unwrap().as_raw(), &[0x123, 0x456]);
        let odd = FrameLayout::new(F::Mono12Packed, [2, 1]).with_stride(3);
        let image = Frame::new(&[0x12, 0xF3, 0, 0x45, 0xF6], odd).unwrap().to_image().unwrap();
        assert_eq!(image.as_luma16().unwrap().as_raw(), &[0x123, 0x456]);
    }

    #[test]
    fn what_is_no_frame_is_an_error_with_numbers() {
        let layout = FrameLayout::new(F::Mono8, [2, 3]);
        for (layout, length, text) in [
            (layout, 5, "expected 6 bytes for 2 x 3 pixels"),
            (layout, 7, "got 7"),
            (layout.with_stride(4), 6, "7 to 8 bytes"),
            (layout.with_stride(2), 6, "takes 3 bytes, got a stride of 2"),
            (FrameLayout::new(F::Mono8, [0, 3]), 0, "got 0 x 3"),
            (FrameLayout::new(F::BayerRG8, [1, 3]), 3, "2 to"),
            (FrameLayout::new(F::Mono12p, [2, 3]), 9, "multiple of 2"),
            (FrameLayout::new(F::Mono10p, [2, 6]), 15, "multiple of 4"),
            (FrameLayout::new(F::RGB8, [u32::MAX as usize; 2]), 9, "got 9"),
            (FrameLayout::new(F::Mono8, [usize::MAX; 2]), 9, "sides of 1 to"),
            (layout.with_stride(usize::MAX), 9, "got 9"),
        ] {
            let error = Frame::new(&vec![0; length], layout).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
