//! Stored numbers, in 32 or 16 bits.

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use pulp::Simd;

use crate::prefetch::{PAGE, prefetch};

/// Stored numbers of either precision.
#[derive(Debug, Clone, Copy)]
pub enum NumbersRef<'a> {
    F32(&'a [f32]),
    /// The bits of half precision numbers.
    F16(&'a [u16]),
}

/// A multiple of the f32 lanes of every instruction set.
pub const PADDING: usize = 16;

/// Numbers are scaled so that the largest magnitude at a position is between half of this and this:
/// near the top of the range of half precision, far from subnormal numbers.
pub const LARGEST: f32 = 32768.0;

/// Converts numbers to f32, and prefetches the numbers that follow: positions are read in order.
#[inline(always)]
pub fn unpack<T: Number>(packed: &[T], target: &mut [f32]) {
    const CHUNK: usize = 32;
    let chunks = packed.chunks_exact(CHUNK);
    let rest = chunks.remainder();
    let (whole, end) = target.split_at_mut(packed.len() - rest.len());
    for (chunk, target) in chunks.zip(whole.chunks_exact_mut(CHUNK)) {
        prefetch(&chunk[0], PAGE);
        if T::IS_F32 {
            prefetch(&chunk[CHUNK / 2], PAGE);
        }
        target.iter_mut().zip(chunk).for_each(|(t, v)| *t = v.unpack());
    }
    end.iter_mut().zip(rest).for_each(|(t, v)| *t = v.unpack());
}

/// A stored number.
pub trait Number: Copy {
    const IS_F32: bool = false;

    fn unpack(self) -> f32;

    /// Loads one SIMD vector from the beginning of `numbers`.
    #[inline(always)]
    fn load<S: Simd>(numbers: &[Self]) -> S::f32s {
        // The compiler turns this loop into vector instructions.
        let mut values = [0.0; PADDING];
        for i in 0..S::F32_LANES {
            values[i] = numbers[i].unpack();
        }
        S::as_simd_f32s(&values).0[0]
    }
}

impl Number for f32 {
    const IS_F32: bool = true;

    #[inline(always)]
    fn unpack(self) -> f32 {
        self
    }

    #[inline(always)]
    fn load<S: Simd>(numbers: &[Self]) -> S::f32s {
        S::as_simd_f32s(numbers).0[0]
    }
}

impl Number for u16 {
    /// The number must be zero or normal: not subnormal, infinite or NaN. Written out, because this
    /// compiles to a few vector instructions on every CPU.
    #[inline(always)]
    fn unpack(self) -> f32 {
        // 2^112: the difference of the exponents' biases.
        const EXPONENTS: f32 = f32::from_bits((127 + 112) << 23);
        let bits = u32::from(self);
        let magnitude = f32::from_bits((bits & 0x7FFF) << 13) * EXPONENTS;
        f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
    }
}

/// Rounds to the nearest half precision numbers. Subnormal results become zero: they are negligible
/// compared with the largest number of a position, which is near [`LARGEST`].
pub fn to_half(values: &[f32], bits: &mut [u16]) {
    bits.reinterpret_cast_mut::<f16>().convert_from_f32_slice(values);
    for bits in bits {
        if *bits & 0x7C00 == 0 {
            *bits = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_precision_number_is_unpacked() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            if half.is_normal() || bits == 0 {
                assert_eq!(bits.unpack(), half.to_f32(), "{bits:#x}");
            }
        }
        let values = [0.0, 1.0, -0.3, 6e-5, -3e-6, 65504.0];
        let mut bits = [0; 6];
        to_half(&values, &mut bits);
        let unpacked = bits.map(Number::unpack);
        assert_eq!(unpacked[..2], [0.0, 1.0]);
        assert_eq!(unpacked[3..], [0.0, 0.0, 65504.0], "subnormal ones are zero");
        assert!((unpacked[2] + 0.3).abs() < 1e-4);
    }
}
