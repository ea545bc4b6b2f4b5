//! The whole report: as JSON, as Markdown, and as an HTML page that works offline.

use std::time::{SystemTime, UNIX_EPOCH};

use padim::metrics::Bootstrap;
use serde::Serialize;

use crate::cell::{Cell, Name};
use crate::common::Outcome;
use crate::summary::Row;
use crate::tables::Table;

/// All results of an evaluation.
#[derive(Serialize)]
pub struct Report {
    pub title: String,
    /// Seconds since 1970.
    pub created: u64,
    pub version: String,
    pub command: String,
    /// The confidence level of the intervals.
    pub confidence: f64,
    pub rows: Vec<Row>,
    pub cells: Vec<Cell>,
    pub failures: Vec<Failure>,
}

/// A cell that could not be finished.
#[derive(Serialize)]
pub struct Failure {
    #[serde(flatten)]
    pub name: Name,
    pub error: String,
}

const PAGE: &str = include_str!("report.html");

impl Report {
    pub fn new(
        title: String,
        rows: Vec<Row>,
        mut cells: Vec<Cell>,
        mut failures: Vec<Failure>,
    ) -> Self {
        cells.sort_by(|a, b| a.name.cmp(&b.name));
        failures.sort_by(|a, b| a.name.cmp(&b.name));
        let words: Vec<String> = std::env::args().skip(1).collect();
        Self {
            title,
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: format!("evaluate {}", words.join(" ")),
            confidence: Bootstrap::default().confidence,
            rows,
            cells,
            failures,
        }
    }

    /// The report as JSON, without pictures.
    pub fn json(&self) -> Outcome<String> {
        let mut value = serde_json::to_value(self)?;
        let cells = value.get_mut("cells").and_then(|cells| cells.as_array_mut());
        for cell in cells.into_iter().flatten() {
            cell.as_object_mut().map(|cell| cell.remove("panels"));
        }
        Ok(serde_json::to_string_pretty(&value)? + "\n")
    }

    /// The HTML page, which contains all data and pictures.
    pub fn html(&self) -> Outcome<String> {
        // Escape `<`, so that no text can close the script element.
        let json = serde_json::to_string(self)?.replace('<', "\\u003c");
        Ok(PAGE.replacen("@REPORT@", &json, 1))
    }

    pub fn markdown(&self) -> String {
        let table = Table::of(&self.rows);
        let mut text = format!("# {}\n\n`{}`\n\n", self.title, self.command);
        if !table.common.is_empty() {
            text += &format!("{}. ", table.common.join(", "));
        }
        text += "In percent; in brackets what was published, and the difference to it.\n\n";
        text += &table.markdown();
        if self.cells.iter().any(|cell| !cell.defects.is_empty()) {
            text += "\n## By kind of defect\n\n";
            text += &Table::of_defects(&self.cells).markdown();
        }
        if !self.failures.is_empty() {
            text += "\n## Failed\n\n";
            for failure in &self.failures {
                text += &format!("- {}: {}\n", failure.name, failure.error);
            }
        }
        text
    }
}
