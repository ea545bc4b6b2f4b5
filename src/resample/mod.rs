//! Separable linear resampling: every resize, upsampling and blur of this crate is a pair of
//! [`Taps`], one for the rows and one for the columns.
//!
//! An output sample is a weighted sum of a run of input samples, and the weights depend on the axis
//! alone. So one type serves PIL's antialiased image resizing, torch's interpolation of score maps
//! and the Gaussian blur, and a chain of them along an axis collapses into one ([`Taps::then`]).
//! Planes of floating-point numbers are resampled by `plane`, pictures of 8 bits by `picture`.

mod border;
mod filter;
mod fixed;
#[cfg(target_arch = "x86_64")]
mod narrow;
mod picture;
mod plane;
mod taps;

pub use border::Border;
pub use filter::Filter;
pub(crate) use picture::resample_u8;
pub(crate) use plane::{resample, resample_values};
pub(crate) use taps::Taps;

#[cfg(test)]
mod tests;
