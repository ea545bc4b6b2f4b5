//! Formats rows for a terminal, as Markdown, and as CSV.

use std::fmt::Write as _;

use crate::cell::{Cell, METRICS, Metrics};
use crate::common::csv_field;
use crate::summary::{Row, Value};

/// A heading, and the text of each row under it.
type Column = (&'static str, fn(&Row) -> &str);

/// A table: a text column for each property in which rows differ, then the metrics in percent.
pub struct Table {
    /// The properties that all rows share.
    pub common: Vec<String>,
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Number of text columns.
    words: usize,
}

impl Table {
    /// A table of means over seeds.
    pub fn of(rows: &[Row]) -> Self {
        let columns: [Column; 5] = [
            ("dataset", |row| &row.dataset),
            ("preset", |row| &row.preset),
            ("backbone", |row| &row.backbone),
            ("variant", |row| &row.variant),
            ("category", |row| &row.category),
        ];
        let (differing, common): (Vec<_>, Vec<_>) = columns.into_iter().partition(|(name, get)| {
            // The category is always a column.
            *name == "category" || rows.windows(2).any(|pair| get(&pair[0]) != get(&pair[1]))
        });
        let common = common
            .iter()
            .flat_map(|(name, get)| rows.first().map(|row| format!("{name} {}", get(row))));
        let seeds = rows.iter().any(|row| row.seeds != 1);
        let used = used_metrics(|metric| {
            rows.iter().any(|row| row.metrics.get(metric).is_some_and(Option::is_some))
        });
        let mut headings: Vec<String> = differing.iter().map(|c| c.0.to_owned()).collect();
        let words = headings.len();
        headings.extend(seeds.then(|| "seeds".to_owned()));
        headings.extend(used.iter().map(|(_, heading)| (*heading).to_owned()));
        let line = |row: &Row| {
            let words = differing.iter().map(|(_, get)| get(row).to_owned());
            let seeds = seeds.then(|| row.seeds.to_string());
            let value = |metric| row.metrics.get(metric).copied().flatten();
            let values = used.iter().map(|(metric, _)| value(*metric).map_or("-".into(), show));
            words.chain(seeds).chain(values).collect()
        };
        Self { common: common.collect(), rows: rows.iter().map(line).collect(), headings, words }
    }

    /// A table of the kinds of defects in each cell.
    pub fn of_defects(cells: &[Cell]) -> Self {
        let all = || cells.iter().flat_map(|cell| &cell.defects);
        let used = used_metrics(|metric| all().any(|d| value(&d.metrics, metric).is_some()));
        let words = ["dataset", "preset", "variant", "category", "seed", "defect"];
        let mut headings: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        headings.push("images".into());
        headings.extend(used.iter().map(|(_, heading)| (*heading).to_owned()));
        let mut rows = Vec::new();
        for cell in cells {
            let name = &cell.name;
            for defect in &cell.defects {
                let mut row: Vec<String> =
                    [&name.dataset, &name.preset, &name.variant, &name.category]
                        .map(String::clone)
                        .into();
                row.extend([name.seed.to_string(), defect.name.clone()]);
                row.push(defect.images.to_string());
                let percent = |v: f64| format!("{:.1}", 100.0 * v);
                row.extend(
                    used.iter().map(|(metric, _)| {
                        value(&defect.metrics, metric).map_or("-".into(), percent)
                    }),
                );
                rows.push(row);
            }
        }
        Self { common: Vec::new(), headings, rows, words: words.len() }
    }

    /// Aligned columns, for a terminal.
    pub fn for_terminal(&self) -> String {
        let lines = || std::iter::once(&self.headings).chain(&self.rows);
        let width =
            |column: usize| lines().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        let mut text = String::new();
        for line in lines() {
            let mut out = String::new();
            for (column, (word, &width)) in line.iter().zip(&widths).enumerate() {
                // Writing to a string cannot fail.
                let _ = if column < self.words {
                    write!(out, "{word:width$}  ")
                } else {
                    write!(out, "{word:>width$}  ")
                };
            }
            text += out.trim_end();
            text.push('\n');
        }
        text
    }

    pub fn markdown(&self) -> String {
        let cell = |word: &String| word.replace('|', "\\|");
        let line = |words: Vec<String>| format!("| {} |\n", words.join(" | "));
        let kind = |column| if column < self.words { "---" } else { "---:" }.to_owned();
        let mut text = line(self.headings.iter().map(cell).collect());
        text += &line((0..self.headings.len()).map(kind).collect());
        for row in &self.rows {
            text += &line(row.iter().map(cell).collect());
        }
        text
    }
}

fn used_metrics(used: impl Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
    METRICS.into_iter().filter(|(metric, _)| used(metric)).collect()
}

fn value(metrics: &Metrics, metric: &str) -> Option<f64> {
    metrics.get(metric).copied().flatten()
}

/// In percent: `97.3 ± 0.1 (97.4: -0.1)`, the published value and the difference in brackets.
fn show(value: Value) -> String {
    let mut text = format!("{:.1}", 100.0 * value.mean);
    if let Some(spread) = value.spread {
        text += &format!(" ± {:.1}", 100.0 * spread);
    }
    if let Some(published) = value.published {
        text += &format!(" ({:.1}: {:+.1})", 100.0 * published, 100.0 * (value.mean - published));
    }
    text
}

/// CSV with one line per cell and all digits.
pub fn csv(cells: &[Cell]) -> String {
    let mut text = String::from("dataset,preset,backbone,variant,category,seed");
    for (metric, _) in METRICS {
        text += &format!(",{metric}");
    }
    text += ",train_images,test_images,model_bytes,storage,fit_seconds,predict_seconds\n";
    for cell in cells {
        let name = &cell.name;
        let words = [&name.dataset, &name.preset, &name.backbone, &name.variant, &name.category];
        text += &words.map(|word| csv_field(word)).join(",");
        text += &format!(",{}", name.seed);
        for (metric, _) in METRICS {
            let digits = value(&cell.metrics, metric).map(|v| v.to_string()).unwrap_or_default();
            text += &format!(",{digits}");
        }
        text += &format!(
            ",{},{},{},{},{},{}\n",
            cell.train_images,
            cell.test_images,
            cell.model_bytes,
            csv_field(&cell.storage),
            cell.fit_seconds,
            cell.predict_seconds
        );
    }
    text
}
