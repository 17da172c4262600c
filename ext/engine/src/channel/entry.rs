//! Entries on their way: what the sidecar stores, and a channel's writing end sends.
//!
//! Here and not there, so that databases and channels need not know each other.

use logos_log::ids::MsgId;

/// State of a message on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Stored here, not known to be on the channel.
    Pending,
    /// On the channel, and could still be undone there for a while.
    Included,
    /// On the channel for good.
    Final,
}

impl State {
    const ALL: [(i64, Self, &'static str); 3] =
        [(0, Self::Pending, "pending"), (1, Self::Included, "included"), (2, Self::Final, "final")];

    /// The number that the sidecar keeps for it.
    pub fn code(self) -> i64 {
        Self::ALL.iter().find(|s| s.1 == self).map_or(0, |s| s.0)
    }

    /// The state with that number; an unknown one is sent again, which is harmless.
    pub fn from_code(code: i64) -> Self {
        Self::ALL.iter().find(|s| s.0 == code).map_or(Self::Pending, |s| s.1)
    }

    /// The word for it in SQL.
    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|s| s.1 == self).map_or("pending", |s| s.2)
    }
}

/// Where the channel has an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// A slot on a chain; nothing in a folder.
    pub slot: Option<i64>,
    /// What it has cost, if that is known.
    pub fee: Option<i64>,
}

/// How far the entries have come that were offered to a channel.
#[derive(Debug, Default)]
pub struct Settled {
    /// The first of them are on the channel, here; all others are not, even if they were once.
    pub places: Vec<Place>,
    /// So many of these are there for good.
    pub finals: usize,
    /// What to give to the next writer of this channel after a restart; nothing: what the former one said.
    pub memo: Option<String>,
}

/// A stored entry, without its bytes.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    /// Its index on the channel, from 0.
    pub index: u64,
    /// The message it is a part of.
    pub seq: u64,
    /// Its id.
    pub id: MsgId,
    /// Its parent.
    pub parent: MsgId,
    /// Bytes of the signed entry.
    pub size: u64,
    /// How far it has come.
    pub state: State,
    /// Where the channel has it.
    pub place: Place,
}
