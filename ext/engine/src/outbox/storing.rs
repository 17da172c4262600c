//! Storing messages: entries, cursor and schema in one durable transaction, before the first byte is sent.

use logos_log::crypto::SigningKey;
use logos_log::entry::sign_entry;
use logos_log::ids::{ChannelId, MsgId, Position};
use rusqlite::{OptionalExtension, Transaction};

use super::{id_of, published, Published, Sidecar};
use crate::error::{Doing, Result};

impl Sidecar {
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
    /// When its snapshot was taken.
    pub created: i64,
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

impl Found {
    fn store(&self, tx: &Transaction<'_>, cursor: i64) -> rusqlite::Result<()> {
        tx.execute_batch(
            "DELETE FROM entry; DELETE FROM message; DELETE FROM meta WHERE name IN ('memo', 'incomplete', 'replaced')",
        )?;
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
        published::store(&self.tx, published).and_then(|()| self.tx.commit()).doing(|| what)
    }
}
