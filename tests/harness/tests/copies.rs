//! Goal: a copy of a published database works as a database, and never publishes under the original's identity by accident
//! (T24, T34); a database that went back in time is noticed (T3, T35).
//!
//! Method: copies are made as people make them (`.dump`, the backup API, VACUUM INTO, cp with and without the other files),
//! used, published, and compared with the original, which goes on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use harness::files::{extension, sidecar};
use harness::pair::{flush, publish, try_attach};
use harness::rusqlite::backup::Backup;
use harness::{assert_equal, open, replicate, wait_until, Connection, Pair, Shell, Sql, TempDir};

const TABLES: &str = "
    CREATE TABLE i(id INTEGER PRIMARY KEY, v); CREATE TABLE n(a, b); CREATE TABLE k(name TEXT PRIMARY KEY, v UNIQUE);
    INSERT INTO i VALUES (1, 'a'), (2, 'b'); INSERT INTO n VALUES (1, 1), (2, 2); INSERT INTO k VALUES ('x', 1), ('y', 2);";

const WRITES: &str = "INSERT INTO i(v) VALUES ('later'); UPDATE n SET b = b + 1; REPLACE INTO k VALUES ('z', 1); DELETE FROM i WHERE id = 1;";

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// The copy works, publishes on a channel of its own into the same folder, and both it and the original go on.
fn is_a_database_of_its_own(pair: &Pair, copy: &Path) {
    let conn = open(copy);
    conn.run(WRITES);
    assert_eq!(conn.text("PRAGMA integrity_check"), "ok");
    let url = publish(&conn, &pair.dir.channel());
    assert_ne!(url, pair.url);
    replicate(&conn, &url, &suffixed(copy, "-replica"));
    conn.run("INSERT INTO n VALUES (7, 7)");
    replicate(&conn, &url, &suffixed(copy, "-replica"));
    pair.run(WRITES);
    pair.check();
    assert_eq!(pair.primary.int("SELECT count(*) FROM n WHERE a = 7"), 0);
}

#[test]
fn a_dump_piped_into_a_new_file_is_a_database_of_its_own() {
    let mut pair = Pair::of(TABLES);
    pair.check();
    pair.run(WRITES);
    let dump = Shell::run(&pair.primary_path(), ".dump");
    assert_eq!(dump.err, "");
    let copy = pair.dir.file("copy.db");
    assert_eq!(Shell::run(&copy, &dump.out).err, "");
    is_a_database_of_its_own(&pair, &copy);
    pair.check_fresh();
}

#[test]
fn a_dump_of_a_replica_is_not_taken_for_a_replica_that_can_be_written() {
    let pair = Pair::of(TABLES);
    pair.check();
    let dump = Shell::run(&pair.replica_path(), ".dump");
    let copy = pair.dir.file("copy.db");
    Shell::run(&copy, &dump.out);
    // The guards came along after the rows, and so did the position: the copy follows on.
    pair.run("INSERT INTO i(v) VALUES ('later'); DELETE FROM i WHERE id = 1; REPLACE INTO k VALUES ('z', 1)");
    replicate(&pair.primary, &pair.url, &copy);
    assert!(open(&copy).fails("DELETE FROM k").contains("read-only replica"));
    // A dump says nothing of the numbers of rows without a key.
    pair.run("UPDATE n SET b = b + 1");
    flush(&pair.primary);
    let error = try_attach(&open(&copy), &pair.url, None).unwrap_err().to_string();
    assert!(error.contains("read from a dump"), "{error}");
}

#[test]
fn a_backup_by_the_api_is_a_database_of_its_own() {
    let pair = Pair::of(TABLES);
    pair.check();
    let copy = pair.dir.file("copy.db");
    {
        let mut target = Connection::open(&copy).unwrap();
        let backup = Backup::new(&pair.primary, &mut target).unwrap();
        backup.run_to_completion(1, std::time::Duration::ZERO, None).unwrap();
    }
    is_a_database_of_its_own(&pair, &copy);
}

/// Replicas would have refused each further message: their text cannot be encoded anew.
#[test]
fn a_database_in_another_text_encoding_that_is_copied_over_the_published_one_is_not_published() {
    let mut pair = Pair::of(TABLES);
    pair.check();
    let copy_over = |from: &Connection, to: &mut Connection| {
        Backup::new(from, to).unwrap().run_to_completion(100, std::time::Duration::ZERO, None).unwrap();
    };
    let mut former = Connection::open(pair.dir.file("former.db")).unwrap();
    copy_over(&pair.primary, &mut former);
    let other = Connection::open(pair.dir.file("other.db")).unwrap();
    other.run("PRAGMA encoding = 'UTF-16le'; CREATE TABLE other(x); INSERT INTO other VALUES ('x')");
    copy_over(&other, &mut pair.primary);
    let error = pair.primary.fails("SELECT logos_flush(20)");
    assert!(error.contains("its text is UTF-16le, the channel's is UTF-8"), "{error}");
    assert_eq!(open(&pair.primary_path()).text("SELECT x FROM other"), "x");
    copy_over(&former, &mut pair.primary);
    pair.run(WRITES);
    pair.check();
}

#[test]
fn vacuum_into_makes_a_database_of_its_own() {
    let pair = Pair::of(TABLES);
    pair.check();
    let copy = pair.dir.file("copy.db");
    pair.run(&format!("VACUUM INTO '{}'", copy.display()));
    is_a_database_of_its_own(&pair, &copy);
}

#[test]
fn a_file_copied_without_its_sidecar_is_a_database_of_its_own() {
    for with_wal in [true, false] {
        let pair = Pair::of(TABLES);
        pair.check();
        pair.run(WRITES);
        flush(&pair.primary);
        if !with_wal {
            pair.run("PRAGMA wal_checkpoint(TRUNCATE)");
        }
        let copy = pair.dir.file("copy.db");
        fs::copy(pair.primary_path(), &copy).unwrap();
        if with_wal {
            fs::copy(suffixed(&pair.primary_path(), "-wal"), suffixed(&copy, "-wal")).unwrap();
        }
        is_a_database_of_its_own(&pair, &copy);
    }
}

/// Copies a database at rest with its sidecar, and the write-ahead logs of both where there are any.
fn copy_all(from: &Path, to: &Path) {
    for suffix in ["", "-wal", "-logos", "-logos-wal"] {
        if suffixed(from, suffix).exists() {
            fs::copy(suffixed(from, suffix), suffixed(to, suffix)).unwrap();
        }
    }
}

#[test]
fn a_file_copied_with_its_sidecar_works_but_does_not_publish_as_the_original() {
    for running in [true, false] {
        let pair = Pair::of(TABLES);
        pair.check();
        if !running {
            pair.run("SELECT logos_stop()");
        }
        let copy = pair.dir.file("copy.db");
        copy_all(&pair.primary_path(), &copy);
        let conn = open(&copy);
        conn.run(WRITES);
        let entries = || harness::files::entries(&pair.url).len();
        let before = entries();
        for channel in [pair.dir.channel(), pair.url.clone()] {
            let error = conn.fails(&format!("SELECT logos_publish('{channel}')"));
            assert!(error.contains("copy") && error.contains("moved"), "{error}");
        }
        assert_eq!(entries(), before);
        fs::remove_file(sidecar(&copy)).unwrap();
        let _ = fs::remove_file(suffixed(&copy, "-logos-wal"));
        let url = publish(&conn, &pair.dir.channel());
        assert_ne!(url, pair.url);
        replicate(&conn, &url, &pair.dir.file("copy-replica.db"));
        publish(&pair.primary, &pair.url);
        pair.check();
    }
}

#[test]
fn a_database_that_was_moved_goes_on_when_that_is_said() {
    let pair = Pair::of(TABLES);
    pair.check();
    pair.run("SELECT logos_stop()");
    let Pair { primary, url, dir, .. } = pair;
    primary.close().unwrap();
    let folder = dir.file("elsewhere");
    fs::create_dir(&folder).unwrap();
    let moved = folder.join("new name.db");
    copy_all(&dir.file("primary.db"), &moved);
    fs::remove_file(dir.file("primary.db")).unwrap();
    let conn = open(&moved);
    conn.fails(&format!("SELECT logos_publish('{url}')"));
    assert_eq!(conn.text(&format!("SELECT logos_publish('{url}', '{{\"moved\":true}}')")), url);
    conn.run(WRITES);
    replicate(&conn, &url, &dir.file("replica.db"));
    conn.run("SELECT logos_stop()");
    // Said once, it is at home here.
    assert_eq!(publish(&conn, &url), url);
}

/// An older copy of the file in the original's place, the sidecar kept: the log ends before what was published.
#[test]
fn a_primary_restored_from_an_older_copy_is_noticed_and_publishes_nothing() {
    for written_since in [0, 1, 200] {
        let dir = TempDir::new();
        let path = dir.file("primary.db");
        let old = dir.file("old.db");
        let url;
        {
            let primary = open(&path);
            primary.run(TABLES);
            url = publish(&primary, &dir.channel());
            replicate(&primary, &url, &dir.file("replica.db"));
            primary.run(&format!("VACUUM INTO '{}'", old.display()));
            for _ in 0..20 {
                primary.run(WRITES);
            }
            replicate(&primary, &url, &dir.file("replica.db"));
            primary.run("SELECT logos_stop()");
        }
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(suffixed(&path, suffix));
        }
        fs::copy(&old, &path).unwrap();
        let entries = harness::files::entries(&url).len();
        for _ in 0..written_since {
            let answer = Shell::run(&path, "INSERT INTO i(v) VALUES ('after the restore');");
            assert_eq!(answer.err, "");
        }
        let primary = open(&path);
        let answer = primary.try_texts(&format!("SELECT logos_publish('{url}')"));
        let said = match answer {
            Err(error) => error.to_string(),
            Ok(_) => {
                let said = || {
                    primary.text(
                        "SELECT coalesce(error, '') || coalesce(hint, '') FROM logos_status WHERE role = 'primary'",
                    )
                };
                wait_until("the status says that it went back", || said().contains("went back in time"));
                said()
            }
        };
        assert!(said.contains("went back in time"), "{said}");
        assert_eq!(harness::files::entries(&url).len(), entries, "something was published");
        // The application goes on, and the replica keeps the newer state.
        primary.run(WRITES);
        let replica = open(&dir.file("replica.db"));
        assert!(try_attach(&replica, &url, None).unwrap().is_empty());
        if written_since == 1 {
            // One way out that the hint names: this state is the right one, on the same channel.
            assert!(said.contains("SELECT logos_resync()"), "{said}");
            resumes(&primary, &url, &dir);
            continue;
        }
        // The other: a new channel.
        assert!(said.contains("SELECT logos_remove()"), "{said}");
        primary.run("SELECT logos_remove()");
        let new = publish(&primary, &dir.channel());
        assert_ne!(new, url);
        let fresh = replicate(&primary, &new, &dir.file("fresh.db"));
        assert_equal(&primary, &fresh);
    }
}

/// Database and sidecar both restored: the channel is ahead of them, and says so.
#[test]
fn a_primary_restored_together_with_its_sidecar_finds_the_channel_ahead() {
    let dir = TempDir::new();
    let (path, old) = (dir.file("primary.db"), dir.file("old.db"));
    let url;
    {
        let primary = open(&path);
        primary.run(TABLES);
        url = publish(&primary, &dir.channel());
        flush(&primary);
        primary.run("SELECT logos_stop()");
    }
    copy_all(&path, &old);
    {
        let primary = open(&path);
        publish(&primary, &url);
        primary.run(WRITES);
        flush(&primary);
        primary.run("SELECT logos_stop()");
    }
    for suffix in ["-wal", "-shm", "-logos-wal", "-logos-shm"] {
        let _ = fs::remove_file(suffixed(&path, suffix));
    }
    copy_all(&old, &path);
    let entries = harness::files::entries(&url);
    let primary = open(&path);
    primary.run("INSERT INTO i(v) VALUES ('on the older state')");
    let answer = primary.try_texts(&format!("SELECT logos_publish('{url}')"));
    if answer.is_ok() {
        let state = || primary.text("SELECT state FROM logos_status WHERE role = 'primary'");
        wait_until("the status refuses", || state() == "refused" || state() == "stopped");
        let said =
            primary.text("SELECT coalesce(error, '') || coalesce(hint, '') FROM logos_status WHERE role = 'primary'");
        assert!(said.contains("channel"), "{said}");
    }
    assert_eq!(harness::files::entries(&url), entries, "something was published");
    resumes(&primary, &url, &dir);
}

/// One command resumes on the channel as it is, with a full comparison: the replica goes on from what only the channel has.
fn resumes(primary: &Connection, url: &str, dir: &TempDir) {
    let replica = open(&dir.file("follower.db"));
    try_attach(&replica, url, None).unwrap();
    let newest = harness::files::entries(url).len();
    assert_ne!(harness::dump(primary), harness::dump(&replica));
    let said = primary.text("SELECT logos_resync()");
    assert!(said.contains(" of 3 tables differ from the channel and are sent: "), "{said}");
    replicate(primary, url, &dir.file("follower.db"));
    replicate(primary, url, &dir.file("from-the-beginning.db"));
    assert_eq!(harness::messages(primary).len(), harness::files::entries(url).len());
    assert!(harness::files::entries(url).len() > newest);
    primary.run(WRITES);
    replicate(primary, url, &dir.file("follower.db"));
    let said = primary.text("SELECT logos_resync()");
    assert!(said.contains("all 3 tables are as the channel has them"), "{said}");
    primary.run("CREATE TABLE later(a); INSERT INTO later VALUES (1)");
    replicate(primary, url, &dir.file("follower.db"));
    primary.run("SELECT logos_stop()");
}

#[test]
fn a_restored_primary_is_noticed_even_where_the_same_keys_were_given_out_again() {
    let dir = TempDir::new();
    let (path, old) = (dir.file("primary.db"), dir.file("old.db"));
    let insert = |conn: &Connection, what: &str, count: u32| {
        (0..count).for_each(|_| conn.run(&format!("INSERT INTO i(v) VALUES ('{what}')")));
    };
    let url = {
        let primary = open(&path);
        primary.run("CREATE TABLE i(id INTEGER PRIMARY KEY, v)");
        let url = publish(&primary, &dir.channel());
        insert(&primary, "before the backup", 5);
        flush(&primary);
        primary.run("SELECT logos_stop()");
        primary.run(&format!("VACUUM INTO '{}'", old.display()));
        publish(&primary, &url);
        insert(&primary, "lost by the restore", 20);
        flush(&primary);
        primary.run("SELECT logos_stop()");
        url
    };
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(suffixed(&path, suffix));
    }
    fs::copy(&old, &path).unwrap();
    let entries = harness::files::entries(&url).len();
    let script = "INSERT INTO i(v) VALUES ('after the restore');".repeat(30);
    assert_eq!(Shell::run(&path, &script).err, "");
    let primary = open(&path);
    publish(&primary, &url);
    let said = || primary.text("SELECT coalesce(error, '') FROM logos_status WHERE role = 'primary'");
    wait_until("the status says that it went back", || said().contains("went back in time"));
    assert_eq!(harness::files::entries(&url).len(), entries, "something was published");
    assert!(primary.text("SELECT logos_resync()").contains("1 of 1 tables differ"));
    replicate(&primary, &url, &dir.file("replica.db"));
}

#[test]
fn a_channel_that_was_moved_or_has_another_name_goes_on() {
    let mut pair = Pair::of(TABLES);
    pair.check();
    pair.run("SELECT logos_stop()");
    let folder = pair.dir.channel_folder();
    let moved = pair.dir.file("moved to here");
    let refused = pair.primary.fails(&format!("SELECT logos_publish('dir:{}')", moved.display()));
    assert!(refused.contains("does not have what was sent there") && refused.contains("move it"), "{refused}");
    fs::rename(&folder, &moved).unwrap();
    pair.url = publish(&pair.primary, &format!("dir:{}", moved.display()));
    pair.run(WRITES);
    pair.check_fresh();
    pair.run("SELECT logos_stop()");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&moved, &folder).unwrap();
        pair.url = publish(&pair.primary, &pair.dir.channel());
        pair.run("INSERT INTO i(v) VALUES ('by the link')");
        pair.check_fresh();
    }
}

#[test]
fn a_channel_to_which_nothing_could_be_sent_can_be_changed() {
    let dir = TempDir::new();
    let file = dir.file("a file");
    fs::write(&file, "in the way").unwrap();
    let primary = open(&dir.file("primary.db"));
    primary.run(TABLES);
    publish(&primary, &format!("dir:{}", file.display()));
    primary.fails("SELECT logos_flush(1)");
    primary.run("SELECT logos_stop()");
    let url = publish(&primary, &dir.channel());
    replicate(&primary, &url, &dir.file("replica.db"));
}

#[test]
fn a_vacuumed_replica_stops_where_rows_are_known_by_number_alone() {
    let pair =
        Pair::of("CREATE TABLE t(v); INSERT INTO t VALUES ('a'), ('b'), ('c'), ('d'); DELETE FROM t WHERE v = 'a'");
    pair.check();
    assert_eq!(Shell::run(&pair.replica_path(), "VACUUM").err, "");
    pair.run("UPDATE t SET v = 'B' WHERE v = 'b'; DELETE FROM t WHERE v = 'd'");
    flush(&pair.primary);
    let replica = open(&pair.replica_path());
    let error = try_attach(&replica, &pair.url, None).unwrap_err().to_string();
    assert!(error.contains("vacuumed") && error.contains("attach a new file"), "{error}");
    assert_eq!(replica.text("SELECT group_concat(v) FROM t"), "b,c,d");
    // Rows with a key of their own are known by it.
    let keyed = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (5, 'a'), (9, 'b')");
    keyed.check();
    assert_eq!(Shell::run(&keyed.replica_path(), "VACUUM").err, "");
    keyed.run("UPDATE t SET v = 'B' WHERE id = 9; CREATE TABLE n(v); INSERT INTO n VALUES (1)");
    keyed.check();
    keyed.run("UPDATE n SET v = 2");
    keyed.check();
}

#[test]
fn resync_is_for_a_published_primary_outside_a_transaction_and_says_so() {
    let pair = Pair::of(TABLES);
    let replica = pair.check();
    assert!(replica.fails("SELECT logos_resync()").contains("is a replica of"));
    pair.run("BEGIN");
    assert!(pair.primary.fails("SELECT logos_resync()").contains("inside a transaction"));
    pair.run("COMMIT; SELECT logos_stop()");
    assert!(pair.primary.fails("SELECT logos_resync()").contains("logos_publish"));
    publish(&pair.primary, &pair.url);
    pair.check();
}

#[test]
fn what_resync_cannot_read_leaves_everything_as_it_was() {
    let mut pair = Pair::of(TABLES);
    pair.check();
    let folder = PathBuf::from(pair.url.strip_prefix("dir:").unwrap());
    let aside = suffixed(&folder, "-aside");
    fs::rename(&folder, &aside).unwrap();
    pair.run(WRITES);
    assert!(pair.primary.fails("SELECT logos_resync()").contains("is not there"));
    fs::rename(&aside, &folder).unwrap();
    pair.check();
    pair.check_fresh();
}

#[test]
fn what_a_killed_resync_left_is_removed_by_the_next_one_and_what_is_in_use_is_not() {
    let dir = TempDir::new();
    let temporary = dir.file("tmp");
    fs::create_dir(&temporary).unwrap();
    let resyncing = || {
        let mut shell = Shell::with_env(&dir.file("primary.db"), &[("TMPDIR", temporary.to_str().unwrap())]);
        shell.must(&format!(".load '{}'", extension().with_extension("").display()));
        let url = shell.must(&format!("SELECT logos_publish('{}');", dir.channel()));
        (shell, url)
    };
    let left = || -> Vec<PathBuf> { fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path()).collect() };
    let (mut shell, url) = resyncing();
    shell.must(
        "CREATE TABLE t(v); WITH c(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM c LIMIT 30)
         INSERT INTO t SELECT randomblob(999999) FROM c; SELECT logos_flush(60);",
    );
    // Until a kill comes in the midst of it.
    while left().is_empty() {
        shell.send("SELECT logos_resync();");
        wait_until("it has begun", || !left().is_empty());
        shell.kill();
        shell = resyncing().0;
    }
    let [killed] = left().try_into().unwrap();
    let used = temporary.join(format!("logos-resync-{}-used", &url[url.len() - 64..][..16]));
    let other = temporary.join(format!("logos-resync-{}-other", "0".repeat(16)));
    fs::create_dir(&used).unwrap();
    fs::create_dir(&other).unwrap();
    let lock = fs::File::open(&used).unwrap();
    lock.lock().unwrap();
    shell.must("SELECT logos_resync();");
    assert!(!killed.exists());
    assert!(used.exists() && other.exists());
}
