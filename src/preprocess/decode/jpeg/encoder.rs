//! A small JPEG encoder for tests: it writes what cameras and old programs write and other encoders do not.

/// The standard's Huffman tables for brightness (T.81, Annex K): codes by length, then values. They are used
/// for all components.
const DC: ([u8; 16], [u8; 12]) =
    ([0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
const AC: ([u8; 16], [u8; 162]) = (
    [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 0x7D],
    [
        0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61,
        0x07, 0x22, 0x71, 0x14, 0x32, 0x81, 0x91, 0xA1, 0x08, 0x23, 0x42, 0xB1, 0xC1, 0x15, 0x52,
        0xD1, 0xF0, 0x24, 0x33, 0x62, 0x72, 0x82, 0x09, 0x0A, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x25,
        0x26, 0x27, 0x28, 0x29, 0x2A, 0x34, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3A, 0x43, 0x44, 0x45,
        0x46, 0x47, 0x48, 0x49, 0x4A, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0x63, 0x64,
        0x65, 0x66, 0x67, 0x68, 0x69, 0x6A, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7A, 0x83,
        0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
        0x9A, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xB2, 0xB3, 0xB4, 0xB5, 0xB6,
        0xB7, 0xB8, 0xB9, 0xBA, 0xC2, 0xC3, 0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xD2, 0xD3,
        0xD4, 0xD5, 0xD6, 0xD7, 0xD8, 0xD9, 0xDA, 0xE1, 0xE2, 0xE3, 0xE4, 0xE5, 0xE6, 0xE7, 0xE8,
        0xE9, 0xEA, 0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8, 0xF9, 0xFA,
    ],
);
/// One step for all coefficients: nearly lossless.
const QUANTIZATION: u8 = 2;

/// A picture's layout as a file. `value(channel, x, y)` gives its pixels.
#[derive(Clone, Debug)]
pub struct Jpeg {
    pub width: usize,
    pub height: usize,
    /// The sampling factors of each component, horizontal and vertical.
    pub sampling: Vec<[usize; 2]>,
    /// The second byte of the frame's marker: 0xC0 baseline, 0xC1 extended, 0xC2 progressive.
    pub frame: u8,
    /// The components of each scan. A progressive file gets their mean values in such scans, and then a scan
    /// of each component for the rest.
    pub scans: Vec<Vec<usize>>,
    /// The number of MCUs between restart markers; 0: none.
    pub restart: u16,
    /// Whether the Huffman tables are in the file.
    pub tables: bool,
    /// The color transform of an Adobe marker.
    pub adobe: Option<u8>,
    /// Segments before the frame: the second byte of the marker, and the content.
    pub segments: Vec<(u8, Vec<u8>)>,
}

impl Jpeg {
    /// A baseline file with all components in one scan.
    pub fn new(width: usize, height: usize, sampling: &[[usize; 2]]) -> Self {
        Self {
            width,
            height,
            sampling: sampling.to_vec(),
            frame: 0xC0,
            scans: vec![(0..sampling.len()).collect()],
            restart: 0,
            tables: true,
            adobe: None,
            segments: vec![],
        }
    }

    /// The same with each component in a scan of its own.
    pub fn separate(mut self) -> Self {
        self.scans = (0..self.sampling.len()).map(|component| vec![component]).collect();
        self
    }

    pub fn encode(&self, value: impl Fn(usize, usize, usize) -> u8) -> Vec<u8> {
        let mut file = vec![0xFF, 0xD8];
        let mut segment = |marker: u8, content: &[u8]| {
            file.extend([0xFF, marker]);
            file.extend((content.len() as u16 + 2).to_be_bytes());
            file.extend(content);
        };
        for (marker, content) in &self.segments {
            segment(*marker, content);
        }
        if let Some(transform) = self.adobe {
            segment(0xEE, &[&b"Adobe\0\x64\0\0\0\0"[..], &[transform]].concat());
        }
        segment(0xDB, &[&[0][..], &[QUANTIZATION; 64]].concat());
        let mut frame = vec![8];
        frame.extend((self.height as u16).to_be_bytes());
        frame.extend((self.width as u16).to_be_bytes());
        frame.push(self.sampling.len() as u8);
        for (id, [h, v]) in (1..).zip(&self.sampling) {
            frame.extend([id, (h << 4 | v) as u8, 0]);
        }
        segment(self.frame, &frame);
        if self.tables {
            segment(0xC4, &[&[0x00][..], &DC.0, &DC.1].concat());
            segment(0xC4, &[&[0x10][..], &AC.0, &AC.1].concat());
        }
        if self.restart > 0 {
            segment(0xDD, &self.restart.to_be_bytes());
        }
        let planes: Vec<Plane> =
            (0..self.sampling.len()).map(|component| self.plane(component, &value)).collect();
        let progressive = self.frame == 0xC2;
        let rests = (0..planes.len()).map(|component| (vec![component], 1, 63));
        let scans = self.scans.iter().map(|scan| {
            let last = if progressive { 0 } else { 63 };
            (scan.clone(), 0, last)
        });
        for (components, first, last) in scans.chain(rests.filter(|_| progressive)) {
            file.extend([0xFF, 0xDA]);
            file.extend((6 + 2 * components.len() as u16).to_be_bytes());
            file.push(components.len() as u8);
            file.extend(components.iter().flat_map(|&component| [component as u8 + 1, 0]));
            file.extend([first as u8, last as u8, 0]);
            self.scan(&mut file, &planes, &components, first..=last);
        }
        file.extend([0xFF, 0xD9]);
        file
    }

    fn largest(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.sampling.iter().map(|factors| factors[axis]).max().unwrap_or(1))
    }

    /// The component's quantized blocks.
    fn plane(&self, component: usize, value: &impl Fn(usize, usize, usize) -> u8) -> Plane {
        let (most, [h, v]) = (self.largest(), self.sampling[component]);
        let size = [(self.width * h).div_ceil(most[0]), (self.height * v).div_ceil(most[1])];
        let mcus = [self.width.div_ceil(8 * most[0]), self.height.div_ceil(8 * most[1])];
        let across = mcus[0] * h;
        // The picture at the middle of the pixel, and its border repeated.
        let at = |x: usize, y: usize| {
            let scaled = |at: usize, factor: usize, most: usize, side: usize| {
                let (from, to) = (at * most / factor, ((at + 1) * most).div_ceil(factor));
                (from.min(side - 1), to.clamp(1, side))
            };
            let (left, right) = scaled(x, h, most[0], self.width);
            let (top, bottom) = scaled(y, v, most[1], self.height);
            let mut sum = 0.0;
            let rows = top..bottom.max(top + 1);
            let columns = left..right.max(left + 1);
            let count = (rows.len() * columns.len()) as f32;
            for y in rows {
                for x in columns.clone() {
                    sum += f32::from(value(component, x, y));
                }
            }
            sum / count - 128.0
        };
        let blocks = (0..mcus[1] * v * across).map(|i| {
            let (left, top) = (i % across * 8, i / across * 8);
            block(|x, y| at(left + x, top + y))
        });
        Plane { blocks: blocks.collect(), across, used: size.map(|side| side.div_ceil(8)) }
    }

    fn scan(
        &self,
        file: &mut Vec<u8>,
        planes: &[Plane],
        components: &[usize],
        band: std::ops::RangeInclusive<usize>,
    ) {
        let most = self.largest();
        // A scan of one component has just the blocks that hold pixels, row by row.
        let (mcus, factors) = match components {
            &[one] => (planes[one].used, vec![[1, 1]]),
            _ => (
                [self.width.div_ceil(8 * most[0]), self.height.div_ceil(8 * most[1])],
                components.iter().map(|&component| self.sampling[component]).collect(),
            ),
        };
        let mut bits = Bits::default();
        let mut means = vec![0; components.len()];
        for mcu in 0..mcus[0] * mcus[1] {
            if self.restart > 0 && mcu > 0 && mcu % usize::from(self.restart) == 0 {
                bits.flush(file);
                file.extend([0xFF, 0xD0 + ((mcu / usize::from(self.restart) - 1) % 8) as u8]);
                means.fill(0);
            }
            let (column, row) = (mcu % mcus[0], mcu / mcus[0]);
            for ((&component, [h, v]), mean) in components.iter().zip(&factors).zip(&mut means) {
                let plane = &planes[component];
                for y in 0..*v {
                    for x in 0..*h {
                        let block = &plane.blocks[(row * v + y) * plane.across + column * h + x];
                        bits.block(file, block, &band, mean);
                    }
                }
            }
        }
        bits.flush(file);
    }
}

struct Plane {
    blocks: Vec<[i32; 64]>,
    across: usize,
    /// The blocks that hold pixels, across and down.
    used: [usize; 2],
}

/// The quantized cosine transform of 8 x 8 pixels in zigzag order.
fn block(pixel: impl Fn(usize, usize) -> f32) -> [i32; 64] {
    let pixels: Vec<f32> = (0..64).map(|i| pixel(i % 8, i / 8)).collect();
    let wave = |at: usize, frequency: usize| {
        let scale = if frequency == 0 { 0.125_f32.sqrt() } else { 0.5 };
        let turns = (2 * at + 1) as f32 * frequency as f32 / 32.0;
        scale * (turns * std::f32::consts::TAU).cos()
    };
    let waves: Vec<f32> = (0..64).map(|i| wave(i % 8, i / 8)).collect();
    let rows: Vec<f32> = (0..64)
        .map(|i| (0..8).map(|x| pixels[i / 8 * 8 + x] * waves[i % 8 * 8 + x]).sum())
        .collect();
    let mut order: Vec<usize> = (0..64).collect();
    order.sort_by_key(|i| {
        let (x, y) = (i % 8, i / 8);
        (x + y, if (x + y) % 2 == 0 { x } else { y })
    });
    let mut coefficients = [0; 64];
    for (coefficient, at) in coefficients.iter_mut().zip(order) {
        let (x, y) = (at % 8, at / 8);
        let sum: f32 = (0..8).map(|row| rows[row * 8 + x] * waves[y * 8 + row]).sum();
        *coefficient = (sum / f32::from(QUANTIZATION)).round() as i32;
    }
    coefficients
}

/// The bits that do not make a whole byte yet.
#[derive(Default)]
struct Bits {
    value: u32,
    count: u32,
}

impl Bits {
    fn push(&mut self, file: &mut Vec<u8>, value: u32, count: u32) {
        for i in (0..count).rev() {
            self.value = self.value << 1 | (value >> i & 1);
            self.count += 1;
            if self.count == 8 {
                file.push(self.value as u8);
                if self.value as u8 == 0xFF {
                    file.push(0);
                }
                (self.value, self.count) = (0, 0);
            }
        }
    }

    fn flush(&mut self, file: &mut Vec<u8>) {
        let missing = (8 - self.count) % 8;
        self.push(file, (1 << missing) - 1, missing);
    }

    fn block(
        &mut self,
        file: &mut Vec<u8>,
        block: &[i32; 64],
        band: &std::ops::RangeInclusive<usize>,
        mean: &mut i32,
    ) {
        let mut first = *band.start();
        if first == 0 {
            let difference = block[0] - *mean;
            *mean = block[0];
            self.number(file, (&DC.0, &DC.1), 0, difference);
            first = 1;
        }
        let mut zeros = 0;
        for &coefficient in block.get(first..=*band.end()).unwrap_or_default() {
            if coefficient == 0 {
                zeros += 1;
                continue;
            }
            while zeros > 15 {
                self.code(file, (&AC.0, &AC.1), 0xF0);
                zeros -= 16;
            }
            self.number(file, (&AC.0, &AC.1), zeros << 4, coefficient);
            zeros = 0;
        }
        if zeros > 0 {
            self.code(file, (&AC.0, &AC.1), 0);
        }
    }

    /// The code of a number's length, with `run` in its upper half, and the number.
    fn number(&mut self, file: &mut Vec<u8>, table: (&[u8], &[u8]), run: u8, number: i32) {
        let length = 32 - number.unsigned_abs().leading_zeros();
        self.code(file, table, run | length as u8);
        let value = if number < 0 { number - 1 } else { number } as u32;
        self.push(file, value & ((1 << length) - 1), length);
    }

    fn code(&mut self, file: &mut Vec<u8>, (lengths, values): (&[u8], &[u8]), symbol: u8) {
        let mut rest = values.iter();
        let mut code = 0;
        for (length, &count) in (1..).zip(lengths) {
            for _ in 0..count {
                if rest.next() == Some(&symbol) {
                    self.push(file, code, length);
                    return;
                }
                code += 1;
            }
            code <<= 1;
        }
        panic!("no code for {symbol:#x}");
    }
}
