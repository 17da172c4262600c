//! Goal: an entry that is not what its publisher signed is refused, with its position and the reason, and nothing of
//! it or after it is applied (I8, issue 2 point 5).
//!
//! Method: a channel of a few messages is copied with one file damaged: every byte flipped in one bit, cut at many
//! lengths, longer than it was, another entry in its place. A replica made from the damaged channel must hold the
//! state before the damage, exactly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use harness::files::entries;
use harness::pair::{attach, flush, try_attach};
use harness::{assert_equal, differences, dump, open, Connection, Pair};

struct Damage {
    pair: Pair,
    files: Vec<PathBuf>,
    /// Dump of a replica that has the entries before the damaged one.
    before: Vec<String>,
    at: usize,
    runs: usize,
}

impl Damage {
    fn new() -> Self {
        let pair = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one')");
        flush(&pair.primary);
        for n in 2..5 {
            pair.run(&format!("INSERT INTO t VALUES ({n}, 'row {n}'); UPDATE t SET v = v || '{n}' WHERE id = 1"));
            flush(&pair.primary);
        }
        let files = entries(&pair.url);
        let at = files.len() - 2;
        let mut damage = Self { pair, files, before: Vec::new(), at, runs: 0 };
        let (replica, url) = damage.copy(|folder, files| {
            for file in &files[at..] {
                fs::remove_file(folder.join(file.file_name().unwrap())).unwrap();
            }
        });
        attach(&replica, &url);
        damage.before = dump(&replica);
        damage
    }

    /// A copy of the channel with something done to it, and an empty replica.
    fn copy(&mut self, harm: impl FnOnce(&Path, &[PathBuf])) -> (Connection, String) {
        self.runs += 1;
        let id = self.files[0].parent().unwrap().file_name().unwrap();
        let folder = self.pair.dir.file(&format!("run-{}", self.runs)).join(id);
        fs::create_dir_all(&folder).unwrap();
        for file in &self.files {
            fs::copy(file, folder.join(file.file_name().unwrap())).unwrap();
        }
        harm(&folder, &self.files);
        let replica = open(&self.pair.dir.file(&format!("replica-{}.db", self.runs)));
        (replica, format!("dir:{}", folder.display()))
    }

    /// Puts these bytes in place of the entry; the replica must refuse, say where, and stay before it.
    fn refuse(&mut self, what: &str, bytes: &[u8]) {
        let at = self.at;
        let (replica, url) = self.copy(|folder, files| {
            fs::write(folder.join(files[at].file_name().unwrap()), bytes).unwrap();
        });
        let error = try_attach(&replica, &url, None).expect_err(what).to_string();
        let names_it = error.contains(&format!("{at:016x}.entry"));
        assert!(names_it, "{what}: the position ({at}) is not named: {error}");
        assert_eq!(differences(&self.before, &dump(&replica)), Vec::<String>::new(), "{what}");
        let folder = self.pair.dir.file(&format!("run-{}", self.runs));
        if self.runs.is_multiple_of(50) {
            // The same replica goes on once the true entry is there again.
            let id = self.files[0].parent().unwrap().file_name().unwrap();
            let name = self.files[at].file_name().unwrap();
            fs::copy(&self.files[at], folder.join(id).join(name)).unwrap();
            attach(&replica, &url);
            assert_equal(&self.pair.primary, &replica);
        }
        drop(replica);
        fs::remove_dir_all(folder).unwrap();
    }
}

#[test]
fn an_entry_with_any_byte_flipped_is_refused_with_its_position() {
    let mut damage = Damage::new();
    let good = fs::read(&damage.files[damage.at]).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        damage.refuse(&format!("bit {} of byte {at} flipped", at % 8), &bad);
    }
}

#[test]
fn a_truncated_entry_is_refused_with_its_position() {
    let mut damage = Damage::new();
    let good = fs::read(&damage.files[damage.at]).unwrap();
    let step = (good.len() / 60).max(1);
    for length in (0..good.len()).step_by(step).chain([good.len() - 1]) {
        damage.refuse(&format!("cut to {length} of {} bytes", good.len()), &good[..length]);
    }
}

#[test]
fn an_entry_with_bytes_after_it_is_refused() {
    let mut damage = Damage::new();
    let good = fs::read(&damage.files[damage.at]).unwrap();
    damage.refuse("one byte too many", &[good.as_slice(), b"\0"].concat());
    damage.refuse("written twice", &[good.as_slice(), &good].concat());
    damage.refuse("a megabyte too many", &[good.as_slice(), &vec![0; 1 << 20]].concat());
}

#[test]
fn an_entry_in_the_place_of_another_is_refused() {
    let mut damage = Damage::new();
    for other in 0..damage.files.len() {
        if other != damage.at {
            let bytes = fs::read(&damage.files[other]).unwrap();
            damage.refuse(&format!("entry {other} in place of entry {}", damage.at), &bytes);
        }
    }
}

#[test]
fn an_entry_of_another_publisher_is_refused() {
    let mut damage = Damage::new();
    let foreign = Pair::of("CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    for n in 0..5 {
        foreign.run(&format!("INSERT INTO t VALUES ({n}, 'foreign')"));
        flush(&foreign.primary);
    }
    for file in entries(&foreign.url) {
        damage.refuse("another publisher's entry", &fs::read(file).unwrap());
    }
}

#[test]
fn noise_in_place_of_an_entry_is_refused() {
    let mut damage = Damage::new();
    let mut dice = harness::Dice::new(7);
    for length in [1, 31, 32, 100, 1000, 100_000, 3_000_000] {
        let noise: Vec<u8> = (0..length).map(|_| dice.bits() as u8).collect();
        damage.refuse(&format!("{length} bytes of noise"), &noise);
    }
}

#[test]
fn files_that_are_no_entries_are_ignored() {
    let mut damage = Damage::new();
    let (replica, url) = damage.copy(|folder, _| {
        fs::write(folder.join(".hidden.tmp"), "half").unwrap();
        fs::write(folder.join("README.txt"), "hello").unwrap();
        fs::write(folder.join("zz.entry"), "not a number").unwrap();
        fs::write(folder.join("0000000000000000.entry.tmp"), "half").unwrap();
        fs::create_dir(folder.join("folder")).unwrap();
    });
    attach(&replica, &url);
    assert_equal(&damage.pair.primary, &replica);
}
