//! Reproducible random numbers, the same on every machine.

/// A source of random numbers (splitmix64; Steele, Lea, Flood 2014).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// An independent source for each `number`, from one seed.
    pub fn of(seed: u64, number: u64) -> Self {
        Self(Self(seed ^ (number.wrapping_add(1)).wrapping_mul(0xA24B_AED4_963E_E407)).next())
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform below `n`; the bias of `n / 2^64` is negligible.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// Uniform in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `[low, high)`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// `count` different numbers below `n`, or all `n` if `count` is larger.
    pub fn sample(&mut self, n: usize, count: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..n).collect();
        let count = count.min(n);
        for i in 0..count {
            let other = i + self.below(n - i);
            numbers.swap(i, other);
        }
        numbers.truncate(count);
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_even_and_reproducible() {
        let mut random = Random::new(1);
        let mut counts = [0; 7];
        (0..70_000).for_each(|_| counts[random.below(7)] += 1);
        assert!(counts.iter().all(|c| (9_500..10_500).contains(c)), "{counts:?}");
        let mean = (0..10_000).map(|_| random.between(-10.0, 10.0)).sum::<f64>() / 1e4;
        assert!(mean.abs() < 0.2, "{mean}");
        let mut sample = Random::of(5, 2).sample(50, 20);
        assert_eq!(sample, Random::of(5, 2).sample(50, 20));
        assert_ne!(sample, Random::of(5, 3).sample(50, 20));
        sample.sort_unstable();
        sample.dedup();
        assert!(sample.len() == 20 && sample.iter().all(|&i| i < 50));
        assert_eq!(Random::new(0).sample(3, 9).len(), 3);
        // The reference implementation's first number for the seed 0.
        assert_eq!(Random::new(0).next(), 0xE220_A839_7B1D_CDAF);
    }
}
