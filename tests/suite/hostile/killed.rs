//! Processes that are killed while they work.

use std::path::PathBuf;

use padim::gaussian::Storage;
use padim::{Detector, Padim};

use super::checks;
use super::damage::Chance;
use super::{squares_config, tiny};
use crate::{devices, run_and_kill};

/// Runs itself in processes that fit and save in a loop, and kills them at random moments.
#[test]
fn a_fit_killed_at_any_moment_leaves_the_old_file() {
    const TARGET: &str = "PADIM_TEST_FITS_TO";
    let fitted = |first: u8| {
        let padim = Padim::new(
            squares_config(Storage::Auto),
            checks::network().untrained(1, &devices()[0]).unwrap(),
        );
        padim.unwrap().fit((first..first + 4).map(tiny)).unwrap()
    };
    if let Some(target) = std::env::var_os(TARGET) {
        let path = PathBuf::from(target);
        std::fs::write(path.with_extension("ready"), b"").unwrap();
        for round in 0.. {
            fitted(4 * (round % 2)).save(&path).unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.padim");
    let (before, after) = (fitted(0), fitted(4));
    let start = std::time::Instant::now();
    before.save(&path).unwrap();
    let _ = fitted(0);
    let round_takes = start.elapsed();
    let expected = [before, after].map(|detector| detector.predict(tiny(9)).unwrap());
    assert_ne!(expected[0], expected[1]);
    let mut random = Chance(3);
    for round in 0..10 {
        let test = "hostile::killed::a_fit_killed_at_any_moment_leaves_the_old_file";
        let after = round_takes.mul_f64(random.below(3000) as f64 / 1000.0);
        run_and_kill(test, TARGET, &path, after);
        let loaded = Detector::load(&path, &devices()[0]).unwrap().predict(tiny(9)).unwrap();
        assert!(expected.contains(&loaded), "round {round}");
    }
    // A later save removes their temporary files once these are old enough.
    let left = || {
        let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|file| *file != path).collect::<Vec<_>>()
    };
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    std::fs::write(folder.path().join(".padim-0-0.tmp"), b"half a detector").unwrap();
    for file in left() {
        assert!(file.extension().is_some_and(|extension| extension == "tmp"), "{}", file.display());
        std::fs::File::options().write(true).open(file).unwrap().set_modified(old).unwrap();
    }
    fitted(0).save(&path).unwrap();
    assert_eq!(left(), Vec::<PathBuf>::new());
}
