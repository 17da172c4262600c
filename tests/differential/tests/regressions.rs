//! Goal: what the differential tester found once is never found again.
//!
//! Method: the reduced programs, named for the behaviour that they pin. The text form is `program.rs`'s: an actor and
//! its statement, or what is done to the publisher and the replica; both replicas are compared at the end of each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use differential::{run, Program};

fn agree(script: &str) {
    let program: Program = script.parse().unwrap();
    run(&program).unwrap_or_else(|failure| panic!("{failure}\n  in:\n{program}"));
}

#[test]
fn sqlite_sequence_is_not_advanced_by_what_the_primary_did_not_count() {
    agree(
        "c0: CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a NOT NULL)
         publish
         c0: INSERT INTO t VALUES (2, 1)
         check
         c0: INSERT OR FAIL INTO t VALUES (9, 1), (10, NULL)",
    );
}

#[test]
fn a_unique_index_is_made_once_the_rows_are_as_unique_as_on_the_primary() {
    agree(
        "c0: CREATE TABLE t(id INTEGER PRIMARY KEY, a)
         c0: INSERT INTO t VALUES (1, 'same'), (2, 'same')
         check
         c0: BEGIN
         c0: UPDATE t SET a = id
         c0: CREATE UNIQUE INDEX i ON t(a)
         c0: COMMIT
         check
         c0: BEGIN
         c0: DROP TABLE t
         c0: CREATE TABLE t(id INTEGER PRIMARY KEY, a)
         c0: CREATE UNIQUE INDEX i ON t(a)
         c0: COMMIT",
    );
}

#[test]
fn a_column_beside_an_expression_index_can_be_dropped() {
    agree(
        "c0: CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c)
         c0: CREATE UNIQUE INDEX i ON t(lower(a)) WHERE b > 0
         publish
         c0: INSERT INTO t VALUES (1, 'x', 1, 1)
         check
         c0: ALTER TABLE t DROP COLUMN c
         c0: REPLACE INTO t VALUES (2, 'X', 1)",
    );
}

#[test]
fn an_expression_that_binds_weaker_than_equality_finds_the_clash() {
    agree(
        "c0: CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)
         c0: CREATE UNIQUE INDEX i ON t(a OR b) WHERE a IS NOT NULL OR b IS NOT NULL
         publish
         c0: INSERT INTO t VALUES (1, 1, 0), (2, 0, 0)
         check
         c0: REPLACE INTO t VALUES (3, 0, 1)
         c0: REPLACE INTO t VALUES (4, 0, 0)",
    );
}

#[test]
fn nothing_is_dropped_that_an_index_a_view_or_a_trigger_needs() {
    agree(
        "options {\"batch_ms\":60000}
         c0: CREATE TABLE t(a, b TEXT)
         c0: CREATE TABLE u(a, b)
         check
         c0: CREATE INDEX i ON t(length(b))
         c0: CREATE VIEW v AS SELECT a FROM nowhere
         c0: CREATE VIEW w AS SELECT a FROM t
         c0: DROP VIEW w
         check
         c0: BEGIN
         c0: INSERT INTO t VALUES (1, 'kept'), (2, 'kept too')
         c0: COMMIT
         check
         c0: BEGIN
         c0: DROP VIEW v
         c0: DROP INDEX i
         c0: ALTER TABLE t DROP COLUMN b
         c0: ALTER TABLE t ADD COLUMN b TEXT
         c0: CREATE INDEX i ON t(length(b))
         c0: COMMIT",
    );
}

#[test]
fn keys_that_differ_in_case_only_are_one_key_under_nocase() {
    agree(
        "c0: CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, u UNIQUE)
         c0: INSERT INTO t VALUES ('c', 7), ('other', 2)
         check
         c0: BEGIN
         c0: UPDATE t SET k = 'B' WHERE k = 'c'
         c0: REPLACE INTO t VALUES ('C', 2)
         c0: COMMIT",
    );
}

#[test]
fn a_row_replaced_by_the_collation_of_the_keys_index_is_captured() {
    for without_rowid in ["", " WITHOUT ROWID"] {
        agree(&format!(
            "c0: CREATE TABLE t(k TEXT, v, PRIMARY KEY (k COLLATE NOCASE)){without_rowid}
             publish
             c0: INSERT INTO t VALUES ('c', 1), ('d', 2)
             check
             c0: REPLACE INTO t VALUES ('C', 3)
             check
             c0: UPDATE OR REPLACE t SET k = 'D' WHERE k = 'C'"
        ));
    }
}

#[test]
fn a_flush_is_answered_whichever_thread_looked_at_the_sidecar_last() {
    let writes: String = (0..60).map(|n| format!("c0: INSERT INTO t VALUES ({n})\nflush\n")).collect();
    agree(&format!("c0: CREATE TABLE t(a)\npublish\n{writes}"));
}

#[test]
fn a_blob_taken_for_text_in_utf_16_is_the_same_text_on_the_replica() {
    agree(
        "settings PRAGMA encoding = 'UTF-16le'
         c0: CREATE TABLE t(id INTEGER PRIMARY KEY, a BLOB, b TEXT AS (CAST(a AS TEXT) || '!') STORED)
         c0: CREATE UNIQUE INDEX i ON t(lower(a), id)
         publish
         c0: INSERT INTO t(id, a) VALUES (1, x'ff00'), (2, x'61'), (3, x''), (4, NULL), (5, 'text')
         check
         c0: UPDATE t SET a = CAST('new' AS BLOB) WHERE id = 5",
    );
}

#[test]
fn triggers_of_a_view_that_is_made_anew_are_made_anew_with_it() {
    agree(
        "c0: CREATE TABLE t(a)
         c0: CREATE VIEW v AS SELECT a FROM t
         c0: CREATE TRIGGER i INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES (NEW.a); END
         check
         c0: BEGIN
         c0: DROP VIEW v
         c0: CREATE VIEW v AS SELECT a FROM t WHERE a > 0
         c0: CREATE TRIGGER i INSTEAD OF INSERT ON v BEGIN INSERT INTO t VALUES (NEW.a); END
         c0: COMMIT
         c0: INSERT INTO v VALUES (1)
         check
         c0: BEGIN
         c0: DROP VIEW v
         c0: CREATE TABLE v(a)
         c0: CREATE TRIGGER i AFTER INSERT ON v BEGIN INSERT INTO t VALUES (NEW.a); END
         c0: COMMIT",
    );
}

#[test]
fn a_column_that_was_dropped_and_added_again_beside_a_new_trigger_is_empty() {
    agree(
        "c0: CREATE TABLE u(a INTEGER PRIMARY KEY, b)
         c0: INSERT INTO u VALUES (1, 1), (2, 2)
         check
         c0: BEGIN
         c0: ALTER TABLE u DROP COLUMN b
         c0: ALTER TABLE u ADD COLUMN b
         c0: CREATE TRIGGER t BEFORE UPDATE ON u BEGIN SELECT RAISE(ABORT, 'refused') WHERE NEW.b = 6; END
         c0: COMMIT",
    );
}

#[test]
fn a_row_without_rowid_that_a_new_trigger_of_the_application_hides_is_captured() {
    agree(
        "c0: CREATE TABLE t(k PRIMARY KEY, a UNIQUE ON CONFLICT REPLACE, b AS (length(a)) STORED UNIQUE) WITHOUT ROWID
         c0: INSERT INTO t VALUES ('before', 100)
         check
         c0: CREATE TRIGGER i AFTER INSERT ON t BEGIN UPDATE t SET a = 200 WHERE k = NEW.k; END
         c0: INSERT OR FAIL INTO t VALUES ('hidden', 1)",
    );
}

#[test]
fn a_row_with_a_null_key_whose_rowid_three_columns_hide_arrives() {
    agree(
        "c0: CREATE TABLE t(rowid INT PRIMARY KEY, oid, _rowid_)
         publish
         c0: INSERT INTO t VALUES (0, 1, 1), (NULL, 2, 2)
         check
         c0: INSERT INTO t VALUES (NULL, 2, 2)
         c0: UPDATE t SET oid = 3 WHERE rowid IS NULL",
    );
}

#[test]
fn a_column_before_a_constraint_of_its_table_may_be_dropped_and_added_as_it_was() {
    agree(
        "c0: CREATE TABLE t(a, id INTEGER, c, PRIMARY KEY (id), CHECK (a IS NOT 7))
         publish
         c0: INSERT INTO t VALUES (1, 1, 'gone'), (2, 2, 'gone')
         check
         c0: BEGIN
         c0: ALTER TABLE t DROP COLUMN c
         c0: ALTER TABLE t ADD COLUMN c
         c0: COMMIT
         check",
    );
}
