//! Goal: what the schema says as text means to capture what it means to SQLite, however it is written.
//!
//! Method: tables whose defaults, generated columns and UNIQUE indexes are written in every way that SQLite takes, under REPLACE; a
//! second database that is not published says what must happen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::rusqlite::config::DbConfig;
use harness::rusqlite::limits::Limit;
use harness::{differences, dump, in_every_order, open_plain, Connection, Dice, Pair, Sql};

#[test]
fn a_default_is_what_it_is_to_sqlite_however_it_is_written() {
    for default in [
        "active",
        "\"note\"",
        "[note]",
        "('x' -- why\n)",
        "true",
        "-1",
        "x'00'",
        "(lower('X'))",
        "CURRENT_DATE",
        "'x' -- why\n",
    ] {
        let setup = format!(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, kind TEXT NOT NULL DEFAULT {default}, note, UNIQUE(kind));
             CREATE TABLE p(id INTEGER PRIMARY KEY, n, kind NOT NULL DEFAULT {default}, UNIQUE(n, kind)); INSERT INTO p(n) VALUES (1), (2);"
        );
        let steps = [
            "INSERT INTO t(note) VALUES ('x')",
            "REPLACE INTO t(id, kind, note) VALUES (2, NULL, 'y'); REPLACE INTO p(n, kind) VALUES (1, NULL)",
            "BEGIN; REPLACE INTO t(id, kind) VALUES (3, NULL); DELETE FROM t WHERE id = 3; COMMIT",
            "INSERT INTO t(kind) VALUES ('other'); UPDATE OR REPLACE p SET kind = NULL",
        ];
        in_every_order(&setup, &steps);
    }
}

#[test]
fn comments_in_index_texts_and_generated_columns_end_where_they_end() {
    in_every_order(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, gone INT, low AS (lower(a) -- for logins\n) UNIQUE, one AS (1 /* ) */));
         CREATE UNIQUE INDEX i ON t(a /* , gone */) WHERE gone IS NULL -- live rows only\n;
         CREATE UNIQUE INDEX j ON t(upper(a) || '-- no comment' -- \n DESC) WHERE gone /* and no end */ = 0 /* not closed",
        &[
            "INSERT INTO t(a) VALUES ('q'), ('r'), ('s')",
            "BEGIN; REPLACE INTO t(a) VALUES ('Q'); DELETE FROM t WHERE a = 'Q'; COMMIT",
            "UPDATE t SET gone = 0; REPLACE INTO t(a, gone) VALUES ('R', 0); DELETE FROM t WHERE a = 'R'",
        ],
    );
}

#[test]
fn a_writer_without_strings_in_double_quotes_writes_as_before() {
    let pair = Pair::of(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, data TEXT, status TEXT, role TEXT NOT NULL DEFAULT \"user\", UNIQUE(role, a));
         CREATE UNIQUE INDEX u ON t(a) WHERE status = \"active\"; CREATE UNIQUE INDEX v ON t(json_extract(data, \"$.id\"), \"status\");",
    );
    pair.primary.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false).unwrap();
    pair.primary.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false).unwrap();
    pair.run("INSERT INTO t(a, status, data) VALUES (1, 'active', '{\"id\":1}'), (2, NULL, '{}')");
    pair.run("BEGIN; REPLACE INTO t(a, role, status) VALUES (1, 'admin', 'active'); DELETE FROM t WHERE role = 'admin'; COMMIT");
    pair.run("REPLACE INTO t(a, role, data, status) VALUES (9, 'x', '{\"id\":1}', 'active')");
    pair.check();
}

#[test]
fn a_condition_over_the_rowid_holds_for_the_same_rows_on_the_replica() {
    for (table, rowid) in [
        ("t(id INTEGER PRIMARY KEY, a)", "id"),
        ("t(id INTEGER PRIMARY KEY AUTOINCREMENT, a)", "\"oid\""),
        ("t(a, b)", "rowid"),
        ("t(a, b TEXT PRIMARY KEY)", "t._rowid_"),
    ] {
        in_every_order(
            &format!("CREATE TABLE {table}; CREATE UNIQUE INDEX u ON t(a) WHERE {rowid} > 2; CREATE UNIQUE INDEX v ON t(a || 1) WHERE {rowid} < 9"),
            &[
                "INSERT INTO t(a) VALUES ('a'), ('b'), ('c')",
                "INSERT INTO t(rowid, a) VALUES (15, 'b')",
                "REPLACE INTO t(a) VALUES ('b'); REPLACE INTO t(a) VALUES ('c')",
                "UPDATE OR REPLACE t SET rowid = 4 WHERE rowid = 1; UPDATE OR REPLACE t SET a = 'z'",
            ],
        );
    }
}

#[test]
fn a_generated_column_of_columns_that_a_statement_does_not_set_or_of_none() {
    in_every_order(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c, g TEXT AS (a || b) UNIQUE, h AS (g || c), only AS (CASE a WHEN 9 THEN 1 END) UNIQUE);
         CREATE UNIQUE INDEX i ON t(h); CREATE TABLE s(id INTEGER PRIMARY KEY, v, one AS (1) UNIQUE);
         INSERT INTO t(id, a, b, c) VALUES (1, 1, 1, 1), (2, 2, 1, 1), (3, 1, 2, 2), (4, 4, 4, 4);",
        &[
            "BEGIN; UPDATE OR REPLACE t SET a = 1 WHERE id = 2; UPDATE t SET a = 7 WHERE id = 2; COMMIT",
            "BEGIN; UPDATE OR REPLACE t SET b = 1, a = 7 WHERE id = 3; DELETE FROM t WHERE id = 3; COMMIT",
            "INSERT INTO s(v) VALUES (1); REPLACE INTO s(v) VALUES (2)",
            "BEGIN; REPLACE INTO s(v) VALUES (3); DELETE FROM s; COMMIT; UPDATE t SET a = 9 WHERE id = 4",
        ],
    );
}

#[test]
fn names_of_the_application_that_could_be_ours_or_sqlites() {
    let tables = ["logged", "Logged", "_log", "\"new\"", "\"old\"", "excluded", "\"it's\"", "t", "l", "\"_log os_x\""];
    for table in tables {
        in_every_order(
            &format!(
                "CREATE TABLE {table}(new TEXT PRIMARY KEY, old, excluded, _logos_row, oid, UNIQUE(old, excluded));
                 CREATE UNIQUE INDEX i ON {table}(lower(new), _logos_row) WHERE {table}.old IS NOT NULL AND oid <> 0;"
            ),
            &[
                &format!("INSERT INTO {table} VALUES ('a', 1, 1, 1, 1), ('b', 2, 2, 2, 2)"),
                &format!(
                    "BEGIN; REPLACE INTO {table} VALUES ('A', 3, 3, 1, 3); DELETE FROM {table} WHERE new = 'A'; COMMIT"
                ),
                &format!(
                    "BEGIN; REPLACE INTO {table} VALUES ('c', 2, 2, 3, 3); DELETE FROM {table} WHERE new = 'c'; COMMIT"
                ),
            ],
        );
    }
}

#[test]
fn a_trigger_may_be_called_like_a_table() {
    in_every_order(
        "CREATE TABLE users(id INTEGER PRIMARY KEY, x); CREATE TRIGGER audit AFTER INSERT ON users BEGIN SELECT 1; END;
         CREATE TABLE audit(id INTEGER PRIMARY KEY, a, c INT); INSERT INTO audit VALUES (1, 2, 3)",
        &["BEGIN; ALTER TABLE audit DROP COLUMN c; ALTER TABLE audit ADD COLUMN c INT; COMMIT"],
    );
}

#[test]
fn a_connection_with_low_limits_writes_as_before() {
    let columns = ["a", "b", "c", "d", "e", "f", "g", "h", "i"].join(", ");
    let pair = Pair::of(&format!(
        "CREATE TABLE k({columns}, n, PRIMARY KEY({columns})); CREATE TABLE w({columns}, PRIMARY KEY({columns})) WITHOUT ROWID;
         CREATE TABLE u(id INTEGER PRIMARY KEY, {columns}, UNIQUE({columns}));
         CREATE UNIQUE INDEX deep ON u(lower(a) || (b || c), a, b) WHERE a = 1 OR (b > 0 AND c IS NULL);"
    ));
    let mut before = Vec::new();
    for (limit, to) in [
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 10),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 1),
        (Limit::SQLITE_LIMIT_FUNCTION_ARG, 3),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 1),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, 10_000),
        (Limit::SQLITE_LIMIT_COLUMN, 30),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
    ] {
        before.push((limit, pair.primary.set_limit(limit, to).unwrap()));
    }
    pair.run("PRAGMA user_version = 1"); // The schema is read again under the limits.
    for table in ["k", "w", "u"] {
        pair.run(&format!(
            "INSERT INTO {table}({columns}) VALUES (1, 2, 3, 4, 5, 6, 7, 8, 9), (2, 2, 3, 4, 5, 6, 7, 8, 9)"
        ));
        pair.run(&format!(
            "UPDATE OR REPLACE {table} SET a = 1; REPLACE INTO {table}({columns}) VALUES (1, 2, 3, 4, 5, 6, 7, 8, 9)"
        ));
    }
    // Comparing takes more than that.
    for (limit, value) in before {
        pair.primary.set_limit(limit, value).unwrap();
    }
    pair.check();
}

#[test]
fn a_row_that_is_ignored_before_its_index_is_looked_at_fails_nothing() {
    let pair = Pair::of(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, doc CHECK (json_valid(doc)), n NOT NULL); CREATE UNIQUE INDEX i ON t(json_extract(doc, '$.id'), n);
         CREATE TABLE v(id INTEGER PRIMARY KEY, doc, kind); CREATE UNIQUE INDEX j ON v(doc ->> 'id') WHERE kind = 'json';",
    );
    pair.run("INSERT INTO t(doc, n) VALUES ('{\"id\":1}', 1); INSERT OR IGNORE INTO t(doc, n) VALUES ('no json', 1), ('no json', NULL)");
    assert!(pair.primary.fails("INSERT INTO t(doc, n) VALUES ('no json', 1)").contains("CHECK"));
    pair.run("INSERT INTO v(doc, kind) VALUES ('no json', 'text'), ('{\"id\":1}', 'json')");
    pair.run("BEGIN; REPLACE INTO v(doc, kind) VALUES ('{\"id\":1}', 'json'); DELETE FROM v WHERE id = 3; COMMIT");
    let marks = pair.primary.int(
        "SELECT count(*) FROM _logos_log WHERE tbl < 0 AND tbl = -(SELECT max(id) FROM _logos_table WHERE name = 'v')",
    );
    assert_eq!(marks, 0, "what is no JSON and not in the index needs no mark");
    pair.check();
}

/// Random tables under random writes: nothing fails or differs because of publishing, and the replica is equal.
#[test]
fn random_texts_under_random_replaces() {
    let number = |name: &str, or: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(or);
    let from = number("TEXTS_FROM", 1);
    for seed in from..from + number("TEXTS_SEEDS", 40) {
        eprintln!("seed {seed}");
        Run::new(seed).run();
    }
}

struct Run {
    dice: Dice,
    pair: Pair,
    /// The same without publishing.
    plain: Connection,
    /// The table's name, and the names of its columns.
    columns: Vec<String>,
    generated: Vec<String>,
}

const NAMES: &[&str] = &[
    "a",
    "b",
    "\"c d\"",
    "oid",
    "new",
    "old",
    "excluded",
    "\"order\"",
    "active",
    "\"true\"",
    "end",
    "_logos_row",
    "key",
    "like",
    "text",
    "_logos_new0",
    "é",
    "\"q\"\"q\"",
    "x",
    "cast",
];
const TYPES: &[&str] =
    &["INT", "TEXT", "", "REAL", "NUMERIC", "DATETIME", "TEXT COLLATE NOCASE", "BLOB", "VARCHAR(9) COLLATE RTRIM"];
const DEFAULTS: &[&str] = &[
    "active",
    "\"a\"",
    "'a' -- why\n",
    "('a' -- why\n)",
    "true",
    "false",
    "-1",
    "+2",
    "0x1",
    "x'61'",
    "(1 + 1)",
    "('1' || /* ) */ '')",
    "1.0",
    "'1'",
    "[b]",
    "\"text\"",
    "(abs(1))",
    "CURRENT_DATE",
    "(1 == 1)",
    "null",
    "(-/**/-1)",
    "\"it's\"",
];
const VALUES: &[&str] = &[
    "NULL",
    "0",
    "1",
    "2",
    "3",
    "'1'",
    "'2'",
    "'a'",
    "'A'",
    "'b'",
    "1.0",
    "2.5",
    "x'61'",
    "'1.0'",
    "'a '",
    "-1",
    "'active'",
    "'text'",
    "x'31'",
    "'{\"a\":1}'",
];

impl Run {
    fn new(seed: u64) -> Self {
        let pair = Pair::with_options("", r#"{"batch_ms":60000}"#);
        let plain = open_plain(&pair.dir.file("plain.db"));
        Self { dice: Dice::new(seed), pair, plain, columns: Vec::new(), generated: Vec::new() }
    }

    fn run(mut self) {
        self.tables();
        for _ in 0..6 {
            for _ in 0..self.dice.below(8) + 1 {
                let step = self.write();
                self.both(&step);
            }
            if !self.pair.primary.is_autocommit() {
                self.both("COMMIT");
            }
            self.pair.check();
            let found = differences(&dump(&self.plain), &dump(&self.pair.primary));
            assert!(found.is_empty(), "publishing changed what the statements do: {found:?}");
        }
        self.pair.run("SELECT logos_stop()");
    }

    /// Runs a statement on both, with the same outcome. Whether it succeeded.
    fn both(&self, step: &str) -> bool {
        let (plain, published) = (self.plain.try_run(step), self.pair.primary.try_run(step));
        eprintln!("{step}; -- {plain:?}");
        assert_eq!(plain.is_ok(), published.is_ok(), "{plain:?} but {published:?}: {step}");
        plain.is_ok()
    }

    fn tables(&mut self) {
        loop {
            let key = self.dice.pick(&[
                "id INTEGER PRIMARY KEY",
                "id INTEGER PRIMARY KEY AUTOINCREMENT",
                "id TEXT PRIMARY KEY",
                "id",
                "id INT NOT NULL PRIMARY KEY",
            ]);
            self.columns = vec!["id".into()];
            self.generated.clear();
            let mut items = vec![key.to_string()];
            for _ in 0..self.dice.below(3) + 2 {
                let name = self.dice.pick(NAMES).to_string();
                let mut item = format!("{name} {}", self.dice.pick(TYPES));
                match self.dice.below(5) {
                    0 | 1 => item += &format!(" NOT NULL DEFAULT {}", self.dice.pick(DEFAULTS)),
                    2 if self.columns.len() > 1 => {
                        item += &format!(" AS ({}\n)", self.expression());
                        self.generated.push(name.clone());
                    }
                    _ => {}
                }
                item += self.dice.pick(&["", "", "", " UNIQUE", " UNIQUE ON CONFLICT REPLACE"]);
                self.columns.push(name);
                items.push(item);
            }
            let name = self.dice.pick(&["t", "t", "new", "\"old\"", "\"t t\"", "_log"]).to_string();
            let options = if key.contains("NOT NULL") { " WITHOUT ROWID" } else { "" };
            if self.both(&format!("CREATE TABLE {name}({}){options}", items.join(", "))) {
                self.columns.insert(0, name);
                break;
            }
        }
        for i in 0..self.dice.below(3) + 1 {
            let terms: Vec<String> = (0..self.dice.below(2) + 1).map(|_| self.term()).collect();
            let condition =
                if self.dice.below(2) == 0 { format!(" WHERE {}", self.condition()) } else { String::new() };
            let text = format!("CREATE UNIQUE INDEX i{i} ON {}({}){condition}", self.columns[0], terms.join(", "));
            self.both(&text);
        }
    }

    /// A column in one of the ways in which it may be written.
    fn column(&mut self) -> String {
        let at = if self.columns.len() > 2 { 1 } else { 0 };
        let name = self.columns[at + self.dice.below((self.columns.len() - at) as u64) as usize].clone();
        let bare = name.trim_matches('"').to_string();
        match self.dice.below(8) {
            0 => format!("[{bare}]"),
            1 => format!("`{bare}`"),
            2 if !name.starts_with('"') => format!("\"{}\"", bare.to_uppercase()),
            3 => format!("/* {name} */ {name} -- {name}\n"),
            _ => name,
        }
    }

    fn term(&mut self) -> String {
        match self.dice.below(3) {
            0 => self.column(),
            1 => format!("({}) COLLATE NOCASE", self.expression()),
            _ => format!("({}) DESC", self.expression()),
        }
    }

    fn expression(&mut self) -> String {
        let (c, d) = (self.column(), self.column());
        match self.dice.below(24) {
            0 => format!("lower({c})"),
            1 => format!("{c}||'x'"),
            2 => format!("abs({c})"),
            3 => format!("{c} = '1'"),
            4 => format!("{c}=1"),
            5 => format!("{c} IN (1, '2', \"text\")"),
            6 => format!("CASE {c} WHEN '1' THEN 1 ELSE {d} END"),
            7 => format!("{c}>'1'"),
            8 => format!("coalesce({c}, \"no such\", {d})"),
            9 => format!("nullif({c},'A')"),
            10 => format!("{c}+1"),
            11 => format!("+{c} = '1'"),
            12 => format!("CAST({c} AS TEXT) = {d}"),
            13 => format!("CASE WHEN {c} BETWEEN 1 AND '3' THEN {d} END"),
            14 => format!("{c} = {d}"),
            15 => format!("{c} IS {d}"),
            16 => format!("substr({c}, 1, 1) = 1"),
            17 => format!("CAST({c} AS \"text\")"),
            18 => "1".to_string(),
            19 => format!("json_extract({c}, \"$.a\")"),
            20 => format!("{c} LIKE \"a%\""),
            21 => format!("NOT {c} COLLATE NOCASE = 'A'"),
            22 => format!("CASE WHEN {c}='text' THEN 'one' END -- {d}"),
            _ => c,
        }
    }

    fn condition(&mut self) -> String {
        let c = self.column();
        match self.dice.below(10) {
            0 => format!("{c} IS NOT NULL -- all\n"),
            1 => "rowid > 2".into(),
            2 => "oid <> 3 AND \"rowid\" < 9".into(),
            3 => format!("{c} = \"active\""),
            4 => format!("json_valid({c}) /* and no end"),
            5 => format!("{}.{c} IS NULL OR id > '1'", self.columns[0]),
            6 => format!("{c} > 1 AND {c} <> 'a'"),
            7 => format!("{c} IN ('a', 1)"),
            8 => c.to_string(),
            _ => self.expression(),
        }
    }

    fn write(&mut self) -> String {
        let table = self.columns[0].clone();
        let value = |run: &mut Self| run.dice.pick(VALUES).to_string();
        let mut given: Vec<String> = self.columns[1..].to_vec();
        given.retain(|c| !self.generated.contains(c));
        let column = |run: &mut Self| given[run.dice.below(given.len() as u64) as usize].clone();
        match self.dice.below(14) {
            0..=7 => {
                let mut columns = given.clone();
                if self.dice.below(2) == 0 {
                    columns.remove(0);
                }
                columns.retain(|_| self.dice.below(6) > 0);
                let (c, v) = (column(self), value(self));
                let mut values: Vec<String> = columns.iter().map(|_| value(self)).collect();
                if columns.is_empty() {
                    (columns, values) = (vec![c], vec![v]);
                }
                format!("REPLACE INTO {table}({}) VALUES ({})", columns.join(", "), values.join(", "))
            }
            8..=10 => {
                let (c, v, d, w) = (column(self), value(self), column(self), value(self));
                format!("UPDATE OR REPLACE {table} SET {c} = {v} WHERE {d} IS NOT {w}")
            }
            11 => {
                let (c, v) = (column(self), value(self));
                format!("DELETE FROM {table} WHERE {c} = {v}")
            }
            12 => format!("INSERT OR IGNORE INTO {table}(id) VALUES ({})", value(self)),
            _ if self.plain.is_autocommit() => "BEGIN".into(),
            _ => "COMMIT".into(),
        }
    }
}
