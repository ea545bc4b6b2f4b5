//! Checks the imports inside `src`: a module uses only modules that come before it in `lib.rs`, files
//! do not import each other in a cycle, and no file imports through the crate's root.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

/// A source file as a module: `src/gaussian/model.rs` is `["gaussian", "model"]`.
type Module = Vec<String>;

struct File {
    /// Its path below `src`.
    path: String,
    /// Names of its child modules, and whether each is a test module.
    children: BTreeMap<String, bool>,
    /// Its re-exports: the new name, and the path.
    exports: BTreeMap<String, Vec<String>>,
    /// All paths in its code that can name another module.
    paths: Vec<Vec<String>>,
}

struct Crate(BTreeMap<Module, File>);

impl Crate {
    fn read(root: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(root.join(&folder)).unwrap() {
                let entry = entry.unwrap();
                let path = folder.join(entry.file_name());
                if entry.file_type().unwrap().is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let mut module: Module = (path.with_extension("").iter())
                        .map(|part| part.to_str().unwrap().to_owned())
                        .collect();
                    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
                        module.pop();
                    }
                    let text = std::fs::read_to_string(root.join(&path)).unwrap();
                    files.insert(module, File::parse(path.to_str().unwrap(), &text));
                }
            }
        }
        Self(files)
    }

    /// Whether the module is under `#[cfg(test)]`.
    fn is_test(&self, module: &[String]) -> bool {
        (0..module.len()).any(|i| self.0[&module[..i]].children.get(&module[i]) == Some(&true))
    }

    /// The module whose file defines the item at `path`. `from` is the module that contains the path.
    fn home(&self, from: &[String], path: &[String]) -> Option<Module> {
        let (mut module, mut rest) = match path[0].as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (from.to_vec(), &path[1..]),
            "super" => {
                let up = path.iter().take_while(|part| *part == "super").count();
                (from[..from.len().checked_sub(up)?].to_vec(), &path[up..])
            }
            child if self.0[from].children.contains_key(child) => (from.to_vec(), path),
            _ => return None,
        };
        while let Some(name) = rest.first() {
            if self.0[&module].children.contains_key(name) {
                module.push(name.clone());
                if !self.0.contains_key(&module) {
                    // A module in the same file.
                    module.pop();
                    return Some(module);
                }
                rest = &rest[1..];
            } else if module.is_empty() {
                // A name in the crate's root.
                break;
            } else if let Some(export) = self.0[&module].exports.get(name) {
                return self.home(&module, export);
            } else {
                break;
            }
        }
        Some(module)
    }

    /// For each file except tests, the files that it uses.
    fn uses(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let no_test =
            self.0.iter().filter(|(module, _)| !module.is_empty() && !self.is_test(module));
        no_test
            .map(|(module, file)| {
                let homes = file.paths.iter().filter_map(|path| self.home(module, path));
                (module, homes.filter(|home| home != module).collect())
            })
            .collect()
    }

    fn name(&self, module: &[String]) -> &str {
        &self.0[module].path
    }
}

impl File {
    fn parse(path: &str, text: &str) -> Self {
        let code = without_comments(text);
        let mut file = Self {
            path: path.to_owned(),
            children: BTreeMap::new(),
            exports: BTreeMap::new(),
            paths: Vec::new(),
        };
        let (mut rest, mut test, mut docs) = (code.as_str(), false, false);
        while !rest.is_empty() {
            let word_end = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
            if word_end == 0 {
                let attribute = rest.starts_with("#[").then(|| rest.find(']').unwrap_or(1) + 1);
                if let Some(end) = attribute {
                    test |= rest[..end].contains("cfg(test)");
                    docs |= rest[..end].contains("cfg(doc)");
                    rest = &rest[end..];
                } else {
                    let c = rest.chars().next().unwrap();
                    if !c.is_whitespace() {
                        (test, docs) = (false, false);
                    }
                    rest = &rest[c.len_utf8()..];
                }
                continue;
            }
            match &rest[..word_end] {
                "pub" => {
                    rest = rest[word_end..].trim_start();
                    if let Some(end) = rest.strip_prefix('(').and_then(|_| rest.find(')')) {
                        rest = rest[end + 1..].trim_start();
                    }
                    if rest.starts_with("use ") {
                        let end = rest.find(';').unwrap();
                        for (name, path) in expanded(&rest[4..end]) {
                            file.exports.insert(name, path);
                        }
                        rest = &rest[end..];
                    }
                    continue;
                }
                "use" => {
                    let end = rest.find(';').unwrap();
                    if !test && !docs {
                        let paths = expanded(&rest[4..end]).into_iter();
                        file.paths.extend(paths.map(|(_, path)| path));
                    }
                    rest = &rest[end..];
                    continue;
                }
                "mod" => {
                    rest = rest[word_end..].trim_start();
                    let end = rest.find(|c: char| !is_name(c)).unwrap();
                    file.children.insert(rest[..end].to_owned(), test);
                    rest = rest[end..].trim_start();
                    if rest.starts_with('{') {
                        rest = &rest[closing(rest) + 1..];
                    }
                    continue;
                }
                "crate" | "super" if rest[word_end..].starts_with("::") => {
                    let end = rest.find(|c: char| !is_name(c) && c != ':').unwrap_or(rest.len());
                    let path = rest[..end].split("::").map(str::to_owned);
                    file.paths.push(path.filter(|part| !part.is_empty()).collect());
                    rest = &rest[end..];
                }
                _ => rest = &rest[word_end..],
            }
            (test, docs) = (false, false);
        }
        file
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The index of the brace that closes the first brace of `text`.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i;
        }
    }
    text.len() - 1
}

/// The paths of a `use`, each with the imported name.
fn expanded(tree: &str) -> Vec<(String, Vec<String>)> {
    let tree = tree.trim();
    if let Some(brace) = tree.find('{') {
        let (mut depth, mut start, mut parts) = (0, brace + 1, Vec::new());
        for (i, c) in tree.char_indices().skip(brace) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if (c == ',' && depth == 1) || (c == '}' && depth == 0) {
                parts.push(&tree[start..i]);
                start = i + 1;
            }
        }
        let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
        return parts
            .flat_map(|part| expanded(&format!("{}{}", &tree[..brace], part.trim())))
            .collect();
    }
    let (path, name) =
        tree.split_once(" as ").map_or((tree, None), |(path, name)| (path, Some(name)));
    let path: Vec<_> = path.split("::").map(|part| part.trim().to_owned()).collect();
    let name = name.map_or_else(|| path.last().unwrap().clone(), str::to_owned);
    vec![(name, path)]
}

/// The code without comments, strings and characters, which are replaced by spaces.
fn without_comments(text: &str) -> String {
    let mut code = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => {
                while chars.peek().is_some_and(|&c| c != '\n') {
                    chars.next();
                }
            }
            '"' => {
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => drop(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
                code.push(' ');
            }
            '\'' => {
                // A character, or the name of a lifetime.
                let mut ahead = chars.clone();
                match (ahead.next(), ahead.next()) {
                    (Some('\\'), _) => {
                        chars.next();
                        chars.next();
                        while chars.next().is_some_and(|c| c != '\'') {}
                    }
                    (Some(_), Some('\'')) => {
                        chars.next();
                        chars.next();
                    }
                    _ => {}
                }
                code.push(' ');
            }
            c => code.push(c),
        }
    }
    code
}

/// The shortest import cycle through a file, unless it contains an earlier file.
fn circle<'a>(
    uses: &'a BTreeMap<&Module, BTreeSet<Module>>,
    start: &'a Module,
) -> Option<Vec<&'a Module>> {
    let mut ways = VecDeque::from([vec![start]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in uses.get(*way.last()?).into_iter().flatten() {
            if next == start {
                return Some([way, vec![start]].concat());
            }
            if next > start && seen.insert(next) {
                ways.push_back([way.clone(), vec![next]].concat());
            }
        }
    }
    None
}

/// The wrong imports below `root`, one line each.
fn complaints(root: &Path) -> Vec<String> {
    let source = Crate::read(root);
    let mut found = Vec::new();
    // `children` is sorted by name, so the order is read from the text.
    let text = without_comments(&std::fs::read_to_string(root.join("lib.rs")).unwrap());
    let order: Vec<_> = (text.lines())
        .filter_map(|line| {
            let line = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            line.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
        })
        .collect();
    let place = |module: &[String]| order.iter().position(|room| *room == module[0]);

    let uses = source.uses();
    for (module, used) in &uses {
        let name = source.name(module);
        for home in used {
            if home.is_empty() {
                found.push(format!("{name} uses the facade"));
            } else if home[0] != module[0] && place(home) > place(module) {
                found.push(format!("{name} uses {}, which stands below it", source.name(home)));
            }
        }
        if let Some(circle) = circle(&uses, module) {
            let names: Vec<_> = circle.iter().map(|module| source.name(module)).collect();
            found.push(format!("a circle: {}", names.join(" -> ")));
        }
    }
    found
}

#[test]
fn imports_go_one_way() {
    let found = complaints(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(found.is_empty(), "{} complaints:\n{}", found.len(), found.join("\n"));
}

/// Checks the test above: it must find each kind of wrong import.
#[test]
fn wrong_imports_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("lib.rs", "mod error;\nmod high;\n\npub mod low;\npub use low::Low;");
    write(
        "error.rs",
        "// use crate::Low;\npub struct Error(&'static str);\nconst _: &str = \"crate::Low\";",
    );
    write(
        "high/mod.rs",
        "mod left;\nmod right;\npub use left::{Left, made as make};\npub use right::*;",
    );
    write("high/left.rs", "use super::right::Right;\nuse crate::error::{Error};\npub struct Left;");
    write(
        "high/right.rs",
        "pub fn right() { crate::high::make() }\n#[cfg(test)]\nmod tests { use crate::Low; }",
    );
    write("low.rs", "use crate::high::{\n    Left,\n};\n#[cfg(doc)]\nuse crate::Error;");
    let circle = "a circle: high/left.rs -> high/right.rs -> high/left.rs";
    assert_eq!(complaints(folder.path()), [circle]);

    write("low.rs", "pub struct Low;");
    write("error.rs", "use crate::Low;");
    write("high/right.rs", "fn right() { let low = crate::low::Low; }");
    assert_eq!(
        complaints(folder.path()),
        ["error.rs uses the facade", "high/right.rs uses low.rs, which stands below it"]
    );
}
