//! How well scores separate defective from good: AUROC, AUPRO, average precision and the best F1,
//! with their curves and confidence intervals.
//!
//! All values are exact: scores are not binned. Memory beyond the maps and masks is still bounded
//! by the number of defective pixels. A curve can rise only at the score of a defective pixel, so
//! only these scores are sorted; normal pixels are counted between them.

mod bootstrap;
mod counts;
mod curve;
mod f1;
mod pixel_scores;
mod precision;
mod pro;
mod recall;
mod roc;

pub use crate::regions::{Regions, connected_regions};
pub use bootstrap::{Bootstrap, Interval};
pub use f1::{F1Max, image_f1_max, pixel_f1_max};
pub use pixel_scores::PixelScores;
pub use precision::{image_average_precision, pixel_average_precision};
pub use pro::{DEFAULT_FPR_LIMIT, aupro, pro_curve};
pub use recall::{image_threshold_at_recall, pixel_threshold_at_recall};
pub use roc::{image_auroc, image_roc_curve, pixel_auroc, pixel_roc_curve};
