//! Files that the fuzzers have found, and random changes of them.

use std::path::PathBuf;

use super::{checks, corpus};

/// A fuzz target: its name and its check.
type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 7] = [
    ("detector_file", checks::detector_file),
    ("weights_safetensors", checks::weights),
    ("weights_pth", checks::pickle),
    ("image", checks::image),
    ("frame", checks::frame),
    ("mask", checks::mask),
    ("table", checks::table),
];

/// The corpus files of a target.
fn found(target: &str) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(corpus().join(target)).unwrap();
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{target}");
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Runs the fuzzers' checks on their corpus files. A published package does not contain these files.
#[test]
fn what_the_fuzzers_found_is_harmless() {
    if !corpus().exists() {
        return;
    }
    for (target, check) in TARGETS {
        found(target).iter().for_each(|file| check(file));
    }
}

/// Random changes without coverage feedback: a few per file, or the number in `PADIM_TEST_DAMAGE`.
#[test]
fn random_damage_is_harmless() {
    if !corpus().exists() {
        return;
    }
    let rounds = std::env::var("PADIM_TEST_DAMAGE").map_or(3, |rounds| rounds.parse().unwrap());
    let mut random = Chance(1);
    for (target, check) in TARGETS {
        let files = found(target);
        for round in 0..rounds {
            for (number, file) in files.iter().enumerate() {
                let other = &files[random.below(files.len())];
                let damaged = damaged(file, other, &mut random);
                let outcome = std::panic::catch_unwind(|| check(&damaged));
                if outcome.is_err() {
                    let path = std::env::temp_dir().join("padim-damaged");
                    std::fs::write(&path, &damaged).unwrap();
                    panic!("{target}: file {number}, round {round}: kept as {}", path.display());
                }
            }
        }
    }
}

/// Knuth's linear congruential generator.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % end
    }
}

/// A file with up to four changes of kinds that often break readers.
fn damaged(file: &[u8], other: &[u8], random: &mut Chance) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len().max(1));
        let rest = bytes.len() - at.min(bytes.len());
        let span = 1 + random.below(16);
        match random.below(8) {
            0 if rest > 0 => bytes[at] ^= 1 << random.below(8),
            1 if rest > 0 => {
                bytes[at] = [0, 1, 0x7F, 0x80, 0xFB, 0xFC, 0xFD, 0xFF][random.below(8)]
            }
            2 if rest > 8 => {
                let number = [0, 1, u64::MAX, u64::MAX >> 1, 1 << 32, 1 << 20][random.below(6)];
                let width = [2, 4, 8][random.below(3)];
                bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
            }
            3 => bytes.truncate(at),
            4 if rest > span => drop(bytes.drain(at..at + span)),
            5 if rest > span => bytes.extend_from_within(at..at + span),
            6 if rest > span => {
                let copy = bytes[at..at + span].to_vec();
                bytes.splice(at..at, copy);
            }
            _ if !other.is_empty() && rest > 0 => {
                let from = random.below(other.len());
                let span = span.min(rest).min(other.len() - from);
                bytes[at..at + span].copy_from_slice(&other[from..from + span]);
            }
            _ => (),
        }
    }
    bytes
}
