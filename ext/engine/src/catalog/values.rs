//! Values as statements take and give them: type and bytes as they are stored, whatever the encoding of the database's text.
//!
//! SQLite hands out and takes UTF-8, and converting loses what is not valid. So in a UTF-16 database a text is read as a blob and marked, and
//! bound in the same way.

use logos_log::payload::Encoding;
use logos_log::value::{Value, ValueRef};
use rusqlite::limits::Limit;
use rusqlite::types::{ToSqlOutput, ValueRef as SqlRef};
use rusqlite::{Connection, Row, Statement};

use super::quote;
use crate::error::{Doing, Error, Result};

/// How a database encodes text.
pub fn encoding(conn: &Connection) -> Result<Encoding> {
    let encoding: String =
        conn.pragma_query_value(None, "encoding", |row| row.get(0)).doing(|| "looking at the text encoding".into())?;
    Encoding::from_pragma(&encoding)
        .ok_or_else(|| Error::bug(format!("the database has the unknown text encoding {encoding:?}")))
}

/// The parameter of value `i`, as `bind` binds it: text in UTF-16 is bound as the blob that it is stored as, and marked.
/// Older SQLite takes a bound blob for UTF-8 when it is cast to text (here, or by an index or a generated column of the
/// table), but not one that a function returned (which is NULL for an empty one).
pub fn param(encoding: Encoding, i: usize) -> String {
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

/// Binds values to the parameters that `param` names.
pub fn bind<'v>(
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

/// How columns are selected so that text comes as the bytes it is stored in. SQLite hands out UTF-8 whatever the
/// database's encoding, and converting loses what is not valid; so elsewhere text is read as a blob and marked.
pub struct Reading {
    utf8: bool,
}

impl Reading {
    /// For a database of this encoding.
    pub fn of(encoding: Encoding) -> Self {
        Self { utf8: encoding == Encoding::Utf8 }
    }

    /// How an expression is selected.
    pub fn select(&self, expression: &str) -> String {
        if self.utf8 {
            expression.to_string()
        } else {
            format!(
                "CASE typeof({expression}) WHEN 'text' THEN CAST({expression} AS BLOB) ELSE {expression} END, \
                 typeof({expression}) = 'text'"
            )
        }
    }

    /// Result columns for each value.
    pub fn stride(&self) -> usize {
        if self.utf8 {
            1
        } else {
            2
        }
    }

    /// The value selected from result column `at` on.
    pub fn get<'r>(&self, row: &'r Row<'_>, at: usize) -> rusqlite::Result<ValueRef<'r>> {
        use rusqlite::types::ValueRef as V;
        Ok(match row.get_ref(at)? {
            V::Null => ValueRef::Null,
            V::Integer(i) => ValueRef::Integer(i),
            V::Real(r) => ValueRef::Real(r),
            V::Text(t) => ValueRef::Text(t),
            V::Blob(b) if !self.utf8 && row.get::<_, bool>(at + 1)? => ValueRef::Text(b),
            V::Blob(b) => ValueRef::Blob(b),
        })
    }

    /// A list of columns of the table that is called `t`.
    pub fn list(&self, columns: &[String]) -> String {
        columns.iter().map(|c| self.select(&format!("t.{}", quote(c)))).collect::<Vec<_>>().join(", ")
    }

    /// The first `n` values of a row, from value `at` on.
    pub fn values<'r>(&self, row: &'r Row<'_>, at: usize, n: usize) -> rusqlite::Result<Vec<ValueRef<'r>>> {
        (at..at + n).map(|i| self.get(row, i * self.stride())).collect()
    }

    /// Columns that one SELECT can return. A table can have as many as SQLite lets a SELECT return, and there is the rowid
    /// besides, or a mark of each text.
    pub fn width(&self, conn: &Connection) -> rusqlite::Result<usize> {
        let most = conn.limit(Limit::SQLITE_LIMIT_COLUMN)?;
        Ok((usize::try_from(most).unwrap_or_default() / self.stride()).max(1))
    }
}
