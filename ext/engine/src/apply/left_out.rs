//! What a replica leaves out: objects of the primary that this SQLite cannot make, and tables that it cannot write.
//!
//! A module, function or collation that only the primary's application has, or a syntax that is newer than this SQLite, concerns
//! one object and must not keep the others from arriving. Such an object is noted by kind and name, with its text and the reason.
//! The rows of a table wait here, the newest for each key, so that it can be made and filled as soon as that works; nobody could
//! ask the primary for them again.
//!
//! Invariants
//! - An object is in the file, or noted here with its text, or (after an ALTER that could not be followed) noted without one:
//!   then the schema as a whole cannot be checked any more, and a new file is the way back.
//! - Only what SQLite says of the statement itself leaves anything out (`host::blame`). A full disk, a lock, a damaged file,
//!   or a row that clashes with another do not.
//!
//! Not here: making and filling what was left out (`apply`).

use logos_log::payload::TableHead;
use logos_log::value::Value;
use rusqlite::Connection;

use super::section::{decoded, encoded};
use crate::catalog::collation;
use crate::catalog::schema::{self, Object};
use crate::error::{Doing, Result};

/// One object that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    /// "table", "index", "view" or "trigger".
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The table it belongs to.
    pub table: String,
    /// The statement that makes it; `None`: not known since an ALTER.
    pub sql: Option<String>,
    /// Why.
    pub reason: String,
    /// For a table, how its waiting rows are to be read.
    pub head: Option<(Vec<String>, Vec<usize>)>,
}

impl Left {
    /// The object, if its text is known.
    pub fn object(&self) -> Option<Object> {
        let sql = self.sql.clone()?;
        Some(Object { kind: self.kind.clone(), name: self.name.clone(), table: self.table.clone(), sql })
    }
}

fn is_there(conn: &Connection) -> rusqlite::Result<bool> {
    conn.prepare("SELECT 1 FROM sqlite_schema WHERE name = '_logos_left_out'")?.exists([])
}

/// What is left out in this file.
pub(super) fn read(conn: &Connection) -> Result<Vec<Left>> {
    read_all(conn).doing(|| "reading what this replica leaves out".into())
}

fn read_all(conn: &Connection) -> rusqlite::Result<Vec<Left>> {
    if !is_there(conn)? {
        return Ok(Vec::new());
    }
    let mut statement =
        conn.prepare("SELECT kind, name, tbl, sql, reason, head FROM _logos_left_out ORDER BY rowid")?;
    let rows = statement.query_map([], |row| {
        let head: Option<String> = row.get(5)?;
        Ok(Left {
            kind: row.get(0)?,
            name: row.get(1)?,
            table: row.get(2)?,
            sql: row.get(3)?,
            reason: row.get(4)?,
            head: head.and_then(|head| serde_json::from_str(&head).ok()),
        })
    })?;
    rows.collect()
}

/// Writes it, in the place of what was there.
pub(super) fn store(conn: &Connection, all: &[Left]) -> Result<()> {
    store_all(conn, all).doing(|| "noting what this replica leaves out".into())
}

fn store_all(conn: &Connection, all: &[Left]) -> rusqlite::Result<()> {
    if all.is_empty() {
        return conn.execute_batch("DROP TABLE IF EXISTS _logos_left_out; DROP TABLE IF EXISTS _logos_kept");
    }
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS _logos_left_out(kind TEXT, name TEXT, tbl TEXT, sql TEXT, reason TEXT, head TEXT); \
         DELETE FROM _logos_left_out",
    )?;
    let mut insert = conn.prepare("INSERT INTO _logos_left_out VALUES(?1, ?2, ?3, ?4, ?5, ?6)")?;
    all.iter().try_for_each(|l| {
        let head = l.head.as_ref().and_then(|head| serde_json::to_string(head).ok());
        insert.execute((&l.kind, &l.name, &l.table, &l.sql, &l.reason, head)).map(drop)
    })
}

/// The schema that the primary has, as far as this replica knows it: what is here, and what is left out. `None`: an ALTER of
/// something that is left out could not be followed.
pub(super) fn whole_schema(conn: &Connection, left: &[Left]) -> Result<Option<Vec<Object>>> {
    let mut all = schema::read(conn)?;
    for left in left {
        let here = all.iter().any(|o| o.kind == left.kind && o.name == left.name);
        match left.object() {
            Some(object) if !here => all.push(object),
            Some(_) => {}
            None => return Ok(None),
        }
    }
    Ok(Some(all))
}

/// The same for whoever must know what the channel has: a text that is not known any more is as good as none.
pub fn schema(conn: &Connection) -> Result<Vec<Object>> {
    let mut known = read(conn)?;
    known.retain(|left| left.sql.is_some());
    Ok(whole_schema(conn, &known)?.unwrap_or_default())
}

/// Sentences for the status.
pub fn warnings(conn: &Connection) -> Result<Vec<String>> {
    let sentence = |l: &Left| {
        let back = match (&l.sql, l.kind.as_str()) {
            (None, _) => "; it was altered since: attach a new file once that is mended",
            (_, "table") => "; its rows wait here, and it is tried again at each attach",
            _ => "; it is tried again at each attach",
        };
        let hint = collation::missing(&l.reason).map(|name| {
            format!(
                " (register it for all connections of this process, or name what may stand for it, \
                 attach_replica(…, '{{\"collations\":{{\"{name}\":\"nocase\"}}}}'), and use the same to read)"
            )
        });
        format!("{} {} is left out: {}{}{back}", l.kind, l.name, l.reason, hint.unwrap_or_default())
    };
    Ok(read(conn)?.iter().map(sentence).collect())
}

/// Keeps what a message says of one key of a table, in the place of what was said of it before. Bytes decide what the same key
/// is: of keys that only a collation takes for one both records stay, and are applied in their order.
pub(super) fn keep(conn: &Connection, head: &TableHead, key: &[&Value], rows: &[Vec<Value>]) -> rusqlite::Result<()> {
    let (key, rows) = (encoded(key.iter().copied())?, encoded(rows.iter().flatten())?);
    let mut forget = conn.prepare("DELETE FROM _logos_kept WHERE tbl = ?1 AND key = ?2")?;
    forget.execute((&head.name, &key))?;
    let mut insert = conn.prepare("INSERT INTO _logos_kept(tbl, whole, key, rows) VALUES(?1, 0, ?2, ?3)")?;
    insert.execute((&head.name, key, rows)).map(drop)
}

/// Keeps one row of a table that comes whole: no key tells its rows apart for certain.
pub(super) fn keep_row(conn: &Connection, head: &TableHead, row: &[Value]) -> rusqlite::Result<()> {
    let mut insert = conn.prepare("INSERT INTO _logos_kept(tbl, whole, key, rows) VALUES(?1, 1, ?2, ?3)")?;
    let key = head.key.iter().filter_map(|&k| row.get(k));
    insert.execute((&head.name, encoded(key)?, encoded(row)?)).map(drop)
}

/// Forgets the waiting rows of a table, or makes the table where they wait.
pub(super) fn forget_rows(conn: &Connection, table: &str) -> rusqlite::Result<()> {
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS _logos_kept(n INTEGER PRIMARY KEY, tbl TEXT, whole INTEGER, key BLOB, rows BLOB); \
         CREATE INDEX IF NOT EXISTS _logos_kept_key ON _logos_kept(tbl, key)",
    )?;
    conn.execute("DELETE FROM _logos_kept WHERE tbl = ?1", [table]).map(drop)
}

/// What waits of a table.
pub(super) struct Kept {
    /// The key; nothing for a row of a table that came whole, which takes the place of no other.
    pub key: Option<Vec<Value>>,
    /// All rows that have it.
    pub rows: Vec<Vec<Value>>,
}

/// Hands out the waiting rows of a table in the order in which they came.
pub(super) fn kept(
    conn: &Connection,
    table: &str,
    columns: usize,
    mut each: impl FnMut(Kept) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = conn.prepare("SELECT whole, key, rows FROM _logos_kept WHERE tbl = ?1 ORDER BY n")?;
    let mut records = statement.query([table])?;
    while let Some(record) = records.next()? {
        let key = (!record.get::<_, bool>(0)?).then(|| decoded(record, 1)).transpose()?;
        let rows = decoded(record, 2)?.chunks(columns.max(1)).map(<[Value]>::to_vec).collect();
        each(Kept { key, rows })?;
    }
    Ok(())
}
