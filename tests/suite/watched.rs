//! The example `watch_folder`: which files it takes, and what it keeps.

use std::path::Path;
use std::process::{Command, Output};

use padim::image::codecs::jpeg::JpegEncoder;
use padim::{Detector, Thresholds, image};
use serde_json::Value;

use crate::detector::{defective, detector, good};
use crate::line::names;

/// A detector that calls every image defective, so that all are drawn.
fn strict() -> Detector {
    detector().with_thresholds(Some(Thresholds::fixed(0.0))).unwrap()
}

fn watch(root: &Path, more: &[&str]) -> Output {
    let output = Command::new(crate::example("watch_folder"))
        .current_dir(root)
        .args(["--detector", "part.padim", "--watch", "in", "--output", "out"])
        .args(["--patience", "200"])
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

fn lines(root: &Path) -> Vec<Value> {
    let results = std::fs::read_to_string(root.join("out/results.jsonl")).unwrap();
    results.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn prepared() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("in")).unwrap();
    strict().save(root.path().join("part.padim")).unwrap();
    root
}

#[test]
fn no_overlay_overwrites_another() {
    let root = prepared();
    let root = root.path();
    good(3).save(root.join("in/a.png")).unwrap();
    good(4).save(root.join("in/a.bmp")).unwrap();
    watch(root, &["--once"]);
    defective().save(root.join("in/a.png")).unwrap();
    watch(root, &["--once"]);
    assert_eq!(names(&root.join("out/overlays")), ["1-a.png", "2-a.png", "a.png"]);
    assert_eq!(names(&root.join("out/done")), ["1-a.png", "a.bmp", "a.png"]);
    let overlays: Vec<Value> = lines(root).iter().map(|line| line["overlay"].clone()).collect();
    assert_eq!(overlays.len(), 3);
    assert_eq!(overlays[2], "2-a.png");
    let drawn = image::open(root.join("out/overlays/2-a.png")).unwrap();
    assert_eq!((drawn.width(), drawn.height()), (70, 56));
}

#[test]
fn what_is_no_image_is_told_once_and_links_are_followed() {
    let root = prepared();
    let root = root.path();
    good(3).save(root.join("elsewhere.png")).unwrap();
    for name in ["notes.txt", ".hidden.txt", "b.png.part"] {
        std::fs::write(root.join("in").join(name), "text").unwrap();
    }
    std::fs::create_dir(root.join("in/more")).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        symlink("nowhere.png", root.join("in/dead.png")).unwrap();
        symlink("../elsewhere.png", root.join("in/link.png")).unwrap();
    }
    let output = watch(root, &["--seconds", "2"]);
    let told = String::from_utf8(output.stderr).unwrap();
    for name in ["notes.txt", "more"] {
        assert_eq!(told.matches(&format!("left out: {name}: ")).count(), 1, "{told}");
    }
    assert!(!told.contains("hidden") && !told.contains("b.png"), "{told}");
    #[cfg(unix)]
    {
        assert_eq!(told.matches("left out: dead.png: a link that leads nowhere").count(), 1);
        let summary = String::from_utf8(output.stdout).unwrap();
        assert!(summary.contains("3 other file(s) left out"), "{summary}");
        // The image itself is kept, and the file behind the link stays.
        let kept = root.join("out/done/link.png");
        assert!(!kept.is_symlink() && root.join("elsewhere.png").exists());
        assert_eq!(
            std::fs::read(kept).unwrap(),
            std::fs::read(root.join("elsewhere.png")).unwrap()
        );
    }
}

#[test]
fn bytes_behind_the_end_of_a_jpeg_are_no_damage() {
    let root = prepared();
    let root = root.path();
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, 95).encode_image(&good(3)).unwrap();
    std::fs::write(root.join("in/half.jpg"), &jpeg[..jpeg.len() / 2]).unwrap();
    jpeg.extend(b"written by a camera");
    std::fs::write(root.join("in/whole.jpg"), &jpeg).unwrap();
    watch(root, &["--once"]);
    assert_eq!(names(&root.join("out/done")), ["whole.jpg"]);
    assert_eq!(std::fs::read(root.join("out/done/whole.jpg")).unwrap(), jpeg);
    assert_eq!(names(&root.join("out/failed")), ["half.jpg"]);
}

/// A writer replaces one file at full speed. Each kept file must have the score of its own bytes.
#[test]
fn what_is_kept_is_what_was_scored() {
    let root = prepared();
    let root = root.path();
    let pictures: Vec<Vec<u8>> = (0..8)
        .map(|i| {
            // Uncompressed, so that all have the same size.
            let mut bytes = std::io::Cursor::new(Vec::new());
            good(i).write_to(&mut bytes, image::ImageFormat::Bmp).unwrap();
            bytes.into_inner()
        })
        .collect();
    let new = root.join("in/.new");
    let replace = |i: usize| {
        std::fs::write(&new, &pictures[i % pictures.len()]).unwrap();
        std::fs::rename(&new, root.join("in/part.bmp")).unwrap();
    };
    replace(0);
    std::thread::scope(|scope| {
        let run = scope.spawn(|| watch(root, &["--seconds", "4", "--poll", "1", "--batch", "1"]));
        let mut i = 1;
        while !run.is_finished() {
            replace(i);
            i += 1;
            std::thread::sleep(std::time::Duration::from_millis(2 + i as u64 % 3));
        }
        run.join().unwrap();
    });
    let detector = strict();
    let done = root.join("out/done");
    let lines = lines(root);
    assert!(!lines.is_empty() && names(&done).len() == lines.len(), "{}", lines.len());
    for (number, line) in lines.iter().enumerate() {
        let name = if number == 0 { "part.bmp".into() } else { format!("{number}-part.bmp") };
        let kept = std::fs::read(done.join(&name)).unwrap();
        assert!(pictures.contains(&kept), "{name} is no file that was written");
        let score = detector.predict(done.join(&name)).unwrap().image_score;
        let noted = line["score"].as_f64().unwrap();
        assert!((f64::from(score) - noted).abs() < 1e-4 * noted, "{name}: {score} and {noted}");
    }
}

#[test]
fn a_state_of_drift_belongs_to_one_detector() {
    let root = prepared();
    let root = root.path();
    let told = || String::from_utf8(watch(root, &["--once"]).stderr).unwrap();
    let state = || -> Value {
        serde_json::from_slice(&std::fs::read(root.join("out/drift.json")).unwrap()).unwrap()
    };
    assert!(!told().contains("put aside"));
    let first = state();
    assert_eq!(first["detector"].as_str().unwrap().len(), 64);
    assert!(!told().contains("put aside"));
    assert_eq!(state(), first);
    detector().save(root.join("part.padim")).unwrap();
    let text = told();
    assert!(text.contains("old-drift.json") && text.contains("another detector"), "{text}");
    assert_ne!(state()["detector"], first["detector"]);
    let old: Value =
        serde_json::from_slice(&std::fs::read(root.join("out/old-drift.json")).unwrap()).unwrap();
    assert_eq!(old, first);
}

#[test]
fn a_file_that_a_killed_program_was_putting_away_is_scored() {
    let root = prepared();
    let root = root.path();
    good(3).save(root.join("a.png")).unwrap();
    std::fs::rename(root.join("a.png"), root.join("in/.a.png.scored")).unwrap();
    watch(root, &["--once"]);
    assert_eq!(names(&root.join("out/done")), ["a.png"]);
    assert!(names(&root.join("in")).is_empty());
}
