//! Keeps the state of the drift monitor between runs. It belongs to one detector.

use std::io::{ErrorKind, Write};
use std::path::Path;

use padim::Detector;
use padim::line::{DriftConfig, DriftMonitor};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::common::{Outcome, tell};
use super::put_away::free_name;

const FILE: &str = "drift.json";

#[derive(Serialize, Deserialize)]
struct Saved<Monitor> {
    /// The fingerprint of the detector.
    detector: String,
    monitor: Monitor,
}

/// The SHA-256 of a detector's file.
pub fn fingerprint(detector: &Detector) -> Outcome<String> {
    struct Hasher(Sha256);
    impl Write for Hasher {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut hasher = Hasher(Sha256::new());
    detector.save_to(&mut hasher)?;
    let hash: [u8; 32] = hasher.0.finalize().into();
    Ok(hash.map(|byte| format!("{byte:02x}")).concat())
}

/// The state that the last run with the same detector saved, or a new one. The state of another detector
/// is put aside.
pub fn load(
    folder: &Path,
    detector: &Detector,
    fingerprint: &str,
    config: DriftConfig,
) -> Outcome<DriftMonitor> {
    let path = folder.join(FILE);
    let new = || Ok(DriftMonitor::new(config, detector.thresholds())?);
    let reason = match std::fs::read(&path) {
        Ok(bytes) => match serde_json::from_slice::<Saved<DriftMonitor>>(&bytes) {
            Ok(saved) if saved.detector == fingerprint => return Ok(saved.monitor),
            Ok(_) => "it is that of another detector".to_owned(),
            Err(error) => format!("it does not tell its detector, or is damaged ({error})"),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => return new(),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display()).into()),
    };
    let aside = free_name(folder, &format!("old-{FILE}"));
    std::fs::rename(&path, &aside).map_err(|e| format!("cannot rename {}: {e}", path.display()))?;
    tell!("{} was put aside as {}: {reason}", path.display(), aside.display());
    new()
}

pub fn save(folder: &Path, fingerprint: &str, monitor: &DriftMonitor) {
    let (path, new) = (folder.join(FILE), folder.join(".drift.tmp"));
    let saved = serde_json::to_vec(&Saved { detector: fingerprint.to_owned(), monitor });
    let written = saved.map_err(std::io::Error::other).and_then(|s| std::fs::write(&new, s));
    if let Err(error) = written.and_then(|()| std::fs::rename(&new, &path)) {
        tell!("cannot write {}: {error}", path.display());
    }
}
