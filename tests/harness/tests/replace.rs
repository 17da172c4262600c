//! Goal: REPLACE deletes rows that no trigger sees; the replica loses the same rows (T4).
//!
//! Method: every kind of UNIQUE index that SQLite knows, alone and several at once, in every order relative to the publisher,
//! with recursive triggers on and off; the replacing row is then left, changed again or deleted in the same message.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::{c_char, c_int, c_void, CStr};

use harness::pair::{flush, try_attach};
use harness::rusqlite::ffi;
use harness::{in_every_order, wait_until, Pair, Sql};

/// Each scenario with recursive triggers off and on.
fn either_way(setup: &str, steps: &[&str]) {
    for recursive in ["OFF", "ON"] {
        in_every_order(&format!("PRAGMA recursive_triggers = {recursive}; {setup}"), steps);
    }
}

const PLAIN: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v, w, UNIQUE(v, w));
    WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 30) INSERT INTO t SELECT i, 'u' || i, 'v' || i, i FROM c;";

#[test]
fn the_new_row_may_vanish_or_change_again_in_its_own_transaction() {
    either_way(
        PLAIN,
        &[
            "BEGIN; REPLACE INTO t VALUES (1, 'x', 'x', 0); DELETE FROM t WHERE id = 1; COMMIT",
            "BEGIN; REPLACE INTO t VALUES (100, 'u2', 'x', 1); DELETE FROM t WHERE id = 100; COMMIT",
            "BEGIN; REPLACE INTO t VALUES (101, 'x3', 'v3', 3); UPDATE t SET u = 'gone', v = 'gone' WHERE id = 101; COMMIT",
            "BEGIN; REPLACE INTO t VALUES (102, 'u4', 'v5', 5); UPDATE t SET id = 6 - 6, u = NULL WHERE id = 102; COMMIT",
            "BEGIN; REPLACE INTO t VALUES (7, 'u8', 'v9', 9); REPLACE INTO t VALUES (8, 'u7', 'v7', 7); DELETE FROM t WHERE u = 'u8'; COMMIT",
            "BEGIN; UPDATE OR REPLACE t SET u = 'u10' WHERE id = 11; DELETE FROM t WHERE id = 11; COMMIT",
            "BEGIN; UPDATE OR REPLACE t SET v = 'v12', w = 12 WHERE id = 13; UPDATE t SET v = NULL WHERE id = 13; COMMIT",
            "BEGIN; UPDATE OR REPLACE t SET id = 14 WHERE id = 15; UPDATE t SET id = 200 WHERE id = 14; COMMIT",
            "BEGIN; UPDATE OR REPLACE t SET id = 16, u = 'u17', v = 'v18', w = 18 WHERE id = 19; COMMIT",
            "UPDATE OR REPLACE t SET u = 'same' WHERE id BETWEEN 20 AND 25",
            "BEGIN; SAVEPOINT s; REPLACE INTO t VALUES (26, 'u27', 'v28', 28); ROLLBACK TO s; RELEASE s; COMMIT",
            "INSERT OR REPLACE INTO t SELECT id + 1, u, v, w FROM t WHERE id BETWEEN 26 AND 29 ORDER BY id DESC",
        ],
    );
}

#[test]
fn an_index_over_generated_columns_deletes_alike_when_what_they_are_computed_from_is_set() {
    either_way(
        "CREATE TABLE t(k TEXT PRIMARY KEY, n, e AS (abs(n)) VIRTUAL UNIQUE, f AS (e + 1) STORED, g AS (f * 2 + length(k)), x, UNIQUE (g));
         INSERT INTO t VALUES ('a', 1, 'x'), ('b', 2, 'x'), ('c', 3, 'x'), ('dd', 10, 'x');",
        &[
            "UPDATE OR REPLACE t SET n = n + 1",
            "INSERT INTO t VALUES ('e', 5, NULL), ('f', 6, NULL), ('g', 7, NULL)",
            "UPDATE OR REPLACE t SET n = -6 WHERE k = 'e'",
            "BEGIN; UPDATE OR REPLACE t SET n = -7 WHERE k = 'e'; UPDATE t SET n = 20 WHERE k = 'e'; COMMIT",
            "REPLACE INTO t VALUES ('h', -20, 1)",
            "UPDATE OR REPLACE t SET x = 2",
        ],
    );
}

#[test]
fn an_index_over_values_computed_from_a_default_in_the_place_of_null_deletes_alike() {
    either_way(
        "CREATE TABLE t(k INTEGER PRIMARY KEY, n REAL NOT NULL DEFAULT 1, s TEXT NOT NULL DEFAULT 12, e AS (length(n)) VIRTUAL UNIQUE);
         CREATE UNIQUE INDEX i ON t(s || '!', n) WHERE length(s) < 5; INSERT INTO t VALUES (1, 1.5, 'a'), (2, 1.25, 'b');",
        &[
            "REPLACE INTO t VALUES (3, NULL, 'c')",
            "REPLACE INTO t VALUES (4, 100.5, NULL), (5, 100.5, NULL)",
            "BEGIN; REPLACE INTO t VALUES (6, NULL, NULL); DELETE FROM t WHERE k = 6; COMMIT",
            "UPDATE OR REPLACE t SET s = NULL, n = NULL",
        ],
    );
}

#[test]
fn an_index_over_values_computed_from_an_automatic_key() {
    for key in ["INTEGER PRIMARY KEY", "INTEGER PRIMARY KEY AUTOINCREMENT"] {
        let setup = format!(
            "CREATE TABLE t(a {key}, d, e AS (length(a)) VIRTUAL UNIQUE, f TEXT AS (e || coalesce(d, '')) STORED UNIQUE);
             CREATE TABLE x(a {key}, b, c); CREATE UNIQUE INDEX i ON x(a / 3, b) WHERE a % 5 > 0;
             INSERT INTO t(a, d) VALUES (1, 7), (10, 8); INSERT INTO x VALUES (3, 1, 'three'), (5, 1, 'five');"
        );
        either_way(
            &setup,
            &[
                "DELETE FROM t WHERE a = 10; INSERT OR REPLACE INTO t DEFAULT VALUES",
                "REPLACE INTO t(d) VALUES (1)",
                "REPLACE INTO t(a) VALUES (99)",
                "REPLACE INTO t(d) VALUES ('x'), ('y')",
                "BEGIN; REPLACE INTO t(d) VALUES ('z'); DELETE FROM t WHERE d = 'z'; COMMIT",
                "DELETE FROM t; REPLACE INTO t(a) VALUES (-1); REPLACE INTO t DEFAULT VALUES; REPLACE INTO t(a) VALUES (-1)",
                "REPLACE INTO x(b, c) VALUES (1, 'six'), (1, 'seven'), (1, 'eight'), (1, 'nine'), (2, 'ten'), (2, 'eleven')",
                "REPLACE INTO x VALUES (-1, 1, 'below'); REPLACE INTO x(b) VALUES (2); UPDATE OR REPLACE x SET a = a + 1 WHERE a > 9",
                "ALTER TABLE x RENAME COLUMN a TO \"the key\"",
                "REPLACE INTO x(b) VALUES (2), (2), (3)",
                "ALTER TABLE x RENAME TO \"it's\"",
                "REPLACE INTO \"it's\"(b) VALUES (2), (3)",
            ],
        );
    }
}

#[test]
fn the_new_row_may_vanish_or_change_again_in_later_transactions() {
    either_way(
        PLAIN,
        &[
            "REPLACE INTO t VALUES (100, 'u2', 'v3', 3)",
            "UPDATE t SET u = 'changed', v = 'changed' WHERE id = 100",
            "REPLACE INTO t VALUES (2, 'changed', 'v4', 4)",
            "DELETE FROM t WHERE id = 2",
            "UPDATE OR REPLACE t SET u = 'u5' WHERE id = 6",
            "UPDATE t SET id = 300 WHERE u = 'u5'",
            "INSERT INTO t VALUES (5, 'u6', 'v5', 5)",
            "REPLACE INTO t VALUES (300, 'u6', 'v7', 7); INSERT INTO t VALUES (5, 'back', 'v5', 5)",
            "DELETE FROM t",
            "REPLACE INTO t VALUES (1, 'u1', 'v1', 1), (2, 'u1', 'v1', 1), (1, 'u1', 'v2', 2)",
        ],
    );
}

#[test]
fn partial_and_expression_indexes_delete_alike() {
    either_way(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n, gone INTEGER DEFAULT 0, g AS (n * 2) STORED, gv AS (lower(name)) VIRTUAL);
         CREATE UNIQUE INDEX alive ON t(name) WHERE gone = 0 AND name IS NOT NULL;
         CREATE UNIQUE INDEX expr ON t(n % 100, substr(name, 1, 1)) WHERE n > 0;
         CREATE UNIQUE INDEX computed ON t(g) WHERE n < 0;
         CREATE UNIQUE INDEX virtual ON t(gv, n) WHERE n IS NULL OR n <> 7;
         CREATE TABLE j(id TEXT PRIMARY KEY, doc); CREATE UNIQUE INDEX json ON j(json_extract(doc, '$.mail') COLLATE NOCASE);
         INSERT INTO t(id, name, n) VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), (4, NULL, 4), (5, 'e', -5), (6, 'f', NULL);
         INSERT INTO t(id, name, n, gone) VALUES (10, 'a', 11, 1), (11, 'b', 12, 1);
         INSERT INTO j VALUES ('one', '{\"mail\":\"A@x\"}'), ('two', '{\"mail\":\"b@x\"}'), ('three', '{}');",
        &[
            "REPLACE INTO t(id, name, n) VALUES (20, 'a', 50)",
            "REPLACE INTO t(id, name, n, gone) VALUES (21, 'b', 51, 1)",
            "UPDATE OR REPLACE t SET gone = 0 WHERE id = 11",
            "REPLACE INTO t(id, name, n) VALUES (22, 'cc', 103)",
            "UPDATE OR REPLACE t SET n = 151 WHERE name = 'cc'",
            "REPLACE INTO t(id, name, n) VALUES (23, 'new', -5)",
            "REPLACE INTO t(id, name, n) VALUES (24, 'F', NULL), (25, 'f', NULL)",
            "REPLACE INTO t(id, name, n) VALUES (26, 'x', 7), (27, 'X', 7), (28, NULL, NULL), (29, NULL, NULL)",
            "REPLACE INTO j VALUES ('four', '{\"mail\":\"a@X\"}'); UPDATE OR REPLACE j SET doc = '{\"mail\":\"B@X\"}' WHERE id = 'three'",
            "BEGIN; REPLACE INTO j VALUES ('five', '{\"mail\":\"b@x\"}'); DELETE FROM j WHERE id = 'five'; COMMIT",
        ],
    );
}

#[test]
fn nocase_and_rtrim_indexes_delete_alike() {
    either_way(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, mail TEXT COLLATE NOCASE UNIQUE, tag TEXT);
         CREATE UNIQUE INDEX tags ON t(tag COLLATE RTRIM DESC); CREATE TABLE k(name TEXT COLLATE NOCASE PRIMARY KEY, n UNIQUE);
         CREATE TABLE w(name TEXT COLLATE NOCASE, part, n UNIQUE, PRIMARY KEY(part, name)) WITHOUT ROWID;
         INSERT INTO t VALUES (1, 'A', 'one'), (2, 'b', 'two  '), (3, 'ç', 'three'), (4, NULL, NULL);
         INSERT INTO k VALUES ('Anna', 1), ('berta', 2); INSERT INTO w VALUES ('Anna', 1, 1), ('berta', 1, 2);",
        &[
            "REPLACE INTO t VALUES (10, 'a', 'ten')",
            "REPLACE INTO t VALUES (11, 'x', 'two')",
            "UPDATE OR REPLACE t SET mail = 'Ç', tag = 'three ' WHERE id = 11",
            "REPLACE INTO k VALUES ('ANNA', 2); REPLACE INTO w VALUES ('ANNA', 1, 2)",
            "BEGIN; REPLACE INTO k VALUES ('anna', 9); UPDATE k SET name = 'other' WHERE n = 9; COMMIT",
            "UPDATE OR REPLACE w SET name = 'BERTA'",
        ],
    );
}

#[test]
fn a_row_replaced_by_its_rowid_beside_another_key_is_gone_on_the_replica() {
    either_way(
        "CREATE TABLE k(name TEXT PRIMARY KEY, n); INSERT INTO k(rowid, name, n) VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), (4, 'd', 4);
         CREATE TABLE h(n); INSERT INTO h(rowid, n) VALUES (1, 1), (2, 2);",
        &[
            "REPLACE INTO k(rowid, name, n) VALUES (1, 'new', 9)",
            "UPDATE OR REPLACE k SET rowid = 2 WHERE name = 'c'",
            "UPDATE OR REPLACE k SET _rowid_ = 2, name = 'd' WHERE name = 'new'",
            "REPLACE INTO h(oid, n) VALUES (1, 5); UPDATE OR REPLACE h SET rowid = 1 WHERE n = 2",
            "BEGIN; REPLACE INTO k(rowid, name, n) VALUES (2, 'last', 1); DELETE FROM k WHERE name = 'last'; COMMIT",
        ],
    );
}

#[test]
fn defaults_in_the_place_of_null_replace_too() {
    either_way(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT NOT NULL ON CONFLICT REPLACE DEFAULT 'none' UNIQUE ON CONFLICT REPLACE, b);
         CREATE TABLE c(name TEXT NOT NULL ON CONFLICT REPLACE DEFAULT 'none' PRIMARY KEY ON CONFLICT REPLACE, b) WITHOUT ROWID;
         CREATE TABLE d(name TEXT NOT NULL DEFAULT 'none', b NOT NULL DEFAULT (1 + 1), UNIQUE(name, b));
         INSERT INTO t VALUES (1, 'none', 1), (2, 'other', 2); INSERT INTO c VALUES ('none', 1), ('other', 2); INSERT INTO d VALUES ('none', 2), ('x', 3);",
        &[
            "INSERT INTO t VALUES (3, NULL, 3)",
            "UPDATE t SET a = NULL WHERE id = 2",
            "INSERT INTO c VALUES (NULL, 3)",
            "UPDATE c SET name = NULL WHERE name = 'other'",
            "INSERT OR REPLACE INTO d VALUES (NULL, NULL)",
            "INSERT OR REPLACE INTO d(b) VALUES (NULL)",
            "UPDATE OR REPLACE d SET name = NULL, b = NULL WHERE name = 'x'",
        ],
    );
}

#[test]
fn replace_with_triggers_of_the_application_deletes_alike() {
    either_way(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, n DEFAULT 0); CREATE TABLE child(t REFERENCES t(id) ON DELETE CASCADE, v);
         CREATE TABLE gone(id); CREATE TRIGGER t_gone AFTER DELETE ON t BEGIN INSERT INTO gone VALUES (OLD.id); END;
         CREATE TRIGGER t_before BEFORE INSERT ON t BEGIN UPDATE t SET n = n + 1 WHERE u = NEW.u; END;
         CREATE TRIGGER t_after AFTER INSERT ON t WHEN NEW.u = 'chain' BEGIN REPLACE INTO t(id, u) VALUES (NEW.id + 1, 'link'); END;
         INSERT INTO t(id, u) VALUES (1, 'a'), (2, 'b'), (3, 'c'), (50, 'link'); INSERT INTO child VALUES (1, 'x'), (2, 'y'), (2, 'z');",
        &[
            "REPLACE INTO t(id, u) VALUES (1, 'b')",
            "REPLACE INTO t(id, u) VALUES (9, 'chain')",
            "UPDATE OR REPLACE t SET u = 'c' WHERE id = 1; DELETE FROM t WHERE id = 1",
            "INSERT INTO t(id, u) VALUES (70, 'link') ON CONFLICT(u) DO UPDATE SET n = n + 100",
        ],
    );
}

/// Letters without dashes, in any case.
unsafe extern "C" fn loosely(_: *mut c_void, n: c_int, a: *const c_void, m: c_int, b: *const c_void) -> c_int {
    // SAFETY: SQLite passes both texts with their lengths.
    let texts = unsafe {
        [(a, n), (b, m)].map(|(text, length)| {
            let bytes: &[u8] = if length == 0 { &[] } else { std::slice::from_raw_parts(text.cast(), length as usize) };
            bytes.iter().filter(|byte| **byte != b'-').map(u8::to_ascii_lowercase).collect::<Vec<_>>()
        })
    };
    texts[0].cmp(&texts[1]) as c_int
}

unsafe extern "C" fn with_loosely(
    db: *mut ffi::sqlite3,
    _: *mut *mut c_char,
    _: *const ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: the connection is being opened.
    unsafe { collation(db, c"LOOSELY") }
}

unsafe extern "C" fn with_private(
    db: *mut ffi::sqlite3,
    _: *mut *mut c_char,
    _: *const ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: the connection is being opened.
    unsafe { collation(db, c"PRIVATE") }
}

/// Registers `loosely` under a name.
///
/// # Safety
/// The connection is open.
unsafe fn collation(db: *mut ffi::sqlite3, name: &CStr) -> c_int {
    // SAFETY: as the caller promises; the function lives as long as the process.
    unsafe {
        ffi::sqlite3_create_collation_v2(db, name.as_ptr(), ffi::SQLITE_UTF8, std::ptr::null_mut(), Some(loosely), None)
    }
}

const LOOSE: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, phone TEXT COLLATE LOOSELY UNIQUE, n);
    CREATE TABLE k(phone TEXT COLLATE LOOSELY PRIMARY KEY, n); CREATE UNIQUE INDEX loose ON k(n COLLATE LOOSELY);
    CREATE TABLE w(phone TEXT COLLATE LOOSELY PRIMARY KEY, n) WITHOUT ROWID;
    INSERT INTO t VALUES (1, '12-34', 1), (2, '5-6', 2), (3, 'Ab', 3); INSERT INTO k VALUES ('12-34', 'a-b'), ('56', 'c');
    INSERT INTO w VALUES ('12-34', 1), ('56', 2);";

/// The application registers its collation for every connection of the process. (The other tests do not mind.)
#[test]
fn indexes_with_a_collation_of_the_application_delete_alike() {
    // SAFETY: SQLite keeps a pointer to a function of this program, which has the signature of an entry point.
    assert_eq!(unsafe { ffi::sqlite3_auto_extension(Some(with_loosely)) }, ffi::SQLITE_OK);
    either_way(
        LOOSE,
        &[
            "REPLACE INTO t VALUES (10, '1-2-3-4', 5)",
            "UPDATE OR REPLACE t SET phone = 'a-B' WHERE id = 2",
            "REPLACE INTO k VALUES ('1-234', 'x'); REPLACE INTO w VALUES ('1-234', 'x')",
            "REPLACE INTO k VALUES ('77', '-C-'); DELETE FROM k WHERE phone = '77'",
            "UPDATE k SET phone = '123-4'; UPDATE w SET phone = '123-4' WHERE phone = '1234'",
        ],
    );
}

fn only_here(conn: &harness::Connection) {
    conn.create_collation("PRIVATE", |a: &str, b: &str| a.to_lowercase().cmp(&b.to_lowercase())).unwrap();
}

/// A key under a collation that our connection lacks: writes go on, the status names it, and the rest arrives once it is gone.
#[test]
fn a_key_under_a_collation_that_only_the_application_has_is_named_in_the_status() {
    let pair = Pair::of("CREATE TABLE plain(id INTEGER PRIMARY KEY, v); INSERT INTO plain VALUES (1, 'x')");
    pair.check();
    only_here(&pair.primary);
    pair.run("CREATE TABLE t(a TEXT COLLATE PRIVATE PRIMARY KEY, n); INSERT INTO t VALUES ('A', 1), ('b', 2)");
    let warnings = || harness::status::warnings(&pair.primary, "primary");
    // Its rows cannot be looked up by such a key, so it is sent whole; the rest goes on as ever.
    wait_until("the status names table and collation", || {
        pair.run("REPLACE INTO t VALUES ('a', 3); UPDATE t SET n = n + 1; INSERT OR IGNORE INTO plain VALUES (2, 'y')");
        flush(&pair.primary);
        warnings().contains("PRIVATE") && warnings().contains("t ")
    });
    assert_eq!(pair.primary.int("SELECT count(*) FROM t"), 2);
    pair.run("DROP TABLE t; INSERT INTO plain VALUES (3, 'z')");
    flush(&pair.primary);
    wait_until("the status is clear again", || warnings().is_empty());
    pair.check();
}

/// A replica needs the collation for the index; what it lacks is left out by name, and comes when it has it.
#[test]
fn a_replica_that_lacks_a_collation_leaves_the_table_out_until_it_has_it() {
    let pair = Pair::of("CREATE TABLE plain(id INTEGER PRIMARY KEY, v); INSERT INTO plain VALUES (1, 'x')");
    let replica = pair.check();
    only_here(&pair.primary);
    pair.run("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT COLLATE PRIVATE UNIQUE); INSERT INTO t VALUES (1, 'A'), (2, 'b')");
    pair.run("REPLACE INTO t VALUES (3, 'a'); UPDATE t SET a = a || '!'; INSERT INTO plain VALUES (2, 'y')");
    flush(&pair.primary);
    try_attach(&replica, &pair.url, None).unwrap();
    let warnings = harness::status::warnings(&replica, "replica");
    assert!(warnings.contains("PRIVATE"), "{warnings}");
    assert_eq!(replica.int("SELECT count(*) FROM plain"), 2);
    assert_eq!(replica.int("SELECT count(*) FROM sqlite_schema WHERE name = 't'"), 0);
    // SAFETY: as above.
    assert_eq!(unsafe { ffi::sqlite3_auto_extension(Some(with_private)) }, ffi::SQLITE_OK);
    let replica = pair.check();
    assert_eq!(replica.texts("SELECT a FROM t ORDER BY a"), ["a!", "b!"]);
}
