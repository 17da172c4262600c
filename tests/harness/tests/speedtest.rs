//! Goal: a workload of the kind of SQLite's own `speedtest1` runs with the extension loaded and publishing, and the replica is
//! equal (issue 3, "done when" 4).
//!
//! Method: bulk inserts with and without indexes, ordered and not; updates and deletes by range and by key; joins, text search
//! by LIKE, blobs, refills and VACUUM; a replica follows meanwhile, another is made at the end. The sizes follow from `N`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::pair::{flush, try_attach};
use harness::rusqlite::{params, Statement};
use harness::{assert_equal, open, replicate, Dice, Pair, Sql};

/// Rows of the larger tables.
const N: u64 = 8_000;

const ONES: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = ["", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

/// A number in words: text that can be searched and does not compress to nothing.
fn words(n: u64) -> String {
    match n {
        0..=19 => ONES[n as usize].into(),
        20..=99 if n.is_multiple_of(10) => TENS[n as usize / 10].into(),
        20..=99 => format!("{} {}", TENS[n as usize / 10], ONES[n as usize % 10]),
        100..=999 if n.is_multiple_of(100) => format!("{} hundred", ONES[n as usize / 100]),
        100..=999 => format!("{} hundred {}", ONES[n as usize / 100], words(n % 100)),
        _ if n.is_multiple_of(1000) => format!("{} thousand", words(n / 1000)),
        _ => format!("{} thousand {}", words(n / 1000), words(n % 1000)),
    }
}

/// In one transaction: a statement once for each number.
fn each(pair: &Pair, count: u64, sql: &str, mut run: impl FnMut(&mut Statement<'_>, u64)) {
    pair.run("BEGIN");
    let mut statement = pair.primary.prepare(sql).unwrap();
    (0..count).for_each(|n| run(&mut statement, n));
    drop(statement);
    pair.run("COMMIT");
}

fn fill(pair: &Pair, table: &str, ordered: bool, dice: &mut Dice) {
    each(pair, N, &format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2, ?3)"), |insert, n| {
        let key = if ordered { n } else { dice.below(N * 4) };
        insert.execute(params![key as i64, dice.below(N * 10) as i64, words(key)]).unwrap();
    });
}

#[test]
fn a_workload_like_speedtest1_leaves_the_replica_equal() {
    let mut pair = Pair::of("PRAGMA synchronous = NORMAL; PRAGMA cache_size = -20000");
    flush(&pair.primary);
    let replica = open(&pair.replica_path());
    try_attach(&replica, &pair.url, Some(r#"{"follow":true}"#)).unwrap();
    let dice = &mut Dice::new(1);

    pair.run(
        "CREATE TABLE z1(a INTEGER, b INTEGER, c TEXT); CREATE TABLE z2(a INTEGER PRIMARY KEY, b INTEGER, c TEXT);
         CREATE TABLE z3(a INTEGER, b INTEGER, c TEXT PRIMARY KEY); CREATE TABLE z4(a INTEGER PRIMARY KEY, b, c UNIQUE) WITHOUT ROWID;
         CREATE TABLE t3(a, b, c); CREATE INDEX t3b ON t3(b); CREATE INDEX t3c ON t3(c);",
    );
    fill(&pair, "z1", true, dice);
    fill(&pair, "z2", false, dice);
    fill(&pair, "z3", false, dice);
    fill(&pair, "z4", true, dice);
    fill(&pair, "t3", true, dice);
    // One row a transaction, as an application does.
    for n in 0..300 {
        pair.run(&format!("INSERT INTO z1 VALUES ({n}, {}, '{}')", dice.below(N), words(n)));
    }

    each(&pair, 20, "SELECT count(*), avg(b), sum(length(c)) FROM z1 WHERE b BETWEEN ?1 AND ?1 + 1000", |select, n| {
        select.query_row([n as i64 * 500], |row| row.get::<_, i64>(0)).unwrap();
    });
    each(&pair, 10, "SELECT count(*), avg(b) FROM z1 WHERE c LIKE ?1", |select, n| {
        select.query_row([format!("%{}%", words(n))], |row| row.get::<_, i64>(0)).unwrap();
    });
    each(&pair, 10, "SELECT a, b, c FROM z2 WHERE c LIKE ?1 ORDER BY a LIMIT 10", |select, n| {
        select.query_map([format!("%{}%", words(n))], |row| row.get::<_, i64>(0)).unwrap().for_each(drop);
    });

    pair.run("CREATE UNIQUE INDEX z1ab ON z1(a, b) WHERE c IS NULL");
    pair.run("CREATE INDEX z1b ON z1(b); CREATE INDEX z1c ON z1(c); CREATE INDEX z2b ON z2(b)");
    fill(&pair, "z1", true, dice);
    pair.run("VACUUM");

    each(&pair, N / 50, "UPDATE z2 SET b = b * 2 WHERE b BETWEEN ?1 AND ?2", |update, n| {
        let from = (n * 500) as i64;
        update.execute([from, from + 400]).unwrap();
    });
    each(&pair, N / 2, "UPDATE z2 SET b = b + ?2 WHERE a = ?1", |update, n| {
        update.execute([(n * 7 % (N * 4)) as i64, n as i64]).unwrap();
    });
    each(&pair, N / 2, "UPDATE z4 SET c = c || ' more' WHERE a = ?1", |update, n| {
        update.execute([(n * 13 % N) as i64]).unwrap();
    });
    pair.run("UPDATE z3 SET b = b + 1; ALTER TABLE t3 ADD COLUMN d DEFAULT 123; UPDATE t3 SET d = a WHERE a % 4 = 0");
    let large = "SELECT sum(t.b + z.b) FROM t3 t JOIN z2 z ON z.a = t.a JOIN z4 w ON w.a = t.b / 10 WHERE t.a < 5000";
    pair.primary.texts(large);
    pair.run("CREATE TABLE joined AS SELECT t.a, t.c, z.c AS other FROM t3 t JOIN z2 z ON z.a = t.a");

    each(&pair, N / 50, "DELETE FROM z1 WHERE b BETWEEN ?1 AND ?2", |delete, n| {
        let from = (n * 600) as i64;
        delete.execute([from, from + 100]).unwrap();
    });
    each(&pair, N / 2, "DELETE FROM z2 WHERE a = ?1", |delete, n| {
        delete.execute([(n * 11 % (N * 4)) as i64]).unwrap();
    });
    pair.run("DELETE FROM joined; INSERT INTO joined SELECT a, c, b FROM t3; DELETE FROM t3 WHERE a > 100; INSERT INTO t3 SELECT *, 1 FROM z3");
    pair.run("BEGIN; DELETE FROM t3; INSERT INTO t3(a, b, c) SELECT a, b, c FROM z1 ORDER BY random(); COMMIT");

    pair.run("CREATE TABLE blobs(id INTEGER PRIMARY KEY, name TEXT UNIQUE, data BLOB, extra)");
    each(&pair, 400, "INSERT INTO blobs VALUES (?1, ?2, randomblob(?3), zeroblob(1000))", |insert, n| {
        insert.execute(params![n as i64, words(n), 10 + n as i64 * 50]).unwrap();
    });
    pair.run("UPDATE blobs SET extra = NULL WHERE id % 2; REPLACE INTO blobs SELECT id + 1, name, data, 1 FROM blobs WHERE id % 5 = 0");
    pair.run("CREATE TABLE parent(id INTEGER PRIMARY KEY, n); CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES parent(id) ON DELETE CASCADE ON UPDATE CASCADE);
              CREATE INDEX childp ON child(p); CREATE TRIGGER counting AFTER INSERT ON child BEGIN UPDATE parent SET n = n + 1 WHERE id = NEW.p; END");
    each(&pair, 500, "INSERT INTO parent VALUES (?1, 0)", |insert, n| {
        insert.execute([n as i64]).unwrap();
    });
    each(&pair, 5000, "INSERT INTO child(p) VALUES (?1)", |insert, n| {
        insert.execute([(n * 31 % 500) as i64]).unwrap();
    });
    pair.run("DELETE FROM parent WHERE id % 3 = 0; UPDATE parent SET id = id + 1000 WHERE id % 3 = 1");
    each(&pair, 2000, "INSERT INTO z2 VALUES (?1, 1, 'up') ON CONFLICT(a) DO UPDATE SET b = b + 1", |insert, n| {
        insert.execute([(n * 3) as i64]).unwrap();
    });
    pair.run("DROP INDEX z1b; REINDEX; ANALYZE; VACUUM; PRAGMA integrity_check");

    let position = flush(&pair.primary);
    assert_eq!(replica.text(&format!("SELECT logos_wait('{position}', 60)")), "1");
    assert_equal(&pair.primary, &replica);
    replica.run("SELECT logos_stop()");
    assert_eq!(replica.texts("PRAGMA integrity_check"), ["ok"]);
    pair.check_fresh();
    replicate(&pair.primary, &pair.url, &pair.dir.file("third.db"));
}
