//! Draws pictures of a machined part, good or defective, for the examples.

use image::{Rgb, RgbImage};

/// Side of the pictures in pixels.
pub const SIDE: u32 = 224;

/// The kinds of defects.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Defect {
    Scratch,
    MissingHole,
    ChippedEdge,
    Stain,
}

pub const DEFECTS: [Defect; 4] =
    [Defect::Scratch, Defect::MissingHole, Defect::ChippedEdge, Defect::Stain];

/// A source of random numbers in `[0, 1)` (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1 << 24) as f32
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.next()
    }
}

/// Draws a flange with six holes on a brushed plate, slightly different for each seed, and the ground
/// truth mask of its defect.
pub fn draw(seed: u64, defect: Option<Defect>) -> (RgbImage, Vec<bool>) {
    let mut random = Random(seed.wrapping_mul(0xA24B_AED4_963E_E407));
    let center = SIDE as f32 / 2.0;
    let (cx, cy) = (center + random.between(-1.5, 1.5), center + random.between(-1.5, 1.5));
    let light = random.between(0.94, 1.06);
    let brush: Vec<f32> = (0..SIDE).map(|_| random.between(-7.0, 7.0)).collect();
    let spoilt = (random.next() * 6.0) as usize;
    let angle = random.between(0.0, std::f32::consts::TAU);
    let (at, size) = (random.between(44.0, 72.0), random.between(6.0, 10.0));
    let mut grain = Random(seed ^ 0x5EED);

    let mut mask = vec![false; (SIDE * SIDE) as usize];
    let image = RgbImage::from_fn(SIDE, SIDE, |px, py| {
        let (x, y) = (px as f32 - cx, py as f32 - cy);
        let radius = x.hypot(y);
        // A soft edge: 0 outside, 1 inside.
        let inside = |distance: f32| (0.5 - distance).clamp(0.0, 1.0);
        let blend = |a: [f32; 3], b: [f32; 3], t: f32| [0, 1, 2].map(|c| a[c] + (b[c] - a[c]) * t);

        let plate = 92.0 + brush[py as usize];
        let background = [plate * 0.94, plate * 0.97, plate * 1.05];
        let shine = 22.0 * (x * 0.022 + y * 0.011).cos();
        let metal = [172.0 + shine, 166.0 + shine, 152.0 + shine];
        let mut color = blend(background, metal, inside(radius - 92.0));
        let groove = [120.0 + shine, 116.0 + shine, 108.0 + shine];
        color = blend(color, groove, inside((radius - 80.0).abs() - 2.0));
        color = blend(color, background, inside(radius - 26.0));

        let mut wrong = false;
        for hole in 0..6 {
            let turn = hole as f32 * std::f32::consts::TAU / 6.0;
            let distance = (x - 54.0 * turn.cos()).hypot(y - 54.0 * turn.sin());
            if defect == Some(Defect::MissingHole) && hole == spoilt {
                wrong |= distance < 10.0;
            } else {
                color = blend(color, [48.0, 47.0, 50.0], inside(distance - 10.0));
                color = blend(color, groove, inside((distance - 11.5).abs() - 1.0));
            }
        }

        // Coordinates along and across the direction of the defect.
        let (along, across) =
            (x * angle.cos() + y * angle.sin() - at, y * angle.cos() - x * angle.sin());
        let hurt = match defect {
            Some(Defect::Scratch) => {
                let bend = across + 3.0 * (along * 0.15).sin();
                inside((bend).abs() - 1.2) * inside(along.abs() - 2.2 * size)
            }
            Some(Defect::ChippedEdge) => inside((along + at - 90.0).hypot(across) - size),
            Some(Defect::Stain) => {
                let wobble = 1.5 * (along.atan2(across) * 3.0).sin();
                0.65 * inside(along.hypot(across) - size - wobble)
            }
            _ => 0.0,
        };
        let mark = match defect {
            Some(Defect::Scratch) => [235.0, 232.0, 226.0],
            Some(Defect::ChippedEdge) => background,
            _ => [96.0, 72.0, 44.0],
        };
        color = blend(color, mark, hurt);
        mask[(py * SIDE + px) as usize] = wrong || hurt > 0.3;
        let noise = grain.between(-4.0, 4.0);
        Rgb(color.map(|v| (v * light + noise).clamp(0.0, 255.0) as u8))
    });
    (image, mask)
}
