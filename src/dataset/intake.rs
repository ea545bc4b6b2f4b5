//! The account of a category's folders.

use std::collections::BTreeMap;

use super::category::Category;
use super::report::{DefectCount, IntakeReport, IntakeWarning};

impl Category {
    /// The account of the folders: what was taken for what, and what was left out. No image is opened.
    pub fn intake(&self) -> IntakeReport {
        let mut defects: BTreeMap<String, DefectCount> = BTreeMap::new();
        for image in self.test.iter().filter(|image| image.is_defective()) {
            let count = defects.entry(image.defect.clone()).or_default();
            count.images += 1;
            count.with_mask += usize::from(image.mask.is_some());
        }
        let mut report = IntakeReport {
            category: self.name.clone(),
            training: self.train.len(),
            good_tests: self.test.iter().filter(|image| !image.is_defective()).count(),
            defects,
            left_out: self.left_out.clone(),
            ..IntakeReport::default()
        };
        let suspicious = self.left_out.reasons().filter(|(reason, _)| reason.is_suspicious());
        report.warnings.extend(suspicious.map(|(reason, files)| IntakeWarning {
            text: format!("left out: {reason}"),
            count: files.count,
            first: Some(files.first.clone()),
        }));
        report.warnings.extend(self.warnings.iter().cloned());
        report.warnings.extend(self.test_warnings(&report));
        report
    }

    fn test_warnings(&self, report: &IntakeReport) -> Vec<IntakeWarning> {
        let defective: usize = report.defects.values().map(|count| count.images).sum();
        let mut warnings = Vec::new();
        match (report.good_tests, defective) {
            (0, 0) => warnings.push(IntakeWarning::general(
                "there is no test image, so nothing can be evaluated",
            )),
            (0, _) => warnings.push(IntakeWarning::general(
                "no test image is good, so image AUROC is undefined; if a folder or label has another \
                 name for good, name it by `with_good_name` (`--good NAME`)",
            )),
            (_, 0) => warnings.push(IntakeWarning::general(
                "all test images are good, so no metric is defined",
            )),
            _ => {}
        }
        if report.defects.values().any(|count| count.with_mask > 0) {
            let without = self.test.iter().filter(|i| i.is_defective() && i.mask.is_none());
            let text = "a defective image has no mask, while others have one; it does not count for the \
                        metrics of pixels";
            warnings.extend(IntakeWarning::about(text, without.map(|image| image.path.as_path())));
        }
        warnings
    }
}
