//! Our own connections to a user's database and to the sidecar.
//!
//! Invariants
//! - They are ours alone: our auto-extension passes them by (`is_ours`), so no hook of ours fires on them.
//! - They never change what the application has set in the file, never checkpoint (the application, or Litestream,
//!   decides when), and never run the application's triggers. Closing one takes no lock (`registry::close` is the exception).

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::{Doing, Error, Result};

thread_local! {
    static OPENING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is opening a connection of ours: asked by the auto-extension.
pub fn is_ours() -> bool {
    OPENING.get()
}

/// Opens a connection of ours on an existing database file.
pub fn open(path: &Path) -> Result<Connection> {
    let conn = open_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let doing = || format!("opening {}", path.display());
    conn.pragma_update(None, "wal_autocheckpoint", 0).doing(doing)?;
    // The last to close would lock everybody out while it checkpoints.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).doing(doing)?;
    // Generated columns and index expressions of the application may use functions SQLite calls unsafe in a schema.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).doing(doing)?;
    conn.pragma_update(None, "foreign_keys", false).doing(doing)?;
    conn.pragma_update(None, "ignore_check_constraints", true).doing(doing)?;
    Ok(conn)
}

/// Makes an empty database file.
pub fn create(path: &Path) -> Result<()> {
    open_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE).map(drop)
}

/// Opens an empty in-memory database of ours.
pub fn open_memory() -> Result<Connection> {
    open_flags(Path::new(":memory:"), OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)
}

/// Opens a connection of ours with the given flags and nothing set.
pub fn open_flags(path: &Path, flags: OpenFlags) -> Result<Connection> {
    OPENING.set(true);
    let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX);
    OPENING.set(false);
    let conn = conn.doing(|| format!("opening {}", path.display()))?;
    conn.busy_timeout(Duration::from_secs(5)).doing(|| format!("opening {}", path.display()))?;
    Ok(conn)
}

/// Switches a database to WAL mode. Fails where it cannot be had, with the reason.
pub fn switch_to_wal(conn: &Connection, path: &Path) -> Result<()> {
    let mode: String = conn
        .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
        .doing(|| format!("switching {} to WAL mode", path.display()))?;
    if mode.eq_ignore_ascii_case("wal") {
        return Ok(());
    }
    Err(Error::fix(
        format!("{} cannot be switched to WAL mode (it stays in mode {mode})", path.display()),
        "nothing was changed; in other modes a background reader makes the application's commits fail with BUSY. \
         Put the file on a local disk, or accept that with {\"journal\":\"keep\"}",
    ))
}

/// The journal mode of a database, in lower case.
pub fn journal_mode(conn: &Connection) -> rusqlite::Result<String> {
    conn.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0)).map(|m| m.to_lowercase())
}
