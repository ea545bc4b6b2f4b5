//! The random draws of Python and torch: a seed gives the same channels as in Python or torch.
//!
//! Both use the generator MT19937 (Matsumoto, Nishimura 1998).

const N: usize = 624;
const M: usize = 397;

struct MersenneTwister {
    state: [u32; N],
    next: usize,
}

impl MersenneTwister {
    /// The standard seeding by one number, which torch uses.
    fn from_seed(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let previous = state[i - 1];
            state[i] =
                (previous ^ (previous >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, next: N }
    }

    /// The standard seeding by a list of words, which Python uses.
    fn from_key(key: &[u32]) -> Self {
        let mut state = Self::from_seed(19_650_218).state;
        let mix = |state: &[u32; N], i: usize, factor: u32| {
            let previous = state[i - 1];
            state[i] ^ (previous ^ (previous >> 30)).wrapping_mul(factor)
        };
        let mut i = 1;
        let advance = |state: &mut [u32; N], i: &mut usize| {
            *i += 1;
            if *i == N {
                state[0] = state[N - 1];
                *i = 1;
            }
        };
        for k in 0..N.max(key.len()) {
            let j = k % key.len();
            state[i] = mix(&state, i, 1_664_525).wrapping_add(key[j]).wrapping_add(j as u32);
            advance(&mut state, &mut i);
        }
        for _ in 1..N {
            state[i] = mix(&state, i, 1_566_083_941).wrapping_sub(i as u32);
            advance(&mut state, &mut i);
        }
        state[0] = 0x8000_0000;
        Self { state, next: N }
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == N {
            for i in 0..N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7FFF_FFFF);
                let twist = if y & 1 == 1 { 0x9908_B0DF } else { 0 };
                self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9D2C_5680;
        y ^= (y << 15) & 0xEFC6_0000;
        y ^ (y >> 18)
    }

    /// Uniform in `0..bound` (`bound` at least 1), as Python's `_randbelow_with_getrandbits`.
    fn below(&mut self, bound: usize) -> usize {
        let bits = usize::BITS - bound.leading_zeros();
        loop {
            let draw = (self.next_u32() >> (32 - bits)) as usize;
            if draw < bound {
                return draw;
            }
        }
    }
}

/// `random.seed(seed); random.sample(range(total), count)`. `count` must not exceed `total`, which
/// must be below 2^32.
pub(crate) fn python_sample(seed: u64, total: usize, count: usize) -> Vec<usize> {
    let key = [seed as u32, (seed >> 32) as u32];
    let mut random = MersenneTwister::from_key(if key[1] == 0 { &key[..1] } else { &key });
    if total <= python_set_size(count) {
        let mut pool: Vec<usize> = (0..total).collect();
        let draw = |i| {
            let j = random.below(total - i);
            let drawn = pool[j];
            pool[j] = pool[total - i - 1];
            drawn
        };
        return (0..count).map(draw).collect();
    }
    let mut drawn = Vec::with_capacity(count);
    while drawn.len() < count {
        let candidate = random.below(total);
        if !drawn.contains(&candidate) {
            drawn.push(candidate);
        }
    }
    drawn
}

/// Python draws from a list up to this total, and tracks a set of drawn values above it.
fn python_set_size(count: usize) -> usize {
    let mut extra = 0;
    if count > 5 {
        extra = 1;
        while extra < 3 * count {
            extra *= 4;
        }
    }
    21 + extra
}

/// `torch.manual_seed(seed); torch.randperm(total)[:count]` on the CPU.
pub(crate) fn torch_randperm(seed: u64, total: usize, count: usize) -> Vec<usize> {
    let mut random = MersenneTwister::from_seed(seed as u32);
    let mut permutation: Vec<usize> = (0..total).collect();
    for i in 0..count.min(total.saturating_sub(1)) {
        permutation.swap(i, i + random.next_u32() as usize % (total - i));
    }
    permutation.truncate(count);
    permutation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_mt19937() {
        // The 10000th output for seed 5489, from the C++ standard.
        let mut random = MersenneTwister::from_seed(5489);
        let last = (0..10_000).map(|_| random.next_u32()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn python_draws_a_few_of_many_by_its_other_rule() {
        // CPython 3.11: random.seed(7); random.sample(range(448), 5)
        assert_eq!(python_sample(7, 448, 5), [165, 77, 202, 333, 24]);
        // CPython 3.11: random.seed(2**40 + 3); random.sample(range(50), 6)
        assert_eq!(python_sample((1 << 40) + 3, 50, 6), [14, 3, 35, 6, 36, 19]);
    }

    #[test]
    fn draws_of_everything_and_nothing_work() {
        let mut all = python_sample(1, 9, 9);
        all.sort_unstable();
        assert_eq!(all, (0..9).collect::<Vec<_>>());
        let mut all = torch_randperm(1, 9, 9);
        all.sort_unstable();
        assert_eq!(all, (0..9).collect::<Vec<_>>());
        assert!(python_sample(1, 0, 0).is_empty() && torch_randperm(1, 0, 0).is_empty());
    }
}
