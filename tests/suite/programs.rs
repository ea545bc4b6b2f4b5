//! Runs examples as programs: what they write, their exit codes, and that they keep what they have.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::detector::{defective, detector, good};
use crate::{datasets, decisions};

fn run(name: &str, folder: &Path, arguments: &[&str]) -> Output {
    Command::new(crate::example(name)).current_dir(folder).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const SMALL: [&str; 4] = ["--resize", "square:64", "--crop", "none"];

/// Runs `mvtec` and returns its exit code, its categories, and the lines of its table of scores.
fn mvtec(folder: &Path) -> (Option<i32>, Value, Vec<String>, String) {
    let arguments = ["--data", "data", "--json", "m.json", "--csv", "m.csv", "--save", "detectors"];
    let output = run("mvtec", folder, &[&arguments[..], &["--panels", "panels"], &SMALL].concat());
    let json = std::fs::read(folder.join("m.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    let rows = std::fs::read_to_string(folder.join("m.csv")).unwrap();
    let told = text(&output.stdout) + &text(&output.stderr);
    let rows = rows.lines().map(str::to_owned).collect();
    (output.status.code(), json["categories"].clone(), rows, told)
}

#[test]
fn a_damaged_test_image_is_one_bad_row() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    datasets::mvtec(&folder.join("data"));
    let image = folder.join("data/plate/test/good/5.png");
    let bytes = std::fs::read(folder.join("data/plate/test/good/6.png")).unwrap();
    std::fs::write(&image, &bytes[..bytes.len() / 2]).unwrap();
    let (code, categories, rows, told) = mvtec(folder);
    assert_eq!(code, Some(2), "{told}");
    let plate = &categories["plate"];
    assert!(plate["image_auroc"] == 1.0 && plate["aupro"].is_number(), "{plate}");
    assert_eq!(plate["test_images"], 3);
    let failed = &plate["failed_images"][0];
    assert!(failed["path"].as_str().unwrap().ends_with("5.png"), "{failed}");
    assert_eq!(rows[0], "path,image_score,error");
    assert!(rows[1].contains("5.png,,") && rows[1].contains("cannot decode"), "{}", rows[1]);
    assert!(rows[2..].iter().all(|row| row.ends_with(',')), "{rows:?}");
    assert_eq!(std::fs::read_dir(folder.join("panels/plate")).unwrap().count(), 2 + 1);
}

#[test]
fn a_test_without_one_class_is_done_as_far_as_it_goes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    datasets::mvtec(&folder.join("data"));
    let test = folder.join("data/plate/test");
    std::fs::remove_dir_all(test.join("good")).unwrap();
    let (code, categories, rows, told) = mvtec(folder);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("plate: image_auroc is undefined: there is no good image"), "{told}");
    let plate = &categories["plate"];
    assert!(plate["image_auroc"].is_null() && plate["image_f1_max"] == 1.0, "{plate}");
    assert_eq!(plate["undefined"]["image_auroc"], "there is no good image");
    assert_eq!(rows.len(), 2);

    // Without any test image, there is still a detector.
    std::fs::remove_dir_all(test.join("spot")).unwrap();
    std::fs::remove_file(folder.join("detectors/plate.padim")).unwrap();
    let (code, categories, rows, told) = mvtec(folder);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(categories["plate"]["undefined"].as_object().unwrap().len(), 4);
    assert_eq!(rows.len(), 1);
    assert!(folder.join("detectors/plate.padim").exists());
}

#[test]
fn a_category_that_fails_does_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    datasets::mvtec(&folder.join("data"));
    let broken = folder.join("data/bolt/train/good");
    std::fs::create_dir_all(&broken).unwrap();
    std::fs::create_dir_all(folder.join("data/bolt/test")).unwrap();
    std::fs::write(broken.join("0.png"), b"no picture").unwrap();
    let (code, categories, _, told) = mvtec(folder);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("bolt: ") && told.contains("0.png"), "{told}");
    assert!(categories["bolt"].is_null() && categories["plate"]["image_auroc"] == 1.0);
}

#[test]
fn a_folder_of_good_images_becomes_a_detector() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for name in ["good", "more", "new"] {
        std::fs::create_dir(folder.join(name)).unwrap();
    }
    for i in 0..20 {
        decisions::good(i).save(folder.join(format!("good/{i}.png"))).unwrap();
        decisions::good(i + 20).save(folder.join(format!("more/{i}.png"))).unwrap();
    }
    decisions::good(45).save(folder.join("new/45.png")).unwrap();
    defective().save(folder.join("new/defective.png")).unwrap();
    let fit =
        |more: &[&str]| run("fit", folder, &[&["--images", "good"][..], more, &SMALL].concat());
    let inspect = || {
        let arguments = ["--detector", "part.padim", "--images", "new"];
        let output = run("inspect", folder, &arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };

    let output = fit(&[]);
    let told = text(&output.stdout);
    assert!(output.status.success(), "{told}{}", text(&output.stderr));
    assert!(told.contains("Learning from 20 images") && told.contains("Memory plan"), "{told}");
    assert!(told.contains("--example inspect -- --detector part.padim --images DIR"), "{told}");
    assert!(!inspect().contains("true"));

    for more in [&["--calibrate", "0.1"][..], &["--calibrate", "0.1", "--more-good", "more"]] {
        let output = fit(more);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let rows = inspect();
        let row = rows.lines().find(|row| row.contains("defective.png")).unwrap();
        assert!(row.contains("true"), "{rows}");
    }
    let output = fit(&["--calibrate", "0.01"]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains("at least 99") && told.contains("there are 20"), "{told}");
}

#[test]
fn errors_name_the_option_of_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    detector().save(folder.join("part.padim")).unwrap();
    good(1).save(folder.join("1.png")).unwrap();
    let inspect = |more: &[&str]| {
        let arguments = ["--detector", "part.padim", "--images", "1.png"];
        run("inspect", folder, &[&arguments[..], more].concat())
    };
    let output = inspect(&["--max-pixels", "1000"]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stdout);
    assert!(told.contains("too large") && told.contains("--max-pixels N"), "{told}");
    let output = inspect(&["--max-pixels", "4000", "--orientation", "ignore"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// As by `| head -1`, also of stderr.
#[test]
fn a_closed_pipe_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    detector().save(folder.join("part.padim")).unwrap();
    (0..9).for_each(|i| good(i).save(folder.join(format!("{i}.png"))).unwrap());
    let mut process = Command::new(crate::example("inspect"))
        .current_dir(folder)
        .args(["--detector", "part.padim", "--images", ".", "--explain", "explained"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((process.stdout.take(), process.stderr.take()));
    assert_eq!(process.wait().unwrap().code(), Some(0));
    // The files are complete.
    assert_eq!(std::fs::read_dir(folder.join("explained")).unwrap().count(), 9);
}
