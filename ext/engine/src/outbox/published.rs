//! What the channel has as of the last stored message: with this the next one is made.

use logos_log::ids::{Digest, Position};
use logos_log::payload::{Encoding, Settings};
use rusqlite::{OptionalExtension, Transaction};

use super::{position_of, Sidecar};
use crate::catalog::schema::Object;
use crate::error::{Doing, Result};

/// What the channel has, as of the last stored message.
#[derive(Debug, Clone)]
pub struct Published {
    /// The last stored message.
    pub position: Position,
    /// Highest `_logos_log.seq` whose row is in a message.
    pub cursor: i64,
    /// Digest of the last log rows up to it: a restored backup has others, or none, in their place.
    pub cursor_mark: Option<Digest>,
    /// The log's own name (`capture`); `None` before the first message.
    pub history: Option<i64>,
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
    /// Whether the last message called what the channel has incomplete.
    pub incomplete: bool,
    /// How text is encoded in all messages: replicas cannot change it. `None` before the first, and where a former build made it.
    pub encoding: Option<Encoding>,
    /// The canary's rowid at the last message.
    pub canary: Option<i64>,
    /// `PRAGMA schema_version` at the last message, moved on by what we ourselves did to the schema since.
    pub cookie: Option<i64>,
}

impl Published {
    /// The same, where nothing is known of what was written since: another log is in the place of the one that was read.
    pub fn begun_anew(&self) -> Self {
        Self {
            cursor: 0,
            cursor_mark: None,
            history: None,
            bases: Vec::new(),
            stamps: Vec::new(),
            cookie: None,
            ..self.clone()
        }
    }
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
        let history = self.meta("history")?;
        let encoding = self.meta::<String>("encoding")?.and_then(|name| Encoding::from_pragma(&name));
        let (cursor, canary, cookie) = (self.meta("cursor")?.unwrap_or(0), self.meta("canary")?, self.meta("cookie")?);
        Ok(Published {
            position,
            cursor,
            cursor_mark,
            history,
            schema,
            bases,
            stamps,
            sequences,
            settings,
            incomplete: self.meta::<bool>("told_incomplete")?.unwrap_or(false),
            encoding,
            canary,
            cookie,
        })
    }

    /// Whether the channel may lack something that was committed past the log.
    pub fn is_incomplete(&self) -> Result<bool> {
        Ok(self.meta::<i64>("incomplete")?.is_some())
    }

    /// Notes whether it may.
    pub fn set_incomplete(&self, incomplete: bool) -> Result<()> {
        let sql = match incomplete {
            true => "INSERT OR REPLACE INTO meta VALUES('incomplete', 1)",
            false => "DELETE FROM meta WHERE name = 'incomplete'",
        };
        self.conn.execute(sql, []).doing(|| self.doing("writing")).map(drop)
    }

    /// Whether another file than the one that was published is in its place, and without its log.
    pub fn is_replaced(&self) -> Result<bool> {
        Ok(self.meta::<i64>("replaced")?.is_some())
    }

    /// Whether messages were made from another log than the one of this name.
    pub fn has_other_history(&self, history: Option<i64>) -> Result<bool> {
        Ok(self.meta::<i64>("history")?.is_some_and(|known| Some(known) != history))
    }

    /// Notes that.
    pub fn set_replaced(&self) -> Result<()> {
        self.conn
            .execute("INSERT OR REPLACE INTO meta VALUES('replaced', 1)", [])
            .doing(|| self.doing("writing"))
            .map(drop)
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
    put.execute(("history", p.history))?;
    put.execute(("cursor_mark", p.cursor_mark.map(|d| d.0.to_vec())))?;
    put.execute(("told_incomplete", p.incomplete))?;
    put.execute(("encoding", p.encoding.map(Encoding::pragma)))?;
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
