//! The sidecar: `<database>-logos`, a small SQLite file with what the publisher must not forget.
//!
//! It holds the identity (channel, signing key), how far the log has been read, the last published schema, and every
//! message until the channel has it for good.
//!
//! Invariants
//! - Mode 0600: the signing key is in it.
//! - One publisher per database on this machine: the file is held under SQLite's exclusive lock, so a second process is
//!   told so. Everybody else in this process goes through the publisher's own handle.
//! - A message and the new cursor are stored in one durable transaction, before the first byte is sent. What is sent
//!   again after a crash is therefore the same bytes.
//!
//! Not here: what a message says (`snapshot`), sending it (`publish`).

use std::path::{Path, PathBuf};

use logos_log::crypto::SigningKey;
use logos_log::entry::{sign_entry, SignedTx};
use logos_log::ids::{ChannelId, Digest, MsgId, Position};
use logos_log::payload::Settings;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction};

use super::connection;
use super::schema::Object;
use crate::entry::{Place, Settled, State, StoredEntry};
use crate::error::{Doing, Error, Result};

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
}

/// One message as `logos_log` shows it.
#[derive(Debug, Clone)]
pub struct MessageRow {
    /// Its position.
    pub position: Position,
    /// Id of its last entry.
    pub id: Option<MsgId>,
    /// Parent of its first entry.
    pub parent: Option<MsgId>,
    /// How far it has come.
    pub state: State,
    /// Where the channel has it: a slot on a chain, an index in a folder.
    pub slot: Option<i64>,
    /// What it is.
    pub kind: String,
    /// Table sections in it.
    pub tables: i64,
    /// Keys in it.
    pub changes: i64,
    /// Payload bytes.
    pub bytes: i64,
    /// What it has cost on the channel, if anything and if known.
    pub fee: Option<i64>,
    /// Entries it takes.
    pub parts: i64,
    /// When its snapshot was taken, milliseconds since 1970.
    pub created: i64,
    /// When the channel had it.
    pub accepted: Option<i64>,
}

/// Messages still to be sent, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Messages that are pending.
    pub messages: i64,
    /// Their payload bytes.
    pub bytes: i64,
}

/// The open sidecar of one database.
pub struct Sidecar {
    conn: Connection,
    path: PathBuf,
    key: SigningKey,
}

/// Version of the tables below.
const FORMAT: i64 = 1;

/// Messages that the channel has for good are remembered for `logos_log` up to this number.
const HISTORY: i64 = 10_000;

/// Unused pages (8 MiB) above which the file is made smaller: the messages of a busy day need not take disk for ever.
const FREE_PAGES_MAX: i64 = 2_048;

const TABLES: &str = "
    CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE schema(n INTEGER PRIMARY KEY, kind TEXT, name TEXT, tbl TEXT, sql TEXT);
    CREATE TABLE base(id INTEGER PRIMARY KEY, name TEXT, intact INTEGER);
    CREATE TABLE stamp(name TEXT PRIMARY KEY, digest BLOB) WITHOUT ROWID;
    CREATE TABLE sequence(name TEXT PRIMARY KEY, seq INTEGER) WITHOUT ROWID;
    CREATE TABLE message(seq INTEGER PRIMARY KEY, digest BLOB, kind TEXT, tables INTEGER, changes INTEGER,
        bytes INTEGER, parts INTEGER, cursor INTEGER, state INTEGER, slot INTEGER, fee INTEGER, created INTEGER, accepted INTEGER);
    CREATE INDEX message_state ON message(state, seq);
    CREATE TABLE entry(n INTEGER PRIMARY KEY, seq INTEGER, state INTEGER, slot INTEGER, fee INTEGER, size INTEGER,
        id BLOB, parent BLOB, tx BLOB);
    CREATE INDEX entry_state ON entry(state, n);
    CREATE INDEX entry_id ON entry(id);
    CREATE INDEX entry_seq ON entry(seq);";

/// Path of a database's sidecar.
pub fn path_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_os_string();
    name.push("-logos");
    PathBuf::from(name)
}

impl Sidecar {
    /// Opens the sidecar of `database`, making it with a fresh key when there is none.
    pub fn open(database: &Path) -> Result<Self> {
        let path = path_of(database);
        let doing = || format!("opening the sidecar {}", path.display());
        create_private(&path).doing(doing)?;
        let conn = connection::open_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        let held = |e: rusqlite::Error| match e.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => Error::fix(
                format!("another process publishes {} already", database.display()),
                "nothing was changed, and this process's commits are captured all the same; one publisher is enough",
            ),
            _ => Err::<(), _>(e).doing(doing).err().unwrap_or_else(|| Error::bug("an error without a reason")),
        };
        conn.busy_timeout(std::time::Duration::from_millis(500)).doing(doing)?;
        conn.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = FULL; PRAGMA auto_vacuum = INCREMENTAL;",
        )
        .map_err(held)?;
        // Writing takes the exclusive lock, which locking_mode then keeps.
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA journal_size_limit = 1048576; BEGIN EXCLUSIVE; COMMIT;")
            .map_err(held)?;
        let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).doing(doing)?;
        if version == 0 {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(|e| {
                Error::fix(
                    format!("the system gives no random bytes: {e}"),
                    "nothing was changed; a signing key needs them",
                )
            })?;
            conn.execute_batch("BEGIN IMMEDIATE").doing(doing)?;
            conn.execute_batch(TABLES).doing(doing)?;
            conn.execute("INSERT INTO meta VALUES('key', ?1)", [&seed[..]]).doing(doing)?;
            conn.pragma_update(None, "user_version", FORMAT).doing(doing)?;
            conn.execute_batch("COMMIT").doing(doing)?;
        } else if version != FORMAT {
            return Err(Error::fix(
                format!("the sidecar {} has format {version}; this build knows {FORMAT}", path.display()),
                "nothing was changed; use the version of logos that wrote it, or a newer one",
            ));
        }
        let seed: Vec<u8> =
            conn.query_row("SELECT value FROM meta WHERE name = 'key'", [], |row| row.get(0)).doing(doing)?;
        let seed: [u8; 32] = seed.try_into().map_err(|_| {
            Error::fix(
                format!("the signing key in {} is damaged", path.display()),
                "nothing was changed; restore the sidecar from a backup, or move it away to publish on a new channel",
            )
        })?;
        // Somebody who moves the file may leave its write-ahead log behind; the identity must not be in there.
        conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").doing(doing)?;
        Ok(Self { conn, path, key: SigningKey::from_seed(&seed) })
    }

    fn doing(&self, what: &str) -> String {
        format!("{what} the sidecar {}", self.path.display())
    }

    /// The channel that belongs to this database.
    pub fn channel(&self) -> ChannelId {
        ChannelId(self.key.public_key().0)
    }

    fn meta<T: rusqlite::types::FromSql>(&self, name: &str) -> Result<Option<T>> {
        self.conn
            .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .doing(|| self.doing("reading"))
    }

    /// A database that was copied together with its sidecar would publish under the original's identity, and the channel
    /// would have two writers. So the sidecar knows its database's path and file; one of the two must be as it was (a
    /// renamed database keeps its file, one restored from a backup its path), or the user must say that it was moved.
    pub fn check_home(&self, database: &Path, moved: bool) -> Result<()> {
        let doing = || self.doing("writing");
        let now = (database.display().to_string(), file_identity(database));
        let before: (Option<String>, Option<String>) = (self.meta("home_path")?, self.meta("home_file")?);
        let known = before.0.is_some();
        let same = before.0.as_ref() == Some(&now.0) || (now.1.is_some() && before.1 == now.1);
        if known && !same && !moved {
            return Err(Error::fix(
                format!(
                    "{} looks like a copy: its sidecar belongs to {}",
                    database.display(),
                    before.0.unwrap_or_default()
                ),
                "nothing was published. For a copy, remove its sidecar (the file with -logos at its end): it then gets a channel \
                 of its own. If the original is gone for good, say {\"moved\": true} in the options",
            ));
        }
        self.conn
            .execute("INSERT OR REPLACE INTO meta VALUES('home_path', ?1), ('home_file', ?2)", (now.0, now.1))
            .doing(doing)
            .map(drop)
    }

    /// The transport that messages were last sent to.
    pub fn transport(&self) -> Result<Option<String>> {
        self.meta("transport")
    }

    /// Remembers the transport.
    pub fn set_transport(&self, url: &str) -> Result<()> {
        self.conn
            .execute("INSERT OR REPLACE INTO meta VALUES('transport', ?1)", [url])
            .doing(|| self.doing("writing"))
            .map(drop)
    }

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
        let mut statement = self.conn.prepare("SELECT id, name, intact FROM base ORDER BY id").doing(doing)?;
        let bases = statement
            .query_map([], |row| Ok(Base { id: row.get(0)?, name: row.get(1)?, intact: row.get(2)? }))
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

    /// Begins the transaction that stores one message.
    pub fn begin(&mut self) -> Result<Storing<'_>> {
        let what = self.doing("writing");
        let key = &self.key;
        let tx = self.conn.transaction().doing(|| what.clone())?;
        let (index, parent) = tx
            .query_row("SELECT n + 1, id FROM entry ORDER BY n DESC LIMIT 1", [], |row| {
                Ok((row.get(0)?, id_of(row, 1)?))
            })
            .optional()
            .doing(|| what.clone())?
            .unwrap_or((0, MsgId::ROOT));
        Ok(Storing { tx, key, index, parent, what })
    }

    /// Puts what a channel was found to hold in the place of everything that was stored, and goes on from `published`.
    pub fn take_over(&mut self, found: &Found, published: &Published) -> Result<()> {
        let what = self.doing("writing");
        let tx = self.conn.transaction().doing(|| what.clone())?;
        found.store(&tx, published.cursor).doing(|| what.clone())?;
        Storing { tx, key: &self.key, index: 0, parent: MsgId::ROOT, what }.remember(published)
    }

    /// The key that signs.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// What the writer wants to be told after a restart.
    pub fn memo(&self) -> Result<Option<String>> {
        self.meta("memo")
    }

    /// The oldest entries that are not final, at most `count`.
    pub fn unsettled(&self, count: usize) -> Result<Vec<StoredEntry>> {
        let doing = || self.doing("reading");
        let mut statement = self
            .conn
            .prepare("SELECT n, seq, id, parent, size, state, slot, fee FROM entry WHERE state < 2 ORDER BY n LIMIT ?1")
            .doing(doing)?;
        let rows = statement.query_map([count as i64], |row| {
            Ok(StoredEntry {
                index: row.get::<_, i64>(0)? as u64,
                seq: row.get::<_, i64>(1)? as u64,
                id: id_of(row, 2)?,
                parent: id_of(row, 3)?,
                size: row.get::<_, i64>(4)? as u64,
                state: State::from_code(row.get(5)?),
                place: Place { slot: row.get(6)?, fee: row.get(7)? },
            })
        });
        rows.and_then(Iterator::collect).doing(doing)
    }

    /// The signed entry of an index that is not final.
    pub fn entry(&self, index: u64) -> Result<SignedTx> {
        let tx: Vec<u8> = self
            .conn
            .query_row("SELECT tx FROM entry WHERE n = ?1 AND tx IS NOT NULL", [index as i64], |row| row.get(0))
            .doing(|| format!("reading entry {index} in {}", self.path.display()))?;
        SignedTx::decode(&tx).doing(|| self.doing("decoding an entry in"))
    }

    /// The index of an entry that was made here.
    pub fn index_of(&self, id: &MsgId) -> Result<Option<u64>> {
        self.conn
            .query_row("SELECT n FROM entry WHERE id = ?1", [&id.0[..]], |row| row.get::<_, i64>(0))
            .optional()
            .doing(|| self.doing("reading"))
            .map(|n| n.map(|n| n as u64))
    }

    /// Records what is known of the entries offered, `entries` being those that `unsettled` gave. A message is as far as the
    /// least of its entries; the bytes of final ones are let go. Nothing is written if nothing has changed.
    pub fn settle(&mut self, entries: &[StoredEntry], settled: &Settled, now: i64) -> Result<()> {
        let reached = |n: usize| match settled.places.get(n) {
            None => (State::Pending, Place::default()),
            Some(place) if n < settled.finals => (State::Final, *place),
            Some(place) => (State::Included, *place),
        };
        let changed: Vec<_> = entries
            .iter()
            .enumerate()
            .map(|(n, entry)| (entry, reached(n)))
            .filter(|(entry, now)| (entry.state, entry.place) != *now)
            .collect();
        if changed.is_empty() && settled.memo.is_none() {
            return Ok(());
        }
        let what = self.doing("writing");
        self.settle_inner(&changed, settled, now).doing(|| what)
    }

    fn settle_inner(
        &mut self,
        changed: &[(&StoredEntry, (State, Place))],
        settled: &Settled,
        now: i64,
    ) -> rusqlite::Result<()> {
        let tx = self.conn.transaction()?;
        let mut update =
            tx.prepare("UPDATE entry SET state = ?2, slot = ?3, fee = ?4, tx = iif(?2 = 2, NULL, tx) WHERE n = ?1")?;
        for (entry, (state, place)) in changed {
            update.execute((entry.index as i64, state.code(), place.slot, place.fee))?;
        }
        drop(update);
        if let Some(memo) = &settled.memo {
            tx.execute("INSERT OR REPLACE INTO meta VALUES('memo', ?1)", [memo])?;
        }
        if let (Some((first, _)), Some((last, _))) = (changed.first(), changed.last()) {
            tx.execute(
                "UPDATE message SET (state, slot, fee) = (SELECT min(state), iif(min(state) > 0, max(slot), NULL), sum(fee) \
                 FROM entry e WHERE e.seq = message.seq) WHERE seq BETWEEN ?1 AND ?2",
                (first.seq as i64, last.seq as i64),
            )?;
            tx.execute(
                "UPDATE message SET accepted = iif(state > 0, coalesce(accepted, ?3), NULL) WHERE seq BETWEEN ?1 AND ?2",
                (first.seq as i64, last.seq as i64, now),
            )?;
        }
        if changed.iter().any(|(_, (state, _))| *state == State::Final) {
            let newest = "SELECT max(seq) FROM message WHERE state = 2";
            tx.execute(&format!("DELETE FROM entry WHERE seq < ({newest}) - {HISTORY}"), [])?;
            tx.execute(&format!("DELETE FROM message WHERE seq < ({newest}) - {HISTORY}"), [])?;
        }
        tx.commit()?;
        let free: i64 = self.conn.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        if free > FREE_PAGES_MAX {
            // It frees a page a step.
            let mut vacuum = self.conn.prepare("PRAGMA incremental_vacuum")?;
            let mut steps = vacuum.query([])?;
            while steps.next()?.is_some() {}
            drop(steps);
            drop(vacuum);
            self.conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
        }
        Ok(())
    }

    /// What waits to be sent.
    pub fn backlog(&self) -> Result<Backlog> {
        self.conn
            .query_row("SELECT count(*), coalesce(sum(bytes), 0) FROM message WHERE state = 0", [], |row| {
                Ok(Backlog { messages: row.get(0)?, bytes: row.get(1)? })
            })
            .doing(|| self.doing("reading"))
    }

    /// How many messages there are in all, and their bytes.
    pub fn totals(&self) -> Result<(i64, i64)> {
        self.conn
            .query_row("SELECT coalesce(max(seq), 0), coalesce(sum(bytes), 0) FROM message", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .doing(|| self.doing("reading"))
    }

    /// The newest message that has reached at least `state`, and the log cursor that goes with it.
    pub fn reached(&self, state: State) -> Result<(Position, i64)> {
        self.conn
            .query_row(
                "SELECT seq, digest, cursor FROM message WHERE state >= ?1 ORDER BY seq DESC LIMIT 1",
                [state.code()],
                |row| Ok((position_of(row)?, row.get(2)?)),
            )
            .optional()
            .doing(|| self.doing("reading"))
            .map(|found| found.unwrap_or((Position::START, 0)))
    }

    /// Messages for `logos_log`, oldest first.
    pub fn messages(&self) -> Result<Vec<MessageRow>> {
        let doing = || self.doing("reading");
        let mut statement = self
            .conn
            .prepare(
                "SELECT seq, digest, state, slot, kind, tables, changes, bytes, fee, parts, created, accepted, \
                 (SELECT id FROM entry e WHERE e.seq = m.seq ORDER BY n DESC LIMIT 1), \
                 (SELECT parent FROM entry e WHERE e.seq = m.seq ORDER BY n LIMIT 1) FROM message m ORDER BY seq",
            )
            .doing(doing)?;
        let rows = statement.query_map([], |row| {
            Ok(MessageRow {
                position: position_of(row)?,
                state: State::from_code(row.get(2)?),
                slot: row.get(3)?,
                kind: row.get(4)?,
                tables: row.get(5)?,
                changes: row.get(6)?,
                bytes: row.get(7)?,
                fee: row.get(8)?,
                parts: row.get(9)?,
                created: row.get(10)?,
                accepted: row.get(11)?,
                id: id_of(row, 12).ok(),
                parent: id_of(row, 13).ok(),
            })
        });
        rows.and_then(Iterator::collect).doing(doing)
    }
}

fn id_of(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<MsgId> {
    let bytes: [u8; 32] = row.get(column)?;
    Ok(MsgId(bytes))
}

fn position_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Position> {
    Ok(Position { seq: row.get::<_, i64>(0)? as u64, digest: Digest(row.get(1)?) })
}

/// A message about to be stored: its entries are signed and inserted as the payload is written.
pub struct Storing<'s> {
    tx: Transaction<'s>,
    key: &'s SigningKey,
    index: i64,
    parent: MsgId,
    what: String,
}

/// What is stored beside the entries of a message.
pub struct Message<'m> {
    /// Its position.
    pub position: Position,
    /// What it is.
    pub kind: &'static str,
    /// Table sections in it.
    pub tables: u64,
    /// Keys in it.
    pub changes: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// Entries.
    pub parts: u32,
    /// When its snapshot was taken.
    pub created: i64,
    /// What the channel has after it.
    pub published: &'m Published,
}

/// What a channel was found to hold, from its first entry on.
pub struct Found {
    /// Its entries.
    pub entries: Vec<FoundEntry>,
    /// Its messages.
    pub messages: Vec<FoundMessage>,
}

/// An entry that was found on the channel.
pub struct FoundEntry {
    /// The message it is a part of.
    pub seq: u64,
    /// Its id.
    pub id: MsgId,
    /// Its parent.
    pub parent: MsgId,
    /// The signed entry, if it might have to be sent again.
    pub signed: Option<Vec<u8>>,
}

/// A message that was found on the channel.
pub struct FoundMessage {
    /// Its position.
    pub position: Position,
    /// What it is.
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

impl Found {
    fn store(&self, tx: &Transaction<'_>, cursor: i64) -> rusqlite::Result<()> {
        tx.execute_batch("DELETE FROM entry; DELETE FROM message; DELETE FROM meta WHERE name = 'memo'")?;
        let mut insert = tx.prepare(
            "INSERT INTO entry(n, seq, state, size, id, parent, tx) VALUES(?1, ?2, iif(?6 IS NULL, 2, 0), ?3, ?4, ?5, ?6)",
        )?;
        for (n, entry) in self.entries.iter().enumerate() {
            let size = entry.signed.as_ref().map_or(0, Vec::len) as i64;
            insert.execute((n as i64, entry.seq as i64, size, &entry.id.0[..], &entry.parent.0[..], &entry.signed))?;
        }
        let mut insert = tx.prepare(
            "INSERT INTO message(seq, digest, kind, tables, changes, bytes, created, parts, cursor, state) \
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, count(*), 0, min(state) FROM entry WHERE seq = ?1",
        )?;
        for m in &self.messages {
            let (seq, digest) = (m.position.seq as i64, &m.position.digest.0[..]);
            insert.execute((seq, digest, m.kind, m.tables as i64, m.changes as i64, m.bytes as i64, m.created))?;
        }
        // Log rows before the cursor are compared with, and need not be sent; they may be pruned when the last is final.
        tx.execute("UPDATE message SET cursor = ?1 WHERE seq = (SELECT max(seq) FROM message)", [cursor])?;
        Ok(())
    }
}

impl Storing<'_> {
    /// Signs and inserts the next part of message `seq`.
    pub fn part(&mut self, seq: u64, data: Vec<u8>) -> std::io::Result<()> {
        let channel = ChannelId(self.key.public_key().0);
        let tx = sign_entry(self.key, channel, self.parent, data);
        let id = tx
            .inscriptions()
            .next()
            .map(|i| i.id())
            .ok_or_else(|| std::io::Error::other("an entry without inscription"))?;
        let bytes = tx.encode();
        self.tx
            .execute(
                "INSERT INTO entry(n, seq, state, size, id, parent, tx) VALUES(?1, ?2, 0, ?3, ?4, ?5, ?6)",
                (self.index, seq as i64, bytes.len() as i64, &id.0[..], &self.parent.0[..], bytes),
            )
            .map_err(std::io::Error::other)?;
        self.index += 1;
        self.parent = id;
        Ok(())
    }

    /// Stores the message with the new cursor and commits, durably.
    pub fn commit(self, message: &Message<'_>) -> Result<()> {
        let insert = "INSERT INTO message(seq, digest, kind, tables, changes, bytes, parts, cursor, state, created) \
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9)";
        let m = message;
        self.tx
            .execute(
                insert,
                rusqlite::params![
                    m.position.seq as i64,
                    &m.position.digest.0[..],
                    m.kind,
                    m.tables as i64,
                    m.changes as i64,
                    m.bytes as i64,
                    m.parts,
                    m.published.cursor,
                    m.created
                ],
            )
            .doing(|| self.what.clone())?;
        self.remember(m.published)
    }

    /// Stores only what the channel has (nothing to be said), and commits.
    pub fn remember(self, published: &Published) -> Result<()> {
        let what = self.what.clone();
        self.remember_inner(published).doing(|| what)
    }

    fn remember_inner(self, p: &Published) -> rusqlite::Result<()> {
        let tx = &self.tx;
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
        let mut base = tx.prepare("INSERT INTO base VALUES(?1, ?2, ?3)")?;
        p.bases.iter().try_for_each(|b| base.execute((b.id, &b.name, b.intact)).map(drop))?;
        drop(base);
        tx.execute("DELETE FROM stamp", [])?;
        let mut stamp = tx.prepare("INSERT INTO stamp VALUES(?1, ?2)")?;
        p.stamps.iter().try_for_each(|s| stamp.execute((&s.0, &s.1 .0[..])).map(drop))?;
        drop(stamp);
        tx.execute("DELETE FROM sequence", [])?;
        let mut sequence = tx.prepare("INSERT INTO sequence VALUES(?1, ?2)")?;
        p.sequences.iter().try_for_each(|s| sequence.execute((&s.0, s.1)).map(drop))?;
        drop(sequence);
        self.tx.commit()
    }
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

/// What stays with a file when it is renamed: device and inode, where there are such.
fn file_identity(path: &Path) -> Option<String> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).ok().map(|m| format!("{}:{}", m.dev(), m.ino()))
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// Makes the file for its owner's eyes only, before SQLite opens it.
fn create_private(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    }
}
