//! A custom image score.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::scoring::AnomalyMap;

/// A custom image score: a closure and its name.
#[derive(Clone)]
pub struct CustomScore {
    pub name: String,
    score: Arc<dyn Fn(&AnomalyMap) -> f32 + Send + Sync>,
}

impl CustomScore {
    pub fn new(
        name: impl Into<String>,
        score: impl Fn(&AnomalyMap) -> f32 + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), score: Arc::new(score) }
    }

    /// The score of a map.
    pub fn of(&self, map: &AnomalyMap) -> Result<f32> {
        let score = (self.score)(map);
        if score.is_finite() {
            return Ok(score);
        }
        Err(Error::NotFinite { what: format!("the image score `{}`", self.name) })
    }
}

impl fmt::Debug for CustomScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CustomScore").field(&self.name).finish()
    }
}
