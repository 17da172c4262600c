//! Goal: whatever ALTER TABLE does to columns arrives, and costs bytes for what changed, not for what happened to look alike.
//!
//! Method: histories that leave the same text and other rows; random ones by the thousand, many tables in a message; and large
//! tables whose messages are weighed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::dice::Dice;
use harness::pair::{flush, try_attach};
use harness::rusqlite::version_number;
use harness::{in_every_order, Pair, Shell, Sql};

/// A table whose rows take some hundred kilobytes in a message.
const BIG: &str = "
    CREATE TABLE big(id INTEGER PRIMARY KEY, v, w, last, CHECK (id > 0));
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
    INSERT INTO big SELECT i, hex(randomblob(20)), hex(randomblob(20)), NULL FROM n;";

/// Runs each step in a message of its own, which must be small.
fn cheap(setup: &str, steps: &[&str]) {
    let mut pair = Pair::of(setup);
    pair.check();
    for step in steps {
        let before = pair.primary.int("SELECT max(seq) FROM logos_log");
        pair.run(step);
        pair.check();
        let bytes = pair.primary.int(&format!("SELECT coalesce(max(bytes), 0) FROM logos_log WHERE seq > {before}"));
        assert!(bytes < 1000, "{bytes} bytes for: {step}");
    }
    pair.check_fresh();
}

#[test]
fn what_was_made_and_dropped_again_costs_nothing() {
    cheap(
        BIG,
        &[
            "BEGIN; CREATE TABLE s(a); INSERT INTO s SELECT id FROM big LIMIT 5; UPDATE big SET v = 'y' WHERE id IN (SELECT a FROM s); DROP TABLE s; COMMIT",
            "BEGIN; CREATE TABLE s(a); CREATE TABLE s2(a); CREATE VIEW s3 AS SELECT 1; DROP VIEW s3; DROP TABLE s2; DROP TABLE s; COMMIT",
            "BEGIN; CREATE TABLE s(a); DROP TABLE s; ALTER TABLE big ADD COLUMN x DEFAULT 4; UPDATE big SET x = 5 WHERE id = 7; COMMIT",
            "CREATE INDEX i ON big(v); DROP INDEX i; UPDATE big SET w = 'q' WHERE id = 3",
            "BEGIN; CREATE TRIGGER g AFTER INSERT ON big BEGIN SELECT 1; END; DROP TRIGGER g; UPDATE big SET last = 1 WHERE id = 4; COMMIT",
        ],
    );
}

#[test]
fn a_change_of_columns_costs_its_statement_whatever_happens_beside() {
    cheap(
        BIG,
        &[
            "ALTER TABLE big ADD COLUMN x DEFAULT 'def'",
            "BEGIN; ALTER TABLE big ADD COLUMN y; ALTER TABLE big RENAME COLUMN v TO label; CREATE TABLE s(a); COMMIT",
            "BEGIN; DROP TABLE s; ALTER TABLE big RENAME COLUMN w TO aside; ALTER TABLE big RENAME COLUMN label TO w; \
             ALTER TABLE big RENAME COLUMN aside TO label; COMMIT",
            "BEGIN; ALTER TABLE big DROP COLUMN w; ALTER TABLE big RENAME COLUMN label TO v; ALTER TABLE big ADD COLUMN z; COMMIT",
            "BEGIN; ALTER TABLE big DROP COLUMN last; ALTER TABLE big DROP COLUMN x; ALTER TABLE big ADD COLUMN last; COMMIT",
            "BEGIN; ALTER TABLE big RENAME TO large; ALTER TABLE large DROP COLUMN y; UPDATE large SET z = 1 WHERE id = 9; COMMIT",
            "BEGIN; ALTER TABLE large DROP COLUMN last; ALTER TABLE large ADD COLUMN last; COMMIT",
        ],
    );
}

#[test]
fn a_trigger_may_be_called_like_a_table_whose_column_was_dropped_and_added_as_it_was() {
    in_every_order(
        "CREATE TABLE users(id INTEGER PRIMARY KEY, x); CREATE TRIGGER audit AFTER INSERT ON users BEGIN SELECT 1; END;
         CREATE TABLE audit(id INTEGER PRIMARY KEY, a, c INT); INSERT INTO audit VALUES (1, 2, 3);",
        &["BEGIN; ALTER TABLE audit DROP COLUMN c; ALTER TABLE audit ADD COLUMN c INT; COMMIT"],
    );
}

#[test]
fn histories_that_leave_one_text_and_other_rows_are_told_apart() {
    let tables =
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c); INSERT INTO t VALUES (1, 'a', 'b', 'c'), (2, 'a', 'b', 'c');";
    for history in [
        "ALTER TABLE t DROP COLUMN b; ALTER TABLE t RENAME COLUMN c TO b",
        "ALTER TABLE t DROP COLUMN c",
        "ALTER TABLE t DROP COLUMN b; ALTER TABLE t RENAME COLUMN a TO d; ALTER TABLE t ADD COLUMN e",
        "ALTER TABLE t DROP COLUMN a; ALTER TABLE t RENAME COLUMN b TO d; ALTER TABLE t ADD COLUMN e",
        "ALTER TABLE t RENAME COLUMN c TO d",
        "ALTER TABLE t DROP COLUMN c; ALTER TABLE t ADD COLUMN d",
        "ALTER TABLE t RENAME COLUMN c TO d; ALTER TABLE t DROP COLUMN d; ALTER TABLE t ADD COLUMN d",
        "ALTER TABLE t RENAME COLUMN b TO x; ALTER TABLE t RENAME COLUMN c TO b; ALTER TABLE t RENAME COLUMN x TO c",
        "ALTER TABLE t DROP COLUMN c; ALTER TABLE t RENAME COLUMN b TO c; ALTER TABLE t RENAME COLUMN c TO b",
        "ALTER TABLE t DROP COLUMN c; ALTER TABLE t RENAME COLUMN b TO c; ALTER TABLE t ADD COLUMN b",
    ] {
        in_every_order(tables, &[&format!("BEGIN; {history}; INSERT INTO t(id) VALUES (3); COMMIT")]);
    }
}

#[test]
fn a_default_is_compared_by_type_and_bytes() {
    for (declared, value) in [
        ("TEXT COLLATE NOCASE DEFAULT 'a'", "'A'"),
        ("DEFAULT 1", "1.0"),
        ("DEFAULT '1'", "1"),
        ("DEFAULT x'61'", "'a'"),
        ("REAL DEFAULT 1", "1.5"),
        ("TEXT DEFAULT 5", "6"),
    ] {
        let setup = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, b {declared}); INSERT INTO t VALUES (1, {value});");
        let scratch = "CREATE TABLE s(a); DROP TABLE s; CREATE TABLE s(a); DROP TABLE s";
        in_every_order(&setup, &[&format!("BEGIN; ALTER TABLE t RENAME COLUMN b TO c; {scratch}; COMMIT")]);
        in_every_order(
            &setup,
            &[&format!("BEGIN; ALTER TABLE t DROP COLUMN b; ALTER TABLE t ADD COLUMN b {declared}; COMMIT")],
        );
    }
}

#[test]
fn a_column_set_back_on_a_replica_is_set_back_in_its_indexes_too() {
    in_every_order(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE INDEX i ON t(b);
         INSERT INTO t VALUES (1, 'x', 'b1'), (2, 'y', 'b2'); CREATE VIRTUAL TABLE f USING fts5(b, content = 't', content_rowid = 'id');",
        &["BEGIN; DROP INDEX i; ALTER TABLE t DROP COLUMN b; ALTER TABLE t ADD COLUMN b; CREATE INDEX i ON t(b); \
          INSERT INTO f(f) VALUES ('rebuild'); COMMIT"],
    );
}

/// As a person edits constraints by hand, in the way that SQLite's page on ALTER TABLE gives.
/// Of a STRICT table: such a default stops no statement until it is used.
#[test]
fn a_default_that_its_column_cannot_hold_stops_no_replica() {
    let setup = "CREATE TABLE t(id INTEGER PRIMARY KEY, a INT NOT NULL DEFAULT 'none', b ANY DEFAULT '1') STRICT;
        INSERT INTO t VALUES (1, 0, 0), (2, 0, 0);";
    let steps = [
        "BEGIN; CREATE TABLE gone(a); DROP TABLE gone; CREATE TABLE stays(a); DELETE FROM t WHERE id = 1; COMMIT",
        "BEGIN; CREATE TABLE gone(a); DROP TABLE gone; CREATE TABLE other(a); DELETE FROM t; COMMIT",
        "BEGIN; ALTER TABLE t DROP COLUMN b; INSERT INTO t VALUES (3, 3); ALTER TABLE t ADD COLUMN b ANY DEFAULT '1'; COMMIT",
    ];
    in_every_order(setup, &steps);
}

fn by_hand(from: &str, to: &str) -> String {
    format!(
        "BEGIN; PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}') WHERE name = 'big'; \
         CREATE TABLE moves_the_cookie(a); DROP TABLE moves_the_cookie; PRAGMA writable_schema = RESET; COMMIT"
    )
}

#[test]
fn constraints_that_come_and_go_cost_a_few_bytes() {
    let there = by_hand("v, w", "v NOT NULL, w");
    let checked = by_hand("CHECK (id > 0)", "CHECK (id > 0 AND v <> 7)");
    let back = by_hand("v NOT NULL, w", "v, w");
    cheap(
        BIG,
        &[&there, "INSERT INTO big(id, v) VALUES (30000, 1)", &checked, &back, "INSERT INTO big(id) VALUES (30001)"],
    );
}

#[test]
fn alter_table_of_newer_sqlite_reaches_a_replica_on_an_older_one() {
    if version_number() < 3_053_000 {
        return;
    }
    let steps = [
        "ALTER TABLE big ALTER COLUMN v SET NOT NULL",
        "ALTER TABLE big ADD CONSTRAINT positive CHECK (id <> -1)",
        "BEGIN; ALTER TABLE big ALTER v DROP NOT NULL; ALTER TABLE big ADD COLUMN x DEFAULT 1; UPDATE big SET v = NULL WHERE id = 1; COMMIT",
        "ALTER TABLE big DROP CONSTRAINT positive",
    ];
    cheap(BIG, &steps);
    let pair = Pair::of(BIG);
    let older = pair.dir.file("older.db");
    for step in std::iter::once(&"").chain(&steps) {
        pair.run(step);
        flush(&pair.primary);
        let script = format!(
            "SELECT count(*) > 0 FROM attach_replica('{}'); PRAGMA integrity_check; \
             SELECT sql FROM sqlite_schema WHERE name = 'big'; SELECT count(*) || ' ' || sum(length(v)) FROM big;",
            pair.url
        );
        let answer = Shell::run_with_logos(&older, &script);
        let text = pair.primary.text("SELECT sql FROM sqlite_schema WHERE name = 'big'");
        let rows = pair.primary.text("SELECT count(*) || ' ' || sum(length(v)) FROM big");
        assert_eq!(
            (answer.out.as_str(), answer.err.as_str()),
            (format!("1\nok\n{text}\n{rows}").as_str(), ""),
            "{step}"
        );
    }
}

#[test]
fn a_column_is_renamed_under_a_trigger_whose_table_goes_with_the_same_message() {
    in_every_order(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE VIRTUAL TABLE g USING rtree(id, x0, x1); INSERT INTO t VALUES (1, 2, 3);
         CREATE TRIGGER fill AFTER INSERT ON t BEGIN INSERT INTO g VALUES (NEW.id, NEW.a, NEW.a); END;",
        &["BEGIN; ALTER TABLE t RENAME COLUMN a TO c; DROP TABLE g; COMMIT", "DROP TRIGGER fill; INSERT INTO t VALUES (2, 3, 4)"],
    );
}

#[test]
fn constraints_are_not_written_over_a_table_that_was_changed_on_the_replica() {
    let pair = Pair::of("CREATE TABLE big(id INTEGER PRIMARY KEY, v, w); INSERT INTO big VALUES (1, 'x', 'y')");
    let replica = pair.check();
    let position = replica.text("SELECT logos_position()");
    replica.run("ALTER TABLE big ADD COLUMN by_hand");
    pair.run(&by_hand("v, w", "v NOT NULL, w"));
    flush(&pair.primary);
    let error = try_attach(&replica, &pair.url, None).unwrap_err().to_string();
    assert!(error.contains("other columns or indexes"), "{error}");
    assert_eq!(replica.text("SELECT logos_position()"), position);
    replica.run("ALTER TABLE big DROP COLUMN by_hand");
    pair.check();
}

/// A table as the random histories know it.
struct Random {
    name: String,
    key: &'static str,
    columns: Vec<(String, &'static str)>,
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const DECLARED: [&str; 9] = [
    "",
    "",
    "",
    "INT",
    "DEFAULT 1",
    "TEXT COLLATE NOCASE DEFAULT 'a'",
    "REAL DEFAULT 1",
    "NOT NULL DEFAULT 5",
    "NUMERIC DEFAULT '1'",
];
const VALUES: [&str; 9] = ["NULL", "NULL", "1", "1.0", "5", "'a'", "'A'", "'1'", "x'61'"];

impl Random {
    fn new(dice: &mut Dice, n: usize) -> Self {
        let key =
            dice.pick(&["INTEGER PRIMARY KEY", "TEXT PRIMARY KEY", "TEXT COLLATE NOCASE NOT NULL PRIMARY KEY", ""]);
        let count = 1 + dice.below(4) as usize;
        let columns = NAMES[..count].iter().map(|n| (n.to_string(), dice.pick(&DECLARED))).collect();
        Self { name: format!("t{n}"), key, columns }
    }

    fn create(&self) -> String {
        let columns = self.columns.iter().map(|(name, declared)| format!(", {name} {declared}")).collect::<String>();
        format!("CREATE TABLE {}(id {}{columns})", self.name, self.key)
    }

    fn free_name(&self, dice: &mut Dice) -> Option<String> {
        let free: Vec<&str> = NAMES.into_iter().filter(|n| self.columns.iter().all(|(name, _)| name != n)).collect();
        (!free.is_empty()).then(|| dice.pick(&free).to_string())
    }

    fn write(&self, dice: &mut Dice) -> String {
        let (table, id) = (&self.name, dice.below(7));
        let names: String = self.columns.iter().map(|(name, _)| format!(", {name}")).collect();
        let values: String = self.columns.iter().map(|_| format!(", {}", dice.pick(&VALUES))).collect();
        match dice.below(4) {
            0 => format!("DELETE FROM {table} WHERE id = {id}"),
            1 if !self.columns.is_empty() => {
                let (name, _) = &self.columns[dice.below(self.columns.len() as u64) as usize];
                format!("UPDATE OR IGNORE {table} SET {name} = {} WHERE id = {id}", dice.pick(&VALUES))
            }
            _ => format!("INSERT OR REPLACE INTO {table}(id{names}) VALUES ({id}{values})"),
        }
    }

    /// Statements that change columns; the model changes along.
    fn change(&mut self, dice: &mut Dice) -> String {
        let table = self.name.clone();
        let at = |dice: &mut Dice, n: usize| dice.below(n as u64) as usize;
        match dice.below(7) {
            0 | 1 => {
                let Some(name) = self.free_name(dice) else { return String::new() };
                let declared = dice.pick(&DECLARED);
                self.columns.push((name.clone(), declared));
                format!("ALTER TABLE {table} ADD COLUMN {name} {declared}")
            }
            2 if !self.columns.is_empty() => {
                let (name, _) = self.columns.remove(at(dice, self.columns.len()));
                format!("ALTER TABLE {table} DROP COLUMN {name}")
            }
            3 if !self.columns.is_empty() => {
                let Some(name) = self.free_name(dice) else { return String::new() };
                let column = at(dice, self.columns.len());
                let from = std::mem::replace(&mut self.columns[column].0, name.clone());
                format!("ALTER TABLE {table} RENAME COLUMN {from} TO {name}")
            }
            4 if self.columns.len() > 1 => {
                let (a, b) = (at(dice, self.columns.len()), at(dice, self.columns.len()));
                let (from, to) = (self.columns[a].0.clone(), self.columns[b].0.clone());
                if a == b {
                    return String::new();
                }
                (self.columns[a].0, self.columns[b].0) = (to.clone(), from.clone());
                format!(
                    "ALTER TABLE {table} RENAME COLUMN {from} TO x; ALTER TABLE {table} RENAME COLUMN {to} TO {from}; \
                     ALTER TABLE {table} RENAME COLUMN x TO {to}"
                )
            }
            // Any column, mostly the last: dropped and added as it was.
            5 if !self.columns.is_empty() => {
                let last = self.columns.len() - 1;
                let column = if dice.below(3) == 0 { at(dice, last + 1) } else { last };
                let (name, declared) = self.columns.remove(column);
                self.columns.push((name.clone(), declared));
                format!("ALTER TABLE {table} DROP COLUMN {name}; ALTER TABLE {table} ADD COLUMN {name} {declared}")
            }
            _ => "CREATE TABLE scratch(a); DROP TABLE scratch".to_string(),
        }
    }
}

/// `tables` tables through `rounds` messages; each message carries a history of each.
fn random(seed: u64, tables: usize, rounds: u64) {
    let mut dice = Dice::new(seed);
    let mut all: Vec<Random> = (0..tables).map(|n| Random::new(&mut dice, n)).collect();
    let creates: String = all.iter().map(|t| t.create() + ";").collect();
    let pair = Pair::with_options(&creates, r#"{"batch_ms":60000}"#);
    for round in 0..rounds {
        let mut script = Vec::new();
        for table in &mut all {
            script.extend((0..dice.below(4)).map(|_| table.write(&mut dice)));
            for _ in 0..dice.below(4) {
                script.push(table.change(&mut dice));
                script.extend((0..dice.below(2)).map(|_| table.write(&mut dice)));
            }
        }
        for statement in script.iter().filter(|s| !s.is_empty()) {
            // A value may not fit its column (NOT NULL); then nothing is written.
            if pair.primary.try_run(statement).is_err() {
                assert!(!statement.starts_with("ALTER"), "{statement}");
            }
        }
        let shown = script.join(";\n");
        let compared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(pair.check())));
        assert!(compared.is_ok(), "seed {seed}, round {round}, after:\n{creates}\n…\n{shown}");
    }
}

#[test]
fn random_histories_of_many_tables_in_one_message_arrive() {
    // LOGOS_HISTORIES: how many seeds.
    let seeds = std::env::var("LOGOS_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    for seed in 1..=seeds {
        random(seed, 8, 12);
        random(1_000_000 + seed, 1, 12);
    }
}
