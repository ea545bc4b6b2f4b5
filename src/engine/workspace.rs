//! The working memory of a call.

use super::activation::{Activation, Shape};
use super::team::Team;

/// The reusable maps and the team of threads of a call.
#[derive(Debug)]
pub struct Workspace {
    /// Image size `[height, width]` that the maps are for.
    pub size: [usize; 2],
    pub team: Team,
    free: Vec<Activation>,
}

impl Workspace {
    pub fn new(size: [usize; 2], team: Team) -> Self {
        Self { size, team, free: Vec::new() }
    }

    /// A map of the given shape. Its border is zero; its inside is not cleared.
    pub fn take(&mut self, shape: Shape) -> Activation {
        match self.free.iter().position(|activation| activation.shape == shape) {
            Some(place) => self.free.swap_remove(place),
            None => Activation::zeros(shape),
        }
    }

    pub fn give_back(&mut self, activation: Option<Activation>) {
        self.free.extend(activation);
    }
}
