//! Goal: builds of SQLite that leave functions out (better-sqlite3 has no progress handler) are served, or told what is missing.
//!
//! Method: the extension's entry point is called as SQLite calls it, with a copy of SQLite's function table in which some places
//! are NULL. Each test has a process of its own, and so loads the extension once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;

use harness::files::extension;
use harness::pair::{attach, flush, publish};
use harness::rusqlite::ffi;
use harness::{assert_equal, open_plain, Connection, Sql, TempDir};

/// Functions of SQLite 3.34.1, in the order in which they stand in its table; newer ones have more behind them.
const FUNCTIONS: usize = 253;

/// Places in the table.
const COLUMN_DECLTYPE: usize = 25;
const COMMIT_HOOK: usize = 40;
const ENABLE_SHARED_CACHE: usize = 51;
const PROGRESS_HANDLER: usize = 75;
const ROLLBACK_HOOK: usize = 90;
const SET_AUTHORIZER: usize = 91;
const UPDATE_HOOK: usize = 100;
const CREATE_MODULE_V2: usize = 119;
const BIND_ZEROBLOB: usize = 120;
const THREADSAFE: usize = 144;
const TRACE_V2: usize = 214;

type Table = [*const c_void; FUNCTIONS];
type Entry = unsafe extern "C" fn(*mut ffi::sqlite3, *mut *mut c_char, *const Table) -> c_int;

/// The table of the SQLite that the tests run on, as it gives it to whatever is loaded.
fn table() -> Table {
    static TABLE: Mutex<usize> = Mutex::new(0);
    unsafe extern "C" fn keep(
        _: *mut ffi::sqlite3,
        _: *mut *mut c_char,
        table: *const ffi::sqlite3_api_routines,
    ) -> c_int {
        *TABLE.lock().unwrap() = table as usize;
        0
    }
    // SAFETY: the table is as long as `Table` or longer, and lives as long as the library.
    unsafe {
        ffi::sqlite3_auto_extension(Some(keep));
        drop(Connection::open_in_memory().unwrap());
        ffi::sqlite3_reset_auto_extension();
        *(*TABLE.lock().unwrap() as *const Table)
    }
}

/// Loads the extension with such a table; the reason, if it refuses.
fn load(conn: &Connection, table: &Table) -> Result<(), String> {
    let file = CString::new(extension().as_os_str().as_bytes()).unwrap();
    let mut error = std::ptr::null_mut();
    // SAFETY: the extension's entry point, called as SQLite does; the table lives for as long as SQLite's own would.
    unsafe {
        let library = libc::dlopen(file.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        let entry = std::mem::transmute::<*mut c_void, Entry>(libc::dlsym(library, c"sqlite3_logos_init".as_ptr()));
        match entry(conn.handle(), &mut error, Box::leak(Box::new(*table))) {
            ffi::SQLITE_OK | ffi::SQLITE_OK_LOAD_PERMANENTLY => Ok(()),
            _ => Err(CStr::from_ptr(error).to_string_lossy().into_owned()),
        }
    }
}

fn primary(path: &Path) -> Connection {
    let conn = open_plain(path);
    conn.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, x''), (2, 'text'), (3, NULL)");
    conn
}

/// The connection has the extension by itself, as every later one of the process.
fn replicate(primary: &Connection, url: &str, path: &Path) -> Connection {
    let replica = open_plain(path);
    flush(primary);
    attach(&replica, url);
    assert_equal(primary, &replica);
    replica
}

#[test]
fn a_build_that_leaves_functions_out_publishes_and_replicates() {
    let dir = TempDir::new();
    let mut table = table();
    for absent in [PROGRESS_HANDLER, SET_AUTHORIZER, BIND_ZEROBLOB, COLUMN_DECLTYPE, ENABLE_SHARED_CACHE, TRACE_V2] {
        table[absent] = std::ptr::null();
    }
    let conn = primary(&dir.file("primary.db"));
    load(&conn, &table).unwrap();
    let url = publish(&conn, &dir.channel());
    conn.run("UPDATE t SET v = x'' WHERE id = 2; INSERT INTO t VALUES (4, zeroblob(3))");
    let replica = replicate(&conn, &url, &dir.file("replica.db"));
    assert_eq!(replica.text("SELECT group_concat(typeof(v)) FROM t"), "blob,blob,null,blob");
    conn.run("SELECT logos_remove()");
}

#[test]
fn a_build_without_hooks_publishes_by_polling_and_says_so() {
    let dir = TempDir::new();
    let mut table = table();
    for absent in [UPDATE_HOOK, COMMIT_HOOK, ROLLBACK_HOOK] {
        table[absent] = std::ptr::null();
    }
    let conn = primary(&dir.file("primary.db"));
    load(&conn, &table).unwrap();
    let url = publish(&conn, &dir.channel());
    conn.run("INSERT INTO t VALUES (4, 'later')");
    replicate(&conn, &url, &dir.file("replica.db"));
    let warnings = harness::status::warnings(&conn, "primary");
    assert!(warnings.contains("polling"), "{warnings}");
}

#[test]
fn what_cannot_be_done_without_is_named_when_loading() {
    let mut table = table();
    table[CREATE_MODULE_V2] = std::ptr::null();
    let conn = Connection::open_in_memory().unwrap();
    let refused = load(&conn, &table).unwrap_err();
    assert!(
        refused.contains("built without sqlite3_create_module_v2") && refused.contains("nothing was loaded"),
        "{refused}"
    );
    assert!(conn.query_row("SELECT logos_version()", [], |_| Ok(())).is_err());
}

#[test]
fn a_build_for_one_thread_is_told_so_when_loading() {
    unsafe extern "C" fn no() -> c_int {
        0
    }
    let mut table = table();
    table[THREADSAFE] = no as *const c_void;
    let refused = load(&Connection::open_in_memory().unwrap(), &table).unwrap_err();
    assert!(refused.contains("one thread only") && refused.contains("nothing was loaded"), "{refused}");
}
