//! Goal: several processes of an application may all say that they publish. One does, the others stand by if they want, and go on
//! when it ends, however it ends; who asks is told what the others do. Nothing gets a new identity without being asked.
//!
//! Method: workers are stock shells that load the extension, and this process; one is killed, closed, or told to stop while the
//! others write. The sidecar is lost, emptied and put back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use harness::files::sidecar;
use harness::pair::{flush, publish};
use harness::status::{status, status_of};
use harness::{open, open_plain, replicate, wait_until, Connection, Pair, Shell, Sql, TempDir};

const STANDBY: &str = r#"{"standby": true}"#;
const TABLE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t(v) VALUES ('first')";

fn stand_by(conn: &Connection, dir: &TempDir) -> String {
    conn.query_row("SELECT logos_publish(?1, ?2)", [&dir.channel(), STANDBY], |row| row.get(0)).unwrap()
}

/// A worker in a process of its own, which publishes or stands by.
fn worker(dir: &TempDir) -> (Shell, String) {
    let mut shell = Shell::open_with_logos(&dir.file("primary.db"));
    let url = shell.must(&format!("SELECT logos_publish('{}', '{STANDBY}');", dir.channel()));
    (shell, url)
}

fn states(conn: &Connection) -> Vec<String> {
    status(conn).into_iter().map(|row| row.state).collect()
}

#[test]
fn the_next_worker_publishes_when_the_first_is_killed() {
    let dir = TempDir::new();
    let path = dir.file("primary.db");
    open_plain(&path).run(TABLE);
    let (first, url) = worker(&dir);
    let (mut second, same) = worker(&dir);
    assert_eq!(same, url);
    let third = open(&path);
    assert_eq!(stand_by(&third, &dir), url);
    assert_eq!(stand_by(&third, &dir), url, "saying it again is harmless");
    assert_eq!(states(&third), ["standby"]);
    assert_eq!(second.must("SELECT state, channel FROM logos_status;"), format!("standby|{url}"));
    third.run("INSERT INTO t(v) VALUES ('third')");
    second.must("INSERT INTO t(v) VALUES ('second');");
    let error = third.fails("SELECT logos_flush()");
    assert!(error.contains("published by another process") && error.contains("stands by"), "{error}");
    first.kill();
    // One of the two, and when that ends the other.
    wait_until("one takes over", || {
        states(&third) != ["standby"] || second.must("SELECT state FROM logos_status;") != "standby"
    });
    if states(&third) == ["standby"] {
        second.must("SELECT logos_flush(30);");
        second.kill();
        wait_until("this process takes over", || states(&third) != ["standby"]);
    }
    replicate(&third, &url, &dir.file("replica.db"));
    third.run("UPDATE t SET v = v || '!'");
    replicate(&third, &url, &dir.file("replica.db"));
}

#[test]
fn whoever_asks_in_a_process_that_does_not_publish_is_told_who_does_and_goes_on_standing_by() {
    let dir = TempDir::new();
    let path = dir.file("primary.db");
    open_plain(&path).run(TABLE);
    let (mut first, _) = worker(&dir);
    let position = first.must("SELECT logos_flush(30);");
    let mut idle = Shell::open_with_logos(&path);
    for call in ["flush(1)", "position()", "resync()", &format!("wait('{position}', 1)")] {
        let said = idle.ask(&format!("SELECT logos_{call};")).err;
        assert!(said.contains("is published by another process") && said.contains("standby"), "{call}: {said}");
    }
    let next = open(&path);
    stand_by(&next, &dir);
    let error = next.fails("SELECT logos_remove()");
    assert!(error.contains("another process publishes"), "{error}");
    assert_eq!(states(&next), ["standby"], "nothing was removed, nor ended");
    first.kill();
    wait_until("it takes over", || states(&next) != ["standby"]);
    next.run("SELECT logos_remove()");
    assert_eq!(states(&next), Vec::<String>::new());
    let said = idle.ask("SELECT logos_flush(1);").err;
    assert!(said.contains("is not being published by this process"), "{said}");
}

#[test]
fn a_worker_that_ends_in_order_is_followed_at_once() {
    let dir = TempDir::new();
    open_plain(&dir.file("primary.db")).run(TABLE);
    for end in ["closed", "stopped"] {
        let (mut first, url) = worker(&dir);
        let next = open(&dir.file("primary.db"));
        assert_eq!(stand_by(&next, &dir), url);
        assert_eq!(states(&next), ["standby"]);
        first.must("INSERT INTO t(v) VALUES ('from the first');");
        match end {
            "closed" => drop(first.close()),
            _ => drop(first.must("SELECT logos_stop();")),
        }
        wait_until("the next one takes over", || states(&next) != ["standby"]);
        replicate(&next, &url, &dir.file("replica.db"));
        drop(next);
    }
}

#[test]
fn without_the_option_a_second_publisher_is_refused_by_a_code_of_its_own() {
    let dir = TempDir::new();
    let path = dir.file("primary.db");
    open_plain(&path).run(TABLE);
    let (_first, _) = worker(&dir);
    let second = open(&path);
    let error = second.query_row("SELECT logos_publish(?1)", [dir.channel()], |_| Ok(())).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(harness::rusqlite::ErrorCode::DatabaseLocked));
    assert!(
        error.to_string().contains("another process publishes") && error.to_string().contains("standby"),
        "{error}"
    );
    let error = second.fails(&format!("SELECT logos_publish('{}', '{{\"stand_by\": true}}')", dir.channel()));
    assert!(error.contains("standby"), "{error}");
}

#[test]
fn standing_by_ends_with_the_last_connection_and_when_told_to() {
    let dir = TempDir::new();
    let path = dir.file("primary.db");
    open_plain(&path).run(TABLE);
    let (first, url) = worker(&dir);
    let other = open(&dir.file("other.db"));
    let next = open(&path);
    stand_by(&next, &dir);
    assert_eq!(next.text("SELECT logos_stop()"), "stopped: standby");
    stand_by(&next, &dir);
    drop(next);
    assert_eq!(states(&other), Vec::<String>::new(), "nobody stands by for a file that nobody has open");
    first.close();
    let next = open(&path);
    assert_eq!(states(&next), ["stopped"]);
    assert_eq!(stand_by(&next, &dir), url, "where nobody publishes, there is nothing to wait for");
    replicate(&next, &url, &dir.file("replica.db"));
}

#[test]
fn nobody_stands_by_for_what_was_removed() {
    let dir = TempDir::new();
    let path = dir.file("primary.db");
    open_plain(&path).run(TABLE);
    let (mut first, _) = worker(&dir);
    let next = open(&path);
    stand_by(&next, &dir);
    let error = next.fails("SELECT logos_remove()");
    assert!(error.contains("another process publishes"), "{error}");
    stand_by(&next, &dir);
    first.must("SELECT logos_remove();");
    wait_until("standing by ends", || states(&next).is_empty());
    assert!(!sidecar(&path).exists());
    assert_eq!(next.int("SELECT count(*) FROM sqlite_schema WHERE name GLOB '_logos_*'"), 0);
    first.must("INSERT INTO t(v) VALUES ('an ordinary database');");
}

#[test]
fn the_status_tells_what_another_process_publishes() {
    let dir = TempDir::new();
    let path = dir.file("primary.db");
    open_plain(&path).run(TABLE);
    let conn = open(&path);
    assert!(status_of(&conn, &path).is_none());
    let (first, url) = worker(&dir);
    let row = status_of(&conn, &path).unwrap();
    assert_eq!((row.role.as_str(), row.state.as_str(), row.position), ("primary", "elsewhere", None));
    assert!(url.ends_with(&row.channel) && row.channel.len() == 64, "{}", row.channel);
    let read_only = Connection::open_with_flags(&path, harness::rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    assert_eq!(states(&read_only), ["elsewhere"]);
    first.kill();
    wait_until("its lock is gone", || status_of(&conn, &path).unwrap().state == "stopped");
    assert_eq!(status_of(&conn, &path).unwrap().channel, row.channel);
    publish(&conn, &dir.channel());
    assert_eq!(status(&conn).len(), 1, "one row a database");
    assert_eq!(status_of(&conn, &path).unwrap().channel, url);
}

#[test]
fn a_lost_or_emptied_sidecar_is_no_reason_for_a_new_identity() {
    for emptied in [false, true] {
        let pair = Pair::of(TABLE);
        pair.check();
        pair.run("SELECT logos_stop()");
        let (path, kept) = (sidecar(&pair.primary_path()), pair.dir.file("kept"));
        fs::rename(&path, &kept).unwrap();
        if emptied {
            fs::write(&path, "").unwrap();
        }
        let before = fs::metadata(&path).map(|m| m.len()).ok();
        let error = pair.primary.fails(&format!("SELECT logos_publish('{}')", pair.dir.channel()));
        let (_, channel) = pair.url.rsplit_once('/').unwrap();
        assert!(error.contains(channel) && error.contains("sidecar") && error.contains("logos_remove"), "{error}");
        assert_eq!(fs::metadata(&path).map(|m| m.len()).ok(), before, "nothing was made");
        let copy = pair.dir.file("copy.db");
        pair.run(&format!("VACUUM INTO '{}'", copy.display()));
        pair.run("INSERT INTO t(v) VALUES ('captured all the same')");
        fs::rename(&kept, &path).unwrap();
        assert_eq!(publish(&pair.primary, &pair.dir.channel()), pair.url);
        pair.check();
        // A copy elsewhere, without its sidecar, is a database of its own.
        assert_ne!(publish(&open(&copy), &pair.dir.channel()), pair.url);
        // Lost for good: the way out that the message names.
        pair.run("SELECT logos_stop()");
        fs::remove_file(&path).unwrap();
        drop(pair.primary.fails(&format!("SELECT logos_publish('{}')", pair.dir.channel())));
        pair.run("SELECT logos_remove()");
        let url = publish(&pair.primary, &pair.dir.channel());
        assert_ne!(url, pair.url);
        replicate(&pair.primary, &url, &pair.dir.file("again.db"));
    }
}

#[test]
fn a_schema_without_rows_says_nothing_of_a_channel() {
    let pair = Pair::of(TABLE);
    pair.check();
    let schema = Shell::run(&pair.primary_path(), ".schema").out;
    let schema: String = schema.lines().filter(|line| !line.contains("sqlite_")).collect::<Vec<_>>().join("\n");
    let path = pair.primary_path();
    drop(pair.primary);
    for suffix in ["", "-wal", "-shm", "-logos", "-logos-wal"] {
        let _ = fs::remove_file(format!("{}{suffix}", path.display()));
    }
    assert_eq!(Shell::run(&path, &schema).err, "");
    let again = open(&path);
    let url = publish(&again, &pair.dir.channel());
    assert_ne!(url, pair.url);
    again.run("INSERT INTO t(v) VALUES (1)");
    replicate(&again, &url, &pair.dir.file("again.db"));
}

#[test]
fn a_database_of_the_former_format_is_taken_over() {
    let pair = Pair::of(TABLE);
    pair.check();
    pair.run("SELECT logos_stop()");
    pair.run(
        "ALTER TABLE _logos_state DROP COLUMN channel; ALTER TABLE _logos_state DROP COLUMN path; ALTER TABLE _logos_state DROP COLUMN file;
         UPDATE _logos_state SET format = 2; INSERT INTO t(v) VALUES ('meanwhile')",
    );
    assert_eq!(publish(&pair.primary, &pair.dir.channel()), pair.url);
    pair.check();
    flush(&pair.primary);
    let noted = || pair.primary.text("SELECT channel FROM _logos_state");
    wait_until("the channel is noted", || pair.url.ends_with(&noted()));
    assert_eq!(pair.primary.int("SELECT format FROM _logos_state"), 3);
}

/// As with a connection for each request: the publisher of the one before may still be at its farewell.
#[test]
fn nobody_stands_by_for_a_publisher_of_the_same_process() {
    let dir = TempDir::new();
    let path = dir.file("primary.db");
    open_plain(&path).run(TABLE);
    let mut url = String::new();
    for n in 0..30 {
        let conn = open(&path);
        url = stand_by(&conn, &dir);
        assert_ne!(states(&conn), ["standby"], "request {n}");
        conn.run(&format!("INSERT INTO t(v) VALUES ('request {n}')"));
        if n % 3 == 0 {
            conn.run("SELECT logos_stop()");
            assert_eq!(states(&conn), ["stopped"], "request {n}");
            assert!(conn.fails("SELECT logos_flush()").contains("logos_publish"));
        }
        conn.close().unwrap();
    }
    let conn = open(&path);
    assert_eq!(stand_by(&conn, &dir), url);
    replicate(&conn, &url, &dir.file("replica.db"));
}
