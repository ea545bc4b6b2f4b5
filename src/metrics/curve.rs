//! Monotonic curves from (0, 0) to (1, 1), for drawing.

/// The corners of a curve with the segments `lines` `[dx, dy]`, from left to right, scaled from
/// `end` to (1, 1). Where corners are dense, some are left out, so that about `count` remain. The
/// thinned curve deviates by less than `1 / count` of the curve's length.
pub(super) fn corners(
    lines: impl Iterator<Item = [f64; 2]>,
    end: [f64; 2],
    count: usize,
) -> Vec<[f64; 2]> {
    let [width, height] = end.map(|v| if v > 0.0 { v } else { 1.0 });
    // The curve's length, measured along the axes, is at most 2.
    let step = 2.0 / count.max(1) as f64;
    let mut points = vec![[0.0; 2]];
    let mut last = [0.0; 2];
    let mut place = [0.0; 2];
    for [dx, dy] in lines {
        let next = [place[0] + dx / width, place[1] + dy / height];
        // Keep the corner before a long line: otherwise the line would start at another point.
        let far = |from: [f64; 2]| next[0] - from[0] + next[1] - from[1] >= step;
        if far(last) {
            if place != last {
                points.push(place);
            }
            if next != place {
                points.push(next);
            }
            last = next;
        }
        place = next;
    }
    if place != last {
        points.push(place);
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(points: &[[f64; 2]]) -> f64 {
        points.windows(2).map(|p| (p[1][0] - p[0][0]) * (p[1][1] + p[0][1]) / 2.0).sum()
    }

    #[test]
    fn corners_are_where_lines_meet() {
        let lines = [[1.0, 0.0], [0.0, 4.0], [3.0, 0.0], [0.0, 0.0]];
        let expected = [[0.0, 0.0], [0.25, 0.0], [0.25, 1.0], [1.0, 1.0]];
        assert_eq!(corners(lines.into_iter(), [4.0, 4.0], 1000), expected);
        assert_eq!(corners([].into_iter(), [0.0, 0.0], 10), [[0.0, 0.0]]);
    }

    #[test]
    fn a_curve_of_many_corners_is_thinned() {
        let lines = || (0..50_000).map(|i| [f64::from(i % 3), f64::from(i * i % 5)]);
        let end = lines().fold([0.0; 2], |e, l| [e[0] + l[0], e[1] + l[1]]);
        let whole = corners(lines(), end, usize::MAX);
        let thin = corners(lines(), end, 200);
        assert!(whole.len() > 30_000 && (100..=402).contains(&thin.len()), "{}", thin.len());
        assert!((area(&thin) - area(&whole)).abs() < 1e-3);
        for point in [thin[thin.len() - 1], whole[whole.len() - 1]] {
            assert!((point[0] - 1.0).abs() < 1e-9 && (point[1] - 1.0).abs() < 1e-9);
        }
        // A long horizontal line keeps its start.
        let thin = corners([[0.001, 0.4], [0.9, 0.0], [0.099, 0.6]].into_iter(), [1.0; 2], 4);
        assert_eq!(thin.len(), 4);
    }
}
