//! Goal: nothing is published before it is durable on the primary, and nothing is sent before the exact bytes to send
//! are durable in the sidecar (I6). An answer of `logos_flush` means that the channel's folder is synced too.
//!
//! Method: a stock shell runs under a small preloaded library that writes down every write and sync with its file.
//! Whenever a byte of an entry is written, everything written before to the database's and the sidecar's files must
//! have been synced. The application itself syncs nothing at commit (WAL with synchronous NORMAL).
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use harness::files::extension;
use harness::{Shell, TempDir};

fn preload(dir: &TempDir) -> String {
    let (source, library) = (dir.file("watch.c"), dir.file("watch.so"));
    std::fs::write(&source, include_str!("durable/watch.c")).unwrap();
    let cc = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    assert!(cc.expect("a C compiler (run `make setup`)").success());
    library.to_str().unwrap().to_owned()
}

struct Event {
    write: bool,
    path: String,
}

fn events(log: &Path) -> Vec<Event> {
    let text = std::fs::read_to_string(log).unwrap();
    text.lines().map(|line| Event { write: line.starts_with('w'), path: line[2..].to_owned() }).collect()
}

#[test]
fn nothing_reaches_the_channel_before_it_is_durable_on_the_primary_and_in_the_sidecar() {
    let dir = TempDir::new();
    let (library, log) = (preload(&dir), dir.file("events"));
    let database = dir.file("primary.db");
    let mut shell = Shell::with_env(&database, &[("LD_PRELOAD", &library), ("WATCH_LOG", log.to_str().unwrap())]);
    shell.must(&format!(".load '{}'", extension().with_extension("").display()));
    shell.must("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v);");
    shell.must(&format!("SELECT logos_publish('{}');", dir.channel()));
    shell.must("SELECT logos_flush(60);");
    for n in 0..20 {
        // One commit, one message: nothing else is written while its entry is.
        shell.must(&format!("BEGIN; INSERT INTO t VALUES ({n}, 'row'); UPDATE t SET v = '.' WHERE id < {n}; COMMIT;"));
        shell.must("SELECT logos_flush(60);");
    }
    assert!(shell.close().success());

    let (database, channel) = (database.to_str().unwrap().to_owned(), dir.channel_folder());
    let channel = channel.to_str().unwrap();
    let mut unsynced: BTreeSet<String> = BTreeSet::new();
    let (mut entry_writes, mut wal_syncs) = (0, 0);
    for event in events(&log) {
        if event.path.starts_with(channel) {
            if event.write {
                entry_writes += 1;
                assert!(unsynced.is_empty(), "an entry is written while {unsynced:?} may still be lost");
            }
        } else if event.path.starts_with(&database) && !event.path.ends_with("-shm") {
            if event.write {
                unsynced.insert(event.path);
            } else {
                wal_syncs += usize::from(event.path == format!("{database}-wal"));
                unsynced.remove(&event.path);
            }
        }
    }
    assert!(entry_writes >= 20 && wal_syncs >= 20, "{entry_writes} writes of entries, {wal_syncs} syncs of the WAL");
}

#[test]
fn a_flush_answers_only_when_the_entry_and_its_folder_are_synced() {
    let dir = TempDir::new();
    let (library, log) = (preload(&dir), dir.file("events"));
    let mut shell =
        Shell::with_env(&dir.file("primary.db"), &[("LD_PRELOAD", &library), ("WATCH_LOG", log.to_str().unwrap())]);
    shell.must(&format!(".load '{}'", extension().with_extension("").display()));
    shell.must("CREATE TABLE t(id INTEGER PRIMARY KEY, v);");
    shell.must(&format!("SELECT logos_publish('{}');", dir.channel()));
    shell.must("SELECT logos_flush(60);");
    for n in 0..5 {
        let before = events(&log).len();
        shell.must(&format!("INSERT INTO t VALUES ({n}, 'row'); SELECT logos_flush(60);"));
        let folder = dir.channel_folder();
        let seen: Vec<Event> = events(&log).into_iter().skip(before).collect();
        let of_channel: Vec<&Event> = seen.iter().filter(|event| Path::new(&event.path).starts_with(&folder)).collect();
        let last_write = of_channel.iter().rposition(|event| event.write).expect("an entry was written");
        let written = &of_channel[last_write].path;
        let after = &of_channel[last_write + 1..];
        let synced =
            after.iter().position(|event| !event.write && &event.path == written).expect("the entry is synced");
        let parent = Path::new(written).parent().unwrap();
        assert!(
            after[synced + 1..].iter().any(|event| !event.write && Path::new(&event.path) == parent),
            "the folder is not synced after its new entry"
        );
    }
}
