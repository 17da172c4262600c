//! Goal: whoever reads a replica while messages are applied sees states of the primary and nothing else (T54), and a reader
//! that is in the midst of a statement finishes on what it began with, whatever happens to the schema meanwhile (T55).
//!
//! Method: connections and threads read a following replica while the primary moves money between accounts; cursors are held
//! open at a row while the schema under them is changed and dropped.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use harness::pair::{attach, flush, try_attach};
use harness::{assert_equal, open, open_plain, Connection, Dice, Pair, Sql};

const SUM: i64 = 100_000;

#[test]
fn the_sum_of_balances_is_the_same_for_every_reader_at_every_moment() {
    let pair = Pair::of(
        "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, mark UNIQUE); CREATE TABLE pot(name TEXT PRIMARY KEY, balance) WITHOUT ROWID;
         CREATE INDEX by_balance ON account(balance);
         WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 1000) INSERT INTO account SELECT i, 100, 'm' || i FROM c;
         INSERT INTO pot VALUES ('all', 0);",
    );
    let replica = pair.check();
    try_attach(&replica, &pair.url, Some(r#"{"follow":true}"#)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let looks: Arc<[AtomicUsize; 3]> = Arc::default();
    let readers: Vec<_> = (0..3)
        .map(|n| {
            let (path, stop, looks) = (pair.replica_path(), stop.clone(), looks.clone());
            std::thread::spawn(move || {
                let conn = if n == 0 { open_plain(&path) } else { open(&path) };
                let query = "SELECT (SELECT sum(balance) FROM account) + (SELECT sum(balance) FROM pot)";
                let mut states = std::collections::HashSet::new();
                while !stop.load(Ordering::Relaxed) {
                    if n == 1 {
                        // Two statements in one transaction, the second by the index.
                        conn.run("BEGIN");
                        let pot = conn.int("SELECT sum(balance) FROM pot");
                        let all = conn
                            .int("SELECT sum(balance) FROM account INDEXED BY by_balance WHERE balance > -1000000000");
                        conn.run("COMMIT");
                        assert_eq!(pot + all, SUM);
                    } else {
                        assert_eq!(conn.int(query), SUM);
                    }
                    states.insert(conn.text("SELECT logos_position()"));
                    looks[n].fetch_add(1, Ordering::Relaxed);
                }
                states.len()
            })
        })
        .collect();
    let mut dice = Dice::new(7);
    let enough = || looks.iter().all(|look| look.load(Ordering::Relaxed) > 100);
    let mut moves = 0;
    while moves < 300 || (!enough() && moves < 100_000) {
        let (from, to, money) = (1 + dice.below(1000), 1 + dice.below(1000), dice.below(50));
        pair.run(&format!(
            "BEGIN; UPDATE account SET balance = balance - {money} WHERE id BETWEEN {from} AND {from} + 20;
             UPDATE pot SET balance = balance + {money} * changes(); UPDATE account SET balance = balance + {money} WHERE id = {to};
             UPDATE pot SET balance = balance - {money} * changes(); COMMIT"
        ));
        if dice.below(10) == 0 {
            pair.run(&format!(
                "BEGIN; INSERT INTO account SELECT id + 2000, balance, NULL FROM account WHERE id = {to};
                 DELETE FROM account WHERE id = {to}; UPDATE account SET id = id - 2000, mark = 'm' || id WHERE id > 2000; COMMIT"
            ));
        }
        moves += 1;
    }
    stop.store(true, Ordering::Relaxed);
    let states: Vec<usize> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    assert!(states.iter().any(|n| *n > 1), "no reader saw two states: {states:?}");
    replica.run("SELECT logos_stop()");
    pair.check();
}

/// Schema changes that a cursor on `t` may meet, each with a query for afterwards.
const CHANGES: &[(&str, &str)] = &[
    ("ALTER TABLE t ADD COLUMN c DEFAULT 'new'", "SELECT count(*) FROM t WHERE c = 'new'"),
    ("ALTER TABLE t RENAME COLUMN b TO bb; UPDATE t SET bb = -1", "SELECT count(*) FROM t WHERE bb = -1"),
    ("CREATE INDEX tb ON t(b); DELETE FROM t WHERE id > 40", "SELECT count(*) FROM t INDEXED BY tb WHERE b >= 0"),
    ("ALTER TABLE t DROP COLUMN b", "SELECT count(*) FROM t WHERE id > 0"),
    ("ALTER TABLE t RENAME TO u", "SELECT count(*) FROM u"),
    (
        "DROP TABLE t; CREATE TABLE t(b TEXT PRIMARY KEY, id); INSERT INTO t VALUES ('x', 5)",
        "SELECT count(*) FROM t WHERE b = 'x'",
    ),
    (
        "CREATE VIRTUAL TABLE f USING fts5(a); INSERT INTO f VALUES ('x'); DROP TABLE other",
        "SELECT count(*) FROM f('x')",
    ),
    ("DROP TABLE t", "SELECT count(*) FROM other"),
];

fn reader_meets(conn: &Connection, pair: &Pair, follows: bool, change: &str, afterwards: &str) {
    eprintln!("follows by itself: {follows}: {change}");
    let rows = |conn: &Connection| conn.int("SELECT count(*) FROM t");
    let before = rows(conn);
    let mut open_cursor = conn.prepare("SELECT id, b FROM t ORDER BY id").unwrap();
    let mut prepared = conn.prepare("SELECT * FROM t WHERE id = 1").unwrap();
    assert!(prepared.exists([]).unwrap());
    let mut cursor = open_cursor.query([]).unwrap();
    let mut seen = 0;
    for _ in 0..3 {
        seen += i64::from(cursor.next().unwrap().is_some());
    }
    pair.run(change);
    let position = flush(&pair.primary);
    // Another connection applies; the cursor stays where it is.
    let other = open(&pair.replica_path());
    if follows {
        assert_eq!(other.text(&format!("SELECT logos_wait('{position}', 60)")), "1");
    } else {
        attach(&other, &pair.url);
    }
    assert_equal(&pair.primary, &other);
    while let Some(row) = cursor.next().unwrap() {
        assert_eq!(row.get::<_, i64>(0).unwrap(), row.get::<_, i64>(1).unwrap());
        seen += 1;
    }
    assert_eq!(seen, before, "the reader did not finish on its snapshot");
    drop(cursor);
    drop(open_cursor);
    // The statement prepared before: the new schema, or an error that says what is gone.
    match prepared.query([]).and_then(|mut rows| Ok(rows.next()?.is_some())) {
        Ok(_) => assert!(conn.prepare("SELECT * FROM t WHERE id = 1").is_ok()),
        Err(error) => assert!(error.to_string().contains("no such table"), "{error}"),
    }
    drop(prepared);
    assert_eq!(conn.texts(afterwards), pair.primary.texts(afterwards), "{afterwards}");
}

#[test]
fn open_cursors_finish_and_the_next_statement_sees_the_new_schema() {
    for follows in [true, false] {
        for (change, afterwards) in CHANGES {
            let pair = Pair::of(
                "CREATE TABLE t(id INTEGER PRIMARY KEY, b); CREATE TABLE other(a); INSERT INTO other VALUES (1);
                 WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 50) INSERT INTO t SELECT i, i FROM c;",
            );
            let replica = pair.check();
            if follows {
                try_attach(&replica, &pair.url, Some(r#"{"follow":true}"#)).unwrap();
            }
            let reader = open_plain(&pair.replica_path());
            reader_meets(&reader, &pair, follows, change, afterwards);
            replica.run("SELECT logos_stop()");
        }
    }
}

#[test]
fn a_cursor_on_the_very_connection_that_follows_finishes_too() {
    let pair = Pair::of(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, b); CREATE TABLE other(a);
         WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 50) INSERT INTO t SELECT i, i FROM c;",
    );
    let replica = pair.check();
    try_attach(&replica, &pair.url, Some(r#"{"follow":true}"#)).unwrap();
    reader_meets(
        &replica,
        &pair,
        true,
        "ALTER TABLE t ADD COLUMN c DEFAULT 'new'; DELETE FROM t WHERE id > 10",
        "SELECT count(*) FROM t WHERE c = 'new'",
    );
    replica.run("SELECT logos_stop()");
}

#[test]
fn a_reader_that_stays_for_long_holds_up_nothing() {
    let pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY, b); INSERT INTO t VALUES (1, 1)");
    let replica = pair.check();
    let reader = open_plain(&pair.replica_path());
    reader.run("BEGIN; SELECT * FROM t");
    for n in 2..30 {
        pair.run(&format!("INSERT INTO t VALUES ({n}, {n}); CREATE TABLE t{n}(a); DROP TABLE IF EXISTS t{}", n - 1));
        flush(&pair.primary);
        attach(&replica, &pair.url);
    }
    assert_equal(&pair.primary, &replica);
    assert_eq!(reader.texts("SELECT id FROM t"), ["1"]);
    reader.run("COMMIT");
    assert_eq!(reader.int("SELECT count(*) FROM t"), 29);
    drop(reader);
    pair.check();
}
