//! Goal: every form of writing statement leaves the replica equal (T9; T4 and T51 in their common forms).
//!
//! Method: each form runs on several tables in every order relative to the publisher, and dumps are compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::{in_every_order, Pair, Sql};

const TABLES: &str = "
    CREATE TABLE i(id INTEGER PRIMARY KEY, v);
    CREATE TABLE k(name TEXT PRIMARY KEY, v);
    CREATE TABLE w(a, b, v, PRIMARY KEY (a, b)) WITHOUT ROWID;
    CREATE TABLE r(v);
    INSERT INTO i VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, NULL);
    INSERT INTO k VALUES ('one', 1), ('two', 2), ('three', 3), (NULL, 4), (NULL, 4);
    INSERT INTO w VALUES (1, 1, 'x'), (1, 2, 'y'), (2, 1, 'z');
    INSERT INTO r VALUES ('p'), ('p'), (NULL);";

#[test]
fn delete_without_where_empties_the_replica_too() {
    in_every_order(
        TABLES,
        &[
            "DELETE FROM i",
            "DELETE FROM k; DELETE FROM w; DELETE FROM r",
            "INSERT INTO i VALUES (1, 'again'); INSERT INTO r VALUES ('again')",
            "DELETE FROM i; INSERT INTO i VALUES (1, 'and again')",
        ],
    );
}

#[test]
fn update_of_all_rows_reaches_every_row() {
    in_every_order(
        TABLES,
        &["UPDATE i SET v = v || '!'", "UPDATE k SET v = v * 2", "UPDATE w SET v = NULL", "UPDATE r SET v = rowid"],
    );
}

#[test]
fn insert_select_and_default_values_arrive() {
    in_every_order(
        TABLES,
        &[
            "INSERT INTO i SELECT id + 10, v FROM i",
            "INSERT INTO r SELECT name FROM k",
            "INSERT INTO i DEFAULT VALUES; INSERT INTO r DEFAULT VALUES; INSERT INTO k DEFAULT VALUES",
            "INSERT INTO w SELECT a + 10, b, v FROM w",
            "WITH RECURSIVE c(n) AS (SELECT 100 UNION ALL SELECT n + 1 FROM c WHERE n < 700)
             INSERT INTO i SELECT n, randomblob(20) FROM c",
        ],
    );
}

#[test]
fn upsert_leaves_what_it_left_on_the_primary() {
    in_every_order(
        TABLES,
        &[
            "INSERT INTO i VALUES (1, 'x'), (9, 'new') ON CONFLICT DO NOTHING",
            "INSERT INTO i VALUES (1, 'x'), (10, 'n') ON CONFLICT (id) DO UPDATE SET v = v || excluded.v",
            "INSERT INTO i VALUES (2, 'moved') ON CONFLICT (id) DO UPDATE SET id = 200",
            "INSERT INTO k VALUES ('one', 10), ('four', 4) ON CONFLICT (name) DO UPDATE SET v = excluded.v",
            "INSERT INTO k VALUES ('two', 5) ON CONFLICT (name) DO UPDATE SET name = 'zwei'",
            "INSERT INTO w VALUES (1, 1, 'u'), (3, 3, 'n') ON CONFLICT (a, b) DO UPDATE SET v = excluded.v WHERE a = 1",
        ],
    );
}

#[test]
fn statements_with_returning_are_captured() {
    in_every_order(
        TABLES,
        &[
            "INSERT INTO i VALUES (20, 'r'), (21, 's') RETURNING id, v",
            "UPDATE k SET v = v + 1 RETURNING *",
            "DELETE FROM w WHERE a = 1 RETURNING b",
            "INSERT INTO r VALUES (1) RETURNING rowid",
        ],
    );
}

#[test]
fn create_table_as_select_brings_its_rows() {
    in_every_order(
        TABLES,
        &[
            "CREATE TABLE copy AS SELECT * FROM k",
            "INSERT INTO copy SELECT * FROM copy",
            "DELETE FROM copy WHERE name IS NULL",
            "BEGIN; CREATE TABLE second AS SELECT v FROM i; UPDATE second SET v = 1; DELETE FROM i; COMMIT",
        ],
    );
}

#[test]
fn changed_keys_move_their_rows() {
    in_every_order(
        TABLES,
        &[
            "UPDATE i SET id = 100 WHERE id = 1",
            "UPDATE i SET id = id + 1000",
            "UPDATE k SET name = 'eins' WHERE name = 'one'",
            "UPDATE k SET name = NULL WHERE name = 'two'",
            "UPDATE k SET name = 'was null' WHERE rowid = (SELECT min(rowid) FROM k WHERE name IS NULL)",
            "UPDATE w SET b = b + 10",
            "UPDATE w SET a = b, b = a",
            "UPDATE r SET rowid = rowid + 50",
            "UPDATE i SET id = id + 1 WHERE id = 1100; UPDATE i SET id = id + 1 WHERE id = 1101",
        ],
    );
}

#[test]
fn swapped_and_rotated_keys_arrive() {
    in_every_order(
        TABLES,
        &[
            "BEGIN; UPDATE i SET id = -1 WHERE id = 1; UPDATE i SET id = 1 WHERE id = 2; UPDATE i SET id = 2 WHERE id = -1; COMMIT",
            "BEGIN; UPDATE k SET name = '' WHERE name = 'one'; UPDATE k SET name = 'one' WHERE name = 'two'; \
             UPDATE k SET name = 'two' WHERE name = 'three'; UPDATE k SET name = 'three' WHERE name = ''; COMMIT",
            "BEGIN; UPDATE w SET a = 99 WHERE a = 1 AND b = 1; UPDATE w SET a = 1, b = 1 WHERE a = 2 AND b = 1; \
             UPDATE w SET a = 2 WHERE a = 99; COMMIT",
            "BEGIN; UPDATE r SET rowid = 77 WHERE rowid = 1; UPDATE r SET rowid = 1 WHERE rowid = 3; \
             UPDATE r SET rowid = 3 WHERE rowid = 77; COMMIT",
        ],
    );
}

#[test]
fn unique_values_swapped_and_rotated_inside_one_message_arrive() {
    in_every_order(
        "CREATE TABLE u(id INTEGER PRIMARY KEY, x UNIQUE, y); CREATE UNIQUE INDEX uy ON u(lower(y)) WHERE y IS NOT NULL;
         CREATE TABLE uw(a PRIMARY KEY, x UNIQUE) WITHOUT ROWID;
         INSERT INTO u VALUES (1, 'a', 'A'), (2, 'b', 'B'), (3, 'c', 'C'); INSERT INTO uw VALUES (1, 'a'), (2, 'b'), (3, 'c');",
        &[
            "BEGIN; UPDATE u SET x = 't' WHERE id = 1; UPDATE u SET x = 'a' WHERE id = 2; UPDATE u SET x = 'b' WHERE id = 1; COMMIT",
            "BEGIN; UPDATE u SET y = 't' WHERE id = 1; UPDATE u SET y = 'a' WHERE id = 2; UPDATE u SET y = 'b' WHERE id = 3; \
             UPDATE u SET y = 'c' WHERE id = 1; COMMIT",
            "BEGIN; UPDATE uw SET x = 't' WHERE a = 1; UPDATE uw SET x = 'a' WHERE a = 2; UPDATE uw SET x = 'b' WHERE a = 3; \
             UPDATE uw SET x = 'c' WHERE a = 1; COMMIT",
            "BEGIN; DELETE FROM u WHERE id = 1; INSERT INTO u VALUES (9, 'b', 'C'); COMMIT",
        ],
    );
}

#[test]
fn replace_takes_the_clashing_rows_away_on_the_replica_too() {
    let tables = "
        CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v UNIQUE, w);
        CREATE UNIQUE INDEX part ON t(w) WHERE w > 0;
        CREATE TABLE n(id INTEGER PRIMARY KEY, mail TEXT COLLATE NOCASE UNIQUE, name TEXT);
        CREATE UNIQUE INDEX expr ON n(substr(name, 1, 2), length(name));
        CREATE TABLE k(name TEXT PRIMARY KEY, u UNIQUE);
        CREATE TABLE w(a, b, u UNIQUE, PRIMARY KEY(b, a)) WITHOUT ROWID;
        INSERT INTO t VALUES (1, 'a', 'a', 1), (2, 'b', 'b', 2), (3, 'c', 'c', 3), (4, 'd', 'd', -4), (5, NULL, NULL, -4);
        INSERT INTO n VALUES (1, 'A@x', 'anna'), (2, 'b@x', 'berta'), (3, 'c@x', 'clara');
        INSERT INTO k VALUES ('a', 1), ('b', 2), ('c', 3);
        INSERT INTO w VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c');";
    for recursive in ["OFF", "ON"] {
        in_every_order(
            &format!("PRAGMA recursive_triggers = {recursive};{tables}"),
            &[
                "REPLACE INTO t VALUES (1, 'a2', 'a2', 1)",
                "REPLACE INTO t VALUES (10, 'b', 'x', 20)",
                "REPLACE INTO t VALUES (11, 'c', 'd', 30)",
                "REPLACE INTO t VALUES (12, 'e', 'e', 1); DELETE FROM t WHERE id = 12",
                "INSERT OR REPLACE INTO n VALUES (10, 'a@X', 'other'), (11, 'new', 'beata')",
                "UPDATE OR REPLACE n SET mail = 'C@X' WHERE id = 11",
                "UPDATE OR REPLACE n SET name = 'claus'",
                "REPLACE INTO k VALUES ('d', 1); UPDATE k SET name = 'e' WHERE name = 'd'",
                "UPDATE OR REPLACE k SET u = 3 WHERE name = 'b'",
                "REPLACE INTO w VALUES (9, 9, 'a'); REPLACE INTO w VALUES (2, 2, 'c')",
                "UPDATE OR REPLACE t SET id = 10 WHERE id = 11",
                "PRAGMA recursive_triggers = OFF",
            ],
        );
    }
}

#[test]
fn a_row_written_many_times_in_one_message_arrives_in_its_last_state() {
    let pair = Pair::with_options(TABLES, r#"{"batch_ms":60000}"#);
    pair.check();
    for n in 0..500 {
        pair.run(&format!("UPDATE i SET v = {n} WHERE id = 1; INSERT OR REPLACE INTO k VALUES ('hot', {n})"));
    }
    pair.run("INSERT INTO i VALUES (50, 'short-lived'); DELETE FROM i WHERE id = 50");
    let replica = pair.check();
    assert_eq!(replica.text("SELECT v FROM i WHERE id = 1"), "499");
}
