//! The one place with `unsafe`: a hint to the processor, which reads nothing and changes nothing.
//!
//! Weights and Gaussians of many megabytes are read from start to end. The processor prefetches
//! only within a page, so without this hint it would wait for memory at each page: a tenth of a
//! network's time.
#![allow(unsafe_code)]

/// Bytes of a memory page, on nearly every system: how far ahead to prefetch sequential reads.
pub(crate) const PAGE: usize = 4096;

/// Asks the processor to load the memory `ahead` bytes after `value` into its nearest cache. The
/// address may be invalid: then nothing happens.
#[inline(always)]
pub(crate) fn prefetch<T>(value: &T, ahead: usize) {
    let place = std::ptr::from_ref(value).cast::<i8>().wrapping_add(ahead);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction is part of SSE, which every x86-64 processor has. It is a hint: it
    // does not access memory as far as the program can tell, and it does not fault, whatever the
    // address (Intel SDM, volume 2, PREFETCHh). So the address need not be valid, and it is made
    // with `wrapping_add`, which does not ask for that either.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(place);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefetch_may_point_anywhere() {
        let number = 1.0_f32;
        for ahead in [0, 1, PAGE, 1 << 40, usize::MAX] {
            prefetch(&number, ahead);
        }
        assert_eq!(number, 1.0);
    }
}
