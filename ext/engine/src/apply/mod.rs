//! Apply: one message becomes one transaction on the replica.
//!
//! Invariants
//! - I7. Rows and position change in one transaction: a message is applied exactly once, or not at all.
//! - I8. Whatever does not fit (a clash with a row outside the message, a schema that comes out differently) undoes the whole
//!   message and says so. Nothing is skipped.
//! - I10. An object that this SQLite cannot make, or a table that it cannot write, is left out by name (`left_out`); the message
//!   is applied all the same.
//! - The rows of a key are replaced: what had the key goes, what has it now comes. A row that clashes with one whose
//!   turn has not come waits until the table's section ends; then every old row is gone, and a clash is a divergence.
//! - Triggers are off and foreign keys unchecked on this connection: their effects are in the message.
//!
//! Not here: getting messages and checking their order (`drive::puller`).

pub mod guard;
pub mod left_out;
pub mod role;
mod section;

use std::io::{BufRead, Seek, SeekFrom};

use logos_log::ids::Position;
use logos_log::payload::{Counts, Encoding, Extent, Header, Item, PayloadReader, TableHead};
use logos_log::value::Value;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use crate::capture::canary;
use crate::catalog::schema::{self, Object};
use crate::catalog::values::param;
use crate::catalog::virtuals::{self, Indexer, Way};
use crate::catalog::{collation, quote, sqltext};
use crate::changeset::{diff, reset};
use crate::error::{Doing, Error, Result};
use crate::host::blame::{concerns_object, is_clash, reason};
use crate::host::{connection, fork};
use guard::{guard, unguard};
use left_out::Left;
use role::{position, store_standing, Standing};
use section::Section;

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

/// A table that turned out not to be writable.
type Unwritable = (String, String);

/// Applies one message in one transaction. If a table turns out not to be writable in the midst of it, everything is undone and
/// the message begun again without that table.
pub fn apply<R: BufRead + Seek>(conn: &mut Connection, mut message: Message<'_, R>) -> Result<(Header, Counts)> {
    let _inside = fork::enter();
    let mut unwritable = Vec::new();
    loop {
        let seq = message.after.position.seq;
        message.payload.seek(SeekFrom::Start(0)).doing(|| format!("reading message {seq}"))?;
        let mut met = None;
        match apply_without(conn, &mut message, &unwritable, &mut met) {
            Err(_) if met.is_some() => unwritable.extend(met),
            other => return other,
        }
    }
}

/// `met`: is told of a table that cannot be written; the error is then about it.
fn apply_without<R: BufRead>(
    conn: &mut Connection,
    message: &mut Message<'_, R>,
    unwritable: &[Unwritable],
    met: &mut Option<Unwritable>,
) -> Result<(Header, Counts)> {
    let seq = message.after.position.seq;
    let reading = || format!("reading message {seq}");
    let applying = || format!("applying message {seq}");
    let (header, mut reader) = PayloadReader::new(&mut message.payload).doing(reading)?;
    if header.seq != seq || header.previous != message.previous.digest {
        return Err(Error::resync(
            format!("message {seq} does not follow the one applied before it ({})", message.previous),
            "nothing was applied; the channel has two histories: keep it as evidence, then attach a new file",
        ));
    }
    set_encoding(conn, header.encoding, seq)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(applying)?;
    crate::host::fault::point("apply.before");
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
        applying.not_writable = unwritable.to_vec();
        applying.leave_out_tables(unwritable)?;
        let mut counts = Counts::default();
        while let Some(item) = reader.next().doing(reading)? {
            if let Item::End(all) = &item {
                counts = *all;
            }
            applying.item(item).inspect_err(|_| *met = applying.unwritable.take())?;
            fork::pass();
        }
        if applying.schema_changed {
            guard(&tx)?;
        }
        applying.check_schema(header.schema)?;
        applying.store_left_out()?;
        counts
    };
    if !vacuumed {
        canary::arm(&tx).doing(applying)?;
    }
    let after = Standing { incomplete: header.incomplete, ..message.after.clone() };
    store_standing(&tx, &after).doing(applying)?;
    crate::host::fault::point("apply.before_commit");
    tx.commit().doing(applying)?;
    crate::host::fault::point("apply.done");
    Ok((header, counts))
}

/// Whether rows that have no key of their own may have been renumbered. (A replica of an older build has no canary.)
fn is_vacuumed(tx: &Connection) -> Result<bool> {
    if canary::is_armed(canary::read(tx).unwrap_or(None)) {
        return Ok(false);
    }
    for object in schema::read(tx)?.iter().filter(|o| o.kind == "table" && !o.is_virtual()) {
        // One that cannot be described is not written to either.
        if matches!(schema::table(tx, object), Ok(Some(table)) if table.key_is_hidden || table.key_may_be_null) {
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
    if connection::cookie(conn).doing(doing)? == 0 && seq == 1 {
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
    /// What of the primary is left out here.
    left: Vec<Left>,
    /// What was, when the message came.
    left_before: Vec<Left>,
    /// The table being read, if it is left out: its rows wait.
    waiting: Option<TableHead>,
    /// Tables that turned out not to be writable when this message was tried before.
    not_writable: Vec<Unwritable>,
    /// One that turns out to be so now.
    unwritable: Option<Unwritable>,
    /// Whether the message altered anything.
    altered: bool,
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
            sequences: schema::sequences(tx).doing(|| "reading sqlite_sequence".into())?,
            unique: Vec::new(),
            left: left_out::read(tx)?,
            left_before: left_out::read(tx)?,
            waiting: None,
            not_writable: Vec::new(),
            unwritable: None,
            altered: false,
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
                for sql in std::mem::take(&mut self.unique) {
                    self.create(&sql)?;
                }
                for indexer in std::mem::take(&mut self.rebuild) {
                    match self.tx.execute_batch(&indexer.rebuild()) {
                        Err(e) if concerns_object(&e) => self.leave_out_virtual(&indexer.name, &e)?,
                        other => other.doing(doing)?,
                    }
                }
                if self.schema_changed {
                    self.bring_back()?;
                }
                self.write_sequences()
            }
        }
    }

    fn schema(&mut self, statements: &[String]) -> Result<()> {
        self.schema_changed = true;
        unguard(self.tx)?;
        let aside = self.set_aside(statements)?;
        // An index that has its columns from its table cannot be opened, and so not dropped, once that is gone. Others are dropped in
        // their turn: triggers that write to them keep a table from being altered once they are gone.
        let drops_index = |sql: &&String| {
            let is_it = |o: &Object, name: &str| o.name == name && virtuals::has_columns_of_its_table(o);
            sqltext::dropped(sql).is_some_and(|(_, name)| self.virtuals.iter().any(|o| is_it(o, &name)))
        };
        let (first, then): (Vec<&String>, Vec<&String>) = statements.iter().partition(drops_index);
        for sql in first.into_iter().chain(then) {
            if self.reset(sql)? {
                continue;
            }
            self.check_statement(sql)?;
            if sql.starts_with("CREATE UNIQUE INDEX ") {
                self.unique.push(sql.clone());
                continue;
            }
            if let Some((kind, name)) = sqltext::dropped(sql) {
                self.drop(sql, &kind, &name)?;
            } else if let Some((name, to)) = sqltext::altered(sql) {
                self.alter(sql, &name, to.as_deref())?;
            } else if !self.restate(sql)? {
                self.create(sql)?;
            }
        }
        aside.iter().try_for_each(|object| self.create(&object.sql))?;
        // Made anew by these statements, they are no more writable.
        self.leave_out_tables(&self.not_writable.clone())?;
        self.find_virtuals()?;
        // A column may be dropped and added again under a name that an index has.
        let dropped =
            statements.iter().filter(|sql| sql.contains(" DROP COLUMN ")).filter_map(|sql| sqltext::altered(sql));
        let dropped: Vec<String> = dropped.map(|(table, _)| table.to_ascii_lowercase()).collect();
        let is_over =
            |o: &Object| matches!(virtuals::way(o), Way::Index(i) if dropped.contains(&i.content.to_ascii_lowercase()));
        let stale = |o: &&Object| statements.contains(&o.sql) || aside.contains(o) || is_over(o);
        for object in self.virtuals.iter().filter(stale) {
            if let Way::Index(indexer) = virtuals::way(object) {
                self.rebuild.push(indexer);
            }
        }
        Ok(())
    }

    /// Takes away the FTS4 indexes that have the columns of their tables, since those may change: they are made again afterwards.
    fn set_aside(&mut self, statements: &[String]) -> Result<Vec<Object>> {
        let named =
            |o: &Object| statements.iter().any(|sql| sqltext::dropped(sql).is_some_and(|(_, name)| name == o.name));
        let aside = self.virtuals.iter().filter(|o| virtuals::has_columns_of_its_table(o) && !named(o));
        let aside: Vec<Object> = aside.cloned().collect();
        for object in &aside {
            let sql = format!("DROP TABLE {}", quote(&object.name));
            self.tx.execute(&sql, []).doing(|| self.changing(&sql))?;
        }
        Ok(aside)
    }

    /// Runs a CREATE; what this SQLite cannot make is left out.
    fn create(&mut self, sql: &str) -> Result<()> {
        self.tx.execute_batch("SAVEPOINT _logos_create").doing(|| self.changing(sql))?;
        let created = create_as_written(self.tx, sql);
        let undo = if created.is_err() { "ROLLBACK TO _logos_create; " } else { "" };
        self.tx.execute_batch(&format!("{undo}RELEASE _logos_create")).doing(|| self.changing(sql))?;
        let Err(e) = created else { return Ok(()) };
        match sqltext::created(sql).filter(|_| concerns_object(&e)) {
            Some((kind, name, table)) => {
                self.note(Left { kind, name, table, sql: Some(sql.to_string()), reason: reason(&e), head: None });
                Ok(())
            }
            None => Err(e).doing(|| self.changing(sql)),
        }
    }

    fn drop(&mut self, sql: &str, kind: &str, name: &str) -> Result<()> {
        let is_it = |l: &Left| l.kind == kind && l.name == name;
        let left = self.left.iter().any(is_it);
        let carries = matches!(kind, "table" | "view");
        self.left.retain(|l| !(is_it(l) || (carries && l.table == name)));
        if left && kind == "table" {
            left_out::forget_rows(self.tx, name).doing(|| self.changing(sql))?;
        }
        if left && !self.exists(kind, name)? {
            return Ok(());
        }
        let dropped = self.tx.execute(sql, []);
        match dropped {
            // A virtual table without its module cannot be dropped: it stays, and nothing is written to it.
            Err(e) if concerns_object(&e) && left => Ok(()),
            other => other.map(drop).doing(|| self.changing(sql)),
        }
    }

    /// An ALTER of what is left out changes a text that is not in the schema here; then it is not known any more.
    fn alter(&mut self, sql: &str, name: &str, to: Option<&str>) -> Result<()> {
        self.altered = true;
        if sqltext::updated(sql).is_none() && self.exists("table", name)? {
            let altered = collation::with_stand_ins(self.tx, || self.tx.execute(sql, []).map(drop));
            altered.doing(|| self.changing(sql))?;
        }
        for left in self.left.iter_mut().filter(|l| l.table == name) {
            if left.name == name {
                (left.sql, left.head) = (None, None);
                left.name = to.unwrap_or(name).to_string();
                left_out::forget_rows(self.tx, name).doing(|| format!("altering {}", quote(name)))?;
            }
            left.table = to.unwrap_or(name).to_string();
        }
        Ok(())
    }

    fn exists(&self, kind: &str, name: &str) -> Result<bool> {
        let mut statement = self
            .tx
            .prepare("SELECT 1 FROM sqlite_schema WHERE type = ?1 AND name = ?2 COLLATE NOCASE")
            .doing(|| "reading the schema".into())?;
        statement.exists((kind, name)).doing(|| "reading the schema".into())
    }

    fn note(&mut self, left: Left) {
        self.left.retain(|l| (&l.kind, &l.name) != (&left.kind, &left.name));
        self.left.push(left);
    }

    /// Leaves out tables that are in the file, or will be.
    fn leave_out_tables(&mut self, tables: &[Unwritable]) -> Result<()> {
        for (name, reason) in tables {
            let sql = self.text_of_table(name)?;
            let (kind, table) = ("table".to_string(), name.clone());
            self.note(Left { kind, name: name.clone(), table, sql, reason: reason.clone(), head: None });
        }
        Ok(())
    }

    fn text_of_table(&self, name: &str) -> Result<Option<String>> {
        let query = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        self.tx.query_row(query, [name], |row| row.get(0)).optional().doing(|| "reading the schema".into())
    }

    fn leave_out_virtual(&mut self, name: &str, e: &rusqlite::Error) -> Result<()> {
        self.virtuals.retain(|o| o.name != name);
        self.leave_out_tables(&[(name.to_string(), reason(e))])
    }

    /// Whether the schema is the primary's, what is left out included.
    fn check_schema(&mut self, expected: logos_log::ids::Digest) -> Result<()> {
        let Some(objects) = left_out::whole_schema(self.tx, &self.left)? else { return Ok(()) };
        if schema::fingerprint(&objects) == expected {
            return Ok(());
        }
        if self.altered && !self.left.is_empty() {
            // An ALTER changes the texts of indexes, views and triggers too, here only of those that are here.
            self.left.iter_mut().for_each(|l| l.sql = None);
            return Ok(());
        }
        Err(Error::resync(
            format!("after message {} the schema of this replica is not the primary's", self.seq),
            "the message was undone and the position is kept; it was changed here by hand, or this SQLite is too different \
             from the primary's: rebuild by attaching a new file",
        ))
    }

    fn store_left_out(&self) -> Result<()> {
        match self.left == self.left_before {
            true => Ok(()),
            false => left_out::store(self.tx, &self.left),
        }
    }

    /// Makes and fills what was left out and works by now: with another SQLite, a module or collation that is there, or what it
    /// depends on made meanwhile.
    fn bring_back(&mut self) -> Result<()> {
        for kind in ["table", "view", "index", "trigger"] {
            for left in self.left.iter().filter(|l| l.kind == kind && l.sql.is_some()).cloned().collect::<Vec<_>>() {
                let doing = || format!("bringing {} {} back", left.kind, quote(&left.name));
                self.tx.execute_batch("SAVEPOINT _logos_back").doing(doing)?;
                let made = self.make(&left);
                match &made {
                    Ok(()) => {
                        self.schema_changed = true;
                        self.left.retain(|l| (&l.kind, &l.name) != (&left.kind, &left.name));
                    }
                    Err(e) if concerns_object(e) || is_clash(e) => {
                        self.section = None;
                        self.tx.execute_batch("ROLLBACK TO _logos_back").doing(doing)?;
                        self.left.iter_mut().filter(|l| **l == left).for_each(|l| l.reason = reason(e));
                    }
                    Err(_) => {}
                }
                self.tx.execute_batch("RELEASE _logos_back").doing(doing)?;
                if made.as_ref().is_err_and(|e| !concerns_object(e) && !is_clash(e)) {
                    return made.doing(doing);
                }
            }
        }
        self.find_virtuals()
    }

    fn make(&mut self, left: &Left) -> rusqlite::Result<()> {
        let Some(object) = left.object() else { return Ok(()) };
        let exists = self.tx.prepare("SELECT 1 FROM sqlite_schema WHERE type = ?1 AND name = ?2")?;
        if !{ exists }.exists((&left.kind, &left.name))? {
            create_as_written(self.tx, &object.sql)?;
        }
        if let (true, Way::Index(indexer)) = (object.is_virtual(), virtuals::way(&object)) {
            return self.tx.execute_batch(&indexer.rebuild());
        }
        if let Some((columns, key)) = left.head.clone() {
            let head = TableHead { name: left.name.clone(), extent: Extent::Keys, columns, key };
            let mut section = self.section_of(head, Vec::new(), object.is_virtual())?;
            let (tx, encoding, width) = (self.tx, self.encoding, section.head.columns.len());
            left_out::kept(tx, &left.name, width, |kept| match kept.key {
                Some(key) => section.replace(tx, Some(&key), &kept.rows, encoding),
                None => {
                    let delete = section.delete.take();
                    let inserted = section.replace(tx, None, &kept.rows, encoding);
                    section.delete = delete;
                    inserted
                }
            })?;
            section.insert_all_deferred(tx, encoding).map_err(|(e, _)| e)?;
            left_out::forget_rows(tx, &left.name)?;
        }
        self.indexers(&left.name).iter().try_for_each(|indexer| self.tx.execute_batch(&indexer.rebuild()))
    }

    /// A CREATE TABLE of a table that is there already gives it another text (constraints came or went) and keeps its rows.
    fn restate(&mut self, sql: &str) -> Result<bool> {
        let Some(name) = sqltext::created_table(sql) else { return Ok(false) };
        let left = self.left.iter_mut().filter(|l| l.kind == "table" && l.name == name && l.sql.is_some());
        let left = left.map(|l| l.sql = Some(sql.to_string())).count() > 0;
        let there = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
        if !self.tx.query_row(there, [&name], |row| row.get(0)).doing(|| self.changing(sql))? {
            return Ok(left);
        }
        let done = diff::restate(self.tx, &name, sql);
        if matches!(done, Err(rusqlite::Error::InvalidQuery)) {
            return Err(Error::resync(
                format!(
                    "message {} gives table {} another text, and this replica's table has other columns or indexes than that",
                    self.seq,
                    quote(&name)
                ),
                "the message was undone and the position is kept; the table was made or changed here by hand: rebuild by \
                 attaching a new file",
            ));
        }
        done.doing(|| self.changing(sql)).map(|()| true)
    }

    fn leaves_out(&self, table: &str) -> bool {
        self.left.iter().any(|l| l.kind == "table" && l.name == table)
    }

    /// An UPDATE is only taken if it sets a column back to its default, as dropping and adding it does.
    fn reset(&mut self, sql: &str) -> Result<bool> {
        if !sql.starts_with("UPDATE ") {
            return Ok(false);
        }
        if let Some((name, _)) = sqltext::updated(sql).filter(|(name, _)| self.leaves_out(name)) {
            // What its rows would be is not known any more.
            self.alter(sql, &name, None)?;
            return Ok(true);
        }
        let Some(object) = reset::is_statement(sql, &schema::read(self.tx)?) else { return Ok(false) };
        let changed = self.tx.execute(sql, []).doing(|| self.changing(sql))?;
        if changed > 0 {
            self.find_virtuals()?;
            let indexers = self.indexers(&object.name);
            self.rebuild.extend(indexers.iter().filter(|i| !self.rebuild.contains(i)).cloned().collect::<Vec<_>>());
        }
        Ok(true)
    }

    /// A publisher may change the schema, and nothing else: no other statement, no second one behind the first (`execute`
    /// refuses those), no virtual table that we would not send.
    fn check_statement(&self, sql: &str) -> Result<()> {
        let object = Object { kind: "table".into(), name: String::new(), table: String::new(), sql: sql.to_string() };
        let known = !object.is_virtual() || !matches!(virtuals::way(&object), Way::LeftOut(_));
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
        let (name, seq) = (head.name.clone(), self.seq);
        let doing = || format!("preparing table {} (message {seq})", quote(&name));
        self.waiting = None;
        if let Some(left) = self.left.iter_mut().find(|l| l.kind == "table" && l.name == head.name) {
            let width = left.head.as_ref().map(|(columns, _)| columns);
            if head.extent == Extent::Whole || width != Some(&head.columns) {
                left.head = Some((head.columns.clone(), head.key.clone()));
                left_out::forget_rows(self.tx, &head.name).doing(doing)?;
            }
            self.waiting = Some(head);
            return Ok(());
        }
        self.check_rowids(&head)?;
        let mut indexers = self.indexers(&head.name);
        if head.extent == Extent::Whole {
            let emptied = self.tx.execute_batch(&format!("DELETE FROM {}", quote(&head.name)));
            emptied.map_err(|e| self.cannot_write(&head.name, e)).doing(doing)?;
            self.rebuild.extend(indexers.iter().filter(|i| !self.rebuild.contains(i)).cloned().collect::<Vec<_>>());
        }
        indexers.retain(|indexer| !self.rebuild.contains(indexer));
        // An index whose module is not here any more must not keep its table from being written.
        for indexer in indexers.clone() {
            match indexer.learn(self.tx, "0").and_then(|sql| self.tx.prepare(&sql).map(drop)) {
                Err(e) if concerns_object(&e) => {
                    self.leave_out_virtual(&indexer.name, &e)?;
                    indexers.retain(|i| *i != indexer);
                }
                _ => {}
            }
        }
        let is_virtual = self.virtuals.iter().any(|o| o.name == head.name);
        let section = self.section_of(head, indexers, is_virtual);
        self.section = Some(section.map_err(|e| self.cannot_write(&name, e)).doing(doing)?);
        Ok(())
    }

    /// Takes note if an error means that the table cannot be written.
    fn cannot_write(&mut self, table: &str, e: rusqlite::Error) -> rusqlite::Error {
        if concerns_object(&e) && !self.not_writable.iter().any(|(name, _)| name == table) {
            self.unwritable = Some((table.to_string(), reason(&e)));
        }
        e
    }

    /// Prepares the statements that write a table.
    fn section_of(&self, head: TableHead, indexers: Vec<Indexer>, is_virtual: bool) -> rusqlite::Result<Section<'t>> {
        let table = quote(&head.name);
        // A virtual table looks a rowid up by `=` only; elsewhere a key may be NULL.
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
        let insert = self.tx.prepare(&format!("INSERT OR ABORT INTO {table}({columns}) VALUES({values})"))?;
        let delete = match head.extent {
            Extent::Keys => Some(self.tx.prepare(&format!("DELETE FROM {table} WHERE {condition}"))?),
            Extent::Whole => None,
        };
        let prepared = |make: &dyn Fn(&Indexer) -> rusqlite::Result<String>| {
            indexers.iter().map(|i| self.tx.prepare(&make(i)?)).collect::<rusqlite::Result<Vec<_>>>()
        };
        let forget = prepared(&|i| i.forget(self.tx, &condition))?;
        let learn = prepared(&|i| i.learn(self.tx, &condition))?;
        Ok(Section { head, delete, insert, deferred: None, forget, learn })
    }

    /// Rows that are known by a rowid alone cannot be found once VACUUM has renumbered them.
    fn check_rowids(&self, head: &TableHead) -> Result<()> {
        if !self.vacuumed || head.extent == Extent::Whole {
            return Ok(());
        }
        let objects = schema::read(self.tx)?;
        let object = objects.iter().find(|o| o.kind == "table" && o.name == head.name && !o.is_virtual());
        let table = object.and_then(|object| schema::table(self.tx, object).ok().flatten());
        let by_rowid = |table: schema::Table| head.key.iter().any(|&k| table.rowid_names.contains(&head.columns[k]));
        if !table.is_some_and(by_rowid) {
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
        if let Some(head) = &self.waiting {
            let doing = || format!("keeping rows of table {} (message {seq})", quote(&head.name));
            let own = || head.key.iter().filter_map(|&k| rows.first().and_then(|row| row.get(k))).collect::<Vec<_>>();
            return match (head.extent, key) {
                (Extent::Whole, _) => rows.iter().try_for_each(|row| left_out::keep_row(tx, head, row)),
                (Extent::Keys, Some(key)) => left_out::keep(tx, head, &key.iter().collect::<Vec<_>>(), rows),
                (Extent::Keys, None) => left_out::keep(tx, head, &own(), rows),
            }
            .doing(doing);
        }
        let Some(section) = &mut self.section else { return Err(Error::bug("a record outside a table section")) };
        let Err(e) = section.replace(tx, key, rows, encoding) else { return Ok(()) };
        let name = section.head.name.clone();
        Err(self.cannot_write(&name, e)).doing(|| format!("writing table {} (message {seq})", quote(&name)))
    }

    /// Inserts the rows that had to wait: all old ones are gone now.
    fn end_section(&mut self) -> Result<()> {
        self.waiting = None;
        let Some(mut section) = self.section.take() else { return Ok(()) };
        let Err((e, row)) = section.insert_all_deferred(self.tx, self.encoding) else { return Ok(()) };
        match row {
            Some(row) if is_clash(&e) => Err(self.divergence(&section.head, &row, &e)),
            _ => Err(self.cannot_write(&section.head.name, e))
                .doing(|| format!("writing table {} (message {})", quote(&section.head.name), self.seq)),
        }
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
        let exists = schema::has_sequences(self.tx).doing(doing)?;
        if !exists || schema::sequences(self.tx).doing(doing)? == self.sequences {
            return Ok(());
        }
        self.tx.execute("DELETE FROM sqlite_sequence", []).doing(doing)?;
        let mut insert = self.tx.prepare("INSERT INTO sqlite_sequence(name, seq) VALUES(?1, ?2)").doing(doing)?;
        self.sequences.iter().try_for_each(|s| insert.execute((&s.0, s.1)).map(drop)).doing(doing)
    }
}

/// Runs a CREATE and sees to it that the schema says the same here, byte for byte: whoever wrote the primary's with `PRAGMA
/// writable_schema` need not have written what SQLite would (small letters, blanks at the end), and a trigger may name a schema.
fn create_as_written(tx: &Connection, sql: &str) -> rusqlite::Result<()> {
    let Some((kind, name, _)) = sqltext::created(sql) else { return tx.execute(sql, []).map(drop) };
    match kind.as_str() {
        "table" => collation::make_table(tx, sql, &name)?,
        _ => drop(tx.execute(sqltext::trigger_on_any_schema(sql).as_deref().unwrap_or(sql), [])?),
    }
    let mut same = tx.prepare("SELECT 1 FROM sqlite_schema WHERE type = ?1 AND name = ?2 AND sql = ?3")?;
    if same.exists((&kind, &name, sql))? {
        return Ok(());
    }
    tx.pragma_update(None, "writable_schema", true)?;
    let written = tx.execute("UPDATE sqlite_schema SET sql = ?3 WHERE type = ?1 AND name = ?2", (&kind, &name, sql));
    tx.pragma_update(None, "writable_schema", false)?;
    written.map(drop)
}

/// A text as it fits into a sentence.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// What can be made by now of what was left out is made, and filled with the rows that waited.
pub fn bring_back(conn: &mut Connection) -> Result<()> {
    let _inside = fork::enter();
    if left_out::read(conn)?.is_empty() {
        return Ok(());
    }
    let doing = || "bringing back what was left out".to_string();
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).doing(doing)?;
    let encoding: String = tx.pragma_query_value(None, "encoding", |row| row.get(0)).doing(doing)?;
    let encoding = Encoding::from_pragma(&encoding).unwrap_or(Encoding::Utf8);
    {
        let seq = position(&tx)?.map_or(0, |s| s.position.seq);
        let mut applying = Applying::new(&tx, encoding, seq, false)?;
        unguard(&tx)?;
        applying.bring_back()?;
        guard(&tx)?;
        applying.write_sequences()?;
        applying.store_left_out()?;
    }
    tx.commit().doing(doing)
}
