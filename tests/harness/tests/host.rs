//! Goal: a guest that does not show: any supported host, any number of loads, connections, threads and closes, and
//! no farewell needed (T17, T70, T74).
//!
//! Method: one process opens, loads, writes and closes as applications do. This file, like all the others, is compiled
//! against the newest SQLite and against the system's. What counts threads is in `threads.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

use harness::files::extension;
use harness::pair::{attach, flush, publish};
use harness::{assert_equal, open, open_plain, rusqlite, status, Connection, Pair, Shell, Sql, TempDir};

fn load_again(conn: &Connection) {
    // SAFETY: the file loaded is the extension under test.
    unsafe {
        let _guard = rusqlite::LoadExtensionGuard::new(conn).unwrap();
        conn.load_extension(extension(), None::<&str>).unwrap();
    }
}

#[test]
fn the_version_function_names_the_version_and_the_host() {
    let dir = TempDir::new();
    let conn = open(&dir.file("x.db"));
    let version = conn.text("SELECT logos_version()");
    let manifest = std::fs::read_to_string(harness::files::repository().join("Cargo.toml")).unwrap();
    let ours = manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap().trim_matches('"').to_owned();
    assert!(version.contains(&ours), "{version}");
    assert!(version.contains(rusqlite::version()), "{version}");
    let shell = Shell::run_with_logos(&dir.file("y.db"), "SELECT logos_version() LIKE '%' || sqlite_version() || '%';");
    assert_eq!((shell.out.as_str(), shell.err.as_str()), ("1", ""));
}

#[cfg(feature = "bundled")]
#[test]
fn this_run_is_hosted_by_a_new_sqlite() {
    assert!(rusqlite::version_number() >= 3_050_000, "{}", rusqlite::version());
}

#[cfg(not(feature = "bundled"))]
#[test]
fn this_run_is_hosted_by_the_systems_sqlite() {
    let dir = TempDir::new();
    let shell = Shell::run(&dir.file("x.db"), "SELECT sqlite_version();");
    assert_eq!(shell.out, rusqlite::version());
}

#[test]
fn loading_twice_on_one_connection_is_harmless() {
    let pair = Pair::of("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
    for n in 0..20 {
        load_again(&pair.primary);
        pair.run(&format!("INSERT INTO t VALUES ({n})"));
    }
    let replica = pair.check();
    load_again(&replica);
    pair.run("DELETE FROM t WHERE a = 1");
    pair.check();
    let rows = status(&pair.primary);
    let path = pair.primary_path();
    assert_eq!(rows.iter().filter(|row| row.role == "primary" && path.ends_with(&row.database)).count(), 1, "{rows:?}");
}

/// The tests bring a SQLite of their own, and the system has another.
#[cfg(feature = "bundled")]
#[test]
fn a_second_sqlite_library_in_the_process_is_refused_and_the_first_goes_on() {
    use std::ffi::{c_char, c_int, c_void, CStr, CString};
    use std::os::unix::ffi::OsStrExt;
    type Open = unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> c_int;
    type Allow = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
    type Load = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char, *mut *mut c_char) -> c_int;

    let pair = Pair::of("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
    let file = CString::new(extension().as_os_str().as_bytes()).unwrap();
    // SAFETY: the functions are SQLite's own, looked up in SQLite's library and called with what they take.
    let (rc, text) = unsafe {
        let library = libc::dlopen(c"libsqlite3.so.0".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        assert!(!library.is_null(), "the system has no SQLite library");
        let find = |name: &CStr| libc::dlsym(library, name.as_ptr());
        let open = std::mem::transmute::<*mut c_void, Open>(find(c"sqlite3_open"));
        let allow = std::mem::transmute::<*mut c_void, Allow>(find(c"sqlite3_enable_load_extension"));
        let load = std::mem::transmute::<*mut c_void, Load>(find(c"sqlite3_load_extension"));
        let (mut db, mut error) = (std::ptr::null_mut(), std::ptr::null_mut());
        assert_eq!((open(c":memory:".as_ptr(), &mut db), allow(db, 1)), (0, 0));
        let rc = load(db, file.as_ptr(), std::ptr::null(), &mut error);
        assert!(!error.is_null());
        (rc, CStr::from_ptr(error).to_string_lossy().into_owned())
    };
    assert_ne!(rc, 0);
    assert!(text.contains("another SQLite library of this process") && text.contains("nothing was loaded"), "{text}");
    assert!(pair.primary.text("SELECT logos_version()").contains(rusqlite::version()));
    pair.run("INSERT INTO t VALUES (2)");
    pair.check();
}

#[test]
fn loading_on_many_connections_is_harmless() {
    let pair = Pair::of("CREATE TABLE t(a)");
    let connections: Vec<Connection> = (0..50).map(|_| open(&pair.primary_path())).collect();
    for (n, conn) in connections.iter().enumerate() {
        conn.run(&format!("INSERT INTO t VALUES ({n})"));
    }
    for conn in connections {
        conn.close().unwrap();
    }
    let replica = pair.check();
    assert_eq!(replica.int("SELECT count(*) FROM t"), 50);
}

#[test]
fn loading_in_many_threads_at_once_is_harmless() {
    let dir = TempDir::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|n| {
                let dir = &dir;
                scope.spawn(move || {
                    for round in 0..20 {
                        let conn = open(&dir.file(&format!("db-{n}-{round}")));
                        load_again(&conn);
                        assert!(conn.text("SELECT logos_version()").contains('.'));
                        conn.close().unwrap();
                    }
                    let primary = open(&dir.file(&format!("primary-{n}")));
                    primary.run("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
                    let url = publish(&primary, &format!("dir:{}", dir.file(&format!("channel-{n}")).display()));
                    harness::replicate(&primary, &url, &dir.file(&format!("replica-{n}")));
                    primary.close().unwrap();
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

#[test]
fn connections_opened_later_have_the_extension_too() {
    let dir = TempDir::new();
    drop(open(&dir.file("first.db")));
    let later = open_plain(&dir.file("later.db"));
    later.run("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
    let url = publish(&later, &dir.channel());
    harness::replicate(&later, &url, &dir.file("replica.db"));
}

#[test]
fn loading_after_fork_is_harmless() {
    let dir = TempDir::new();
    let output = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["fork", dir.path().to_str().unwrap()])
        .env("LOGOS_EXTENSION", extension())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in ["parent", "child"] {
        let (primary, replica) =
            (open(&dir.file(&format!("{name}.db"))), open(&dir.file(&format!("{name}-replica.db"))));
        assert_equal(&primary, &replica);
    }
}

#[test]
fn a_replica_closed_while_following_never_blocks_and_resumes() {
    let pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    flush(&pair.primary);
    for n in 0..100 {
        let replica = open(&pair.replica_path());
        harness::pair::try_attach(&replica, &pair.url, Some(r#"{"follow":true}"#)).unwrap();
        pair.run(&format!("INSERT INTO t VALUES ({n}, randomblob(1000))"));
        replica.close().unwrap_or_else(|(_, error)| panic!("close {n}: {error}"));
    }
    pair.check();
}

#[test]
fn the_library_stays_loaded_when_its_last_connection_closes() {
    let dir = TempDir::new();
    let conn = open(&dir.file("x.db"));
    conn.run("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
    publish(&conn, &dir.channel());
    conn.close().unwrap();
    if let Ok(maps) = std::fs::read_to_string("/proc/self/maps") {
        let name = extension().file_name().unwrap().to_string_lossy().into_owned();
        assert!(maps.contains(&name), "unloaded while its thread may run");
    }
    // What ran before goes on: connections that never heard of it work, and so does the publisher.
    let plain = open_plain(&dir.file("x.db"));
    plain.run("INSERT INTO t VALUES (2)");
    let url = publish(&plain, &dir.channel());
    harness::replicate(&plain, &url, &dir.file("replica.db"));
}

#[test]
fn the_stock_shell_leaves_with_success_whatever_is_pending() {
    let dir = TempDir::new();
    for n in 0..10 {
        let mut shell = Shell::open_with_logos(&dir.file("primary.db"));
        shell.must(&format!("SELECT logos_publish('{}');", dir.channel()));
        shell.must("CREATE TABLE IF NOT EXISTS t(a);");
        shell.must(&format!("INSERT INTO t VALUES ({n});"));
        assert!(shell.close().success(), "round {n}");
    }
    let primary = open(&dir.file("primary.db"));
    let url = publish(&primary, &dir.channel());
    let replica = open(&dir.file("replica.db"));
    flush(&primary);
    attach(&replica, &url);
    assert_eq!(replica.int("SELECT count(*) FROM t"), 10);
}

#[test]
fn statements_of_the_application_do_not_keep_a_connection_busy_longer_than_before() {
    let pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    let conn = open(&pair.primary_path());
    conn.run(
        "INSERT INTO t VALUES (1, 'x'); SELECT * FROM logos_status; SELECT * FROM logos_log; SELECT logos_position()",
    );
    conn.run("SELECT logos_flush(60); SELECT logos_touch('t', 1)");
    conn.close().unwrap_or_else(|(_, error)| panic!("{error}"));
    let replica = pair.check();
    replica.run(&format!("SELECT * FROM attach_replica('{}'); SELECT * FROM logos_status", pair.url));
    replica.close().unwrap_or_else(|(_, error)| panic!("{error}"));
}

#[test]
fn a_path_with_spaces_quotes_and_unicode_works() {
    let dir = TempDir::new();
    let folder = dir.file("it's a \"folder\" — größe %20 #1 ?x");
    std::fs::create_dir(&folder).unwrap();
    let primary = open(&folder.join("primary db.sqlite"));
    primary.run("CREATE TABLE t(a); INSERT INTO t VALUES (1)");
    let url = publish(&primary, &format!("dir:{}", folder.join("the channel").display()));
    harness::replicate(&primary, &url, &folder.join("the replica"));
    assert!(Path::new(url.strip_prefix("dir:").unwrap()).is_dir());
}
