//! The forms in which a Gaussian is stored, one file each. `docs/adding-a-storage.md` tells how to
//! add one.

mod device;
mod diagonal;
mod dispatch;
mod form;
mod full_inverse;
mod low_rank;
mod principal;
mod scaled;
mod triangle;

pub use device::{DeviceForm, DeviceSource};
pub use form::{Measured, Packed};
pub use scaled::write_scaled;
