//! What the channel has as of the last stored message: with this the next one is made.

use logos_log::ids::{Digest, Position};
use logos_log::payload::Settings;
use rusqlite::{OptionalExtension, Transaction};

use super::{position_of, Sidecar};
use crate::error::{Doing, Result};
use crate::sqlite::schema::Object;

/// What the channel has, as of the last stored message.
#[derive(Debug, Clone)]
pub struct Published {
    /// The last stored message.
    pub position: Position,
    /// Highest `_logos_log.seq` whose row is in a message.
    pub cursor: i64,
    /// Digest of that log row: a restored backup has another row, or none, in its place.
    pub cursor_mark: Option<Digest>,
    /// The schema in the last message.
    pub schema: Vec<Object>,
    /// The tables whose whole content the channel has.
    pub bases: Vec<Base>,
    /// `sqlite_sequence` in the last message.
    pub sequences: Vec<(String, i64)>,
    /// Stamps of the virtual tables that the channel has (`virtuals`).
    pub stamps: Vec<(String, Digest)>,
    /// Settings in the last message; `None` before the first.
    pub settings: Option<Settings>,
    /// The canary's rowid at the last message.
    pub canary: Option<i64>,
    /// `PRAGMA schema_version` at the last message, moved on by what we ourselves did to the schema since.
    pub cookie: Option<i64>,
}

/// A table whose whole content the channel has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The id under which all later changes are logged.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Whether its triggers fitted the table. If not, a later write may have deleted other rows unseen, even if they fit again
    /// by then.
    pub intact: bool,
    /// The list of its columns (`columns`) as it was then.
    pub columns: Vec<String>,
}

impl Sidecar {
    /// What was published last.
    pub fn published(&self) -> Result<Published> {
        let doing = || self.doing("reading");
        let position = self
            .conn
            .query_row("SELECT seq, digest FROM message ORDER BY seq DESC LIMIT 1", [], position_of)
            .optional()
            .doing(doing)?
            .unwrap_or(Position::START);
        let mut statement = self.conn.prepare("SELECT kind, name, tbl, sql FROM schema ORDER BY n").doing(doing)?;
        let schema = statement
            .query_map([], |row| {
                Ok(Object { kind: row.get(0)?, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? })
            })
            .and_then(Iterator::collect)
            .doing(doing)?;
        let mut statement = self.conn.prepare("SELECT id, name, intact, columns FROM base ORDER BY id").doing(doing)?;
        let bases = statement
            .query_map([], |row| {
                let columns: String = row.get(3)?;
                let columns = serde_json::from_str(&columns).unwrap_or_default();
                Ok(Base { id: row.get(0)?, name: row.get(1)?, intact: row.get(2)?, columns })
            })
            .and_then(Iterator::collect)
            .doing(doing)?;
        let mut statement = self.conn.prepare("SELECT name, digest FROM stamp ORDER BY name").doing(doing)?;
        let stamps = statement
            .query_map([], |row| Ok((row.get(0)?, Digest(row.get(1)?))))
            .and_then(Iterator::collect)
            .doing(doing)?;
        let mut statement = self.conn.prepare("SELECT name, seq FROM sequence ORDER BY name").doing(doing)?;
        let sequences =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).and_then(Iterator::collect).doing(doing)?;
        let settings = match (self.meta("user_version")?, self.meta("application_id")?) {
            (Some(user_version), Some(application_id)) => Some(Settings { user_version, application_id }),
            _ => None,
        };
        let cursor_mark = self.meta::<Vec<u8>>("cursor_mark")?.and_then(|mark| Digest::from_slice(&mark).ok());
        let (cursor, canary, cookie) = (self.meta("cursor")?.unwrap_or(0), self.meta("canary")?, self.meta("cookie")?);
        Ok(Published { position, cursor, cursor_mark, schema, bases, stamps, sequences, settings, canary, cookie })
    }

    /// Notes that the schema cookie was moved by us.
    pub fn move_cookie(&self, by: i64) -> Result<()> {
        self.conn
            .execute("UPDATE meta SET value = value + ?1 WHERE name = 'cookie' AND ?1 <> 0", [by])
            .doing(|| self.doing("writing"))
            .map(drop)
    }
}

/// Writes it in the place of what was there.
pub(super) fn store(tx: &Transaction<'_>, p: &Published) -> rusqlite::Result<()> {
    let mut put = tx.prepare("INSERT OR REPLACE INTO meta VALUES(?1, ?2)")?;
    put.execute(("cursor", p.cursor))?;
    put.execute(("cursor_mark", p.cursor_mark.map(|d| d.0.to_vec())))?;
    put.execute(("canary", p.canary))?;
    put.execute(("cookie", p.cookie))?;
    if let Some(settings) = p.settings {
        put.execute(("user_version", settings.user_version))?;
        put.execute(("application_id", settings.application_id))?;
    }
    drop(put);
    replace_schema(tx, &p.schema)?;
    tx.execute("DELETE FROM base", [])?;
    let mut base = tx.prepare("INSERT INTO base(id, name, intact, columns) VALUES(?1, ?2, ?3, ?4)")?;
    p.bases.iter().try_for_each(|b| {
        let columns = serde_json::to_string(&b.columns).unwrap_or_default();
        base.execute((b.id, &b.name, b.intact, columns)).map(drop)
    })?;
    drop(base);
    tx.execute("DELETE FROM stamp", [])?;
    let mut stamp = tx.prepare("INSERT INTO stamp VALUES(?1, ?2)")?;
    p.stamps.iter().try_for_each(|s| stamp.execute((&s.0, &s.1 .0[..])).map(drop))?;
    drop(stamp);
    tx.execute("DELETE FROM sequence", [])?;
    let mut sequence = tx.prepare("INSERT INTO sequence VALUES(?1, ?2)")?;
    p.sequences.iter().try_for_each(|s| sequence.execute((&s.0, s.1)).map(drop))?;
    drop(sequence);
    Ok(())
}

/// Rewrites the schema only when it differs: most messages leave it alone.
fn replace_schema(tx: &Transaction<'_>, schema: &[Object]) -> rusqlite::Result<()> {
    let n: i64 = tx.query_row("SELECT count(*) FROM schema", [], |row| row.get(0))?;
    let mut same =
        tx.prepare("SELECT 1 FROM schema WHERE n = ?1 AND kind = ?2 AND name = ?3 AND tbl = ?4 AND sql = ?5")?;
    let mut equal = n == schema.len() as i64;
    for (i, o) in schema.iter().enumerate() {
        equal = equal && same.exists((i as i64, &o.kind, &o.name, &o.table, &o.sql))?;
    }
    if equal {
        return Ok(());
    }
    tx.execute("DELETE FROM schema", [])?;
    let mut insert = tx.prepare("INSERT INTO schema VALUES(?1, ?2, ?3, ?4, ?5)")?;
    for (i, o) in schema.iter().enumerate() {
        insert.execute((i as i64, &o.kind, &o.name, &o.table, &o.sql))?;
    }
    Ok(())
}
