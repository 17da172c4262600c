//! Our own connections to a user's database and to the sidecar.
//!
//! Invariants
//! - They are ours alone: our auto-extension passes them by (`is_ours`), so no hook of ours fires on them.
//! - They are opened as the application has opened its own: same VFS, same URI parameters (`database`); but never with a shared
//!   cache, whose table locks would be the application's.
//! - They never change what the application has set in the file, never checkpoint (the application, or Litestream,
//!   decides when), and never run the application's triggers. Closing one takes no lock (`connections::close` is the exception).

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::database::Database;
use crate::error::{Doing, Error, Result};

/// How long our connections wait for a lock, where they wait at all.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

thread_local! {
    static OPENING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is opening a connection of ours: asked by the auto-extension.
pub fn is_ours() -> bool {
    OPENING.get()
}

/// Opens a connection of ours on an application's database, which must be where it was.
pub fn open(database: &Database) -> Result<Connection> {
    database.check_in_place()?;
    let uri = if database.is_uri() { OpenFlags::SQLITE_OPEN_URI } else { OpenFlags::empty() };
    let (name, flags) = (database.name(), OpenFlags::SQLITE_OPEN_READ_WRITE | uri);
    let conn = open_with(Path::new(&name), database.vfs(), flags)?;
    let doing = || format!("opening {}", database.path().display());
    conn.pragma_update(None, "wal_autocheckpoint", 0).doing(doing)?;
    // The last to close would lock everybody out while it checkpoints.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).doing(doing)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).doing(doing)?;
    conn.pragma_update(None, "foreign_keys", false).doing(doing)?;
    conn.pragma_update(None, "ignore_check_constraints", true).doing(doing)?;
    // Between the first look and the opening it may have been replaced.
    database.check_in_place()?;
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

/// Opens a file of our own with the given flags and nothing set.
pub fn open_flags(path: &Path, flags: OpenFlags) -> Result<Connection> {
    open_with(path, None, flags)
}

fn open_with(path: &Path, vfs: Option<&str>, flags: OpenFlags) -> Result<Connection> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE;
    OPENING.set(true);
    let conn = match vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs),
        None => Connection::open_with_flags(path, flags),
    };
    OPENING.set(false);
    let conn = conn.doing(|| format!("opening {}", path.display()))?;
    conn.busy_timeout(BUSY_TIMEOUT).doing(|| format!("opening {}", path.display()))?;
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

/// The schema cookie: another one after each change of the schema.
pub fn cookie(conn: &Connection) -> rusqlite::Result<i64> {
    conn.pragma_query_value(None, "schema_version", |row| row.get(0))
}
