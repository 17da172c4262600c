//! Apply: one message becomes one transaction on the replica.
//!
//! Invariants
//! - I7. Rows and position change in one transaction: a message is applied exactly once, or not at all.
//! - I8. Whatever does not fit (a clash with a row outside the message, a schema that comes out differently) undoes the whole
//!   message and says so. Nothing is skipped.
//! - The rows of a key are replaced: what had the key goes, what has it now comes. A row that clashes with one whose
//!   turn has not come waits until the table's section ends; then every old row is gone, and a clash is a divergence.
//! - Triggers are off and foreign keys unchecked on this connection: their effects are in the message.
//!
//! Not here: getting messages and checking their order (`replica`).

use std::collections::HashSet;
use std::io::BufRead;

use logos_log::ids::Position;
use logos_log::payload::{Counts, Encoding, Extent, Header, Item, PayloadReader, TableHead};
use logos_log::value::Value;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::guard::{guard, unguard};
use super::role::{position, store_standing, Standing};
use super::schema::Object;
use super::section::{decoded, is_clash, param, Section};
use super::virtuals::{self, Indexer, Way};
use super::{canary, quote, schema, snapshot, sqltext};
use crate::error::{Doing, Error, Result};
use crate::fork;

/// One message applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Where the replica stands after it.
    pub position: Position,
    /// What it was.
    pub kind: &'static str,
    /// Table sections in it.
    pub tables: u64,
    /// Keys in it.
    pub changes: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// When its snapshot was taken, milliseconds since 1970.
    pub created: i64,
}

/// One message to apply: its place, and its bytes.
pub struct Message<'m, R: BufRead> {
    /// Where the replica stands once it is applied.
    pub after: &'m Standing,
    /// The message before.
    pub previous: Position,
    /// The payload.
    pub payload: R,
}

/// Applies one message in one transaction.
pub fn apply<R: BufRead>(conn: &mut Connection, message: Message<'_, R>) -> Result<(Header, Counts)> {
    let _inside = fork::enter();
    let seq = message.after.position.seq;
    let reading = || format!("reading message {seq}");
    let applying = || format!("applying message {seq}");
    let (header, mut reader) = PayloadReader::new(message.payload).doing(reading)?;
    if header.seq != seq || header.previous != message.previous.digest {
        return Err(Error::resync(
            format!("message {seq} does not follow the one applied before it ({})", message.previous),
            "nothing was applied; the channel has two histories: keep it as evidence, then attach a new file",
        ));
    }
    set_encoding(conn, header.encoding, seq)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(applying)?;
    crate::fault::point("apply.before");
    // Nobody else may have come between.
    let found = position(&tx)?.map_or(Position::START, |s| s.position);
    if found != message.previous {
        return Err(Error::retry(
            format!("another process applied message {} here meanwhile", found.seq),
            "nothing was applied twice; go on from the new position",
        ));
    }
    let vacuumed = message.previous != Position::START && is_vacuumed(&tx)?;
    let counts = {
        let mut applying = Applying::new(&tx, header.encoding, seq, vacuumed)?;
        let mut counts = Counts::default();
        while let Some(item) = reader.next().doing(reading)? {
            if let Item::End(all) = &item {
                counts = *all;
            }
            applying.item(item)?;
            fork::pass();
        }
        if applying.schema_changed {
            guard(&tx)?;
        }
        counts
    };
    let found = schema::fingerprint(&schema::read(&tx)?);
    if found != header.schema {
        return Err(Error::resync(
            format!("after message {seq} the schema of this replica is not the primary's"),
            "the message was undone and the position is kept; it was changed here by hand, or this SQLite is too different \
             from the primary's: rebuild by attaching a new file",
        ));
    }
    if !vacuumed {
        canary::arm(&tx).doing(applying)?;
    }
    store_standing(&tx, message.after).doing(applying)?;
    crate::fault::point("apply.before_commit");
    tx.commit().doing(applying)?;
    crate::fault::point("apply.done");
    Ok((header, counts))
}

/// Whether rows that have no key of their own may have been renumbered. (A replica of an older build has no canary.)
fn is_vacuumed(tx: &Connection) -> Result<bool> {
    if canary::is_armed(canary::read(tx).unwrap_or(None)) {
        return Ok(false);
    }
    for object in schema::read(tx)?.iter().filter(|o| o.kind == "table" && !o.is_virtual()) {
        if schema::table(tx, object)?.is_some_and(|table| table.key_is_hidden) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The encoding of a database can only be set before anything was in it. Asked later, SQLite pretends, and then writes what no
/// other connection can read; so the schema cookie is asked, which the first statement that makes a table moves from 0.
fn set_encoding(conn: &Connection, encoding: Encoding, seq: u64) -> Result<()> {
    let doing = || "looking at the text encoding".to_string();
    let mut found: String = conn.pragma_query_value(None, "encoding", |row| row.get(0)).doing(doing)?;
    if found == encoding.pragma() {
        return Ok(());
    }
    if schema::cookie(conn).doing(doing)? == 0 && seq == 1 {
        conn.execute_batch(&format!("PRAGMA encoding = '{}'", encoding.pragma())).doing(doing)?;
        found = conn.pragma_query_value(None, "encoding", |row| row.get(0)).doing(doing)?;
    }
    if found == encoding.pragma() {
        return Ok(());
    }
    Err(Error::fix(
        format!("the primary's text is {}, but this file's is {found}", encoding.pragma()),
        "nothing was applied; attach to a new file that nothing has written to",
    ))
}

struct Applying<'t> {
    tx: &'t Transaction<'t>,
    encoding: Encoding,
    seq: u64,
    section: Option<Section<'t>>,
    schema_changed: bool,
    /// What sqlite_sequence must hold in the end: what the message says, else what it held before. Rows written here
    /// advance it by themselves, which on the primary they need not have done (INSERT OR FAIL that failed).
    sequences: Vec<(String, i64)>,
    /// Statements that make UNIQUE indexes: the rows of before need not have been unique.
    unique: Vec<String>,
    /// Virtual tables on the primary whose module is not here: their rows are passed over.
    missing: HashSet<String>,
    /// The virtual tables that are here.
    virtuals: Vec<Object>,
    /// FTS indexes to be made anew when all rows are there.
    rebuild: Vec<Indexer>,
    /// Whether rows without a key of their own may have got other rowids here.
    vacuumed: bool,
}

impl<'t> Applying<'t> {
    fn new(tx: &'t Transaction<'t>, encoding: Encoding, seq: u64, vacuumed: bool) -> Result<Self> {
        let mut applying = Self {
            tx,
            encoding,
            seq,
            section: None,
            schema_changed: false,
            sequences: snapshot::sequences(tx).doing(|| "reading sqlite_sequence".into())?,
            unique: Vec::new(),
            missing: missing(tx)?,
            virtuals: Vec::new(),
            rebuild: Vec::new(),
            vacuumed,
        };
        applying.find_virtuals()?;
        Ok(applying)
    }

    fn find_virtuals(&mut self) -> Result<()> {
        self.virtuals = schema::read(self.tx)?.into_iter().filter(Object::is_virtual).collect();
        Ok(())
    }

    fn item(&mut self, item: Item) -> Result<()> {
        let seq = self.seq;
        let doing = || format!("applying message {seq}");
        match item {
            Item::Settings(settings) => {
                self.tx.pragma_update(None, "user_version", settings.user_version).doing(doing)?;
                self.tx.pragma_update(None, "application_id", settings.application_id).doing(doing)
            }
            Item::Schema(statements) => self.schema(&statements),
            Item::Table(head) => {
                self.end_section()?;
                self.begin_section(head)
            }
            Item::Row(row) => self.replace(None, std::slice::from_ref(&row)),
            Item::Absent(key) => self.replace(Some(&key), &[]),
            Item::Rows(key, rows) => self.replace(Some(&key), &rows),
            Item::Sequences(sequences) => {
                self.end_section()?;
                self.sequences = sequences;
                Ok(())
            }
            Item::End(_) => {
                self.end_section()?;
                for sql in &self.unique {
                    self.tx.execute(sql, []).doing(|| self.changing(sql))?;
                }
                self.rebuild.iter().try_for_each(|indexer| self.tx.execute_batch(&indexer.rebuild())).doing(doing)?;
                self.write_sequences()
            }
        }
    }

    fn schema(&mut self, statements: &[String]) -> Result<()> {
        self.schema_changed = true;
        unguard(self.tx)?;
        for sql in statements {
            self.check_statement(sql)?;
            if sql.starts_with("CREATE UNIQUE INDEX ") {
                self.unique.push(sql.clone());
                continue;
            }
            // Drops and renames of a table that could not be made here concern nobody.
            if sqltext::dropped_table(sql).is_some_and(|name| self.missing.remove(&name)) {
                continue;
            }
            let made = self.tx.execute(sql, []);
            let no_module = made.as_ref().is_err_and(|e| e.to_string().contains("no such module"));
            match sqltext::virtual_table(sql).filter(|_| no_module) {
                Some((name, _)) => {
                    self.missing.insert(name);
                }
                None => {
                    made.doing(|| self.changing(sql))?;
                }
            }
        }
        store_missing(self.tx, &self.missing)?;
        self.find_virtuals()?;
        for object in self.virtuals.iter().filter(|o| statements.contains(&o.sql)) {
            if let Way::Index(indexer) = virtuals::way(object) {
                self.rebuild.push(indexer);
            }
        }
        Ok(())
    }

    /// A publisher may change the schema, and nothing else: no other statement, no second one behind the first (`execute`
    /// refuses those), no virtual table that we would not send.
    fn check_statement(&self, sql: &str) -> Result<()> {
        let object = Object { kind: "table".into(), name: String::new(), table: String::new(), sql: sql.to_string() };
        let known = !object.is_virtual() || virtuals::way(&object) != Way::LeftOut;
        if sqltext::changes_schema(sql) && known {
            return Ok(());
        }
        Err(Error::fix(
            format!(
                "message {} carries {:?}, which is no change of the schema that logos sends",
                self.seq,
                shortened(sql)
            ),
            "nothing was applied and the position is kept; do not trust this publisher before you know why",
        ))
    }

    fn changing(&self, sql: &str) -> String {
        format!("changing the schema by {:?} (message {})", shortened(sql), self.seq)
    }

    /// The FTS indexes over a table.
    fn indexers(&self, table: &str) -> Vec<Indexer> {
        let over = |o: &Object| match virtuals::way(o) {
            Way::Index(indexer) if indexer.content.eq_ignore_ascii_case(table) => Some(indexer),
            _ => None,
        };
        self.virtuals.iter().filter_map(over).collect()
    }

    fn begin_section(&mut self, head: TableHead) -> Result<()> {
        let doing = || format!("preparing table {} (message {})", quote(&head.name), self.seq);
        let table = quote(&head.name);
        if self.missing.contains(&head.name) {
            return Ok(());
        }
        self.check_rowids(&head)?;
        let mut indexers = self.indexers(&head.name);
        if head.extent == Extent::Whole {
            self.tx.execute_batch(&format!("DELETE FROM {table}")).doing(doing)?;
            self.rebuild.extend(indexers.iter().filter(|i| !self.rebuild.contains(i)).cloned().collect::<Vec<_>>());
        }
        indexers.retain(|indexer| !self.rebuild.contains(indexer));
        // A virtual table looks a rowid up by `=` only; elsewhere a key may be NULL.
        let is_virtual = self.virtuals.iter().any(|o| o.name == head.name);
        let operator = if is_virtual { "=" } else { "IS" };
        let columns = head.columns.iter().map(|c| quote(c)).collect::<Vec<_>>().join(", ");
        let values = (0..head.columns.len()).map(|i| param(self.encoding, i)).collect::<Vec<_>>().join(", ");
        let condition = head
            .key
            .iter()
            .enumerate()
            .map(|(i, &k)| format!("{} {operator} {}", quote(&head.columns[k]), param(self.encoding, i)))
            .collect::<Vec<_>>()
            .join(" AND ");
        // OR ABORT: the schema may declare another conflict clause, which would hide a clash.
        let insert =
            self.tx.prepare(&format!("INSERT OR ABORT INTO {table}({columns}) VALUES({values})")).doing(doing)?;
        let delete = match head.extent {
            Extent::Keys => Some(self.tx.prepare(&format!("DELETE FROM {table} WHERE {condition}")).doing(doing)?),
            Extent::Whole => None,
        };
        let prepared = |make: &dyn Fn(&Indexer) -> rusqlite::Result<String>| {
            indexers.iter().map(|i| self.tx.prepare(&make(i)?)).collect::<rusqlite::Result<Vec<_>>>().doing(doing)
        };
        let forget = prepared(&|i| i.forget(self.tx, &condition))?;
        let learn = prepared(&|i| i.learn(self.tx, &condition))?;
        self.section = Some(Section { head, delete, insert, deferred: None, forget, learn });
        Ok(())
    }

    /// Rows that are known by a rowid alone cannot be found once VACUUM has renumbered them.
    fn check_rowids(&self, head: &TableHead) -> Result<()> {
        if !self.vacuumed || head.extent == Extent::Whole {
            return Ok(());
        }
        let objects = schema::read(self.tx)?;
        let object = objects.iter().find(|o| o.kind == "table" && o.name == head.name && !o.is_virtual());
        let table = object.map(|object| schema::table(self.tx, object)).transpose()?.flatten();
        if !table.is_some_and(|table| table.key_is_hidden) {
            return Ok(());
        }
        Err(Error::resync(
            format!(
                "this replica was vacuumed, or read from a dump: that may have renumbered the rows of table {}, which have no key \
                 of their own, and message {} means them by their numbers",
                quote(&head.name),
                self.seq
            ),
            "the message was undone and the position is kept; attach a new file to the channel. VACUUM INTO makes a smaller copy of \
             a replica that can go on",
        ))
    }

    /// Puts `rows` in the place of whatever has the key (the only row's own, if not given).
    fn replace(&mut self, key: Option<&[Value]>, rows: &[Vec<Value>]) -> Result<()> {
        let (encoding, seq, tx) = (self.encoding, self.seq, self.tx);
        let Some(section) = &mut self.section else {
            return if self.missing.is_empty() { Err(Error::bug("a record outside a table section")) } else { Ok(()) };
        };
        let name = section.head.name.clone();
        section.replace(tx, key, rows, encoding).doing(|| format!("writing table {} (message {seq})", quote(&name)))
    }

    /// Inserts the rows that had to wait: all old ones are gone now.
    fn end_section(&mut self) -> Result<()> {
        let Some(mut section) = self.section.take() else { return Ok(()) };
        if section.deferred.take().is_none() {
            return Ok(());
        }
        let name = quote(&section.head.name);
        let doing = || format!("writing table {name} (message {})", self.seq);
        let mut rows = self.tx.prepare("SELECT row FROM temp._logos_deferred ORDER BY rowid").doing(doing)?;
        let mut rows = rows.query([]).doing(doing)?;
        while let Some(row) = rows.next().doing(doing)? {
            let row = decoded(row, 0).doing(doing)?;
            match section.insert_deferred(&row, self.encoding) {
                Ok(()) => {}
                Err(e) if is_clash(&e) => return Err(self.divergence(&section.head, &row, &e)),
                Err(e) => return Err(e).doing(doing),
            }
        }
        drop(rows);
        // Into the FTS indexes once a key, since several rows may have it.
        let mut keys = self.tx.prepare("SELECT DISTINCT key FROM temp._logos_deferred").doing(doing)?;
        let mut keys = keys.query([]).doing(doing)?;
        while let Some(row) = keys.next().doing(doing)? {
            section.learn_key(&decoded(row, 0).doing(doing)?, self.encoding).doing(doing)?;
        }
        drop(keys);
        drop(section);
        self.tx.execute_batch("DROP TABLE temp._logos_deferred").doing(doing)
    }

    fn divergence(&self, head: &TableHead, row: &[Value], e: &rusqlite::Error) -> Error {
        let key = head
            .key
            .iter()
            .map(|&k| row.get(k).map_or_else(|| "?".to_string(), |v| shortened(&format!("{v:?}"))))
            .collect::<Vec<_>>()
            .join(", ");
        Error::resync(
            format!(
                "table {} of this replica differs from the primary: the row with key ({key}) of message {} clashes with \
                 a row that the message does not name ({e})",
                quote(&head.name),
                self.seq
            ),
            "the message was undone and the position is kept; something wrote here past the guards: rebuild by \
             attaching a new file",
        )
    }

    fn write_sequences(&self) -> Result<()> {
        let doing = || format!("writing sqlite_sequence (message {})", self.seq);
        let exists = snapshot::has_sequences(self.tx).doing(doing)?;
        if !exists || snapshot::sequences(self.tx).doing(doing)? == self.sequences {
            return Ok(());
        }
        self.tx.execute("DELETE FROM sqlite_sequence", []).doing(doing)?;
        let mut insert = self.tx.prepare("INSERT INTO sqlite_sequence(name, seq) VALUES(?1, ?2)").doing(doing)?;
        self.sequences.iter().try_for_each(|s| insert.execute((&s.0, s.1)).map(drop)).doing(doing)
    }
}

/// A text as it fits into a sentence.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// Virtual tables of the primary that could not be made here.
fn missing(conn: &Connection) -> Result<HashSet<String>> {
    let doing = || "reading which virtual tables are missing".to_string();
    if !conn
        .prepare("SELECT 1 FROM sqlite_schema WHERE name = '_logos_missing'")
        .and_then(|mut s| s.exists([]))
        .doing(doing)?
    {
        return Ok(HashSet::new());
    }
    let mut statement = conn.prepare("SELECT name FROM _logos_missing").doing(doing)?;
    let names = statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).doing(doing);
    names
}

fn store_missing(conn: &Connection, missing: &HashSet<String>) -> Result<()> {
    let doing = || "noting which virtual tables are missing".to_string();
    conn.execute_batch("DROP TABLE IF EXISTS _logos_missing").doing(doing)?;
    if missing.is_empty() {
        return Ok(());
    }
    conn.execute_batch("CREATE TABLE _logos_missing(name TEXT PRIMARY KEY)").doing(doing)?;
    missing
        .iter()
        .try_for_each(|name| conn.execute("INSERT INTO _logos_missing VALUES(?1)", [name]).map(drop))
        .doing(doing)
}
