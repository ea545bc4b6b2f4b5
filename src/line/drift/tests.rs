use super::*;
use crate::decision::Calibration;

/// Roughly normal (Irwin and Hall).
fn normal(random: &mut Random) -> f32 {
    (0..12).map(|_| random.between(-0.5, 0.5)).sum::<f64>() as f32
}

fn exponential(random: &mut Random) -> f32 {
    -(1.0 - random.between(0.0, 1.0)).ln() as f32
}

fn coarse(random: &mut Random) -> f32 {
    random.below(7) as f32
}

fn decision(scores: Vec<f32>, rate: f64) -> Thresholds {
    let calibration = Calibration::new(scores).unwrap();
    let threshold = calibration.threshold(rate).unwrap();
    Thresholds { calibration: Some(calibration), ..Thresholds::fixed(threshold) }
}

/// Over many productions, false alarms are at most as frequent as promised: for any distribution of
/// the scores, with a threshold from the same calibration, and without any calibration.
#[test]
fn false_alarms_are_as_rare_as_promised() {
    const PER_ALARM: f64 = 1000.0;
    let config = DriftConfig { parts_per_false_alarm: PER_ALARM, seed: 3 };
    let cases = [
        ("normal, 100 calibrate", normal as fn(&mut Random) -> f32, 100),
        ("exponential, 20 calibrate", exponential, 20),
        ("coarse, 40 calibrate", coarse, 40),
        ("normal, none", normal, 0),
    ];
    for (name, draw, images) in cases {
        let runs = 600;
        let mut alarms = [0.0; 3];
        let within = [100, 250, 500];
        for run in 0..runs {
            let mut random = Random::of(11, run);
            let scores: Vec<f32> = (0..images).map(|_| draw(&mut random)).collect();
            let decision = (images > 0).then(|| decision(scores, 0.1));
            let config = DriftConfig { seed: run, ..config };
            let mut monitor = DriftMonitor::new(config, decision.as_ref()).unwrap();
            while monitor.parts() < 500 && monitor.alarm().is_none() {
                monitor.observe(draw(&mut random));
            }
            for (alarms, within) in alarms.iter_mut().zip(within) {
                *alarms += f64::from(u8::from(monitor.alarm().is_some_and(|a| a.part <= within)));
            }
        }
        for (alarms, within) in alarms.into_iter().zip(within) {
            let (observed, promised) = (alarms / runs as f64, within as f64 / PER_ALARM);
            println!("{name}: {observed:.3} within {within} parts, promised {promised}");
            let deviation = (promised * (1.0 - promised) / runs as f64).sqrt();
            assert!(observed <= promised + 3.0 * deviation, "{name}: {observed} > {promised}");
        }
        // Some alarms are raised: the promise is not kept by never raising one.
        assert!(alarms[2] > 0.0, "{name}");
    }
}

/// The mean number of parts from a shift by `shift` standard deviations until the alarm, and the
/// mean error of the alarm's `since`.
fn delay(shift: f32, per_alarm: f64, runs: u64) -> (f64, f64) {
    let (mut delays, mut distances, mut counted) = (0.0, 0.0, 0.0);
    for run in 0..runs {
        let mut random = Random::of(5, run);
        let scores: Vec<f32> = (0..100).map(|_| 20.0 + normal(&mut random)).collect();
        let decision = decision(scores, 0.01);
        let config = DriftConfig { parts_per_false_alarm: per_alarm, seed: run };
        let mut monitor = DriftMonitor::new(config, Some(&decision)).unwrap();
        while monitor.parts() < 1000 && monitor.alarm().is_none() {
            monitor.observe(20.0 + normal(&mut random));
        }
        if monitor.alarm().is_some() {
            continue;
        }
        let alarm = loop {
            if let Some(alarm) = monitor.observe(20.0 + shift + normal(&mut random)) {
                break alarm;
            }
        };
        let direction = if shift > 0.0 { DriftDirection::Up } else { DriftDirection::Down };
        assert_eq!(alarm.direction, direction);
        assert!(alarm.since <= alarm.part && alarm.statistic >= per_alarm);
        delays += (alarm.part - 1000) as f64;
        distances += (alarm.since as f64 - 1001.0).abs();
        counted += 1.0;
    }
    assert!(counted > 0.8 * runs as f64);
    (delays / counted, distances / counted)
}

#[test]
fn shifts_are_noticed_soon() {
    for (shift, most) in [(0.5, 160.0), (1.0, 45.0), (-1.0, 45.0), (2.0, 20.0)] {
        let (parts, distance) = delay(shift, 1e4, 20);
        println!("{shift}: {parts:.1} parts, {distance:.1} from its beginning");
        assert!(parts < most && distance < most, "{shift}: {parts} {distance}");
    }
}

/// Prints the table of the documentation.
#[test]
#[ignore = "prints; takes a while"]
fn how_soon() {
    for shift in [0.5, 1.0, 1.5, 2.0, -0.5, -1.0, -1.5, -2.0] {
        let [a, b] = [1e4, 1e5].map(|per_alarm| delay(shift, per_alarm, 200));
        println!("| {shift} | {:.0} | {:.0} | since: {:.1} {:.1}", a.0, b.0, a.1, b.1);
    }
    // For comparison: ranks among the calibration scores alone.
    for (parts, images) in [(1000, 100), (10_000, 100), (10_000, 1000)] {
        let mut alarms = [0.0; 2];
        for run in 0..200 {
            let mut random = Random::of(8, run);
            let scores: Vec<f32> = (0..images).map(|_| normal(&mut random)).collect();
            let config = DriftConfig { seed: run, ..DriftConfig::default() };
            let decision = decision(scores, 0.01);
            let mut ours = DriftMonitor::new(config, Some(&decision)).unwrap();
            let mut fixed = ours.clone();
            let (counts, total) = (ours.counts.clone(), ours.total);
            for _ in 0..parts {
                let score = normal(&mut random);
                ours.observe(score);
                fixed.observe(score);
                (fixed.counts, fixed.total) = (counts.clone(), total);
            }
            for (alarms, monitor) in alarms.iter_mut().zip([&ours, &fixed]) {
                *alarms += f64::from(u8::from(monitor.alarm().is_some())) / 200.0;
            }
        }
        println!(
            "{images} calibrate, {parts} parts: alarms in {:.3} of runs, {:.3} if ranked among the \
             calibration alone; promised {}",
            alarms[0],
            alarms[1],
            parts as f64 / 1e5
        );
    }
}

#[test]
fn keys_ascend() {
    let ascending = [f32::MIN, -2.0, -1.0, -1e-30, 0.0, 1e-30, 1.0, 1.001, 2.0, f32::MAX];
    assert!(ascending.windows(2).all(|pair| key(pair[0]) < key(pair[1])));
    assert_eq!(key(-0.0), key(0.0));
    assert_eq!(key(17.0), key(17.0_f32.next_up()));
}

#[test]
fn alarms_stay_and_parts_that_fail_do_not_count() {
    let decision = decision((0..99).map(|i| 10.0 + i as f32 / 10.0).collect(), 0.05);
    let mut monitor = DriftMonitor::new(DriftConfig::default(), Some(&decision)).unwrap();
    for score in [decision.image, 100.0, f32::NAN, f32::INFINITY] {
        assert_eq!(monitor.observe(score), None);
    }
    assert_eq!((monitor.parts(), monitor.statistic()), (0, 0.0));
    // 5 of the 100 ranks are alarms: the threshold is at the 95th score, and 94 scores are below.
    assert_eq!(monitor.total, 94);
    let raised: Vec<DriftAlarm> = (0..100).filter_map(|_| monitor.observe(19.3)).collect();
    assert_eq!(raised.len(), 1);
    assert_eq!((monitor.alarm(), raised[0].direction), (Some(raised[0]), DriftDirection::Up));
    assert!(raised[0].statistic >= 1e5 && raised[0].since < 10);
    (0..20).for_each(|_| _ = monitor.observe(10.0));
    assert_eq!(monitor.alarm(), Some(raised[0]));
    for parts_per_false_alarm in [1.0, 0.0, -3.0, f64::NAN, f64::INFINITY] {
        let config = DriftConfig { parts_per_false_alarm, seed: 0 };
        assert!(DriftMonitor::new(config, None).is_err());
    }
    let cross_fitted = Calibration::cross_fitted(vec![1.0; 40]).unwrap();
    let decision = Thresholds { calibration: Some(cross_fitted), ..decision };
    assert_eq!(DriftMonitor::new(DriftConfig::default(), Some(&decision)).unwrap().total, 0);
}

#[test]
fn a_saved_monitor_goes_on_and_a_damaged_one_is_refused() {
    let mut random = Random::new(1);
    let mut monitor = DriftMonitor::new(DriftConfig::default(), None).unwrap();
    (0..200).for_each(|_| _ = monitor.observe(normal(&mut random)));
    let text = serde_json::to_string(&monitor).unwrap();
    let mut loaded: DriftMonitor = serde_json::from_str(&text).unwrap();
    assert_eq!(loaded, monitor);
    let later: Vec<f32> = (0..60).map(|_| 2.0 + normal(&mut random)).collect();
    let go_on = |monitor: &mut DriftMonitor| later.iter().find_map(|&score| monitor.observe(score));
    let (ours, theirs) = (go_on(&mut monitor), go_on(&mut loaded));
    assert!(ours.is_some() && ours == theirs);
    for (from, to) in [
        ("\"recent\":0", "\"recent\":7"),
        ("\"parts_per_false_alarm\":", "\"parts_per_false_alarm\":-"),
        ("\"parts\":200", "\"parts\":18446744073709551615"),
    ] {
        assert!(text.contains(from));
        assert!(serde_json::from_str::<DriftMonitor>(&text.replace(from, to)).is_err(), "{from}");
    }
}
