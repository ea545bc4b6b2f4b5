use padim::burn::tensor::{Device, Tensor, Distribution};
use padim::*;
use std::time::Instant;
fn med(v: &mut Vec<f64>) -> f64 { v.sort_by(f64::total_cmp); v[v.len()/2] }
fn main() {
    let device = Device::flex();
    let n: usize = std::env::args().nth(1).map_or(200, |v| v.parse().unwrap());
    let wr = std::env::args().nth(2).is_some_and(|v| v == "wr");
    let (net, d) = if wr { (WideResNet50::config(), 550) } else { (ResNet18::config(), 100) };
    let net = net.untrained(0, &device).unwrap();
    let channels: Vec<usize> = net.layers().iter().map(|l| l.channels).collect();
    let embedder = PatchEmbedder::new(&channels, &ChannelSelection::random(d, 1024)).unwrap();
    let images: Vec<Tensor<4>> = (0..n.div_ceil(8)).map(|_| Tensor::random([8, 3, 224, 224], Distribution::Normal(0.0, 1.0), &device)).collect();
    let (mut a, mut b, mut c) = (0.0, 0.0, 0.0);
    net.forward(images[0].clone()).unwrap();
    let mut est = GaussianEstimator::new(GaussianConfig::default(), d, [56, 56]).unwrap();
    est.reserve(n);
    for x in &images {
        let t = Instant::now(); let f = net.forward(x.clone()).unwrap(); a += t.elapsed().as_secs_f64();
        let t = Instant::now(); let e = embedder.embed(&f).unwrap(); b += t.elapsed().as_secs_f64(); drop(f);
        let t = Instant::now(); est.update(e).unwrap(); c += t.elapsed().as_secs_f64();
    }
    let t = Instant::now(); let model = est.finish(|_, _| ()).unwrap();
    println!("fit: network {a:.3} embed {b:.3} update {c:.3} finish {:.3}", t.elapsed().as_secs_f64());
    let scorer = AnomalyScorer::new(ScoringConfig::default()).unwrap();
    for batch in [1usize, 8, 32] {
        let x: Tensor<4> = Tensor::random([batch, 3, 224, 224], Distribution::Normal(0.0, 1.0), &device);
        let mut t4 = [vec![], vec![], vec![], vec![]];
        for _ in 0..(60 / batch).max(5) {
            let t = Instant::now(); let f = net.forward(x.clone()).unwrap(); t4[0].push(t.elapsed().as_secs_f64() * 1e3);
            let t = Instant::now(); let e = embedder.embed(&f).unwrap(); t4[1].push(t.elapsed().as_secs_f64() * 1e3);
            let t = Instant::now(); let dd = model.mahalanobis_distance(e).unwrap(); t4[2].push(t.elapsed().as_secs_f64() * 1e3);
            let t = Instant::now(); let _s = scorer.score(dd, [224, 224]).unwrap(); t4[3].push(t.elapsed().as_secs_f64() * 1e3);
        }
        let v: Vec<f64> = t4.iter_mut().map(med).collect();
        println!("b{batch}: network {:.2} embed {:.2} distance {:.2} map {:.2} ms; per image {:.2}", v[0], v[1], v[2], v[3], v.iter().sum::<f64>() / batch as f64);
    }
}
