//! Goal: virtual tables are replicated as far as their module lets us: FTS5 with its own and with external content, FTS4 and
//! rtree answer alike on a replica; what cannot be replicated is named in the status and holds up nothing (T5).
//!
//! Method: each module is taken through every kind of statement in every order relative to the publisher; after each step
//! rows, MATCH and box queries of primary and replica are compared, and the module's own integrity check runs on both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::pair::{attach, flush};
use harness::rusqlite::config::DbConfig;
use harness::{open, Connection, Pair, Shell, Sql};

/// Runs a scenario as `harness::in_every_order` does, and compares what the queries answer after each step.
fn answers_alike(setup: &str, steps: &[&str], queries: &[&str], checks: &[&str]) {
    for before in [true, false] {
        for one_message in [true, false] {
            eprintln!("setup before publishing: {before}, all steps in one message: {one_message}");
            let options = if one_message { r#"{"batch_ms":60000}"# } else { "{}" };
            let mut pair = Pair::with_options(if before { setup } else { "" }, options);
            if !before {
                pair.run(setup);
            }
            same_answers(&pair.primary, &pair.check(), queries, checks);
            for step in steps {
                eprintln!("  {step}");
                pair.step(step);
                if !one_message {
                    same_answers(&pair.primary, &pair.check(), queries, checks);
                }
            }
            same_answers(&pair.primary, &pair.check(), queries, checks);
            let fresh = pair.check_fresh();
            same_answers(&pair.primary, &fresh, queries, checks);
            pair.run("SELECT logos_stop()");
        }
    }
}

fn same_answers(primary: &Connection, replica: &Connection, queries: &[&str], checks: &[&str]) {
    for query in queries {
        assert_eq!(primary.texts(query), replica.texts(query), "{query}");
    }
    for check in checks {
        for conn in [primary, replica] {
            let said = conn.try_texts(check).unwrap_or_else(|error| panic!("{check}: {error}"));
            assert!(said.is_empty() || said == ["ok"], "{check}: {said:?}");
        }
    }
    assert_eq!(replica.texts("PRAGMA integrity_check"), ["ok"]);
}

fn warnings(conn: &Connection) -> String {
    harness::status::warnings(conn, "primary")
}

const FTS_QUERIES: &[&str] = &[
    "SELECT rowid || title || body FROM d WHERE d MATCH 'fox' ORDER BY rowid",
    "SELECT rowid FROM d WHERE d MATCH 'quick OR bear' ORDER BY rowid",
    "SELECT rowid FROM d WHERE d MATCH 'run*' ORDER BY rowid",
    "SELECT rowid FROM d WHERE d MATCH 'title:second' ORDER BY rowid",
    "SELECT rowid FROM d WHERE d MATCH '\"brown fox\"' ORDER BY rowid",
    "SELECT snippet(d) FROM d WHERE d MATCH 'number' ORDER BY rowid",
];

const FTS5_QUERIES: &[&str] = &[
    "SELECT rowid || title || body FROM d WHERE d MATCH 'fox' ORDER BY rowid",
    "SELECT rowid || ' ' || round(rank, 6) FROM d('fox') ORDER BY rank, rowid",
    "SELECT rowid FROM d WHERE d MATCH 'quick OR bear' ORDER BY rowid",
    "SELECT rowid FROM d WHERE d MATCH 'run*' ORDER BY rowid",
    "SELECT rowid FROM d WHERE d MATCH 'title:second' ORDER BY rowid",
    "SELECT rowid FROM d WHERE d MATCH '\"brown fox\"' ORDER BY rowid",
    "SELECT highlight(d, 1, '<', '>') FROM d WHERE d MATCH 'number' ORDER BY rowid",
];

const MANY: &str = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 700)";

#[test]
fn fts5_with_its_own_content_answers_alike() {
    let many = format!(
        "{MANY} INSERT INTO d(rowid, title, body) SELECT 1000 + i, 'many ' || i, 'fox number ' || i % 7 FROM c"
    );
    answers_alike(
        "CREATE VIRTUAL TABLE d USING fts5(title, body, note UNINDEXED, tokenize = 'porter unicode61', prefix = '2 3');
         CREATE TABLE plain(id INTEGER PRIMARY KEY, v);",
        &[
            "INSERT INTO d VALUES ('First', 'the quick brown fox', 'n1'), ('Second', 'lazy dogs running', x'00ff'), \
             ('Third', 'quick quick fox runs', NULL)",
            "INSERT INTO d(rowid, title, body) VALUES (100, 'Hundred', 'a fox with a number'); INSERT INTO plain VALUES (1, 2)",
            "UPDATE d SET body = 'the slow brown bear' WHERE rowid = 1",
            "UPDATE d SET rowid = 200 WHERE rowid = 100",
            "BEGIN; INSERT INTO d(title, body) VALUES ('kept', 'fox one'); SAVEPOINT s; DELETE FROM d; \
             INSERT INTO d(title, body) VALUES ('lost', 'fox two'); ROLLBACK TO s; \
             INSERT INTO d(title, body) VALUES ('kept too', 'brown fox'); RELEASE s; COMMIT",
            "BEGIN; DELETE FROM d; INSERT INTO d(title, body) VALUES ('lost', 'fox'); ROLLBACK",
            "DELETE FROM d WHERE rowid = 2",
            "INSERT OR REPLACE INTO d(rowid, title, body) VALUES (1, 'replaced', 'fox again'), (3, 'second', 'x')",
            "REPLACE INTO d(rowid, title) VALUES (1, 'gone at once'); DELETE FROM d WHERE rowid = 1",
            "!INSERT INTO d(rowid, title) VALUES (3, 'clash')",
            "INSERT INTO d(d) VALUES ('optimize')",
            "INSERT INTO d(d) VALUES ('rebuild')",
            "INSERT INTO d(d, rank) VALUES ('automerge', 8); INSERT INTO d(d, rank) VALUES ('merge', 16)",
            &many,
            "UPDATE d SET title = title || ' second', note = 5 WHERE rowid % 3 = 0",
            "DELETE FROM d WHERE rowid BETWEEN 1100 AND 1500",
            "DELETE FROM d",
            "INSERT INTO d VALUES ('Second', 'brown fox', 1)",
        ],
        FTS5_QUERIES,
        &["INSERT INTO d(d) VALUES ('integrity-check')"],
    );
}

const EXTERNAL: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, title, body, u UNIQUE);
    CREATE VIRTUAL TABLE d USING fts5(title, body, content = 't', content_rowid = 'id');
    CREATE TRIGGER t_ai AFTER INSERT ON t BEGIN
        INSERT INTO d(rowid, title, body) VALUES (new.id, new.title, new.body);
    END;
    CREATE TRIGGER t_ad AFTER DELETE ON t BEGIN
        INSERT INTO d(d, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
    END;
    CREATE TRIGGER t_au AFTER UPDATE ON t BEGIN
        INSERT INTO d(d, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
        INSERT INTO d(rowid, title, body) VALUES (new.id, new.title, new.body);
    END;";

#[test]
fn fts5_with_external_content_answers_alike() {
    let many = format!("{MANY} INSERT INTO t SELECT 1000 + i, 'many ' || i, 'fox number ' || i % 7, i FROM c");
    answers_alike(
        // REPLACE runs the application's delete trigger only with recursive triggers.
        &format!("PRAGMA recursive_triggers = ON; {EXTERNAL}"),
        &[
            "INSERT INTO t VALUES (1, 'First', 'the quick brown fox', 'a'), (2, 'Second', 'lazy dogs running', 'b'), (3, NULL, 'fox', 'c')",
            "UPDATE t SET body = 'the slow brown bear' WHERE id = 1",
            "UPDATE t SET id = 200 WHERE id = 2",
            "UPDATE t SET u = 'other'  WHERE id = 3",
            "BEGIN; INSERT INTO t(title, body) VALUES ('kept', 'fox one'); SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; RELEASE s; COMMIT",
            "REPLACE INTO t VALUES (1, 'replaced', 'fox again', 'z')",
            "REPLACE INTO t VALUES (77, 'by another index', 'brown fox', 'z')",
            "BEGIN; DELETE FROM t; ROLLBACK",
            "INSERT INTO d(d) VALUES ('optimize')",
            "INSERT INTO d(d) VALUES ('rebuild')",
            "INSERT INTO d(d) VALUES ('delete-all'); INSERT INTO d(d) VALUES ('rebuild')",
            &many,
            "UPDATE t SET title = title || ' second' WHERE id % 3 = 0",
            "DELETE FROM t WHERE id BETWEEN 1100 AND 1500",
            "BEGIN; UPDATE t SET u = 'swap' WHERE id = 3; UPDATE t SET u = 'other' WHERE id = 77; UPDATE t SET u = 'z' WHERE id = 3; COMMIT",
            "DELETE FROM t",
            "INSERT INTO t VALUES (5, 'Second', 'brown fox', 1)",
        ],
        FTS5_QUERIES,
        &["INSERT INTO d(d) VALUES ('integrity-check')", "INSERT INTO d(d, rank) VALUES ('integrity-check', 1)"],
    );
}

#[test]
fn fts4_answers_alike() {
    let many = format!(
        "{MANY} INSERT INTO d(docid, title, body) SELECT 1000 + i, 'many ' || i, 'fox number ' || i % 7 FROM c"
    );
    answers_alike(
        "CREATE VIRTUAL TABLE d USING fts4(title, body, tokenize=porter, prefix=\"2,3\", notindexed=title2, title2);
         CREATE VIRTUAL TABLE three USING fts3(x);",
        &[
            "INSERT INTO d(title, body) VALUES ('First', 'the quick brown fox'), ('Second', 'lazy dogs running'), ('Third', 'quick fox')",
            "INSERT INTO d(docid, title, body, title2) VALUES (100, 'Hundred', 'a fox with a number', 5); INSERT INTO three VALUES ('abc')",
            "UPDATE d SET body = 'the slow brown bear' WHERE docid = 1",
            "UPDATE d SET docid = 200 WHERE docid = 100",
            "BEGIN; INSERT INTO d(title, body) VALUES ('kept', 'fox one'); SAVEPOINT s; DELETE FROM d; ROLLBACK TO s; RELEASE s; COMMIT",
            "BEGIN; DELETE FROM d; ROLLBACK",
            "DELETE FROM d WHERE docid = 2",
            "INSERT OR REPLACE INTO d(docid, title, body) VALUES (1, 'replaced', 'fox again')",
            "INSERT INTO d(d) VALUES ('optimize')",
            "INSERT INTO d(d) VALUES ('rebuild')",
            "INSERT INTO d(d) VALUES ('merge=20,8')",
            &many,
            "DELETE FROM d WHERE docid BETWEEN 1100 AND 1500",
            "DELETE FROM d",
            "INSERT INTO d(title, body) VALUES ('Second', 'brown fox')",
        ],
        &[FTS_QUERIES, &["SELECT rowid FROM three WHERE three MATCH 'abc'"]].concat(),
        &["INSERT INTO d(d) VALUES ('integrity-check')"],
    );
}

#[test]
fn fts4_over_a_table_answers_alike() {
    answers_alike(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, title, body);
         CREATE VIRTUAL TABLE d USING fts4(content=\"t\", title, body);
         CREATE TRIGGER t_bu BEFORE UPDATE ON t BEGIN DELETE FROM d WHERE docid = old.rowid; END;
         CREATE TRIGGER t_bd BEFORE DELETE ON t BEGIN DELETE FROM d WHERE docid = old.rowid; END;
         CREATE TRIGGER t_au AFTER UPDATE ON t BEGIN INSERT INTO d(docid, title, body) VALUES (new.rowid, new.title, new.body); END;
         CREATE TRIGGER t_ai AFTER INSERT ON t BEGIN INSERT INTO d(docid, title, body) VALUES (new.rowid, new.title, new.body); END;",
        &[
            "INSERT INTO t VALUES (1, 'First', 'the quick brown fox'), (2, 'Second', 'lazy dogs running'), (3, NULL, 'fox')",
            "UPDATE t SET body = 'the slow brown bear' WHERE id = 1",
            "UPDATE t SET id = 200 WHERE id = 2",
            "DELETE FROM t WHERE id = 3",
            "INSERT INTO d(d) VALUES ('rebuild')",
            "INSERT INTO t VALUES (3, 'new', 'a brown fox')",
        ],
        FTS_QUERIES,
        &["INSERT INTO d(d) VALUES ('integrity-check')"],
    );
}

#[test]
fn rtrees_answer_alike() {
    let many =
        format!("{MANY} INSERT INTO r SELECT i, i % 30, i % 30 + 1, i / 30, i / 30 + 2, 'name ' || i, x'00' FROM c");
    answers_alike(
        "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, y0, y1, +name TEXT, +data BLOB);
         CREATE VIRTUAL TABLE ri USING rtree_i32(id, x0, x1);",
        &[
            &many,
            "INSERT INTO ri VALUES (1, -5, 5), (2, 2147483647, 2147483647)",
            "UPDATE r SET x1 = x1 + 5 WHERE id % 7 = 0; UPDATE ri SET x0 = -6",
            "UPDATE r SET name = 'renamed', data = NULL WHERE id < 20",
            "UPDATE r SET id = id + 10000 WHERE id BETWEEN 50 AND 60",
            "INSERT OR REPLACE INTO r VALUES (3, 0.5, 0.75, -1, 1, 'replaced', 1.5)",
            "!INSERT INTO r VALUES (3, 0, 1, 0, 1, 'clash', NULL)",
            "!INSERT INTO r VALUES (5000, 1, 0, 0, 1, 'not a box', NULL)",
            "BEGIN; DELETE FROM r; ROLLBACK",
            "BEGIN; SAVEPOINT s; DELETE FROM r WHERE id > 5; ROLLBACK TO s; DELETE FROM r WHERE id = 5; COMMIT",
            "DELETE FROM r WHERE x0 > 20",
            "DELETE FROM r; DELETE FROM ri",
            "INSERT INTO r(x0, x1, y0, y1, name) VALUES (1, 2, 3, 4, 'automatic')",
        ],
        &[
            "SELECT id || name FROM r WHERE x0 >= 3 AND x1 <= 6 AND y0 < 10 ORDER BY id",
            "SELECT id FROM r WHERE x1 > 28 ORDER BY id",
            "SELECT id FROM ri WHERE x0 <= 0 AND x1 >= 0 ORDER BY id",
        ],
        &["SELECT rtreecheck('r')", "SELECT rtreecheck('ri')"],
    );
}

#[test]
fn virtual_tables_come_change_and_go_like_others() {
    let mut pair = Pair::of("CREATE VIRTUAL TABLE d USING fts5(a); INSERT INTO d VALUES ('one')");
    pair.check();
    for step in [
        "DROP TABLE d; CREATE VIRTUAL TABLE d USING fts5(b, c); INSERT INTO d VALUES ('two', 'three')",
        "ALTER TABLE d RENAME TO e",
        "INSERT INTO e VALUES ('four', 'five')",
        "BEGIN; CREATE VIRTUAL TABLE f USING fts5(x); INSERT INTO f VALUES ('six'); DROP TABLE e; COMMIT",
        "BEGIN; DROP TABLE f; ROLLBACK",
        "CREATE VIRTUAL TABLE r USING rtree(id, a, b); INSERT INTO r VALUES (1, 2, 3)",
        "DROP TABLE r; CREATE TABLE r(id INTEGER PRIMARY KEY, now_plain); INSERT INTO r VALUES (1, 'x')",
        "DROP TABLE r; CREATE VIRTUAL TABLE r USING rtree(id, a, b, c, d); INSERT INTO r VALUES (7, 1, 2, 3, 4)",
        "VACUUM",
        "CREATE VIRTUAL TABLE \"odd \"\"name\" USING fts5(\"a b\"); INSERT INTO \"odd \"\"name\" VALUES ('seven')",
    ] {
        eprintln!("{step}");
        pair.run(step);
        pair.check();
    }
    let replica = pair.check_fresh();
    assert_eq!(replica.text("SELECT count(*) FROM f('six')"), "1");
    assert_eq!(replica.text("SELECT count(*) FROM \"odd \"\"name\"('seven')"), "1");
    assert_eq!(replica.text("SELECT id FROM r WHERE a <= 1 AND d >= 4"), "7");
}

/// Contentless tables and modules that are views of something else have no rows to send: named, and nothing else stops.
#[test]
fn what_cannot_be_replicated_is_named_and_stops_nothing() {
    let pair = Pair::of(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE VIRTUAL TABLE own USING fts5(a);
         CREATE VIRTUAL TABLE contentless USING fts5(a, content = ''); CREATE VIRTUAL TABLE vocabulary USING fts5vocab(own, row);
         INSERT INTO contentless(rowid, a) VALUES (1, 'before'); INSERT INTO own VALUES ('before');",
    );
    let replica_has = |wanted: &[&str]| {
        harness::pair::flush(&pair.primary);
        let replica = harness::open(&pair.replica_path());
        harness::pair::attach(&replica, &pair.url);
        let names = "name GLOB '_logos*' OR name GLOB 'sqlite_*' OR type = 'shadow'";
        let query = format!("SELECT name FROM pragma_table_list WHERE schema = 'main' AND NOT ({names}) ORDER BY name");
        assert_eq!(replica.texts(&query), wanted);
        for query in ["SELECT id || v FROM t", "SELECT a FROM own('before OR after')"] {
            assert_eq!(pair.primary.texts(query), replica.texts(query));
        }
    };
    replica_has(&["own", "t"]);
    for name in ["contentless", "vocabulary"] {
        assert!(warnings(&pair.primary).contains(name), "{}", warnings(&pair.primary));
    }
    pair.run("INSERT INTO contentless(rowid, a) VALUES (2, 'after'); INSERT INTO t VALUES (1, 'x'); INSERT INTO own VALUES ('after')");
    replica_has(&["own", "t"]);
    pair.run("CREATE VIRTUAL TABLE later USING fts5(a, content=''); INSERT INTO later(rowid, a) VALUES (1, 'x'); UPDATE t SET v = 'y'");
    replica_has(&["own", "t"]);
    assert!(warnings(&pair.primary).contains("later"), "{}", warnings(&pair.primary));
    pair.run("DROP TABLE later; DROP TABLE contentless; DROP TABLE vocabulary; INSERT INTO t VALUES (2, 'z')");
    replica_has(&["own", "t"]);
    harness::wait_until("the warnings are gone", || warnings(&pair.primary).is_empty());
}

/// The shell has modules that this host lacks.
#[test]
fn a_module_that_nobody_here_knows_is_named_and_stops_nothing() {
    let pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    pair.check();
    let archive = pair.dir.file("a.zip");
    let answer = Shell::run(
        &pair.primary_path(),
        &format!(
            "CREATE VIRTUAL TABLE archive USING zipfile('{}'); INSERT INTO t VALUES (1, 'shell');",
            archive.display()
        ),
    );
    assert_eq!(answer.err, "");
    pair.run("INSERT INTO t VALUES (2, 'us')");
    harness::pair::flush(&pair.primary);
    let replica = harness::open(&pair.replica_path());
    harness::pair::attach(&replica, &pair.url);
    assert_eq!(replica.texts("SELECT v FROM t ORDER BY id"), ["shell", "us"]);
    assert!(warnings(&pair.primary).contains("archive"), "{}", warnings(&pair.primary));
}

#[test]
fn a_shell_without_the_extension_is_captured_in_virtual_tables_too() {
    let mut pair = Pair::of(&format!(
        "{EXTERNAL} CREATE VIRTUAL TABLE own USING fts5(a); CREATE VIRTUAL TABLE r USING rtree(id, a, b);"
    ));
    pair.check();
    for script in [
        "INSERT INTO t VALUES (1, 'shell', 'fox', 1); INSERT INTO own VALUES ('shell fox'); INSERT INTO r VALUES (1, 2, 3);",
        "UPDATE t SET body = 'bear'; UPDATE own SET a = 'bear' WHERE own MATCH 'fox'; UPDATE r SET b = 9;",
        "CREATE VIRTUAL TABLE second USING fts5(a); INSERT INTO second VALUES ('fox');",
        "INSERT INTO second VALUES ('another fox'); DELETE FROM own; INSERT INTO own(own) VALUES ('optimize');",
    ] {
        assert_eq!(Shell::run(&pair.primary_path(), script).err, "", "{script}");
        let queries = &["SELECT rowid FROM d('bear')", "SELECT rowid FROM own('bear')", "SELECT id FROM r WHERE b > 5"];
        same_answers(&pair.primary, &pair.check(), queries, &["INSERT INTO d(d) VALUES ('integrity-check')"]);
    }
    let replica = pair.check_fresh();
    assert_eq!(replica.int("SELECT count(*) FROM second('fox')"), 2);
}

/// Newer shells and PHP open every database so, and SQLite then takes a trigger on a shadow table for a damaged schema.
#[test]
fn a_defensive_reader_can_read_a_replica_with_virtual_tables() {
    let pair = Pair::of(&format!(
        "{EXTERNAL} CREATE VIRTUAL TABLE own USING fts5(a); CREATE VIRTUAL TABLE r USING rtree(id, a, b);
         INSERT INTO t VALUES (1, 'a', 'fox', 1); INSERT INTO own VALUES ('fox'); INSERT INTO r VALUES (1, 2, 3)"
    ));
    drop(pair.check());
    let reader = harness::open_plain(&pair.replica_path());
    reader.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).unwrap();
    for query in ["SELECT rowid FROM d('fox')", "SELECT rowid FROM own('fox')", "SELECT id FROM r WHERE b >= 3"] {
        assert_eq!(reader.texts(query), ["1"], "{query}");
    }
    assert!(reader.fails("INSERT INTO t(id) VALUES (5)").contains("read-only replica"));
}
#[test]
fn virtual_tables_are_captured_from_defensive_connections() {
    for before in [true, false] {
        let setup =
            format!("{EXTERNAL} CREATE VIRTUAL TABLE own USING fts5(a); CREATE VIRTUAL TABLE r USING rtree(id, a, b);");
        let pair = Pair::of(if before { &setup } else { "" });
        pair.primary.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).unwrap();
        if !before {
            pair.run(&setup);
        }
        pair.check();
        pair.run(
            "INSERT INTO t VALUES (1, 'a', 'fox', 1); INSERT INTO own VALUES ('fox'); INSERT INTO r VALUES (1, 2, 3)",
        );
        pair.check();
        pair.run(
            "UPDATE t SET body = 'bear'; UPDATE own SET a = 'bear'; UPDATE r SET b = 9; DELETE FROM t WHERE id = 9",
        );
        let queries = &["SELECT rowid FROM d('bear')", "SELECT rowid FROM own('bear')", "SELECT id FROM r WHERE b > 5"];
        same_answers(&pair.primary, &pair.check(), queries, &["INSERT INTO d(d) VALUES ('integrity-check')"]);
        assert_eq!(warnings(&pair.primary), "");
    }
}

#[test]
fn rows_without_any_token_and_tables_made_anew_are_sent_too() {
    const QUERIES: &[&str] = &["SELECT rowid || a || b FROM d ORDER BY rowid"];
    for module in [
        "fts5(a, b UNINDEXED)",
        "fts5(a, b UNINDEXED, columnsize = 0)",
        "fts4(a, b, notindexed=b)",
        "fts4(a, b, notindexed=b, matchinfo=fts3)",
    ] {
        let create = format!("CREATE VIRTUAL TABLE d USING {module}");
        let insert = "INSERT INTO d(rowid, a, b) VALUES (1, 'hello', 'x'), (2, '', 'y'), (3, 'w', 'z')";
        let anew = format!("BEGIN; DROP TABLE d; {create}; INSERT INTO d(rowid, a, b) VALUES (1, 'other', 'x'), (2, '', 'y'), (3, 'v', 'z'); COMMIT");
        let steps = ["UPDATE d SET b = 'Y' WHERE rowid = 2", "UPDATE d SET b = 'X' WHERE rowid = 1", &anew];
        answers_alike(&format!("{create}; {insert}"), &steps, QUERIES, &[]);
    }
}

#[test]
fn a_column_may_be_called_like_an_option() {
    answers_alike(
        "CREATE TABLE posts(id INTEGER PRIMARY KEY, title, content); INSERT INTO posts VALUES (1, 'a', 'hello world');
         CREATE VIRTUAL TABLE d USING fts5(title, content, content = 'posts', content_rowid = 'id');
         INSERT INTO d(d) VALUES ('rebuild');",
        &["INSERT INTO posts VALUES (2, 'b', 'hello you'); INSERT INTO d(rowid, title, content) VALUES (2, 'b', 'hello you')"],
        &["SELECT rowid FROM d WHERE d MATCH 'hello' ORDER BY rowid"],
        &["INSERT INTO d(d, rank) VALUES ('integrity-check', 1)"],
    );
}

#[test]
fn a_virtual_table_is_known_however_its_statement_is_written() {
    for (name, create) in [
        ("\"docs using tags\"", "CREATE VIRTUAL TABLE \"docs using tags\" USING fts5(a)"),
        ("d", "CREATE VIRTUAL TABLE \"d\"USING fts5(a)"),
        ("d", "CREATE VIRTUAL TABLE d USING/**/fts5(a)"),
    ] {
        let pair = Pair::of(&format!("{create}; CREATE TABLE t(id INTEGER PRIMARY KEY)"));
        pair.check();
        assert_eq!(
            pair.primary.int(
                "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name NOT IN ('t', '_logos_log')"
            ),
            0
        );
        for n in 0..300 {
            pair.run(&format!("INSERT INTO {name} VALUES ('hello world {n}')"));
        }
        same_answers(&pair.primary, &pair.check(), &[&format!("SELECT count(*) FROM {name}('world')")], &[]);
    }
}

#[test]
fn an_index_that_does_not_fit_its_table_for_a_while_is_left_out_until_it_does() {
    for (version, rebuild) in [("fts5", ", content_rowid = 'id'"), ("fts4", "")] {
        let create = |column: &str| format!("CREATE VIRTUAL TABLE d USING {version}({column}, content='doc'{rebuild})");
        let mut pair = Pair::of(&format!(
            "CREATE TABLE doc(id INTEGER PRIMARY KEY, t); {}; INSERT INTO doc VALUES (1, 'alpha')",
            create("t")
        ));
        pair.check();
        pair.run(
            "BEGIN; CREATE TABLE new(id INTEGER PRIMARY KEY, body); INSERT INTO new SELECT * FROM doc; DROP TABLE doc; \
             ALTER TABLE new RENAME TO doc; COMMIT",
        );
        // The index itself cannot be read on the primary either, so the table is compared.
        flush(&pair.primary);
        let replica = open(&pair.replica_path());
        attach(&replica, &pair.url);
        assert_eq!(replica.texts("SELECT id || body FROM doc"), pair.primary.texts("SELECT id || body FROM doc"));
        drop(replica);
        assert!(
            warnings(&pair.primary).contains("table d is not replicated: its columns"),
            "{}",
            warnings(&pair.primary)
        );
        pair.run(&format!("DROP TABLE d; {}; INSERT INTO d(d) VALUES ('rebuild')", create("body")));
        let queries = ["SELECT count(*) FROM d WHERE d MATCH 'alpha'"];
        same_answers(&pair.primary, &pair.check(), &queries, &[]);
        let fresh = pair.check_fresh();
        same_answers(&pair.primary, &fresh, &queries, &[]);
        assert_eq!(warnings(&pair.primary), "");
    }
}

/// Until it is made anew, the trigger that writes to it keeps every table from being altered.
#[test]
fn an_index_that_becomes_another_table_keeps_no_table_from_being_altered() {
    let mut pair = Pair::of(
        "CREATE TABLE u(a, b); CREATE TABLE v(a, gone); INSERT INTO v VALUES (1, 2);
         CREATE VIRTUAL TABLE f USING fts5(a, content='u');
         CREATE TRIGGER f_insert AFTER INSERT ON u BEGIN INSERT INTO f(rowid, a) VALUES (NEW.rowid, NEW.a); END;",
    );
    pair.check();
    pair.run("BEGIN; DROP TABLE f; CREATE VIRTUAL TABLE f USING fts5(a, b); ALTER TABLE v DROP COLUMN gone; COMMIT");
    pair.run("INSERT INTO u VALUES ('x', 'y')");
    pair.check();
    pair.check_fresh();
}

#[test]
fn an_index_forgets_a_column_that_was_dropped_and_added_again() {
    let mut pair = Pair::of(
        "CREATE TABLE w(id INTEGER PRIMARY KEY, b, a); INSERT INTO w VALUES (1, 'old', 'x'), (2, 'old', 'y');
         CREATE VIRTUAL TABLE f USING fts5(b, a, content='w', content_rowid='id');",
    );
    pair.check();
    pair.run("BEGIN; ALTER TABLE w DROP COLUMN b; ALTER TABLE w ADD COLUMN b; COMMIT");
    let replica = pair.check();
    assert_eq!(replica.int("SELECT count(*) FROM f WHERE f MATCH 'old'"), 0);
    assert_eq!(replica.int("SELECT count(*) FROM f WHERE f MATCH 'x'"), 1);
    pair.check_fresh();
}

/// After VACUUM we have something to write before new tables are looked at, and who reads keeps us from it.
#[test]
fn an_index_that_has_lost_its_table_is_named_while_somebody_reads() {
    let pair = Pair::of(
        "CREATE TABLE u(a); INSERT INTO u VALUES ('x'), ('y'); CREATE VIRTUAL TABLE docs USING fts4(a, content='u');",
    );
    pair.check();
    let reader = open(&pair.primary_path());
    let mut statement = reader.prepare("SELECT * FROM u").unwrap();
    let mut rows = statement.query([]).unwrap();
    assert!(rows.next().unwrap().is_some());
    pair.run("VACUUM; ALTER TABLE u RENAME TO w");
    flush(&pair.primary);
    assert!(warnings(&pair.primary).contains("table docs is not replicated"), "{}", warnings(&pair.primary));
}

#[test]
fn rows_that_share_a_null_key_enter_an_index_once() {
    let pair = Pair::with_options(
        "CREATE TABLE t(k TEXT PRIMARY KEY, u UNIQUE, body);
         INSERT INTO t VALUES ('a', '1', 'fox'), ('b', '2', 'dog'), (NULL, '3', 'cat'), (NULL, '4', 'cow');
         CREATE VIRTUAL TABLE d USING fts5(body, content = 't'); INSERT INTO d(d) VALUES ('rebuild');",
        r#"{"batch_ms":60000}"#,
    );
    pair.check();
    // The UNIQUE values of the rows with a key and of those without trade places: the latter have to wait.
    pair.run(
        "BEGIN; UPDATE t SET u = u || 'x'; UPDATE t SET u = '3' WHERE k = 'a'; UPDATE t SET u = '4' WHERE k = 'b';
         UPDATE t SET u = '1' WHERE u = '3x'; UPDATE t SET u = '2' WHERE u = '4x'; COMMIT",
    );
    let replica = pair.check();
    replica.run("INSERT INTO d(d, rank) VALUES ('integrity-check', 1)");
    assert_eq!(replica.int("SELECT count(*) FROM d('cat OR cow')"), 2);
}

/// Same words in other case, a column that is not indexed, all rows gone and come in one transaction, an index made anew in it.
#[test]
fn every_change_of_a_row_arrives_also_one_that_leaves_no_trace_in_the_index() {
    for (module, steps) in [
        (
            "fts4(x)",
            [
                "UPDATE d SET x = 'hello, world!'",
                "BEGIN; DELETE FROM d; INSERT INTO d(rowid, x) VALUES (1, 'HELLO world'); COMMIT",
            ],
        ),
        (
            "fts4(x, y, notindexed=y)",
            ["UPDATE d SET y = 'any'", "BEGIN; UPDATE d SET y = 'other'; INSERT INTO d(d) VALUES ('optimize'); COMMIT"],
        ),
        (
            "fts3(x, y)",
            [
                "UPDATE d SET x = 'Hello World'",
                "BEGIN; UPDATE d SET y = 'y'; INSERT INTO d(d) VALUES ('rebuild'); COMMIT",
            ],
        ),
        (
            "fts5(x)",
            [
                "INSERT INTO d(d) VALUES ('rebuild')",
                "BEGIN; UPDATE d SET x = 'hello WORLD'; INSERT INTO d(d) VALUES ('rebuild'); COMMIT",
            ],
        ),
    ] {
        answers_alike(
            &format!("CREATE VIRTUAL TABLE d USING {module}; INSERT INTO d(rowid, x) VALUES (1, 'Hello, world')"),
            &steps,
            &["SELECT * FROM d"],
            &[],
        );
    }
}

#[test]
fn options_are_read_as_the_module_reads_them() {
    let pair = Pair::of(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 'fox');
         CREATE VIRTUAL TABLE short USING fts5(a, c='t', content_r='id'); INSERT INTO short(short) VALUES ('rebuild');
         CREATE VIRTUAL TABLE nothing5 USING fts5(a, con = ); CREATE VIRTUAL TABLE nothing4 USING fts4(a, content=\"\");
         CREATE VIRTUAL TABLE none3 USING fts3(content='t'); INSERT INTO none3 VALUES ('bear');",
    );
    flush(&pair.primary);
    let replica = open(&pair.replica_path());
    attach(&replica, &pair.url);
    assert_eq!(replica.texts("SELECT a FROM short('fox')"), ["fox"]);
    assert_eq!(replica.texts("SELECT content FROM none3 WHERE none3 MATCH 'bear'"), ["bear"]);
    for name in ["nothing5", "nothing4"] {
        let why = format!("table {name} is not replicated: it keeps no content");
        assert!(warnings(&pair.primary).contains(&why), "{}", warnings(&pair.primary));
    }
}

#[test]
fn a_table_with_locales_is_left_out_by_name() {
    let pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY)");
    if pair.primary.try_texts("CREATE VIRTUAL TABLE d USING fts5(a, locale=1)").is_err() {
        return; // before SQLite 3.47
    }
    pair.run("INSERT INTO d VALUES (fts5_locale('tr', 'Istanbul')); INSERT INTO t VALUES (1)");
    flush(&pair.primary);
    let replica = open(&pair.replica_path());
    attach(&replica, &pair.url);
    assert_eq!(replica.texts("SELECT id FROM t"), ["1"]);
    assert!(warnings(&pair.primary).contains("table d is not replicated: its values may have locales"));
}

/// As tools that change a table by copying it leave it behind.
#[test]
fn an_index_may_be_older_than_the_table_that_it_has_its_columns_from() {
    let index =
        "CREATE TABLE t(one, two); CREATE VIRTUAL TABLE d USING fts4(content=t); INSERT INTO t VALUES ('a', 'b');";
    let anew = "BEGIN; CREATE TABLE n(one, two, three); INSERT INTO n SELECT one, two, 'c' FROM t; DROP TABLE t;
                ALTER TABLE n RENAME TO t; COMMIT; INSERT INTO d(d) VALUES ('rebuild');";
    let queries = ["SELECT rowid FROM d WHERE d MATCH 'three:c'", "SELECT count(*) FROM d WHERE d MATCH 'b'"];
    let mut before = Pair::of(&format!("{index}{anew}"));
    let fresh = before.check_fresh();
    same_answers(&before.primary, &fresh, &queries, &[]);
    before.run("SELECT logos_stop()");
    let live = Pair::of(index);
    live.check();
    live.run(anew);
    same_answers(&live.primary, &live.check(), &queries, &[]);
    live.run("DROP TABLE t");
    flush(&live.primary);
    let why = "table d is not replicated: it is an index over \"t\"";
    harness::wait_until("the index is named", || warnings(&live.primary).contains(why));
    // A connection that has the index open goes on with the columns of before.
    let other = harness::open_plain(&live.primary_path());
    other.run("CREATE TABLE t(one, four); INSERT INTO t VALUES ('x', 'y')");
    let other = harness::open_plain(&live.primary_path());
    other.run("INSERT INTO d(d) VALUES ('rebuild')");
    flush(&live.primary);
    let replica = open(&live.replica_path());
    attach(&replica, &live.url);
    same_answers(&other, &replica, &["SELECT rowid FROM d WHERE d MATCH 'four:y'"], &[]);
}

/// Nobody can tell which tables belong to it, and a trigger on one that does would lock out those who have the module.
#[test]
fn tables_that_may_belong_to_a_module_that_is_not_here_are_left_out_by_name() {
    let pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE vector(a)");
    pair.check();
    pair.run(
        "PRAGMA writable_schema = ON; INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING vec0(a)');
         PRAGMA writable_schema = RESET; CREATE TABLE v_chunks(a); CREATE INDEX v_i ON v_chunks(a);
         INSERT INTO v_chunks VALUES (1); INSERT INTO t VALUES (1, 'x'); INSERT INTO vector VALUES (2)",
    );
    flush(&pair.primary);
    let replica = open(&pair.replica_path());
    attach(&replica, &pair.url);
    let tables = "SELECT name FROM sqlite_schema WHERE type <> 'trigger' AND name NOT GLOB '_logos_*' ORDER BY name";
    assert_eq!(replica.texts(tables), ["t", "vector"]);
    assert_eq!(replica.texts("SELECT v FROM t"), ["x"]);
    assert_eq!(
        pair.primary.int("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'v_chunks'"),
        0
    );
    for why in [
        "table v is not replicated: its module vec0",
        "table v_chunks is not replicated: it may belong to virtual table \"v\"",
    ] {
        harness::wait_until("they are named", || warnings(&pair.primary).contains(why));
    }
}

/// Virtual tables are looked at only when a commit may have written to them. Not every way to write shows in the hooks.
#[test]
fn a_virtual_table_is_looked_at_however_it_was_written() {
    let pair = Pair::of(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE VIRTUAL TABLE d USING fts4(x); INSERT INTO d VALUES ('one');
         CREATE VIRTUAL TABLE e USING fts5(x); INSERT INTO e VALUES ('two'); CREATE VIRTUAL TABLE f USING fts5(x);
         INSERT INTO f VALUES ('three');",
    );
    pair.check();
    let settle = || {
        pair.run("INSERT INTO t(v) VALUES (1); CREATE TEMP TABLE IF NOT EXISTS s(a); INSERT INTO s VALUES (1)");
        pair.check();
    };
    let through_another_name = || {
        let other = harness::open(&pair.dir.file("other.db"));
        other.run(&format!("ATTACH '{}' AS x; UPDATE x.e SET x = 'attached'", pair.primary_path().display()));
    };
    for write in [
        "BEGIN; INSERT INTO t(v) VALUES (2); DELETE FROM d; COMMIT",
        "BEGIN; INSERT INTO t(v) VALUES (2); INSERT INTO d VALUES ('one'); COMMIT",
        "ALTER TABLE e RENAME TO g; ALTER TABLE f RENAME TO e; ALTER TABLE g RENAME TO f",
        "BEGIN; ALTER TABLE e RENAME TO g; ALTER TABLE f RENAME TO e; ALTER TABLE g RENAME TO f; COMMIT",
        "BEGIN; SAVEPOINT a; UPDATE e SET x = 'lost'; ROLLBACK TO a; UPDATE f SET x = 'kept'; COMMIT",
        "BEGIN; UPDATE e SET x = 'lost'; ROLLBACK; UPDATE e SET x = 'kept'",
    ] {
        settle();
        pair.run(write);
        pair.check();
    }
    settle();
    through_another_name();
    pair.check();
    settle();
    // An application that sets an update hook displaces ours, and leaves the commit hook.
    // SAFETY: the connection is open and idle; without a function there is nothing to live on.
    unsafe { harness::rusqlite::ffi::sqlite3_update_hook(pair.primary.handle(), None, std::ptr::null_mut()) };
    pair.run("UPDATE e SET x = 'unseen'");
    pair.check();
}

/// SQLite before 3.54 would compile the statement again, and not find its table, where an index is opened between a trigger of the
/// application's and ours.
#[test]
fn a_first_write_after_another_connection_changed_the_schema_does_not_meet_our_trigger() {
    for (index, write) in [
        ("fts5(a)", "INSERT INTO found(a) VALUES (new.a)"),
        ("fts4(a)", "INSERT INTO found(a) VALUES (new.a)"),
        ("rtree(id, low, high)", "INSERT INTO found(low, high) VALUES (length(new.a), 9)"),
    ] {
        for (trigger, statement) in [
            ("BEFORE INSERT", "INSERT INTO item(a) VALUES ('x')"),
            ("INSERT", "INSERT INTO item(id, a) VALUES (7, 'x')"),
            ("AFTER UPDATE", "INSERT INTO item(id, a) VALUES (1, 'x') ON CONFLICT DO UPDATE SET a = excluded.a"),
        ] {
            let pair = Pair::of(&format!(
                "CREATE TABLE item(id INTEGER PRIMARY KEY, a); INSERT INTO item VALUES (1, 'first');
                 CREATE VIRTUAL TABLE found USING {index}; CREATE TRIGGER t {trigger} ON item BEGIN {write}; END;"
            ));
            pair.check();
            let (writer, other) = (open(&pair.primary_path()), open(&pair.primary_path()));
            assert_eq!(writer.int("SELECT count(*) FROM item"), 1);
            other.run("CREATE TABLE news(x)");
            writer.run(statement);
            assert_eq!(writer.int("SELECT count(*) FROM found"), 1, "{index}, {trigger}");
            pair.check();
        }
    }
}
