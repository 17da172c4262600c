//! Errors as the user of a shell reads them: what happened, that nothing was lost, what to do next.
//!
//! Every error belongs to one of four kinds by what the caller does next; SQLite codes, and later C status codes
//! and exception classes, follow from the kind alone.

use std::fmt;

use logos_log::error::LogError;

/// What the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Try again: it passes by itself.
    Retry,
    /// Change something: a path, a permission, an argument, a version.
    Fix,
    /// The two ends no longer agree: rebuild one from the other.
    Resync,
    /// Report it.
    Bug,
}

impl Kind {
    /// The word for it in `logos_status`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Fix => "fix",
            Self::Resync => "resync",
            Self::Bug => "bug",
        }
    }
}

/// One error: a sentence and a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What the caller does next.
    pub kind: Kind,
    /// What happened, and where.
    pub message: String,
    /// What was kept, and what to do.
    pub hint: String,
    /// SQLite's own code, where one says more than the kind.
    pub code: Option<i32>,
    /// Something is not there yet, or damaged: looking again costs little, and mends it once it is whole.
    pub waits: bool,
}

/// Result with this module's error.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that passes by itself.
    pub fn retry(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Kind::Retry, message, hint)
    }

    /// Something is not there yet, or damaged, and whoever looks again goes on by itself once it is whole.
    pub fn waiting(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { waits: true, ..Self::retry(message, hint) }
    }

    /// An error that the user removes.
    pub fn fix(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Kind::Fix, message, hint)
    }

    /// The two ends disagree.
    pub fn resync(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Kind::Resync, message, hint)
    }

    /// A defect of ours.
    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(Kind::Bug, message, "nothing was lost; please report this with the text above")
    }

    fn new(kind: Kind, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: hint.into(), code: None, waits: false }
    }

    /// The same with a code of SQLite's own.
    pub fn with_code(self, code: i32) -> Self {
        Self { code: Some(code), ..self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "logos: {}\n  hint: {}", self.message, self.hint)
    }
}

impl std::error::Error for Error {}

impl From<Error> for rusqlite::Error {
    fn from(e: Error) -> Self {
        let code = match e.kind {
            Kind::Retry => rusqlite::ffi::SQLITE_BUSY,
            Kind::Fix | Kind::Resync => rusqlite::ffi::SQLITE_ERROR,
            Kind::Bug => rusqlite::ffi::SQLITE_INTERNAL,
        };
        let code = e.code.unwrap_or(code);
        // SQLite's messages end at a NUL, which a name that the message repeats may hold.
        Self::SqliteFailure(rusqlite::ffi::Error::new(code), Some(e.to_string().replace('\0', "\u{2400}")))
    }
}

/// Says what was being done when a lower layer failed.
pub trait Doing<T> {
    /// `what` completes the sentence "… failed": "reading the log of app.db".
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for std::result::Result<T, rusqlite::Error> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        use rusqlite::ErrorCode as Code;
        self.map_err(|e| {
            let (kind, hint) = match e.sqlite_error_code() {
                Some(Code::DatabaseBusy | Code::DatabaseLocked | Code::SchemaChanged) => {
                    (Kind::Retry, "another connection holds a lock; try again when it is done")
                }
                Some(Code::DiskFull) => (Kind::Fix, "nothing was lost; free some disk space, the rest goes by itself"),
                Some(
                    Code::ReadOnly | Code::CannotOpen | Code::PermissionDenied | Code::AuthorizationForStatementDenied,
                ) => (
                    Kind::Fix,
                    "check the path and that this process may write the file and its folder, then try again",
                ),
                Some(Code::SystemIoFailure) => {
                    (Kind::Fix, "nothing was published that is not on disk; check the disk and its permissions")
                }
                Some(Code::DatabaseCorrupt | Code::NotADatabase) => (
                    Kind::Fix,
                    "the file is damaged or not a database; run PRAGMA integrity_check and restore it if need be",
                ),
                Some(Code::OperationInterrupted) => (Kind::Retry, "it was interrupted; try again to go on"),
                Some(Code::OutOfMemory) => {
                    (Kind::Retry, "memory ran out; a transaction of ours that was open was rolled back, try again")
                }
                _ => (
                    Kind::Fix,
                    "a transaction of ours that was open was rolled back; mend what is named above, then try again",
                ),
            };
            let code = e.sqlite_error_code().and_then(harmless_code);
            Error { code, ..Error::new(kind, format!("{} failed: {e}", what()), hint) }
        })
    }
}

/// The code for an error of SQLite's that a function of ours may pass on. Others make SQLite do something to the caller's own
/// transaction: after FULL, IOERR or NOMEM it is rolled back, after CORRUPT the connection does not write any more, after SCHEMA the
/// statement begins again; and CONSTRAINT makes ORMs try again for ever.
fn harmless_code(code: rusqlite::ErrorCode) -> Option<i32> {
    use rusqlite::{ffi, ErrorCode as Code};
    match code {
        Code::DatabaseBusy | Code::DatabaseLocked => Some(ffi::SQLITE_BUSY),
        Code::ReadOnly => Some(ffi::SQLITE_READONLY),
        Code::CannotOpen => Some(ffi::SQLITE_CANTOPEN),
        Code::PermissionDenied => Some(ffi::SQLITE_PERM),
        Code::AuthorizationForStatementDenied => Some(ffi::SQLITE_AUTH),
        Code::NotADatabase => Some(ffi::SQLITE_NOTADB),
        _ => None,
    }
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| {
            let hint = match e.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "nothing was lost; give this process the permission, the rest goes by itself"
                }
                std::io::ErrorKind::NotFound => "nothing was lost; check the path: it can go on once it is there",
                std::io::ErrorKind::StorageFull => "nothing was lost; free some disk space, the rest goes by itself",
                _ => "nothing was lost; mend what the system names above, the rest goes by itself",
            };
            let code = match e.kind() {
                std::io::ErrorKind::PermissionDenied => Some(rusqlite::ffi::SQLITE_PERM),
                _ => None,
            };
            Error { code, ..Error::retry(format!("{} failed: {e}", what()), hint) }
        })
    }
}

impl<T> Doing<T> for std::result::Result<T, LogError> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| {
            let (kind, hint) = match &e {
                LogError::NewerFormat { .. } => {
                    (Kind::Fix, "nothing was applied and the position is kept; upgrade logos on this machine, then try again")
                }
                LogError::WrongSigner { .. } | LogError::WrongChannel { .. } => {
                    (Kind::Fix, "nothing was applied; only if you trust that key, name its channel in the URL instead")
                }
                LogError::KeysChanged { .. } => {
                    (Kind::Resync, "everything before it was applied and nothing after it is; ask the publisher for the channel that goes on")
                }
                LogError::WrongParent { .. } | LogError::WrongSequence { .. } => {
                    (Kind::Resync, "nothing of it was applied; the author has signed two histories of this channel, so a second writer has its sidecar: keep the channel as evidence, stop one of them, then attach a new file to the right one")
                }
                LogError::Misplaced { .. } => {
                    (Kind::Retry, "nothing of it was applied and the position is kept; it goes on by itself once the entry that is due is there. If that never comes, the channel was begun anew or has two writers: attach a new file")
                }
                LogError::Stream { .. } => (Kind::Retry, "nothing was lost; it is tried again"),
                _ => (Kind::Fix, "nothing of it was applied and the position is kept; fetch the channel again from a good copy, then try again"),
            };
            let waits = matches!(e, LogError::Misplaced { .. });
            Error { waits, ..Error::new(kind, format!("{} failed: {e}", what()), hint) }
        })
    }
}
