//! The positions of the grid that are scored, and the Gaussian of each.

use crate::error::{Error, Result};

/// All positions of a grid, or those inside a region of interest. A place is an index into the grid,
/// row-major. A number counts only the positions inside, so that positions outside take no memory.
/// Each position has its own Gaussian, or all share one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Positions {
    /// `[height, width]`
    grid: [usize; 2],
    /// The places inside, ascending; `None` for all.
    inside: Option<Vec<usize>>,
    pooled: bool,
}

impl Positions {
    pub fn all(grid: [usize; 2]) -> Result<Self> {
        if grid.contains(&0) {
            return Err(Error::config("grid", format!("sizes must not be zero, got {grid:?}")));
        }
        Ok(Self { grid, inside: None, pooled: false })
    }

    /// The positions where `mask` (row-major) is true, or all; with one Gaussian for all or one for each.
    pub fn of(grid: [usize; 2], mask: Option<&[bool]>, pooled: bool) -> Result<Self> {
        let positions = match mask {
            Some(mask) => Self::inside(grid, mask)?,
            None => Self::all(grid)?,
        };
        Ok(positions.with_pooled(pooled))
    }

    /// The positions where `mask` (row-major) is true.
    pub fn inside(grid: [usize; 2], mask: &[bool]) -> Result<Self> {
        let all = Self::all(grid)?;
        if mask.len() != grid[0] * grid[1] {
            let expected = format!("a mask of {grid:?} positions (height, width)");
            return Err(Error::shape("region of interest", expected, mask.len()));
        }
        let inside: Vec<usize> = (0..mask.len()).filter(|&p| mask[p]).collect();
        if inside.is_empty() {
            return Err(Error::config("region", "contains no position of the grid; enlarge it"));
        }
        Ok(if inside.len() == mask.len() { all } else { Self { inside: Some(inside), ..all } })
    }

    /// The same positions, with one Gaussian for all or one for each.
    #[must_use]
    pub fn with_pooled(self, pooled: bool) -> Self {
        Self { pooled, ..self }
    }

    pub fn pooled(&self) -> bool {
        self.pooled
    }

    pub fn grid(&self) -> [usize; 2] {
        self.grid
    }

    /// The number of Gaussians.
    pub fn gaussians(&self) -> usize {
        if self.pooled { 1 } else { self.len() }
    }

    /// The number of vectors from `images` images that each Gaussian is estimated from.
    pub fn vectors(&self, images: usize) -> usize {
        images.saturating_mul(self.len() / self.gaussians())
    }

    /// The number of the Gaussian at a place; `None` outside.
    pub fn gaussian(&self, place: usize) -> Option<usize> {
        self.number(place).map(|number| if self.pooled { 0 } else { number })
    }

    pub fn len(&self) -> usize {
        self.inside.as_ref().map_or(self.grid[0] * self.grid[1], Vec::len)
    }

    /// The place of a position.
    pub fn place(&self, number: usize) -> usize {
        self.inside.as_ref().map_or(number, |inside| inside[number])
    }

    /// The number of the position at a place; `None` outside.
    pub fn number(&self, place: usize) -> Option<usize> {
        match &self.inside {
            None => (place < self.grid[0] * self.grid[1]).then_some(place),
            Some(inside) => inside.binary_search(&place).ok(),
        }
    }

    /// The positions at most `reach` rows and columns away from a place: their indices in the whole
    /// window of `2 reach + 1` rows and columns, row-major, and their numbers.
    pub fn window(&self, place: usize, reach: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let [height, width] = self.grid;
        let (y, x) = (place / width, place % width);
        let near = move |i: usize, len: usize| i.saturating_sub(reach)..(i + reach + 1).min(len);
        let places = near(y, height).flat_map(move |v| near(x, width).map(move |u| (v, u)));
        places.filter_map(move |(v, u)| {
            let slot = (v + reach - y) * (2 * reach + 1) + u + reach - x;
            Some((slot, self.number(v * width + u)?))
        })
    }

    /// The number of the position at this offset from a place; `None` outside.
    pub fn moved(&self, place: usize, [rows, columns]: [isize; 2]) -> Option<usize> {
        let [height, width] = self.grid;
        let y = (place / width).checked_add_signed(rows).filter(|&y| y < height)?;
        let x = (place % width).checked_add_signed(columns).filter(|&x| x < width)?;
        self.number(y * width + x)
    }

    /// Which places are inside, row-major; `None` if all are.
    pub fn mask(&self) -> Option<Vec<bool>> {
        let inside = self.inside.as_ref()?;
        let mut mask = vec![false; self.grid[0] * self.grid[1]];
        inside.iter().for_each(|&place| mask[place] = true);
        Some(mask)
    }

    /// Checks the shape of embeddings: `[batch, dimension, grid_height, grid_width]`.
    pub fn check(&self, shape: [usize; 4], dimension: usize) -> Result<()> {
        let [height, width] = self.grid;
        if shape[1..] == [dimension, height, width] && shape[0] > 0 {
            return Ok(());
        }
        let expected = format!("[batch, {dimension}, {height}, {width}]");
        Err(Error::shape("embeddings", expected, shape))
    }

    /// Puts values `[batch, positions]` at their places `[batch, height, width]`; 0 elsewhere.
    pub fn spread_out(&self, values: Vec<f32>) -> Vec<f32> {
        let Some(inside) = &self.inside else { return values };
        let places = self.grid[0] * self.grid[1];
        let mut out = vec![0.0; values.len() / inside.len() * places];
        for (target, source) in out.chunks_exact_mut(places).zip(values.chunks_exact(inside.len()))
        {
            inside.iter().zip(source).for_each(|(&place, &v)| target[place] = v);
        }
        out
    }
}
