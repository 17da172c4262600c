//! A channel in memory: entries in their order, and weather that delays, loses and repeats them. For simulations and tests.
//!
//! Invariants
//! - As on every channel, an entry is on it only behind the one before it: what does not name the last one as its parent is refused.
//! - What was lost was never there: the writer does not know it from what it did not send. What is delayed is there, and nobody sees it yet.
//! - A writer is told "included" for what is there, and "final" for what everybody sees.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use logos_log::entry::SignedTx;
use logos_log::ids::{ChannelId, MsgId};

use super::entry::{Place, StoredEntry};
use super::{Fetched, Known, Reader, Store, Writer};
use crate::error::{Error, Result};

/// Messages that may be on their way at a time.
pub const IN_FLIGHT: usize = 3;

/// Transactions that a reader gets at a time.
const FETCH: usize = 4;

/// How soon a writer asks again what has become final.
const AGAIN: Duration = Duration::from_secs(2);

/// One channel; a clone is the same one.
#[derive(Debug, Clone)]
pub struct Mem(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    name: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What readers see, in order; some of it twice.
    stream: Vec<SignedTx>,
    /// How much of the stream they see by now.
    seen: usize,
    /// The entries that are there, each once, and where each ends in the stream.
    entries: Vec<(MsgId, usize)>,
    channel: Option<ChannelId>,
    weather: Weather,
}

/// What becomes of what is sent and asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// Nobody reaches the channel.
    pub offline: bool,
    /// Of the entries sent at a time, only so many get there.
    pub loses_after: Option<usize>,
    /// Each that gets there is there twice.
    pub repeats: bool,
    /// Nobody sees what gets there, until it is delivered.
    pub delays: bool,
}

impl PartialEq for Mem {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Mem {}

impl Mem {
    /// An empty one.
    pub fn new(name: &str) -> Self {
        Self(Arc::new(Shared { name: name.into(), state: Mutex::default() }))
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its id, once there is an entry.
    pub fn channel(&self) -> Result<ChannelId> {
        self.state().channel.ok_or_else(|| {
            Error::waiting(
                format!("there is nothing on mem:{} yet", self.0.name),
                "nothing was changed; it is waited for",
            )
        })
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// Shows readers so much more of what is there.
    pub fn deliver(&self, transactions: usize) {
        let mut state = self.state();
        state.seen = state.stream.len().min(state.seen.saturating_add(transactions));
    }

    /// How many transactions are there, and how many of them readers see.
    pub fn length(&self) -> (usize, usize) {
        let state = self.state();
        (state.stream.len(), state.seen)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reached(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.weather.offline {
            let hint = "nothing was lost; it is tried again";
            return Err(Error::retry(format!("mem:{} cannot be reached", self.0.name), hint));
        }
        Ok(state)
    }
}

impl State {
    fn add(&mut self, tx: SignedTx) -> Result<()> {
        let Some(inscription) = tx.inscriptions().next() else {
            return Err(Error::bug("an entry without inscription"));
        };
        let tip = self.entries.last().map_or(MsgId::ROOT, |(id, _)| *id);
        if inscription.parent != tip {
            return Err(Error::resync(
                format!("an entry follows {}, and the channel ends with {tip}", inscription.parent),
                "another writer is on this channel",
            ));
        }
        let (id, channel) = (inscription.id(), inscription.channel);
        self.channel = Some(channel);
        for _ in 0..if self.weather.repeats { 2 } else { 1 } {
            self.stream.push(tx.clone());
        }
        self.entries.push((id, self.stream.len()));
        if !self.weather.delays {
            self.seen = self.stream.len();
        }
        Ok(())
    }
}

/// Writes to it.
pub struct MemWriter(Mem);

impl MemWriter {
    /// A writer of this channel.
    pub fn new(mem: &Mem) -> Self {
        Self(mem.clone())
    }
}

impl Writer for MemWriter {
    fn send(&mut self, entries: &[StoredEntry], store: &dyn Store) -> Result<Known> {
        let mut state = self.0.reached()?;
        let mut known = Known::default();
        let mut left = state.weather.loses_after.unwrap_or(usize::MAX);
        for entry in entries {
            let index = entry.index as usize;
            if index >= state.entries.len() {
                if left == 0 {
                    break;
                }
                left -= 1;
                state.add(store.entry(entry.index)?)?;
            }
            let (id, end) = state.entries[index];
            if id != entry.id {
                return Err(Error::resync(
                    format!("entry {index} of the channel is not ours"),
                    "another writer is on this channel",
                ));
            }
            known.settled.places.push(Place { slot: Some(index as i64), fee: None });
            known.settled.finals += usize::from(end <= state.seen);
        }
        known.again = (known.settled.finals < entries.len()).then_some(AGAIN);
        Ok(known)
    }
}

/// Reads from it.
pub struct MemReader {
    mem: Mem,
    /// How much it has handed out.
    fetched: usize,
}

impl MemReader {
    /// A reader of this channel.
    pub fn new(mem: &Mem) -> Self {
        Self { mem: mem.clone(), fetched: 0 }
    }
}

impl Reader for MemReader {
    fn fetch(&mut self, bookmark: &str) -> Result<Vec<Fetched>> {
        let state = self.mem.reached()?;
        let from: usize = bookmark.parse().unwrap_or(0);
        let to = state.seen.min(from + FETCH);
        self.fetched = to;
        let fetched = (from..to).map(|n| Fetched {
            tx: state.stream[n].clone().into(),
            bookmark: (n + 1).to_string(),
            place: format!("transaction {n} of mem:{}", self.mem.name()),
        });
        Ok(fetched.collect())
    }

    /// Never waits: whoever steps in a simulation does not.
    fn wait(&mut self, _timeout: Duration) -> bool {
        self.mem.state().seen > self.fetched
    }
}
