//! The stored numbers of all positions.

use half::f16;
use rayon::prelude::*;

use super::covariance::Scratch;
use super::half::NumbersRef;
use super::storage::{Precision, Storage};
use crate::error::Result;
use crate::host::{all_finite, all_of};

/// The stored numbers of all positions, in either precision.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Numbers {
    F32(Vec<f32>),
    /// The bits of half precision numbers. A zeroed vector of integers takes no memory until it is
    /// written.
    F16(Vec<u16>),
}

impl Numbers {
    pub fn zeros(precision: Precision, len: usize) -> Self {
        match precision {
            Precision::F32 => Self::F32(vec![0.0; len]),
            Precision::F16 => Self::F16(vec![0; len]),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(bits) => bits.len(),
        }
    }

    pub fn slice(&self, range: std::ops::Range<usize>) -> NumbersRef<'_> {
        match self {
            Self::F32(values) => NumbersRef::F32(&values[range]),
            Self::F16(bits) => NumbersRef::F16(&bits[range]),
        }
    }

    pub fn to_f32(&self, range: std::ops::Range<usize>) -> Vec<f32> {
        match self.slice(range) {
            NumbersRef::F32(values) => values.to_vec(),
            NumbersRef::F16(bits) => bits.iter().map(|&b| f16::from_bits(b).to_f32()).collect(),
        }
    }

    pub fn all_finite(&self) -> bool {
        match self {
            Self::F32(values) => all_finite(values),
            Self::F16(bits) => all_of(bits, |&b| f16::from_bits(b).is_finite()),
        }
    }

    /// Fills the numbers of consecutive positions, from position `first` on. `each`: the numbers per
    /// position; `correction`: how many of them, at the end, correct the rounding. `write` gets the
    /// index of the position among these, its item of `beside`, and its numbers without the
    /// correction.
    pub fn fill<O: Send>(
        &mut self,
        first: usize,
        storage: Storage,
        [each, correction]: [usize; 2],
        beside: impl IndexedParallelIterator<Item = O>,
        write: impl Fn(usize, O, &mut [f32], &mut Scratch) -> Result<()> + Sync,
    ) -> Result<()> {
        let range = first * each..(first + beside.len()) * each;
        match self {
            Self::F32(values) => values[range]
                .par_chunks_exact_mut(each)
                .zip(beside)
                .enumerate()
                .try_for_each_init(Scratch::new, |scratch, (p, (target, beside))| {
                    write(p, beside, target, scratch)
                }),
            Self::F16(bits) => {
                bits[range].par_chunks_exact_mut(each).zip(beside).enumerate().try_for_each_init(
                    || (vec![0.0; each - correction], Scratch::new()),
                    |(buffer, scratch), (p, (target, beside))| {
                        write(p, beside, buffer, scratch)?;
                        storage.round(buffer, scratch, target);
                        Ok(())
                    },
                )
            }
        }
    }
}
