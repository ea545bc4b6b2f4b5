//! Pictures for display: heat maps, overlays, masks, panels and contact sheets.
//!
//! Use one [`ScoreRange`] for all pictures that are compared. With a range per picture, a good part
//! would look as bright as a defective one.

mod colormap;
mod contour;
mod detector;
mod picture;

pub use picture::{ScoreRange, contact_sheet, heat_map, mask_picture, overlay, panel, save_png};
