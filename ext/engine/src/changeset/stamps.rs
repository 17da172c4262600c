//! Stamps: whether the rows of a virtual table are as they were.
//!
//! Virtual tables have no triggers, so nothing in the log tells of their rows. Their modules keep marks of their own, but none
//! that changes with every change: FTS3/4 begins anew when its last row goes, FTS5 with a rebuild, rtree counts nothing. So a
//! stamp is a digest of what holds the rows, and it is computed only when something may have written there (`capture::ledger`).
//!
//! Invariants
//! - Two stamps are equal only if the rows are, in type and in every byte.
//! - SQLite tells no hook of a DELETE without a condition, which empties a table at once. So a table that is empty is always looked at.

use std::io::{BufWriter, Write};

use logos_log::ids::Digest;
use logos_log::value;
use rusqlite::Connection;

use crate::catalog::values::Reading;
use crate::catalog::{quote, schema};

/// Digest of the tables that hold a virtual table's rows.
pub fn stamp(conn: &Connection, how: &Reading, shadows: &[String]) -> rusqlite::Result<Digest> {
    let mut queries = Vec::new();
    for table in shadows {
        let columns = schema::column_names(conn, table)?;
        let sql = format!("SELECT {} FROM {} AS t ORDER BY t.rowid", how.list(&columns), quote(table));
        queries.push((sql, columns.len()));
    }
    digest(conn, how, &queries)
}

/// Digest of the rows of queries, each with the number of its values.
pub fn digest(conn: &Connection, how: &Reading, queries: &[(String, usize)]) -> rusqlite::Result<Digest> {
    let mut out = BufWriter::with_capacity(1 << 16, blake3::Hasher::new());
    let failed = |e: &dyn std::fmt::Display| rusqlite::Error::UserFunctionError(e.to_string().into());
    for (sql, columns) in queries {
        let mut statement = conn.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let values = how.values(row, 0, *columns)?;
            values.into_iter().try_for_each(|v| value::encode(&mut out, v)).map_err(|e| failed(&e))?;
        }
        write!(out, "end of {columns}").map_err(|e| failed(&e))?;
    }
    let hasher = out.into_inner().map_err(|e| failed(&e))?;
    Ok(Digest(*hasher.finalize().as_bytes()))
}

/// Whether one of the tables has no row.
pub fn is_any_empty(conn: &Connection, shadows: &[String]) -> rusqlite::Result<bool> {
    for table in shadows {
        let some: bool =
            conn.query_row(&format!("SELECT EXISTS (SELECT 1 FROM {})", quote(table)), [], |r| r.get(0))?;
        if !some {
            return Ok(true);
        }
    }
    Ok(false)
}
