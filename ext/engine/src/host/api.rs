//! The few calls into SQLite that rusqlite does not wrap, each behind a safe function.
//!
//! Invariants
//! - A `Host` is only made from a live handle, and used only until its connection is taken off the list (`connections`).
//! - No statement on the host's connection outlives a call.

use std::collections::BTreeSet;
use std::ffi::{c_char, c_int, CStr};
use std::path::PathBuf;
use std::ptr;

use rusqlite::config::DbConfig;
use rusqlite::{ffi, Connection};

use super::database::Database;

/// A host's connection that lives at least as long as this value is used: the callers are SQLite's own callbacks on that connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Host(*mut ffi::sqlite3);

// SAFETY: the pointer is only a name here; it is used on the thread that SQLite called us on alone.
unsafe impl Send for Host {}

impl Host {
    /// # Safety
    /// `db` is an open connection, SQLite is calling us on it whenever the value is used, and if it was listed (`connections::add`), it
    /// is taken off the list, and its hooks are given back (`hooks::give_back`), while it closes.
    pub unsafe fn new(db: *mut ffi::sqlite3) -> Self {
        Self(db)
    }

    /// The raw handle, for installing callbacks.
    pub fn as_ptr(self) -> *mut ffi::sqlite3 {
        self.0
    }

    /// The main database, as this connection has opened it; `None` for a temporary or in-memory one.
    pub fn database(self) -> Option<Database> {
        // SAFETY: the handle is open (type invariant); names, keys and values are NUL-terminated and owned by the connection, and
        // are copied at once. What `sqlite3_db_filename` returned may be asked for URI parameters.
        unsafe {
            let name = ffi::sqlite3_db_filename(self.0, c"main".as_ptr());
            let path = text(name).filter(|path| !path.is_empty()).map(PathBuf::from)?;
            let mut parameters = Vec::new();
            for n in 0..PARAMETERS_MAX {
                let key = ffi::sqlite3_uri_key(name, n);
                let Some(text_of_key) = text(key) else { break };
                parameters.push((text_of_key, text(ffi::sqlite3_uri_parameter(name, key)).unwrap_or_default()));
            }
            let mut vfs: *mut ffi::sqlite3_vfs = ptr::null_mut();
            let main = c"main".as_ptr();
            ffi::sqlite3_file_control(self.0, main, ffi::SQLITE_FCNTL_VFS_POINTER, ptr::from_mut(&mut vfs).cast());
            let vfs = vfs.as_ref().and_then(|vfs| text(vfs.zName));
            let path = std::fs::canonicalize(&path).unwrap_or(path);
            let opened = Database::opened(&path, vfs, parameters);
            // What is at the path now is not what this connection has open.
            Some(if self.has_moved() { opened.gone() } else { opened })
        }
    }

    /// Whether the file that this connection has open is not at its path any more.
    pub fn has_moved(self) -> bool {
        let mut moved: i32 = 0;
        // SAFETY: the handle is open (type invariant); this opcode stores an int, and a VFS that does not know it stores nothing.
        unsafe {
            let main = c"main".as_ptr();
            ffi::sqlite3_file_control(self.0, main, ffi::SQLITE_FCNTL_HAS_MOVED, ptr::from_mut(&mut moved).cast());
        }
        moved != 0
    }

    /// Whether no explicit transaction is open.
    pub fn autocommit(self) -> bool {
        // SAFETY: the handle is open (type invariant).
        unsafe { ffi::sqlite3_get_autocommit(self.0) != 0 }
    }

    /// The count of commits to the main database (`commits`), while a write transaction is open on it. This is part of every commit of
    /// the application.
    pub fn commits(self) -> Option<Commits> {
        // SAFETY: the handle is open (type invariant).
        unsafe {
            let file = file_of(self.0, ffi::SQLITE_FCNTL_FILE_POINTER)?;
            // Without WAL, whoever writes has more than a shared lock on the file: then its header need not be read.
            let mut lock: c_int = -1;
            let (main, state) = (c"main".as_ptr(), ptr::from_mut(&mut lock).cast());
            let told = ffi::sqlite3_file_control(self.0, main, ffi::SQLITE_FCNTL_LOCKSTATE, state) == ffi::SQLITE_OK;
            if told && lock == ffi::SQLITE_LOCK_SHARED {
                return commits_in_wal(file);
            }
            commits_of(file)
        }
    }

    /// Whether triggers are switched off on this connection.
    pub fn triggers_are_off(self) -> bool {
        // SAFETY: the handle is open (type invariant); this `Connection` does not own it, and asks for a setting only.
        let conn = unsafe { Connection::from_handle(self.0) };
        conn.and_then(|conn| conn.db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER)).is_ok_and(|on| !on)
    }

    /// Whether a write transaction is open on the main database.
    pub fn writing(self) -> bool {
        // SAFETY: the handle is open (type invariant).
        unsafe { ffi::sqlite3_txn_state(self.0, c"main".as_ptr()) == ffi::SQLITE_TXN_WRITE }
    }

    /// Whether a transaction is open on the main database, be it one that has only read. A statement that is not finished has
    /// one in autocommit mode too.
    pub fn in_transaction(self) -> bool {
        // SAFETY: the handle is open (type invariant), and "main" is always there.
        unsafe { ffi::sqlite3_txn_state(self.0, c"main".as_ptr()) != ffi::SQLITE_TXN_NONE }
    }
}

/// URI parameters looked at; more than anybody gives.
const PARAMETERS_MAX: i32 = 100;

/// A text of SQLite's, copied; `None` for NULL and for what is not UTF-8.
///
/// # Safety
/// NULL, or NUL-terminated and valid during the call.
unsafe fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: as the caller says.
    String::from_utf8(unsafe { CStr::from_ptr(text) }.to_bytes().to_vec()).ok()
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

/// The count of commits that a file keeps itself; only differences mean something. That of the wal-index begins anew when it is made
/// again, which whoever opens the file does if nobody had it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commits {
    /// Whether it is that of the wal-index; the other one is in the file's header.
    pub wal: bool,
    /// The count.
    pub count: u32,
    /// Which write-ahead log it is of, and how many frames that has: zeros without one.
    salts: [u32; 2],
    frames: u32,
}

impl Commits {
    /// The same moment under another number.
    pub fn counted_anew(self, count: u32) -> Self {
        Self { count, ..self }
    }
}

/// Where the versions are in a database's header, and the change counter six bytes behind (SQLite's file format, section 1.3).
const VERSIONS_AT: i64 = 18;

/// The count of commits to the main database of a connection that has it open. No SQL is run, and nothing changed.
pub fn commits(conn: &Connection) -> Option<Commits> {
    let file = file(conn, ffi::SQLITE_FCNTL_FILE_POINTER)?;
    // SAFETY: `file` checked that the file is open.
    unsafe { commits_of(file) }
}

/// # Safety
/// The file is that of a main database, and open.
unsafe fn commits_of(file: *mut ffi::sqlite3_file) -> Option<Commits> {
    let mut header = [0; 10];
    // SAFETY: as the caller says; the buffer is as long as what is asked for.
    let rc = unsafe { (*(*file).pMethods).xRead.map(|read| read(file, header.as_mut_ptr().cast(), 10, VERSIONS_AT)) };
    if rc != Some(ffi::SQLITE_OK) {
        return None;
    }
    let [write, read, _, _, _, _, counter @ ..] = header;
    if (write, read) == (1, 1) {
        return Some(Commits { wal: false, count: u32::from_be_bytes(counter), salts: [0; 2], frames: 0 });
    }
    // SAFETY: as the caller says.
    unsafe { commits_in_wal(file) }
}

/// # Safety
/// The file is that of a main database in WAL mode, and open.
unsafe fn commits_in_wal(file: *mut ffi::sqlite3_file) -> Option<Commits> {
    let mut page: *mut std::ffi::c_void = ptr::null_mut();
    // SAFETY: the file is open, and its methods have this one if their version says so. The file is in WAL mode, so SQLite has mapped
    // the first part of the wal-index, which begins with two copies of its header; asked for again, it is handed out. Others write
    // there, so it is read as volatile. The words are those of SQLite's WAL format, section 2.1.
    unsafe {
        let methods = (*file).pMethods;
        let map = if (*methods).iVersion >= 2 { (*methods).xShmMap } else { None };
        let rc = map.map(|map| map(file, 0, 32_768, 0, ptr::from_mut(&mut page).cast()));
        if rc != Some(ffi::SQLITE_OK) || page.is_null() {
            return None;
        }
        let words = page.cast::<u32>();
        let copy = |at: usize| {
            let word = |n: usize| words.add(at + n).read_volatile();
            Commits { wal: true, count: word(2), salts: [word(8), word(9)], frames: word(4) }
        };
        let (first, second) = (copy(0), copy(12));
        (first == second).then_some(first)
    }
}

/// What the write-ahead log has between two counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Logged {
    /// How many commits.
    pub commits: u32,
    /// The pages that they have written; not all, if there are more than `PAGES_MAX`.
    pub pages: BTreeSet<u32>,
}

/// More pages than the statistics of a database have.
pub const PAGES_MAX: usize = 32;

/// What was committed between two counts of one file, as its write-ahead log has it; `None` where that was begun anew in between.
pub fn logged_between(conn: &Connection, from: Commits, to: Commits) -> Option<Logged> {
    /// Sizes of the log's header and of a frame's, which begins with the number of its page and the size that a commit leaves the
    /// database with: zero in a frame that ends none (SQLite's file format, sections 4.1 and 4.2).
    const LOG_HEADER: i64 = 32;
    const FRAME_HEADER: i64 = 24;
    if !(from.wal && to.wal) || from.salts != to.salts || from.frames > to.frames {
        return None;
    }
    let page: i64 = conn.pragma_query_value(None, "page_size", |row| row.get(0)).ok()?;
    let log = file(conn, ffi::SQLITE_FCNTL_JOURNAL_POINTER).filter(|_| from.frames < to.frames);
    let mut logged = Logged::default();
    for frame in i64::from(from.frames)..i64::from(to.frames) {
        let (log, mut header) = (log?, [0; 8]);
        let at = LOG_HEADER + frame * (FRAME_HEADER + page);
        // SAFETY: `file` checked that the file is open; the buffer is as long as what is asked for.
        let rc = unsafe { (*(*log).pMethods).xRead.map(|read| read(log, header.as_mut_ptr().cast(), 8, at)) };
        if rc != Some(ffi::SQLITE_OK) {
            return None;
        }
        let [a, b, c, d, size @ ..] = header;
        logged.commits += u32::from(size != [0; 4]);
        if logged.pages.len() <= PAGES_MAX {
            logged.pages.insert(u32::from_be_bytes([a, b, c, d]));
        }
    }
    Some(logged)
}

/// A file of the main database, if it is open.
pub(super) fn file(conn: &Connection, opcode: i32) -> Option<*mut ffi::sqlite3_file> {
    // SAFETY: the handle is open for as long as `conn` is borrowed.
    unsafe { file_of(conn.handle(), opcode) }
}

/// # Safety
/// The handle is open.
unsafe fn file_of(db: *mut ffi::sqlite3, opcode: i32) -> Option<*mut ffi::sqlite3_file> {
    let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
    // SAFETY: as the caller says; both opcodes in use store a `sqlite3_file *` through the pointer; its methods are NULL when it is not
    // open, which is checked.
    unsafe {
        let rc = ffi::sqlite3_file_control(db, c"main".as_ptr(), opcode, ptr::from_mut(&mut file).cast());
        let open = rc == ffi::SQLITE_OK && !file.is_null() && !(*file).pMethods.is_null();
        open.then_some(file)
    }
}

/// Version of the host's SQLite as it says itself, for example "3.40.1".
pub fn host_version() -> &'static str {
    rusqlite::version()
}

/// What users of the host's SQLite should know of it: up to 3.51.2, two connections at a checkpoint can, rarely, damage a database in
/// WAL mode; 3.50.7 and 3.44.6 have the correction too.
pub fn warning_of_version() -> Option<String> {
    let (version, corrected) =
        (rusqlite::version_number(), [3_044_006..3_045_000, 3_050_007..3_051_000, 3_051_003..i32::MAX]);
    if corrected.iter().any(|from| from.contains(&version)) {
        return None;
    }
    Some(format!(
        "SQLite {} has a bug that can damage a database in WAL mode (https://sqlite.org/wal.html#walresetbug): upgrade to 3.51.3",
        host_version()
    ))
}
