//! The color map of scores.

use image::Rgb;

/// Equally spaced colors of evenly rising CIE lightness (0 to 95): the brightness alone shows the
/// order of the scores, also in a grayscale print.
const CONTROL: [[u8; 3]; 13] = [
    [0, 0, 0],
    [27, 16, 54],
    [51, 23, 90],
    [83, 31, 114],
    [120, 38, 128],
    [162, 43, 128],
    [205, 49, 111],
    [239, 69, 84],
    [255, 106, 58],
    [255, 147, 63],
    [255, 182, 66],
    [255, 215, 72],
    [255, 243, 159],
];

/// The color at `position`, from 0 (black) to 1 (bright yellow).
pub(super) fn color(position: f32) -> Rgb<u8> {
    let intervals = CONTROL.len() - 1;
    let scaled = position.clamp(0.0, 1.0) * intervals as f32;
    let low = (scaled as usize).min(intervals - 1);
    let weight = scaled - low as f32;
    let [from, to] = [CONTROL[low], CONTROL[low + 1]];
    Rgb(std::array::from_fn(|i| {
        (f32::from(from[i]) * (1.0 - weight) + f32::from(to[i]) * weight).round() as u8
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CIE lightness, 0 to 100.
    fn lightness(Rgb(color): Rgb<u8>) -> f64 {
        let [r, g, b] = color.map(|value| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        });
        let luminance = 0.2126 * r + 0.7152 * g + 0.0722 * b;
        if luminance > 0.008856 { 116.0 * luminance.cbrt() - 16.0 } else { 903.3 * luminance }
    }

    #[test]
    fn brightness_rises_with_the_score() {
        let steps: Vec<f64> = (0..=255).map(|i| lightness(color(i as f32 / 255.0))).collect();
        for (i, pair) in steps.windows(2).enumerate() {
            assert!(pair[0] < pair[1], "from {i}: {pair:?}");
        }
    }

    #[test]
    fn brightness_rises_evenly() {
        for (i, &control) in CONTROL.iter().enumerate() {
            let expected = 95.0 * i as f64 / 12.0;
            let found = lightness(Rgb(control));
            assert!((found - expected).abs() < 1.0, "{i}: {found}, expected {expected}");
        }
    }

    #[test]
    fn ends_at_the_first_and_last_color() {
        assert_eq!([color(0.0), color(-1.0)], [Rgb(CONTROL[0]); 2]);
        assert_eq!([color(1.0), color(2.0)], [Rgb(CONTROL[12]); 2]);
        assert_eq!(color(0.5), Rgb(CONTROL[6]));
    }
}
