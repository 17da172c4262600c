//! Sections: the rows of one table of a message, put in the place of those that have their keys.
//!
//! Invariants
//! - What had the key goes, what has it now comes. A row that clashes with one whose turn has not come is kept for the section's
//!   end; then every old row is gone.
//! - Values are stored byte for byte as the primary stores them, in whatever encoding.

use logos_log::payload::{Encoding, Extent, TableHead};
use logos_log::value::{Value, ValueRef};
use rusqlite::types::{ToSqlOutput, ValueRef as SqlRef};
use rusqlite::{Statement, Transaction};

/// The table whose records are being applied.
pub(super) struct Section<'t> {
    pub head: TableHead,
    pub delete: Statement<'t>,
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
        let own = || self.head.key.iter().filter_map(|&k| rows.first().and_then(|row| row.get(k)));
        let values: Vec<&Value> = key.map_or_else(|| own().collect(), |key| key.iter().collect());
        if self.head.extent == Extent::Keys {
            run_all(&mut self.forget, &values, encoding)?;
            bind(&mut self.delete, values.iter().copied(), encoding)?;
            self.delete.raw_execute()?;
        }
        let mut waits = false;
        for row in rows {
            bind(&mut self.insert, row.iter(), encoding)?;
            match self.insert.raw_execute() {
                Ok(_) => {}
                Err(e) if is_clash(&e) => {
                    self.defer(tx, row, encoding)?;
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

    /// Keeps a row for the end of the section, in a temporary table: values as they are, memory bounded by SQLite's cache.
    fn defer(&mut self, tx: &'t Transaction<'t>, row: &[Value], encoding: Encoding) -> rusqlite::Result<()> {
        let deferred = match &mut self.deferred {
            Some(deferred) => deferred,
            none => {
                let columns = (0..row.len()).map(|i| format!("c{i}")).collect::<Vec<_>>().join(", ");
                let values = (0..row.len()).map(|i| param(encoding, i)).collect::<Vec<_>>().join(", ");
                tx.execute_batch(&format!(
                    "DROP TABLE IF EXISTS temp._logos_deferred; CREATE TEMP TABLE _logos_deferred({columns})"
                ))?;
                none.insert(tx.prepare(&format!("INSERT INTO temp._logos_deferred VALUES({values})"))?)
            }
        };
        bind(deferred, row.iter(), encoding)?;
        deferred.raw_execute().map(drop)
    }
}

/// The parameter of value `i`, as `bind` binds it: text in UTF-16 is bound as the blob that it is stored as, and marked.
/// Older SQLite takes a bound blob for UTF-8 when it is cast to text (here, or by an index or a generated column of the
/// table), but not one that a function returned (which is NULL for an empty one).
pub(super) fn param(encoding: Encoding, i: usize) -> String {
    match encoding {
        Encoding::Utf8 => format!("?{}", i + 1),
        _ => format!(
            "CASE WHEN ?{0} THEN CAST(ifnull(substr(?{1}, 1), '') AS TEXT) \
             WHEN typeof(?{1}) = 'blob' THEN ifnull(substr(?{1}, 1), ?{1}) ELSE ?{1} END",
            2 * i + 2,
            2 * i + 1
        ),
    }
}

/// Runs statements that take a key.
fn run_all(statements: &mut [Statement<'_>], key: &[&Value], encoding: Encoding) -> rusqlite::Result<()> {
    statements.iter_mut().try_for_each(|statement| {
        bind(statement, key.iter().copied(), encoding)?;
        statement.raw_execute().map(drop)
    })
}

/// Whether a row could not be inserted because another has its key or a UNIQUE value of it.
pub(super) fn is_clash(e: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID, SQLITE_CONSTRAINT_UNIQUE};
    e.sqlite_error().is_some_and(|e| {
        [SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID, SQLITE_CONSTRAINT_UNIQUE].contains(&e.extended_code)
    })
}

fn bind<'v>(
    statement: &mut Statement<'_>,
    values: impl Iterator<Item = &'v Value>,
    encoding: Encoding,
) -> rusqlite::Result<()> {
    for (i, value) in values.enumerate() {
        let sql = match value.as_ref() {
            ValueRef::Null => SqlRef::Null,
            ValueRef::Integer(n) => SqlRef::Integer(n),
            ValueRef::Real(r) => SqlRef::Real(r),
            ValueRef::Text(t) if encoding == Encoding::Utf8 => SqlRef::Text(t),
            ValueRef::Text(b) | ValueRef::Blob(b) => SqlRef::Blob(b),
        };
        if encoding == Encoding::Utf8 {
            statement.raw_bind_parameter(i + 1, ToSqlOutput::Borrowed(sql))?;
        } else {
            statement.raw_bind_parameter(2 * i + 1, ToSqlOutput::Borrowed(sql))?;
            statement.raw_bind_parameter(2 * i + 2, matches!(value, Value::Text(_)))?;
        }
    }
    Ok(())
}
