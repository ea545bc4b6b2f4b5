//! Writes TIFF files for tests: what cameras and scanners write and other encoders do not.

/// A page: its tags (number and values of at most 32 bits), and its strips or tiles.
#[derive(Clone, Debug)]
pub struct Page {
    pub tags: Vec<(u16, Vec<u32>)>,
    pub chunks: Vec<Vec<u8>>,
}

impl Page {
    /// A page of one strip without compression.
    pub fn new([height, width]: [u32; 2], bits: &[u32], photometric: u32, pixels: &[u8]) -> Self {
        let tags = vec![
            (256, vec![width]),
            (257, vec![height]),
            (258, bits.to_vec()),
            (262, vec![photometric]),
            (277, vec![bits.len() as u32]),
            (278, vec![height]),
        ];
        Self { tags, chunks: vec![pixels.to_vec()] }
    }

    /// The same with another value of a tag.
    #[must_use]
    pub fn with(mut self, tag: u16, values: &[u32]) -> Self {
        self.tags.retain(|(other, _)| *other != tag);
        self.tags.push((tag, values.to_vec()));
        self
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub is_big: bool,
    pub is_little_endian: bool,
}

pub const CLASSIC: Layout = Layout { is_big: false, is_little_endian: true };
pub const LAYOUTS: [Layout; 4] = [
    CLASSIC,
    Layout { is_big: false, is_little_endian: false },
    Layout { is_big: true, is_little_endian: true },
    Layout { is_big: true, is_little_endian: false },
];

impl Layout {
    fn number(self, number: u64, count: usize) -> Vec<u8> {
        let mut bytes = number.to_le_bytes()[..count].to_vec();
        if !self.is_little_endian {
            bytes.reverse();
        }
        bytes
    }

    /// The numbers as they are stored.
    pub fn words(self, numbers: &[u64], bytes: usize) -> Vec<u8> {
        numbers.iter().flat_map(|&number| self.number(number, bytes)).collect()
    }

    pub fn file(self, pages: &[Page]) -> Vec<u8> {
        let width = if self.is_big { 8 } else { 4 };
        let mut file = if self.is_little_endian { b"II".to_vec() } else { b"MM".to_vec() };
        file.extend(self.number(if self.is_big { 43 } else { 42 }, 2));
        if self.is_big {
            file.extend(self.words(&[8, 0], 2));
        }
        let mut link = file.len();
        file.extend(vec![0; width]);
        for page in pages {
            let is_tiled = page.tags.iter().any(|(tag, _)| *tag == 322);
            let (mut offsets, mut lengths) = (vec![], vec![]);
            for chunk in &page.chunks {
                offsets.push(file.len() as u32);
                lengths.push(chunk.len() as u32);
                file.extend(chunk);
            }
            let places = if is_tiled { [324, 325] } else { [273, 279] };
            let mut tags = page.tags.clone();
            tags.extend([(places[0], offsets), (places[1], lengths)]);
            tags.sort();
            let mut directory = self.number(tags.len() as u64, if self.is_big { 8 } else { 2 });
            for (tag, values) in tags {
                let mut field: Vec<u8> =
                    values.iter().flat_map(|&value| self.number(value.into(), 4)).collect();
                if field.len() > width {
                    let at = file.len() as u64;
                    file.extend(field);
                    field = self.number(at, width);
                }
                field.resize(width, 0);
                directory.extend(self.words(&[tag.into(), 4], 2));
                directory.extend(self.number(values.len() as u64, width));
                directory.extend(field);
            }
            let at = self.number(file.len() as u64, width);
            file[link..link + width].copy_from_slice(&at);
            file.extend(directory);
            link = file.len();
            file.extend(vec![0; width]);
        }
        file
    }
}
