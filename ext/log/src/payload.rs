//! Payloads: what one message says, as a stream of sections (FORMAT.md "Payload").
//!
//! A payload is a plain header, then one zstd frame of sections in a fixed order: settings, schema, tables,
//! sequences, end. Both directions stream: memory is one row, whatever the size of the message.
//!
//! Invariants
//! - `read(write(x)) == x`, and nothing else reads as `x` (sections in order, canonical numbers, no bytes left over).
//! - A row is only ever read after the table head that says how many columns it has.
//! - The end section repeats what was counted, so a payload that lost rows is not taken for a smaller one.
//!
//! Not here: cutting into entries (`part`), the order of messages (`chain`), what SQL makes of the rows (engine).

use std::io::{BufRead, BufReader, Read, Write};

use crate::codec::{corrupt, Input, Output};
use crate::error::LogError;
use crate::ids::Digest;
use crate::limits::{COLUMNS_MAX, SQL_BYTES_MAX, ZSTD_WINDOW_LOG_MAX};
use crate::value::{self, Value, ValueRef};

/// Bytes of the plain header: kind 1, encoding 1, seq 8, previous 32, time 8, schema 32.
pub const HEADER_BYTES: usize = 82;

/// A flag beside the text encoding.
const INCOMPLETE: u8 = 0x80;

/// zstd's own default; higher levels cost the publisher more than they save the channel.
const ZSTD_LEVEL: i32 = 3;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rows and schema changed since the message before.
    Changes,
}

impl Kind {
    /// The word for it in SQL.
    pub fn word(self) -> &'static str {
        match self {
            Self::Changes => "changes",
        }
    }
}

/// How a database encodes text (`PRAGMA encoding`): text values are bytes in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8.
    Utf8,
    /// UTF-16, little endian.
    Utf16le,
    /// UTF-16, big endian.
    Utf16be,
}

impl Encoding {
    const ALL: [(u8, Self, &'static str); 3] =
        [(1, Self::Utf8, "UTF-8"), (2, Self::Utf16le, "UTF-16le"), (3, Self::Utf16be, "UTF-16be")];

    /// As `PRAGMA encoding` spells it.
    pub fn pragma(self) -> &'static str {
        Self::ALL.iter().find(|(_, e, _)| *e == self).map_or("UTF-8", |(_, _, name)| name)
    }

    /// From `PRAGMA encoding`.
    pub fn from_pragma(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, _, n)| *n == name).map(|(_, e, _)| *e)
    }
}

/// What is known of a message before its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the message is.
    pub kind: Kind,
    /// Encoding of the primary's text.
    pub encoding: Encoding,
    /// Whether the publisher calls what the channel has after this message incomplete: something may have been committed past its log.
    pub incomplete: bool,
    /// Sequence number, the same as in its parts.
    pub seq: u64,
    /// Digest of the payload before; zero for the first.
    pub previous: Digest,
    /// When the snapshot was taken, in milliseconds since 1970 by the publisher's clock. For people; nothing is decided by it.
    pub time_ms: i64,
    /// Fingerprint of the schema after this message (`engine::sqlite::schema`).
    pub schema: Digest,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = match self.kind {
            Kind::Changes => 1,
        };
        bytes[1] = Encoding::ALL.iter().find(|(_, e, _)| *e == self.encoding).map_or(1, |(code, _, _)| *code)
            | if self.incomplete { INCOMPLETE } else { 0 };
        bytes[2..10].copy_from_slice(&self.seq.to_le_bytes());
        bytes[10..42].copy_from_slice(&self.previous.0);
        bytes[42..50].copy_from_slice(&self.time_ms.to_le_bytes());
        bytes[50..82].copy_from_slice(&self.schema.0);
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, LogError> {
        let number = |at: usize| {
            let mut n = [0; 8];
            n.copy_from_slice(&bytes[at..at + 8]);
            n
        };
        Ok(Self {
            kind: match bytes[0] {
                1 => Kind::Changes,
                other => return Err(corrupt(0, format!("message kind {other} does not exist in this format"))),
            },
            encoding: Encoding::ALL
                .iter()
                .find(|(code, _, _)| *code == bytes[1] & !INCOMPLETE)
                .map(|(_, e, _)| *e)
                .ok_or_else(|| corrupt(1, format!("text encoding {} does not exist", bytes[1])))?,
            incomplete: bytes[1] & INCOMPLETE != 0,
            seq: u64::from_le_bytes(number(2)),
            previous: Digest::from_slice(&bytes[10..42])?,
            time_ms: i64::from_le_bytes(number(42)),
            schema: Digest::from_slice(&bytes[50..82])?,
        })
    }
}

/// Numbers in the database header that applications keep their own version in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// `PRAGMA user_version`.
    pub user_version: i32,
    /// `PRAGMA application_id`.
    pub application_id: i32,
}

/// Which rows of a table a section carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// For each key named, all rows that have it.
    Keys,
    /// All rows of the table; whatever else the replica has goes.
    Whole,
}

/// Opens a table section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableHead {
    /// Name of the table in the schema after this message.
    pub name: String,
    /// Which rows follow.
    pub extent: Extent,
    /// Names of the columns of each row, in the order of its values; may include a rowid alias.
    pub columns: Vec<String>,
    /// Which of those columns are the key, as indices into `columns`, in the key's order.
    pub key: Vec<usize>,
}

/// How much a message holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Table sections.
    pub tables: u64,
    /// Keys named in them (for a whole table: its rows).
    pub keys: u64,
    /// Rows in them.
    pub rows: u64,
}

/// A payload, item by item, in the order in which they must come.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// New settings.
    Settings(Settings),
    /// Statements that lead from the schema before to the schema after.
    Schema(Vec<String>),
    /// A table section begins; its records follow.
    Table(TableHead),
    /// One row, whose key is what its key columns hold. In `Extent::Keys` it is the only row with that key.
    Row(Vec<Value>),
    /// A key that no row has any more.
    Absent(Vec<Value>),
    /// A key, and all the rows that have it (any number, bytes of the key columns may differ from the key's).
    Rows(Vec<Value>, Vec<Vec<Value>>),
    /// `sqlite_sequence`: all its rows.
    Sequences(Vec<(String, i64)>),
    /// The end: nothing follows.
    End(Counts),
}

// Section tags, ascending in a payload; FORMAT.md "Sections".
const SETTINGS: u8 = 1;
const SCHEMA: u8 = 2;
const TABLE: u8 = 3;
const SEQUENCES: u8 = 4;
const END: u8 = 5;

// Record tags within a table section.
const RECORDS_END: u8 = 0;
const ROW: u8 = 1;
const ABSENT: u8 = 2;
const ROWS: u8 = 3;

/// Most statements in one schema section: far above anything real, so that a forged count is refused at once. (Rows under one
/// key have no such limit: a key that may be NULL can have any number of them, and they take memory as they arrive.)
const STATEMENTS_MAX: u64 = 1 << 20;
const NAME_BYTES_MAX: u64 = SQL_BYTES_MAX;

/// Writes a payload. The order of calls is the order of sections; the type checks counts, not order.
pub struct PayloadWriter<W: Write> {
    out: Output<zstd::Encoder<'static, W>>,
    counts: Counts,
    columns: usize,
    open_table: bool,
}

fn stream(e: &std::io::Error) -> LogError {
    LogError::Stream { what: "payload", why: e.to_string() }
}

impl<W: Write> PayloadWriter<W> {
    /// Writes the header and begins.
    pub fn new(mut out: W, header: &Header) -> Result<Self, LogError> {
        out.write_all(&header.encode()).map_err(|e| stream(&e))?;
        let mut encoder = zstd::Encoder::new(out, ZSTD_LEVEL).map_err(|e| stream(&e))?;
        encoder.include_checksum(true).map_err(|e| stream(&e))?;
        Ok(Self { out: Output { inner: encoder }, counts: Counts::default(), columns: 0, open_table: false })
    }

    /// The settings section.
    pub fn settings(&mut self, settings: Settings) -> Result<(), LogError> {
        self.out.byte(SETTINGS)?;
        self.out.signed(settings.user_version.into())?;
        self.out.signed(settings.application_id.into())
    }

    /// The schema section.
    pub fn schema(&mut self, statements: &[String]) -> Result<(), LogError> {
        self.out.byte(SCHEMA)?;
        self.out.unsigned(statements.len() as u64)?;
        statements.iter().try_for_each(|sql| self.out.sized(sql.as_bytes(), SQL_BYTES_MAX))
    }

    /// Opens a table section, closing the one before.
    pub fn table(&mut self, head: &TableHead) -> Result<(), LogError> {
        self.close_table()?;
        self.out.byte(TABLE)?;
        self.out.sized(head.name.as_bytes(), NAME_BYTES_MAX)?;
        self.out.byte(match head.extent {
            Extent::Keys => 0,
            Extent::Whole => 1,
        })?;
        self.out.unsigned(head.columns.len() as u64)?;
        for column in &head.columns {
            self.out.sized(column.as_bytes(), NAME_BYTES_MAX)?;
        }
        self.out.unsigned(head.key.len() as u64)?;
        for &column in &head.key {
            self.out.unsigned(column as u64)?;
        }
        self.counts.tables += 1;
        self.columns = head.columns.len();
        self.open_table = true;
        Ok(())
    }

    fn close_table(&mut self) -> Result<(), LogError> {
        if self.open_table {
            self.out.byte(RECORDS_END)?;
            self.open_table = false;
        }
        Ok(())
    }

    fn values<'v>(&mut self, values: impl Iterator<Item = ValueRef<'v>>) -> Result<(), LogError> {
        for value in values {
            value::write(&mut self.out, value)?;
        }
        Ok(())
    }

    /// A row whose key is its own key columns, and which is the only one with that key.
    pub fn row<'v>(&mut self, row: impl Iterator<Item = ValueRef<'v>>) -> Result<(), LogError> {
        self.out.byte(ROW)?;
        self.counts.keys += 1;
        self.counts.rows += 1;
        self.values(row)
    }

    /// A key that no row has.
    pub fn absent<'v>(&mut self, key: impl Iterator<Item = ValueRef<'v>>) -> Result<(), LogError> {
        self.out.byte(ABSENT)?;
        self.counts.keys += 1;
        self.values(key)
    }

    /// A key and all its rows.
    pub fn rows(&mut self, key: &[Value], rows: &[Vec<Value>]) -> Result<(), LogError> {
        self.out.byte(ROWS)?;
        self.counts.keys += 1;
        self.counts.rows += rows.len() as u64;
        self.values(key.iter().map(Value::as_ref))?;
        self.out.unsigned(rows.len() as u64)?;
        rows.iter().try_for_each(|row| self.values(row.iter().map(Value::as_ref)))
    }

    /// The sequences section.
    pub fn sequences(&mut self, sequences: &[(String, i64)]) -> Result<(), LogError> {
        self.close_table()?;
        self.out.byte(SEQUENCES)?;
        self.out.unsigned(sequences.len() as u64)?;
        for (name, seq) in sequences {
            self.out.sized(name.as_bytes(), NAME_BYTES_MAX)?;
            self.out.signed(*seq)?;
        }
        Ok(())
    }

    /// How much was written so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The end section; gives back what was written to.
    pub fn finish(mut self) -> Result<(W, Counts), LogError> {
        self.close_table()?;
        self.out.byte(END)?;
        for n in [self.counts.tables, self.counts.keys, self.counts.rows] {
            self.out.unsigned(n)?;
        }
        let out = self.out.inner.finish().map_err(|e| stream(&e))?;
        Ok((out, self.counts))
    }
}

/// Reads a payload item by item.
pub struct PayloadReader<R: BufRead> {
    input: Input<BufReader<zstd::Decoder<'static, R>>>,
    counts: Counts,
    last_section: u8,
    table: Option<TableHead>,
    ended: bool,
}

impl<R: BufRead> PayloadReader<R> {
    /// Reads the header and begins.
    pub fn new(mut source: R) -> Result<(Header, Self), LogError> {
        let mut header = [0; HEADER_BYTES];
        source.read_exact(&mut header).map_err(|_| LogError::Truncated { what: "payload header", at: 0 })?;
        let header = Header::decode(&header)?;
        let mut decoder = zstd::Decoder::with_buffer(source).map_err(|e| stream(&e))?.single_frame();
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|e| stream(&e))?;
        let input = Input::new(BufReader::with_capacity(64 * 1024, decoder));
        Ok((header, Self { input, counts: Counts::default(), last_section: 0, table: None, ended: false }))
    }

    /// The next item; `None` after the end, once it is certain that nothing follows it.
    #[allow(clippy::should_implement_trait)] // an Iterator of Results invites `.flatten()`, which would skip errors
    pub fn next(&mut self) -> Result<Option<Item>, LogError> {
        if self.ended {
            return Ok(None);
        }
        if self.table.is_some() {
            if let Some(record) = self.record()? {
                return Ok(Some(record));
            }
            self.table = None;
        }
        self.section().map(Some)
    }

    fn section(&mut self) -> Result<Item, LogError> {
        let at = self.input.at();
        let tag = self.input.byte()?;
        if tag < self.last_section || (tag == self.last_section && tag != TABLE) {
            return Err(corrupt(at, format!("section {tag} may not follow section {}", self.last_section)));
        }
        self.last_section = tag;
        match tag {
            SETTINGS => {
                let mut number = |what| {
                    let at = self.input.at();
                    i32::try_from(self.input.signed()?).map_err(|_| corrupt(at, format!("{what} is out of range")))
                };
                Ok(Item::Settings(Settings {
                    user_version: number("user_version")?,
                    application_id: number("application_id")?,
                }))
            }
            SCHEMA => {
                let n = self.input.bounded("number of schema statements", STATEMENTS_MAX)?;
                let statements = (0..n).map(|_| self.input.text("schema statement", SQL_BYTES_MAX));
                Ok(Item::Schema(statements.collect::<Result<_, _>>()?))
            }
            TABLE => {
                let head = self.table_head()?;
                self.counts.tables += 1;
                self.table = Some(head.clone());
                Ok(Item::Table(head))
            }
            SEQUENCES => {
                let n = self.input.bounded("number of sequences", STATEMENTS_MAX)?;
                let sequences = (0..n)
                    .map(|_| Ok((self.input.text("sequence name", NAME_BYTES_MAX)?, self.input.signed()?)))
                    .collect::<Result<_, LogError>>()?;
                Ok(Item::Sequences(sequences))
            }
            END => self.end(at),
            other => Err(corrupt(at, format!("section {other} does not exist"))),
        }
    }

    fn end(&mut self, at: u64) -> Result<Item, LogError> {
        let said =
            Counts { tables: self.input.unsigned()?, keys: self.input.unsigned()?, rows: self.input.unsigned()? };
        if said != self.counts {
            return Err(corrupt(at, format!("it says it holds {said:?}, but it holds {:?}", self.counts)));
        }
        let mut more = [0];
        let left = self.input.inner.read(&mut more).map_err(|e| corrupt(self.input.at(), e.to_string()))?;
        let after = self.input.inner.get_mut().get_mut().fill_buf().map_err(|e| stream(&e))?;
        if left != 0 || !after.is_empty() {
            return Err(LogError::Trailing { what: "payload", at: self.input.at() });
        }
        self.ended = true;
        Ok(Item::End(said))
    }

    fn table_head(&mut self) -> Result<TableHead, LogError> {
        let name = self.input.text("table name", NAME_BYTES_MAX)?;
        let at = self.input.at();
        let extent = match self.input.byte()? {
            0 => Extent::Keys,
            1 => Extent::Whole,
            other => return Err(corrupt(at, format!("extent {other} does not exist"))),
        };
        let n = self.input.bounded("number of columns", COLUMNS_MAX)?;
        let columns = (0..n).map(|_| self.input.text("column name", NAME_BYTES_MAX)).collect::<Result<Vec<_>, _>>()?;
        let n = self.input.bounded("number of key columns", columns.len() as u64)?;
        let at = self.input.at();
        let key = (0..n).map(|_| Ok(self.input.unsigned()? as usize)).collect::<Result<Vec<_>, LogError>>()?;
        if key.is_empty() || key.iter().any(|&column| column >= columns.len()) {
            return Err(corrupt(at, format!("the key of table {name:?} names no column, or one that is not there")));
        }
        Ok(TableHead { name, extent, columns, key })
    }

    fn record(&mut self) -> Result<Option<Item>, LogError> {
        let Some(head) = &self.table else { return Ok(None) };
        let (columns, key, extent) = (head.columns.len(), head.key.len(), head.extent);
        let at = self.input.at();
        let tag = self.input.byte()?;
        if extent == Extent::Whole && !matches!(tag, RECORDS_END | ROW) {
            return Err(corrupt(at, format!("record {tag} may not stand in a whole table")));
        }
        match tag {
            RECORDS_END => Ok(None),
            ROW => {
                self.counts.keys += 1;
                self.counts.rows += 1;
                Ok(Some(Item::Row(self.values(columns)?)))
            }
            ABSENT => {
                self.counts.keys += 1;
                Ok(Some(Item::Absent(self.values(key)?)))
            }
            ROWS => {
                let key = self.values(key)?;
                let at = self.input.at();
                let n = self.input.unsigned()?;
                if n == 0 {
                    return Err(corrupt(at, "a key without rows is written as absent"));
                }
                let rows = (0..n).map(|_| self.values(columns)).collect::<Result<Vec<_>, _>>()?;
                self.counts.keys += 1;
                self.counts.rows += n;
                Ok(Some(Item::Rows(key, rows)))
            }
            other => Err(corrupt(at, format!("record {other} does not exist"))),
        }
    }

    fn values(&mut self, n: usize) -> Result<Vec<Value>, LogError> {
        (0..n).map(|_| value::read(&mut self.input)).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> Header {
        Header {
            kind: Kind::Changes,
            encoding: Encoding::Utf8,
            incomplete: false,
            seq: 3,
            previous: Digest([7; 32]),
            time_ms: 1_760_000_000_000,
            schema: Digest([9; 32]),
        }
    }

    fn write(header: &Header, items: &[Item]) -> Vec<u8> {
        let mut writer = PayloadWriter::new(Vec::new(), header).unwrap();
        for item in items {
            match item {
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

    /// A place to write to that has no room.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("no space left"))
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_payload_that_cannot_be_written_says_why() {
        let outcome = PayloadWriter::new(Full, &header()).map(drop);
        assert!(matches!(&outcome, Err(LogError::Stream { why, .. }) if why == "no space left"), "{outcome:?}");
    }

    fn read(bytes: &[u8]) -> Result<(Header, Vec<Item>), LogError> {
        let (header, mut reader) = PayloadReader::new(bytes)?;
        let mut items = Vec::new();
        while let Some(item) = reader.next()? {
            items.push(item);
        }
        Ok((header, items))
    }

    fn example() -> Vec<Item> {
        let head = TableHead {
            name: "it\"em".into(),
            extent: Extent::Keys,
            columns: vec!["id".into(), "näme".into()],
            key: vec![0],
        };
        let row = |i| vec![Value::Integer(i), Value::Text(b"a\0b\xff".to_vec())];
        vec![
            Item::Settings(Settings { user_version: -3, application_id: i32::MAX }),
            Item::Schema(vec!["CREATE TABLE x(a)".into(), String::new()]),
            Item::Table(head.clone()),
            Item::Row(row(i64::MIN)),
            Item::Absent(vec![Value::Null]),
            Item::Rows(vec![Value::Real(-0.0)], vec![row(1), vec![Value::Null, Value::Blob(Vec::new())]]),
            Item::Table(TableHead { name: "whole".into(), extent: Extent::Whole, ..head }),
            Item::Row(row(5)),
            Item::Sequences(vec![("x".into(), 17)]),
            Item::End(Counts { tables: 2, keys: 4, rows: 4 }),
        ]
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = write(&header(), &example());
        assert_eq!(read(&bytes).unwrap(), (header(), example()));
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused() {
        let bytes = write(&header(), &example());
        for cut in 0..bytes.len() {
            assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for at in HEADER_BYTES..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                // A flip may hit a zstd header bit without meaning; then exactly the same must be read.
                if let Ok(read) = read(&flipped) {
                    assert_eq!(read, (header(), example()), "bit {bit} of byte {at}");
                }
            }
        }
    }

    #[test]
    fn bytes_after_the_end_are_refused() {
        let mut bytes = write(&header(), &example());
        bytes.push(0);
        assert!(matches!(read(&bytes), Err(LogError::Trailing { .. })));
    }

    #[test]
    fn sections_out_of_order_are_refused() {
        let mut items = example();
        items.swap(0, 1);
        let error = read(&write(&header(), &items)).unwrap_err();
        assert!(error.to_string().contains("may not follow"), "{error}");
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            any::<f64>().prop_filter("comparable", |r| !r.is_nan()).prop_map(Value::Real),
            any::<Vec<u8>>().prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(Value::Blob),
        ]
    }

    proptest! {
        #[test]
        fn any_rows_read_back(rows in prop::collection::vec(prop::collection::vec(any_value(), 3), 0..20)) {
            let head = TableHead {
                name: "t".into(),
                extent: Extent::Whole,
                columns: vec!["a".into(), "b".into(), "c".into()],
                key: vec![2, 0],
            };
            let n = rows.len() as u64;
            let mut items = vec![Item::Table(head)];
            items.extend(rows.into_iter().map(Item::Row));
            items.push(Item::End(Counts { tables: 1, keys: n, rows: n }));
            let bytes = write(&header(), &items);
            prop_assert_eq!(read(&bytes).unwrap().1, items);
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
            let mut payload = header().encode().to_vec();
            payload.extend(zstd::encode_all(bytes.as_slice(), 1).unwrap());
            let _ = read(&payload);
            let _ = read(&bytes);
        }
    }
}
