//! Soak test: runs at full speed for minutes; no image may be lost, and memory must not grow.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

use serde_json::Value;

use super::common::{self, Outcome, say};
use super::{Work, demo_detector, watch};

/// Allowed growth of memory from the second quarter of the time to the last, in bytes.
const MOST_GROWTH: f64 = 8e6;

/// Another process fills a folder while this process scores its images. Then compares the images with
/// the results.
pub fn soak(work: &Work, minutes: f64) -> Outcome<u64> {
    let folder = work.output.join("in");
    common::create_folder(&folder)?;
    if std::fs::read_dir(&folder)?.next().is_some() || work.output.join("results.jsonl").exists() {
        let output = work.output.display();
        return Err(format!("{output} is not empty; give a new folder by --output").into());
    }
    let detector = demo_detector(&work.on.device)?;
    let seconds = (60.0 * minutes).to_string();
    let feeder = Command::new(std::env::current_exe()?)
        .args(["--feed", &seconds, "--watch"])
        .arg(&folder)
        .spawn()?;
    say!("Filling {} for {minutes} minutes.", folder.display());
    // If this process fails, the other process ends by itself.
    let feeder = Mutex::new(feeder);
    let fed = || feeder.lock().is_ok_and(|mut feeder| matches!(feeder.try_wait(), Ok(Some(_))));
    let mut memory = Vec::new();
    let begin = Instant::now();
    let work = Work { delete: true, ..work.clone() };
    let statistics = watch(
        detector,
        &folder,
        &work,
        || false,
        fed,
        |bytes| {
            memory.push((begin.elapsed().as_secs_f64(), bytes as f64 / 1e6));
        },
    )?;

    let mut wrong = compare(&work.output)?;
    let s = &statistics;
    let sum = s.predicted + s.failed + s.dropped + s.in_flight;
    if s.submitted != sum || s.dropped + s.in_flight + s.sink_failures != 0 {
        wrong.push(format!("the counts do not add up: {s:?}"));
    }
    if std::fs::read_dir(&folder)?.next().is_some() {
        wrong.push("files are left in the folder".to_owned());
    }
    // The medians of the second and of the last quarter.
    let median = |part: &[(f64, f64)]| {
        let mut values: Vec<f64> = part.iter().map(|sample| sample.1).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    let quarter = memory.len() / 4;
    let (early, late) = (median(&memory[quarter..2 * quarter]), median(&memory[3 * quarter..]));
    for (time, megabytes) in memory.iter().step_by((memory.len() / 20).max(1)) {
        say!("{time:6.0} s: {megabytes:.1} MB");
    }
    say!("memory: {early:.1} MB in the second quarter of the time, {late:.1} MB in the last");
    // In the first seconds, memory grows to its working size.
    if minutes >= 0.5 && late - early > MOST_GROWTH / 1e6 {
        wrong.push("memory grows".to_owned());
    }
    if wrong.is_empty() {
        say!("Every image is accounted for.");
        return Ok(0);
    }
    Err(format!("the soak failed:\n{}", wrong.join("\n")).into())
}

/// Checks that each image of the ledger has exactly one result, the expected one.
fn compare(output: &Path) -> Outcome<Vec<String>> {
    let ledger = std::fs::read_to_string(output.join("ledger"))?;
    let results = std::fs::read_to_string(output.join("results.jsonl"))?;
    let mut written: HashMap<String, Vec<&str>> = HashMap::new();
    for line in results.lines() {
        let value: Value = serde_json::from_str(line)?;
        let what = if value["score"].is_number() { "scored" } else { "failed" };
        let id = value["id"].as_str().unwrap_or_default();
        written.entry(id.to_owned()).or_default().push(what);
    }
    let mut wrong = Vec::new();
    let mut counts = HashMap::new();
    for (name, expected) in ledger.lines().filter_map(|line| line.split_once(' ')) {
        *counts.entry(expected).or_insert(0) += 1;
        let got = written.remove(name).unwrap_or_default();
        if got != [expected] {
            wrong.push(format!("{name}: expected {expected}, got {got:?}"));
        }
    }
    wrong.extend(written.keys().map(|name| format!("{name} was never put there")));
    say!("Put into the folder, and what must become of it: {counts:?}");
    wrong.truncate(20);
    Ok(wrong)
}
