//! Goal: rows whose capture trigger did not run are captured all the same, as far as anything in SQLite tells of them:
//! RAISE in the application's AFTER triggers, triggers switched off (T25), and by hand what nothing tells of (T11).
//!
//! Method: the application's triggers are made before and after ours, on tables with every kind of key; dumps are compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::rusqlite::config::DbConfig;
use harness::rusqlite::MAIN_DB;
use harness::{in_every_order, Pair, Shell, Sql};

const TABLES: &str = "
    CREATE TABLE i(id INTEGER PRIMARY KEY, n, note); CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, n, note);
    CREATE TABLE h(n, note); CREATE TABLE k(name TEXT PRIMARY KEY, n); CREATE TABLE w(name TEXT PRIMARY KEY, n) WITHOUT ROWID;
    CREATE TABLE log(what);
    INSERT INTO i VALUES (1, 0, 'old'), (2, 0, 'old'), (3, 0, 'old'); INSERT INTO a VALUES (1, 0, 'old'), (2, 0, 'old');
    INSERT INTO h VALUES (0, 'old'), (0, 'older'); INSERT INTO k VALUES ('a', 0), ('b', 0), ('c', 0);
    INSERT INTO w VALUES ('a', 0), ('b', 0), ('c', 0);";

fn triggers(raise: &str) -> String {
    ["i", "a", "h", "k", "w"]
        .iter()
        .flat_map(|table| {
            ["INSERT", "UPDATE", "DELETE"].map(|event| {
                let row = if event == "DELETE" { "OLD" } else { "NEW" };
                format!("CREATE TRIGGER {table}_{event} AFTER {event} ON {table} WHEN {row}.n = 1 BEGIN SELECT {raise}; END;\n")
            })
        })
        .collect()
}

const IGNORED: &[&str] = &[
    "INSERT INTO i VALUES (10, 1, 'x'), (11, 2, 'y'), (12, 1, 'z')",
    "INSERT INTO i(n, note) VALUES (1, 'automatic'), (1, 'again')",
    "INSERT INTO a(n, note) VALUES (1, 'automatic'), (2, 'seen'), (1, 'again')",
    "INSERT INTO h VALUES (1, 'hidden'), (2, 'seen'), (1, 'hidden')",
    "INSERT INTO k VALUES ('d', 1), ('e', 2), ('f', 1)",
    "INSERT INTO w VALUES ('d', 1), ('e', 2), ('f', 1)",
    "UPDATE i SET n = 1 WHERE id < 3",
    "UPDATE i SET n = 1, id = id + 100 WHERE id = 3",
    "UPDATE h SET n = 1, note = note || '!'; UPDATE h SET rowid = rowid + 50 WHERE note LIKE 'old%'",
    "UPDATE k SET n = 1, name = name || '2'; UPDATE w SET n = 1 WHERE name = 'b'",
    "DELETE FROM i WHERE id IN (1, 10); DELETE FROM h WHERE note LIKE 'hidden%'; DELETE FROM k WHERE name = 'a2'; DELETE FROM w WHERE name = 'b'",
    "BEGIN; INSERT INTO i VALUES (500, 1, 'lost'); ROLLBACK; INSERT INTO i VALUES (501, 1, 'kept')",
    "REPLACE INTO i VALUES (501, 1, 'replaced'); REPLACE INTO k VALUES ('e', 1)",
    "DELETE FROM a",
];

const FAILED: &[&str] = &[
    "!INSERT INTO i VALUES (10, 2, 'x'), (11, 1, 'y'), (12, 2, 'z')",
    "!INSERT INTO i(n, note) VALUES (2, 'automatic'), (1, 'stays'), (2, 'never')",
    "!INSERT INTO a(n, note) VALUES (1, 'automatic')",
    "!INSERT INTO h VALUES (2, 'seen'), (1, 'hidden')",
    "!INSERT INTO k VALUES ('d', 2), ('e', 1)",
    "!INSERT INTO w VALUES ('d', 2), ('e', 1)",
    "!UPDATE i SET n = 1",
    "!UPDATE h SET n = 1, rowid = rowid + 100",
    "!UPDATE k SET n = 1, name = name || '2'",
    "!DELETE FROM i WHERE n = 1",
    "!UPDATE OR FAIL i SET n = 1 WHERE id = 2",
    "BEGIN; INSERT INTO log VALUES ('begun')",
    "!INSERT INTO i VALUES (600, 1, 'stays')",
    "COMMIT",
];

#[test]
fn rows_that_raise_ignore_hides_are_captured() {
    in_every_order(&format!("{TABLES}{}", triggers("RAISE(IGNORE)")), IGNORED);
    let later = triggers("RAISE(IGNORE)");
    in_every_order(TABLES, &[&[later.as_str()], IGNORED].concat());
}

#[test]
fn a_changed_key_of_a_without_rowid_table_hidden_by_raise_ignore_is_captured() {
    in_every_order(
        &format!("{TABLES}{}", triggers("RAISE(IGNORE)")),
        &["UPDATE w SET n = 1, name = name || '2'", "UPDATE OR REPLACE w SET n = 1, name = 'b2' WHERE name = 'a2'"],
    );
}

#[test]
fn rows_that_stay_after_raise_fail_are_captured() {
    in_every_order(&format!("{TABLES}{}", triggers("RAISE(FAIL, 'no')")), FAILED);
    let later = triggers("RAISE(FAIL, 'no')");
    in_every_order(TABLES, &[&[later.as_str()], FAILED].concat());
}

/// No hook of ours sees what such a writer does: all must be in the log.
#[test]
fn what_raise_hides_of_a_writer_without_the_extension_is_captured() {
    for (raise, steps) in [("RAISE(IGNORE)", IGNORED), ("RAISE(FAIL, 'no')", FAILED)] {
        for triggers_first in [true, false] {
            let first = if triggers_first { triggers(raise) } else { String::new() };
            let mut pair = Pair::of(&format!("{TABLES}{first}"));
            if !triggers_first {
                pair.run(&triggers(raise));
            }
            pair.check();
            let mut shell = Shell::open(&pair.primary_path());
            for step in steps {
                eprintln!("{raise}, its triggers first: {triggers_first}: {step}");
                let answer = shell.ask(&format!("{};", step.trim_start_matches('!')));
                assert_eq!(answer.err.is_empty(), !step.starts_with('!'), "{}", answer.err);
                if !step.starts_with("BEGIN; INSERT INTO log") {
                    pair.check();
                }
            }
            pair.check_fresh();
        }
    }
}

/// Triggers of the application that are newer than ours fire first, until the publisher has made ours anew.
#[test]
fn what_triggers_hide_that_no_publisher_has_seen_yet_is_captured() {
    for (raise, steps) in [("RAISE(IGNORE)", IGNORED), ("RAISE(FAIL, 'no')", FAILED)] {
        for event in ["INSERT", "UPDATE", "DELETE"] {
            let mut pair = Pair::of(TABLES);
            pair.check();
            pair.run("SELECT logos_stop()");
            let triggers = triggers(raise);
            let mut shell = Shell::open(&pair.primary_path());
            for trigger in triggers.lines().filter(|line| line.contains(event)) {
                shell.must(trigger);
            }
            for step in steps {
                shell.ask(&format!("{};", step.trim_start_matches('!')));
            }
            harness::pair::publish(&pair.primary, &pair.url);
            eprintln!("{raise} after {event}");
            pair.check();
            pair.check_fresh();
        }
    }
}

#[test]
fn rows_written_by_triggers_around_a_failure_are_captured() {
    let triggers = "
        CREATE UNIQUE INDEX iu ON i(note) WHERE note LIKE 'u%';
        CREATE TRIGGER i_nested AFTER INSERT ON i BEGIN
            INSERT INTO a(n, note) VALUES (NEW.n, 'from i'); INSERT OR FAIL INTO k VALUES (NEW.note, NEW.n); INSERT INTO h VALUES (NEW.n, 'end');
        END;
        CREATE TRIGGER a_nested AFTER INSERT ON a WHEN NEW.n = 5 BEGIN
            UPDATE i SET n = 6 WHERE id = 2; SELECT RAISE(IGNORE);
        END;
        CREATE TRIGGER k_nested AFTER INSERT ON k WHEN NEW.n = 7 BEGIN SELECT RAISE(FAIL, 'seven'); END;";
    let steps = &[
        "INSERT INTO i VALUES (20, 3, 'fine')",
        "!INSERT OR FAIL INTO i VALUES (21, 3, 'ua'), (22, 3, 'a'), (23, 3, 'never')",
        "INSERT INTO i VALUES (24, 5, 'nested ignore')",
        "!INSERT INTO i VALUES (25, 3, 'first'), (26, 7, 'nested fail'), (27, 3, 'never')",
        "!INSERT OR FAIL INTO i VALUES (28, 3, 'ub'), (29, 3, 'ub')",
        "!UPDATE OR FAIL i SET note = 'uc' WHERE id < 3",
        "INSERT OR REPLACE INTO i VALUES (30, 8, 'uc')",
        "INSERT OR IGNORE INTO i VALUES (31, 8, 'uc'), (32, 8, 'ud')",
    ];
    in_every_order(&format!("{TABLES}{triggers}"), steps);
    in_every_order(TABLES, &[&[triggers], steps.as_slice()].concat());
}

fn warnings(pair: &Pair) -> String {
    harness::status_of(&pair.primary, &pair.primary_path()).unwrap().warnings
}

/// Tables WITHOUT ROWID, and deletes of everything, tell the update hook nothing: they need `logos_touch` or a trigger.
#[test]
fn with_triggers_switched_off_rows_arrive_and_the_status_warns() {
    for one_message in [true, false] {
        let options = if one_message { r#"{"batch_ms":60000}"# } else { "{}" };
        let mut pair = Pair::with_options(TABLES, options);
        pair.check();
        assert_eq!(warnings(&pair), "");
        pair.primary.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
        for step in [
            "INSERT INTO i VALUES (10, 1, 'x'); INSERT INTO a(n) VALUES (1); INSERT INTO h VALUES (1, 'h'); INSERT INTO k VALUES ('z', 1)",
            "UPDATE i SET n = 9 WHERE id = 1; UPDATE h SET n = 9; UPDATE k SET n = 9 WHERE name = 'a'",
            "DELETE FROM i WHERE id = 2; DELETE FROM h WHERE note = 'old'; DELETE FROM k WHERE name = 'b'",
            "UPDATE i SET id = 77 WHERE id = 3; UPDATE k SET name = 'moved' WHERE name = 'c'; UPDATE h SET rowid = 55 WHERE note = 'older'",
            "BEGIN; INSERT INTO i VALUES (20, 1, 'lost'); ROLLBACK; INSERT INTO i VALUES (21, 1, 'kept')",
        ] {
            eprintln!("{step}");
            pair.run(step);
            if !one_message {
                pair.check();
            }
        }
        pair.check();
        pair.check_fresh();
        assert!(warnings(&pair).contains("trigger"), "{}", warnings(&pair));
        pair.primary.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).unwrap();
        pair.run("UPDATE w SET n = 5; UPDATE i SET n = 6");
        pair.check();
    }
}

#[test]
fn rows_replaced_while_triggers_are_switched_off_arrive() {
    let pair = Pair::of(&format!(
        "{TABLES} CREATE UNIQUE INDEX kn ON k(n) WHERE n > 0; CREATE UNIQUE INDEX inote ON i(note) WHERE n > 0;"
    ));
    pair.run("UPDATE k SET n = 1 WHERE name = 'a'; UPDATE k SET n = 2 WHERE name = 'b'; UPDATE i SET n = id, note = 'n' || id");
    pair.check();
    pair.primary.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    for step in [
        "REPLACE INTO i VALUES (1, 1, 'by its key')",
        "REPLACE INTO k VALUES ('b', 5)",
        "REPLACE INTO k VALUES ('new', 1)",
        "REPLACE INTO i VALUES (50, 1, 'n2')",
        "UPDATE OR REPLACE i SET note = 'n3' WHERE id = 50",
    ] {
        eprintln!("{step}");
        pair.run(step);
        pair.check();
    }
}

/// Rows of tables WITHOUT ROWID, and rows deleted all at once, are told to no hook; here in one transaction with rows that are.
#[test]
fn what_no_hook_tells_of_arrives_with_what_one_does() {
    for step in ["INSERT INTO w VALUES ('z', 1)", "DELETE FROM w", "DELETE FROM h"] {
        let pair = Pair::of(TABLES);
        pair.check();
        pair.primary.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
        eprintln!("{step}");
        pair.run(&format!("BEGIN; INSERT INTO i VALUES (10, 1, 'x'); {step}; COMMIT"));
        pair.check();
    }
}

/// A TEMP trigger fires before ours. The log row of its UPDATE looks to the hooks like the one of the row that it keeps from the log.
#[test]
fn what_stays_after_a_temp_trigger_has_failed_is_captured() {
    let setup = "CREATE TABLE t(id INTEGER PRIMARY KEY, n UNIQUE); CREATE TABLE k(name TEXT PRIMARY KEY, n UNIQUE);
         INSERT INTO t VALUES (1, 1), (2, 2); INSERT INTO k VALUES ('a', 1), ('b', 2);";
    let mut pair = Pair::of(setup);
    pair.check();
    for table in ["t", "k"] {
        for event in ["INSERT", "UPDATE"] {
            let key = if table == "t" { "id" } else { "name" };
            pair.run(&format!(
                "CREATE TEMP TRIGGER {table}_{event} AFTER {event} ON main.{table} WHEN NEW.{key} IN (7, '8', 'g', 'h') BEGIN
                     UPDATE {table} SET n = 1 WHERE n = 2; END"
            ));
        }
    }
    for step in [
        "INSERT OR FAIL INTO t VALUES (5, 5), (7, 7), (9, 9)",
        "INSERT OR FAIL INTO k VALUES ('e', 5), ('g', 7), ('i', 9)",
        "UPDATE OR FAIL t SET id = 8 WHERE id = 5",
        "UPDATE OR FAIL k SET name = 'h' WHERE name = 'e'",
    ] {
        eprintln!("{step}");
        assert!(pair.primary.try_run(step).is_err());
        pair.check();
    }
    assert_eq!(warnings(&pair), "");
    pair.check_fresh();
}

fn silent_shell(pair: &Pair) -> Shell {
    let mut shell = Shell::open(&pair.primary_path());
    shell.must(".dbconfig enable_trigger off\n;");
    shell
}

/// Another program's commit is known by its number alone. It is explained by nothing that was there before, or that we did ourselves.
#[test]
fn another_program_with_triggers_off_is_noticed_beside_what_changed_before() {
    let mut pair = Pair::new();
    pair.check();
    let mut shell = silent_shell(&pair);
    pair.run("CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, n); CREATE TABLE b(n)");
    pair.check();
    shell.must("INSERT INTO b VALUES (1);");
    pair.check();
    shell.must("INSERT INTO a(n) VALUES (1), (2);");
    pair.check();
    pair.run("ANALYZE");
    pair.check();
    shell.must("UPDATE a SET n = 3;");
    pair.check();
    pair.check_fresh();
}

#[test]
fn a_backup_that_undoes_what_the_log_does_not_show_is_noticed() {
    let pair = Pair::of("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
    pair.check();
    let mut shell = silent_shell(&pair);
    let saved = pair.dir.file("saved.db");
    shell.must(&format!(".backup '{}'\n;", saved.display()));
    shell.must("INSERT INTO t VALUES (2);");
    pair.check();
    shell.must(&format!(".restore '{}'\n;", saved.display()));
    pair.check();
    assert_eq!(pair.primary.int("SELECT count(*) FROM t"), 1);
}

#[test]
fn a_blob_written_in_place_is_brought_by_a_touch() {
    let pair = Pair::of(
        "CREATE TABLE i(id INTEGER PRIMARY KEY, b BLOB); CREATE TABLE k(name TEXT PRIMARY KEY, b BLOB); CREATE TABLE h(b BLOB);
         INSERT INTO i VALUES (1, zeroblob(10)); INSERT INTO k VALUES ('a', zeroblob(10)); INSERT INTO h VALUES (zeroblob(10));",
    );
    pair.check();
    for table in ["i", "k", "h"] {
        let mut blob = pair.primary.blob_open(MAIN_DB, table, "b", 1, false).unwrap();
        blob.write_at(b"inside", 2).unwrap();
        blob.close().unwrap();
    }
    // No trigger tells of it. Where it is seen at all, as a commit that nothing explains, the tables are sent whole.
    assert_eq!(pair.primary.int("SELECT count(*) FROM _logos_log WHERE seq > 0"), 0);
    pair.run("SELECT logos_touch('i', 1), logos_touch('k', 'a'), logos_touch('h', 1)");
    pair.check();
}
