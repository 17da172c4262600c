//! What kind of node this is: everything that is chosen once, at its start.
//!
//! Invariants
//! - The defaults are a truthful, quiet node: blocks on demand, no fees, no password, nothing on disk.

use std::path::PathBuf;

use crate::answers::Shape;
use crate::ledger::{NoteKey, Prices};
use crate::mempool::BlockLimits;

/// How far apart the slots of successive blocks are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SlotGap {
    /// Always so many slots.
    Fixed(u64),
    /// By chance, a block in each slot with this probability, as with real leaders; the same on every run.
    Density(f64),
}

/// What kind of node this is.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Where to listen on 127.0.0.1; 0 = anywhere.
    pub port: u16,
    /// Chains with different numbers have nothing in common.
    pub genesis: u64,
    /// Depth of finality.
    pub k: u64,
    /// Slots between blocks.
    pub gap: SlotGap,
    /// Milliseconds between blocks; none = only on demand.
    pub block_ms: Option<u64>,
    /// Whether it starts online rather than bootstrapping.
    pub online: bool,
    /// Which version answers.
    pub shape: Shape,
    /// What gas costs.
    pub prices: Prices,
    /// Owner of the notes in the wallet.
    pub wallet: NoteKey,
    /// Values of those notes.
    pub notes: Vec<u64>,
    /// `user:password` that every request must bring, as behind a reverse proxy.
    pub auth: Option<String>,
    /// Largest body of a request.
    pub body_bytes_max: usize,
    /// Where to keep the state.
    pub state: Option<PathBuf>,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            port: 0,
            genesis: 0,
            k: 30,
            gap: SlotGap::Fixed(20),
            block_ms: None,
            online: true,
            shape: Shape::August,
            prices: Prices::FREE,
            wallet: [7; 32],
            notes: vec![1_000_000_000; 10],
            auth: None,
            body_bytes_max: 10 * 1024 * 1024,
            state: None,
        }
    }
}

impl NodeConfig {
    /// What a block may hold.
    pub fn limits(&self) -> BlockLimits {
        if self.shape.is_june() {
            BlockLimits::JUNE
        } else {
            BlockLimits::CURRENT
        }
    }

    /// Length of a slot, as far as a clock without time has one.
    pub fn slot_ms(&self) -> u64 {
        let slots = match self.gap {
            SlotGap::Fixed(slots) => slots as f64,
            SlotGap::Density(density) => 1.0 / density,
        };
        self.block_ms.map_or(1000, |ms| (ms as f64 / slots).max(1.0) as u64)
    }
}
