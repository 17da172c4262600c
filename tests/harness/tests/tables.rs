//! Goal: ordinary schemas replicate, whatever their constraints and however their key is made (T6), and so do all
//! values and names that SQLite allows (T59), what cascades and views write (T10), and nothing that is not theirs (T14).
//!
//! Method: one table a claim, filled and changed in every order relative to the publisher; dumps are compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::{in_every_order, open, Pair, Sql};

#[test]
fn autoincrement_goes_on_at_the_same_number() {
    let steps = &[
        "INSERT INTO t(v) VALUES ('a'), ('b'), ('c')",
        "DELETE FROM t WHERE id = 3",
        "INSERT INTO t VALUES (100, 'high')",
        "DELETE FROM t",
        "INSERT INTO t(v) VALUES ('101')",
        "UPDATE sqlite_sequence SET seq = 500 WHERE name = 't'; INSERT INTO t(v) VALUES ('501')",
    ];
    in_every_order("CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v)", steps);
}

#[test]
fn foreign_keys_unique_and_not_null_without_default_replicate() {
    in_every_order(
        "CREATE TABLE parent(id INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE);
         CREATE TABLE child(id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES parent(id) ON DELETE CASCADE
             ON UPDATE CASCADE, code TEXT REFERENCES parent(code) ON DELETE SET NULL ON UPDATE CASCADE, what TEXT NOT NULL);
         CREATE TABLE leaf(child INTEGER NOT NULL REFERENCES child(id) ON DELETE CASCADE, n INTEGER NOT NULL);",
        &[
            "INSERT INTO parent VALUES (1, 'a'), (2, 'b'), (3, 'c')",
            "INSERT INTO child VALUES (1, 1, 'b', 'x'), (2, 2, NULL, 'y'), (3, 3, 'a', 'z'); \
             INSERT INTO leaf VALUES (1, 1), (1, 2), (2, 3), (3, 4)",
            "UPDATE parent SET id = 20 WHERE id = 2",
            "UPDATE parent SET code = 'bb' WHERE code = 'b'",
            "!DELETE FROM parent WHERE id = 77; INSERT INTO child VALUES (9, 99, NULL, 'orphan')",
            "DELETE FROM parent WHERE id = 1",
            "!INSERT INTO parent VALUES (5, NULL)",
        ],
    );
}

#[test]
fn rows_written_child_first_replicate() {
    in_every_order(
        "CREATE TABLE a(id INTEGER PRIMARY KEY, b INTEGER REFERENCES b(id) DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE b(id INTEGER PRIMARY KEY, a INTEGER REFERENCES a(id) DEFERRABLE INITIALLY DEFERRED);",
        &[
            "BEGIN; INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1, 1); COMMIT",
            "PRAGMA foreign_keys = OFF; INSERT INTO a VALUES (2, 99); PRAGMA foreign_keys = ON",
        ],
    );
}

#[test]
fn table_without_a_primary_key_keeps_equal_rows_apart() {
    in_every_order(
        "CREATE TABLE t(a, b)",
        &[
            "INSERT INTO t VALUES (1, 2), (1, 2), (1, 2), (NULL, NULL), (NULL, NULL)",
            "DELETE FROM t WHERE rowid = 2",
            "UPDATE t SET b = 3 WHERE rowid = 1",
            "UPDATE t SET a = 'null' WHERE a IS NULL",
            "INSERT INTO t SELECT * FROM t",
        ],
    );
}

#[test]
fn a_column_named_rowid_does_not_confuse_the_key() {
    in_every_order(
        "CREATE TABLE t(rowid TEXT, v); CREATE TABLE u(rowid, _rowid_, v); CREATE TABLE x(oid PRIMARY KEY, v);",
        &[
            "INSERT INTO t VALUES ('same', 1), ('same', 2); INSERT INTO u VALUES (1, 1, 1), (1, 1, 2)",
            "UPDATE t SET v = 9 WHERE v = 1; DELETE FROM u WHERE v = 1; INSERT INTO x VALUES ('k', 1)",
            "DELETE FROM t WHERE v = 2; UPDATE x SET oid = 'l'",
        ],
    );
}

#[test]
fn nullable_text_primary_key_keeps_several_nulls() {
    in_every_order(
        "CREATE TABLE t(k TEXT PRIMARY KEY, v); CREATE TABLE c(a, b, v, PRIMARY KEY (a, b));",
        &[
            "INSERT INTO t VALUES (NULL, 1), (NULL, 2), (NULL, 2), ('', 3), ('a', 4)",
            "UPDATE t SET v = 10 WHERE v = 1",
            "DELETE FROM t WHERE rowid = 2",
            "INSERT INTO c VALUES (1, NULL, 'x'), (1, NULL, 'y'), (NULL, NULL, 'z'), (1, 1, 'w')",
            "UPDATE c SET b = 5 WHERE v = 'x'",
            "DELETE FROM c WHERE v = 'y'",
            "UPDATE t SET k = NULL; UPDATE c SET a = NULL",
        ],
    );
}

#[test]
fn composite_keys_in_another_order_than_the_columns_replicate() {
    in_every_order(
        "CREATE TABLE t(v, c TEXT, b INTEGER, a REAL, PRIMARY KEY (a, b, c));
         CREATE TABLE w(v, c TEXT COLLATE NOCASE, b INTEGER, a BLOB, PRIMARY KEY (b DESC, a, c)) WITHOUT ROWID;",
        &[
            "INSERT INTO t VALUES ('x', 'c', 1, 1.5), ('y', 'c', 1, 2), ('z', 'C', 1, 2)",
            "INSERT INTO w VALUES ('x', 'c', 1, x'00'), ('y', 'd', 1, x'00'), ('z', 'c', -1, x'')",
            "UPDATE t SET v = 'changed' WHERE a = 2 AND c = 'C'",
            "UPDATE w SET c = 'C' WHERE v = 'x'",
            "UPDATE w SET b = -b; UPDATE t SET b = 7",
            "DELETE FROM w WHERE c = 'D'; DELETE FROM t WHERE c = 'c' AND a = 1.5",
        ],
    );
}

#[test]
fn keys_equal_under_their_collation_are_one_row() {
    in_every_order(
        "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v); CREATE TABLE w(k TEXT COLLATE RTRIM PRIMARY KEY, v) WITHOUT ROWID;",
        &[
            "INSERT INTO t VALUES ('Anna', 1), ('berta', 2); INSERT INTO w VALUES ('a', 1), ('b  ', 2)",
            "UPDATE t SET k = 'ANNA' WHERE k = 'anna'",
            "UPDATE w SET k = 'a   ' WHERE k = 'a'",
            "REPLACE INTO t VALUES ('BERTA', 20); REPLACE INTO w VALUES ('b', 20)",
            "DELETE FROM t WHERE k = 'aNNa'",
        ],
    );
}

#[test]
fn keys_of_mixed_types_and_reals_replicate() {
    in_every_order(
        "CREATE TABLE t(k PRIMARY KEY, v); CREATE TABLE w(k PRIMARY KEY, v) WITHOUT ROWID;
         CREATE TABLE r(k REAL PRIMARY KEY, v); CREATE TABLE n(k NUMERIC PRIMARY KEY, v);",
        &[
            "INSERT INTO t VALUES (1, 'int'), ('1', 'text'), (x'31', 'blob'), (1.5, 'real'), ('', 'empty'), (x'', 'empty blob')",
            "INSERT INTO w SELECT * FROM t",
            "INSERT INTO r VALUES (1, 1), (0.1, 2), (9e999, 3), (-9e999, 4), (9007199254740993, 5), (1e-320, 6)",
            "INSERT INTO n VALUES ('1.0', 1), ('abc', 2), (9223372036854775807, 3), ('1e3', 4)",
            "UPDATE t SET v = v || '!'; UPDATE w SET v = v || '!'; UPDATE r SET v = v + 1; UPDATE n SET v = v + 1",
            "DELETE FROM t WHERE k = 1; DELETE FROM w WHERE k = '1'; DELETE FROM r WHERE k = 0.1",
            "UPDATE t SET k = k || 'x' WHERE typeof(k) = 'text'; UPDATE r SET k = k * 2 WHERE k < 1e300",
        ],
    );
}

#[test]
fn without_rowid_tables_replicate() {
    in_every_order(
        "CREATE TABLE t(k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID; CREATE INDEX tv ON t(v);
         CREATE TABLE i(id INTEGER PRIMARY KEY, v) WITHOUT ROWID;",
        &[
            "INSERT INTO t VALUES ('a', 1), ('b', NULL), ('', x'00'); INSERT INTO i VALUES (5, 5), (-5, 5)",
            "REPLACE INTO t VALUES ('a', 2); UPDATE i SET id = id * 2",
            "DELETE FROM t WHERE k = ''; DELETE FROM i",
        ],
    );
}

#[test]
fn strict_tables_replicate() {
    in_every_order(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, i INT, r REAL, t TEXT, b BLOB, a ANY) STRICT;
         CREATE TABLE w(k ANY PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID;",
        &[
            "INSERT INTO t VALUES (1, 1, 1, 'x', x'00', '5'), (2, NULL, 2.5, NULL, NULL, 5), (3, 3, 3e0, '', x'', NULL)",
            "!INSERT INTO t VALUES (4, 'text', 1, 'x', x'00', 1)",
            "INSERT INTO w VALUES ('1', 1), (1, '1'), (x'31', 1.0)",
            "UPDATE t SET a = 5.5, r = 7; UPDATE w SET v = NULL WHERE k = '1'",
            "DELETE FROM w WHERE k = 1",
        ],
    );
}

#[test]
fn generated_columns_are_computed_alike() {
    in_every_order(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b AS (a * 2) VIRTUAL, c AS (a || '-' || id) STORED, d DEFAULT 4);
         CREATE INDEX tb ON t(b); CREATE UNIQUE INDEX tc ON t(c);
         CREATE TABLE w(first AS (lower(name)) STORED, name TEXT PRIMARY KEY, n) WITHOUT ROWID;",
        &[
            "INSERT INTO t(id, a) VALUES (1, 10), (2, 20), (3, NULL); INSERT INTO w(name, n) VALUES ('ABC', 1)",
            "UPDATE t SET a = a + 1, d = 5; UPDATE w SET name = 'XYZ'",
            "DELETE FROM t WHERE b = 22; UPDATE t SET id = id + 10",
        ],
    );
}

#[test]
fn defaults_and_checks_do_not_get_in_the_way() {
    in_every_order(
        "CREATE TABLE t(id INTEGER PRIMARY KEY DEFAULT 7, at TEXT DEFAULT CURRENT_TIMESTAMP, r DEFAULT (abs(random())),
             q TEXT NOT NULL DEFAULT 'it''s', n CHECK (n IS NULL OR n BETWEEN 0 AND 10), CHECK (id < 1000));
         CREATE TABLE d(a DEFAULT (1 + 1) NOT NULL, b INTEGER NOT NULL ON CONFLICT REPLACE DEFAULT 3, c UNIQUE ON CONFLICT IGNORE);",
        &[
            "INSERT INTO t(n) VALUES (1), (NULL); INSERT INTO t DEFAULT VALUES",
            "!INSERT INTO t(n) VALUES (11)",
            "INSERT INTO d(c) VALUES (1), (2); INSERT INTO d(a, b, c) VALUES (5, NULL, 3), (6, 6, 3)",
            "UPDATE t SET r = random(), at = datetime('now', '-1 day'); UPDATE d SET b = NULL",
            "PRAGMA ignore_check_constraints = ON; INSERT INTO t(id, n) VALUES (900, 99); PRAGMA ignore_check_constraints = OFF",
            "UPDATE t SET q = 'more' WHERE id = 900 AND 0",
        ],
    );
}

#[test]
fn conflict_clauses_of_the_schema_replicate() {
    in_every_order(
        "CREATE TABLE t(id INTEGER PRIMARY KEY ON CONFLICT REPLACE, u UNIQUE ON CONFLICT REPLACE, f UNIQUE ON CONFLICT FAIL);",
        &[
            "INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)",
            "INSERT INTO t VALUES (1, 'x', 10)",
            "INSERT INTO t VALUES (9, 'b', 20)",
            "!INSERT INTO t VALUES (20, 'n', 21), (21, 'm', 3), (22, 'o', 22)",
            "UPDATE t SET u = 'c' WHERE id = 1",
        ],
    );
}

#[test]
fn every_value_arrives_bit_by_bit() {
    let pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    pair.run(
        "INSERT INTO t(v) VALUES (NULL), (''), (x''), (0), (-0.0), (0.0), (9e999), (-9e999), (5e-324),
             (1.7976931348623157e308), (9223372036854775807), (-9223372036854775808), (zeroblob(100000)),
             (replace(hex(zeroblob(100000)), '0', 'ä')), ('nul' || char(0) || 'inside'), (char(0)), (char(0x10FFFF)),
             (CAST(x'ff00fe' AS TEXT)), (CAST(x'' AS TEXT)), ('it''s \"quoted\"'), (char(10, 13, 9)), ('🦀')",
    );
    pair.check();
    pair.run("UPDATE t SET v = v; INSERT INTO t(v) SELECT v FROM t");
    pair.check();
}

#[test]
fn values_that_are_not_utf8_work_as_keys() {
    in_every_order(
        "CREATE TABLE t(k TEXT PRIMARY KEY, v); CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID;",
        &[
            "INSERT INTO t VALUES (CAST(x'ff' AS TEXT), 1), (CAST(x'6100' AS TEXT), 2), ('a', 3); INSERT INTO w SELECT * FROM t",
            "UPDATE t SET v = v + 1; UPDATE w SET v = v + 1",
            "DELETE FROM t WHERE k = 'a'; DELETE FROM w WHERE hex(k) = 'FF'",
        ],
    );
}

#[test]
fn a_utf16_database_replicates() {
    for encoding in ["UTF-16le", "UTF-16be"] {
        in_every_order(
            &format!("PRAGMA encoding = '{encoding}'; CREATE TABLE IF NOT EXISTS t(k TEXT PRIMARY KEY, v)"),
            &["INSERT INTO t VALUES ('schön', '🦀'), ('', NULL)", "UPDATE t SET k = k || 'ß'"],
        );
    }
}

#[test]
fn names_with_quotes_spaces_keywords_and_unicode_replicate() {
    in_every_order(
        r#"CREATE TABLE "order"("group" INTEGER PRIMARY KEY, "select" TEXT);
           CREATE TABLE "it's a ""table"" (1)"("a ""key""" TEXT PRIMARY KEY, "b'; --" , [c d], `e`);
           CREATE TABLE "größe"("höhe" PRIMARY KEY, "Ünïque" UNIQUE) WITHOUT ROWID;
           CREATE TABLE " "(" ", "  ");
           CREATE TABLE "new"("old" PRIMARY KEY, "new" UNIQUE, "NEW.x");
           CREATE INDEX "index"" name" ON "it's a ""table"" (1)"([c d]);
           CREATE VIEW "v'w" AS SELECT * FROM "order";"#,
        &[
            r#"INSERT INTO "order" VALUES (1, 'x'); INSERT INTO "it's a ""table"" (1)" VALUES ('k', 1, 2, 3), ('l', 1, 2, 3)"#,
            r#"INSERT INTO "größe" VALUES (1, 1); INSERT INTO " " VALUES (1, 2); INSERT INTO "new" VALUES (1, 2, 3)"#,
            r#"UPDATE "it's a ""table"" (1)" SET "a ""key""" = 'm' WHERE `e` = 3 AND "a ""key""" = 'k'"#,
            r#"REPLACE INTO "größe" VALUES (2, 1); DELETE FROM " "; REPLACE INTO "new" VALUES (9, 2, 4)"#,
        ],
    );
}

#[test]
fn tables_whose_names_resemble_ours_or_each_other_replicate() {
    in_every_order(
        "CREATE TABLE logos_log(a); CREATE TABLE xlogosxtable(id INTEGER PRIMARY KEY, v);
         CREATE TABLE a_b(c PRIMARY KEY); CREATE TABLE a(b_c PRIMARY KEY); CREATE TABLE Insert_(x); CREATE TABLE log(seq, tbl, k0);",
        &[
            "INSERT INTO logos_log VALUES (1); INSERT INTO xlogosxtable VALUES (1, 1); INSERT INTO a_b VALUES (1)",
            "INSERT INTO a VALUES (2); INSERT INTO Insert_ VALUES (3); INSERT INTO log VALUES (1, 2, 3)",
            "UPDATE xlogosxtable SET v = 2; DELETE FROM log",
        ],
    );
}

#[test]
fn a_wide_table_and_a_wide_key_replicate() {
    let columns: Vec<String> = (0..300).map(|n| format!("c{n}")).collect();
    let key = columns[..40].join(", ");
    let values: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    in_every_order(
        &format!("CREATE TABLE t({}, PRIMARY KEY ({key}))", columns.join(", ")),
        &[
            &format!("INSERT INTO t VALUES ({})", values.join(", ")),
            "UPDATE t SET c299 = 'last', c39 = 'key'",
            "UPDATE t SET c0 = NULL",
        ],
    );
}

#[test]
fn views_indexes_and_triggers_exist_on_the_replica_and_its_triggers_do_not_run_again() {
    in_every_order(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE audit(id INTEGER PRIMARY KEY AUTOINCREMENT, what);
         CREATE TRIGGER t_insert AFTER INSERT ON t BEGIN INSERT INTO audit(what) VALUES ('in ' || NEW.id); END;
         CREATE TRIGGER t_update AFTER UPDATE ON t BEGIN INSERT INTO audit(what) VALUES ('up ' || NEW.id); END;
         CREATE TRIGGER t_delete BEFORE DELETE ON t BEGIN INSERT INTO audit(what) VALUES ('out ' || OLD.id); END;
         CREATE TRIGGER t_same AFTER INSERT ON t WHEN NEW.v IS NULL BEGIN UPDATE t SET v = 'filled' WHERE id = NEW.id; END;
         CREATE INDEX tv ON t(v); CREATE VIEW shown AS SELECT id FROM t WHERE v NOT NULL;
         CREATE TRIGGER shown_insert INSTEAD OF INSERT ON shown BEGIN INSERT INTO t VALUES (NEW.id, 'by view'); END;",
        &[
            "INSERT INTO t VALUES (1, 'a'), (2, NULL)",
            "UPDATE t SET v = 'b' WHERE id = 1; DELETE FROM t WHERE id = 2",
            "INSERT INTO shown VALUES (50)",
        ],
    );
}

#[test]
fn temporary_and_attached_tables_stay_at_home() {
    let pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY)");
    let other = pair.dir.file("other.db");
    open(&other).run("CREATE TABLE theirs(a)");
    pair.run(&format!("ATTACH '{}' AS other; CREATE TEMP TABLE mine(a)", other.display()));
    pair.run("BEGIN; INSERT INTO t VALUES (1); INSERT INTO theirs VALUES (2); INSERT INTO mine VALUES (3); COMMIT");
    pair.run("CREATE TEMP TABLE t2(a); INSERT INTO t2 VALUES (1); CREATE TABLE other.t3(a); INSERT INTO t3 VALUES (1)");
    let replica = pair.check();
    assert_eq!(replica.text("SELECT group_concat(name) FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_logos%' ESCAPE '\\'"), "t");
}

#[test]
fn a_row_under_a_null_key_does_not_bring_all_that_share_it() {
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)";
    for (declared, key) in [("k TEXT PRIMARY KEY, v", "NULL"), ("k TEXT, l TEXT, v, PRIMARY KEY (k, l)", "NULL, 'l'")] {
        let mut pair =
            Pair::of(&format!("CREATE TABLE t({declared}); INSERT INTO t(k) VALUES ('kept'), ('by its key')"));
        pair.check();
        // The first of them brings the table once more.
        pair.run(&format!("{rows} INSERT INTO t SELECT {key}, hex(randomblob(20)) FROM n"));
        pair.check();
        pair.check();
        for step in [
            &format!("INSERT INTO t VALUES ({key}, 'one more')"),
            "UPDATE t SET v = 'changed' WHERE v = 'one more'",
            "UPDATE OR REPLACE t SET k = 'kept' WHERE k = 'by its key'",
            "DELETE FROM t WHERE v = 'changed'",
            "UPDATE t SET k = 'a key', v = 1 WHERE rowid = 700",
        ] {
            pair.run(step);
            pair.check();
            let bytes = pair.primary.int("SELECT bytes FROM logos_log ORDER BY seq DESC LIMIT 1");
            assert!(bytes < 1000, "{bytes} bytes for: {step}");
        }
        pair.check_fresh();
        pair.run("SELECT logos_stop()");
        pair.run("INSERT INTO t(v) VALUES ('while nothing publishes')");
        harness::pair::publish(&pair.primary, &pair.url);
        pair.check();
    }
}

#[test]
fn rows_come_and_go_under_null_keys_before_and_after_they_are_known_by_rowids() {
    in_every_order(
        "CREATE TABLE t(k PRIMARY KEY, u UNIQUE, v); INSERT INTO t VALUES (1, 1, 1), (2, 2, 2);",
        &[
            "INSERT INTO t VALUES (NULL, 3, 3), (NULL, 4, 4)",
            "REPLACE INTO t VALUES (NULL, 3, 5), (1, 4, 6)",
            "UPDATE t SET k = NULL WHERE k = 2; UPDATE t SET k = 7 WHERE u = 3",
            "DELETE FROM t WHERE k IS NULL; VACUUM; INSERT INTO t VALUES (NULL, NULL, NULL), (NULL, NULL, NULL)",
            "ALTER TABLE t ADD COLUMN w; ALTER TABLE t RENAME COLUMN k TO kk; UPDATE t SET v = 9 WHERE kk IS NULL",
        ],
    );
}
