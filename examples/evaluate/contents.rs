//! Hashes of the files of a data set, so that a kept cell is used only for the same contents.
//!
//! Every file is read once in each run, whatever its time and size: a file can be replaced without a trace
//! in either. That takes far less time than decoding the images. What changes while the program runs is not
//! noticed.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use padim::dataset::{Category, MaskFile, Sample};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::common;

/// The SHA-256 of the files that were read so far.
#[derive(Default)]
pub struct Contents(HashMap<PathBuf, [u8; 32]>);

impl Contents {
    /// The hashes of a category's images and masks, in their order.
    pub fn of(&mut self, category: &Category) -> Vec<String> {
        let samples = || category.train.iter().chain(&category.test);
        let files: Vec<&Path> =
            samples().flat_map(|sample| [Some(&*sample.path), mask(sample)]).flatten().collect();
        let mut new: Vec<&Path> =
            files.iter().copied().filter(|path| !self.0.contains_key(*path)).collect();
        new.sort_unstable();
        new.dedup();
        let bar = common::progress_bar("hashing", new.len() as u64);
        let hashes = new.par_iter().map(|path| {
            // A file that cannot be read is told where it is needed.
            let hash = hash(path).unwrap_or_default();
            bar.inc(1);
            (path.to_path_buf(), hash)
        });
        self.0.extend(hashes.collect::<Vec<_>>());
        bar.finish_and_clear();
        let hex = |path: &Path| self.0[path].map(|byte| format!("{byte:02x}")).concat();
        files.into_iter().map(hex).collect()
    }
}

fn mask(sample: &Sample) -> Option<&Path> {
    sample.mask.as_ref().map(MaskFile::path)
}

fn hash(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            count => hasher.update(&buffer[..count]),
        }
    }
}
