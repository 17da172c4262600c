//! Removal of a sidecar, which must not happen under a publisher that lives.
//!
//! Invariants
//! - Whoever publishes holds the sidecar's lock. Removal takes it first, and refuses if somebody else has it.
//! - A sidecar that is missing or cannot be read keeps nobody from removing: nobody can publish from it either.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{path_of, with_suffix, FILES};
use crate::error::{Doing, Error, Result};
use crate::host::connection;

/// A sidecar that is to be removed, and that nobody publishes from meanwhile.
pub struct Removal {
    path: PathBuf,
    /// Holds its lock, if there is a sidecar.
    lock: Option<Connection>,
}

impl Removal {
    /// Takes the lock.
    pub fn begin(database: &Path) -> Result<Self> {
        let path = path_of(database);
        match lock(&path) {
            Err(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Err(Error::fix(
                format!("another process publishes {}", database.display()),
                "nothing was removed; SELECT logos_stop() there first, or wait until that process has ended",
            )),
            lock => Ok(Self { path, lock: lock.ok() }),
        }
    }

    /// Removes the files.
    pub fn finish(self) -> Result<()> {
        // Where open files cannot be removed the lock ends before.
        let _lock = self.lock.filter(|_| cfg!(unix));
        for file in FILES.map(|suffix| with_suffix(&self.path, suffix)) {
            match std::fs::remove_file(&file) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(e).doing(|| format!("removing {}", file.display()))
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Opens a sidecar under its exclusive lock. Closing it then touches no file: by that time somebody may have made new ones.
fn lock(path: &Path) -> std::result::Result<Connection, ErrorCode> {
    let locked = || {
        let conn = connection::open_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).ok()?;
        let taken = conn
            .busy_timeout(Duration::from_millis(500))
            .and_then(|()| conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true))
            .and_then(|_| conn.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT"));
        Some(taken.map(|()| conn).map_err(|e| e.sqlite_error_code().unwrap_or(ErrorCode::Unknown)))
    };
    locked().unwrap_or(Err(ErrorCode::CannotOpen))
}
