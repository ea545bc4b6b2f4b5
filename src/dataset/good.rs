//! Which names of folders and labels mean that a part is good.

/// The `defect` of a good [`Sample`](super::Sample).
pub const GOOD: &str = "good";

/// The names, in lower case and without separators.
const NAMES: &[&str] = &[
    "good",
    "goods",
    "ok",
    "okay",
    "normal",
    "pass",
    "passed",
    "fine",
    "nominal",
    "healthy",
    "intact",
    "undamaged",
    "clean",
    "accepted",
    "conform",
    "nodefect",
    "nodefects",
    "defectfree",
    "nondefective",
    "nonanomalous",
    "anomalyfree",
    "io",
];

/// Whether a folder's name or a label means that a part is good: `good`, `OK`, `normal`, `pass`,
/// `defect-free` and others, in any case, or one of the caller's `own` names.
pub(super) fn means_good(name: &str, own: &[String]) -> bool {
    let plain = |text: &str| -> String {
        let letters = text.chars().filter(|c| !matches!(c, '_' | '-' | '.' | ' '));
        letters.flat_map(char::to_lowercase).collect()
    };
    let name = plain(name);
    NAMES.contains(&name.as_str()) || own.iter().any(|own| plain(own) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_good_parts_are_known_in_any_case() {
        for name in
            ["good", "OK", "Ok", "NORMAL", "pass", "Passed", "defect-free", "no_defect", "i.O."]
        {
            assert!(means_good(name, &[]), "{name}");
        }
        for name in ["NG", "nok", "not good", "bad", "scratch", "", "goodbye", "0"] {
            assert!(!means_good(name, &[]), "{name}");
        }
        assert!(means_good("Gut", &["gut".into()]) && !means_good("schlecht", &["gut".into()]));
    }
}
