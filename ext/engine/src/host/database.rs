//! A database file as an application has it open: its path, which file that is, and how it was opened.
//!
//! Invariants
//! - The file counts, not its path: two databases are the same if path, device and inode are. A file that was moved away,
//!   replaced or deleted is told by `is_in_place`, which everybody asks before it is read or written.
//! - Our own connections are opened as the application's was: its VFS and its URI parameters (a key or a lock protocol may
//!   be among them), but a cache of their own.
//!
//! Not here: opening (`connection`), asking a host's connection (`api`).

use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// What stays with a file when it is renamed: device and inode. `None` where there are no such.
pub type FileId = Option<(u64, u64)>;

/// One database file.
#[derive(Debug, Clone)]
pub struct Database {
    path: PathBuf,
    file: FileId,
    vfs: Option<String>,
    parameters: Vec<(String, String)>,
}

impl PartialEq for Database {
    fn eq(&self, other: &Self) -> bool {
        (&self.path, self.file) == (&other.path, other.file)
    }
}

impl Eq for Database {}

impl Hash for Database {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.path, self.file).hash(state);
    }
}

impl Database {
    /// The file that is at `path` now, opened in the default way.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_path_buf(), file: file_id(path), vfs: None, parameters: Vec::new() }
    }

    /// The file that is at `path` now, and how an application has opened it.
    pub fn opened(path: &Path, vfs: Option<String>, parameters: Vec<(String, String)>) -> Self {
        Self { vfs, parameters, ..Self::at(path) }
    }

    /// The same, known not to be at its path any more.
    pub fn gone(self) -> Self {
        Self { file: None, ..self }
    }

    /// Its path, absolute and without symbolic links where that could be found out.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode.
    pub fn file(&self) -> FileId {
        self.file
    }

    /// The VFS it was opened with; `None`: the default.
    pub fn vfs(&self) -> Option<&str> {
        self.vfs.as_deref()
    }

    /// What `sqlite3_open_v2` is given to open the same file in the same way: a path, or a URI where there are parameters.
    pub fn name(&self) -> String {
        let passed = |key: &str| !["mode", "cache", "vfs"].contains(&key);
        let passed: Vec<_> = self.parameters.iter().filter(|(key, _)| passed(key)).collect();
        if passed.is_empty() {
            return self.path.display().to_string();
        }
        let mut uri = format!("file:{}", escaped(&self.path.display().to_string(), "/"));
        for (n, (key, value)) in passed.iter().enumerate() {
            uri.push(if n == 0 { '?' } else { '&' });
            uri.push_str(&format!("{}={}", escaped(key, ""), escaped(value, "")));
        }
        uri
    }

    /// Whether `name` is a URI.
    pub fn is_uri(&self) -> bool {
        self.name().starts_with("file:")
    }

    /// A parameter that keeps us from sharing the file: without locks, or with the promise that nobody changes it, two
    /// connections would not notice each other.
    pub fn unshareable(&self) -> Option<&str> {
        let is_on = |value: &str| !["0", "no", "off", "false"].contains(&value.to_ascii_lowercase().as_str());
        let named = |(key, value): &&(String, String)| ["nolock", "immutable"].contains(&key.as_str()) && is_on(value);
        self.parameters.iter().find(named).map(|(key, _)| key.as_str())
    }

    /// Whether the file is still the one at its path.
    pub fn is_in_place(&self) -> bool {
        match file_id(&self.path) {
            None => self.file.is_none() && self.path.exists(),
            there => there == self.file,
        }
    }

    /// An error if it is not.
    pub fn check_in_place(&self) -> Result<()> {
        if self.is_in_place() {
            return Ok(());
        }
        let now = if self.path.exists() { "another file is there now" } else { "nothing is there now" };
        Err(Error::fix(
            format!("the database file that was at {} was moved, deleted or replaced: {now}", self.path.display()),
            "nothing was lost of what was published; close the connections to the former file, open the one that you mean, and call \
             logos_publish or attach_replica on it",
        ))
    }

    /// Sizes and times of the file and of its write-ahead log: they change with every commit, and asking takes no lock.
    pub fn footprint(&self) -> Footprint {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        let of = |path: &Path| std::fs::metadata(path).ok().map(|m| (m.len(), m.modified().ok()));
        Footprint([of(&self.path), of(Path::new(&log))])
    }
}

/// What `Database::footprint` saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint([Option<(u64, Option<std::time::SystemTime>)>; 2]);

/// What files are changed at is told in steps, of four milliseconds as a rule: two changes in one step look the same.
const STEP: std::time::Duration = std::time::Duration::from_millis(20);

impl Footprint {
    /// Whether the files were last changed some time ago, so that the next change shows.
    pub fn is_settled(&self) -> bool {
        let now = std::time::SystemTime::now();
        let since = |at| now.duration_since(at).unwrap_or_else(|later| later.duration());
        self.0.iter().flatten().filter_map(|(_, changed)| *changed).all(|at| since(at) > STEP)
    }

    /// Whether there is a write-ahead log with something in it.
    pub fn has_log(&self) -> bool {
        self.0[1].as_ref().is_some_and(|log| log.0 > 0)
    }
}

/// Device and inode of what is at a path.
pub fn file_id(path: &Path) -> FileId {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Text for a URI: everything but letters, digits and what is harmless becomes %XX.
fn escaped(text: &str, also: &str) -> String {
    let mut out = String::new();
    for &byte in text.as_bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || also.as_bytes().contains(&byte);
        if plain {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_opened_as_the_application_opened_it() {
        let plain = Database::opened(Path::new("/x y/a.db"), None, vec![("cache".into(), "shared".into())]);
        assert_eq!(plain.name(), "/x y/a.db");
        let parameters = vec![("key".into(), "a b&c".into()), ("mode".into(), "rw".into())];
        let keyed = Database::opened(Path::new("/x y/a?.db"), Some("other".into()), parameters);
        assert_eq!(keyed.name(), "file:/x%20y/a%3F.db?key=a%20b%26c");
    }

    #[test]
    fn what_has_no_locks_is_not_shared() {
        let with = |key: &str, value: &str| Database::opened(Path::new("/a"), None, vec![(key.into(), value.into())]);
        assert_eq!(with("nolock", "1").unshareable(), Some("nolock"));
        assert_eq!(with("immutable", "yes").unshareable(), Some("immutable"));
        assert_eq!(with("nolock", "0").unshareable(), None);
        assert_eq!(with("psow", "1").unshareable(), None);
    }
}
