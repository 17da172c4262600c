//! The pending transactions of this node, and the making of a block from them.
//!
//! Invariants
//! - Order is the order of arrival; a transaction that is pending already is not added again.
//! - Assembly tries all, and again while something applied. What never applied is evicted for good: a child whose
//!   parent is not there at that moment is thrown away, without a word to anybody.
//! - The block ends at the first transaction that does not fit; that one and those after it stay.
//!
//! Not here: gossip, and the 24 hours after which a real pool forgets.

use std::collections::HashSet;
use std::sync::Arc;

use logos_log::ids::TxHash;

use crate::chain::Tx;
use crate::ledger::{Ledger, Prices, Refusal};

/// What a block can hold.
#[derive(Clone, Copy, Debug)]
pub struct BlockLimits {
    /// Encoded signed transactions, in bytes.
    pub bytes: usize,
    /// Number of transactions.
    pub txs: usize,
    /// Execution gas.
    pub gas: u64,
}

impl BlockLimits {
    /// August 2026.
    pub const CURRENT: Self = Self { bytes: 2 * 1024 * 1024, txs: 1024, gas: 3_193_460 };
    /// June 2026.
    pub const JUNE: Self = Self { bytes: 1024 * 1024, ..Self::CURRENT };

    /// Largest data of one inscription: seven eighths of a block.
    pub fn inscription(&self) -> usize {
        self.bytes / 8 * 7
    }
}

/// What goes into a block and what falls out of the pool.
#[derive(Debug)]
pub struct Assembly {
    /// The content of the block.
    pub txs: Vec<Arc<Tx>>,
    /// The ledger after it.
    pub ledger: Arc<Ledger>,
    /// What never applied, and why.
    pub evicted: Vec<(TxHash, Refusal)>,
}

/// The pending transactions.
#[derive(Default)]
pub struct Mempool {
    pending: Vec<Arc<Tx>>,
    hashes: HashSet<TxHash>,
}

impl Mempool {
    /// Add one; false if it is pending already.
    pub fn add(&mut self, tx: Arc<Tx>) -> bool {
        let new = self.hashes.insert(tx.hash);
        if new {
            self.pending.push(tx);
        }
        new
    }

    /// Add one before all others; false if it is pending already.
    pub fn add_first(&mut self, tx: Arc<Tx>) -> bool {
        let new = self.hashes.insert(tx.hash);
        if new {
            self.pending.insert(0, tx);
        }
        new
    }

    /// Take these out.
    pub fn remove(&mut self, hashes: &HashSet<TxHash>) {
        if hashes.iter().any(|hash| self.hashes.remove(hash)) {
            self.hashes.retain(|hash| !hashes.contains(hash));
            self.pending.retain(|tx| !hashes.contains(&tx.hash));
        }
    }

    /// Whether one is pending.
    pub fn contains(&self, hash: &TxHash) -> bool {
        self.hashes.contains(hash)
    }

    /// All, in order of arrival.
    pub fn pending(&self) -> &[Arc<Tx>] {
        &self.pending
    }

    /// What the next block holds. The pool itself is left as it is.
    pub fn assemble(&self, before: &Arc<Ledger>, slot: u64, prices: &Prices, limits: &BlockLimits) -> Assembly {
        let (mut bytes, mut gas) = (0, 0);
        let mut full = false;
        let mut block = Assembly { txs: Vec::new(), ledger: before.clone(), evicted: Vec::new() };
        let mut ledger = before.clone();
        let mut waiting: Vec<&Arc<Tx>> = self.pending.iter().collect();
        loop {
            let mut refused = Vec::new();
            let tried = waiting.len();
            block.evicted.clear();
            for tx in waiting {
                match ledger.apply(&tx.signed, slot, prices) {
                    Ok(after) => {
                        ledger = Arc::new(after);
                        bytes += tx.size;
                        gas += tx.signed.execution_gas();
                        full |= bytes > limits.bytes || gas > limits.gas || block.txs.len() == limits.txs;
                        if !full {
                            block.txs.push(tx.clone());
                            block.ledger = ledger.clone();
                        }
                    }
                    Err(refusal) => {
                        block.evicted.push((tx.hash, refusal));
                        refused.push(tx);
                    }
                }
            }
            if refused.is_empty() || refused.len() == tried {
                return block;
            }
            waiting = refused;
        }
    }
}
