//! Goal: what `logos_publish` and its companions promise: one channel for a database for good, nothing in the
//! application's way (I9), no key too many doing harm (I2), and a clean way out.
//!
//! Method: the SQL surface is called as an application would, with its limits and its misuse; where the network
//! must not matter, the channel's folder is taken away meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use harness::files::{entries, sidecar};
use harness::pair::{flush, publish, replicate};
use harness::rusqlite::OpenFlags;
use harness::{
    assert_equal, differences, dump, messages, open, status_of, wait_until, Connection, Pair, Shell, Sql, TempDir,
};

const TABLES: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one'), (2, 'two');";

fn is_full_url(url: &str, channel: &str) -> bool {
    let id = url.strip_prefix(&format!("{channel}/")).unwrap_or_default();
    id.len() == 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[test]
fn publishing_returns_the_full_url_and_the_same_one_ever_after() {
    let dir = TempDir::new();
    let path = dir.file("primary.db");
    let conn = open(&path);
    conn.run(TABLES);
    let url = publish(&conn, &dir.channel());
    assert!(is_full_url(&url, &dir.channel()), "{url}");
    assert_eq!(publish(&conn, &dir.channel()), url);
    assert_eq!(publish(&conn, &url), url);
    conn.run("SELECT logos_stop()");
    assert_eq!(publish(&conn, &dir.channel()), url);
    conn.run("SELECT logos_stop()");
    conn.close().unwrap();
    let mut shell = Shell::open_with_logos(&path);
    assert_eq!(shell.must(&format!("SELECT logos_publish('{}');", dir.channel())), url);
    shell.must("INSERT INTO t VALUES (3, 'three');");
    let position = shell.must("SELECT logos_flush(60);");
    assert!(shell.close().success());
    let conn = open(&path);
    assert_eq!(publish(&conn, &dir.channel()), url);
    assert_eq!(replicate(&conn, &url, &dir.file("replica.db")).text("SELECT logos_position()"), position);
}

#[test]
fn publishing_switches_to_wal_and_leaves_the_rows_alone() {
    let dir = TempDir::new();
    let conn = open(&dir.file("primary.db"));
    conn.run(TABLES);
    assert_eq!(conn.text("PRAGMA journal_mode"), "delete");
    let before = dump(&conn);
    publish(&conn, &dir.channel());
    // The pragma answers from what the connection last saw of the file.
    conn.run("SELECT count(*) FROM t");
    assert_eq!(conn.text("PRAGMA journal_mode"), "wal");
    assert_eq!(differences(&before, &dump(&conn)), Vec::<String>::new());
}

#[test]
fn journal_keep_keeps_the_journal_mode_and_replicates() {
    let mut pair = Pair::with_options(TABLES, r#"{"journal":"keep"}"#);
    assert_eq!(pair.primary.text("PRAGMA journal_mode"), "delete");
    pair.check();
    pair.run("INSERT INTO t VALUES (3, 'three'); UPDATE t SET v = 'x'; CREATE TABLE n(a); INSERT INTO n VALUES (1)");
    pair.check();
    pair.check_fresh();
    assert_eq!(pair.primary.text("PRAGMA journal_mode"), "delete");
}

#[test]
fn publishing_is_refused_with_a_reason_where_it_cannot_be_done() {
    let dir = TempDir::new();
    let conn = open(&dir.file("primary.db"));
    conn.run(TABLES);
    let call = format!("SELECT logos_publish('{}')", dir.channel());

    conn.run("BEGIN");
    let error = conn.fails(&call);
    assert!(error.contains("transaction"), "{error}");
    conn.run("ROLLBACK");

    let memory = open(std::path::Path::new(":memory:"));
    let error = memory.fails(&call);
    assert!(error.contains("file"), "{error}");

    for wrong in ["", "nonsense", "ftp://x/y", "dir:"] {
        let error = conn.fails(&format!("SELECT logos_publish('{wrong}')"));
        assert!(error.contains("logos"), "{wrong}: {error}");
    }
    for wrong in ["{", "[]", r#"{"unknown":1}"#, r#"{"batch_ms":"x"}"#, r#"{"journal":"odd"}"#] {
        let error = conn.fails(&format!("SELECT logos_publish('{}', '{wrong}')", dir.channel()));
        assert!(error.contains("logos"), "{wrong}: {error}");
    }
    assert_eq!(conn.int("SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_logos%' ESCAPE '\\'"), 0);
    assert_eq!(conn.text("PRAGMA journal_mode"), "delete");
}

#[test]
fn publishing_to_a_second_channel_is_refused() {
    let pair = Pair::of(TABLES);
    let error = pair.primary.fails(&format!("SELECT logos_publish('dir:{}')", pair.dir.file("elsewhere").display()));
    assert!(error.contains("channel"), "{error}");
    pair.check();
}

#[test]
fn a_replica_does_not_publish_and_a_primary_does_not_attach() {
    let pair = Pair::of(TABLES);
    let replica = pair.check();
    let error = replica.fails(&format!("SELECT logos_publish('dir:{}')", pair.dir.file("second").display()));
    assert!(error.contains("replica"), "{error}");
    pair.primary.fails(&format!("SELECT * FROM attach_replica('{}')", pair.url));
    pair.check();
}

#[test]
fn the_sidecar_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    let mode = std::fs::metadata(sidecar(&pair.primary_path())).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_sidecar_that_was_there_for_everybody_becomes_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new();
    let database = dir.file("primary.db");
    let files =
        ["", "-wal"].map(|suffix| std::path::PathBuf::from(format!("{}{suffix}", sidecar(&database).display())));
    for file in &files {
        std::fs::write(file, "").unwrap();
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o666)).unwrap();
    }
    let conn = open(&database);
    conn.run(TABLES);
    publish(&conn, &dir.channel());
    flush(&conn);
    for file in &files {
        assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
}

#[test]
fn every_commit_is_covered_by_the_position_and_flush_waits_for_it() {
    let pair = Pair::of(TABLES);
    let mut last = flush(&pair.primary);
    for n in 10..30 {
        pair.run(&format!("INSERT INTO t VALUES ({n}, 'x')"));
        let position = pair.primary.text("SELECT logos_position()");
        assert!(position > last, "{position} does not come after {last}");
        let flushed = flush(&pair.primary);
        assert_eq!(flushed, position);
        last = flushed;
    }
    assert_eq!(flush(&pair.primary), last, "nothing was written, so nothing is sent");
    pair.check();
}

#[test]
fn keys_logged_by_hand_do_no_harm_and_carry_what_is_there() {
    let mut pair = Pair::of(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE w(a, b, v, PRIMARY KEY (b, a)) WITHOUT ROWID;
         CREATE TABLE r(v); INSERT INTO t VALUES (1, 'one'); INSERT INTO w VALUES (1, 2, 'x'); INSERT INTO r VALUES ('r');",
    );
    let replica = pair.check();
    let before = dump(&replica);
    pair.run("SELECT logos_touch('t', 1); SELECT logos_touch('t', 999); SELECT logos_touch('w', 2, 1); SELECT logos_touch('r', 1)");
    let replica = pair.check();
    assert_eq!(differences(&before, &dump(&replica)), Vec::<String>::new());
    pair.run("BEGIN; SELECT logos_touch('t', 1); ROLLBACK");
    pair.check();
    for wrong in ["'missing', 1", "'t'", "'t', 1, 2", "'w', 1", "'_logos_log', 1"] {
        let error = pair.primary.fails(&format!("SELECT logos_touch({wrong})"));
        assert!(error.contains("logos"), "{wrong}: {error}");
    }
    pair.check_fresh();
}

#[test]
fn touch_sends_a_row_that_was_changed_behind_the_triggers() {
    let pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB); INSERT INTO t VALUES (1, zeroblob(10))");
    pair.check();
    {
        use std::io::Write;
        let mut blob = pair.primary.blob_open("main", "t", "data", 1, false).unwrap();
        blob.write_all(b"direct").unwrap();
        blob.close().unwrap();
    }
    pair.run("SELECT logos_touch('t', 1)");
    let replica = pair.check();
    assert_eq!(replica.text("SELECT data FROM t"), "x'64697265637400000000'");
}

#[test]
fn the_application_goes_on_while_the_channel_is_gone() {
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    let away = pair.dir.file("away");
    std::fs::rename(pair.dir.channel_folder(), &away).unwrap();
    std::fs::write(pair.dir.channel_folder(), "not a folder").unwrap();
    pair.primary.busy_timeout(Duration::ZERO).unwrap();
    for n in 0..2000 {
        pair.run(&format!("INSERT INTO t(v) VALUES ('offline {n}')"));
    }
    let error = pair.primary.fails("SELECT logos_flush(1)");
    assert!(error.contains("logos"), "{error}");
    pair.primary.busy_timeout(Duration::from_secs(30)).unwrap();
    std::fs::remove_file(pair.dir.channel_folder()).unwrap();
    std::fs::rename(&away, pair.dir.channel_folder()).unwrap();
    pair.check();
}

#[test]
fn a_writer_without_patience_never_meets_a_lock_of_ours() {
    let mut pair = Pair::of(TABLES);
    // With a mutex, as SQLite's default is; without one nobody can tell whether it is in a call (README, limits).
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_FULL_MUTEX;
    let writer = Connection::open_with_flags(pair.primary_path(), flags).unwrap();
    writer.busy_timeout(Duration::ZERO).unwrap();
    for n in 0..3000 {
        writer.run(&format!("INSERT INTO t(v) VALUES ('busy {n}'); UPDATE t SET v = v || '.' WHERE id = {}", n / 2));
    }
    pair.check();
    pair.check_fresh();
}

#[test]
fn the_log_is_pruned_and_never_starts_its_numbers_again() {
    let pair = Pair::of(TABLES);
    for n in 0..200 {
        pair.run(&format!("INSERT INTO t(v) VALUES ('{n}'); UPDATE t SET v = '{n}' WHERE id < 50"));
    }
    flush(&pair.primary);
    let highest = pair.primary.int("SELECT max(seq) FROM _logos_log");
    let oldest = || pair.primary.int("SELECT min(seq) FROM _logos_log WHERE seq > 0");
    wait_until("what is published is forgotten", || oldest() > highest - 5_000);
    // Beside a program that writes without a pause, too.
    let plain = harness::rusqlite::Connection::open(pair.primary_path()).unwrap();
    for n in 0..150 {
        plain.run(&format!("UPDATE t SET v = 'again {n}' WHERE id < 50"));
    }
    assert!(pair.primary.int("SELECT max(seq) FROM _logos_log") > highest);
    pair.check();
    wait_until("what is published is forgotten", || oldest() > highest);
}

#[test]
fn the_log_of_messages_is_a_chain_without_a_gap() {
    let pair = Pair::of(TABLES);
    for n in 10..20 {
        pair.run(&format!("INSERT INTO t VALUES ({n}, 'x')"));
        flush(&pair.primary);
    }
    let log = messages(&pair.primary);
    assert!(log.len() >= 10, "{} messages", log.len());
    for (before, after) in log.iter().zip(&log[1..]) {
        assert_eq!(after.seq, before.seq + 1);
        assert!(after.position.starts_with(&format!("{:016x}/", after.seq)), "{}", after.position);
    }
    assert_eq!(log.last().unwrap().position, flush(&pair.primary));
    assert!(!entries(&pair.url).is_empty());
}

#[test]
fn stopping_keeps_what_is_written_and_publishing_goes_on_from_there() {
    let mut pair = Pair::of(TABLES);
    pair.check();
    pair.run("SELECT logos_stop()");
    pair.run("INSERT INTO t VALUES (3, 'while stopped'); DELETE FROM t WHERE id = 1");
    pair.primary.fails("SELECT logos_flush(1)");
    publish(&pair.primary, &pair.url);
    pair.check();
    pair.check_fresh();
}

#[test]
fn remove_takes_everything_of_ours_away_and_nothing_else() {
    let pair = Pair::of(TABLES);
    pair.run("CREATE TABLE logos_like(a); INSERT INTO logos_like VALUES (1)");
    pair.check();
    let before = dump(&pair.primary);
    pair.run("SELECT logos_remove()");
    assert_eq!(pair.primary.int("SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_logos\\_%' ESCAPE '\\'"), 0);
    assert_eq!(dump(&pair.primary), before);
    let base = sidecar(&pair.primary_path());
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let left = std::path::PathBuf::from(format!("{}{suffix}", base.display()));
        assert!(!left.exists(), "{} is left over", left.display());
    }
    pair.run("INSERT INTO t VALUES (50, 'afterwards'); CREATE TABLE n(a)");
    assert_eq!(pair.primary.text("PRAGMA integrity_check"), "ok");
    pair.primary.fails("SELECT logos_flush(1)");
}

#[test]
fn tools_that_drop_our_tables_break_nothing_for_good_and_remove_leaves_no_trace() {
    let pair = Pair::of(TABLES);
    pair.check();
    pair.run("DROP TABLE _logos_log; DROP TABLE _logos_table; DROP TABLE _logos_canary; DROP TABLE _logos_state");
    let made_again = "SELECT count(*) FROM sqlite_schema WHERE name = '_logos_canary'";
    wait_until("our tables are there again", || pair.primary.int(made_again) == 1);
    pair.run("INSERT INTO t VALUES (70, 'made again')");
    pair.check();
    pair.run("DELETE FROM _logos_log; DELETE FROM _logos_table; DELETE FROM _logos_state");
    pair.run("INSERT INTO t VALUES (71, 'emptied')");
    pair.check();
    pair.run("SELECT logos_stop(); DROP TABLE _logos_log; DROP TABLE _logos_table; DROP TABLE _logos_canary; DROP TABLE _logos_state");
    pair.run("SELECT logos_remove()");
    let plain = harness::rusqlite::Connection::open(pair.primary_path()).unwrap();
    plain.run("INSERT INTO t VALUES (72, 'without us')");
    assert_eq!(pair.primary.int("SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_logos\\_%' ESCAPE '\\'"), 0);
}

#[test]
fn a_second_publisher_is_told_so_by_a_code_of_its_own() {
    let dir = harness::TempDir::new();
    let path = dir.file("primary.db");
    let mut shell = Shell::open_with_logos(&path);
    shell.must("CREATE TABLE t(a);");
    shell.must(&format!("SELECT logos_publish('{}');", dir.channel()));
    let second = open(&path);
    let refused =
        second.query_row("SELECT logos_publish(?1)", [dir.channel()], |row| row.get::<_, String>(0)).unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(harness::rusqlite::ErrorCode::DatabaseLocked), "{refused}");
    assert!(refused.to_string().contains("another process publishes"), "{refused}");
    // Its commits are captured all the same.
    second.run("INSERT INTO t VALUES (7)");
    shell.must("SELECT logos_flush(30);");
    drop(shell);
    let url = publish(&second, &dir.channel());
    assert_eq!(harness::replicate(&second, &url, &dir.file("replica.db")).int("SELECT a FROM t"), 7);
}

#[test]
fn remove_is_refused_while_another_process_publishes() {
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    let answer = Shell::run_with_logos(&pair.primary_path(), "SELECT logos_remove();");
    assert!(answer.err.contains("another process publishes"), "{answer:?}");
    assert!(answer.err.contains("logos_stop()"), "{answer:?}");
    assert!(sidecar(&pair.primary_path()).exists());
    pair.run("INSERT INTO t VALUES (50, 'captured as before')");
    pair.check();
    pair.run("SELECT logos_stop()");
    let answer = Shell::run_with_logos(&pair.primary_path(), "SELECT logos_remove();");
    assert_eq!((answer.out.as_str(), answer.err.as_str()), ("removed", ""));
    assert!(!sidecar(&pair.primary_path()).exists());
}

#[test]
fn a_sidecar_that_is_missing_or_damaged_does_not_keep_from_removing() {
    for missing in [true, false] {
        let pair = Pair::of(TABLES);
        flush(&pair.primary);
        pair.run("SELECT logos_stop()");
        let file = sidecar(&pair.primary_path());
        match missing {
            true => std::fs::remove_file(&file).unwrap(),
            false => std::fs::write(&file, "junk").unwrap(),
        }
        pair.run("SELECT logos_remove()");
        assert_eq!(
            pair.primary.int("SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_logos\\_%' ESCAPE '\\'"),
            0
        );
        assert!(!file.exists());
    }
}

#[test]
fn functions_that_need_a_published_database_say_so() {
    let dir = TempDir::new();
    let conn: Connection = open(&dir.file("plain.db"));
    conn.run(TABLES);
    for call in ["logos_flush(1)", "logos_touch('t', 1)"] {
        let error = conn.fails(&format!("SELECT {call}"));
        assert!(error.contains("logos_publish"), "{call}: {error}");
    }
    assert!(status_of(&conn, &dir.file("plain.db")).is_none());
    assert_eq!(conn.int("SELECT count(*) FROM logos_log"), 0);
}

#[test]
fn functions_of_the_primary_say_on_a_replica_where_they_belong() {
    let pair = Pair::of(TABLES);
    let replica = pair.check();
    for call in ["logos_flush(1)", "logos_touch('t', 1)", "logos_resync()"] {
        let error = replica.fails(&format!("SELECT {call}"));
        assert!(error.contains("is a replica of") && error.contains("for the primary"), "{call}: {error}");
    }
}

#[test]
fn what_cannot_be_an_argument_is_named_with_what_would_be() {
    let pair = Pair::of(TABLES);
    assert!(pair
        .check()
        .fails("SELECT logos_wait('x', 1)")
        .contains("give what logos_flush() or logos_position() returned"));
    // A NUL would end SQLite's message.
    let error = pair.primary.fails("SELECT logos_touch('a' || char(0) || 'b', 1)");
    assert!(error.contains("there is no replicated table") && error.contains("hint"), "{error}");
}

/// Without an end of its own the wait would outlast every limit on a test.
#[test]
fn an_interrupt_ends_whoever_waits() {
    let pair = Pair::of(TABLES);
    let position = flush(&pair.primary);
    let replica = pair.check();
    let later = format!("{:016x}{}", 99, &position[16..]);
    for (conn, call) in
        [(&replica, format!("logos_wait('{later}', 100000)")), (&pair.primary, "logos_flush(100000)".to_string())]
    {
        if call.starts_with("logos_flush") {
            std::fs::rename(pair.dir.channel_folder(), pair.dir.file("away")).unwrap();
            std::fs::write(pair.dir.channel_folder(), "not a folder").unwrap();
            pair.run("INSERT INTO t(v) VALUES ('offline')");
        }
        let handle = conn.get_interrupt_handle();
        let error = std::thread::scope(|scope| {
            let (done, waiting) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                // An interrupt counts only for what is running when it comes.
                while waiting.recv_timeout(Duration::from_millis(200))
                    == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
                {
                    handle.interrupt();
                }
            });
            let error = conn.fails(&format!("SELECT {call}"));
            drop(done);
            error
        });
        assert!(error.contains("interrupted"), "{call}: {error}");
    }
}

#[test]
fn publishing_again_is_harmless_and_with_other_options_refused() {
    let pair = Pair::with_options(TABLES, r#"{"batch_ms": 5}"#);
    let again = |options: &str| format!("SELECT logos_publish('{}'{options})", pair.url);
    for same in ["", r#", '{"batch_ms": 5}'"#] {
        pair.run(&again(same));
    }
    let error = pair.primary.fails(&again(r#", '{"batch_ms": 6}'"#));
    assert!(error.contains("with other options") && error.contains("logos_stop()"), "{error}");
    pair.check();
}

#[test]
fn two_databases_of_one_process_have_channels_of_their_own() {
    let (first, second) = (Pair::of(TABLES), Pair::of("CREATE TABLE other(a PRIMARY KEY) WITHOUT ROWID"));
    first.run("INSERT INTO t VALUES (10, 'first')");
    second.run("INSERT INTO other VALUES ('second')");
    let (one, two) = (first.check(), second.check());
    assert_equal(&first.primary, &one);
    assert_equal(&second.primary, &two);
    assert_ne!(first.url.rsplit('/').next(), second.url.rsplit('/').next());
}

#[test]
fn two_databases_share_a_folder_and_a_channel_without_id_then_needs_one() {
    let pair = Pair::of(TABLES);
    let second = open(&pair.dir.file("second.db"));
    second.run("CREATE TABLE s(a); INSERT INTO s VALUES (2)");
    let url = publish(&second, &pair.dir.channel());
    flush(&second);
    flush(&pair.primary);
    assert_ne!(url, pair.url);
    let replica = open(&pair.dir.file("by-folder.db"));
    let error = replica.fails(&format!("SELECT * FROM attach_replica('{}')", pair.dir.channel()));
    assert!(error.contains("channel"), "{error}");
    pair.check();
    replicate(&second, &url, &pair.dir.file("second-replica.db"));
}

#[test]
fn a_folder_with_one_channel_needs_no_id() {
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    replicate(&pair.primary, &pair.dir.channel(), &pair.dir.file("by-folder.db"));
}
