//! Goal: only what was committed reaches a replica (I3, T1).
//!
//! Method: each way in which SQLite undoes work, in part or whole, runs on a primary in every order relative to the
//! publisher; the replica is compared after each step, and the number of messages where nothing may be sent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::pair::flush;
use harness::{in_every_order, messages, Pair};

const TABLES: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT UNIQUE, n INTEGER CHECK (n >= 0) NOT NULL DEFAULT 0);
    CREATE TABLE child(id INTEGER PRIMARY KEY, t INTEGER REFERENCES t(id) DEFERRABLE INITIALLY DEFERRED);
    INSERT INTO t VALUES (1, 'one', 1), (2, 'two', 2), (3, 'three', 3);";

#[test]
fn rolled_back_transaction_publishes_nothing() {
    let pair = Pair::of(TABLES);
    let before = flush(&pair.primary);
    let sent = messages(&pair.primary).len();
    pair.run("BEGIN; INSERT INTO t VALUES (9, 'nine', 9); UPDATE t SET n = 100; DELETE FROM t WHERE id = 1; ROLLBACK");
    pair.run("BEGIN; CREATE TABLE never(a); INSERT INTO never VALUES (1); ROLLBACK");
    assert_eq!(flush(&pair.primary), before);
    assert_eq!(messages(&pair.primary).len(), sent);
    pair.check();
}

#[test]
fn rolled_back_rows_do_not_travel_with_the_next_commit() {
    in_every_order(
        TABLES,
        &[
            "BEGIN; INSERT INTO t VALUES (9, 'nine', 9); ROLLBACK",
            "INSERT INTO t VALUES (10, 'ten', 10)",
            "BEGIN; UPDATE t SET u = 'gone' WHERE id = 1; ROLLBACK",
            "UPDATE t SET n = 5 WHERE id = 2",
        ],
    );
}

#[test]
fn rollback_to_a_savepoint_keeps_what_was_before_it() {
    in_every_order(
        TABLES,
        &[
            "BEGIN; INSERT INTO t VALUES (10, 'a', 1); SAVEPOINT s; INSERT INTO t VALUES (11, 'b', 1); \
             UPDATE t SET n = 7; ROLLBACK TO s; INSERT INTO t VALUES (12, 'c', 1); COMMIT",
            "SAVEPOINT outer; DELETE FROM t WHERE id = 2; SAVEPOINT inner; DELETE FROM t; ROLLBACK TO inner; \
             RELEASE inner; RELEASE outer",
            "SAVEPOINT whole; INSERT INTO t VALUES (20, 'x', 1); ROLLBACK TO whole; RELEASE whole",
        ],
    );
}

#[test]
fn released_savepoints_publish_with_the_transaction_around_them() {
    in_every_order(
        TABLES,
        &[
            "SAVEPOINT a; INSERT INTO t VALUES (10, 'a', 1); SAVEPOINT b; UPDATE t SET n = n + 1; RELEASE b; RELEASE a",
            "BEGIN; SAVEPOINT a; DELETE FROM t WHERE id = 10; RELEASE a; ROLLBACK",
            "BEGIN; SAVEPOINT a; DELETE FROM t WHERE id = 1; RELEASE a; COMMIT",
        ],
    );
}

#[test]
fn failed_statement_leaves_the_rest_of_its_transaction() {
    in_every_order(
        TABLES,
        &[
            "BEGIN",
            "INSERT INTO t VALUES (10, 'ten', 10)",
            "!INSERT INTO t VALUES (11, 'eleven', 11), (12, 'two', 12)",
            "!UPDATE t SET n = n - 2",
            "!INSERT OR ABORT INTO t(id, u, n) SELECT id + 100, u || '-', id - 2 FROM t",
            "UPDATE t SET n = 50 WHERE id = 3",
            "COMMIT",
            "!INSERT INTO t VALUES (13, 'thirteen', 13), (14, 'one', 14)",
        ],
    );
}

#[test]
fn or_fail_publishes_exactly_the_rows_before_the_failure() {
    in_every_order(
        TABLES,
        &[
            "!INSERT OR FAIL INTO t VALUES (10, 'ten', 1), (11, 'eleven', 1), (12, 'one', 1), (13, 'thirteen', 1)",
            "!UPDATE OR FAIL t SET n = n - 2",
            "BEGIN",
            "!INSERT OR FAIL INTO t VALUES (20, 'twenty', 1), (1, 'clash', 1)",
            "INSERT INTO t VALUES (21, 'more', 1)",
            "COMMIT",
        ],
    );
}

#[test]
fn or_rollback_takes_the_whole_transaction_back() {
    in_every_order(
        TABLES,
        &[
            "BEGIN",
            "INSERT INTO t VALUES (10, 'ten', 1)",
            "!INSERT OR ROLLBACK INTO t VALUES (11, 'one', 1)",
            "!COMMIT",
            "BEGIN",
            "UPDATE t SET n = 70",
            "!UPDATE OR ROLLBACK t SET id = 1 WHERE id = 2",
            "INSERT INTO t VALUES (12, 'after', 1)",
        ],
    );
}

#[test]
fn or_ignore_publishes_only_the_rows_that_went_in() {
    in_every_order(
        TABLES,
        &[
            "INSERT OR IGNORE INTO t VALUES (10, 'one', 1), (11, 'eleven', 1), (1, 'x', 1), (12, 'twelve', -1)",
            "UPDATE OR IGNORE t SET u = 'one'",
            "UPDATE OR IGNORE t SET id = 2 WHERE id = 3",
            "INSERT OR IGNORE INTO t VALUES (1, 'one', 1)",
        ],
    );
}

#[test]
fn or_abort_undoes_the_statement_only() {
    in_every_order(
        TABLES,
        &[
            "BEGIN",
            "INSERT INTO t VALUES (10, 'ten', 1)",
            "!UPDATE OR ABORT t SET u = 'same'",
            "!INSERT OR ABORT INTO t VALUES (11, 'eleven', 1), (12, 'eleven', 1)",
            "COMMIT",
        ],
    );
}

#[test]
fn raise_in_a_trigger_publishes_exactly_the_remainder() {
    let triggers = |when: &str| {
        format!(
            "{TABLES}
             CREATE TRIGGER app_abort {when} INSERT ON t WHEN NEW.n = 100 BEGIN SELECT RAISE(ABORT, 'a'); END;
             CREATE TRIGGER app_fail {when} INSERT ON t WHEN NEW.n = 101 BEGIN SELECT RAISE(FAIL, 'f'); END;
             CREATE TRIGGER app_back {when} INSERT ON t WHEN NEW.n = 102 BEGIN SELECT RAISE(ROLLBACK, 'r'); END;
             CREATE TRIGGER app_ignore {when} INSERT ON t WHEN NEW.n = 103 BEGIN SELECT RAISE(IGNORE); END;
             CREATE TRIGGER app_keep BEFORE DELETE ON t WHEN OLD.id = 3 BEGIN SELECT RAISE(IGNORE); END;
             CREATE TRIGGER app_hold BEFORE UPDATE ON t WHEN NEW.n = 103 BEGIN SELECT RAISE(IGNORE); END;"
        )
    };
    in_every_order(
        &triggers("BEFORE"),
        &[
            "!INSERT INTO t VALUES (10, 'a', 1), (11, 'b', 100), (12, 'c', 1)",
            "!INSERT INTO t VALUES (20, 'd', 1), (21, 'e', 101), (22, 'f', 1)",
            "BEGIN",
            "INSERT INTO t VALUES (29, 'lost', 1)",
            "!INSERT INTO t VALUES (30, 'g', 1), (31, 'h', 102)",
            "INSERT INTO t VALUES (40, 'i', 1), (41, 'j', 103), (42, 'k', 1)",
            "DELETE FROM t WHERE id IN (2, 3)",
            "UPDATE t SET n = 103 WHERE id = 1",
        ],
    );
    in_every_order(
        &triggers("AFTER"),
        &[
            "!INSERT INTO t VALUES (10, 'a', 1), (11, 'b', 100), (12, 'c', 1)",
            "BEGIN",
            "INSERT INTO t VALUES (29, 'lost', 1)",
            "!INSERT INTO t VALUES (30, 'g', 1), (31, 'h', 102)",
        ],
    );
}

/// The row stays and the rest of the triggers is skipped, ours among them (T25): still captured.
#[test]
fn raise_after_the_row_was_written_does_not_lose_the_row() {
    in_every_order(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n); CREATE TABLE k(name TEXT PRIMARY KEY, n);
         CREATE TRIGGER t_ignore AFTER INSERT ON t WHEN NEW.n = 1 BEGIN SELECT RAISE(IGNORE); END;
         CREATE TRIGGER t_fail AFTER INSERT ON t WHEN NEW.n = 2 BEGIN SELECT RAISE(FAIL, 'no'); END;
         CREATE TRIGGER t_update AFTER UPDATE ON t BEGIN SELECT RAISE(IGNORE); END;
         CREATE TRIGGER t_delete AFTER DELETE ON t BEGIN SELECT RAISE(IGNORE); END;
         CREATE TRIGGER k_insert AFTER INSERT ON k BEGIN SELECT RAISE(IGNORE); END;
         CREATE TRIGGER k_update AFTER UPDATE ON k BEGIN SELECT RAISE(IGNORE); END;
         CREATE TRIGGER k_delete AFTER DELETE ON k BEGIN SELECT RAISE(IGNORE); END;",
        &[
            "INSERT INTO t VALUES (1, 1)",
            "INSERT INTO t(n) VALUES (1), (5)",
            "!INSERT INTO t VALUES (10, 5), (11, 2), (12, 5)",
            "UPDATE t SET n = n + 10",
            "UPDATE t SET id = id + 100 WHERE id = 10",
            "DELETE FROM t WHERE id = 1",
            "INSERT INTO k VALUES ('a', 1), ('b', 2), ('c', 3)",
            "UPDATE k SET n = 9 WHERE name = 'a'",
            "UPDATE k SET name = 'd' WHERE name = 'b'",
            "DELETE FROM k WHERE name = 'c'",
        ],
    );
}

#[test]
fn commit_refused_by_a_deferred_constraint_publishes_once_it_succeeds() {
    in_every_order(
        TABLES,
        &[
            "BEGIN",
            "INSERT INTO child VALUES (1, 77)",
            "!COMMIT",
            "INSERT INTO t VALUES (77, 'parent', 1)",
            "COMMIT",
            "BEGIN",
            "INSERT INTO child VALUES (2, 78)",
            "!COMMIT",
            "ROLLBACK",
        ],
    );
}
