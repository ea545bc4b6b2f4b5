//! Lists of images in CSV files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::category::{Category, Dataset, MaskFile, Sample};
use super::errors::{failed, unknown};
use super::good::{GOOD, means_good};
use super::report::IntakeWarning;
use crate::error::Result;

/// A CSV file with a line for each image. The first line names the columns, in any order:
///
/// | column | meaning |
/// |---|---|
/// | `path` | the image, relative to the CSV file's folder |
/// | `split` | `train` or `test` |
/// | `label` | `good` (also `OK`, `normal`, `pass` and others, `0`, `false` or nothing), or the kind of defect (`1` or `true` for any) |
/// | `mask` | the mask, an image that is not 0 where the defect is; may be empty or missing |
/// | `category` | the kind of part; may be missing |
///
/// Training images must be good.
#[derive(Debug, Clone)]
pub struct Table {
    path: PathBuf,
    good_names: Vec<String>,
}

impl Table {
    /// The CSV file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), good_names: Vec::new() }
    }

    /// Adds a label that means good, in any case, beside the usual ones.
    #[must_use]
    pub fn with_good_name(mut self, label: impl Into<String>) -> Self {
        self.good_names.push(label.into());
        self
    }

    fn read(&self) -> Result<BTreeMap<String, Category>> {
        let path = &self.path;
        let folder = path.parent().unwrap_or(Path::new(""));
        let own = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut categories: BTreeMap<String, Category> = BTreeMap::new();
        for row in rows(path, &["path", "split"])? {
            let field = |name: &str| row.field(name).filter(|field| !field.is_empty());
            let missing = |name: &str| row.failed(&format!("has no {name}"));
            let file = folder.join(field("path").ok_or_else(|| missing("path"))?);
            let label = field("label").unwrap_or(GOOD);
            let defect = match label.to_lowercase().as_str() {
                "0" | "false" => GOOD,
                _ if means_good(label, &self.good_names) => GOOD,
                "1" | "true" => "defect",
                _ => label,
            };
            let mask = field("mask").map(|mask| MaskFile::Picture(folder.join(mask)));
            let unused_mask = mask.is_some() && defect == GOOD;
            let mask = mask.filter(|_| defect != GOOD);
            let sample = Sample::new(file, defect, mask);
            let name = field("category").unwrap_or(&own).to_owned();
            let category = categories.entry(name.clone());
            let category = category.or_insert_with(|| Category::new(name, Vec::new(), Vec::new()));
            if unused_mask {
                let text = "a good image has a mask, which is not used";
                category.warnings.extend(IntakeWarning::about(text, [sample.path.as_path()]));
            }
            match field("split").map(str::to_lowercase).as_deref() {
                Some("train") if sample.is_defective() => {
                    return Err(row.failed("is a training image with a defect"));
                }
                Some("train") => category.train.push(sample),
                Some("test") => category.test.push(sample),
                other => {
                    let other = other.unwrap_or_default();
                    return Err(row.failed(&format!("has split {other:?}; expected train or test")));
                }
            }
        }
        for category in categories.values_mut() {
            let warning = twice(category);
            category.warnings.extend(warning);
        }
        Ok(categories)
    }
}

/// Images that stand in two lines.
fn twice(category: &Category) -> Option<IntakeWarning> {
    let mut seen = BTreeSet::new();
    let paths = category.train.iter().chain(&category.test).map(|sample| sample.path.as_path());
    let again: Vec<&Path> = paths.filter(|path| !seen.insert(*path)).collect();
    IntakeWarning::about("an image is listed twice", again)
}

impl Dataset for Table {
    fn categories(&self) -> Result<Vec<String>> {
        let names: Vec<String> = self.read()?.into_keys().collect();
        if names.is_empty() {
            return Err(failed(&self.path, "lists no image"));
        }
        Ok(names)
    }

    fn category(&self, name: &str) -> Result<Category> {
        let mut categories = self.read()?;
        let Some(category) = categories.remove(name) else {
            let known: Vec<String> = categories.into_keys().collect();
            return Err(unknown(&self.path, name, &known));
        };
        if category.train.is_empty() {
            return Err(failed(&self.path, format!("lists no training image of {name:?}")));
        }
        Ok(category)
    }
}

/// A line of a CSV file.
pub(super) struct Row<'a> {
    path: &'a Path,
    line: u64,
    fields: BTreeMap<String, String>,
}

impl Row<'_> {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    pub fn failed(&self, reason: &str) -> crate::error::Error {
        failed(self.path, format!("line {} {reason}", self.line))
    }
}

/// The lines of a CSV file, which must have the `required` columns; others are allowed.
pub(super) fn rows<'a>(path: &'a Path, required: &[&str]) -> Result<Vec<Row<'a>>> {
    let broken = |error: csv::Error| failed(path, format!("is not a usable CSV file: {error}"));
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(broken)?;
    let headers = reader.headers().map_err(broken)?.clone();
    if let Some(missing) = required.iter().find(|name| !headers.iter().any(|h| h == **name)) {
        let names: Vec<&str> = headers.iter().collect();
        let reason = format!("has no column {missing:?}; it has {}", names.join(", "));
        return Err(failed(path, reason));
    }
    let row = |record: csv::Result<csv::StringRecord>| {
        let record = record.map_err(broken)?;
        let line = record.position().map_or(0, csv::Position::line);
        let fields = headers.iter().zip(&record).map(|(h, f)| (h.to_owned(), f.to_owned()));
        Ok(Row { path, line, fields: fields.collect() })
    };
    reader.records().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{dataset_error, write};
    use super::*;

    fn table(text: &str) -> (tempfile::TempDir, Table) {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "nuts.csv", text.as_bytes());
        let table = Table::new(root.path().join("nuts.csv"));
        (root, table)
    }

    #[test]
    fn columns_may_stand_in_any_order() {
        let (root, table) = table(
            "label,path,mask,split\n,a.png,,train\nok,\"b, 2.png\",,test\nbent,c.png,c_m.png,test\n\
             1,d.png,,test\n",
        );
        assert_eq!(table.categories().unwrap(), ["nuts"]);
        let category = table.category("nuts").unwrap();
        let at = |name: &str| root.path().join(name);
        assert_eq!(category.train, [Sample::good(at("a.png"))]);
        assert_eq!(category.test[0], Sample::good(at("b, 2.png")));
        assert_eq!(category.test[1].defect, "bent");
        assert_eq!(category.test[1].mask, Some(MaskFile::Picture(at("c_m.png"))));
        assert_eq!((category.test[2].defect.as_str(), &category.test[2].mask), ("defect", &None));
        assert!(!category.has_masks());
        let warnings = category.intake().warnings;
        assert!(warnings[0].to_string().contains("d.png"), "{warnings:?}");
    }

    #[test]
    fn categories_have_a_column() {
        let (_root, table) =
            table("path,split,category\na.png,train,x\nb.png,train,y\nc.png,test,z\n");
        assert_eq!(table.categories().unwrap(), ["x", "y", "z"]);
        assert_eq!(table.category("y").unwrap().train.len(), 1);
        assert!(dataset_error(table.category("z")).contains("no training image"));
        assert!(dataset_error(table.category("w")).contains("x, y, z"));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let reason = |text: &str| dataset_error(table(text).1.categories());
        assert!(reason("path,label\na.png,good\n").contains("no column \"split\""));
        assert!(reason("path,split\na.png,train\n,test\n").contains("line 3 has no path"));
        assert!(reason("path,split\na.png,val\n").contains("line 2 has split \"val\""));
        assert!(reason("path,split,label\na.png,train,bent\n").contains("line 2 is a training"));
        assert!(reason("path,split\na.png\n").contains("CSV"));
        assert!(reason("path,split\n").contains("no image"));
        assert!(dataset_error(Table::new("/nowhere.csv").categories()).contains("nowhere"));
    }
}
