//! Goal: a channel's folder is only a folder. Sync tools, neighbours, full disks and simple file systems put anything into it;
//! what the author has not signed is waited for, by name, on both sides, and nobody ever has to attach or publish again
//! (issue 8, point 11).
//!
//! Method: things are put in the place of the next entry, or entries arrive in pieces, and the status is read as an application
//! would read it. Machines that lack something are made by a small preloaded library.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::files::{entries, extension, sidecar};
use harness::pair::{attach, flush, publish, try_attach};
use harness::{assert_equal, open, status_of, wait_until, Connection, Pair, Shell, Sql, Status, TempDir};

const TABLE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one');";
const FOLLOW: Option<&str> = Some(r#"{"follow":true}"#);

/// Something that has a place which it should not have.
type Put = fn(&Path);

const JUNK: [(&str, Put); 9] = [
    ("an empty file", |path| fs::write(path, "").unwrap()),
    ("zeros", |path| fs::write(path, [0; 400]).unwrap()),
    ("text", |path| fs::write(path, "somebody else's").unwrap()),
    ("a file larger than any entry", |path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap()),
    ("a folder", |path| fs::create_dir(path).unwrap()),
    ("a FIFO", |path| {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a path that ends in NUL.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    }),
    ("a link to an endless device", |path| symlink("/dev/zero", path).unwrap()),
    ("a link to itself", |path| symlink(path, path).unwrap()),
    ("a link to nothing", |path| symlink("nothing", path).unwrap()),
];

fn remove(path: &Path) {
    fs::remove_file(path).or_else(|_| fs::remove_dir(path)).unwrap();
}

/// A copy of the channel's folder that a sync tool fills, and a replica that follows it.
struct Synced {
    pair: Pair,
    folder: PathBuf,
    replica: Connection,
    path: PathBuf,
}

impl Synced {
    fn new() -> Self {
        let pair = Pair::of(TABLE);
        flush(&pair.primary);
        let folder = pair.dir.file("copy").join(entries(&pair.url)[0].parent().unwrap().file_name().unwrap());
        let path = pair.dir.file("follower.db");
        fs::create_dir_all(&folder).unwrap();
        let synced = Self { replica: open(&path), pair, folder, path };
        for file in synced.missing() {
            fs::copy(&file, synced.place(&file)).unwrap();
        }
        synced
    }

    fn place(&self, file: &Path) -> PathBuf {
        self.folder.join(file.file_name().unwrap())
    }

    /// Entries that the copy does not have.
    fn missing(&self) -> Vec<PathBuf> {
        entries(&self.pair.url).into_iter().filter(|file| self.place(file).symlink_metadata().is_err()).collect()
    }

    fn follow(&self) {
        try_attach(&self.replica, &format!("dir:{}", self.folder.display()), FOLLOW).unwrap();
    }

    /// One message more on the channel; its entry, which the copy lacks.
    fn next(&self) -> PathBuf {
        self.pair.run("INSERT INTO t(v) VALUES (hex(randomblob(100)))");
        flush(&self.pair.primary);
        self.missing().remove(0)
    }

    fn waits(&self, what: &str, named: &Path) -> Status {
        let name = named.file_name().unwrap().to_str().unwrap();
        let mut row = None;
        wait_until(&format!("{what}: it is waited for"), || {
            row = status_of(&self.replica, &self.path);
            row.as_ref()
                .is_some_and(|row| row.state == "waiting" && row.error.as_ref().is_some_and(|e| e.contains(name)))
        });
        row.unwrap()
    }

    fn goes_on(&self, what: &str) {
        let position = self.pair.primary.text("SELECT logos_position()");
        let mut row = None;
        wait_until(&format!("{what}: it goes on"), || {
            row = status_of(&self.replica, &self.path);
            row.as_ref().is_some_and(|row| row.position.as_ref() == Some(&position))
        });
        let row = row.unwrap();
        assert_eq!((row.state.as_str(), row.error), ("following", None), "{what}");
        assert_equal(&self.pair.primary, &self.replica);
    }
}

#[test]
fn a_publisher_waits_for_whatever_is_in_the_place_of_its_next_entry_and_goes_on_when_it_is_gone() {
    let pair = Pair::of(TABLE);
    for (n, (what, put)) in (10..).zip(JUNK) {
        flush(&pair.primary);
        let files = entries(&pair.url);
        let next = files[0].with_file_name(format!("{:016x}.entry", files.len()));
        put(&next);
        pair.run(&format!("INSERT INTO t VALUES ({n}, 'row')"));
        let row = || status_of(&pair.primary, &pair.primary_path()).unwrap();
        wait_until(&format!("{what}: it is waited for"), || row().state == "waiting");
        assert!(row().error.unwrap().contains(next.file_name().unwrap().to_str().unwrap()), "{what}: {:?}", row());
        let flush = pair.primary.fails("SELECT logos_flush(0.1)");
        assert!(!flush.contains("another writer"), "{what}: {flush}");
        assert!(next.symlink_metadata().is_ok(), "{what} was removed");
        remove(&next);
        pair.check();
        assert_eq!(row().state, "healthy", "{what}");
    }
}

#[test]
fn a_follower_waits_for_whatever_is_in_an_entrys_place_and_goes_on_when_it_comes() {
    let synced = Synced::new();
    synced.follow();
    for (what, put) in JUNK {
        let file = synced.next();
        let place = synced.place(&file);
        put(&place);
        if what != "a link to nothing" {
            synced.waits(what, &place);
        }
        remove(&place);
        fs::copy(&file, &place).unwrap();
        synced.goes_on(what);
    }
}

#[test]
fn an_entry_that_arrives_in_pieces_is_applied_when_it_is_whole() {
    let synced = Synced::new();
    synced.follow();
    for tenths in 0..10 {
        for preallocated in [false, true] {
            let file = synced.next();
            let (place, whole) = (synced.place(&file), fs::read(&file).unwrap());
            let (mut part, what) = (whole.clone(), format!("{tenths} tenths, preallocated: {preallocated}"));
            part.truncate(whole.len() * tenths / 10);
            part.resize(if preallocated { whole.len() } else { part.len() }, 0);
            fs::write(&place, part).unwrap();
            let row = synced.waits(&what, &place);
            assert!(!row.hint.unwrap().contains("two histories"), "{what}");
            fs::write(&place, whole).unwrap();
            synced.goes_on(&what);
        }
    }
}

#[test]
fn an_older_entry_in_the_place_of_the_next_ends_neither_publisher_nor_follower() {
    let synced = Synced::new();
    synced.follow();
    for _ in 0..4 {
        let file = synced.next();
        fs::copy(&file, synced.place(&file)).unwrap();
    }
    synced.goes_on("four messages");
    let files = entries(&synced.pair.url);
    for other in [0, 2, files.len() - 1] {
        let place = synced.place(&files[0]).with_file_name(format!("{:016x}.entry", entries(&synced.pair.url).len()));
        fs::copy(&files[other], &place).unwrap();
        synced.waits(&format!("entry {other} copied"), &place);
        let ours = files[0].with_file_name(place.file_name().unwrap());
        fs::copy(&files[other], &ours).unwrap();
        synced.pair.run("INSERT INTO t(v) VALUES ('more')");
        let row = || status_of(&synced.pair.primary, &synced.pair.primary_path()).unwrap();
        wait_until("the publisher waits", || row().state == "waiting");
        remove(&ours);
        flush(&synced.pair.primary);
        fs::copy(&ours, &place).unwrap();
        synced.goes_on(&format!("entry {other} replaced"));
    }
}

#[test]
fn another_history_that_the_author_signed_ends_following() {
    let synced = Synced::new();
    synced.follow();
    synced.goes_on("the beginning");
    // The database and its key are copied, and both go on: one into the folder, the copy into another.
    synced.pair.run("SELECT logos_stop()");
    let (primary, fork) = (synced.pair.primary_path(), synced.pair.dir.file("fork.db"));
    synced.pair.run("PRAGMA wal_checkpoint(TRUNCATE)");
    fs::copy(&primary, &fork).unwrap();
    fs::copy(sidecar(&primary), sidecar(&fork)).unwrap();
    let folder = synced.pair.dir.file("fork");
    let forked = folder.join(synced.folder.file_name().unwrap());
    fs::create_dir_all(&forked).unwrap();
    for file in entries(&synced.pair.url) {
        fs::copy(&file, forked.join(file.file_name().unwrap())).unwrap();
    }
    publish(&synced.pair.primary, &synced.pair.url);
    let first = synced.next();
    fs::copy(&first, synced.place(&first)).unwrap();
    synced.goes_on("an entry of the one");
    let mut copy = Shell::open_with_logos(&fork);
    copy.must(&format!("SELECT logos_publish('dir:{}', '{{\"moved\": true}}');", folder.display()));
    for n in 0..2 {
        copy.must(&format!("INSERT INTO t(v) VALUES ('fork {n}'); SELECT logos_flush(60);"));
    }
    let second = entries(&format!("dir:{}", forked.display())).pop().unwrap();
    fs::copy(&second, synced.place(&second)).unwrap();
    wait_until("it ends", || status_of(&synced.replica, &synced.path).is_some_and(|row| row.state == "refused"));
    let row = status_of(&synced.replica, &synced.path).unwrap();
    assert!(row.hint.unwrap().contains("two histories"), "{:?}", row.error);
}

#[test]
fn following_begins_although_the_first_entry_is_only_half_there() {
    let synced = Synced::new();
    let first = entries(&synced.pair.url)[0].clone();
    let whole = fs::read(&first).unwrap();
    fs::write(synced.place(&first), &whole[..whole.len() / 2]).unwrap();
    let error = try_attach(&synced.replica, &format!("dir:{}", synced.folder.display()), None).unwrap_err();
    assert!(error.to_string().contains("not there yet, or damaged"), "{error}");
    synced.follow();
    synced.waits("half an entry", &first);
    fs::write(synced.place(&first), whole).unwrap();
    synced.goes_on("the other half");
}

#[test]
fn what_was_sent_and_is_damaged_afterwards_is_named_and_nothing_is_sent_after_it() {
    let pair = Pair::of(TABLE);
    flush(&pair.primary);
    let last = entries(&pair.url).pop().unwrap();
    let whole = fs::read(&last).unwrap();
    fs::write(&last, &whole[..whole.len() - 1]).unwrap();
    pair.run("INSERT INTO t VALUES (2, 'two')");
    let row = || status_of(&pair.primary, &pair.primary_path()).unwrap();
    wait_until("it is waited for", || row().state == "waiting");
    assert!(row().error.unwrap().contains("is damaged now"), "{:?}", row());
    assert_eq!(entries(&pair.url).last(), Some(&last));
    fs::write(&last, whole).unwrap();
    pair.check();
}

#[test]
fn several_databases_share_a_folder_and_what_sync_tools_leave_there_is_ignored() {
    let pair = Pair::of(TABLE);
    let other = open(&pair.dir.file("other.db"));
    other.run("CREATE TABLE u(x); INSERT INTO u VALUES ('other')");
    flush(&pair.primary);
    let replica = open(&pair.dir.file("r.db"));
    let id = &pair.url[pair.url.len() - 64..];
    let upper = id.to_uppercase();
    for name in [".stfolder", &format!("{id}.sync-conflict-20260101-000000-ABCDEFG"), &upper, &format!("{id}~")] {
        fs::create_dir(pair.dir.channel_folder().join(name)).unwrap();
    }
    fs::write(pair.dir.channel_folder().join("ab".repeat(32)), "a file").unwrap();
    for name in [".syncthing.000000000000000a.entry.tmp", "000000000000000A.entry", "0000000000000000.entry~"] {
        fs::write(pair.dir.channel_folder().join(id).join(name), "half").unwrap();
    }
    let next = entries(&pair.url).iter().filter(|file| file.to_str().unwrap().contains("/000000")).count();
    let conflict = format!("{next:016x}.sync-conflict-20260101-000000-ABCDEFG.entry");
    fs::write(pair.dir.channel_folder().join(id).join(conflict), "theirs").unwrap();
    attach(&replica, &pair.dir.channel());
    let second = publish(&other, &pair.dir.channel());
    flush(&other);
    assert_ne!(second, pair.url);
    let error = try_attach(&open(&pair.dir.file("any.db")), &pair.dir.channel(), None).unwrap_err().to_string();
    assert!(error.contains("2 channels") && error.contains(&pair.url) && error.contains(&second), "{error}");
    pair.check();
    let replica = open(&pair.dir.file("second.db"));
    attach(&replica, &second);
    assert_equal(&other, &replica);
}

#[test]
fn a_replica_goes_on_with_its_own_channel_when_others_come_into_the_folder_and_it_is_not_named() {
    let pair = Pair::of(TABLE);
    flush(&pair.primary);
    let replica = open(&pair.replica_path());
    attach(&replica, &pair.dir.channel());
    let other = open(&pair.dir.file("other.db"));
    other.run("CREATE TABLE u(x)");
    publish(&other, &pair.dir.channel());
    flush(&other);
    pair.run("INSERT INTO t VALUES (2, 'two')");
    flush(&pair.primary);
    assert_eq!(try_attach(&replica, &pair.dir.channel(), FOLLOW).unwrap().len(), 1);
    assert_equal(&pair.primary, &replica);
    assert_eq!(status_of(&replica, &pair.replica_path()).unwrap().channel, pair.url);
    // Nor with the only one that is there, if that is another.
    replica.run("SELECT logos_stop()");
    let folder = Path::new(pair.url.strip_prefix("dir:").unwrap());
    let away = pair.dir.file("away");
    fs::rename(folder, &away).unwrap();
    let error = try_attach(&replica, &pair.dir.channel(), None).unwrap_err().to_string();
    assert!(error.contains("is not there") && error.contains(folder.to_str().unwrap()), "{error}");
    fs::rename(&away, folder).unwrap();
    attach(&replica, &pair.dir.channel());
}

fn preload(dir: &TempDir) -> String {
    let (source, library) = (dir.file("lacks.c"), dir.file("lacks.so"));
    fs::write(&source, include_str!("folder/lacks.c")).unwrap();
    let cc = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    assert!(cc.expect("a C compiler (run `make setup`)").success());
    library.to_str().unwrap().to_owned()
}

/// A shell on a machine that lacks something, with the extension loaded.
fn shell(dir: &TempDir, database: &str, lacks: &str) -> Shell {
    let (library, flag) = (preload(dir), dir.file("flag"));
    let env = [("LD_PRELOAD", library.as_str()), ("LACKS", lacks), ("LACKS_FLAG", flag.to_str().unwrap())];
    let mut shell = Shell::with_env(&dir.file(database), &env);
    shell.must(&format!(".load '{}'", extension().with_extension("").display()));
    shell
}

/// What a shell on such a machine publishes arrives.
fn arrives_from_a_machine_that_lacks(lacks: &str) {
    let dir = TempDir::new();
    let mut primary = shell(&dir, "primary.db", lacks);
    primary.must(TABLE);
    let url = primary.must(&format!("SELECT logos_publish('{}');", dir.channel()));
    let mut position = String::new();
    for n in 2..6 {
        position = primary.must(&format!("INSERT INTO t VALUES ({n}, randomblob(2000)); SELECT logos_flush(60);"));
    }
    assert_eq!(primary.must("SELECT state, error FROM logos_status;"), "healthy|", "{lacks}");
    assert!(primary.close().success());
    let files: Vec<_> = fs::read_dir(url.strip_prefix("dir:").unwrap()).unwrap().collect();
    assert_eq!(files.len(), entries(&url).len(), "{lacks}: {files:?}");
    let replica = open(&dir.file("replica.db"));
    attach(&replica, &url);
    assert_eq!(replica.text("SELECT logos_position()"), position);
    assert_equal(&open(&dir.file("primary.db")), &replica);
}

#[test]
fn a_folder_that_cannot_be_synced_is_a_channel() {
    arrives_from_a_machine_that_lacks("sync");
    arrives_from_a_machine_that_lacks("syncdir");
}

#[test]
fn a_folder_without_links_and_without_renames_that_replace_nothing_is_a_channel() {
    arrives_from_a_machine_that_lacks("names");
    arrives_from_a_machine_that_lacks("names sync");
}

#[test]
fn an_entry_begun_in_place_before_a_kill_is_finished_and_a_foreign_one_is_kept() {
    let dir = TempDir::new();
    let mut primary = shell(&dir, "primary.db", "names");
    primary.must(TABLE);
    let url = primary.must(&format!("SELECT logos_publish('{}');", dir.channel()));
    primary.must("SELECT logos_flush(60);");
    primary.kill();
    // The first bytes of any entry of this channel: one operation, an inscription, the channel; and zeros that a loss of power left.
    let id = &url[url.len() - 64..];
    let mut begun = vec![1, 0x11];
    begun.extend((0..64).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()));
    begun.resize(60, 0);
    let files = entries(&url);
    let next = |n: usize| files[0].with_file_name(format!("{:016x}.entry", files.len() + n));
    fs::write(next(0), begun).unwrap();
    fs::write(next(1), "a neighbour's").unwrap();
    let mut primary = shell(&dir, "primary.db", "names");
    primary.must(&format!("INSERT INTO t VALUES (2, 'two'); SELECT logos_publish('{}');", dir.channel()));
    primary.must("SELECT logos_flush(60);");
    primary.must("INSERT INTO t VALUES (3, 'three');");
    wait_until("it waits", || primary.must("SELECT state FROM logos_status;") == "waiting");
    assert_eq!(fs::read(next(1)).unwrap(), b"a neighbour's");
    remove(&next(1));
    primary.must("SELECT logos_flush(60);");
    assert!(primary.close().success());
    let replica = open(&dir.file("replica.db"));
    attach(&replica, &url);
    assert_equal(&open(&dir.file("primary.db")), &replica);
}

/// What lies in the channel's folder, in order.
fn names(url: &str) -> Vec<String> {
    let found = fs::read_dir(url.strip_prefix("dir:").unwrap()).unwrap();
    let mut names: Vec<String> = found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_a_killed_publisher_left_aside_is_removed_and_nothing_else_is() {
    let pair = Pair::of(TABLE);
    flush(&pair.primary);
    pair.run("SELECT logos_stop(); INSERT INTO t VALUES (2, hex(randomblob(1000)))");
    let entry = entries(&pair.url).len();
    let left = format!(".{entry:016x}.part");
    let mut killed = shell(&pair.dir, "primary.db", "power");
    killed.send(&format!("SELECT logos_publish('{}');", pair.dir.channel()));
    wait_until("it is killed in the midst of a write", || killed.has_ended());
    let folder = Path::new(pair.url.strip_prefix("dir:").unwrap());
    let half = fs::read(folder.join(&left)).unwrap();
    assert!(half.len() > 100);
    // Its writer lives: another one of this entry, on another machine perhaps.
    let held = fs::File::open(folder.join(&left)).unwrap();
    held.lock().unwrap();
    let foreign = [format!(".{entry:016x}.1.part"), ".syncthing.part".into(), ".aB3dE6.part".into()];
    for name in &foreign {
        fs::write(folder.join(name), [&half[..half.len() - 1], b"?"].concat()).unwrap();
    }
    publish(&pair.primary, &pair.dir.channel());
    flush(&pair.primary);
    assert_eq!(fs::read(folder.join(&left)).unwrap(), half);
    drop(held);
    // The next one is killed as well, and then comes one that is not.
    pair.run("SELECT logos_stop(); INSERT INTO t VALUES (3, hex(randomblob(1000)))");
    let next = format!(".{:016x}.part", entry + 1);
    let mut killed = shell(&pair.dir, "primary.db", "power");
    killed.send(&format!("SELECT logos_publish('{}');", pair.dir.channel()));
    wait_until("it is killed again", || killed.has_ended());
    assert!(names(&pair.url).contains(&next));
    publish(&pair.primary, &pair.dir.channel());
    pair.check();
    let expected = [left].into_iter().chain(foreign);
    let aside: Vec<String> = names(&pair.url).into_iter().filter(|name| name.ends_with(".part")).collect();
    assert_eq!(aside, {
        let mut all: Vec<String> = expected.collect();
        all.sort();
        all
    });
}

#[test]
fn entries_and_folders_get_the_permissions_that_the_umask_leaves() {
    for (lacks, file_mode, folder_mode) in
        [("", 0o644, 0o755), ("umask077", 0o600, 0o700), ("umask077 names", 0o600, 0o700)]
    {
        let dir = TempDir::new();
        let mut primary = shell(&dir, "primary.db", lacks);
        let url = primary.must(&format!("{TABLE} SELECT logos_publish('{}'); SELECT logos_flush(60);", dir.channel()));
        let url = url.lines().next().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.channel_folder()), folder_mode, "{lacks}");
        assert!(entries(url).iter().all(|file| mode(file) == file_mode), "{lacks}");
        assert!(primary.close().success());
    }
}

#[test]
fn a_reader_without_permission_says_so_and_goes_on_when_it_has_it() {
    let dir = TempDir::new();
    let primary = open(&dir.file("primary.db"));
    primary.run(TABLE);
    let url = publish(&primary, &dir.channel());
    flush(&primary);
    fs::write(dir.file("flag"), libc::EACCES.to_string()).unwrap();
    let mut replica = shell(&dir, "replica.db", "");
    replica.must(&format!("SELECT * FROM attach_replica('{url}', '{{\"follow\": true}}');"));
    assert_eq!(replica.must("SELECT state FROM logos_status;"), "waiting");
    let said = replica.must("SELECT error || hint FROM logos_status;");
    assert!(said.contains("no permission to read") && said.contains("umask"), "{said}");
    fs::remove_file(dir.file("flag")).unwrap();
    wait_until("it follows", || replica.must("SELECT state FROM logos_status;") == "following");
    assert_eq!(replica.must("SELECT v FROM t;"), "one");
}

#[test]
fn a_folder_that_becomes_read_only_or_full_is_waited_for() {
    for error in [libc::EROFS, libc::ENOSPC, libc::EDQUOT, libc::EIO, libc::EACCES] {
        let dir = TempDir::new();
        let mut primary = shell(&dir, "primary.db", "");
        primary.must(TABLE);
        primary.must(&format!("SELECT logos_publish('{}');", dir.channel()));
        primary.must("SELECT logos_flush(60);");
        fs::write(dir.file("flag"), error.to_string()).unwrap();
        primary.must("INSERT INTO t VALUES (2, 'two');");
        wait_until("the status says it", || !primary.must("SELECT error FROM logos_status;").is_empty());
        assert_ne!(primary.must("SELECT state FROM logos_status;"), "refused", "{error}");
        fs::remove_file(dir.file("flag")).unwrap();
        primary.must("SELECT logos_flush(60);");
        assert_eq!(primary.must("SELECT state, error FROM logos_status;"), "healthy|", "{error}");
    }
}
