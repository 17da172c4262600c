//! Goal: a module that the replica's host lacks does not stop the replication of the rest (T5).
//!
//! Method: the primary is a stock shell, which has FTS5 and rtree; in this process every connection loses both as it is
//! opened. The file has one test, because that holds for the whole process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::{c_char, c_int};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::pair::attach;
use harness::rusqlite::ffi;
use harness::{open, status_of, Shell, Sql, TempDir};

/// Whether later connections keep their modules.
static MODULES: AtomicBool = AtomicBool::new(false);

unsafe extern "C" fn without_modules(
    db: *mut ffi::sqlite3,
    _: *mut *mut c_char,
    _: *const ffi::sqlite3_api_routines,
) -> c_int {
    if MODULES.load(Ordering::Relaxed) {
        return ffi::SQLITE_OK;
    }
    let names = [c"attach_replica", c"logos_status", c"logos_log"];
    let mut kept: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    kept.push(ptr::null());
    // SAFETY: the connection is being opened; the list is of C strings and ends with NULL.
    unsafe { ffi::sqlite3_drop_modules(db, kept.as_mut_ptr()) }
}

#[test]
fn a_module_that_the_replica_lacks_does_not_stop_the_rest() {
    let dir = TempDir::new();
    let mut primary = Shell::open_with_logos(&dir.file("primary.db"));
    primary.must(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE VIRTUAL TABLE d USING fts5(a);
         CREATE VIRTUAL TABLE r USING rtree(id, x, y); INSERT INTO d VALUES ('fox'); INSERT INTO r VALUES (1, 2, 3);
         CREATE VIRTUAL TABLE e USING fts5(v, content = 't', content_rowid = 'id');
         INSERT INTO t VALUES (1, 'before');",
    );
    let url = primary.must(&format!("SELECT logos_publish('{}');", dir.channel()));

    // Loaded first, so that this runs after it on every later connection.
    let first = open(&dir.file("other.db"));
    // SAFETY: the function has the signature of an extension's entry point and lives as long as the process.
    let registered = unsafe { rusqlite_auto_extension() };
    assert_eq!(registered, ffi::SQLITE_OK);
    assert_eq!(first.text("SELECT 1"), "1");
    let replica = open(&dir.file("replica.db"));
    assert!(replica.fails("CREATE VIRTUAL TABLE temp.x USING fts5(a)").contains("no such module"));
    let follow = |expected: &[&str]| {
        primary_flush_and(&replica, &url);
        assert_eq!(replica.texts("SELECT v FROM t ORDER BY id"), expected);
    };
    primary.must("SELECT logos_flush(60);");
    follow(&["before"]);
    primary.must(
        "INSERT INTO t VALUES (2, 'after'); INSERT INTO d VALUES ('bear'); UPDATE r SET y = 5; SELECT logos_flush(60);",
    );
    follow(&["before", "after"]);
    primary.must("CREATE VIRTUAL TABLE more USING fts5(a); INSERT INTO more VALUES ('x'); UPDATE t SET v = 'both'; SELECT logos_flush(60);");
    follow(&["both", "both"]);
    primary.must("DROP TABLE d; ALTER TABLE t ADD COLUMN w; ALTER TABLE more RENAME TO less; INSERT INTO less VALUES ('y'); SELECT logos_flush(60);");
    follow(&["both", "both"]);
    primary.must(
        "DROP TABLE r; DROP TABLE less; CREATE TABLE d(plain); INSERT INTO d VALUES (1); SELECT logos_flush(60);",
    );
    follow(&["both", "both"]);
    assert_eq!(replica.text("SELECT plain FROM d"), "1");
    primary.must("CREATE VIRTUAL TABLE f USING fts5(a); INSERT INTO f VALUES ('elk'); SELECT logos_flush(60);");
    primary.must(
        "INSERT INTO t(id, v) VALUES (3, 'owl'); INSERT INTO e(rowid, v) VALUES (3, 'owl'); SELECT logos_flush(60);",
    );
    follow(&["both", "both", "owl"]);
    let said = status_of(&replica, &dir.file("replica.db")).unwrap().warnings;
    assert!(said.contains("table f is left out: no such module: fts5"), "{said}");
    MODULES.store(true, Ordering::Relaxed);
    let replica = open(&dir.file("replica.db"));
    attach(&replica, &url);
    assert_eq!(replica.texts("SELECT a FROM f WHERE f MATCH 'elk'"), ["elk"]);
    assert_eq!(replica.texts("SELECT rowid FROM e WHERE e MATCH 'owl'"), ["3"]);
    assert_eq!(status_of(&replica, &dir.file("replica.db")).unwrap().warnings, "");
}

fn primary_flush_and(replica: &harness::Connection, url: &str) {
    attach(replica, url);
}

/// Registers `without_modules` for every connection opened from now on.
///
/// # Safety
/// No connection is being opened meanwhile.
unsafe fn rusqlite_auto_extension() -> c_int {
    // SAFETY: as the caller promises; SQLite keeps the pointer to a function of this program.
    unsafe { ffi::sqlite3_auto_extension(Some(without_modules)) }
}
