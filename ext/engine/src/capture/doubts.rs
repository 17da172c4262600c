//! Doubts: rows that were written and may not be in the log.
//!
//! They are a net for rare cases and may name rows needlessly; a key too many is harmless (DESIGN I2).

use std::collections::HashMap;

use crate::host::api::Commits;

/// Doubts remembered for one table before it is simply sent whole.
pub(super) const DOUBTS_MAX: usize = 10_000;

/// Rows that were written and may not be in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// These rowids.
    Rows(Vec<i64>),
    /// These rowids were inserted by a transaction that logged nothing: triggers are switched off on its connection, and
    /// if it replaced rows, nobody knows which.
    Bare(Vec<i64>),
    /// Too many to name, or rows that are gone and whose key nobody knows.
    Whole,
}

impl Doubt {
    /// Takes another doubt about the same table in.
    fn merge(&mut self, other: Doubt) {
        use Doubt::{Bare, Rows, Whole};
        let bare = matches!((&*self, &other), (Bare(_), _) | (_, Bare(_)));
        *self = match (std::mem::replace(self, Whole), other) {
            (Rows(mut rows) | Bare(mut rows), Rows(more) | Bare(more)) if rows.len() + more.len() <= DOUBTS_MAX => {
                rows.extend(more);
                if bare {
                    Bare(rows)
                } else {
                    Rows(rows)
                }
            }
            _ => Whole,
        };
    }
}

/// Doubts that the next message must settle.
///
/// A hook tells of a doubt before the commit that it is about can be seen by anybody. So each is settled by the message of the next
/// snapshot, and again by later ones until one is known to show that commit.
#[derive(Debug, Default)]
pub struct Doubts {
    pub(super) tables: HashMap<String, Doubt>,
    /// Rows that are sent along, each with a row of the log that was written in the same transaction.
    pub(super) guessed: Vec<(String, i64, i64)>,
    /// A connection has committed with triggers switched off. SQLite tells hooks nothing of rows without a rowid, nor of rows deleted
    /// all at once, so that anything may have been written.
    pub(super) silent: Option<Silent>,
    /// The count before the last of the commits that they are about; `None`: not known.
    pub(super) after: Option<Commits>,
    /// Whether they were in a message already.
    once_more: bool,
    everything: bool,
}

/// A commit of which only that much is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Silent {
    /// The count before it.
    pub(super) after: Option<Commits>,
    /// Whether a snapshot was taken since.
    pub(super) looked: bool,
}

impl Doubts {
    /// Whether nothing is doubted.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.guessed.is_empty() && self.silent.is_none()
    }

    /// Takes in what the hooks have told since.
    pub fn add(&mut self, more: Self) {
        self.guessed.extend(more.guessed);
        self.guessed.truncate(DOUBTS_MAX);
        self.silent = more.silent.or(self.silent);
        if more.tables.is_empty() {
            return;
        }
        (self.after, self.once_more) = (more.after, false);
        for (table, doubt) in more.tables {
            self.doubt(table, doubt);
        }
    }

    pub(super) fn doubt(&mut self, table: String, doubt: Doubt) {
        self.tables.entry(table).or_insert_with(|| Doubt::Rows(Vec::new())).merge(doubt);
    }

    /// Doubts every table, as far as the next message goes.
    pub fn doubt_everything(&mut self) {
        self.everything = true;
    }

    /// Whether every table is doubted.
    pub fn everything(&self) -> bool {
        self.everything
    }

    /// What is doubted of a table of these names.
    pub fn of(&self, names: &[&str]) -> Option<Doubt> {
        let mut doubts = names.iter().filter_map(|name| self.tables.get(*name)).cloned();
        let mut doubt = doubts.next()?;
        doubts.for_each(|more| doubt.merge(more));
        Some(doubt)
    }

    /// Whether a snapshot shows a commit that was made with triggers switched off, for the first time.
    pub fn shows_silent(&mut self, snapshot: Option<Commits>) -> bool {
        let Some(silent) = &mut self.silent else { return false };
        let shown = match silent.after.zip(snapshot) {
            Some((before, now)) => now != before,
            None => std::mem::replace(&mut silent.looked, true),
        };
        if shown {
            self.silent = None;
        }
        shown
    }

    /// Rows of a table of these names that are sent along, if the log ends with this row.
    pub fn guessed(&self, names: &[&str], last: i64) -> Vec<i64> {
        let rows = self.guessed.iter().filter(|(of, _, seq)| names.contains(&of.as_str()) && *seq <= last);
        rows.map(|(_, rowid, _)| *rowid).collect()
    }

    /// The tables that a hook saw written past the log.
    pub fn tables(&self) -> impl Iterator<Item = &String> {
        self.tables.keys()
    }

    /// A message has settled them, as far as its snapshot shows the commits that they are about. `last`: the last row of its log.
    pub fn covered(&mut self, snapshot: Option<Commits>, last: i64) {
        self.everything = false;
        self.guessed.retain(|(_, _, seq)| *seq > last);
        let landed = match self.after.zip(snapshot) {
            // Where it is less, counting began anew, and that is later too.
            Some((before, now)) => now.wal == before.wal && now.count != before.count,
            None => self.once_more,
        };
        if landed {
            self.tables.clear();
        }
        self.once_more = !self.tables.is_empty();
    }
}
