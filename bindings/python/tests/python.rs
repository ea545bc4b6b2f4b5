//! Runs the tests in Python with the library that cargo has built for this test, and gives them a detector and
//! its scores in Rust.

use std::fmt::Write;
use std::process::Command;

use padim::burn::tensor::Device;
use padim::image::{Rgb, RgbImage};
use padim::{Padim, PadimConfig, ResNet18, Weights};

fn picture(i: u32) -> RgbImage {
    RgbImage::from_fn(70, 56, |x, y| {
        let noise = ((x * 7919 + y * 104_729 + i * 1_299_721) % 17) as u8;
        Rgb([x as u8 + noise, (2 * y) as u8 + noise, (x ^ y) as u8 + noise])
    })
}

#[test]
fn the_tests_in_python_pass() {
    let folder = tempfile::tempdir().unwrap();
    let backbone = ResNet18::load(Weights::Bundled, &Device::flex()).unwrap();
    let padim = Padim::new(PadimConfig::default().with_input_size([48, 48]), backbone).unwrap();
    let detector = padim.fit((0..12).map(picture)).unwrap();
    let [saved, scores] = ["part.padim", "scores.txt"].map(|name| folder.path().join(name));
    detector.save(&saved).unwrap();
    let mut lines = String::new();
    for i in 100..110 {
        let path = folder.path().join(format!("{i}.png"));
        picture(i).save(&path).unwrap();
        let score = detector.predict(&path).unwrap().image_score;
        writeln!(lines, "{} {score}", path.display()).unwrap();
    }
    std::fs::write(&scores, lines).unwrap();

    let library = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/check-python");
    let mut tests = Command::new("bash");
    tests.arg(script).arg(library);
    tests.env("PADIM_RUST_DETECTOR", saved).env("PADIM_RUST_SCORES", scores);
    let output = tests.output().unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    println!("{out}{err}");
    assert!(output.status.success(), "{}", output.status);
}
