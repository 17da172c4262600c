//! Goal: what we take is bounded: memory for large transactions and large values (T18), disk for hot rows (T21), nothing at all
//! when idle (T22); and where there is no room for us, the application goes on as without us (T20).
//!
//! Method: stock shells with the extension loaded are the processes that are measured, through /proc; a preloaded library makes
//! chosen files fail to be written as on a full disk; another user has no right to write beside the database.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::files::{entries, extension, extension_sim, sidecar};
use harness::pair::{attach, publish};
use harness::{assert_equal, messages, open, replicate, wait_until, Pair, Shell, Sql, TempDir};

const MIB: i64 = 1024 * 1024;

/// The most memory that a process has had, in bytes.
fn peak(shell: &Shell) -> i64 {
    let status = fs::read_to_string(format!("/proc/{}/status", shell.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<i64>().unwrap() * 1024
}

fn size(path: &Path) -> i64 {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    [path.to_owned(), PathBuf::from(wal)].iter().map(|path| fs::metadata(path).map_or(0, |m| m.len() as i64)).sum()
}

fn counting(to: usize) -> String {
    format!("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {to})")
}

/// Runs `script` in a shell that publishes, then a replica in another; the peaks of a plain shell, of both, and the replica.
struct Measured {
    plain: i64,
    publishing: i64,
    applying: i64,
    dir: TempDir,
    url: String,
}

fn measure(setup: &str, script: &str) -> Measured {
    let dir = TempDir::new();
    let plain = {
        let mut shell = Shell::open(&dir.file("plain.db"));
        shell.must(&format!("PRAGMA journal_mode = WAL; {setup}"));
        shell.must(script);
        peak(&shell)
    };
    let (url, publishing) = {
        let mut shell = Shell::open_with_logos(&dir.file("primary.db"));
        shell.must(setup);
        let url = shell.must(&format!("SELECT logos_publish('{}');", dir.channel()));
        shell.must("SELECT logos_flush(60);");
        shell.must(script);
        shell.must("SELECT logos_flush(60);");
        let peak = peak(&shell);
        assert!(shell.close().success());
        (url, peak)
    };
    let mut shell = Shell::open_with_logos(&dir.file("replica.db"));
    shell.must(&format!("SELECT count(*) FROM attach_replica('{url}');"));
    let applying = peak(&shell);
    drop(shell);
    eprintln!("plain {} MiB, publishing {} MiB, applying {} MiB", plain / MIB, publishing / MIB, applying / MIB);
    Measured { plain, publishing, applying, dir, url }
}

#[test]
fn a_million_rows_in_one_transaction_take_bounded_memory_and_arrive_at_once() {
    let m = measure(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n); CREATE INDEX tn ON t(n);",
        &format!(
            "BEGIN; {} INSERT INTO t SELECT i, 'row number ' || i, i * 7919 % 1000003 FROM c; COMMIT;",
            counting(1_000_000)
        ),
    );
    assert!(m.publishing < m.plain + 64 * MIB, "publishing took {} MiB more", (m.publishing - m.plain) / MIB);
    assert!(m.applying < m.plain + 64 * MIB, "applying took {} MiB more", (m.applying - m.plain) / MIB);
    assert!(entries(&m.url).len() > 1, "it was not split");
    let primary = open(&m.dir.file("primary.db"));
    let replica = open(&m.dir.file("replica.db"));
    for query in
        ["SELECT count(*) || ' ' || sum(n) || ' ' || sum(length(name)) FROM t", "SELECT name FROM t WHERE n = 500000"]
    {
        assert_eq!(primary.text(query), replica.text(query));
    }
}

#[test]
fn a_column_added_to_a_million_rows_takes_less_than_a_kilobyte() {
    let pair = Pair::of(&format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE n(v); {} INSERT INTO t SELECT i, i FROM c;
         INSERT INTO n SELECT v FROM t WHERE id <= 100000",
        counting(1_000_000)
    ));
    harness::pair::flush(&pair.primary);
    let replica = open(&pair.replica_path());
    attach(&replica, &pair.url);
    for step in [
        "ALTER TABLE t ADD COLUMN later TEXT DEFAULT 'as it was'",
        "ALTER TABLE n ADD COLUMN later",
        "ALTER TABLE t RENAME COLUMN v TO value",
        "ALTER TABLE t RENAME TO much",
    ] {
        let before = messages(&pair.primary).len();
        pair.run(step);
        harness::pair::flush(&pair.primary);
        let new = &messages(&pair.primary)[before..];
        let bytes: i64 = new.iter().map(|message| message.bytes).sum();
        assert!(!new.is_empty() && bytes < 1024, "{step}: {bytes} bytes in {} messages", new.len());
        attach(&replica, &pair.url);
    }
    for query in [
        "SELECT count(*) || ' ' || sum(value) || ' ' || min(later) || max(later) FROM much",
        "SELECT count(*) FROM n WHERE later IS NULL",
    ] {
        assert_eq!(pair.primary.text(query), replica.text(query));
    }
    let schema = "SELECT group_concat(sql) FROM sqlite_schema WHERE name IN ('much', 'n')";
    assert_eq!(pair.primary.text(schema), replica.text(schema));
}

const BLOB: i64 = 64 * MIB;

#[test]
fn a_large_value_is_split_and_takes_a_small_multiple_of_its_size() {
    let m = measure(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB);",
        &format!("BEGIN; INSERT INTO t VALUES (1, randomblob({BLOB})); INSERT INTO t VALUES (2, 'small'); COMMIT;"),
    );
    assert!(m.publishing < m.plain + 4 * BLOB, "publishing took {} MiB more", (m.publishing - m.plain) / MIB);
    assert!(m.applying < 5 * BLOB, "applying took {} MiB", m.applying / MIB);
    assert!(entries(&m.url).len() as i64 > BLOB / (600 * 1024), "in {} entries", entries(&m.url).len());
    let left = size(&sidecar(&m.dir.file("primary.db")));
    assert!(left < BLOB / 4, "{} MiB of sidecar stay when everything is on the channel", left / MIB);
    let primary = open(&m.dir.file("primary.db"));
    let replica = open(&m.dir.file("replica.db"));
    primary.run(&format!("ATTACH '{}' AS replica", m.dir.file("replica.db").display()));
    assert_eq!(primary.int("SELECT count(*) FROM main.t a JOIN replica.t b ON a.id = b.id AND a.b = b.b"), 2);
    drop(replica);

    // A replica that is killed when all of it is written, just before its commit, has nothing of it.
    let killed = m.dir.file("killed.db");
    let mut shell = Shell::with_env(&killed, &[("LOGOS_FAULT", "apply.before_commit:2")]);
    shell.must(&format!(".load '{}' sqlite3_logos_init", extension_sim().with_extension("").display()));
    shell.send(&format!("SELECT count(*) FROM attach_replica('{}');", m.url));
    let proc = PathBuf::from(format!("/proc/{}/stat", shell.id()));
    let ended = || {
        fs::read_to_string(&proc).map_or(true, |stat| stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
    };
    wait_until("the replica is killed", ended);
    drop(shell);
    assert_eq!(Shell::run(&killed, "SELECT count(*) FROM t;").out, "0");
    let answer = Shell::run_with_logos(
        &killed,
        &format!("SELECT count(*) FROM attach_replica('{}'); SELECT sum(length(b)) FROM t;", m.url),
    );
    assert_eq!((answer.out.as_str(), answer.err.as_str()), (format!("1\n{}", BLOB + 5).as_str(), ""));
}

#[test]
fn a_hundred_thousand_updates_of_one_row_leave_little_behind() {
    let mut pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 0), (2, 0)");
    pair.check();
    let rows = "SELECT count(*) FROM _logos_log";
    for round in 0..100 {
        pair.run("BEGIN");
        {
            let mut update = pair.primary.prepare("UPDATE t SET v = v + 1 WHERE id = 1").unwrap();
            for _ in 0..1000 {
                update.raw_execute().unwrap();
            }
        }
        pair.run("COMMIT");
        if round % 10 == 9 {
            harness::pair::flush(&pair.primary);
        }
    }
    // Its writers forget what is published: at most what was logged since the last look, and what two prunings leave.
    assert!(pair.primary.int(rows) < 30_000, "{} rows in the log", pair.primary.int(rows));
    assert!(size(&sidecar(&pair.primary_path())) < 4 * MIB, "{}", size(&sidecar(&pair.primary_path())));
    let bytes: i64 = messages(&pair.primary).iter().map(|message| message.bytes).sum();
    assert!(bytes < MIB, "{bytes} bytes published for one row");
    let replica = pair.check_fresh();
    assert_eq!(replica.int("SELECT v FROM t WHERE id = 1"), 100_000);
}

/// Counters of what a process has written and called for, and its CPU ticks.
fn activity(id: u32) -> (Vec<String>, i64) {
    let io = fs::read_to_string(format!("/proc/{id}/io")).unwrap();
    let written = |line: &&str| ["wchar", "syscw", "write_bytes"].iter().any(|name| line.starts_with(name));
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = fields[11].parse::<i64>().unwrap() + fields[12].parse::<i64>().unwrap();
    (io.lines().filter(written).map(str::to_owned).collect(), ticks)
}

fn files(folder: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            found.extend(files(&entry.path()));
        }
        found.push((entry.path(), meta.len(), meta.modified().unwrap()));
    }
    found.sort();
    found
}

/// Two idle seconds stand for the hour: what happens in them would happen all the time.
#[test]
fn an_idle_primary_and_an_idle_replica_write_nothing_and_hardly_run() {
    let dir = TempDir::new();
    let mut primary = Shell::open_with_logos(&dir.file("primary.db"));
    primary.must("CREATE TABLE t(id INTEGER PRIMARY KEY, v);");
    let url = primary.must(&format!("SELECT logos_publish('{}');", dir.channel()));
    primary.must(&format!("{} INSERT INTO t SELECT i, i FROM c; SELECT logos_flush(60);", counting(20_000)));
    let mut replica = Shell::open_with_logos(&dir.file("replica.db"));
    replica.must(&format!("SELECT count(*) FROM attach_replica('{url}', '{{\"follow\":true}}');"));
    wait_until("what is published is forgotten", || primary.must("SELECT count(*) < 1000 FROM _logos_log;") == "1");
    let look = || (files(dir.path()), activity(primary.id()), activity(replica.id()));
    // What is left to tidy up is done once; then a look must find what the look before it found.
    let idle = Duration::from_secs(2);
    let mut before = look();
    wait_until("both come to rest", || {
        std::thread::sleep(idle);
        let now = look();
        let rests = (&now.0, &now.1 .0, &now.2 .0) == (&before.0, &before.1 .0, &before.2 .0);
        let ticks = [now.1 .1 - before.1 .1, now.2 .1 - before.2 .1];
        before = now;
        rests && ticks.iter().all(|&ticks| ticks <= 6)
    });
    assert_eq!(primary.must("SELECT state FROM logos_status;"), "healthy");
}

fn preload(dir: &TempDir) -> String {
    let (source, library) = (dir.file("full.c"), dir.file("full.so"));
    fs::write(&source, include_str!("resources/full.c")).unwrap();
    let cc = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    assert!(cc.expect("a C compiler (run `make setup`)").success());
    library.to_str().unwrap().to_owned()
}

const ERROR: &str = "SELECT coalesce(error, '') || ' ' || coalesce(hint, '') FROM logos_status;";

/// No room for the sidecar, then none for the channel: commits go on, the status says it, and it passes by itself.
#[test]
fn a_full_disk_for_us_is_not_the_applications_trouble() {
    for full_of in ["-logos", "channel"] {
        let dir = TempDir::new();
        let (library, flag) = (preload(&dir), dir.file("full"));
        let env = [("LD_PRELOAD", library.as_str()), ("FULL_FLAG", flag.to_str().unwrap())];
        let mut shell = Shell::with_env(&dir.file("primary.db"), &env);
        shell.must(&format!(".load '{}'", extension().with_extension("").display()));
        shell.must("CREATE TABLE t(id INTEGER PRIMARY KEY, v);");
        let url = shell.must(&format!("SELECT logos_publish('{}');", dir.channel()));
        shell.must("SELECT logos_flush(60);");
        fs::write(&flag, full_of).unwrap();
        let mut said = String::new();
        for n in 0..20 {
            shell.must(&format!(
                "INSERT INTO t VALUES ({n}, randomblob(1000)); UPDATE t SET v = 'x' WHERE id = {n} - 1;"
            ));
        }
        wait_until("the status says it", || {
            said = shell.must(ERROR);
            said.len() > 1
        });
        assert!(said.to_lowercase().contains("full") || said.contains("space"), "{full_of}: {said}");
        shell.must("INSERT INTO t VALUES (100, 'meanwhile');");
        fs::remove_file(&flag).unwrap();
        shell.must("INSERT INTO t VALUES (101, 'afterwards'); SELECT logos_flush(60);");
        assert_eq!(shell.must(ERROR).trim(), "", "{full_of}");
        assert!(shell.close().success());
        let primary = open(&dir.file("primary.db"));
        assert_eq!(primary.int("SELECT count(*) FROM t"), 22);
        publish(&primary, &url);
        replicate(&primary, &url, &dir.file("replica.db"));
    }
}

/// No room for anything: statements fail as they would without us, and afterwards all is well.
#[test]
fn a_full_disk_fails_statements_as_without_us_and_loses_nothing() {
    let dir = TempDir::new();
    let (library, flag) = (preload(&dir), dir.file("full"));
    let env = [("LD_PRELOAD", library.as_str()), ("FULL_FLAG", flag.to_str().unwrap())];
    let run = |shell: &mut Shell| {
        fs::write(&flag, dir.path().file_name().unwrap().to_str().unwrap()).unwrap();
        let answer =
            shell.ask("INSERT INTO t VALUES (1, randomblob(100000)); UPDATE t SET v = 1; SELECT count(*) FROM t;");
        fs::remove_file(&flag).unwrap();
        let after_number = |err: &str| err.split_once(": ").map_or(String::new(), |(_, reason)| reason.to_owned());
        (answer.out, after_number(&answer.err))
    };
    let mut plain = Shell::with_env(&dir.file("plain.db"), &env);
    plain.must("PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (0, 0);");
    let expected = run(&mut plain);
    assert!(expected.1.contains("full"), "{expected:?}");
    let mut shell = Shell::with_env(&dir.file("primary.db"), &env);
    shell.must(&format!(".load '{}'", extension().with_extension("").display()));
    shell.must("PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (0, 0);");
    let url = shell.must(&format!("SELECT logos_publish('{}');", dir.channel()));
    shell.must("SELECT logos_flush(60);");
    assert_eq!(run(&mut shell), expected);
    shell.must("INSERT INTO t VALUES (2, 'afterwards'); SELECT logos_flush(60);");
    // It does not leave with success: it was told of an error.
    shell.close();
    let primary = open(&dir.file("primary.db"));
    assert_eq!(primary.text("SELECT group_concat(id) FROM t"), "0,2");
    publish(&primary, &url);
    replicate(&primary, &url, &dir.file("replica.db"));
}

/// What stands in the sidecar's place is no file.
#[test]
fn a_sidecar_that_cannot_be_made_refuses_publishing_only() {
    let dir = TempDir::new();
    let conn = open(&dir.file("primary.db"));
    conn.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    fs::create_dir(sidecar(&dir.file("primary.db"))).unwrap();
    let error = conn.fails(&format!("SELECT logos_publish('{}')", dir.channel()));
    assert!(error.contains("primary.db-logos"), "{error}");
    conn.run("INSERT INTO t VALUES (1, 2)");
    fs::remove_dir(sidecar(&dir.file("primary.db"))).unwrap();
    let url = publish(&conn, &dir.channel());
    let replica = replicate(&conn, &url, &dir.file("replica.db"));
    assert_equal(&conn, &replica);
}

/// A shell of a user who may read the folder but not write to it (this user, unless that is root, who may always).
fn unprivileged(database: &Path, library: &Path, script: &str) -> (String, String) {
    let mut command = Command::new("sqlite3");
    // SAFETY: asks for the user id, which cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(65534).gid(65534);
    }
    let load = format!(".load '{}'", library.display());
    let output =
        command.args(["-batch", "-init", "/dev/null", "-cmd", &load]).arg(database).arg(script).output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    (said(&output.stdout), said(&output.stderr))
}

#[test]
fn a_folder_that_cannot_be_written_refuses_publishing_and_leaves_reading_alone() {
    let dir = TempDir::new();
    let folder = dir.file("readonly");
    fs::create_dir(&folder).unwrap();
    let database = folder.join("primary.db");
    {
        let conn = open(&database);
        conn.run("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'there')");
    }
    let library = dir.file("logos.so");
    fs::copy(extension(), &library).unwrap();
    let library = library.with_extension("");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&database, fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).unwrap();
    let publish = format!("SELECT logos_publish('dir:{}');", dir.path().join("channel").display());
    assert_eq!(unprivileged(&database, &library, "SELECT v FROM t;"), ("there".into(), String::new()));
    let (out, err) = unprivileged(&database, &library, &publish);
    assert!(out.is_empty() && err.contains("logos"), "{out} {err}");
    // What a write says is SQLite's own answer, and nothing has changed.
    let (_, err) = unprivileged(&database, &library, "INSERT INTO t VALUES (2, 'x');");
    assert!(!err.contains("logos"), "{err}");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    assert_eq!(open(&database).text("SELECT group_concat(name) FROM sqlite_schema"), "t");
}
