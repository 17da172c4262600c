//! Goal: one table, index, view or trigger that cannot be taken over is left out by name, with the reason in the status; the rest
//! goes on, and it comes back by itself with all its rows.
//!
//! Method: a function and a collation that the application registers on its own connections only, as in most languages; `everywhere`
//! registers them for every later connection of the process, ours included. (Each test is a process of its own.)
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use harness::pair::{attach, try_attach};
use harness::rusqlite::ffi;
use harness::{assert_equal, open, status_of, Connection, Pair, Sql};

unsafe extern "C" fn twice(context: *mut ffi::sqlite3_context, _: c_int, arguments: *mut *mut ffi::sqlite3_value) {
    // SAFETY: SQLite calls a function of one argument with one.
    unsafe { ffi::sqlite3_result_int64(context, ffi::sqlite3_value_int64(*arguments).wrapping_mul(2)) }
}

unsafe extern "C" fn unicase(_: *mut c_void, n: c_int, a: *const c_void, m: c_int, b: *const c_void) -> c_int {
    // SAFETY: SQLite says how long the two texts are.
    let (a, b) = unsafe {
        (std::slice::from_raw_parts(a.cast::<u8>(), n as usize), std::slice::from_raw_parts(b.cast::<u8>(), m as usize))
    };
    let lower = |text: &[u8]| String::from_utf8_lossy(text).to_lowercase();
    lower(a).cmp(&lower(b)) as c_int
}

unsafe extern "C" fn teach_handle(
    db: *mut ffi::sqlite3,
    _: *mut *mut c_char,
    _: *const ffi::sqlite3_api_routines,
) -> c_int {
    let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_DETERMINISTIC;
    // SAFETY: the connection is open; both functions have the signatures asked for and live as long as the process.
    unsafe {
        ffi::sqlite3_create_function_v2(
            db,
            c"twice".as_ptr(),
            1,
            flags,
            ptr::null_mut(),
            Some(twice),
            None,
            None,
            None,
        );
        ffi::sqlite3_create_collation_v2(
            db,
            c"unicase".as_ptr(),
            ffi::SQLITE_UTF8,
            ptr::null_mut(),
            Some(unicase),
            None,
        )
    }
}

/// The function and the collation on one connection.
fn teach(conn: &Connection) {
    // SAFETY: the connection is open.
    unsafe { teach_handle(conn.handle(), ptr::null_mut(), ptr::null()) };
}

/// The same on all that are opened from now on.
fn everywhere() {
    // SAFETY: it has the signature of an extension's entry point and lives as long as the process.
    unsafe { ffi::sqlite3_auto_extension(Some(teach_handle)) };
}

/// A pair whose application knows the function and the collation, and nobody else.
fn taught(script: &str) -> Pair {
    let pair = Pair::new();
    teach(&pair.primary);
    pair.run("CREATE TABLE other(id INTEGER PRIMARY KEY, v)");
    pair.run(script);
    pair
}

/// Brings the replica up to date; everything but `left_out` must have arrived.
fn follow(pair: &Pair) -> Connection {
    pair.run("INSERT INTO other(v) VALUES (random()); SELECT logos_flush(60)");
    let replica = open(&pair.replica_path());
    attach(&replica, &pair.url);
    let all = "SELECT group_concat(id || ':' || v) FROM other";
    assert_eq!(replica.text(all), pair.primary.text(all));
    replica
}

fn warnings(pair: &Pair, replica: &Connection) -> String {
    status_of(replica, &pair.replica_path()).unwrap().warnings
}

#[test]
fn a_table_whose_function_the_replica_lacks_is_left_out_by_name_and_comes_back_with_its_rows() {
    let pair =
        taught("CREATE TABLE t(id INTEGER PRIMARY KEY, n UNIQUE, d AS (twice(n)) STORED); CREATE INDEX i ON t(d)");
    pair.run("CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END; CREATE VIEW w AS SELECT * FROM t");
    pair.run("INSERT INTO t(id, n) VALUES (1, 10), (2, 20), (3, 30)");
    let replica = follow(&pair);
    let said = warnings(&pair, &replica);
    assert!(said.contains("table t is left out: no such function: twice"), "{said}");
    assert!(said.contains("index i is left out") && said.contains("trigger g is left out"), "{said}");
    pair.run("UPDATE t SET n = -n; DELETE FROM t WHERE id = 2; UPDATE t SET id = 9 WHERE id = 3");
    follow(&pair);
    everywhere();
    let replica = open(&pair.replica_path());
    assert_equal(&pair.primary, &follow(&pair));
    assert_eq!(warnings(&pair, &replica), "");
    assert_eq!(replica.texts("SELECT d FROM t ORDER BY id"), ["-20", "-60"]);
    pair.run("UPDATE t SET n = 5 WHERE id = 1");
    assert_equal(&pair.primary, &follow(&pair));
    assert!(replica.fails("DELETE FROM t").contains("read-only replica"));
}

#[test]
fn a_function_that_no_row_needs_leaves_nothing_out() {
    let pair = taught("CREATE TABLE t(id INTEGER PRIMARY KEY, n, e DEFAULT (twice(4)), CHECK (twice(n) > 1))");
    pair.run("INSERT INTO t(n) VALUES (1), (2); CREATE VIEW w AS SELECT twice(n) FROM t");
    let replica = follow(&pair);
    assert_eq!(warnings(&pair, &replica), "");
    pair.run("ALTER TABLE t RENAME COLUMN n TO m; ALTER TABLE t ADD COLUMN f; UPDATE t SET m = 3 WHERE id = 2");
    let replica = follow(&pair);
    teach(&replica);
    assert_equal(&pair.primary, &replica);
}

#[test]
fn what_is_left_out_can_be_altered_and_dropped_on_the_primary() {
    let pair = taught("CREATE TABLE t(id INTEGER PRIMARY KEY, d AS (twice(id)) STORED); INSERT INTO t(id) VALUES (1)");
    pair.run("CREATE INDEX x ON other(twice(v))");
    follow(&pair);
    for step in [
        "ALTER TABLE t ADD COLUMN a",
        "ALTER TABLE t RENAME TO u",
        "ALTER TABLE other ADD COLUMN more",
        "INSERT INTO u(a) VALUES (7)",
        "CREATE TABLE plain(a); INSERT INTO plain VALUES (1)",
        "DROP TABLE u; CREATE TABLE u(a); INSERT INTO u VALUES (8)",
        "DROP INDEX x",
    ] {
        pair.run(step);
        follow(&pair);
    }
    let replica = follow(&pair);
    assert_eq!(warnings(&pair, &replica), "");
    assert_equal(&pair.primary, &replica);
}

/// Writes a text into the schema as tools do that know what they do, or not.
fn write_schema(pair: &Pair, change: &str) {
    pair.run(&format!(
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET {change}; PRAGMA writable_schema = RESET"
    ));
    // Nobody would look at the schema again otherwise.
    pair.run("CREATE TABLE look(a); DROP TABLE look");
}

#[test]
fn rows_that_only_the_replica_refuses_leave_their_table_out_until_they_fit() {
    let pair = taught("CREATE TABLE s(id INTEGER PRIMARY KEY, n INT); INSERT INTO s VALUES (1, 'x'), (2, 2)");
    write_schema(&pair, "sql = sql || ' STRICT' WHERE name = 's'");
    let replica = follow(&pair);
    let said = warnings(&pair, &replica);
    assert!(said.contains("table s is left out: cannot store TEXT value in INT column s.n"), "{said}");
    pair.run("UPDATE s SET n = 1 WHERE id = 1; DELETE FROM s WHERE id = 2");
    follow(&pair);
    let replica = follow(&pair);
    assert_equal(&pair.primary, &replica);
    assert_eq!(warnings(&pair, &replica), "");
}

#[test]
fn a_text_that_sqlite_would_have_written_otherwise_arrives_as_it_is() {
    let pair = taught("CREATE TABLE s(id INTEGER PRIMARY KEY, n); CREATE INDEX i ON s(n); INSERT INTO s VALUES (1, 2)");
    write_schema(&pair, "sql = replace(sql, 'CREATE', 'create  ') || '  ' WHERE name IN ('s', 'i')");
    assert_equal(&pair.primary, &follow(&pair));
    pair.run("INSERT INTO s VALUES (2, 3)");
    assert_equal(&pair.primary, &follow(&pair));
}

/// The warnings of the publisher, and the names of what a replica made from the channel has.
fn published(pair: &Pair) -> (String, Vec<String>) {
    let replica = follow(pair);
    let names = "SELECT name FROM sqlite_schema WHERE name NOT LIKE '\\_logos%' ESCAPE '\\' AND name NOT LIKE 'sqlite%' ORDER BY name";
    (status_of(&pair.primary, &pair.primary_path()).unwrap().warnings, replica.texts(names))
}

const LATIN: &str =
    "sql = substr(sql, 1, instr(sql, '~') - 1) || CAST(x'e9' AS TEXT) || substr(sql, instr(sql, '~') + 1)";

#[test]
fn a_schema_text_that_is_not_utf8_leaves_its_object_out_until_it_is() {
    let pair = taught("CREATE TABLE t(a /* ~ */, b); CREATE INDEX ti ON t(b); INSERT INTO t VALUES (1, 2)");
    pair.run("CREATE VIEW v AS SELECT '~'; CREATE INDEX i ON other(v /* ~ */)");
    pair.run("CREATE TRIGGER g AFTER INSERT ON other BEGIN SELECT '~'; END; CREATE INDEX whole ON other(id, v)");
    assert_eq!(published(&pair).1, ["g", "i", "other", "t", "ti", "v", "whole"]);
    pair.run("CREATE TEMP TABLE saved AS SELECT name AS n, sql AS s FROM sqlite_schema WHERE sql LIKE '%~%'");
    write_schema(&pair, &format!("{LATIN} WHERE sql LIKE '%~%'"));
    let (said, names) = published(&pair);
    assert_eq!(names, ["other", "whole"], "{said}");
    for object in ["table t", "view v", "index i", "trigger g"] {
        assert!(said.contains(&format!("{object} is left out: its text in the schema is not UTF-8")), "{said}");
    }
    pair.run("INSERT INTO t VALUES (3, 4)");
    write_schema(&pair, "sql = (SELECT s FROM temp.saved WHERE n = name) WHERE name IN (SELECT n FROM temp.saved)");
    let replica = follow(&pair);
    assert_equal(&pair.primary, &replica);
    assert_eq!(published(&pair).0, "");
}

#[test]
fn a_name_that_is_not_utf8_leaves_its_table_out() {
    let pair = taught("CREATE TABLE bad(a); CREATE TABLE t(bad, b)");
    write_schema(
        &pair,
        "name = CAST(x'626164e9' AS TEXT), tbl_name = CAST(x'626164e9' AS TEXT),
         sql = CAST('CREATE TABLE \"' || x'626164e9' || '\"(a)' AS TEXT) WHERE name = 'bad'",
    );
    write_schema(&pair, "sql = CAST('CREATE TABLE t(\"' || x'e9' || '\", b)' AS TEXT) WHERE name = 't'");
    let (said, names) = published(&pair);
    assert_eq!(names, ["other"], "{said}");
    assert!(said.contains("table t is left out"), "{said}");
}

#[test]
fn a_loop_of_generated_columns_leaves_its_table_out_until_it_is_none() {
    let whole = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b AS (a) STORED UNIQUE)";
    let pair = taught(&format!("{whole}; INSERT INTO t(id, a) VALUES (1, 2)"));
    assert_eq!(published(&pair).1.last().unwrap(), "t");
    write_schema(&pair, &format!("sql = replace('{whole}', ' a,', ' a AS (b),') WHERE name = 't'"));
    let (said, names) = published(&pair);
    assert_eq!(names, ["other"], "{said}");
    assert!(said.contains("table t is left out: generated column loop on"), "{said}");
    write_schema(&pair, &format!("sql = '{whole}' WHERE name = 't'"));
    assert_equal(&pair.primary, &follow(&pair));
}

#[test]
fn a_virtual_table_whose_own_tables_are_gone_is_left_out_and_comes_back() {
    let pair = taught("CREATE VIRTUAL TABLE d USING fts5(a); CREATE VIRTUAL TABLE r USING rtree(id, x, y)");
    pair.run("INSERT INTO d VALUES ('fox'); INSERT INTO r VALUES (1, 2, 3)");
    assert_eq!(published(&pair).1.first().unwrap(), "d");
    pair.run("CREATE TABLE saved AS SELECT * FROM d_content; DROP TABLE d_content; DROP TABLE r_rowid");
    let (said, names) = published(&pair);
    assert_eq!(names, ["other", "saved"], "{said}");
    assert!(said.contains("table d is left out") && said.contains("table r is left out"), "{said}");
    pair.run("CREATE TABLE d_content(id INTEGER PRIMARY KEY, c0); INSERT INTO d_content SELECT * FROM saved");
    assert_eq!(follow(&pair).texts("SELECT a FROM d WHERE d MATCH 'fox'"), ["fox"]);
}

#[test]
fn collations_that_only_the_application_has_stop_no_publishing() {
    let pair = taught(
        "CREATE TABLE tags(tag TEXT NOT NULL PRIMARY KEY COLLATE unicase, n) WITHOUT ROWID;
         CREATE TABLE f(id INTEGER PRIMARY KEY, name TEXT COLLATE unicase); CREATE TABLE g(id INTEGER PRIMARY KEY, n);
         CREATE INDEX gi ON g(n COLLATE unicase); CREATE TABLE k(a TEXT COLLATE unicase PRIMARY KEY, b)",
    );
    pair.run(
        "INSERT INTO tags VALUES ('É', 1), ('b', 2); INSERT INTO f VALUES (1, 'A'); INSERT INTO g VALUES (1, 'A')",
    );
    pair.run("INSERT INTO k VALUES ('Ö', 1)");
    let replica = follow(&pair);
    for rows in ["SELECT name FROM f", "SELECT n FROM g"] {
        assert_eq!(replica.texts(rows), pair.primary.texts(rows));
    }
    let said = warnings(&pair, &replica);
    for object in ["table tags", "index gi", "table k"] {
        assert!(said.contains(&format!("{object} is left out: no such collation sequence: unicase")), "{said}");
    }
    let said = status_of(&pair.primary, &pair.primary_path()).unwrap().warnings;
    assert!(said.contains("table tags is sent whole") && said.contains("collation unicase"), "{said}");
    // Changed by the application's idea of a key, which moves rows that are not its bytes.
    pair.run("UPDATE tags SET tag = 'é' WHERE tag = 'É'; REPLACE INTO k VALUES ('ö', 2); UPDATE f SET name = 'B'; DELETE FROM tags WHERE tag = 'B'");
    follow(&pair);
    everywhere();
    let replica = open(&pair.replica_path());
    assert_equal(&pair.primary, &follow(&pair));
    assert_eq!(warnings(&pair, &replica), "");
}

#[test]
fn a_stand_in_that_the_user_names_brings_a_table_back_and_stays_with_the_replica() {
    let pair = taught("CREATE TABLE tags(tag TEXT NOT NULL PRIMARY KEY COLLATE unicase, n) WITHOUT ROWID");
    pair.run("CREATE INDEX i ON other(v COLLATE unicase); INSERT INTO tags VALUES ('A', 1), ('b', 2)");
    assert!(warnings(&pair, &follow(&pair)).contains(r#"{"collations":{"unicase":"nocase"}}"#));
    let replica = open(&pair.replica_path());
    try_attach(&replica, &pair.url, Some(r#"{"collations":{"unicase":"nocase"}}"#)).unwrap();
    teach(&replica);
    assert_equal(&pair.primary, &replica);
    pair.run(
        "UPDATE tags SET tag = 'a' WHERE tag = 'A'; DELETE FROM tags WHERE tag = 'B'; INSERT INTO tags VALUES ('c', 3)",
    );
    let replica = follow(&pair);
    assert_eq!(warnings(&pair, &replica), "");
    teach(&replica);
    assert_equal(&pair.primary, &replica);
    let other = try_attach(&replica, &pair.url, Some(r#"{"collations":{"unicase":"binary"}}"#)).unwrap_err();
    assert!(other.to_string().contains("nocase stands for collation unicase"), "{other}");
    let unknown = try_attach(&replica, &pair.url, Some(r#"{"collations":{"unicase":"german"}}"#)).unwrap_err();
    assert!(unknown.to_string().contains("nocase"), "{unknown}");
}

#[test]
fn a_publisher_takes_stand_ins_so_that_both_sides_may_have_the_same_options_and_does_nothing_with_them() {
    let pair = taught("CREATE TABLE tags(tag TEXT NOT NULL PRIMARY KEY COLLATE unicase, n) WITHOUT ROWID");
    let publish = |collations: &str| {
        let url = pair.dir.channel();
        pair.primary.try_texts(&format!("SELECT logos_publish('{url}', '{{\"collations\": {{{collations}}}}}')"))
    };
    for collations in [r#""unicase": "nocase""#, "", r#""unicase": "binary", "other": "rtrim""#] {
        assert_eq!(publish(collations).unwrap(), [pair.url.as_str()]);
    }
    let unknown = publish(r#""unicase": "german""#).unwrap_err().to_string();
    assert!(unknown.contains("german") && unknown.contains("nocase"), "{unknown}");
    pair.run("SELECT logos_stop()");
    publish(r#""unicase": "nocase""#).unwrap();
    pair.run("INSERT INTO tags VALUES ('a', 1)");
    // Still: nothing is looked up by the stand-in, and a replica that is given none has none.
    assert!(warnings(&pair, &follow(&pair)).contains("table tags is left out: no such collation sequence: unicase"));
}

#[test]
fn a_fresh_replica_in_utf16_takes_a_stand_in_from_its_first_message() {
    let dir = harness::TempDir::new();
    let primary = open(&dir.file("primary.db"));
    teach(&primary);
    primary.run("PRAGMA encoding = 'UTF-16be'; CREATE TABLE t(k TEXT PRIMARY KEY COLLATE unicase, v) WITHOUT ROWID");
    primary.run("CREATE TABLE plain(id INTEGER PRIMARY KEY, name COLLATE unicase); INSERT INTO plain VALUES (1, 'é')");
    let url = harness::pair::publish(&primary, &dir.channel());
    primary.run("INSERT INTO t VALUES ('B', 1), ('a', 2); SELECT logos_flush(60)");
    let replica = open(&dir.file("replica.db"));
    try_attach(&replica, &url, Some(r#"{"collations":{"Unicase":"nocase"}}"#)).unwrap();
    teach(&replica);
    assert_equal(&primary, &replica);
}
