//! The other process of a soak test: fills the folder at full speed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::common::parts::{DEFECTS, draw};
use super::common::{self, Outcome};

/// Largest number of files in the folder at once.
const MOST: usize = 150;
/// Number of drawn good pictures; they are linked under many names.
const GOOD: u64 = 40;

/// A half-written file.
struct Half {
    file: fs::File,
    rest: Vec<u8>,
    due: Instant,
}

/// Fills a folder, and writes a file `ledger` next to it: for each image a line with its name and its
/// expected result.
pub fn feed(folder: &Path, seconds: f64) -> Outcome<u64> {
    let beside = folder.parent().unwrap_or(folder);
    let pictures = pictures(&beside.join("pictures"))?;
    let mut ledger = std::io::BufWriter::new(fs::File::create(beside.join("ledger"))?);
    let mut halves: Vec<Half> = Vec::new();
    let begin = Instant::now();
    let mut number = 0_usize;
    while begin.elapsed().as_secs_f64() < seconds {
        let room = MOST.saturating_sub(fs::read_dir(folder)?.count());
        for _ in 0..room.min(MOST / 4) {
            number += 1;
            let picture = &pictures[number % pictures.len()];
            let extension = picture.extension().unwrap_or_default().to_string_lossy();
            let name = format!("{number:07}.{extension}");
            let target = folder.join(&name);
            // Files are damaged in three ways, half-written, renamed into place, or linked.
            let expected = match number % 100 {
                3 | 53 => {
                    let content = fs::read(picture)?;
                    let cut = content.len() / 3;
                    let damaged = match number / 50 % 3 {
                        0 => content[..cut].to_vec(),
                        1 => vec![7; 5000],
                        _ => Vec::new(),
                    };
                    fs::write(&target, damaged)?;
                    "failed"
                }
                17 | 67 => {
                    let mut content = fs::read(picture)?;
                    let rest = content.split_off(content.len() / 2);
                    let mut file = fs::File::create(&target)?;
                    file.write_all(&content)?;
                    let wait = Duration::from_millis(100 + 10 * (number as u64 / 50 % 50));
                    halves.push(Half { file, rest, due: Instant::now() + wait });
                    "scored"
                }
                n if n % 10 == 1 => {
                    let part = folder.join(format!("{name}.part"));
                    fs::copy(picture, &part)?;
                    fs::rename(&part, &target)?;
                    "scored"
                }
                _ => {
                    fs::hard_link(picture, &target)?;
                    "scored"
                }
            };
            writeln!(ledger, "{name} {expected}")?;
        }
        finish(&mut halves, false)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    finish(&mut halves, true)?;
    ledger.flush()?;
    Ok(0)
}

fn finish(halves: &mut Vec<Half>, all: bool) -> Outcome {
    let (due, later) = std::mem::take(halves)
        .into_iter()
        .partition(|half: &Half| all || half.due <= Instant::now());
    *halves = later;
    for mut half in due {
        half.file.write_all(&half.rest)?;
    }
    Ok(())
}

/// Draws good parts and some defective ones.
fn pictures(folder: &Path) -> Outcome<Vec<PathBuf>> {
    common::create_folder(folder)?;
    let defective = (0..).zip(DEFECTS).take(1).map(|(seed, kind)| (seed, Some(kind)));
    let all = (0..GOOD).map(|seed| (seed, None)).chain(defective);
    all.enumerate()
        .map(|(number, (seed, kind))| {
            let extension = if number % 3 == 1 { "jpg" } else { "png" };
            let path = folder.join(format!("{number}.{extension}"));
            draw(5000 + seed, kind).0.save(&path)?;
            Ok(path)
        })
        .collect()
}
