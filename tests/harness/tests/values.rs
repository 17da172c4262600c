//! Goal: every value that SQLite can store arrives bit by bit, in databases of every encoding, also as a key (T59).
//!
//! Method: texts are made of arbitrary bytes by CAST, so that no conversion repairs them; they are compared as the bytes that
//! are stored, which only the databases themselves can show.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::pair::{flush, publish, try_attach};
use harness::{open, Connection, Pair, Shell, Sql, TempDir};

const ENCODINGS: [&str; 3] = ["UTF-8", "UTF-16le", "UTF-16be"];

/// Bytes as text: NULs, invalid UTF-8, overlong forms, surrogates alone, reversed and in pairs, byte order marks, odd lengths.
const TEXTS: &[&str] = &[
    "", "00", "0000", "6100", "610062", "00610000", "ff", "fffe", "feff", "fffe6100", "feff0061", "c080", "eda080",
    "edbfbf", "f4908080", "80", "e282", "00d8", "d800", "00dc", "dc00", "00d800dc", "d83ddc00", "3dd800de", "00dc00d8",
    "410000d8", "61", "616263", "ffff", "fdd0", "efbfbd", "efbfbf", "f09fa680", "c3a4", "e400",
];

const OTHERS: &[&str] = &[
    "NULL",
    "x''",
    "''",
    "0",
    "-0.0",
    "0.0",
    "1",
    "1.0",
    "-1",
    "9e999",
    "-9e999",
    "5e-324",
    "-5e-324",
    "1.7976931348623157e308",
    "0.1",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775807.0",
    "9007199254740993",
    "9007199254740993.0",
    "127",
    "128",
    "32768",
    "8388608",
    "2147483648",
    "140737488355328",
    "x'00'",
    "zeroblob(70000)",
    "1e15",
    "'1'",
    "x'31'",
    "9e999 - 9e999",
    "'0x10'",
    "'1e3'",
    "' 1'",
];

/// All rows of a table as the bytes they are stored in.
fn stored(conn: &Connection, table: &str, columns: &[&str]) -> Vec<String> {
    let shown: Vec<String> = columns
        .iter()
        .map(|c| format!("typeof({c}) || ':' || CASE typeof({c}) WHEN 'real' THEN printf('%!.20g', {c}) WHEN 'integer' THEN {c} ELSE hex(CAST({c} AS BLOB)) END"))
        .collect();
    conn.texts(&format!("SELECT ifnull({}, 'null') AS line FROM {table} ORDER BY line", shown.join(" || ' ' || ")))
}

fn same(pair: &Pair, tables: &[(&str, &[&str])]) {
    let replica = pair.check();
    assert_eq!(pair.primary.text("PRAGMA encoding"), replica.text("PRAGMA encoding"));
    for (table, columns) in tables {
        assert_eq!(stored(&pair.primary, table, columns), stored(&replica, table, columns), "{table}");
    }
    assert_eq!(replica.texts("PRAGMA integrity_check"), ["ok"]);
}

#[test]
fn every_value_arrives_in_every_encoding() {
    for encoding in ENCODINGS {
        for before in [true, false] {
            eprintln!("{encoding}, filled before publishing: {before}");
            let texts = TEXTS.iter().map(|hex| format!("(CAST(x'{hex}' AS TEXT))"));
            let values: Vec<String> = texts.chain(OTHERS.iter().map(|v| format!("({v})"))).collect();
            let make = format!(
                "PRAGMA encoding = '{encoding}'; CREATE TABLE t(id INTEGER PRIMARY KEY, v);
                 CREATE TABLE typed(i INTEGER, r REAL, x TEXT, n NUMERIC, b BLOB);"
            );
            let fill =
                format!("INSERT INTO t(v) VALUES {}; INSERT INTO typed SELECT v, v, v, v, v FROM t", values.join(", "));
            let pair = Pair::of(&if before { format!("{make}{fill}") } else { make });
            if !before {
                pair.run(&fill);
            }
            let tables: &[(&str, &[&str])] = &[
                ("t", &["id", "v"]),
                ("typed", &["i"]),
                ("typed", &["r"]),
                ("typed", &["x"]),
                ("typed", &["n"]),
                ("typed", &["b"]),
            ];
            same(&pair, tables);
            pair.run("UPDATE t SET v = v; INSERT INTO t(v) SELECT v FROM t; UPDATE typed SET i = r, x = x");
            same(&pair, tables);
            pair.run("DELETE FROM t WHERE id % 2; UPDATE t SET id = -id");
            same(&pair, tables);
        }
    }
}

#[test]
fn texts_that_are_no_texts_work_as_keys_in_every_encoding() {
    for encoding in ENCODINGS {
        eprintln!("{encoding}");
        let pair = Pair::of(&format!(
            "PRAGMA encoding = '{encoding}'; CREATE TABLE k(k TEXT PRIMARY KEY, n); CREATE TABLE w(k PRIMARY KEY, n) WITHOUT ROWID;
             CREATE TABLE u(id INTEGER PRIMARY KEY, k TEXT UNIQUE); CREATE TABLE c(a, b, PRIMARY KEY(b, a));"
        ));
        for hex in TEXTS {
            pair.run(&format!(
                "INSERT OR IGNORE INTO k VALUES (CAST(x'{hex}' AS TEXT), 0); INSERT OR REPLACE INTO w VALUES (CAST(x'{hex}' AS TEXT), 0), (x'{hex}', 1);
                 INSERT OR REPLACE INTO u(k) VALUES (CAST(x'{hex}' AS TEXT)); INSERT OR IGNORE INTO c VALUES (x'{hex}', CAST(x'{hex}' AS TEXT))"
            ));
        }
        for other in ["9223372036854775807", "-9223372036854775808", "1e300", "0.1", "-1"] {
            pair.run(&format!("INSERT OR IGNORE INTO k VALUES ({other}, 1); INSERT OR IGNORE INTO w VALUES ({other}, 1); INSERT OR IGNORE INTO c VALUES ({other}, NULL)"));
        }
        let tables: &[(&str, &[&str])] =
            &[("k", &["k", "n"]), ("w", &["k", "n"]), ("u", &["k"]), ("c", &["a"]), ("c", &["b"])];
        same(&pair, tables);
        pair.run("UPDATE k SET n = 5; UPDATE w SET n = n + 5; UPDATE OR IGNORE c SET a = b");
        same(&pair, tables);
        pair.run("DELETE FROM k WHERE rowid % 2; DELETE FROM w WHERE length(k) = 1; DELETE FROM u WHERE id % 3 = 0; REPLACE INTO u SELECT id + 1000, k FROM u");
        same(&pair, tables);
        pair.run("UPDATE OR IGNORE k SET k = 'x' || k; UPDATE OR REPLACE w SET k = CAST(k AS BLOB)");
        same(&pair, tables);
    }
}

#[test]
fn rowids_and_sequences_at_the_limits_arrive() {
    let mut pair = Pair::of("CREATE TABLE i(id INTEGER PRIMARY KEY, v); CREATE TABLE h(v); CREATE TABLE a(id INTEGER PRIMARY KEY AUTOINCREMENT, v)");
    for step in [
        "INSERT INTO i VALUES (9223372036854775807, 'max'), (-9223372036854775808, 'min'), (0, 'zero'), (-1, 'minus')",
        "INSERT INTO i(v) VALUES ('chosen at random')",
        "INSERT INTO h(rowid, v) VALUES (9223372036854775807, 'max'), (-9223372036854775808, 'min'), (0, NULL)",
        "INSERT INTO a VALUES (9223372036854775806, 'last but one'); INSERT INTO a(v) VALUES ('last')",
        "!INSERT INTO a(v) VALUES ('full')",
        "UPDATE i SET id = 9223372036854775806 WHERE v = 'max'; UPDATE h SET v = 5; DELETE FROM a WHERE v = 'last'",
        "UPDATE sqlite_sequence SET seq = 5 WHERE name = 'a'; DELETE FROM a; INSERT INTO a(v) VALUES ('six')",
        "DELETE FROM i WHERE id < 0; DELETE FROM h WHERE rowid > 0",
    ] {
        eprintln!("{step}");
        pair.step(step);
        pair.check();
    }
    pair.check_fresh();
}

#[test]
fn names_of_every_kind_arrive_through_every_change() {
    let pair = Pair::new();
    for name in [
        "select", "a b", "a\"\"b", "a'b", "a]b", "a;b--", "ÄÖ", "🦀", "%s?1:x@y", "rowid", "NEW", "main", "temp.x",
        "0", "k0", "excluded", "t",
    ] {
        pair.run(&format!(
            "CREATE TABLE \"{name}\"(\"{name}\" TEXT PRIMARY KEY, \"{name} 2\" UNIQUE, \"OLD.{name}\" AS (\"{name}\" || 'x'));
             CREATE INDEX \"{name} i\" ON \"{name}\"(\"{name} 2\") WHERE \"{name}\" > '';
             CREATE UNIQUE INDEX \"{name} u\" ON \"{name}\"(lower(\"{name}\"), \"{name} 2\" COLLATE NOCASE);
             INSERT INTO \"{name}\" VALUES ('a', 1), ('b', 2), ('', NULL);
             REPLACE INTO \"{name}\" VALUES ('c', 1); UPDATE \"{name}\" SET \"{name}\" = \"{name}\" || '!', \"{name} 2\" = -\"{name} 2\""
        ));
        pair.check();
        pair.run(&format!(
            "ALTER TABLE \"{name}\" ADD COLUMN \"{name} 3\" DEFAULT '{}'; UPDATE \"{name}\" SET \"{name} 3\" = 7 WHERE \"{name}\" = 'b!';
             ALTER TABLE \"{name}\" RENAME COLUMN \"{name} 2\" TO \"2 {name}\"; DELETE FROM \"{name}\" WHERE \"{name}\" = '!'",
            name.replace('\'', "''")
        ));
        pair.check();
        pair.run(&format!(
            "ALTER TABLE \"{name}\" RENAME TO \"renamed {name}\"; INSERT INTO \"renamed {name}\" VALUES ('z', 9, 1)"
        ));
        pair.check();
    }
}

#[test]
fn a_file_whose_encoding_is_settled_is_refused_and_stays_as_it_was() {
    for (theirs, ours) in [("UTF-8", "UTF-16le"), ("UTF-16be", "UTF-8")] {
        let dir = TempDir::new();
        let primary = open(&dir.file("encoded.db"));
        primary.run(&format!(
            "PRAGMA encoding = '{theirs}'; CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES (1, 'x')"
        ));
        let url = publish(&primary, &dir.channel());
        flush(&primary);
        let path = dir.file("settled.db");
        assert_eq!(Shell::run(&path, &format!("PRAGMA encoding = '{ours}'; CREATE TABLE x(a); DROP TABLE x;")).err, "");
        let error = try_attach(&open(&path), &url, None).unwrap_err().to_string();
        assert!(error.contains("the primary's text is") && error.contains("attach to a new file"), "{error}");
        let after = Shell::run(
            &path,
            "PRAGMA encoding; PRAGMA integrity_check; CREATE TABLE y(a); INSERT INTO y VALUES ('ok');",
        );
        assert_eq!((after.out.trim(), after.err.as_str()), (format!("{ours}\nok").as_str(), ""));
    }
}

/// Before 3.54 SQLite's check of foreign keys changes the key that triggers see into what the child's column would make of it.
#[test]
fn a_parent_row_arrives_under_the_key_that_it_holds() {
    for (parent, child) in [
        ("p TEXT PRIMARY KEY", "INTEGER UNIQUE"),
        ("p PRIMARY KEY", "NUMERIC UNIQUE"),
        ("p TEXT PRIMARY KEY) WITHOUT ROWID; SELECT (1", "REAL UNIQUE"),
    ] {
        let pair = Pair::of(&format!(
            "PRAGMA foreign_keys = ON; CREATE TABLE parent({parent}); INSERT INTO parent VALUES ('kept');"
        ));
        pair.check();
        // The table becomes a parent while it is published.
        pair.run(&format!("CREATE TABLE child(c {child} REFERENCES parent(p) DEFERRABLE INITIALLY DEFERRED)"));
        pair.check();
        for step in [
            "BEGIN; INSERT INTO child VALUES (123); INSERT INTO parent VALUES ('0123'); COMMIT",
            "BEGIN; UPDATE parent SET p = 'x' || p; UPDATE parent SET p = substr(p, 2); COMMIT",
            "BEGIN; INSERT INTO child VALUES (124); INSERT INTO parent VALUES ('124'); COMMIT",
            "BEGIN; DELETE FROM child WHERE c = 123; DELETE FROM parent WHERE p = '0123'; COMMIT",
        ] {
            pair.step(step);
            pair.check();
        }
    }
}

#[test]
fn a_key_logged_as_a_number_is_the_text_that_its_column_makes_of_it() {
    let pair = Pair::of("CREATE TABLE t(p TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('123', 1)");
    pair.check();
    pair.run("UPDATE t SET v = 2; SELECT logos_touch('t', 123)");
    pair.check();
}
