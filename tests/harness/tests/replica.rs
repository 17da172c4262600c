//! Goal: a replica is a copy at a known position, made from the channel alone, that nothing but the channel changes
//! (I1, I7, I8, T52, T53), and that says so when it cannot go on.
//!
//! Method: real replicas of real channels; what must not change is compared before and after, byte by byte where
//! the file belongs to somebody else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::files::entries;
use harness::pair::{attach, flush, publish, try_attach};
use harness::{assert_equal, differences, dump, open, status_of, wait_until, Pair, Shell, Sql, TempDir};

const TABLES: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, v UNIQUE); CREATE TABLE w(a, b, PRIMARY KEY (b, a)) WITHOUT ROWID;
    CREATE TABLE r(v); CREATE VIEW seen AS SELECT v FROM t;
    INSERT INTO t VALUES (1, 'one'), (2, 'two'); INSERT INTO w VALUES (1, 1); INSERT INTO r VALUES ('row');";

#[test]
fn attaching_returns_a_row_a_message_and_nothing_the_second_time() {
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    pair.run("INSERT INTO t VALUES (3, 'three'), (4, 'four')");
    let position = flush(&pair.primary);
    let replica = open(&pair.replica_path());
    let rows = attach(&replica, &pair.url);
    assert!(rows.len() >= 2, "{rows:?}");
    for (n, row) in rows.iter().enumerate() {
        assert_eq!(row.seq, rows[0].seq + n as i64);
        assert!(row.position.starts_with(&format!("{:016x}/", row.seq)));
        assert!(row.bytes > 0);
    }
    assert_eq!(rows.last().unwrap().position, position);
    assert_eq!(rows.last().unwrap().changes, 2);
    assert_eq!(attach(&replica, &pair.url), []);
    assert_equal(&pair.primary, &replica);
}

#[test]
fn a_second_attach_applies_only_what_is_new() {
    let pair = Pair::of(TABLES);
    let replica = pair.check();
    pair.run("UPDATE t SET v = 'uno' WHERE id = 1");
    flush(&pair.primary);
    let rows = attach(&replica, &pair.url);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].changes, 1);
    assert_eq!(attach(&replica, &pair.dir.channel()), []);
}

#[test]
fn a_closed_replica_resumes_at_its_position() {
    let pair = Pair::of(TABLES);
    let replica = pair.check();
    let position = replica.text("SELECT logos_position()");
    replica.close().unwrap();
    let replica = open(&pair.replica_path());
    assert_eq!(replica.text("SELECT logos_position()"), position);
    replica.close().unwrap();
    pair.run("DELETE FROM t WHERE id = 1");
    pair.check();
}

#[test]
fn attaching_to_a_database_that_is_not_empty_is_refused_and_changes_nothing() {
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    for (name, script) in [
        ("table", "CREATE TABLE mine(a); INSERT INTO mine VALUES (1)"),
        ("empty table", "CREATE TABLE mine(a)"),
        ("same schema", TABLES),
        ("view only", "CREATE VIEW v AS SELECT 1"),
        ("dropped table and AUTOINCREMENT", "CREATE TABLE x(id INTEGER PRIMARY KEY AUTOINCREMENT)"),
        ("wal", "PRAGMA journal_mode = WAL; CREATE TABLE mine(a); PRAGMA wal_checkpoint(TRUNCATE)"),
    ] {
        let path = pair.dir.file(&format!("foreign {name}.db"));
        assert_eq!(Shell::run(&path, &format!("{script};")).err, "");
        let before = fs::read(&path).unwrap();
        let conn = open(&path);
        let error = conn.fails(&format!("SELECT * FROM attach_replica('{}')", pair.url));
        assert!(error.contains("cannot become a replica"), "{name}: {error}");
        assert!(error.contains("hint"), "{name}: no way out is named: {error}");
        conn.close().unwrap();
        assert_eq!(fs::read(&path).unwrap(), before, "{name}: the file was changed");
    }
}

#[test]
fn attaching_to_a_replica_of_another_channel_is_refused_and_changes_nothing() {
    let (pair, other) = (Pair::of(TABLES), Pair::of("CREATE TABLE other(a); INSERT INTO other VALUES (1)"));
    let replica = other.check();
    flush(&pair.primary);
    let (before, position) = (dump(&replica), replica.text("SELECT logos_position()"));
    let error = replica.fails(&format!("SELECT * FROM attach_replica('{}')", pair.url));
    assert!(error.contains("channel"), "{error}");
    assert_eq!(dump(&replica), before);
    assert_eq!(replica.text("SELECT logos_position()"), position);
    other.run("INSERT INTO other VALUES (2)");
    other.check();
}

#[test]
fn attaching_a_published_database_is_refused_and_changes_nothing() {
    let (pair, other) = (Pair::of(TABLES), Pair::of("CREATE TABLE other(a)"));
    flush(&other.primary);
    let before = dump(&pair.primary);
    pair.primary.fails(&format!("SELECT * FROM attach_replica('{}')", other.url));
    assert_eq!(dump(&pair.primary), before);
    pair.check();
}

#[test]
fn attaching_what_is_no_database_or_no_file_is_refused() {
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    let path = pair.dir.file("garbage.db");
    let garbage = vec![b'x'; 5000];
    fs::write(&path, &garbage).unwrap();
    let conn = rusqlite_open(&path);
    assert!(conn.try_run(&format!("SELECT * FROM attach_replica('{}')", pair.url)).is_err());
    drop(conn);
    assert_eq!(fs::read(&path).unwrap(), garbage);
}

/// `open` runs a PRAGMA, which already fails on a file that is no database.
fn rusqlite_open(path: &std::path::Path) -> harness::Connection {
    drop(open(&path.with_extension("loader")));
    harness::Connection::open(path).unwrap()
}

#[test]
fn an_unknown_channel_is_refused_and_the_database_stays_empty() {
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    let replica = open(&pair.replica_path());
    let unknown = format!("{}/{}", pair.dir.channel(), "ab".repeat(32));
    for url in [unknown.as_str(), "dir:/nowhere/at/all", "nonsense", "", "dir:"] {
        let error = replica.fails(&format!("SELECT * FROM attach_replica('{url}')"));
        assert!(error.contains("logos"), "{url}: {error}");
    }
    assert_eq!(replica.int("SELECT count(*) FROM sqlite_schema"), 0);
    pair.check();
}

#[test]
fn local_writes_on_a_replica_are_refused_with_and_without_the_extension() {
    let pair = Pair::of(TABLES);
    let replica = pair.check();
    let before = dump(&replica);
    let writes = [
        "INSERT INTO t VALUES (9, 'nine')",
        "INSERT OR REPLACE INTO t VALUES (1, 'other')",
        "INSERT OR IGNORE INTO t VALUES (9, 'nine')",
        "INSERT INTO t VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET v = 'x'",
        "UPDATE t SET v = 'changed' WHERE id = 1",
        "UPDATE t SET id = 10 WHERE id = 1",
        "UPDATE OR IGNORE t SET v = 'changed'",
        "DELETE FROM t WHERE id = 1",
        "DELETE FROM t",
        "INSERT INTO w VALUES (2, 2)",
        "UPDATE w SET a = 5",
        "DELETE FROM w",
        "INSERT INTO r VALUES (1)",
        "UPDATE r SET v = 2",
        "DELETE FROM r",
    ];
    for write in writes {
        let error = replica.fails(write);
        assert!(error.contains("read-only replica"), "{write}: {error}");
        let answer = Shell::run(&pair.replica_path(), &format!("{write};"));
        assert!(answer.err.contains("read-only replica"), "{write}: {answer:?}");
    }
    let error = replica.fails("BEGIN; DELETE FROM t");
    assert!(error.contains("read-only replica"), "{error}");
    replica.run("ROLLBACK");
    assert_eq!(differences(&before, &dump(&replica)), Vec::<String>::new());
    pair.run("INSERT INTO t VALUES (3, 'three'); CREATE TABLE late(a); INSERT INTO late VALUES (1)");
    pair.check();
    let answer = Shell::run(&pair.replica_path(), "INSERT INTO late VALUES (2);");
    assert!(answer.err.contains("read-only replica"), "{answer:?}");
    pair.check();
}

#[test]
fn reading_a_replica_needs_no_extension() {
    let pair = Pair::of(TABLES);
    pair.check();
    let answer = Shell::run(&pair.replica_path(), "SELECT v FROM seen ORDER BY v; PRAGMA integrity_check;");
    assert_eq!((answer.out.as_str(), answer.err.as_str()), ("one\ntwo\nok", ""));
}

#[test]
fn two_replicas_fed_the_same_channel_are_equal() {
    let pair = Pair::of(TABLES);
    let one = pair.check();
    pair.run("UPDATE t SET v = v || '!'");
    let two = harness::replicate(&pair.primary, &pair.url, &pair.dir.file("second.db"));
    attach(&one, &pair.url);
    assert_equal(&one, &two);
    assert_eq!(one.text("SELECT logos_position()"), two.text("SELECT logos_position()"));
}

#[test]
fn a_following_replica_keeps_up_by_itself() {
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    let replica = open(&pair.replica_path());
    try_attach(&replica, &pair.url, Some(r#"{"follow":true}"#)).unwrap();
    for n in 10..40 {
        pair.run(&format!("INSERT INTO t VALUES ({n}, 'row {n}')"));
        if n == 20 {
            pair.run("CREATE TABLE fresh(a PRIMARY KEY); INSERT INTO fresh VALUES (1)");
        }
    }
    let position = flush(&pair.primary);
    assert_eq!(replica.text(&format!("SELECT logos_wait('{position}', 60)")), "1");
    assert_equal(&pair.primary, &replica);
    replica.run("SELECT logos_stop()");
    pair.run("INSERT INTO t VALUES (99, 'after the stop')");
    flush(&pair.primary);
    assert_eq!(replica.int("SELECT count(*) FROM t WHERE id = 99"), 0);
    pair.check();
}

#[test]
fn a_replica_follows_a_primary_in_another_process() {
    let dir = TempDir::new();
    let mut primary = Shell::open_with_logos(&dir.file("primary.db"));
    primary.must(TABLES);
    let url = primary.must(&format!("SELECT logos_publish('{}');", dir.channel()));
    primary.must("SELECT logos_flush(60);");
    let mut replica = Shell::open_with_logos(&dir.file("replica.db"));
    replica.must(&format!("SELECT count(*) FROM attach_replica('{url}', '{{\"follow\":true}}');"));
    for n in 10..15 {
        primary.must(&format!("INSERT INTO t VALUES ({n}, {n});"));
        let position = primary.must("SELECT logos_flush(60);");
        assert_eq!(replica.must(&format!("SELECT logos_wait('{position}', 60);")), "1");
        assert_eq!(replica.must(&format!("SELECT count(*) FROM t WHERE id = {n};")), "1");
    }
    assert!(replica.close().success());
    assert!(primary.close().success());
}

#[test]
fn waiting_pulls_and_times_out_with_zero() {
    let pair = Pair::of(TABLES);
    let replica = pair.check();
    pair.run("INSERT INTO t VALUES (3, 'three')");
    let position = flush(&pair.primary);
    assert_eq!(replica.text(&format!("SELECT logos_wait('{position}', 60)")), "1");
    assert_eq!(replica.int("SELECT count(*) FROM t"), 3);
    assert_eq!(replica.text(&format!("SELECT logos_wait('{position}', 0)")), "1", "reached before");
    let (seq, digest) = position.split_once('/').unwrap();
    let future = format!("{:016x}/{digest}", u64::from_str_radix(seq, 16).unwrap() + 5);
    assert_eq!(replica.text(&format!("SELECT logos_wait('{future}', 0.2)")), "0");
    for wrong in ["", "nonsense", "1/2", &position.to_uppercase()] {
        if *wrong != *position {
            replica.fails(&format!("SELECT logos_wait('{wrong}', 0)"));
        }
    }
}

#[test]
fn waiting_begins_before_the_first_message_is_there_in_this_process_and_in_another() {
    let pair = Pair::of(TABLES);
    let position = flush(&pair.primary);
    let files = entries(&pair.url);
    let folder = pair.dir.file("copy").join(&pair.url[pair.url.len() - 64..]);
    fs::create_dir_all(&folder).unwrap();
    let replica = open(&pair.replica_path());
    let mut other = Shell::open_with_logos(&pair.replica_path());
    let wait = |seconds: f64| format!("SELECT logos_wait('{position}', {seconds})");
    assert_eq!(other.must(&format!("{};", wait(0.1))), "0", "nobody has attached it yet");
    let url = format!("dir:{}", folder.display());
    assert_eq!(try_attach(&replica, &url, Some(r#"{"follow":true}"#)).unwrap(), []);
    assert_eq!(replica.text(&wait(0.1)), "0");
    assert_eq!(other.must(&format!("{};", wait(0.1))), "0");
    assert_eq!(
        Some(replica.text("SELECT logos_position()")),
        status_of(&replica, &pair.replica_path()).unwrap().position
    );
    let error = replica.fails("SELECT logos_flush(1)");
    assert!(error.contains("nothing is applied to it yet") && error.contains(&url), "{error}");
    let error = replica.fails(&format!("BEGIN; SELECT count(*) FROM sqlite_schema; {}", wait(0.1)));
    assert!(error.contains("inside a transaction"), "{error}");
    replica.run("ROLLBACK");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| other.must(&format!("{};", wait(60.0))));
        for file in files {
            fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
        }
        assert_eq!(replica.text(&wait(60.0)), "1");
        assert_eq!(waiting.join().unwrap(), "1");
    });
    // Attached, and nobody follows: whoever waits pulls.
    let third = open(&pair.dir.file("third.db"));
    fs::rename(&folder, pair.dir.file("away")).unwrap();
    fs::create_dir(&folder).unwrap();
    attach(&third, &url);
    fs::remove_dir(&folder).unwrap();
    fs::rename(pair.dir.file("away"), &folder).unwrap();
    assert_eq!(third.text(&wait(60.0)), "1");
    assert_equal(&pair.primary, &third);
}

#[test]
fn readers_of_a_replica_see_only_states_of_the_primary() {
    let pair = Pair::of(
        "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER); CREATE TABLE branch(id PRIMARY KEY, total) WITHOUT ROWID;
         WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 200) INSERT INTO account SELECT i, 100 FROM c;
         INSERT INTO branch VALUES ('all', 20000);",
    );
    flush(&pair.primary);
    let replica = open(&pair.replica_path());
    try_attach(&replica, &pair.url, Some(r#"{"follow":true}"#)).unwrap();
    let stop = AtomicBool::new(false);
    let path = pair.replica_path();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let conn = open(&path);
            let mut reads = 0;
            while !stop.load(Ordering::Relaxed) {
                let sums = conn.text("SELECT (SELECT sum(balance) FROM account) - (SELECT total FROM branch)");
                assert_eq!(sums, "0", "the sum was wrong during apply");
                reads += 1;
            }
            reads
        });
        for n in 0..600_i64 {
            let (from, to, amount) = (n * 7 % 200 + 1, n * 13 % 200 + 1, n % 50);
            pair.run(&format!(
                "BEGIN; UPDATE account SET balance = balance - {amount} WHERE id = {from};
                 UPDATE account SET balance = balance + {amount} + 1 WHERE id = {to};
                 UPDATE branch SET total = total + 1; COMMIT"
            ));
        }
        let position = flush(&pair.primary);
        assert_eq!(replica.text(&format!("SELECT logos_wait('{position}', 60)")), "1");
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    assert_equal(&pair.primary, &replica);
}

#[test]
fn a_message_that_cannot_be_applied_stops_the_replica_with_its_position_kept() {
    let pair = Pair::of(TABLES);
    let replica = pair.check();
    let position = replica.text("SELECT logos_position()");
    // Divergence made by hand: without its guard the replica takes a row that the channel then brings too.
    let guards = replica.texts("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 't'");
    let guard_sql = replica.texts("SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 't'");
    assert!(!guards.is_empty());
    for guard in &guards {
        replica.run(&format!("DROP TRIGGER \"{guard}\""));
    }
    replica.run("INSERT INTO t VALUES (500, 'clash')");
    for sql in &guard_sql {
        replica.run(sql);
    }
    pair.run("INSERT INTO r VALUES ('sent together'); ");
    pair.run("INSERT INTO t VALUES (3, 'clash')");
    flush(&pair.primary);
    pair.run("INSERT INTO t VALUES (4, 'after it')");
    flush(&pair.primary);
    let error = replica.fails(&format!("SELECT * FROM attach_replica('{}')", pair.url));
    assert!(error.contains('t') && error.contains("hint"), "{error}");
    let stopped = replica.text("SELECT logos_position()");
    assert!(stopped >= position);
    assert_eq!(replica.int("SELECT count(*) FROM t WHERE id IN (3, 4)"), 0, "it went on past the clash");
    assert_eq!(replica.text("SELECT v FROM t WHERE id = 500"), "clash", "it repaired in silence");
    replica.fails(&format!("SELECT * FROM attach_replica('{}')", pair.url));
    assert_eq!(replica.text("SELECT logos_position()"), stopped);
}

#[test]
fn a_missing_entry_is_waited_for_and_never_skipped() {
    let pair = Pair::of(TABLES);
    let replica = pair.check();
    let position = replica.text("SELECT logos_position()");
    let before = entries(&pair.url).len();
    pair.run("INSERT INTO t VALUES (3, 'three')");
    flush(&pair.primary);
    pair.run("INSERT INTO t VALUES (4, 'four')");
    flush(&pair.primary);
    let missing = entries(&pair.url)[before].clone();
    let aside = pair.dir.file("aside");
    fs::rename(&missing, &aside).unwrap();
    let outcome = try_attach(&replica, &pair.url, None);
    assert!(!matches!(&outcome, Ok(rows) if !rows.is_empty()), "{outcome:?}");
    assert_eq!(replica.text("SELECT logos_position()"), position);
    assert_eq!(replica.int("SELECT count(*) FROM t"), 2);
    fs::rename(&aside, &missing).unwrap();
    attach(&replica, &pair.url);
    assert_equal(&pair.primary, &replica);
}

#[test]
fn a_following_replica_outlives_a_channel_that_goes_and_comes_back() {
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    let replica = open(&pair.replica_path());
    try_attach(&replica, &pair.url, Some(r#"{"follow":true}"#)).unwrap();
    let away = pair.dir.file("away");
    fs::rename(pair.dir.channel_folder(), &away).unwrap();
    pair.run("INSERT INTO t VALUES (3, 'three')");
    wait_until("the replica notices", || {
        status_of(&replica, &pair.replica_path()).is_some_and(|row| row.error.is_some())
    });
    fs::rename(&away, pair.dir.channel_folder()).unwrap();
    let position = flush(&pair.primary);
    assert_eq!(replica.text(&format!("SELECT logos_wait('{position}', 60)")), "1");
    assert_equal(&pair.primary, &replica);
}

#[test]
fn remove_turns_a_replica_into_an_ordinary_database() {
    let pair = Pair::of(TABLES);
    let replica = pair.check();
    let before = dump(&replica);
    replica.run("SELECT logos_remove()");
    assert_eq!(dump(&replica), before);
    assert_eq!(replica.int("SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_logos\\_%' ESCAPE '\\'"), 0);
    replica.run("INSERT INTO t VALUES (77, 'mine now')");
    let dir = TempDir::new();
    let url = publish(&replica, &dir.channel());
    harness::replicate(&replica, &url, &dir.file("of-replica.db"));
}
