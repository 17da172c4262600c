//! Sections: the rows of one table of a message, put in the place of those that have their keys.
//!
//! Invariants
//! - What had the key goes, what has it now comes. A row that clashes with one whose turn has not come is kept for the section's
//!   end; then every old row is gone.
//! - Values are stored byte for byte as the primary stores them, in whatever encoding.

use logos_log::payload::{Encoding, TableHead};
use logos_log::value::{self, Value};
use rusqlite::{Statement, Transaction};

use crate::catalog::values::bind;
use crate::host::blame::is_clash;

/// The table whose records are being applied.
pub(super) struct Section<'t> {
    pub head: TableHead,
    /// Takes away what has a key; nothing where the table is sent whole, and was emptied.
    pub delete: Option<Statement<'t>>,
    pub insert: Statement<'t>,
    pub deferred: Option<Statement<'t>>,
    /// What takes a key's rows out of the FTS indexes over this table, and puts them in.
    pub forget: Vec<Statement<'t>>,
    pub learn: Vec<Statement<'t>>,
}

impl<'t> Section<'t> {
    /// Puts `rows` in the place of whatever has the key (the only row's own, if not given).
    pub fn replace(
        &mut self,
        tx: &'t Transaction<'t>,
        key: Option<&[Value]>,
        rows: &[Vec<Value>],
        encoding: Encoding,
    ) -> rusqlite::Result<()> {
        let own = || rows.first().map(|row| self.key_of(row)).unwrap_or_default();
        let values: Vec<&Value> = key.map_or_else(own, |key| key.iter().collect());
        if let Some(delete) = &mut self.delete {
            run_all(&mut self.forget, &values, encoding)?;
            bind(delete, values.iter().copied(), encoding)?;
            delete.raw_execute()?;
        }
        let mut waits = false;
        for row in rows {
            bind(&mut self.insert, row.iter(), encoding)?;
            match self.insert.raw_execute() {
                Ok(_) => {}
                Err(e) if is_clash(&e) => {
                    self.defer(tx, row)?;
                    waits = true;
                }
                Err(e) => return Err(e),
            }
        }
        if !waits && !rows.is_empty() {
            run_all(&mut self.learn, &values, encoding)?;
        }
        Ok(())
    }

    /// The key columns of a row.
    fn key_of<'v>(&self, row: &'v [Value]) -> Vec<&'v Value> {
        self.head.key.iter().filter_map(|&k| row.get(k)).collect()
    }

    /// Keeps a row for the end of the section, in a temporary table, so that memory is bounded by SQLite's cache. As bytes: a row
    /// may have one column more than a table can have, the rowid.
    fn defer(&mut self, tx: &'t Transaction<'t>, row: &[Value]) -> rusqlite::Result<()> {
        let bytes = (encoded(self.key_of(row))?, encoded(row)?);
        let deferred = match &mut self.deferred {
            Some(deferred) => deferred,
            none => {
                tx.execute_batch(
                    "DROP TABLE IF EXISTS temp._logos_deferred; CREATE TEMP TABLE _logos_deferred(key BLOB, row BLOB)",
                )?;
                none.insert(tx.prepare("INSERT INTO temp._logos_deferred VALUES(?1, ?2)")?)
            }
        };
        deferred.execute(bytes).map(drop)
    }

    /// Inserts the rows that had to wait: all old ones are gone now. An error comes with the row that it is about.
    pub fn insert_all_deferred(
        &mut self,
        tx: &Transaction<'_>,
        encoding: Encoding,
    ) -> Result<(), (rusqlite::Error, Option<Vec<Value>>)> {
        if self.deferred.take().is_none() {
            return Ok(());
        }
        let plain = |e| (e, None);
        let mut rows = tx.prepare("SELECT row FROM temp._logos_deferred ORDER BY rowid").map_err(plain)?;
        let mut rows = rows.query([]).map_err(plain)?;
        while let Some(row) = rows.next().map_err(plain)? {
            let row = decoded(row, 0).map_err(plain)?;
            let inserted = bind(&mut self.insert, row.iter(), encoding).and_then(|()| self.insert.raw_execute());
            inserted.map_err(|e| (e, Some(row)))?;
        }
        drop(rows);
        // Into the FTS indexes once a key, since several rows may have it.
        let mut keys = tx.prepare("SELECT DISTINCT key FROM temp._logos_deferred").map_err(plain)?;
        let mut keys = keys.query([]).map_err(plain)?;
        while let Some(row) = keys.next().map_err(plain)? {
            let key = decoded(row, 0).map_err(plain)?;
            run_all(&mut self.learn, &key.iter().collect::<Vec<_>>(), encoding).map_err(plain)?;
        }
        drop(keys);
        tx.execute_batch("DROP TABLE temp._logos_deferred").map_err(plain)
    }
}

/// Values as they wait in a table.
pub(super) fn encoded<'v>(values: impl IntoIterator<Item = &'v Value>) -> rusqlite::Result<Vec<u8>> {
    value::to_bytes(values).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))
}

/// Values that waited in a table: column `i` of a row there.
pub(super) fn decoded(row: &rusqlite::Row<'_>, i: usize) -> rusqlite::Result<Vec<Value>> {
    let bytes = row.get_ref(i)?.as_bytes()?;
    let kind = rusqlite::types::Type::Blob;
    value::from_bytes(bytes).map_err(|e| rusqlite::Error::FromSqlConversionFailure(i, kind, Box::new(e)))
}

/// Runs statements that take a key.
fn run_all(statements: &mut [Statement<'_>], key: &[&Value], encoding: Encoding) -> rusqlite::Result<()> {
    statements.iter_mut().try_for_each(|statement| {
        bind(statement, key.iter().copied(), encoding)?;
        statement.raw_execute().map(drop)
    })
}
