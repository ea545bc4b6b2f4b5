//! Reads and writes the sections of a detector's file.

use std::collections::BTreeMap;
use std::path::Path;

pub type Sections = BTreeMap<String, Vec<u8>>;

/// Where the header of a detector's file ends.
pub fn header_end(file: &[u8]) -> usize {
    20 + u64::from_le_bytes(file[12..20].try_into().unwrap()) as usize
}

/// The sections of a detector's file, and the arrays after them.
pub fn read(path: &Path) -> (Sections, Vec<u8>) {
    let file = std::fs::read(path).unwrap();
    let end = header_end(&file);
    let config = bincode::config::standard();
    let (sections, _) = bincode::serde::decode_from_slice(&file[20..end], config).unwrap();
    (sections, file[end..file.len() - 4].to_vec())
}

/// Writes a file with these sections, with correct lengths and checksum.
pub fn write(path: &Path, sections: &Sections, arrays: &[u8]) {
    let head: Vec<u8> = std::fs::read(path).unwrap()[..12].to_vec();
    let header = bincode::serde::encode_to_vec(sections, bincode::config::standard()).unwrap();
    let mut file = [&head[..], &(header.len() as u64).to_le_bytes(), &header, arrays].concat();
    file.extend(crc32fast::hash(&file).to_le_bytes());
    std::fs::write(path, file).unwrap();
}

/// Changes a section of settings.
pub fn edit_settings(path: &Path, section: &str, edit: impl FnOnce(&mut serde_json::Value)) {
    let (mut sections, arrays) = read(path);
    let mut settings = serde_json::from_slice(&sections[section]).unwrap();
    edit(&mut settings);
    sections.insert(section.to_owned(), serde_json::to_vec(&settings).unwrap());
    write(path, &sections, &arrays);
}
