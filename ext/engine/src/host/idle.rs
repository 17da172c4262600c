//! The idle lock: our background connection to the application's file writes only while nobody has a transaction open.
//!
//! SQLite ends a transaction that has read and goes on to write with BUSY as soon as somebody else has committed in between,
//! whatever its timeout; and a writer without a timeout is BUSY as soon as somebody holds the write lock. The
//! application must meet neither because of us. Every transaction in WAL mode, of any process, begins by taking one of five
//! read locks of the wal-index (lock slots 3 to 7, SQLite's "WAL-mode file format", section 2.3.1). So we take all five,
//! exclusively and without waiting: that succeeds only if nobody has a transaction open; and as long as we hold them nobody can
//! begin one. Whoever tries meets no error, timeout or not: SQLite itself tries again until it gets a read lock. We hold them
//! for the milliseconds of one short write transaction.
//!
//! Our own transaction needs a read lock as well. Its requests for the five locks are granted without asking the
//! system, because this very file handle holds them, exclusively: our connection's file has a table of methods of its own, a copy
//! of the VFS's with another `xShmLock`.
//!
//! Invariants
//! - The locks are taken and given back while our connection is in no transaction.
//! - Nothing here waits for anybody.
//! - Without WAL the same is asked of the file's own lock: BEGIN EXCLUSIVE without a timeout.
//!
//! Not here: what is written (`capture`), when it is worth trying (`drive::publisher::builder`).

use std::cell::Cell;
use std::ffi::c_int;
use std::ops::{Deref, DerefMut};
use std::ptr;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{ffi, Connection};

use super::api::{self, file, Commits};
use super::connection;
use super::database::Database;
use crate::error::{Doing, Error, Kind, Result};

/// The slots of the five read locks among the locks of the wal-index, and how many they are.
const READ_LOCKS_AT: c_int = 3;
const READ_LOCKS: c_int = 5;

/// How often a snapshot is begun anew because somebody committed in this very moment.
const BEGIN_TRIES: usize = 8;

/// Methods of our connection's file: the VFS's, but for `xShmLock`.
#[repr(C)]
struct Methods {
    table: ffi::sqlite3_io_methods,
    original: *const ffi::sqlite3_io_methods,
    /// Whether this file handle holds all read locks exclusively.
    held: Cell<bool>,
}

/// A connection of one of our threads to the application's file.
pub struct Background {
    // Closed first: its file uses the methods below.
    conn: Connection,
    methods: Option<Box<Methods>>,
}

// SAFETY: the methods are used by calls on `conn` only, which moves along, and `conn` may be used by one thread at a time.
unsafe impl Send for Background {}

impl Deref for Background {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.conn
    }
}

impl DerefMut for Background {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.conn
    }
}

impl Background {
    /// Opens one. What it writes may be lost with the power: it is done again.
    pub fn open(database: &Database) -> Result<Self> {
        let conn = connection::open(database)?;
        let doing = || format!("opening {}", database.path().display());
        conn.pragma_update(None, "synchronous", "NORMAL").doing(doing)?;
        // Opens the file, and in WAL mode the wal-index.
        connection::cookie(&conn).doing(doing)?;
        let methods = own_methods(&conn);
        Ok(Self { conn, methods })
    }

    /// Whether closing this connection, if it is the file's last, does what closing the application's last would have done: brings
    /// the write-ahead log into the database and removes it.
    pub fn checkpoint_on_close(&self, does: bool) {
        // An interrupt that no statement has met would be met by the checkpoint; the next statement begins without it.
        let _ = self.conn.execute_batch("SELECT 1");
        // Should this fail, the log stays where it is, and whoever opens the file next reads it.
        let _ = self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !does);
    }

    /// Whether nobody, in any process, has a transaction open in this moment. (Without WAL, whoever commits keeps us from reading.)
    pub fn is_nobody_in_transaction(&self) -> bool {
        let wal = connection::journal_mode(&self.conn).is_ok_and(|mode| mode == "wal");
        !wal || self.methods.as_ref().is_some_and(|methods| ReadLocks::take(&self.conn, methods).is_some())
    }

    /// Runs `change` in a short write transaction if nobody has a transaction open. Returns whether that was so.
    pub fn when_idle(
        &self,
        doing: &dyn Fn() -> String,
        change: impl FnOnce(&Connection) -> Result<()>,
    ) -> Result<bool> {
        // Somebody may have set another journal mode: only a connection that reads finds out, and opens the wal-index.
        connection::cookie(&self.conn).doing(doing)?;
        let wal = connection::journal_mode(&self.conn).doing(doing)? == "wal";
        let locks = match (wal, &self.methods) {
            (true, Some(methods)) => match ReadLocks::take(&self.conn, methods) {
                None => return Ok(false),
                locks => locks,
            },
            (true, None) => return Ok(false),
            (false, _) => None,
        };
        self.conn.busy_timeout(Duration::ZERO).doing(doing)?;
        let written = self.write(if wal { "BEGIN IMMEDIATE" } else { "BEGIN EXCLUSIVE" }, doing, change);
        if !self.conn.is_autocommit() {
            self.conn.execute_batch("ROLLBACK").doing(doing)?;
        }
        drop(locks);
        self.conn.busy_timeout(connection::BUSY_TIMEOUT).doing(doing)?;
        written
    }

    fn write(
        &self,
        begin: &str,
        doing: &dyn Fn() -> String,
        change: impl FnOnce(&Connection) -> Result<()>,
    ) -> Result<bool> {
        let can = |sql: &str| match self.conn.execute_batch(sql).doing(doing) {
            Err(e) if e.kind == Kind::Retry => Ok(false),
            other => other.map(|()| true),
        };
        if !can(begin)? {
            return Ok(false);
        }
        change(&self.conn)?;
        can("COMMIT")
    }

    /// Begins a read transaction. Returns the count of commits up to exactly the snapshot that it shows; `None`: not known.
    pub fn begin_snapshot(&self, doing: &dyn Fn() -> String) -> Result<Option<Commits>> {
        for _ in 0..BEGIN_TRIES {
            let before = api::commits(&self.conn);
            self.conn.execute_batch("BEGIN").doing(doing)?;
            connection::cookie(&self.conn).doing(doing)?;
            let after = api::commits(&self.conn);
            if before.is_some() && before == after {
                return Ok(after);
            }
            self.conn.execute_batch("ROLLBACK").doing(doing)?;
        }
        self.conn.execute_batch("BEGIN").doing(doing)?;
        Ok(None)
    }
}

/// Gives the connection's file a table of methods of its own. `None` where the VFS has no wal-index.
fn own_methods(conn: &Connection) -> Option<Box<Methods>> {
    let file = file(conn, ffi::SQLITE_FCNTL_FILE_POINTER)?;
    // SAFETY: `file` is open, so its methods are valid. Tables of version 2 end before `xFetch`, those of version 1 before
    // `xShmMap`: nothing behind the end is read. The new table lives as long as the connection (`Background`).
    unsafe {
        let original = (*file).pMethods;
        let version = (*original).iVersion;
        if version < 2 {
            return None;
        }
        let mut table = std::mem::zeroed::<ffi::sqlite3_io_methods>();
        let all = size_of::<ffi::sqlite3_io_methods>();
        let length = if version < 3 { std::mem::offset_of!(ffi::sqlite3_io_methods, xFetch) } else { all };
        ptr::copy_nonoverlapping(original.cast::<u8>(), ptr::from_mut(&mut table).cast::<u8>(), length);
        table.iVersion = version.min(3);
        if table.xShmMap.is_none() || table.xShmLock.is_none() {
            return None;
        }
        table.xShmLock = Some(shm_lock);
        let methods = Box::new(Methods { table, original, held: Cell::new(false) });
        (*file).pMethods = ptr::from_ref(&*methods).cast();
        Some(methods)
    }
}

/// `xShmLock` of our connections' files.
unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, offset: c_int, n: c_int, flags: c_int) -> c_int {
    // SAFETY: only files that `own_methods` has given its table get here, and that begins a `Methods`.
    unsafe {
        let methods = &*(*file).pMethods.cast::<Methods>();
        let read_locks = offset >= READ_LOCKS_AT && offset + n <= READ_LOCKS_AT + READ_LOCKS;
        if methods.held.get() && read_locks {
            return ffi::SQLITE_OK;
        }
        (*methods.original).xShmLock.map_or(ffi::SQLITE_IOERR, |lock| lock(file, offset, n, flags))
    }
}

/// All read locks, held exclusively.
struct ReadLocks<'m> {
    file: *mut ffi::sqlite3_file,
    methods: &'m Methods,
}

impl<'m> ReadLocks<'m> {
    /// Takes them if nobody has any.
    fn take(conn: &Connection, methods: &'m Methods) -> Option<Self> {
        let file = file(conn, ffi::SQLITE_FCNTL_FILE_POINTER)?;
        (lock_all(file, methods, ffi::SQLITE_SHM_LOCK) == ffi::SQLITE_OK).then(|| {
            methods.held.set(true);
            Self { file, methods }
        })
    }
}

impl Drop for ReadLocks<'_> {
    fn drop(&mut self) {
        self.methods.held.set(false);
        // A failure to unlock has no remedy; the locks go with the connection.
        let _ = lock_all(self.file, self.methods, ffi::SQLITE_SHM_UNLOCK);
    }
}

fn lock_all(file: *mut ffi::sqlite3_file, methods: &Methods, how: c_int) -> c_int {
    // SAFETY: `file` is open (`ReadLocks` borrows what belongs to its connection), has a wal-index (`own_methods`), and the
    // original method is that of its VFS.
    unsafe {
        (*methods.original)
            .xShmLock
            .map_or(ffi::SQLITE_IOERR, |lock| lock(file, READ_LOCKS_AT, READ_LOCKS, how | ffi::SQLITE_SHM_EXCLUSIVE))
    }
}

/// Refuses, before anything is touched, a file whose locks would not keep our connection and the application's apart.
pub fn check_shareable(database: &Database) -> Result<()> {
    let refused = |why: String| {
        Err(Error::fix(
            format!("{} cannot be shared with a background connection: {why}", database.path().display()),
            "nothing was changed; open the file with SQLite's default locking (without that VFS or URI parameter), then call this again",
        ))
    };
    if let Some(parameter) = database.unshareable() {
        return refused(format!("it was opened with {parameter}=1, and so without locks"));
    }
    let conn = connection::open(database)?;
    match own_methods(&conn) {
        Some(methods) => {
            // The connection goes before its methods.
            drop(conn);
            drop(methods);
            Ok(())
        }
        None => refused(format!("the VFS {} has no shared memory", database.vfs().unwrap_or("in use"))),
    }
}
