//! Takes scored files out of the watched folder, and keeps exactly the bytes that were scored.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::common::{Outcome, tell};

/// Takes a file out of its folder and, if `keep` is a folder, into that one. Can be repeated after an error.
///
/// Another program may replace the file at any time. So it is first renamed; if it then does not hold the
/// bytes that were `scored`, it goes back into its folder as a new file, and the bytes are written. `scored`
/// is `None` for a file that could not be read.
pub fn put_away(path: &Path, scored: Option<&[u8]>, keep: Option<&Path>) -> Outcome {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Hidden, so that it is not taken as a new file, and in the same file system.
    let staged = path.with_file_name(format!(".{name}{STAGED}"));
    let exists = |file: &Path| file.symlink_metadata().is_ok();
    let is_other = |file: &Path| scored.is_some_and(|s| !fs::read(file).is_ok_and(|now| now == s));
    let same = if !exists(&staged) && is_other(path) {
        // Another program may be writing it just now. If it is gone, there is nothing to put away.
        if !exists(path) {
            return Ok(());
        }
        false
    } else {
        if !exists(&staged) {
            match fs::rename(path, &staged) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                moved => moved.map_err(|e| format!("cannot rename {}: {e}", path.display()))?,
            }
        }
        let same = !is_other(&staged);
        if !same {
            give_back(&staged, path)?;
        }
        same
    };
    if !same {
        tell!("{name} was replaced while it waited; the new file is scored, too");
    }
    let Some(folder) = keep else {
        return if same { remove(&staged) } else { Ok(()) };
    };
    let target = free_name(folder, &name);
    let failed = |e| format!("cannot move it to {}: {e}", target.display());
    match scored {
        // A link is not the file that it leads to.
        Some(scored) if !same || staged.is_symlink() => {
            write(&target, scored).map_err(failed)?;
        }
        _ => match fs::rename(&staged, &target) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                let bytes = scored.map_or_else(|| fs::read(&staged), |scored| Ok(scored.to_vec()));
                bytes.and_then(|bytes| write(&target, &bytes)).map_err(failed)?;
            }
            moved => return moved.map_err(|e| failed(e).into()),
        },
    }
    if let Err(error) = if same { remove(&staged) } else { Ok(()) } {
        // It is kept already, so another try would keep it twice.
        tell!("{name} is in {}, but also still in its folder: {error}", target.display());
    }
    Ok(())
}

const STAGED: &str = ".scored";

/// Gives files back to the folder that a killed program was about to put away.
pub fn recover(folder: &Path) -> Outcome {
    let failed = |e| format!("cannot read the folder {}: {e}", folder.display());
    for entry in fs::read_dir(folder).map_err(failed)? {
        let staged = entry.map_err(failed)?.path();
        let name = staged.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(name) = name.strip_prefix('.').and_then(|name| name.strip_suffix(STAGED)) {
            give_back(&staged, &folder.join(name))?;
        }
    }
    Ok(())
}

/// Renames a file without replacing another one.
fn give_back(staged: &Path, path: &Path) -> Outcome {
    let folder = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut target = path.to_owned();
    loop {
        // Unlike a rename, a link fails if the name is taken.
        match fs::hard_link(staged, &target) {
            Ok(()) => return remove(staged),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            // A file system without links.
            Err(_) if target.symlink_metadata().is_err() => {
                return fs::rename(staged, &target)
                    .map_err(|e| format!("cannot rename {}: {e}", staged.display()).into());
            }
            Err(_) => {}
        }
        target = free_name(folder, &name);
    }
}

/// A path in a folder that no file has: with the name, or else `1-name`, `2-name` and so on.
pub fn free_name(folder: &Path, name: &str) -> PathBuf {
    let path = |number: u64| match number {
        0 => folder.join(name),
        number => folder.join(format!("{number}-{name}")),
    };
    let taken = |number| path(number).symlink_metadata().is_ok();
    if !taken(0) {
        return path(0);
    }
    // A camera may give the same name to all files, so not every number is tried.
    let (mut used, mut free) = (0, 1);
    while taken(free) {
        (used, free) = (free, 2 * free);
    }
    while used + 1 < free {
        let middle = used.midpoint(free);
        if taken(middle) { used = middle } else { free = middle }
    }
    path(free)
}

/// Writes a file as a whole or not at all.
fn write(target: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let new = target.with_file_name(format!(".{name}.tmp"));
    let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, target));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

fn remove(path: &Path) -> Outcome {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(format!("cannot delete {}: {error}", path.display()).into())
        }
        _ => Ok(()),
    }
}
