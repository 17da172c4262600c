//! Goal: schema changes need no call: what the application does to its schema arrives, with every row (I5, T12, T13); its
//! triggers have each effect once, whether they are older or younger than ours (T10).
//!
//! Method: schema statements mixed with writes, in every order relative to the publisher, by the publishing
//! connection and by a stock shell without the extension; dumps (schema text included) are compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::pair::flush;
use harness::{in_every_order, messages, open_plain, Pair, Shell, Sql};

const TABLES: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b UNIQUE);
    CREATE TABLE n(a, b);
    INSERT INTO t VALUES (1, 'one', 10), (2, 'two', 20); INSERT INTO n VALUES ('x', 1), ('y', 2);";

#[test]
fn tables_created_after_publishing_are_captured_with_their_first_rows() {
    in_every_order(
        TABLES,
        &[
            "CREATE TABLE later(id INTEGER PRIMARY KEY, v); INSERT INTO later VALUES (1, 'first')",
            "BEGIN; CREATE TABLE again(k PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO again VALUES (1, 1), (2, 2); \
             UPDATE again SET v = 5; DELETE FROM again WHERE k = 2; INSERT INTO later VALUES (2, 'second'); COMMIT",
            "UPDATE later SET v = v || '!'; INSERT INTO again VALUES (3, 3)",
            "CREATE TABLE empty(a); CREATE TABLE IF NOT EXISTS later(x)",
        ],
    );
}

#[test]
fn columns_added_renamed_and_dropped_between_writes_arrive() {
    in_every_order(
        TABLES,
        &[
            "ALTER TABLE t ADD COLUMN c DEFAULT 'def'",
            "INSERT INTO t VALUES (3, 'three', 30, 'given'); UPDATE t SET c = 'set' WHERE id = 1",
            "ALTER TABLE t RENAME COLUMN a TO label; UPDATE t SET label = 'renamed' WHERE id = 2",
            "ALTER TABLE t RENAME COLUMN id TO key; INSERT INTO t(key, label) VALUES (4, 'four')",
            "ALTER TABLE t DROP COLUMN c; DELETE FROM t WHERE key = 1",
            "ALTER TABLE n ADD COLUMN c NOT NULL DEFAULT 5; ALTER TABLE n ADD COLUMN d AS (a || b) VIRTUAL; UPDATE n SET b = 7",
        ],
    );
}

#[test]
fn writes_before_and_after_an_alter_in_one_transaction_arrive() {
    in_every_order(
        TABLES,
        &[
            "BEGIN; UPDATE t SET a = 'before' WHERE id = 1; ALTER TABLE t ADD COLUMN c; UPDATE t SET c = 'after' WHERE id = 2; COMMIT",
            "BEGIN; DELETE FROM n WHERE b = 1; ALTER TABLE n RENAME TO m; INSERT INTO m VALUES ('z', 3); COMMIT",
            "BEGIN; INSERT INTO t(id) VALUES (50); ALTER TABLE t DROP COLUMN c; UPDATE t SET a = 'end'; COMMIT",
            "BEGIN; ALTER TABLE m ADD COLUMN e; ROLLBACK",
        ],
    );
}

#[test]
fn renamed_tables_keep_their_rows_and_stay_captured() {
    in_every_order(
        TABLES,
        &[
            "ALTER TABLE t RENAME TO \"new name\"",
            "INSERT INTO \"new name\" VALUES (9, 'nine', 90); DELETE FROM \"new name\" WHERE id = 1",
            "ALTER TABLE n RENAME TO t; INSERT INTO t VALUES ('into t', 1)",
            "UPDATE t SET b = 5; UPDATE \"new name\" SET a = 'x'",
        ],
    );
}

#[test]
fn two_tables_that_trade_names_keep_their_own_rows() {
    in_every_order(
        "CREATE TABLE a(id INTEGER PRIMARY KEY, v); CREATE TABLE b(id INTEGER PRIMARY KEY, v);
         INSERT INTO a VALUES (1, 'a'); INSERT INTO b VALUES (1, 'b'), (2, 'b');",
        &[
            "BEGIN; ALTER TABLE a RENAME TO c; ALTER TABLE b RENAME TO a; ALTER TABLE c RENAME TO b; COMMIT",
            "UPDATE a SET v = 'in a'; INSERT INTO b VALUES (5, 'in b')",
        ],
    );
}

#[test]
fn tables_whose_texts_are_alike_keep_their_own_rows_when_names_go_round() {
    // ALTER TABLE RENAME writes the name in quotes: from the second round on, no text differs.
    let rotate = |day: &str| {
        format!(
            "BEGIN; DROP TABLE IF EXISTS log_old; ALTER TABLE log RENAME TO log_old; \
             CREATE TABLE \"log\"(id INTEGER PRIMARY KEY, v); INSERT INTO log(v) VALUES ('{day}'); COMMIT"
        )
    };
    let days = ["tue", "wed", "thu", "fri"].map(rotate);
    let swap = "BEGIN; ALTER TABLE a RENAME TO x; ALTER TABLE b RENAME TO a; ALTER TABLE x RENAME TO b; COMMIT";
    in_every_order(
        "CREATE TABLE \"log\"(id INTEGER PRIMARY KEY, v); INSERT INTO log VALUES (1, 'mon');
         CREATE TABLE \"a\"(v); CREATE TABLE \"b\"(v); INSERT INTO a VALUES ('a1'), ('a2'); INSERT INTO b VALUES ('b1');",
        &[&days[0], &days[1], swap, swap, swap, &days[2], "INSERT INTO a VALUES ('in a')", swap, &days[3]],
    );
}

#[test]
fn a_table_built_aside_takes_the_place_of_one_with_the_same_text() {
    in_every_order(
        "CREATE TABLE \"t\"(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'old'), (2, 'old'); CREATE TABLE t_new(id INTEGER PRIMARY KEY, v)",
        &["INSERT INTO t_new VALUES (1, 'new')", "DROP TABLE t; ALTER TABLE t_new RENAME TO t", "INSERT INTO t VALUES (5, 'later')"],
    );
}

#[test]
fn a_column_dropped_and_one_added_are_no_rename_whatever_is_dropped_beside_them() {
    // A table or view takes its indexes and triggers along without a step of the schema cookie.
    for (beside, drop) in [
        ("CREATE TABLE u(id INTEGER PRIMARY KEY, z); CREATE INDEX u_z ON u(z)", "DROP TABLE u"),
        (
            "CREATE VIEW w AS SELECT 1 AS one; CREATE TRIGGER w_in INSTEAD OF INSERT ON w BEGIN SELECT 1; END",
            "DROP VIEW w",
        ),
        ("CREATE TABLE u(id INTEGER PRIMARY KEY, z)", "ALTER TABLE u RENAME TO w"),
    ] {
        let setup = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, x); INSERT INTO t VALUES (1, 'secret'); {beside}");
        let step = format!("BEGIN; {drop}; ALTER TABLE t DROP COLUMN x; ALTER TABLE t ADD COLUMN y; COMMIT");
        in_every_order(&setup, &[&step, "INSERT INTO t VALUES (2, 'y')"]);
    }
}

#[test]
fn names_in_other_letters_than_ascii_are_captured() {
    let pair = Pair::of(
        "CREATE TABLE \"Таблица\"(id INTEGER PRIMARY KEY, v); CREATE TABLE \"ÄPFEL\"(id INTEGER PRIMARY KEY, v UNIQUE)",
    );
    pair.check();
    let before = messages(&pair.primary).len();
    flush(&pair.primary);
    assert_eq!(messages(&pair.primary).len(), before, "a message although nothing was written");
    pair.run(
        "BEGIN; INSERT INTO \"Таблица\" VALUES (1, 'x'); REPLACE INTO \"ÄPFEL\" VALUES (2, 'x'), (3, 'x'); COMMIT",
    );
    pair.check();
    assert_eq!(pair.primary.int("SELECT changes FROM logos_log ORDER BY seq DESC LIMIT 1"), 3);
}

#[test]
fn dropped_tables_vanish_and_their_names_can_be_used_again() {
    in_every_order(
        TABLES,
        &[
            "DROP TABLE n",
            "CREATE TABLE n(entirely TEXT PRIMARY KEY, other); INSERT INTO n VALUES ('different', 1)",
            "BEGIN; DROP TABLE n; CREATE TABLE n(entirely TEXT PRIMARY KEY, other); INSERT INTO n VALUES ('same text', 2); COMMIT",
            "UPDATE n SET other = 3",
            "BEGIN; CREATE TABLE brief(a); INSERT INTO brief VALUES (1); DROP TABLE brief; COMMIT",
            "BEGIN; DROP TABLE t; ROLLBACK",
            "UPDATE t SET a = 'still here'",
        ],
    );
}

#[test]
fn the_twelve_step_rebuild_of_a_table_arrives() {
    in_every_order(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE TABLE ref(t REFERENCES t(id)); CREATE INDEX ta ON t(a);
         INSERT INTO t VALUES (1, 'a', 'b'), (2, 'c', 'd'); INSERT INTO ref VALUES (1);",
        &[
            "PRAGMA foreign_keys = OFF",
            "BEGIN; UPDATE t SET a = 'before'; CREATE TABLE t_new(id INTEGER PRIMARY KEY, a TEXT NOT NULL, extra DEFAULT 9); \
             INSERT INTO t_new(id, a) SELECT id, a FROM t; DROP TABLE t; ALTER TABLE t_new RENAME TO t; \
             CREATE INDEX ta ON t(a); INSERT INTO t(id, a) VALUES (3, 'after'); COMMIT",
            "PRAGMA foreign_keys = ON",
            "UPDATE t SET extra = 10 WHERE id = 2; DELETE FROM t WHERE id = 3",
        ],
    );
}

#[test]
fn indexes_views_and_triggers_come_and_go() {
    in_every_order(
        TABLES,
        &[
            "CREATE INDEX i1 ON t(a); CREATE UNIQUE INDEX i2 ON t(lower(a), b) WHERE b > 0",
            "CREATE VIEW v AS SELECT a FROM t; CREATE TRIGGER g AFTER INSERT ON t BEGIN UPDATE n SET b = b + 1; END",
            "INSERT INTO t VALUES (7, 'seven', 70)",
            "DROP INDEX i1; DROP VIEW v; CREATE VIEW v(x, y) AS SELECT id, b FROM t",
            "DROP TRIGGER g; CREATE TRIGGER g BEFORE UPDATE ON t BEGIN INSERT INTO n VALUES (NEW.a, 1); END",
            "UPDATE t SET a = 'z' WHERE id = 7; REPLACE INTO t VALUES (8, 'Z', 70)",
            "DROP INDEX i2",
        ],
    );
}

#[test]
fn unique_index_made_later_is_heeded_by_replace() {
    in_every_order(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3);",
        &[
            "REPLACE INTO t VALUES (10, 'a', 1)",
            "DELETE FROM t WHERE id = 10; CREATE UNIQUE INDEX ta ON t(a)",
            "REPLACE INTO t VALUES (11, 'b', 5)",
            "BEGIN; CREATE UNIQUE INDEX tb ON t(b); REPLACE INTO t VALUES (12, 'd', 3); COMMIT",
        ],
    );
}

#[test]
fn application_triggers_may_be_older_or_younger_than_ours() {
    let triggers = "
        CREATE TRIGGER t_touch AFTER UPDATE OF a ON t BEGIN UPDATE t SET n = n + 1 WHERE id = NEW.id; END;
        CREATE TRIGGER t_key AFTER INSERT ON t WHEN NEW.id < 100 BEGIN UPDATE t SET id = id + 1000 WHERE id = NEW.id; END;
        CREATE TRIGGER t_gone BEFORE UPDATE ON t WHEN NEW.a = 'die' BEGIN DELETE FROM t WHERE id = OLD.id; END;
        CREATE TRIGGER t_other BEFORE INSERT ON t BEGIN DELETE FROM t WHERE id = NEW.id; INSERT INTO log VALUES (NEW.id); END;";
    let tables = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, n DEFAULT 0); CREATE TABLE log(a);";
    let writes = &[
        "INSERT INTO t(id, a) VALUES (1, 'x'), (2, 'y'), (500, 'z')",
        "UPDATE t SET a = 'w' WHERE id > 500",
        "INSERT INTO t(id, a) VALUES (500, 'replaced by the trigger')",
        "UPDATE t SET a = 'die' WHERE id = 1001",
    ];
    in_every_order(&format!("{tables}{triggers}"), writes);
    let mut later = vec![triggers];
    later.extend(writes);
    in_every_order(tables, &later);
}

#[test]
fn schema_changes_by_a_process_without_the_extension_arrive() {
    let mut pair = Pair::of(TABLES);
    pair.check();
    let database = pair.primary_path();
    for script in [
        "CREATE TABLE s(id INTEGER PRIMARY KEY, v); INSERT INTO s VALUES (1, 'by the shell')",
        "UPDATE s SET v = 'changed'; INSERT INTO s VALUES (2, 'more')",
        "BEGIN; UPDATE t SET a = 'x'; ALTER TABLE t ADD COLUMN z DEFAULT 1; UPDATE t SET z = 2 WHERE id = 1; COMMIT",
        "ALTER TABLE t RENAME COLUMN a TO aa; ALTER TABLE n RENAME TO nn; INSERT INTO nn VALUES (5, 5)",
        "ALTER TABLE t DROP COLUMN z; DELETE FROM t WHERE id = 2",
        "DROP TABLE nn; CREATE TABLE nn(other); INSERT INTO nn VALUES (1)",
    ] {
        let answer = Shell::run(&database, script);
        assert_eq!(answer.err, "", "{script}");
        pair.check();
    }
    pair.check_fresh();
}

#[test]
fn schema_changes_while_nobody_publishes_arrive_at_the_next_start() {
    let mut pair = Pair::of(TABLES);
    pair.check();
    pair.run("SELECT logos_stop()");
    let answer = Shell::run(
        &pair.primary_path(),
        "CREATE TABLE s(id INTEGER PRIMARY KEY, v); INSERT INTO s VALUES (1, 'offline'); UPDATE t SET a = 'offline';
         ALTER TABLE n ADD COLUMN c DEFAULT 3; DELETE FROM n WHERE b = 1; INSERT INTO t VALUES (70, 'x', 700);",
    );
    assert_eq!(answer.err, "");
    let url = pair.url.clone();
    assert_eq!(harness::pair::publish(&pair.primary, &url), url);
    pair.check();
    pair.check_fresh();
}

#[test]
fn user_version_and_application_id_travel() {
    in_every_order(TABLES, &["PRAGMA user_version = 42", "PRAGMA application_id = 777; INSERT INTO n VALUES (1, 1)"]);
}

#[test]
fn vacuum_may_renumber_rows_without_a_key() {
    in_every_order(
        TABLES,
        &[
            "INSERT INTO n SELECT a, b + 100 FROM n; INSERT INTO n SELECT a, b + 1000 FROM n",
            "DELETE FROM n WHERE rowid % 3 = 1",
            "VACUUM",
            "UPDATE n SET b = b + 1 WHERE b > 1000",
            "DELETE FROM n WHERE b < 5; VACUUM; INSERT INTO n VALUES ('after', 0)",
        ],
    );
}

#[test]
fn no_persistent_schema_of_ours_names_a_function_or_module_of_the_extension() {
    let pair = Pair::of(TABLES);
    pair.run("CREATE TABLE later(k PRIMARY KEY, u UNIQUE)");
    pair.check();
    let functions = pair.primary.texts(
        "SELECT DISTINCT name FROM pragma_function_list WHERE name LIKE 'logos%'
         UNION SELECT name FROM pragma_module_list WHERE name LIKE 'logos%' OR name LIKE 'attach%'",
    );
    assert!(!functions.is_empty());
    let schema = pair.primary.texts("SELECT lower(sql) FROM sqlite_schema WHERE sql NOT NULL");
    assert!(schema.iter().any(|sql| sql.contains("create trigger")));
    for sql in &schema {
        for name in &functions {
            let calls = sql.match_indices(&name.to_lowercase()).any(|(at, _)| {
                let before = sql[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
                before && !sql[at + name.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
            });
            assert!(!calls, "{name} stands in: {sql}");
        }
    }
    let answer =
        Shell::run(&pair.primary_path(), "PRAGMA integrity_check; PRAGMA quick_check; SELECT count(*) FROM t;");
    assert_eq!((answer.out.as_str(), answer.err.as_str()), ("ok\nok\n2", ""));
}

#[test]
fn a_trigger_made_through_attach_arrives_although_its_text_names_the_schema_that_it_was_made_in() {
    let pair = Pair::of("CREATE TABLE t(a); CREATE TABLE seen(a)");
    let other = open_plain(&pair.primary_path().with_file_name("other.db"));
    other.execute("ATTACH ?1 AS app", [pair.primary_path().to_str()]).unwrap();
    other
        .execute_batch("CREATE TRIGGER app.note AFTER INSERT ON app . t BEGIN INSERT INTO seen VALUES (new.a); END")
        .unwrap();
    pair.run("INSERT INTO t VALUES (1)");
    let replica = pair.check();
    let text = "SELECT sql FROM sqlite_schema WHERE name = 'note'";
    assert!(replica.text(text).contains("ON app . t"), "{}", replica.text(text));
    assert_eq!(replica.text("SELECT a FROM seen"), "1");
}
