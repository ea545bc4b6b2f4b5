//! Computes the rows of tables from cells: means over seeds and over categories.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cell::{Cell, METRICS, Name};
use crate::published::{self, OBJECTS, TEXTURES};
use crate::source::{Layout, Source};

/// A metric over seeds, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Value {
    pub mean: f64,
    /// The sample standard deviation over the seeds, if there are several.
    pub spread: Option<f64>,
    /// The value that the source of the preset has published.
    pub published: Option<f64>,
}

/// A row of a table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub dataset: String,
    pub preset: String,
    pub backbone: String,
    pub variant: String,
    pub category: String,
    /// Whether it is a mean over categories.
    pub group: bool,
    pub seeds: usize,
    pub metrics: BTreeMap<String, Option<Value>>,
}

/// The properties that distinguish rows, except the category.
type Setting = [String; 4];

fn setting(name: &Name) -> Setting {
    [&name.dataset, &name.preset, &name.backbone, &name.variant].map(String::clone)
}

/// For each setting, in the order of its first cell: one row per category, then the means of groups.
pub fn rows(cells: &[Cell], sources: &[Source]) -> Vec<Row> {
    let mut settings: Vec<Setting> = Vec::new();
    for cell in cells {
        let setting = setting(&cell.name);
        if !settings.contains(&setting) {
            settings.push(setting);
        }
    }
    let of_setting = |own: &Setting| {
        let cells: Vec<&Cell> = cells.iter().filter(|c| setting(&c.name) == *own).collect();
        let source = sources.iter().find(|source| source.text == own[0]);
        setting_rows(&cells, source)
    };
    settings.iter().flat_map(of_setting).collect()
}

fn setting_rows(cells: &[&Cell], source: Option<&Source>) -> Vec<Row> {
    let mut categories: Vec<&str> = cells.iter().map(|c| &*c.name.category).collect();
    categories.sort_unstable();
    categories.dedup();
    let mut rows: Vec<Row> =
        categories.iter().map(|&c| row(cells, &[c], c, false, source)).collect();
    let complete = |group: &[&str]| group.iter().all(|c| categories.contains(c));
    let is_mvtec = source.is_some_and(|source| source.layout == Layout::Mvtec);
    let all = [&TEXTURES[..], &OBJECTS[..]].concat();
    for (name, group) in [("textures", &TEXTURES[..]), ("objects", &OBJECTS), ("all", &all)] {
        if is_mvtec && complete(group) {
            rows.push(row(cells, group, name, true, source));
        }
    }
    // The paper's value for ShanghaiTech Campus is the mean over its 13 scenes.
    let scenes = source.is_some_and(|source| source.layout == Layout::ShanghaiTech);
    if scenes && categories.len() == 13 {
        rows.push(row(cells, &categories, "all", true, source));
    } else if categories.len() > 1 && !(is_mvtec && complete(&all)) {
        let name = format!("mean of {}", categories.len());
        rows.push(row(cells, &categories, &name, true, source));
    }
    rows
}

fn row(
    cells: &[&Cell],
    categories: &[&str],
    name: &str,
    group: bool,
    source: Option<&Source>,
) -> Row {
    let own: Vec<&Cell> =
        cells.iter().copied().filter(|c| categories.contains(&&*c.name.category)).collect();
    let mut seeds: Vec<u64> = own.iter().map(|cell| cell.name.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    // Use only seeds that all categories have; otherwise the means would not be comparable.
    seeds.retain(|seed| {
        let of_seed = own.iter().filter(|cell| cell.name.seed == *seed);
        of_seed.count() == categories.len()
    });
    let value = |metric: &str| -> Option<Value> {
        let of_seed = |seed: &u64| -> Option<f64> {
            let values = own.iter().filter(|cell| cell.name.seed == *seed);
            let values: Option<Vec<f64>> =
                values.map(|cell| cell.metrics.get(metric).copied().flatten()).collect();
            values.map(|values| mean(&values))
        };
        let values = seeds.iter().map(of_seed).collect::<Option<Vec<f64>>>()?;
        if values.is_empty() {
            return None;
        }
        let mean = mean(&values);
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        let spread = (squares / (values.len() as f64 - 1.0)).sqrt();
        let like = Name { category: name.to_owned(), ..own.first()?.name.clone() };
        let published = source
            .and_then(|source| published::value(&like, source.layout, source.rotated, metric));
        Some(Value {
            mean,
            spread: (values.len() > 1).then_some(spread),
            published: published.map(|percent| percent / 100.0),
        })
    };
    let metrics = METRICS.iter().map(|(metric, _)| ((*metric).to_owned(), value(metric)));
    let [dataset, preset, backbone, variant] =
        own.first().map(|cell| setting(&cell.name)).unwrap_or_default();
    Row {
        dataset,
        preset,
        backbone,
        variant,
        category: name.to_owned(),
        group,
        seeds: seeds.len(),
        metrics: metrics.collect(),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
