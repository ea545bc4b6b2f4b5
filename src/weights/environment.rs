//! The weight folders and the mirror that environment variables name.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

const VARIABLES: [&str; 8] = [
    "HOME",
    "LOCALAPPDATA",
    "PADIM_CACHE_DIR",
    "PADIM_WEIGHTS_DIR",
    "PADIM_WEIGHTS_URL",
    "TORCH_HOME",
    "USERPROFILE",
    "XDG_CACHE_HOME",
];

/// The operating system and its environment variables. Tests make their own, because changing a
/// process's variables is not safe while other threads read them.
#[derive(Debug)]
pub(super) struct Environment {
    pub os: &'static str,
    pub variables: BTreeMap<&'static str, OsString>,
}

impl Environment {
    pub fn of_process() -> Self {
        let value = |name| Some((name, std::env::var_os(name)?));
        Self {
            os: std::env::consts::OS,
            variables: VARIABLES.into_iter().filter_map(value).collect(),
        }
    }

    /// The folders that are searched for weights, in order.
    pub fn folders(&self) -> Vec<PathBuf> {
        let named = self.path("PADIM_WEIGHTS_DIR").map(Path::to_owned);
        named.into_iter().chain(self.cache()).chain(self.torch_hub()).collect()
    }

    /// The download folder of this crate.
    pub fn cache(&self) -> Option<PathBuf> {
        if let Some(folder) = self.path("PADIM_CACHE_DIR") {
            return Some(folder.to_owned());
        }
        let caches = match self.os {
            "windows" => self.path("LOCALAPPDATA")?.to_owned(),
            "macos" => self.home()?.join("Library/Caches"),
            _ => self.xdg_cache()?,
        };
        Some(caches.join("padim"))
    }

    /// The URL of a mirror, which replaces the base URL of all weights.
    pub fn weights_url(&self) -> Option<String> {
        self.value("PADIM_WEIGHTS_URL").map(|url| url.to_string_lossy().into_owned())
    }

    /// The download folder of `torch.hub`, by the same rule on every operating system.
    fn torch_hub(&self) -> Option<PathBuf> {
        let torch = match self.path("TORCH_HOME") {
            Some(folder) => folder.to_owned(),
            None => self.xdg_cache()?.join("torch"),
        };
        Some(torch.join("hub").join("checkpoints"))
    }

    fn xdg_cache(&self) -> Option<PathBuf> {
        let named = self.path("XDG_CACHE_HOME").map(Path::to_owned);
        named.or_else(|| Some(self.home()?.join(".cache")))
    }

    fn home(&self) -> Option<&Path> {
        self.path(if self.os == "windows" { "USERPROFILE" } else { "HOME" })
    }

    fn path(&self, name: &str) -> Option<&Path> {
        self.value(name).map(Path::new)
    }

    /// A variable's value. An empty one counts as not set.
    fn value(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }
}
