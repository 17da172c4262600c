//! Goal: `logos_status` says what is, on a healthy, an offline and a refused channel: state, positions, lag in
//! messages and bytes, last error and what to do (issue 2 point 6).
//!
//! Method: the channel's folder is taken away, given back, or holds another writer's entry; the row is read as an
//! application would read it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use harness::files::{entries, sidecar};
use harness::pair::{attach, flush, publish, try_attach};
use harness::status::{warnings, without_version};
use harness::{messages, open, status_of, wait_until, Pair, Shell, Sql};

const TABLES: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one');";

#[test]
fn a_healthy_channel_shows_its_positions_and_no_lag() {
    let pair = Pair::of(TABLES);
    pair.run("INSERT INTO t VALUES (2, 'two')");
    let position = flush(&pair.primary);
    let replica = pair.check();
    let row = status_of(&pair.primary, &pair.primary_path()).unwrap();
    assert_eq!(row.role, "primary");
    assert_eq!(row.channel, pair.url);
    assert_eq!(row.position.as_deref(), Some(position.as_str()));
    assert_eq!(row.accepted_position.as_deref(), Some(position.as_str()));
    assert_eq!((row.lag_messages, row.lag_bytes), (0, 0));
    assert_eq!((row.error, row.hint), (None, None));
    assert!(row.messages >= 1 && row.bytes > 0);
    assert!(!row.state.is_empty());
    let row = status_of(&replica, &pair.replica_path()).unwrap();
    assert_eq!(row.role, "replica");
    assert_eq!(row.position.as_deref(), Some(position.as_str()));
    assert_eq!((row.error, row.lag_messages), (None, 0));
}

#[test]
fn an_offline_channel_shows_its_lag_the_error_and_a_hint_and_recovers_by_itself() {
    let pair = Pair::of(TABLES);
    let before = flush(&pair.primary);
    let healthy = status_of(&pair.primary, &pair.primary_path()).unwrap();
    let away = pair.dir.file("away");
    fs::rename(pair.dir.channel_folder(), &away).unwrap();
    fs::write(pair.dir.channel_folder(), "a file where the folder was").unwrap();
    pair.run("INSERT INTO t VALUES (2, 'offline')");
    wait_until("the status shows the error and the lag", || {
        let row = status_of(&pair.primary, &pair.primary_path()).unwrap();
        row.error.is_some() && row.lag_messages >= 1
    });
    let row = status_of(&pair.primary, &pair.primary_path()).unwrap();
    assert_ne!(row.state, healthy.state);
    assert!(row.lag_bytes > 0, "{row:?}");
    assert!(row.hint.as_deref().is_some_and(|hint| !hint.is_empty()), "{row:?}");
    assert_eq!(row.accepted_position.as_deref(), Some(before.as_str()));
    assert!(row.position.unwrap() > before);
    let error = pair.primary.fails("SELECT logos_flush(1)");
    assert!(error.contains("logos"), "{error}");

    for n in 3..50 {
        pair.run(&format!("INSERT INTO t VALUES ({n}, 'offline too')"));
    }

    fs::remove_file(pair.dir.channel_folder()).unwrap();
    fs::rename(&away, pair.dir.channel_folder()).unwrap();
    let position = flush(&pair.primary);
    let row = status_of(&pair.primary, &pair.primary_path()).unwrap();
    assert_eq!(row.state, healthy.state);
    assert_eq!((row.lag_messages, row.lag_bytes, row.error), (0, 0, None));
    assert_eq!(row.accepted_position, Some(position));
    pair.check();
}

#[test]
fn a_vanished_folder_never_starts_the_channel_again_in_silence() {
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    fs::remove_dir_all(pair.dir.channel_folder()).unwrap();
    pair.run("INSERT INTO t VALUES (2, 'offline')");
    wait_until("the status shows an error", || status_of(&pair.primary, &pair.primary_path()).unwrap().error.is_some());
    let files = entries(&pair.url);
    assert!(files.is_empty(), "a channel without its beginning: {files:?}");
}

#[test]
fn messages_written_offline_survive_a_kill_and_arrive_with_the_same_bytes() {
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    pair.run("SELECT logos_stop()");
    let away = pair.dir.file("away");
    fs::rename(pair.dir.channel_folder(), &away).unwrap();
    fs::write(pair.dir.channel_folder(), "").unwrap();

    let mut shell = Shell::open_with_logos(&pair.primary_path());
    shell.ask(&format!("SELECT logos_publish('{}');", pair.url));
    shell.must("INSERT INTO t VALUES (2, 'before the kill');");
    let position = shell.must("SELECT logos_position();");
    let pending = shell.must("SELECT count(*) FROM logos_log WHERE state = 'pending';");
    assert_ne!(pending, "0");
    shell.kill();

    fs::remove_file(pair.dir.channel_folder()).unwrap();
    fs::rename(&away, pair.dir.channel_folder()).unwrap();
    publish(&pair.primary, &pair.url);
    flush(&pair.primary);
    let log = messages(&pair.primary);
    assert!(log.iter().any(|message| message.position == position), "{position} was made anew: {log:?}");
    pair.check();
}

#[test]
fn another_writers_entry_at_our_position_is_refused_and_says_so() {
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    pair.run("SELECT logos_stop()");
    // The database, its sidecar and so its key are copied: a second writer of the same channel.
    let copy = pair.dir.file("copy.db");
    let clone = |from: &std::path::Path, to: &std::path::Path| {
        for suffix in ["", "-wal", "-shm"] {
            let from = format!("{}{suffix}", from.display());
            if fs::exists(&from).unwrap() {
                fs::copy(&from, format!("{}{suffix}", to.display())).unwrap();
            }
        }
    };
    clone(&pair.primary_path(), &copy);
    clone(&sidecar(&pair.primary_path()), &sidecar(&copy));
    let refused = Shell::run_with_logos(&copy, &format!("SELECT logos_publish('{}');", pair.url));
    assert!(refused.err.contains("looks like a copy"), "{refused:?}");
    // Somebody says that it was moved, which is not true.
    let mut other = Shell::open_with_logos(&copy);
    other.must(&format!("SELECT logos_publish('{}', '{{\"moved\": true}}');", pair.url));
    other.must("INSERT INTO t VALUES (50, 'by the copy'); SELECT logos_flush(60);");
    let theirs = entries(&pair.url);
    let bytes: Vec<Vec<u8>> = theirs.iter().map(|path| fs::read(path).unwrap()).collect();

    pair.run("INSERT INTO t VALUES (2, 'by the original')");
    publish(&pair.primary, &pair.url);
    wait_until("the original's status shows the other writer", || {
        status_of(&pair.primary, &pair.primary_path()).is_some_and(|row| row.error.is_some())
    });
    let row = status_of(&pair.primary, &pair.primary_path()).unwrap();
    assert!(row.error.as_ref().is_some_and(|error| error.contains("another writer has entry")), "{row:?}");
    assert!(row.hint.as_ref().is_some_and(|hint| hint.contains("stop one of the writers")), "{row:?}");
    assert!(row.lag_messages >= 1 && row.lag_bytes > 0, "{row:?}");
    let error = pair.primary.fails("SELECT logos_flush(60)");
    assert!(error.contains("another writer has entry"), "{error}");
    pair.run("INSERT INTO t VALUES (3, 'the application goes on')");
    assert_eq!(entries(&pair.url), theirs, "the refused writer wrote all the same");
    for (path, bytes) in theirs.iter().zip(&bytes) {
        assert_eq!(&fs::read(path).unwrap(), bytes);
    }
    assert!(other.close().success());
}

#[test]
fn a_foreign_file_at_our_position_is_refused_and_kept() {
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    let files = entries(&pair.url);
    let next = files[0].with_file_name(format!("{:016x}.entry", files.len()));
    fs::write(&next, "somebody else's").unwrap();
    pair.run("INSERT INTO t VALUES (2, 'two')");
    wait_until("the status shows what is in the way", || {
        status_of(&pair.primary, &pair.primary_path()).unwrap().error.is_some()
    });
    let row = status_of(&pair.primary, &pair.primary_path()).unwrap();
    assert!(row.hint.is_some(), "{row:?}");
    assert!(row.lag_messages >= 1);
    assert_eq!(fs::read(&next).unwrap(), b"somebody else's");
    assert!(pair.primary.try_run("SELECT logos_flush(1)").is_err());
}

#[test]
fn an_unknown_channel_is_said_to_be_unknown() {
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    let replica = open(&pair.replica_path());
    let unknown = format!("{}/{}", pair.dir.channel(), "cd".repeat(32));
    let error = try_attach(&replica, &unknown, None).unwrap_err().to_string();
    assert!(error.contains("hint"), "{error}");
    assert!(status_of(&replica, &pair.replica_path()).is_none_or(|row| row.error.is_some()));
    let plain = open(&pair.dir.file("plain.db"));
    plain.run("CREATE TABLE x(a)");
    let error = plain.fails(&format!("SELECT logos_publish('{unknown}')"));
    assert!(error.contains("logos"), "a channel whose key we do not have: {error}");
}

#[test]
fn a_refused_entry_shows_in_the_status_of_a_following_replica() {
    let pair = Pair::of(TABLES);
    flush(&pair.primary);
    let replica = open(&pair.replica_path());
    try_attach(&replica, &pair.url, Some(r#"{"follow":true}"#)).unwrap();
    let position = replica.text("SELECT logos_position()");
    let other_path = pair.dir.file("other.db");
    let other = open(&other_path);
    attach(&other, &pair.url);
    pair.run("SELECT logos_stop()");
    let files = entries(&pair.url);
    let next = files[0].with_file_name(format!("{:016x}.entry", files.len()));
    fs::write(&next, "no entry at all").unwrap();
    wait_until("the replica's status shows the refused entry", || {
        status_of(&replica, &pair.replica_path()).is_some_and(|row| row.error.is_some())
    });
    let row = status_of(&replica, &pair.replica_path()).unwrap();
    assert!(row.hint.is_some(), "{row:?}");
    assert_eq!(row.position.as_deref(), Some(position.as_str()));
    assert!(try_attach(&replica, &pair.url, None).is_err());
    assert!(try_attach(&other, &pair.url, None).is_err());
    assert!(status_of(&other, &other_path).is_some_and(|row| row.error.is_some()));
    fs::remove_file(&next).unwrap();
    attach(&replica, &pair.url);
    // Whoever pulls next, the status shows what that met.
    publish(&pair.primary, &pair.url);
    pair.run("INSERT INTO t VALUES (60, 'later')");
    let position = flush(&pair.primary);
    assert_eq!(other.int(&format!("SELECT logos_wait('{position}', 60)")), 1);
    let row = status_of(&other, &other_path).unwrap();
    assert_eq!((row.error.as_deref(), row.position.as_deref()), (None, Some(position.as_str())));
}

#[test]
fn a_sqlite_that_can_damage_databases_is_named_in_every_row_and_no_other_one_is() {
    // Whoever reads a row checks that it has this warning if and only if its SQLite has that bug.
    let pair = Pair::of(TABLES);
    let replica = pair.check();
    assert_eq!(warnings(&pair.primary, "primary"), "");
    assert_eq!(warnings(&replica, "replica"), "");
    let mut shell = Shell::open_with_logos(&pair.primary_path());
    let row = shell.must("SELECT state, coalesce(warnings, ''), sqlite FROM logos_status;");
    let [state, said, sqlite] = row.split('|').collect::<Vec<_>>().try_into().unwrap();
    assert_eq!((state, without_version(said, sqlite).as_str()), ("elsewhere", ""));
}
