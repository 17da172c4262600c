//! Folders that vanish with the test, and where the built extension lies.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A fresh folder, removed when dropped.
pub struct TempDir(tempfile::TempDir);

impl TempDir {
    /// Makes the folder.
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("logos-test-").tempdir().expect("a temporary folder"))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path in it; nothing is created.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The folder of the channel that `channel()` names.
    pub fn channel_folder(&self) -> PathBuf {
        self.file("channel")
    }

    /// URL of a directory channel in it, without a channel id.
    pub fn channel(&self) -> String {
        format!("dir:{}", self.channel_folder().display())
    }
}

impl Default for TempDir {
    fn default() -> Self {
        Self::new()
    }
}

/// Root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/harness lies two below the root").to_owned()
}

/// The built extension (`LOGOS_EXTENSION` names another one).
pub fn extension() -> PathBuf {
    built(env::var_os("LOGOS_EXTENSION"), "logos", "make build")
}

/// The same extension, built with its fault points.
pub fn extension_sim() -> PathBuf {
    built(None, "logos-sim", "make build-sim")
}

fn built(given: Option<OsString>, name: &str, command: &str) -> PathBuf {
    let usual = repository().join("build").join(format!("{name}.{}", env::consts::DLL_EXTENSION));
    let path = given.map_or(usual, PathBuf::from);
    assert!(path.exists(), "{} is missing: run `{command}` first", path.display());
    path
}

/// The sidecar of a database.
pub fn sidecar(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-logos");
    PathBuf::from(name)
}

/// The entry files of a channel in their order. `url` is the full one, `dir:PATH/<64 hex>`.
pub fn entries(url: &str) -> Vec<PathBuf> {
    let folder = Path::new(url.strip_prefix("dir:").expect("a directory channel"));
    let Ok(found) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut entries: Vec<PathBuf> = found.map(|entry| entry.unwrap().path()).collect();
    entries.retain(|path| path.extension().is_some_and(|extension| extension == "entry"));
    entries.sort();
    entries
}
