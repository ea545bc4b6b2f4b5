//! Writes files so that a reader never sees an incomplete one.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{Error, FileKind, Result};

/// Opens a file for reading, and returns its length in bytes. Only regular files are accepted:
/// opening a pipe would wait for a writer.
pub(crate) fn open(kind: FileKind, path: &Path) -> Result<(File, u64)> {
    let metadata = fs::metadata(path).map_err(Error::io(kind, "open", path))?;
    if !metadata.is_file() {
        let reason = std::io::Error::other("it is a folder, a pipe or a device, not a file");
        return Err(Error::io(kind, "read", path)(reason));
    }
    let file = File::open(path).map_err(Error::io(kind, "open", path))?;
    Ok((file, metadata.len()))
}

/// The prefix and suffix of temporary files.
const NAME: [&str; 2] = [".padim-", ".tmp"];

/// Writes a temporary file beside the target, and renames it when it is complete and on the disk.
/// On an error, the target is unchanged and the temporary file is removed. A killed process leaves
/// it behind ([`remove_left_over`]).
pub(crate) fn write_atomically(
    kind: FileKind,
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let fail = |reason| Error::io(kind, "write", path)(reason);
    let (temporary, file) = loop {
        // Not the target's name with a suffix, because that name may already have the maximum length.
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let [begin, end] = NAME;
        let temporary = path.with_file_name(format!("{begin}{}-{number}{end}", std::process::id()));
        match File::create_new(&temporary) {
            Ok(file) => break (temporary, file),
            // Left by a killed process with the same id.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(fail(error)),
        }
    };
    // The lock marks the file as in use. On a file system without locks, `remove_left_over` cannot
    // lock it either, and so keeps it.
    let _ = file.lock();
    let written = (|| {
        let mut writer = BufWriter::with_capacity(1 << 20, file);
        write(&mut writer)?;
        writer.flush()?;
        writer.get_ref().sync_all()?;
        fs::rename(&temporary, path)
    })();
    written.map_err(|source| {
        // Only the first error is reported; the file stays if it cannot be removed.
        let _ = fs::remove_file(&temporary);
        fail(source)
    })
}

/// A temporary file is locked within this time after its creation.
const NEW: Duration = Duration::from_secs(60);

/// Removes temporary files that killed processes left beside a file: those that are older than a
/// minute and that no process has locked. Errors are ignored.
pub(crate) fn remove_left_over(beside: &Path) {
    let folder = beside.parent().filter(|folder| !folder.as_os_str().is_empty());
    let Ok(entries) = fs::read_dir(folder.unwrap_or(Path::new("."))) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if !(name.starts_with(NAME[0].as_bytes()) && name.ends_with(NAME[1].as_bytes())) {
            continue;
        }
        let changed = entry.metadata().and_then(|file| file.modified());
        let old = changed.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > NEW));
        if old && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_atomically(FileKind::Picture, &path, |w| w.write_all(b"old")).unwrap();
        let error = write_atomically(FileKind::Picture, &path, |w| {
            w.write_all(b"half")?;
            Err(std::io::Error::other("the disk is full"))
        });
        assert!(error.unwrap_err().to_string().contains("the disk is full"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        write_atomically(FileKind::Picture, &path, |w| w.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_what_nobody_holds_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
        let file = |name: &str, time| {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_modified(time).unwrap();
            file
        };
        let held = file(".padim-1-0.tmp", hour_ago);
        held.lock().unwrap();
        file(".padim-1-1.tmp", hour_ago);
        file(".padim-1-2.tmp", std::time::SystemTime::now());
        file("padim-1-3.tmp", hour_ago);
        let left = || {
            remove_left_over(&folder.path().join("model"));
            let names = fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<_> = names.map(|e| e.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(left(), [".padim-1-0.tmp", ".padim-1-2.tmp", "padim-1-3.tmp"]);
        drop(held);
        assert_eq!(left(), [".padim-1-2.tmp", "padim-1-3.tmp"]);
        remove_left_over(Path::new("no/such/folder/model"));
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        if !made.is_ok_and(|status| status.success()) {
            println!("SKIPPED: there is no `mkfifo` to make a pipe by");
            return;
        }
        for path in [&*pipe, folder.path()] {
            let error = open(FileKind::Image, path).unwrap_err().to_string();
            assert!(error.contains("not a file"), "{error}");
        }
        assert!(
            crate::preprocess::decode_file(&pipe).is_err()
                && crate::preprocess::image_size(&pipe).is_err()
        );
        assert!(crate::detector::Detector::load(&pipe, &burn::tensor::Device::flex()).is_err());
    }

    #[test]
    fn a_target_that_is_no_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write_atomically(FileKind::Picture, folder.path(), |_| Ok(())).is_err());
        assert!(write_atomically(FileKind::Picture, Path::new("/"), |_| Ok(())).is_err());
        assert!(
            write_atomically(FileKind::Picture, &folder.path().join("no/such/folder"), |_| Ok(()))
                .is_err()
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
