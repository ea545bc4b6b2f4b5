//! Residual networks on a CPU, without Burn: the same network, optimized for CPUs.
//!
//! A network is prepared once: its weights are packed or transformed, and buffers are reused between
//! calls. Maps have blocks of 32 channels and a border of zeros (`activation`). One matrix kernel
//! (`product`) computes all convolutions, in one of three ways: Winograd's algorithm (`winograd`),
//! directly on the rows of the input (`direct`), or the stem with its pooling (`stem`). Bias, shortcut
//! and ReLU are applied to the sums before they are written. `pulp` compiles the kernels for several
//! instruction sets and chooses one at run time.
//!
//! The threads of the caller's rayon pool take one image each and do not wait for each other. Several
//! threads work together on the last images: they share the rows of large maps and the channels of
//! small ones.

// Kernels index several arrays at once, with ranges that the compiler knows.
#![allow(clippy::needless_range_loop)]

mod activation;
mod block;
mod convolution;
mod direct;
mod filters;
mod network;
mod product;
mod stem;
mod team;
mod tile;
mod winograd;
mod workspace;

pub(crate) use block::BlockFilters;
pub(crate) use convolution::packed_len;
pub(crate) use filters::Filters;
pub(crate) use network::{Engine, Map, Trunk, estimate};

#[cfg(test)]
mod tests;
