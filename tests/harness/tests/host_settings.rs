//! Goal: whatever the host sets on its connections and its file, replication goes on: trusted_schema, DEFENSIVE, the
//! shell's safe mode (T8), VACUUM, auto_vacuum, page size, journal modes, checkpoints (T13), hooks of its own (T15).
//!
//! Method: each setting is made before and after publishing, with writes around it, and dumps are compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::{c_int, c_void};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use harness::files::extension;
use harness::pair::publish;
use harness::rusqlite::config::DbConfig;
use harness::rusqlite::{ffi, LoadExtensionGuard};
use harness::{in_every_order, open, open_plain, replicate, status_of, Connection, Pair, Shell, Sql, TempDir};

const TABLES: &str = "
    CREATE TABLE i(id INTEGER PRIMARY KEY, v); CREATE TABLE n(a, b); CREATE TABLE k(name TEXT PRIMARY KEY, v);
    CREATE TABLE w(a, b, PRIMARY KEY(b, a)) WITHOUT ROWID;
    CREATE TABLE u(id INTEGER PRIMARY KEY, mail TEXT COLLATE NOCASE UNIQUE); CREATE UNIQUE INDEX ue ON u(lower(mail), id % 7);
    INSERT INTO i VALUES (1, 'a'), (2, 'b'), (5, 'c'); INSERT INTO n VALUES (1, 1), (2, 2), (3, 3), (4, 4);
    INSERT INTO k VALUES ('x', 1), ('y', 2), ('z', 3); INSERT INTO w VALUES (1, 1), (2, 2);
    INSERT INTO u VALUES (1, 'A@x'), (2, 'b@x');";

const WRITES: &[&str] = &[
    "INSERT INTO i(v) VALUES ('new'); INSERT INTO n VALUES (9, 9); REPLACE INTO u VALUES (3, 'a@X')",
    "UPDATE i SET v = v || '!'; UPDATE n SET b = b + 1 WHERE a > 1; UPDATE k SET name = name || '2'; UPDATE w SET a = a + 1",
    "DELETE FROM n WHERE a = 2; DELETE FROM k WHERE v = 1; DELETE FROM i WHERE id = 2",
];

fn warnings(conn: &Connection) -> String {
    harness::status::warnings(conn, "primary")
}

#[test]
fn an_untrusted_schema_replicates() {
    in_every_order(&format!("PRAGMA trusted_schema = 0; {TABLES}"), WRITES);
}

#[test]
fn defensive_connections_replicate() {
    let pair = Pair::new();
    pair.primary.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).unwrap();
    pair.run(TABLES);
    pair.check();
    WRITES.iter().for_each(|writes| {
        pair.run(writes);
        pair.check();
    });
    let dir = TempDir::new();
    let primary = open(&dir.file("primary.db"));
    primary.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).unwrap();
    primary.run(TABLES);
    let url = publish(&primary, &dir.channel());
    let replica = replicate(&primary, &url, &dir.file("replica.db"));
    replica.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true).unwrap();
    WRITES.iter().for_each(|writes| primary.run(writes));
    harness::pair::flush(&primary);
    harness::pair::attach(&replica, &url);
    harness::assert_equal(&primary, &replica);
}

#[test]
fn a_shell_in_safe_mode_writes_and_is_captured() {
    let pair = Pair::of(TABLES);
    pair.check();
    for script in WRITES {
        let output = Command::new("sqlite3")
            .args(["-safe", "-batch", "-init", "/dev/null", "-cmd", ".timeout 30000"])
            .arg(pair.primary_path())
            .arg(script)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{script}");
        pair.check();
    }
}

#[test]
fn vacuum_between_writes_is_harmless() {
    let mut steps = Vec::new();
    for writes in WRITES {
        steps.extend(["VACUUM", writes]);
    }
    steps.extend(["DELETE FROM n WHERE a = 1", "VACUUM", "UPDATE n SET b = 'after'", "VACUUM", "VACUUM"]);
    in_every_order(TABLES, &steps);
}

#[test]
fn a_shell_may_vacuum_while_we_run_and_while_we_are_down() {
    let mut pair = Pair::of(TABLES);
    pair.check();
    let script = "DELETE FROM n WHERE a = 1; DELETE FROM k WHERE name = 'x'; VACUUM; UPDATE n SET b = 'shell'; INSERT INTO n VALUES (7, 7);";
    assert_eq!(Shell::run(&pair.primary_path(), script).err, "");
    pair.check();
    pair.run("SELECT logos_stop()");
    let script = "DELETE FROM n WHERE a = 3; VACUUM; UPDATE k SET v = 'shell'; PRAGMA wal_checkpoint(TRUNCATE); UPDATE n SET b = 'down';";
    Shell::run(&pair.primary_path(), script);
    publish(&pair.primary, &pair.url);
    pair.check();
    pair.check_fresh();
}

#[test]
fn every_auto_vacuum_mode_replicates() {
    for mode in ["FULL", "INCREMENTAL"] {
        in_every_order(
            &format!("PRAGMA auto_vacuum = {mode}; VACUUM; {TABLES}"),
            &[
                "INSERT INTO n SELECT i, zeroblob(3000) FROM (WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 200) SELECT i FROM c)",
                "DELETE FROM n WHERE a % 3 <> 0",
                "PRAGMA incremental_vacuum(20)",
                WRITES[1],
                "PRAGMA auto_vacuum = NONE; VACUUM",
                WRITES[2],
            ],
        );
    }
}

#[test]
fn page_size_and_journal_mode_may_change_where_they_are_kept() {
    for journal in ["delete", "truncate", "persist"] {
        let mut pair =
            Pair::with_options(&format!("PRAGMA journal_mode = {journal}; {TABLES}"), r#"{"journal":"keep"}"#);
        pair.check();
        pair.run("PRAGMA page_size = 1024; VACUUM");
        assert_eq!(pair.primary.int("PRAGMA page_size"), 1024);
        pair.check();
        for (writes, mode) in WRITES.iter().zip(["persist", "truncate", "wal"]) {
            pair.run(writes);
            pair.check();
            assert_eq!(pair.primary.text(&format!("PRAGMA journal_mode = {mode}")), mode);
        }
        pair.run("DELETE FROM n WHERE a = 4; VACUUM; INSERT INTO n VALUES (11, 12)");
        pair.check();
        pair.check_fresh();
        assert_eq!(pair.primary.text("PRAGMA journal_mode"), "wal");
    }
}

#[test]
fn checkpoints_by_anybody_lose_nothing() {
    let mut pair = Pair::of(TABLES);
    pair.check();
    for writes in WRITES {
        pair.run(writes);
        pair.run("PRAGMA wal_checkpoint(TRUNCATE)");
        assert_eq!(
            Shell::run(&pair.primary_path(), "INSERT INTO n VALUES (50, 50); PRAGMA wal_checkpoint(TRUNCATE);").err,
            ""
        );
        pair.check();
    }
    pair.run("SELECT logos_stop()");
    pair.run("INSERT INTO n VALUES (60, 60); PRAGMA wal_checkpoint(TRUNCATE); DELETE FROM i WHERE id = 1; PRAGMA wal_checkpoint(RESTART)");
    publish(&pair.primary, &pair.url);
    pair.check();
    pair.check_fresh();
}

#[test]
fn a_vacuumed_copy_is_a_database_and_the_original_goes_on() {
    let pair = Pair::of(TABLES);
    pair.check();
    let copy = pair.dir.file("copy.db");
    pair.run(&format!("BEGIN; INSERT INTO n VALUES (10, 10); COMMIT; VACUUM INTO '{}'", copy.display()));
    WRITES.iter().for_each(|writes| pair.run(writes));
    pair.check();
    let conn = open(&copy);
    assert_eq!(conn.int("SELECT count(*) FROM n"), 5);
    WRITES.iter().for_each(|writes| conn.run(writes));
}

#[derive(Default)]
struct Seen {
    updates: AtomicUsize,
    commits: AtomicUsize,
    rollbacks: AtomicUsize,
}

fn set_hooks(conn: &mut Connection) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    let (updates, commits, rollbacks) = (seen.clone(), seen.clone(), seen.clone());
    conn.update_hook(Some(move |_, _: &str, table: &str, _| {
        updates.updates.fetch_add(usize::from(!table.starts_with("_logos_")), Ordering::Relaxed);
    }))
    .unwrap();
    conn.commit_hook(Some(move || {
        commits.commits.fetch_add(1, Ordering::Relaxed);
        false
    }))
    .unwrap();
    conn.rollback_hook(Some(move || {
        rollbacks.rollbacks.fetch_add(1, Ordering::Relaxed);
    }))
    .unwrap();
    seen
}

#[test]
fn hooks_that_the_application_sets_after_us_work_and_commits_are_still_noticed() {
    let mut pair = Pair::of(TABLES);
    pair.check();
    let seen = set_hooks(&mut pair.primary);
    pair.run("INSERT INTO i VALUES (10, 'x'); BEGIN; INSERT INTO i VALUES (11, 'y'); ROLLBACK");
    let counted = (
        seen.updates.load(Ordering::Relaxed),
        seen.commits.load(Ordering::Relaxed),
        seen.rollbacks.load(Ordering::Relaxed),
    );
    assert_eq!(counted, (2, 1, 1));
    WRITES.iter().for_each(|writes| pair.run(writes));
    pair.check();
    // Nobody asks for the next one: polling alone must find it.
    let before = status_of(&pair.primary, &pair.primary_path()).unwrap().messages;
    pair.run("INSERT INTO i VALUES (12, 'z')");
    harness::wait_until("the commit is noticed", || {
        status_of(&pair.primary, &pair.primary_path()).unwrap().messages > before
    });
    pair.check();
}

fn load(conn: &Connection) {
    // SAFETY: the file loaded is the extension under test.
    unsafe {
        let _guard = LoadExtensionGuard::new(conn).unwrap();
        conn.load_extension(extension(), None::<&str>).unwrap();
    }
}

#[test]
fn hooks_that_the_application_set_before_us_are_called_as_before() {
    let dir = TempDir::new();
    let mut primary = open_plain(&dir.file("primary.db"));
    primary.run(TABLES);
    let seen = set_hooks(&mut primary);
    load(&primary);
    let url = publish(&primary, &dir.channel());
    primary.run("INSERT INTO i VALUES (10, 'x'); BEGIN; INSERT INTO i VALUES (11, 'y'); ROLLBACK");
    let rollbacks = seen.rollbacks.load(Ordering::Relaxed);
    assert_eq!((seen.updates.load(Ordering::Relaxed), seen.commits.load(Ordering::Relaxed)), (2, 1));
    assert!(rollbacks >= 1, "{rollbacks}");
    WRITES.iter().for_each(|writes| primary.run(writes));
    replicate(&primary, &url, &dir.file("replica.db"));
    assert_eq!(warnings(&primary), "");
}

/// Commits seen by `count_commit`, which this process has once.
static COMMITS: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn count_commit(_: *mut c_void) -> c_int {
    COMMITS.fetch_add(1, Ordering::Relaxed);
    c_int::from(COMMITS.load(Ordering::Relaxed) == 3)
}

/// Sets a commit hook as a C program does, and returns what SQLite says of the former one.
fn set_commit_hook(conn: &Connection, argument: *mut c_void) -> *mut c_void {
    // SAFETY: the connection is open, and the function uses no argument.
    unsafe { ffi::sqlite3_commit_hook(conn.handle(), Some(count_commit), argument) }
}

#[test]
fn a_hook_without_an_argument_is_a_hook_too_and_its_answer_holds() {
    let dir = TempDir::new();
    let primary = open_plain(&dir.file("primary.db"));
    primary.run(TABLES);
    set_commit_hook(&primary, std::ptr::null_mut());
    load(&primary);
    let url = publish(&primary, &dir.channel());
    primary.run("INSERT INTO i VALUES (10, 'x'); INSERT INTO i VALUES (11, 'y')");
    assert_eq!(COMMITS.load(Ordering::Relaxed), 2);
    assert!(primary.execute("INSERT INTO i VALUES (12, 'refused')", []).is_err());
    primary.run("INSERT INTO i VALUES (13, 'z')");
    let replica = replicate(&primary, &url, &dir.file("replica.db"));
    assert_eq!(replica.text("SELECT group_concat(v) FROM i WHERE id > 9"), "x,y,z");
}

#[test]
fn who_sets_a_hook_later_is_told_of_none_of_ours_on_whatever_connection() {
    let pair = Pair::of(TABLES);
    let (other, memory) = (open_plain(&pair.dir.file("other.db")), Connection::open_in_memory().unwrap());
    let later = open_plain(&pair.primary_path());
    for conn in [&pair.primary, &later, &other, &memory] {
        assert!(set_commit_hook(conn, std::ptr::from_ref(&pair).cast_mut().cast()).is_null());
        assert!(!set_commit_hook(conn, std::ptr::null_mut()).is_null());
    }
}
