//! Published values to compare with: the paper's tables, and the values of two other implementations.

use crate::cell::Name;
use crate::source::Layout;

/// The textures and objects of MVTec AD.
pub const TEXTURES: [&str; 5] = ["carpet", "grid", "leather", "tile", "wood"];
pub const OBJECTS: [&str; 10] = [
    "bottle",
    "cable",
    "capsule",
    "hazelnut",
    "metal_nut",
    "pill",
    "screw",
    "toothbrush",
    "transistor",
    "zipper",
];

/// Names of means over categories; another one is "mean of N".
pub const GROUPS: [&str; 3] = ["textures", "objects", "all"];

/// Pixel AUROC and PRO in percent.
type Localisation = [f64; 2];

/// Tables I and II, ResNet18: textures, objects, all.
const BY_VARIANT: [(&str, [Localisation; 3]); 9] = [
    ("layer1", [[93.1, 87.1], [95.6, 86.5], [94.8, 86.8]]),
    ("layer2", [[95.0, 89.7], [96.1, 87.9], [95.7, 88.5]]),
    ("layer3", [[94.8, 89.6], [97.1, 87.7], [95.7, 88.3]]),
    ("sum", [[95.4, 90.7], [96.3, 88.1], [96.0, 89.0]]),
    ("all", [[96.3, 92.3], [97.5, 90.1], [97.1, 90.8]]),
    ("rd100", [[95.7, 91.3], [97.2, 89.4], [96.7, 90.5]]),
    ("pca100", [[93.7, 88.9], [93.5, 84.1], [93.5, 85.7]]),
    ("rd200", [[96.1, 92.0], [97.5, 89.8], [97.0, 90.5]]),
    ("pca200", [[95.1, 91.8], [96.0, 88.1], [95.7, 89.3]]),
];

/// Table III: ResNet18 with 100 channels, WideResNet50 with 550.
const BY_CLASS: [(&str, Localisation, Localisation); 15] = [
    ("carpet", [98.9, 96.0], [99.1, 96.2]),
    ("grid", [94.9, 90.9], [97.3, 94.6]),
    ("leather", [99.1, 97.9], [99.2, 97.8]),
    ("tile", [91.2, 81.6], [94.1, 86.0]),
    ("wood", [93.6, 90.3], [94.9, 91.1]),
    ("bottle", [98.1, 93.9], [98.3, 94.8]),
    ("cable", [95.8, 86.2], [96.7, 88.8]),
    ("capsule", [98.3, 91.9], [98.5, 93.5]),
    ("hazelnut", [97.7, 91.4], [98.2, 92.6]),
    ("metal_nut", [96.7, 81.9], [97.2, 85.6]),
    ("pill", [94.7, 90.6], [95.7, 92.7]),
    ("screw", [97.4, 91.3], [98.5, 94.4]),
    ("toothbrush", [98.7, 92.3], [98.8, 93.1]),
    ("transistor", [97.2, 80.2], [97.5, 84.5]),
    ("zipper", [98.2, 94.7], [98.5, 95.9]),
];

/// The published value of a metric in percent, from the source of the preset.
pub fn value(name: &Name, layout: Layout, rotated: bool, metric: &str) -> Option<f64> {
    let Name { preset, backbone, variant, category, .. } = name;
    let row = (backbone.as_str(), variant.as_str());
    match (layout, preset.as_str()) {
        (Layout::Mvtec, "paper") if rotated => rotated_paper(row, category, metric),
        (Layout::Mvtec, "paper") => paper(row, category, metric),
        (Layout::Mvtec, preset) if !rotated => implementation(preset, row, category, metric),
        (Layout::ShanghaiTech, "paper") if !rotated => {
            let ours = (row, category.as_str(), metric);
            (ours == (("resnet18", "rd100"), "all", "pixel_auroc")).then_some(91.2)
        }
        _ => None,
    }
}

fn localisation(values: Localisation, metric: &str) -> Option<f64> {
    match metric {
        "pixel_auroc" => Some(values[0]),
        "aupro" => Some(values[1]),
        _ => None,
    }
}

fn paper(row: (&str, &str), category: &str, metric: &str) -> Option<f64> {
    let group = GROUPS.iter().position(|group| *group == category);
    if metric == "image_auroc" {
        // Table V.
        return match row {
            ("wide_resnet50", "rd550") => group.map(|group| [98.8, 93.6, 95.3][group]),
            ("efficientnet_b5", "all") => group.map(|group| [99.0, 97.2, 97.9][group]),
            _ => None,
        };
    }
    let class = BY_CLASS.iter().find(|class| class.0 == category);
    match (row, group) {
        (("resnet18", "rd100"), None) => localisation(class?.1, metric),
        (("wide_resnet50", "rd550"), None) => localisation(class?.2, metric),
        (("wide_resnet50", "rd550"), Some(2)) => localisation([97.5, 92.1], metric),
        (("resnet18", variant), Some(group)) => {
            let found = BY_VARIANT.iter().find(|row| row.0 == variant)?;
            localisation(found.1[group], metric)
        }
        _ => None,
    }
}

/// Table VI.
fn rotated_paper(row: (&str, &str), category: &str, metric: &str) -> Option<f64> {
    let group = GROUPS.iter().position(|group| *group == category)?;
    let values = [[92.4, 77.9], [92.1, 70.8], [92.2, 73.1]];
    (row == ("wide_resnet50", "rd550")).then(|| localisation(values[group], metric))?
}

/// The values for screw and for the mean of all categories, from the web pages of the implementations.
fn implementation(preset: &str, row: (&str, &str), category: &str, metric: &str) -> Option<f64> {
    let network = match row {
        ("resnet18", "rd100") => 0,
        ("wide_resnet50", "rd550") => 1,
        _ => return None,
    };
    let values: [f64; 2] = match (preset, category, metric) {
        ("xiahaifeng", "screw", "image_auroc") => [74.5, 84.4],
        ("xiahaifeng", "screw", "pixel_auroc") => [97.2, 98.3],
        ("xiahaifeng", "all", "image_auroc") => [90.5, 95.5],
        ("xiahaifeng", "all", "pixel_auroc") => [96.5, 97.3],
        ("anomalib", "screw", "image_auroc") => [75.9, 84.5],
        ("anomalib", "screw", "pixel_auroc") => [97.8, 98.8],
        ("anomalib", "all", "image_auroc") => [89.1, 95.0],
        ("anomalib", "all", "pixel_auroc") => [96.8, 97.9],
        ("anomalib", "all", "image_f1_max") => [91.6, 95.1],
        _ => return None,
    };
    Some(values[network])
}
