//! A writer of an application that has never heard of us: transactions that read, think and go on to write.
//!
//! `deferred DATABASE THINK_MS COUNT TIMEOUT_MS ddl|rows` prints how many of its transactions failed, and why the first did.
//! With `ddl` each comes just after a CREATE TABLE. It is the only writer; without a publisher none fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use harness::rusqlite::{self, Connection};

/// Rows a transaction: enough of them make the publisher write to the file now and then.
const ROWS: &str =
    "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 400) INSERT INTO t(v) SELECT n FROM s";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [database, think, count, timeout, what] = args.as_slice() else { panic!("usage: see the head of deferred.rs") };
    let conn = Connection::open(database).unwrap();
    conn.busy_timeout(Duration::from_millis(timeout.parse().unwrap())).unwrap();
    let think = Duration::from_millis(think.parse().unwrap());
    let (mut failed, mut first) = (0, String::new());
    for n in 0..count.parse::<u32>().unwrap() {
        if let Err(e) = transaction(&conn, n, think, what == "ddl") {
            failed += 1;
            if first.is_empty() {
                first = format!("transaction {n}: {e}");
            }
            if !conn.is_autocommit() {
                conn.execute_batch("ROLLBACK").unwrap();
            }
        }
    }
    println!("{failed} failed {first}");
}

fn transaction(conn: &Connection, n: u32, think: Duration, ddl: bool) -> rusqlite::Result<()> {
    if ddl {
        conn.execute_batch(&format!("CREATE TABLE made_{n}(id INTEGER PRIMARY KEY, a UNIQUE)"))?;
    }
    conn.execute_batch("BEGIN")?;
    conn.query_row("SELECT count(*) FROM t", [], |_| Ok(()))?;
    std::thread::sleep(think);
    conn.execute_batch(ROWS)?;
    conn.execute_batch("COMMIT")
}
