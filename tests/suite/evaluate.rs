//! Runs the example `evaluate` as a program: every layout, its output files, continuing after an
//! interruption, and the HTML page.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::datasets;

fn run(program: &Path, folder: &Path, arguments: &[&str]) -> Output {
    Command::new(program).current_dir(folder).args(arguments).output().unwrap()
}

fn json(folder: &Path, file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join(file)).unwrap()).unwrap()
}

#[test]
fn every_layout_with_its_metrics_and_going_on_after_a_break() {
    let program = crate::example("evaluate");
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    datasets::mvtec(&root.join("m"));
    datasets::btad(&root.join("b"));
    datasets::visa(&root.join("v"));
    datasets::folder(&root.join("f"));
    datasets::table(&root.join("f"));
    datasets::shanghaitech(&root.join("s"));
    let sources = [
        "mvtec:m,name=screw",
        "btad:b",
        "visa:v",
        "folder:f",
        "csv:f/plates.csv",
        "stc:s,train=1",
        "rd:mvtec:m",
    ];
    let mut arguments: Vec<&str> =
        sources.iter().flat_map(|source| ["--dataset", *source]).collect();
    arguments.extend(["--weights", "untrained", "--variants", "rd20", "--seeds", "1,2"]);
    arguments.extend(["--json", "report.json"]);
    arguments.extend(["--csv", "cells.csv", "--markdown", "tables.md", "--html", "page.html"]);
    let output = run(&program, root, &arguments);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(told.contains("preset paper, backbone resnet18, variant rd20"), "{told}");

    let report = json(root, "report.json");
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), sources.len());
    assert_eq!(report["cells"].as_array().unwrap().len(), 2 * sources.len());
    for row in rows {
        assert_eq!(row["seeds"], 2);
        let mean = |metric: &str| row["metrics"][metric]["mean"].as_f64().unwrap();
        // Rotated images are harder for an untrained network.
        let least = if row["dataset"] == "rd:mvtec:m" { 0.5 } else { 0.9 };
        assert_eq!(mean("image_auroc"), 1.0, "{row}");
        assert!(mean("pixel_auroc") > least && mean("aupro") > 0.0, "{row}");
    }
    let cell = &report["cells"][0];
    assert_eq!(cell["defects"].as_array().unwrap().len(), 1);
    assert!(cell["panels"].is_null() && !cell["curves"]["pro"].is_null());
    let lines = std::fs::read_to_string(root.join("cells.csv")).unwrap();
    assert_eq!(lines.lines().count(), 1 + 2 * sources.len());
    let tables = std::fs::read_to_string(root.join("tables.md")).unwrap();
    assert!(tables.contains("| screw |") && tables.contains("## By kind of defect"), "{tables}");

    // After one cell is deleted, the others are reused, and the results are the same.
    let kept = root.join("padim-evaluation/cells");
    let lost = std::fs::read_dir(&kept).unwrap().next().unwrap().unwrap().path();
    std::fs::write(lost, b"{ half a ce").unwrap();
    let output = run(&program, root, &arguments);
    let told = String::from_utf8_lossy(&output.stderr);
    let all = 2 * sources.len();
    assert!(told.contains(&format!("{} of {all} cells are there already", all - 1)), "{told}");
    assert!(told.contains("[1/1]"), "{told}");
    let again = json(root, "report.json");
    assert!(report["rows"] == again["rows"], "{}\n{}", report["rows"], again["rows"]);

    a_browser_shows_the_page(root);
}

#[test]
fn a_file_that_was_replaced_is_evaluated_anew() {
    let program = crate::example("evaluate");
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    datasets::btad(&root.join("b"));
    let arguments = ["--dataset", "btad:b", "--weights", "untrained", "--json", "report.json"];
    let computed = || {
        let output = run(&program, root, &arguments);
        assert!(output.status.success(), "{output:?}");
        let told = String::from_utf8_lossy(&output.stderr);
        (!told.contains("1 of 1 cells are there already"), json(root, "report.json"))
    };
    let (new, first) = computed();
    assert!(new);
    assert!(!computed().0);
    // Each kind of file; the images with the same size and time as before.
    for file in ["train/ok/3.bmp", "test/ok/6.bmp", "ground_truth/ko/7.png"] {
        let path = root.join("b/01").join(file);
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        if file.ends_with(".bmp") {
            let middle = bytes.len() / 2;
            bytes[middle..middle + 300].fill(77);
        } else {
            // A byte behind the end, which no decoder reads.
            bytes.push(0);
        }
        std::fs::write(&path, bytes).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        let (new, report) = computed();
        assert!(new, "{file}");
        assert!(file.ends_with(".png") || report["rows"] != first["rows"], "{file}");
    }
}

#[test]
fn a_broken_category_does_not_stop_the_others() {
    let program = crate::example("evaluate");
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    datasets::mvtec(&root.join("m"));
    datasets::btad(&root.join("b"));
    std::fs::write(root.join("b/01/train/ok/3.bmp"), b"no picture").unwrap();
    std::fs::write(root.join("m/plate/test/spot/9.png"), b"no picture").unwrap();
    let arguments = ["--dataset", "btad:b", "--dataset", "mvtec:m", "--json", "report.json"];
    let output = run(&program, root, &arguments);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("1 of 2 cells failed") && told.contains("3.bmp"), "{told}");
    let report = json(root, "report.json");
    assert!(told.contains("an image cannot be read") && told.contains("9.png"), "{told}");
    let cells = report["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 1);
    // One bad test image is left out, and the others have their metrics.
    let failed = cells[0]["failed"].as_array().unwrap();
    assert!(failed.len() == 1 && failed[0]["path"].as_str().unwrap().contains("9.png"));
    assert!(cells[0]["metrics"]["image_auroc"].is_number());
    assert!(report["failures"][0]["error"].as_str().unwrap().contains("3.bmp"));
}

#[test]
fn what_cannot_be_meant_is_told() {
    let program = crate::example("evaluate");
    let root = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str], reason: &str| {
        let output = run(&program, root.path(), arguments);
        assert!(!output.status.success());
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(reason), "{arguments:?}: {told}");
    };
    let screws = ["--dataset", "mvtec:screws"];
    refused(&["--dataset", "imagenet:x"], "mvtec:DIR");
    refused(&["--dataset", "mvtec:x,train=3"], "no option \"train\"");
    refused(&[&screws[..], &["--variants", "layer4x"]].concat(), "no variant");
    refused(&[&screws[..], &["--variants", "rd0"]].concat(), "no variant");
    refused(&[&screws[..], &["--seeds", "a"]].concat(), "0..10");
    refused(&[&screws[..], &["--memory", "0"]].concat(), "--memory");
    refused(&screws, "screws");
}

/// Skipped with a message if there is no browser.
fn a_browser_shows_the_page(root: &Path) {
    let page = root.join("page.html");
    let text = std::fs::read_to_string(&page).unwrap();
    for address in ["src=\"http", "href=\"http", "url(http", "@import", "fetch("] {
        assert!(!text.contains(address), "the page asks for {address}");
    }
    let browsers = ["chromium", "chromium-browser", "google-chrome"];
    let Some(browser) = browsers.iter().find(|b| Command::new(b).arg("--version").output().is_ok())
    else {
        println!("SKIPPED: no Chromium to show the page of `evaluate`");
        return;
    };
    let dom = |hash: &str| {
        let profile = tempfile::tempdir().unwrap();
        let profile = format!("--user-data-dir={}", profile.path().display());
        let address = format!("file://{}{hash}", page.display());
        let quiet = ["--disable-background-networking", "--disable-component-update"];
        let output = Command::new(browser)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-sync",
            ])
            .args(quiet)
            .args(["--no-first-run", &profile, "--dump-dom", &address])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let whole = dom("");
    // One row of the summary for each data set, and the details of the first.
    assert!(whole.contains("visa:v") && whole.contains("rd:mvtec:m"), "{whole:.2000}");
    assert!(whole.matches("<svg").count() >= 4, "curves and a histogram");
    assert!(whole.contains("data:image/jpeg;base64,"), "a contact sheet");
    assert!(whole.contains("7 of 7 rows"));

    // Filter and sorting are in the URL.
    let filtered = dom("#q=visa");
    assert!(filtered.contains("1 of 7 rows"), "{filtered:.4000}");
    let order = |hash: &str| {
        let page = dom(hash);
        let table = &page[page.find("<tbody").unwrap()..];
        let mut places: Vec<_> = ["screw", "pcb", "plates"]
            .map(|category| (table.find(&format!(">{category}</")).unwrap(), category))
            .into();
        places.sort_unstable();
        places.into_iter().map(|place| place.1).collect::<Vec<_>>()
    };
    assert_eq!(order("#sort=category"), ["pcb", "plates", "screw"]);
    assert_eq!(order("#sort=-category"), ["screw", "plates", "pcb"]);
}
