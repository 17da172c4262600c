//! Goal: read-only means read-only. On a connection that may not write, no function of ours writes anything anywhere; what only
//! reads goes on to work. A refused write on a replica is an error that nobody takes for a violated constraint.
//!
//! Method: visitors of several kinds call every function, and files and folders are looked at afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use harness::pair::{attach, flush, try_attach};
use harness::rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use harness::rusqlite::{ffi, Error, OpenFlags};
use harness::{open, open_plain, replicate, status_of, Connection, Pair, Shell, Sql, TempDir};

/// Lets a visitor select, read and call functions, as the manuals show it.
fn only_select(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Function { .. } => Authorization::Allow,
        _ => Authorization::Deny,
    }
}

/// Lets a visitor do anything but write.
fn no_writing(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::CreateTable { .. } | AuthAction::Insert { .. } | AuthAction::Update { .. } => Authorization::Deny,
        _ => Authorization::Allow,
    }
}

/// Connections that may not write, each in its own way, and the code of the refusal.
fn visitors(database: &Path) -> Vec<(Connection, i32)> {
    drop(open(database)); // has every later connection of this process loaded
    let read_only = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let query_only = open_plain(database);
    query_only.run("PRAGMA query_only = 1");
    let (mut guarded, mut strict) = (open_plain(database), open_plain(database));
    guarded.authorizer(Some(no_writing)).unwrap();
    strict.authorizer(Some(only_select)).unwrap();
    let (readonly, auth) = (ffi::SQLITE_READONLY, ffi::SQLITE_AUTH);
    vec![(read_only, readonly), (query_only, readonly), (guarded, auth), (strict, auth)]
}

/// The code and the sentence of a query that fails.
fn refusal(conn: &Connection, sql: &str) -> (i32, String) {
    match conn.query_row(sql, [], |_| Ok(())) {
        Err(Error::SqliteFailure(code, Some(text))) => (code.extended_code, text),
        other => panic!("{sql}: {other:?}"),
    }
}

#[test]
fn no_visitor_publishes_a_database() {
    let dir = TempDir::new();
    let database = dir.file("secret.db");
    open_plain(&database).run("CREATE TABLE card(n); INSERT INTO card VALUES ('4000')");
    for (visitor, code) in visitors(&database) {
        let call = format!("SELECT logos_publish('{}')", dir.channel());
        let (refused, text) = refusal(&visitor, &call);
        assert_eq!(refused, code, "{text}");
        assert!(text.contains("logos_publish would write") && text.contains("nothing was changed"), "{text}");
    }
    assert!(!dir.channel_folder().exists() && !harness::files::sidecar(&database).exists());
    assert_eq!(open(&database).texts("SELECT name FROM sqlite_schema"), ["card"]);
    assert_eq!(open(&database).text("PRAGMA journal_mode"), "delete");
}

#[test]
fn no_visitor_stops_removes_resyncs_or_touches_what_is_published() {
    let mut pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)");
    for (visitor, code) in visitors(&pair.primary_path()) {
        for call in ["logos_stop()", "logos_remove()", "logos_resync()", "logos_touch('t', 1)"] {
            assert_eq!(refusal(&visitor, &format!("SELECT {call}")).0, code, "{call}");
        }
        // What only reads: the answers are those that the application gets.
        assert!(visitor.text("SELECT logos_version()").contains("logos"));
        assert_eq!(visitor.text("SELECT logos_flush(30)"), flush(&pair.primary));
    }
    let state = status_of(&pair.primary, &pair.primary_path()).unwrap().state;
    assert!(state == "healthy" || state == "sending", "{state}");
    pair.check_fresh();
}

#[test]
fn no_visitor_makes_a_replica_or_pulls_into_one_but_waits_for_who_does() {
    let pair = Pair::of("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
    flush(&pair.primary);
    let empty = pair.dir.file("empty.db");
    let replica = replicate(&pair.primary, &pair.url, &pair.replica_path());
    pair.run("INSERT INTO t VALUES (2)");
    let position = flush(&pair.primary);
    for (visitor, code) in visitors(&empty) {
        let call = format!("SELECT * FROM attach_replica('{}')", pair.url);
        let (refused, text) = refusal(&visitor, &call);
        // An older SQLite asks the authorizer about the columns of a table like this one as if they were a change of the schema.
        assert!(refused == code || text.contains("vtable constructor failed"), "{text}");
        assert_eq!(visitor.int("SELECT count(*) FROM sqlite_schema"), 0);
    }
    assert_eq!(open(&empty).text("PRAGMA journal_mode"), "delete");
    for (visitor, _) in visitors(&pair.replica_path()) {
        assert_eq!(visitor.int(&format!("SELECT logos_wait('{position}', 0.2)")), 0);
    }
    assert_eq!(replica.int("SELECT count(*) FROM t"), 1);
    attach(&replica, &pair.url);
    for (visitor, _) in visitors(&pair.replica_path()) {
        assert_eq!(visitor.int(&format!("SELECT logos_wait('{position}', 30)")), 1);
    }
}

#[test]
fn a_refused_write_on_a_replica_is_readonly_with_us_and_a_plain_error_without() {
    let pair = Pair::of("CREATE TABLE session(key TEXT PRIMARY KEY, data); INSERT INTO session VALUES ('a', 1)");
    let replica = pair.check();
    let writes = ["INSERT INTO session VALUES ('b', 2)", "UPDATE session SET data = 3", "DELETE FROM session"];
    for write in writes {
        let Err(Error::SqliteFailure(code, Some(text))) = replica.execute(write, []) else { panic!("{write}") };
        assert_eq!(code.extended_code, ffi::SQLITE_READONLY, "{text}");
        assert!(text.contains("read-only replica") && text.contains("primary"), "{text}");
        // A writer that has never heard of us.
        let answer = Shell::run(&pair.replica_path(), write);
        assert!(answer.err.contains("read-only replica") && !answer.err.contains("constraint"), "{answer:?}");
    }
    for write in ["INSERT OR IGNORE INTO session VALUES ('a', 9)", "REPLACE INTO session VALUES ('a', 9)"] {
        assert!(replica.fails(write).contains("read-only replica"));
    }
    replica.run("VACUUM; ANALYZE; PRAGMA integrity_check");
    pair.run("ALTER TABLE session RENAME COLUMN data TO body; ALTER TABLE session RENAME TO sessions");
    pair.check();
    assert!(replica.fails("DELETE FROM sessions").contains("read-only replica"));
}

#[test]
fn attach_replica_as_a_scalar_says_how_to_call_it() {
    let dir = TempDir::new();
    let conn = open(&dir.file("x.db"));
    for call in ["attach_replica()", "attach_replica('dir:x')", "attach_replica('dir:x', '{}')"] {
        let (_, text) = refusal(&conn, &format!("SELECT {call}"));
        assert!(text.contains("SELECT * FROM attach_replica("), "{text}");
    }
}

#[test]
fn wrong_options_list_the_names_that_there_are() {
    let dir = TempDir::new();
    let conn = open(&dir.file("x.db"));
    let (_, text) = refusal(&conn, &format!(r#"SELECT logos_publish('{}', '{{"jornal":"wal"}}')"#, dir.channel()));
    assert!(text.contains("jornal") && text.contains("journal, ") && text.contains("batch_ms"), "{text}");
    let replica = open(&dir.file("r.db"));
    let refused = try_attach(&replica, &dir.channel(), Some(r#"{"folow":true}"#)).unwrap_err().to_string();
    assert!(refused.contains("folow") && refused.contains("confirm, follow"), "{refused}");
}

#[test]
fn errors_carry_the_codes_of_sqlite() {
    let dir = TempDir::new();
    drop(open(&dir.file("loads.db")));
    std::fs::write(dir.file("text.db"), "This is a text and no database. ".repeat(20)).unwrap();
    let conn = Connection::open(dir.file("text.db")).unwrap();
    let (code, text) = refusal(&conn, &format!("SELECT logos_publish('{}')", dir.channel()));
    assert_eq!(code, ffi::SQLITE_NOTADB, "{text}");
}
