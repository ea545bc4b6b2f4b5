//! Compares every convolution with its definition in f64, for every instruction set of this machine.

use proptest::prelude::*;

use pulp::Arch;

use super::activation::{Activation, BLOCK, Order, Shape};
use super::convolution::{Convolution, Method};
use super::filters::Filters;
use super::stem::{self, Stem};
use super::team::{Idle, Load, Team};
use super::workspace::Workspace;

/// The best instruction set, AVX2 if there is one, and scalar code.
fn instruction_sets() -> Vec<Arch> {
    let mut sets = vec![Arch::new(), Arch::Scalar];
    #[cfg(target_arch = "x86_64")]
    sets.extend(pulp::x86::V3::try_new().map(Arch::V3));
    sets
}

/// Reproducible numbers in -1..1.
fn noise(seed: usize, len: usize) -> Vec<f32> {
    let number = |i: usize| {
        let mut bits = ((seed * 7919 + i) as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bits = (bits ^ (bits >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((bits >> 40) as f32 / (1 << 23) as f32) - 1.0
    };
    (0..len).map(number).collect()
}

/// Values `[channels, height, width]`.
#[derive(Debug, Clone)]
struct Plain {
    shape: [usize; 3],
    values: Vec<f32>,
}

impl Plain {
    fn random(seed: usize, shape: [usize; 3]) -> Self {
        Self { shape, values: noise(seed, shape.iter().product()) }
    }

    /// The value at a pixel; 0 outside the map.
    fn at(&self, c: usize, y: isize, x: isize) -> f64 {
        let [_, height, width] = self.shape;
        let inside = y >= 0 && x >= 0 && (y as usize) < height && (x as usize) < width;
        if inside {
            self.values[(c * height + y as usize) * width + x as usize].into()
        } else {
            0.0
        }
    }

    fn blocked(&self, order: Order) -> Activation {
        let [channels, height, width] = self.shape;
        let blocks = channels.div_ceil(BLOCK);
        let mut activation = Activation::zeros(Shape { blocks, height, width, order });
        let mut window = activation.window();
        for c in 0..channels {
            for y in 0..height {
                let run = window.run([c / BLOCK, y + 1, 1], width);
                for x in 0..width {
                    run[x * BLOCK + c % BLOCK] = self.values[(c * height + y) * width + x];
                }
            }
        }
        activation
    }
}

fn convolution(seed: usize, [out, input, kernel]: [usize; 3]) -> Filters {
    let scale = ((input * kernel * kernel) as f32).sqrt().recip();
    let weight = noise(seed + 1, out * input * kernel * kernel).iter().map(|w| w * scale).collect();
    Filters { shape: [out, input, kernel, kernel], weight, bias: noise(seed + 2, out) }
}

/// One output, by the definition of a convolution.
fn naively(input: &Plain, convolution: &Filters, stride: usize, [c, y, x]: [usize; 3]) -> f64 {
    let [_, channels, kernel, _] = convolution.shape;
    let mut sum = f64::from(convolution.bias[c]);
    for k in 0..channels {
        for v in 0..kernel {
            for u in 0..kernel {
                let weight = convolution.weight[((c * channels + k) * kernel + v) * kernel + u];
                let place =
                    |i: usize, tap: usize| (i * stride + tap) as isize - (kernel / 2) as isize;
                sum += f64::from(weight) * input.at(k, place(y, v), place(x, u));
            }
        }
    }
    sum
}

fn workspace(arch: Arch, threads: usize) -> Workspace {
    let mut workspace = Workspace::new([0, 0], Team::new(arch, Idle::default()));
    workspace.team.load = Load::new(threads, 1);
    workspace.team.gather();
    workspace
}

/// The convolution with the given method instead of the engine's choice.
fn by(method: Method, convolution: Convolution, parameters: Filters) -> Convolution {
    let kind = method.prepare(&parameters, convolution.stride);
    Convolution { kind, ..convolution }
}

#[derive(Debug, Clone)]
struct Case {
    channels: [usize; 2],
    size: [usize; 2],
    kernel: usize,
    stride: usize,
    method: Method,
    shortcut: bool,
    relu: bool,
    threads: usize,
    by_channels: bool,
    seed: usize,
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (1_usize..80, 1_usize..80, 1_usize..20, 1_usize..40);
    let kinds = prop_oneof![
        Just((1, 1, Method::Direct)),
        Just((1, 2, Method::Direct)),
        Just((3, 2, Method::Direct)),
        Just((3, 2, Method::Strided)),
        Just((3, 1, Method::Direct)),
        Just((3, 1, Method::Two)),
        Just((3, 1, Method::Four)),
    ];
    (sizes, kinds, any::<[bool; 3]>(), 1_usize..5, 0_usize..999).prop_map(
        |((input, out, height, width), (kernel, stride, method), flags, threads, seed)| Case {
            channels: [input, out],
            size: [height, width],
            kernel,
            stride,
            method,
            shortcut: flags[0],
            relu: flags[1],
            threads,
            by_channels: flags[2],
            seed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(224))]
    #[test]
    fn convolutions_are_what_is_defined(case in cases()) {
        let Case { channels: [channels, out], size: [height, width], kernel, stride, .. } = case;
        let input = Plain::random(case.seed, [channels, height, width]);
        let parameters = convolution(case.seed, [out, channels, kernel]);
        let prepared = Convolution::new(&parameters, stride, 0);
        let prepared = by(case.method, prepared, parameters.clone());
        let order = if case.by_channels { Order::Channels } else { Order::Rows };
        let source = input.blocked(order);
        let [rows, columns] = prepared.output(source.shape);
        let shortcut = Plain::random(case.seed + 9, [out, rows, columns]);
        let beside = case.shortcut.then(|| shortcut.blocked(order));
        for arch in instruction_sets() {
            let mut workspace = workspace(arch, case.threads);
            // The second run reuses memory: old contents must not matter, and the border stays zero.
            for _ in 0..2 {
                let result = prepared.run(&source, beside.as_ref(), case.relu, &mut workspace);
                for c in 0..out {
                    for y in 0..rows {
                        for x in 0..columns {
                            let mut expected = naively(&input, &parameters, stride, [c, y, x]);
                            if case.shortcut {
                                expected += shortcut.at(c, y as isize, x as isize);
                            }
                            if case.relu {
                                expected = expected.max(0.0);
                            }
                            let place = result.strides.at(c / BLOCK, y + 1, x + 1) + c % BLOCK;
                            let error = (f64::from(result.values()[place]) - expected).abs();
                            prop_assert!(error < 2e-5, "{arch:?} {c} {y} {x}: {error:e}");
                        }
                    }
                }
                prop_assert!(border_is_zero(&result));
                workspace.give_back(Some(result));
            }
        }
    }

    #[test]
    fn the_stem_is_what_is_defined(
        out in 1_usize..70, height in 1_usize..40, width in 1_usize..60, threads in 1_usize..4,
        seed in 0_usize..999,
    ) {
        let image = Plain::random(seed, [3, height, width]);
        let parameters = convolution(seed, [out, 3, 7]);
        let filters = parameters.clone();
        let stem = Stem::new(&filters);
        let [rows, columns] = Stem::output([height, width]);
        let [inner_rows, inner_columns] = [height, width].map(stem::half);
        for arch in instruction_sets() {
            let shape =
                Shape { blocks: filters.blocks()[0], height: rows, width: columns, order: Order::Rows };
            let mut result = Activation::zeros(shape);
            let workspace = workspace(arch, threads);
            stem.run(&image.values, [height, width], &mut result, &workspace.team);
            for c in 0..out {
                for y in 0..rows {
                    for x in 0..columns {
                        let mut expected = 0.0_f64;
                        for v in (2 * y).saturating_sub(1)..(2 * y + 2).min(inner_rows) {
                            for u in (2 * x).saturating_sub(1)..(2 * x + 2).min(inner_columns) {
                                expected = expected.max(naively(&image, &parameters, 2, [c, v, u]));
                            }
                        }
                        let place = result.strides.at(c / BLOCK, y + 1, x + 1) + c % BLOCK;
                        let error = (f64::from(result.values()[place]) - expected).abs();
                        prop_assert!(error < 2e-5, "{arch:?} {c} {y} {x}: {error:e}");
                    }
                }
            }
            prop_assert!(border_is_zero(&result));
        }
    }
}

/// Whether the border that convolutions read is zero: one row or column on each side.
fn border_is_zero(map: &Activation) -> bool {
    let Shape { blocks, height, width, .. } = map.shape;
    (0..blocks).all(|block| {
        let zero = |row: usize, column: usize| {
            let place = map.strides.at(block, row, column);
            map.values()[place..place + BLOCK].iter().all(|&v| v == 0.0)
        };
        (0..width + 2).all(|x| zero(0, x) && zero(height + 1, x))
            && (0..height + 2).all(|y| zero(y, 0) && zero(y, width + 1))
    })
}
