//! The running line: order, limits, dropped images, failures, and that no image is lost.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use image::DynamicImage;
use padim::line::*;
use padim::{Detector, Error, ImageInput, Prediction, image};

use crate::detector::{defective, detector as fitted, good};

fn detector() -> Arc<Detector> {
    static DETECTOR: OnceLock<Arc<Detector>> = OnceLock::new();
    Arc::clone(DETECTOR.get_or_init(|| Arc::new(fitted())))
}

/// A sink that waits for a signal before it takes a result.
fn gated() -> (Sender<()>, Results, impl FnMut(LineResult<usize>) -> Sunk) {
    let (open, gate) = channel::<()>();
    let (results, received) = channel();
    let sink = move |result| {
        gate.recv()?;
        Ok(results.send(result)?)
    };
    (open, received, sink)
}

type Sunk = std::result::Result<(), SinkError>;
type Results = Receiver<LineResult<usize>>;

fn collecting() -> (Results, impl FnMut(LineResult<usize>) -> Sunk) {
    let (results, received) = channel();
    (received, move |result| Ok(results.send(result)?))
}

/// Checks that the counts add up, so that no image is lost.
fn add_up(s: &LineStatistics) {
    assert_eq!(s.submitted, s.predicted + s.failed + s.dropped + s.in_flight, "{s:?}");
}

#[test]
fn many_threads_predict_the_same_bits() {
    let detector = detector();
    let image = |i: usize| if i.is_multiple_of(3) { defective() } else { good(i as u32) };
    let expected: Vec<Prediction> = (0..6).map(|i| detector.predict(image(i)).unwrap()).collect();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (detector, expected) = (&detector, &expected);
            scope.spawn(move || {
                for round in 0..6 {
                    let i = (thread + round) % 6;
                    assert_eq!(detector.predict(image(i)).unwrap(), expected[i]);
                    let prepared = vec![detector.prepare(image(i)).unwrap(); 1 + round % 3];
                    for prediction in detector.predict_prepared(prepared) {
                        assert_eq!(prediction.unwrap(), expected[i]);
                    }
                }
            });
        }
    });
}

#[test]
fn results_come_in_order_as_the_detector_predicts_them() {
    let folder = tempfile::tempdir().unwrap();
    let damaged = folder.path().join("damaged.png");
    std::fs::write(&damaged, b"\x89PNG\r\n\x1a\nno more").unwrap();
    let whole = folder.path().join("whole.png");
    defective().save(&whole).unwrap();
    let detector = detector();
    let input = |i: usize| -> ImageInput {
        match i % 7 {
            2 => damaged.clone().into(),
            4 => whole.clone().into(),
            5 => ImageInput::deferred("bad camera", move |_| panic!("no light at {i}")),
            6 => DynamicImage::new_rgb8(1, 900).into(),
            _ => good(i as u32).into(),
        }
    };
    let (received, sink) = collecting();
    let config = LineConfig::default().with_queue(5).with_batch(4).with_decoders(3);
    let most = config.most_in_flight() as u64;
    let line = Line::start(Arc::clone(&detector), config, sink).unwrap();
    for i in 0..70 {
        assert_eq!(line.submit(i, input(i)).unwrap(), Submitted::Accepted);
        add_up(&line.statistics());
    }
    let report = line.finish();
    let results: Vec<_> = received.iter().collect();
    assert_eq!(results.len(), 70);
    for (i, result) in results.iter().enumerate() {
        assert_eq!((result.number, result.id), (i as u64, i));
        match (&result.outcome, i % 7) {
            (Outcome::Failed(Error::Decode { name, .. }), 2) => assert!(name.ends_with(".png")),
            (Outcome::Failed(Error::Panicked { message, .. }), 5) => {
                assert_eq!(*message, format!("bad camera: no light at {i}"));
            }
            (Outcome::Failed(Error::UnusableImage { .. }), 6) => {}
            (Outcome::Predicted(prediction), 0 | 1 | 3 | 4) => {
                let expected = detector.predict(input(i)).unwrap();
                assert_eq!(*prediction, expected);
                assert_eq!(prediction.map_in_original().unwrap().size(), [56, 70]);
            }
            (other, _) => panic!("{i}: {other:?}"),
        }
    }
    let s = report.statistics;
    add_up(&s);
    assert_eq!((s.submitted, s.predicted, s.failed, s.dropped, s.in_flight), (70, 40, 30, 0, 0));
    assert!(s.most_in_flight <= most && report.undelivered.is_empty());
    let l = &s.latency;
    assert_eq!([l.total, l.decoding, l.sinking].map(|p| p.count), [70; 3]);
    assert_eq!([l.batching, l.predicting].map(|p| p.count), [40; 2]);
    assert!(l.total.p50 <= l.total.p99 && l.total.p99 <= l.total.max);
    assert!(s.batches >= 10 && s.batches <= 40);
}

/// With a blocked sink, only a limited number of images is in memory, and `submit` waits.
#[test]
fn a_slow_sink_holds_submissions_back() {
    let (open, received, sink) = gated();
    let config = LineConfig::default().with_queue(3).with_batch(2).with_decoders(2);
    let most = config.most_in_flight();
    let line = Arc::new(Line::start(detector(), config, sink).unwrap());
    let submitted = Arc::new(AtomicUsize::new(0));
    let submitter = {
        let (line, submitted) = (Arc::clone(&line), Arc::clone(&submitted));
        std::thread::spawn(move || {
            for i in 0..40 {
                line.submit(i, good(i as u32)).unwrap();
                submitted.fetch_add(1, Ordering::SeqCst);
            }
        })
    };
    while submitted.load(Ordering::SeqCst) < most {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(submitted.load(Ordering::SeqCst), most);
    assert_eq!(most, 3 + 2 + 3 * 2);
    // The sink has taken one, and waits.
    while line.statistics().in_flight != most as u64 - 1 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(line.statistics().submitted, most as u64);
    (0..40).for_each(|_| open.send(()).unwrap());
    submitter.join().unwrap();
    let s = Arc::into_inner(line).unwrap().finish().statistics;
    assert_eq!((s.predicted, s.most_in_flight), (40, most as u64));
    assert!(received.iter().map(|result| result.id).eq(0..40));
}

/// Submits forty images; the sink opens after the last. Returns which images are predicted.
fn kept(drop: DropPolicy) -> (Vec<usize>, Vec<Submitted>, LineStatistics) {
    let (open, received, sink) = gated();
    let config = LineConfig::default().with_queue(4).with_batch(2).with_decoders(1).with_drop(drop);
    let most_begun = config.most_in_flight() - 4;
    let line = Line::start(detector(), config, sink).unwrap();
    let opened = Arc::new(AtomicUsize::new(0));
    let mut submitted = Vec::new();
    for i in 0..40 {
        let counter = Arc::clone(&opened);
        let image = ImageInput::deferred(i.to_string(), move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(good(i as u32).into())
        });
        submitted.push(line.submit(i, image).unwrap());
        // Processing of the first images has begun; later images wait in the queue.
        while opened.load(Ordering::SeqCst) < most_begun.min(i + 1) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    add_up(&line.statistics());
    (0..40).for_each(|_| open.send(()).unwrap());
    let s = line.finish().statistics;
    let results: Vec<_> = received.iter().collect();
    assert!(results.iter().map(|result| result.id).eq(0..40), "all reach the sink, in order");
    let kept = results.iter().filter(|result| matches!(result.outcome, Outcome::Predicted(_)));
    let dropped = results.iter().filter(|result| matches!(result.outcome, Outcome::Dropped));
    assert_eq!(dropped.count() as u64, s.dropped);
    (kept.map(|result| result.id).collect(), submitted, s)
}

#[test]
fn what_is_dropped_is_what_the_policy_says() {
    // Seven images are in process, four wait in the queue.
    let (kept_ids, submitted, s) = kept(DropPolicy::DropNewest);
    assert_eq!(kept_ids, (0..11).collect::<Vec<_>>());
    assert!(submitted[..11].iter().all(|s| *s == Submitted::Accepted));
    assert!(submitted[11..].iter().all(|s| *s == Submitted::Dropped));
    assert_eq!((s.submitted, s.predicted, s.dropped), (40, 11, 29));

    let (kept_ids, submitted, s) = kept(DropPolicy::DropOldest);
    assert_eq!(kept_ids, (0..7).chain(36..40).collect::<Vec<_>>());
    assert!(submitted[11..].iter().all(|s| *s == Submitted::DroppedOldest));
    assert_eq!((s.submitted, s.predicted, s.dropped), (40, 11, 29));
    assert_eq!(s.most_in_flight, 11);
    assert_eq!(s.latency.total.count, 11);
}

/// The number of names of dropped images is also limited.
#[test]
fn names_of_dropped_images_do_not_pile_up() {
    let (open, received, sink) = gated();
    let config = LineConfig::default().with_queue(1).with_drop(DropPolicy::DropOldest);
    let line = Arc::new(Line::start(detector(), config, sink).unwrap());
    let count = 100_000;
    let submitter = {
        let line = Arc::clone(&line);
        std::thread::spawn(move || {
            (0..count).for_each(|i| _ = line.submit(i, Path::new("missing.png")).unwrap());
        })
    };
    while line.statistics().submitted < 65_536 {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    let s = line.statistics();
    assert!(s.submitted < 65_536 + 40 && s.in_flight < 65_536 + 40, "{s:?}");
    assert!(!submitter.is_finished());
    (0..count).for_each(|_| open.send(()).unwrap());
    submitter.join().unwrap();
    let s = Arc::into_inner(line).unwrap().finish().statistics;
    assert_eq!((s.submitted, s.failed + s.dropped), (count as u64, count as u64));
    assert!(received.iter().map(|result| result.id).eq(0..count));
}

#[test]
fn a_sink_that_fails_or_panics_loses_no_count() {
    for failure in [SinkFailure::GoOn, SinkFailure::Stop] {
        let (received, mut inner) = collecting();
        let sink = move |result: LineResult<usize>| match result.id {
            3 => Err(std::io::Error::from(std::io::ErrorKind::StorageFull).into()),
            5 => panic!("a sink's mistake"),
            _ => inner(result),
        };
        let config = LineConfig::default().with_sink_failure(failure);
        let line = Line::start(detector(), config, sink).unwrap();
        let submitted = (0..12).take_while(|&i| {
            let outcome = line.submit(i, good(i as u32));
            assert!(matches!(outcome, Ok(Submitted::Accepted) | Err(Error::LineClosed { .. })));
            outcome.is_ok()
        });
        let submitted = submitted.count();
        if failure == SinkFailure::Stop {
            while line.statistics().sink_failures == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            let closed = line.submit(99, good(0)).unwrap_err().to_string();
            assert!(closed.contains("closed") && closed.contains("storage"), "{closed}");
        }
        let LineReport { statistics: s, undelivered, .. } = line.finish();
        add_up(&s);
        assert_eq!((s.submitted, s.in_flight), (submitted as u64, 0));
        let got: Vec<usize> = received.iter().map(|result| result.id).collect();
        let last = s.last_sink_failure.unwrap();
        match failure {
            SinkFailure::GoOn => {
                assert_eq!(got, [0, 1, 2, 4, 6, 7, 8, 9, 10, 11]);
                assert_eq!((s.predicted, s.sink_failures, undelivered.len()), (12, 2, 0));
                assert!(last.contains("a sink's mistake"), "{last}");
            }
            _ => {
                assert_eq!(got, [0, 1, 2]);
                assert_eq!(undelivered, (4..submitted).collect::<Vec<_>>());
                assert_eq!((s.predicted, s.sink_failures), (4, 1));
                assert_eq!(s.dropped, undelivered.len() as u64);
                assert!(last.contains("failed"), "{last}");
            }
        }
    }
}

#[test]
fn a_line_that_is_dropped_finishes_first_and_threads_may_submit_together() {
    let (received, sink) = collecting();
    let config = LineConfig::default().with_queue(2);
    let line = Line::start(detector(), config, sink).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let line = &line;
            scope.spawn(move || {
                for i in 0..10 {
                    line.submit(100 * thread + i, good(i as u32)).unwrap();
                }
            });
        }
    });
    drop(line);
    let ids: Vec<usize> = received.iter().map(|result| result.id).collect();
    assert_eq!(ids.len(), 40);
    for thread in 0..4 {
        let own = ids.iter().filter(|&&id| id / 100 == thread).map(|id| id % 100);
        assert!(own.eq(0..10), "in the order of each thread");
    }
    // An idle line ends, too.
    let (_, sink) = collecting();
    let idle = Line::start(detector(), LineConfig::default(), sink).unwrap();
    assert_eq!(idle.finish().statistics, LineStatistics::default());
}

#[test]
fn a_batch_waits_for_others_and_not_for_long() {
    let (received, sink) = collecting();
    let batch_wait = Duration::from_secs(20);
    let config = LineConfig::default().with_batch(3).with_batch_wait(batch_wait);
    let line = Line::start(detector(), config, sink).unwrap();
    (0..6).for_each(|i| _ = line.submit(i, good(i as u32)).unwrap());
    assert!((0..6).all(|_| received.recv().is_ok()));
    line.submit(6, good(6)).unwrap();
    let s = line.finish().statistics;
    assert_eq!((s.predicted, s.batches), (7, 3), "full batches, and a rest at the end");
    assert!(s.latency.total.max < batch_wait);
}

#[test]
fn settings_are_checked() {
    let default = LineConfig::default;
    for (field, config) in [
        ("queue", default().with_queue(0)),
        ("decoders", default().with_decoders(0)),
        ("batch", default().with_batch(0)),
        ("batch", default().with_batch(usize::MAX)),
        ("batch_wait", default().with_batch_wait(Duration::MAX)),
    ] {
        let (_, sink) = collecting();
        let refused = Line::start(detector(), config, sink).unwrap_err();
        assert!(matches!(refused, Error::InvalidConfig { field: f, .. } if f == field));
    }
}

/// The file names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn a_watched_folder_and_a_short_soak() {
    let program = crate::example("watch_folder");
    let root = tempfile::tempdir().unwrap();
    let soak = Command::new(&program)
        .args(["--soak", "0.05", "--patience", "1000", "--report", "2", "--output"])
        .arg(root.path().join("soak"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&soak.stdout).into_owned();
    println!("{text}");
    let errors = String::from_utf8_lossy(&soak.stderr);
    assert!(soak.status.success() && text.contains("Every image is accounted for"), "{errors}");

    let (watched, output) = (root.path().join("in"), root.path().join("out"));
    let saved = root.path().join("model.padim");
    detector().save(&saved).unwrap();
    std::fs::create_dir(&watched).unwrap();
    good(3).save(watched.join("a.png")).unwrap();
    std::fs::write(watched.join("b.png"), "no picture").unwrap();
    std::fs::write(watched.join("c.png.part"), "not yet").unwrap();
    std::fs::write(watched.join("notes.txt"), "no image").unwrap();
    // An incomplete line of a run that was killed.
    std::fs::create_dir(&output).unwrap();
    std::fs::write(output.join("results.jsonl"), "{\"id\":\"0\"}\n{\"id\":\"half").unwrap();
    let run = |more: &[&str]| {
        let mut command = Command::new(&program);
        command.arg("--detector").arg(&saved).arg("--watch").arg(&watched).arg("--output");
        command.arg(&output).args(["--patience", "200", "--poll", "20"]).args(more);
        assert!(command.status().unwrap().success());
    };
    run(&["--once"]);
    // A file with the same name does not replace the old one.
    good(4).save(watched.join("a.png")).unwrap();
    run(&["--seconds", "3"]);
    assert_eq!(names(&watched), ["c.png.part", "notes.txt"]);
    assert_eq!(names(&output.join("done")), ["1-a.png", "a.png"]);
    assert_eq!(names(&output.join("failed")), ["b.png"]);
    let results = std::fs::read_to_string(output.join("results.jsonl")).unwrap();
    let lines = results.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<serde_json::Value> = lines.collect();
    let id = |line: &serde_json::Value| line["id"].as_str().unwrap().to_owned();
    assert_eq!(lines.iter().map(id).collect::<Vec<_>>(), ["0", "a.png", "b.png", "a.png"]);
    let score = f64::from(detector().predict(good(3)).unwrap().image_score);
    assert!((lines[1]["score"].as_f64().unwrap() - score).abs() < 1e-4 * score);
    assert!(lines[2]["error"].as_str().unwrap().contains("decode"));
    assert!(output.join("drift.json").exists());
}

/// With a disk of one megabyte that is full at first, images wait and none is lost.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let saved = root.join("model.padim");
    detector().save(&saved).unwrap();
    let (watched, disk) = (root.join("in"), root.join("disk"));
    std::fs::create_dir(&watched).unwrap();
    std::fs::create_dir(&disk).unwrap();
    // In a separate mount namespace, which disappears with the process.
    let namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--map-root-user", "sh", "-c", script]).current_dir(root);
        command.output()
    };
    let mount = "mount -t tmpfs -o size=1m tmpfs disk";
    if !namespace(mount).is_ok_and(|output| output.status.success()) {
        println!("SKIPPED: a file system of one megabyte cannot be mounted here");
        return;
    }
    for i in 0..60 {
        good(i).save(watched.join(format!("{i:02}.png"))).unwrap();
    }
    let program = crate::example("watch_folder");
    let watch = format!(
        "{} --detector model.padim --watch in --output disk/out --poll 20 --patience 200",
        program.display()
    );
    // The first run is stopped while the disk is full: all images stay in the folder. Then the disk
    // gets room.
    let script = format!(
        "set -e; {mount}; mkdir -p disk/out/overlays disk/out/done disk/out/failed
         touch disk/out/results.jsonl
         dd if=/dev/zero of=disk/filler bs=1k 2>/dev/null || true
         {watch} --seconds 2 && exit 7 || test $? = 2
         ls in | wc -l
         {watch} --delete --once 2> errors &
         until grep -q 'trying again' errors; do sleep 0.1; done
         wc -l < disk/out/results.jsonl; rm disk/filler; wait $!; cat errors >&2
         ls in | wc -l; wc -l < disk/out/results.jsonl"
    );
    let output = namespace(&script).unwrap();
    let (text, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{text}{errors}");
    assert!(output.status.success());
    assert!(errors.contains("trying again") && errors.contains("not written"), "{errors}");
    let numbers: Vec<usize> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    assert_eq!(numbers, [60, 0, 0, 60]);
}
