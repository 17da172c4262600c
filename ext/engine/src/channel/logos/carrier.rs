//! Carriers: the transactions that bring entries into blocks, and how they outlive a restart.
//!
//! Invariants
//! - A carrier's entries follow each other. What it pays with may change, its entries never.

use std::time::Instant;

use logos_log::entry::{Op, Proof};
use logos_log::ids::TxHash;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::shape::BlockId;
use crate::channel::entry::StoredEntry;
use crate::error::Error;

/// Largest signed transaction that we make. A block holds 2 MiB, on nodes of June 2026 1 MiB.
const TX_BYTES: u64 = 900_000;

/// Room in it for the transfer that pays, with its proof.
const TRANSFER_BYTES: u64 = 10_000;

/// Most entries in one transaction.
const TX_ENTRIES: usize = 60;

/// A transaction on its way, or included but not final.
#[derive(Clone)]
pub(super) struct Carrier {
    /// The entries that it carries.
    pub first: u64,
    pub last: u64,
    pub hash: TxHash,
    pub transfer: Option<(Op, Proof)>,
    pub fee: Option<u64>,
    /// The tip at which it was last known to be pending.
    pub pending_at: Option<BlockId>,
    pub posted: Instant,
    /// How often a block was made without it although nothing stood before it.
    pub missed: u32,
    /// Why it could not be paid for anew.
    pub unpaid: Option<Error>,
}

/// What a restarted writer wants to know.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Memo {
    pub genesis: Option<String>,
    pub flying: Vec<Flying>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Flying {
    first: u64,
    last: u64,
    hash: String,
    transfer: Option<(Value, Value)>,
    fee: Option<u64>,
}

impl Carrier {
    /// As the memo keeps it.
    pub fn stored(&self) -> Flying {
        Flying {
            first: self.first,
            last: self.last,
            hash: self.hash.to_string(),
            transfer: self.transfer.as_ref().map(|(op, proof)| (op.to_json(), proof.to_json())),
            fee: self.fee,
        }
    }

    /// Out of the memo.
    pub fn restored(flying: &Flying) -> Option<Self> {
        let transfer = match &flying.transfer {
            Some((op, proof)) => Some((Op::from_json(op).ok()?, Proof::from_json(proof).ok()?)),
            None => None,
        };
        Some(Self {
            first: flying.first,
            last: flying.last,
            hash: flying.hash.parse().ok()?,
            transfer,
            fee: flying.fee,
            pending_at: None,
            posted: Instant::now(),
            missed: 0,
            unpaid: None,
        })
    }
}

/// How many of the entries fit one transaction; one does.
pub(super) fn pack(entries: &[&StoredEntry]) -> usize {
    let mut bytes = TRANSFER_BYTES;
    let fitting = entries.iter().take(TX_ENTRIES).take_while(|entry| {
        bytes += entry.size;
        bytes <= TX_BYTES
    });
    fitting.count().max(1)
}
