//! Goal: no thread of ours is left behind, by closing, stopping or forking (T17).
//!
//! Method: the threads of this process are counted through /proc where the host has it; the tests of this file take
//! turns, so that each counts its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;
use std::sync::Mutex;

use harness::files::extension;
use harness::pair::{attach, flush, publish};
use harness::{assert_equal, open, wait_until, Pair, Sql, TempDir};

static ALONE: Mutex<()> = Mutex::new(());

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

#[test]
fn a_thousand_closes_without_farewell_lose_nothing_and_leave_no_thread() {
    let _alone = ALONE.lock();
    let dir = TempDir::new();
    let database = dir.file("primary.db");
    let first = open(&database);
    first.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    let url = publish(&first, &dir.channel());
    flush(&first);
    first.close().unwrap();
    let mut most = 0;
    for n in 0..1000 {
        let conn = open(&database);
        if n % 3 == 0 {
            assert_eq!(publish(&conn, &url), url);
        }
        conn.run(&format!("INSERT INTO t VALUES ({n}, 'pending at close')"));
        conn.close().unwrap_or_else(|(_, error)| panic!("close {n}: {error}"));
        if n >= 100 {
            most = most.max(threads());
        }
    }
    assert!(most < 20, "{most} threads");
    let conn = open(&database);
    assert_eq!(publish(&conn, &url), url);
    let replica = harness::replicate(&conn, &url, &dir.file("replica.db"));
    assert_eq!(replica.int("SELECT count(*) FROM t"), 1000);
    conn.run("SELECT logos_stop()");
    replica.run("SELECT logos_stop()");
}

#[test]
fn stopping_ends_the_threads() {
    let _alone = ALONE.lock();
    let dir = TempDir::new();
    drop(open(&dir.file("x.db")));
    let before = threads();
    for n in 0..20 {
        let conn = open(&dir.file(&format!("primary-{n}.db")));
        conn.run("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
        publish(&conn, &format!("dir:{}", dir.file(&format!("channel-{n}")).display()));
        conn.run("SELECT logos_stop()");
        conn.close().unwrap();
    }
    wait_until("the threads have ended", || threads() <= before + 1);
}

/// Threads of this process that would take a SIGTERM, by name; not its first one, which is the test runner's own.
#[cfg(target_os = "linux")]
fn takers_of_sigterm() -> Vec<String> {
    let first = std::process::id().to_string();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten().filter(|task| *task.file_name() != *first);
    let texts = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    let field = |text: &str, name: &str| {
        text.lines().find_map(|line| line.strip_prefix(name)).map_or_else(String::new, |value| value.trim().to_owned())
    };
    let blocks = |text: &str| u64::from_str_radix(&field(text, "SigBlk:"), 16).unwrap() >> (libc::SIGTERM - 1) & 1 == 1;
    texts.filter(|text| !blocks(text)).map(|text| field(&text, "Name:")).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn no_thread_of_ours_takes_a_signal_and_those_of_the_application_do_as_before() {
    let _alone = ALONE.lock();
    let before = takers_of_sigterm();
    let pair = Pair::of("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
    let position = flush(&pair.primary);
    let replica = open(&pair.replica_path());
    harness::pair::try_attach(&replica, &pair.url, Some(r#"{"follow":true}"#)).unwrap();
    assert_eq!(replica.int(&format!("SELECT logos_wait('{position}', 30)")), 1);
    assert!(threads() >= before.len() + 3, "builder, sender and follower are there");
    assert_eq!(takers_of_sigterm(), before);
}

#[test]
fn a_child_forked_while_its_parent_publishes_opens_a_database_of_its_own() {
    let dir = TempDir::new();
    let output = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["forks", dir.path().to_str().unwrap()])
        .env("LOGOS_EXTENSION", extension())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(open(&dir.file("of-the-child.db")).int("SELECT count(*) FROM t"), 120);
    let replica = open(&dir.file("replica.db"));
    attach(&replica, String::from_utf8_lossy(&output.stdout).trim());
    assert_equal(&open(&dir.file("primary-0.db")), &replica);
}

#[test]
fn a_fork_of_a_publishing_process_leaves_the_parent_alone() {
    let _alone = ALONE.lock();
    let mut pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    for n in 0..10 {
        pair.run(&format!("INSERT INTO t VALUES ({n}, 'before')"));
        // SAFETY: the child touches no memory of ours; it ends at once, through the exit handlers of a usual exit.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            // SAFETY: an ordinary end of the child.
            unsafe { libc::exit(0) };
        }
        pair.run(&format!("UPDATE t SET v = 'after' WHERE id = {n}"));
        let mut status = 0;
        wait_until("the child ends", || {
            // SAFETY: waits for the child made above, with a place for its status.
            unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) == child }
        });
        assert_eq!(status, 0, "round {n}");
    }
    pair.check();
    pair.check_fresh();
}
