//! The forms in which a Gaussian is kept, one file each. A new one is a file of its own, a variant of
//! [`Storage`](super::Storage), and a line in `dispatch`.

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
