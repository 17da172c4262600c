//! The few calls into SQLite that rusqlite does not wrap, each behind a safe function.
//!
//! Invariants
//! - A `Host` is only made from a live handle, and used only while its registry entry exists (see `registry`).
//! - No statement on the host's connection outlives a call.

use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::ptr;

use rusqlite::{ffi, Connection};

use super::collation::StandIn;

/// A host's connection that lives at least as long as this value is used: the callers are SQLite's own callbacks on
/// that connection, or hold the registry lock that its closing must take (`registry`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Host(*mut ffi::sqlite3);

// SAFETY: the pointer is only a name here; every use of it is either on the thread that SQLite called us on, or under
// the registry lock and the connection's own mutex (`Host::try_lock`).
unsafe impl Send for Host {}

impl Host {
    /// # Safety
    /// `db` is an open connection, and stays open for as long as the value is used.
    pub unsafe fn new(db: *mut ffi::sqlite3) -> Self {
        Self(db)
    }

    /// The raw handle, for installing callbacks.
    pub fn as_ptr(self) -> *mut ffi::sqlite3 {
        self.0
    }

    /// Path of the main database; `None` for a temporary or in-memory one.
    pub fn path(self) -> Option<PathBuf> {
        // SAFETY: the handle is open (type invariant); the name is NUL-terminated and owned by the connection, and we
        // copy it at once.
        let name = unsafe {
            let name = ffi::sqlite3_db_filename(self.0, c"main".as_ptr());
            if name.is_null() {
                return None;
            }
            CStr::from_ptr(name).to_bytes().to_vec()
        };
        if name.is_empty() {
            return None;
        }
        let path = PathBuf::from(String::from_utf8(name).ok()?);
        Some(std::fs::canonicalize(&path).unwrap_or(path))
    }

    /// Whether no explicit transaction is open.
    pub fn autocommit(self) -> bool {
        // SAFETY: the handle is open (type invariant).
        unsafe { ffi::sqlite3_get_autocommit(self.0) != 0 }
    }

    /// The count of commits to the main database (`commits`).
    pub fn commits(self) -> Option<Commits> {
        // SAFETY: the handle is open (type invariant); this `Connection` does not own it, and runs no SQL.
        commits(&unsafe { Connection::from_handle(self.0) }.ok()?)
    }

    /// Whether a write transaction is open on the main database.
    pub fn writing(self) -> bool {
        // SAFETY: the handle is open (type invariant).
        unsafe { ffi::sqlite3_txn_state(self.0, c"main".as_ptr()) == ffi::SQLITE_TXN_WRITE }
    }

    /// Whether a transaction is open on the main database, be it one that has only read. A statement that is not finished has
    /// one in autocommit mode too.
    pub fn in_transaction(self) -> bool {
        // SAFETY: the handle is open (type invariant), and "main" is always there. The call takes the connection's mutex, so
        // callers are on its thread, hold that mutex, or know that there is none. Then it is a glance like `autocommit`: reads
        // of words that live as long as the connection, unless its thread attaches a third database in this very instant.
        unsafe { ffi::sqlite3_txn_state(self.0, c"main".as_ptr()) != ffi::SQLITE_TXN_NONE }
    }

    /// Takes the connection's own mutex if nobody has it: then no other thread is inside a call on it.
    pub fn try_lock(self) -> TryLock {
        // SAFETY: the handle is open (type invariant), so its mutex is valid.
        unsafe {
            let mutex = ffi::sqlite3_db_mutex(self.0);
            if mutex.is_null() {
                TryLock::NoMutex
            } else if ffi::sqlite3_mutex_try(mutex) == ffi::SQLITE_OK {
                TryLock::Held(HostLock(mutex))
            } else {
                TryLock::Busy
            }
        }
    }
}

/// What came of trying to take a connection's mutex.
pub enum TryLock {
    /// It is ours until dropped.
    Held(HostLock),
    /// Somebody is in a call on the connection.
    Busy,
    /// The connection has none (SQLITE_OPEN_NOMUTEX, single-thread builds): nothing can be known from here.
    NoMutex,
}

/// The mutex of a host's connection, held.
pub struct HostLock(*mut ffi::sqlite3_mutex);

impl Drop for HostLock {
    fn drop(&mut self) {
        // SAFETY: made by `try_lock` on this thread, which took the mutex; the connection is still open, because whoever
        // holds a `HostLock` also holds the registry lock that closing needs.
        unsafe { ffi::sqlite3_mutex_leave(self.0) }
    }
}

/// Makes what a connection has read durable, through SQLite's own file handles. (Opening and closing the files ourselves
/// would drop SQLite's POSIX locks.)
#[derive(Debug, Default)]
pub struct Sync {
    /// Salts of the write-ahead log at the last sync: they change when it is started over.
    salts: Option<[u8; 8]>,
}

/// Where the salts are in the header of a write-ahead log (SQLite's file format, section 4.1).
const SALTS_AT: i64 = 16;

impl Sync {
    /// Syncs the write-ahead log (or journal). The database file only when the log was started over since the last sync: then
    /// frames may have moved there, and a writer with `synchronous = OFF` syncs neither.
    pub fn sync(&mut self, conn: &Connection) -> Result<(), String> {
        let log = file(conn, ffi::SQLITE_FCNTL_JOURNAL_POINTER);
        let salts = log.and_then(|log| {
            let mut salts = [0; 8];
            // SAFETY: `file` checked that the file is open; the buffer is as long as what is asked for.
            let rc = unsafe { (*(*log).pMethods).xRead.map(|read| read(log, salts.as_mut_ptr().cast(), 8, SALTS_AT)) };
            (rc == Some(ffi::SQLITE_OK)).then_some(salts)
        });
        let database = file(conn, ffi::SQLITE_FCNTL_FILE_POINTER);
        let same = salts.is_some() && salts == self.salts;
        for file in [log, database.filter(|_| !same)].into_iter().flatten() {
            // SAFETY: `file` checked that the file is open; it belongs to the connection, which is borrowed.
            let rc =
                unsafe { (*(*file).pMethods).xSync.map_or(ffi::SQLITE_OK, |sync| sync(file, ffi::SQLITE_SYNC_NORMAL)) };
            if rc != ffi::SQLITE_OK {
                return Err(format!("SQLite error {rc}"));
            }
        }
        self.salts = salts;
        Ok(())
    }
}

/// The count of commits that a file keeps itself; only differences mean something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commits {
    /// Whether it is that of the wal-index; the other one is in the file's header.
    pub wal: bool,
    /// The count.
    pub count: u32,
}

/// Where the versions are in a database's header, and the change counter six bytes behind (SQLite's file format, section 1.3).
const VERSIONS_AT: i64 = 18;

/// The count of commits to the main database of a connection that has it open. No SQL is run, and nothing changed.
pub fn commits(conn: &Connection) -> Option<Commits> {
    let file = file(conn, ffi::SQLITE_FCNTL_FILE_POINTER)?;
    let mut header = [0; 10];
    // SAFETY: `file` checked that the file is open; the buffer is as long as what is asked for.
    let rc = unsafe { (*(*file).pMethods).xRead.map(|read| read(file, header.as_mut_ptr().cast(), 10, VERSIONS_AT)) };
    if rc != Some(ffi::SQLITE_OK) {
        return None;
    }
    let [write, read, _, _, _, _, counter @ ..] = header;
    if (write, read) == (1, 1) {
        return Some(Commits { wal: false, count: u32::from_be_bytes(counter) });
    }
    let mut page: *mut std::ffi::c_void = ptr::null_mut();
    // SAFETY: the file is open, and its methods have this one if their version says so. The file is in WAL mode, so SQLite has mapped
    // the first part of the wal-index, which begins with two copies of its header; asked for again, it is handed out. Others write
    // there, so it is read as volatile. The count is the third word (SQLite's WAL format, section 2.1).
    unsafe {
        let methods = (*file).pMethods;
        let map = if (*methods).iVersion >= 2 { (*methods).xShmMap } else { None };
        let rc = map.map(|map| map(file, 0, 32_768, 0, ptr::from_mut(&mut page).cast()));
        if rc != Some(ffi::SQLITE_OK) || page.is_null() {
            return None;
        }
        let words = page.cast::<u32>();
        let (first, second) = (words.add(2).read_volatile(), words.add(12 + 2).read_volatile());
        (first == second).then_some(Commits { wal: true, count: first })
    }
}

/// A file of the main database, if it is open.
fn file(conn: &Connection, opcode: i32) -> Option<*mut ffi::sqlite3_file> {
    let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
    // SAFETY: the handle is open for as long as `conn` is borrowed; both opcodes in use store a `sqlite3_file *` through the
    // pointer; its methods are NULL when it is not open, which is checked.
    unsafe {
        let rc = ffi::sqlite3_file_control(conn.handle(), c"main".as_ptr(), opcode, ptr::from_mut(&mut file).cast());
        let open = rc == ffi::SQLITE_OK && !file.is_null() && !(*file).pMethods.is_null();
        open.then_some(file)
    }
}

/// Version of the host's SQLite as it says itself, for example "3.40.1".
pub fn host_version() -> &'static str {
    rusqlite::version()
}

/// What is called when a connection is asked for a collation that it does not have.
type CollationNeeded = fn(&Connection, &str);

/// Has `needed` called when a statement names a collation that the connection does not have.
pub fn on_collation_needed(conn: &Connection, needed: CollationNeeded) {
    unsafe extern "C" fn call(needed: *mut c_void, db: *mut ffi::sqlite3, _: c_int, name: *const c_char) {
        let _ = catch_unwind(|| {
            // SAFETY: the argument is the function given below; SQLite passes the open connection and a NUL-terminated name, and
            // the `Connection` made here does not own the handle.
            let (needed, conn, name) = unsafe {
                (
                    std::mem::transmute::<*mut c_void, CollationNeeded>(needed),
                    Connection::from_handle(db),
                    CStr::from_ptr(name),
                )
            };
            if let (Ok(conn), Ok(name)) = (conn, name.to_str()) {
                needed(&conn, name);
            }
        });
    }
    // SAFETY: the handle is open for as long as `conn` is borrowed; `call` has the signature asked for, no panic leaves it, and its
    // argument is a function of this library, which stays loaded.
    unsafe { ffi::sqlite3_collation_needed(conn.handle(), needed as *mut c_void, Some(call)) };
}

/// Registers a collation.
pub fn create_collation(conn: &Connection, name: &str, stand_in: StandIn) -> rusqlite::Result<()> {
    unsafe fn compare(stand_in: StandIn, n: c_int, a: *const c_void, m: c_int, b: *const c_void) -> c_int {
        let compared = catch_unwind(|| {
            let text = |start: *const c_void, n: c_int| match usize::try_from(n) {
                // SAFETY: SQLite passes the text and its length.
                Ok(n) if n > 0 => unsafe { std::slice::from_raw_parts(start.cast::<u8>(), n) },
                _ => &[],
            };
            stand_in.compare(text(a, n), text(b, m)) as c_int
        });
        compared.unwrap_or(0)
    }
    macro_rules! callback {
        ($stand_in:ident) => {{
            unsafe extern "C" fn call(_: *mut c_void, n: c_int, a: *const c_void, m: c_int, b: *const c_void) -> c_int {
                // SAFETY: the arguments are SQLite's own.
                unsafe { compare(StandIn::$stand_in, n, a, m, b) }
            }
            call
        }};
    }
    let call: unsafe extern "C" fn(_, _, _, _, _) -> c_int = match stand_in {
        StandIn::Binary => callback!(Binary),
        StandIn::Nocase => callback!(Nocase),
        StandIn::Rtrim => callback!(Rtrim),
    };
    set_collation(conn, name, Some(call))
}

/// Takes a collation away.
pub fn remove_collation(conn: &Connection, name: &str) -> rusqlite::Result<()> {
    set_collation(conn, name, None)
}

type Compare = unsafe extern "C" fn(*mut c_void, c_int, *const c_void, c_int, *const c_void) -> c_int;

fn set_collation(conn: &Connection, name: &str, compare: Option<Compare>) -> rusqlite::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the handle is open for as long as `conn` is borrowed; the function lives as long as this library, and takes no
    // argument that would have to.
    let rc = unsafe {
        let (flags, none) = (ffi::SQLITE_UTF8, ptr::null_mut());
        ffi::sqlite3_create_collation_v2(conn.handle(), name.as_ptr(), flags, none, compare, None)
    };
    match rc {
        ffi::SQLITE_OK => Ok(()),
        rc => Err(rusqlite::Error::SqliteFailure(ffi::Error::new(rc), None)),
    }
}
