//! Goal: bytes written by every released format are read for ever. Method: files of each version under `golden/`, which
//! are never edited, are decoded and compared with the meaning that was written down beside them.
//!
//! `LOGOS_MAKE_GOLDEN=1 cargo test -p logos-log --test golden` makes files that are not there yet, and only those.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;

use logos_log::chain::Chain;
use logos_log::crypto::SigningKey;
use logos_log::entry::{sign_entry, SignedTx};
use logos_log::ids::{ChannelId, Digest, MsgId};
use logos_log::part::PartWriter;
use logos_log::payload::{
    Counts, Encoding, Extent, Header, Item, Kind, PayloadReader, PayloadWriter, Settings, TableHead,
};
use logos_log::value::Value;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[42; 32])
}

fn channel() -> ChannelId {
    ChannelId(key().public_key().0)
}

fn head(name: &str, extent: Extent) -> TableHead {
    TableHead { name: name.into(), extent, columns: vec!["id".into(), "a b".into(), "ö\"".into()], key: vec![0] }
}

fn row(id: i64) -> Vec<Value> {
    vec![Value::Integer(id), Value::Text(b"text \0 \xff".to_vec()), Value::Blob(vec![0, 1, 2, 255])]
}

/// Every section, every record, every type of value.
fn items() -> Vec<Item> {
    vec![
        Item::Settings(Settings { user_version: 7, application_id: -1 }),
        Item::Schema(vec!["CREATE TABLE t(id INTEGER PRIMARY KEY, \"a b\", \"ö\"\"\")".into(), "DROP TABLE u".into()]),
        Item::Table(head("t", Extent::Whole)),
        Item::Row(row(i64::MAX)),
        Item::Row(row(i64::MIN)),
        Item::Table(head("k", Extent::Keys)),
        Item::Row(vec![Value::Integer(-1), Value::Real(-0.0), Value::Real(f64::INFINITY)]),
        Item::Absent(vec![Value::Integer(2)]),
        Item::Rows(
            vec![Value::Null],
            vec![row(3), vec![Value::Null, Value::Text(Vec::new()), Value::Blob(Vec::new())]],
        ),
        Item::Sequences(vec![("t".into(), 9_000_000_000)]),
        Item::End(Counts { tables: 2, keys: 5, rows: 5 }),
    ]
}

fn header() -> Header {
    Header {
        kind: Kind::Changes,
        encoding: Encoding::Utf8,
        incomplete: false,
        seq: 1,
        previous: Digest::ZERO,
        time_ms: 1_795_000_000_000,
        schema: Digest([5; 32]),
    }
}

fn make_payload() -> Vec<u8> {
    let mut writer = PayloadWriter::new(Vec::new(), &header()).unwrap();
    for item in items() {
        match &item {
            Item::Settings(s) => writer.settings(*s),
            Item::Schema(s) => writer.schema(s),
            Item::Table(head) => writer.table(head),
            Item::Row(row) => writer.row(row.iter().map(Value::as_ref)),
            Item::Absent(key) => writer.absent(key.iter().map(Value::as_ref)),
            Item::Rows(key, rows) => writer.rows(key, rows),
            Item::Sequences(s) => writer.sequences(s),
            Item::End(_) => Ok(()),
        }
        .unwrap();
    }
    writer.finish().unwrap().0
}

fn make_entry() -> Vec<u8> {
    let mut parts = Vec::new();
    let mut writer = PartWriter::new(1, |_, data| {
        parts.push(data);
        Ok(())
    });
    std::io::Write::write_all(&mut writer, &golden("changes.payload", make_payload)).unwrap();
    writer.finish().unwrap();
    sign_entry(&key(), channel(), MsgId::ROOT, parts.remove(0)).encode()
}

fn golden(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = folder().join(name);
    if !path.exists() && std::env::var_os("LOGOS_MAKE_GOLDEN").is_some() {
        fs::write(&path, make()).unwrap();
    }
    fs::read(&path).unwrap()
}

#[test]
fn a_payload_of_version_1_still_means_what_it_meant() {
    let bytes = golden("changes.payload", make_payload);
    let (header_read, mut reader) = PayloadReader::new(bytes.as_slice()).unwrap();
    let mut read = Vec::new();
    while let Some(item) = reader.next().unwrap() {
        read.push(item);
    }
    assert_eq!(header_read, header());
    assert_eq!(read, items());
}

#[test]
fn an_entry_of_version_1_is_still_accepted_on_its_channel() {
    let tx = SignedTx::decode(&golden("first.entry", make_entry)).unwrap();
    let mut chain = Chain::new(channel());
    let inscription = tx.inscriptions().next().unwrap();
    let part = chain.accept(&tx.clone().into(), inscription).unwrap();
    assert!(part.last);
    assert_eq!((part.seq, part.index), (1, 0));
    assert_eq!(part.piece, golden("changes.payload", make_payload));
    assert_eq!((chain.entries, chain.seq, chain.index), (1, 2, 0));
}

#[test]
fn every_golden_file_is_read_by_a_test() {
    let mut names: Vec<String> =
        fs::read_dir(folder()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["changes.payload", "first.entry"]);
}
