//! A process to be killed: a primary under load, a replica that follows, or one tour through everything.
//!
//! `load primary DATABASE CHANNEL SEED` publishes and writes random transactions until it is killed.
//! `load replica DATABASE URL` follows until it is killed.
//! `load tour FOLDER` takes a primary and a replica in that folder through every kind of step, once, and ends.
//! `load fork FOLDER` forks with a loaded extension; parent and child publish a database each.
//! `load forks FOLDER` forks again and again while it publishes; each child opens a database of its own.
//! `LOGOS_EXTENSION` names the build of the extension to load.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::{Duration, Instant};

use harness::files::extension;
use harness::pair::{attach, flush, publish, try_attach};
use harness::sql::open_loading;
use harness::{load, wait_until, Connection, Dice, Sql};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["primary", database, channel, seed] => primary(Path::new(database), channel, seed.parse().unwrap()),
        ["replica", database, url] => replica(Path::new(database), url),
        ["tour", folder] => tour(Path::new(folder)),
        ["fork", folder] => fork(Path::new(folder)),
        ["forks", folder] => forks(Path::new(folder)),
        _ => panic!("usage: see the head of load.rs"),
    }
}

fn open(path: &Path) -> Connection {
    open_loading(path, &extension(), Some("sqlite3_logos_init"))
}

fn primary(database: &Path, channel: &str, seed: u64) {
    let conn = open(database);
    let mut dice = Dice::new(seed);
    conn.run(load::SCHEMA);
    println!("{}", publish(&conn, channel));
    loop {
        load::transaction(&conn, &mut dice);
        if dice.below(4) == 0 {
            std::thread::sleep(Duration::from_micros(dice.below(3000)));
        }
    }
}

fn replica(database: &Path, url: &str) {
    let conn = open(database);
    try_attach(&conn, url, Some(r#"{"follow":true}"#)).unwrap();
    println!("following");
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// Everything a database can go through, and the same again on what is there already.
fn tour(folder: &Path) {
    let conn = open(&folder.join("primary.db"));
    conn.run(load::SCHEMA);
    conn.run("INSERT OR REPLACE INTO account VALUES (1, 'there before', 1.5)");
    let url = publish(&conn, &format!("dir:{}", folder.join("channel").display()));
    flush(&conn);
    println!("{url}");
    let replica = open(&folder.join("replica.db"));
    attach(&replica, &url);
    let mut dice = Dice::new(conn.int("SELECT transactions FROM progress") as u64);
    for round in 0..6 {
        for _ in 0..4 {
            load::transaction(&conn, &mut dice);
        }
        conn.run(&format!(
            "DROP TABLE IF EXISTS later; CREATE TABLE later(a PRIMARY KEY, b); INSERT INTO later VALUES ({round}, 'x')"
        ));
        if round % 2 == 0 {
            conn.run("ALTER TABLE later ADD COLUMN c DEFAULT 5; UPDATE later SET c = 6");
        }
        flush(&conn);
        attach(&replica, &url);
    }
    // Long enough a log to be worth forgetting.
    conn.run("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 6000) INSERT INTO note SELECT 'tour', i FROM c");
    flush(&conn);
    let covered = "SELECT min(seq) + 100 > (SELECT max(seq) FROM _logos_log) FROM _logos_log WHERE seq > 0";
    wait_until("the log is short", || conn.int(covered) == 1);
    conn.run("DELETE FROM note WHERE text = 'tour'");
    flush(&conn);
    attach(&replica, &url);
    println!("done");
}

/// The extension is loaded, nothing runs yet, the process forks, and both halves go on with databases of their own.
fn fork(folder: &Path) {
    let loaded = open(&folder.join("loaded-before.db"));
    loaded.run("CREATE TABLE t(a)");
    // SAFETY: this process has one thread; the child uses connections of its own only and leaves by `_exit`.
    let child = unsafe { libc_fork() };
    let name = if child == 0 { "child" } else { "parent" };
    let conn = open(&folder.join(format!("{name}.db")));
    conn.run(&format!("CREATE TABLE t(a); INSERT INTO t VALUES ('{name}')"));
    let url = publish(&conn, &format!("dir:{}", folder.join(format!("{name}.channel")).display()));
    flush(&conn);
    let replica = open(&folder.join(format!("{name}-replica.db")));
    attach(&replica, &url);
    assert_eq!(replica.text("SELECT a FROM t"), name);
    if child == 0 {
        // SAFETY: ends the child without running what belongs to the parent.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above, with a place for its status.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "the child failed");
    loaded.run("INSERT INTO t VALUES (1)");
    println!("done");
}

/// Four databases are published and one of them followed, so that threads of ours are always at work, while the only thread of
/// this program writes and forks.
fn forks(folder: &Path) {
    let primaries: Vec<(Connection, String)> = (0..4)
        .map(|n| {
            let conn = open(&folder.join(format!("primary-{n}.db")));
            conn.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
            let url = publish(&conn, &format!("dir:{}", folder.join(format!("channel-{n}")).display()));
            (conn, url)
        })
        .collect();
    let replica = open(&folder.join("replica.db"));
    try_attach(&replica, &primaries[0].1, Some(r#"{"follow":true}"#)).unwrap();
    for n in 0..120 {
        let (conn, _) = &primaries[n % 4];
        conn.run(&format!(
            "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 2000)
             INSERT OR REPLACE INTO t SELECT i % 700, {n} FROM c"
        ));
        std::thread::sleep(Duration::from_micros(700 * (n as u64 % 7)));
        // SAFETY: threads of the extension only; that the child can do without them is what is tested. It leaves by `_exit`.
        let child = unsafe { libc_fork() };
        if child == 0 {
            let own = open(&folder.join("of-the-child.db"));
            own.run("CREATE TABLE IF NOT EXISTS t(a); INSERT INTO t VALUES (1)");
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(0) };
        }
        let (mut status, start) = (0, Instant::now());
        // SAFETY: waits for the child made above, with a place for its status.
        while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } != child {
            if start.elapsed() > harness::PATIENCE {
                // SAFETY: ends that child, which would hold the pipes of this process for ever.
                unsafe { libc::kill(child, libc::SIGKILL) };
                panic!("child {n} hangs");
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(status, 0, "child {n} failed");
    }
    for (conn, _) in &primaries {
        flush(conn);
    }
    println!("{}", primaries[0].1);
}

/// `fork(2)`.
///
/// # Safety
/// The process has one thread of its own, and the child ends by `_exit`.
unsafe fn libc_fork() -> i32 {
    // SAFETY: as the caller promises.
    unsafe { libc::fork() }
}
