//! Messages on their way: what is offered to the channel, how far each has come, and what is let go.

use logos_log::entry::SignedTx;
use logos_log::ids::{MsgId, Position};
use rusqlite::OptionalExtension;

use super::{id_of, position_of, Sidecar};
use crate::channel::entry::{Place, Settled, State, StoredEntry};
use crate::error::{Doing, Result};

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

/// Messages that the channel has for good are remembered for `logos_log` up to this number.
const HISTORY: i64 = 10_000;

/// Unused pages (8 MiB) above which the file is made smaller: the messages of a busy day need not take disk for ever.
const FREE_PAGES_MAX: i64 = 2_048;

impl Sidecar {
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

    /// Index and id of the newest entry that the channel has.
    pub fn last_accepted(&self) -> Result<Option<(u64, MsgId)>> {
        self.conn
            .query_row("SELECT n, id FROM entry WHERE state > 0 ORDER BY n DESC LIMIT 1", [], |row| {
                Ok((row.get::<_, i64>(0)? as u64, id_of(row, 1)?))
            })
            .optional()
            .doing(|| self.doing("reading"))
    }

    /// Whether entries made here follow this one of ours (or the root), and none of them is final.
    pub fn waits_after(&self, id: &MsgId) -> Result<bool> {
        let before = match self.index_of(id)? {
            Some(index) => index as i64,
            None if *id == MsgId::ROOT => -1,
            None => return Ok(false),
        };
        let sql = "SELECT coalesce(max(state) < 2, 0) FROM entry WHERE n > ?1";
        self.conn.query_row(sql, [before], |row| row.get(0)).doing(|| self.doing("reading"))
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
        let stored = self.memo()?;
        let memo = settled.memo.as_ref().filter(|memo| stored.as_ref() != Some(memo));
        if changed.is_empty() && memo.is_none() {
            return Ok(());
        }
        let what = self.doing("writing");
        self.settle_inner(&changed, memo, now).doing(|| what)
    }

    fn settle_inner(
        &mut self,
        changed: &[(&StoredEntry, (State, Place))],
        memo: Option<&String>,
        now: i64,
    ) -> rusqlite::Result<()> {
        let tx = self.conn.transaction()?;
        let mut update =
            tx.prepare("UPDATE entry SET state = ?2, slot = ?3, fee = ?4, tx = iif(?2 = 2, NULL, tx) WHERE n = ?1")?;
        for (entry, (state, place)) in changed {
            update.execute((entry.index as i64, state.code(), place.slot, place.fee))?;
        }
        drop(update);
        if let Some(memo) = memo {
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
