//! The window around a position that is searched for the nearest Gaussian.

use crate::error::{Error, Result};

/// The largest allowed window.
const WIDEST: usize = 31;

/// How many rows and columns a window of `neighborhood` positions extends from its center.
pub(crate) fn reach(neighborhood: usize) -> Result<usize> {
    if neighborhood % 2 == 1 && neighborhood <= WIDEST {
        return Ok(neighborhood / 2);
    }
    let reason = format!(
        "must be an odd number of positions, 1 (off) to {WIDEST}, got {neighborhood}; 3 is a good start"
    );
    Err(Error::config("neighborhood", reason))
}

/// The offsets `[rows, columns]` from a position to all others in its window.
pub(super) fn reach_offsets(reach: usize) -> impl Iterator<Item = [isize; 2]> {
    let reach = reach as isize;
    let all = (-reach..=reach).flat_map(move |y| (-reach..=reach).map(move |x| [y, x]));
    all.filter(|offset| *offset != [0, 0])
}
