//! Integers that sort like floating-point numbers.

/// An integer that sorts like the score. Adding zero turns -0 into 0, because both are equal.
pub(crate) fn key(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

/// The score of a [`key`].
pub(crate) fn score(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 0 { !key } else { key & !(1 << 31) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_as_scores_do() {
        let ascending = [f32::MIN, -2.0, -1.0, -f32::MIN_POSITIVE, 0.0, 1e-45, 1.0, 2.0, f32::MAX];
        for pair in ascending.windows(2) {
            assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
        }
        for s in ascending {
            assert_eq!(score(key(s)), s);
        }
        assert_eq!(key(-0.0), key(0.0));
    }
}
