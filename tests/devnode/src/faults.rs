//! Misbehaviour on demand: of the wire (an answer that fails, stalls, lies or breaks off) and of the node (posts
//! that are lost, funds that are refused, events that come twice, blocks and entries that are withheld).
//!
//! Invariants
//! - Nothing happens unless asked for, and a fault with a number of times ends after that many.
//! - The administration under `/dev/` is never hit.
//!
//! Not here: faults of the chain itself (reorganisations, forged entries): see `node`.

use std::collections::{BTreeMap, HashSet};

use serde::Deserialize;

use crate::chain::{Block, Tx};

/// What happens to an answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fault {
    /// This status instead, with a node's error body or the text given.
    Status {
        /// The status.
        #[serde(default = "internal_error")]
        code: u16,
        /// A body of type text/plain.
        body: Option<String>,
    },
    /// No answer for this long, then the connection is closed.
    Stall {
        /// Milliseconds.
        ms: u64,
    },
    /// The connection is closed without an answer.
    Close,
    /// The connection is closed after this much of the true body.
    Truncate {
        /// Bytes of the body.
        bytes: usize,
    },
    /// The true body, this slowly.
    Drip {
        /// Bytes at a time.
        bytes: usize,
        /// Milliseconds between them.
        ms: u64,
    },
    /// The lines of a stream, so many at a time in one chunk.
    Join {
        /// Lines that wait for each other.
        lines: usize,
    },
    /// 200 with bytes that are no JSON.
    Garbage,
    /// 200 with JSON of another shape.
    WrongJson,
    /// 307 to somewhere else.
    Redirect {
        /// The location.
        to: String,
    },
    /// 200 with a body of this many bytes, announced or not.
    Huge {
        /// Bytes of the body.
        bytes: u64,
        /// Without a length, in chunks.
        #[serde(default)]
        chunked: bool,
    },
}

fn internal_error() -> u16 {
    500
}

impl Fault {
    /// Whether the true answer is still made, and only its way to the client is disturbed.
    pub fn shapes_the_true_answer(&self) -> bool {
        matches!(self, Self::Truncate { .. } | Self::Drip { .. } | Self::Join { .. })
    }
}

/// When a fault happens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Rule {
    /// What happens.
    #[serde(flatten)]
    pub fault: Fault,
    /// Only to requests whose path and query start like this; empty = to all.
    #[serde(default)]
    pub path: String,
    /// Let this many pass first.
    #[serde(default)]
    pub skip: u64,
    /// How often; absent = until cleared.
    pub times: Option<u64>,
    /// The node does what was asked before the answer goes wrong (else it does not).
    #[serde(default)]
    pub after: bool,
}

impl Rule {
    /// A fault on every request below a path, so many times.
    pub fn new(fault: Fault, path: &str, times: u64) -> Self {
        Self { fault, path: path.into(), skip: 0, times: Some(times), after: false }
    }
}

/// Everything that goes wrong at the moment.
#[derive(Default)]
pub struct Faults {
    /// Faults of the wire, the first that fits is taken.
    pub rules: Vec<Rule>,
    /// Forget so many posted transactions after answering 200.
    pub lose_posts: u64,
    /// Refuse so many requests for funds.
    pub refuse_funds: u64,
    /// Send so many events twice.
    pub duplicate_events: u64,
    /// Blocks, transactions and messages that appear in no answer.
    pub withheld: HashSet<[u8; 32]>,
}

impl Faults {
    /// The fault of this request, if any; counts it.
    pub fn next(&mut self, target: &str) -> Option<Rule> {
        let hit = self.rules.iter_mut().find(|rule| target.starts_with(&rule.path) && rule.times != Some(0))?;
        if hit.skip > 0 {
            hit.skip -= 1;
            return None;
        }
        hit.times = hit.times.map(|times| times - 1);
        let hit = hit.clone();
        self.rules.retain(|rule| rule.times != Some(0));
        Some(hit)
    }

    /// Whether a block appears in answers.
    pub fn shows_block(&self, block: &Block) -> bool {
        !self.withheld.contains(&block.id.0)
    }

    /// Whether a transaction appears in answers.
    pub fn shows_tx(&self, tx: &Tx) -> bool {
        self.withheld.is_empty()
            || !self.withheld.contains(&tx.hash.0)
                && !tx.signed.inscriptions().any(|inscription| self.withheld.contains(&inscription.id().0))
    }
}

/// Counts down; true while there was something left.
pub fn take_one(left: &mut u64) -> bool {
    let some = *left > 0;
    *left = left.saturating_sub(1);
    some
}

/// How often each route was asked, with identifiers in paths replaced by `{id}`.
#[derive(Default)]
pub struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// Count one request.
    pub fn count(&mut self, method: &str, path: &str) {
        let is_id = |part: &str| {
            let digits = part.strip_prefix("0x").unwrap_or(part);
            digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let parts: Vec<&str> = path.split('/').map(|part| if is_id(part) { "{id}" } else { part }).collect();
        *self.0.entry(format!("{method} {}", parts.join("/"))).or_default() += 1;
    }

    /// All counts so far.
    pub fn all(&self) -> &BTreeMap<String, u64> {
        &self.0
    }
}
