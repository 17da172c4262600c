//! The blocks that are not final: from the tip back to the last irreversible block, parent by parent.
//!
//! Invariants
//! - A walk is whole or an error: a block that the node does not give out is named, never jumped over.
//! - Slots grow from block to block, so every walk ends.
//! - A block is asked for once while it can still be on a branch, as long as there is room: what is kept, of whatever branches a
//!   node shows, is bounded, and so are transactions by a budget of their own.

use std::collections::HashMap;

use logos_log::ids::ChannelId;

use super::api::Api;
use super::inconsistent;
use super::shape::{Block, BlockId, ChannelTx, Info, Link};
use crate::error::{Error, Result};

/// Deepest walk: far beyond the finality depth of any network.
const DEPTH_MAX: usize = 10_000;

/// Most links between the last irreversible block and the tip: ten in each block of a long chain of full ones.
const LINKS_MAX: usize = 200_000;

/// Transactions kept in memory, in bytes as the node sent them; beyond that they are fetched again when they are needed.
const KEPT_BYTES: usize = 16 * 1024 * 1024;

/// A block on the way from the tip to the last irreversible one.
#[derive(Debug, Clone)]
pub struct Recent {
    /// Its id.
    pub id: BlockId,
    /// When it was made.
    pub slot: u64,
    /// The links in it.
    pub links: Vec<Link>,
}

struct Kept {
    recent: Recent,
    parent: BlockId,
    txs: Option<Vec<ChannelTx>>,
    bytes: usize,
}

/// Blocks seen lately, on whatever branch.
pub struct Tree {
    channel: ChannelId,
    /// Whether the transactions will be asked for.
    keeps: bool,
    blocks: HashMap<BlockId, Kept>,
    bytes: usize,
    links: usize,
}

/// A block that the node has but does not give out.
pub fn not_given(api: &Api, id: BlockId) -> Error {
    Error::retry(
        format!("{} does not give out block {id}, which is on its own chain", api.base()),
        "nothing after that block was looked at and the position is kept; it is asked again, if it stays like this (a pruned \
         node, or one synced from a snapshot) use another node",
    )
}

impl Tree {
    /// Nothing seen yet.
    pub fn new(channel: ChannelId, keeps: bool) -> Self {
        Self { channel, keeps, blocks: HashMap::new(), bytes: 0, links: 0 }
    }

    /// The blocks after the last irreversible one up to the tip, oldest first.
    pub fn walk(&mut self, api: &mut Api, info: &Info) -> Result<Vec<Recent>> {
        let mut path: Vec<Recent> = Vec::new();
        let mut links = 0;
        let mut at = info.tip;
        while at != info.lib {
            if !self.blocks.contains_key(&at) {
                let block = api.block(at, self.channel)?.ok_or_else(|| not_given(api, at))?;
                self.keep(block);
            }
            let Some(kept) = self.blocks.get(&at) else { break };
            let slot = kept.recent.slot;
            if slot <= info.lib_slot || path.last().map_or(slot > info.tip_slot, |after| slot >= after.slot) {
                return Err(inconsistent(
                    api.base(),
                    &format!(
                        "block {at} (slot {slot}) is not between its tip and its last irreversible block {}",
                        info.lib
                    ),
                ));
            }
            links += kept.recent.links.len();
            if path.len() == DEPTH_MAX || links > LINKS_MAX {
                let (base, lib) = (api.base(), info.lib);
                return Err(inconsistent(
                    base,
                    &format!("more lies after its last irreversible block {lib} than any chain has"),
                ));
            }
            path.push(kept.recent.clone());
            at = kept.parent;
        }
        path.reverse();
        self.forget(info.lib_slot);
        Ok(path)
    }

    /// The transactions of a block on the path.
    pub fn txs(&mut self, api: &mut Api, id: BlockId) -> Result<Vec<ChannelTx>> {
        if let Some(Kept { txs: Some(txs), .. }) = self.blocks.get(&id) {
            return Ok(txs.clone());
        }
        Ok(api.block(id, self.channel)?.ok_or_else(|| not_given(api, id))?.txs)
    }

    fn keep(&mut self, block: Block) {
        // Only of a node that shows ever other branches.
        if self.blocks.len() >= 2 * DEPTH_MAX || self.links > 2 * LINKS_MAX {
            (self.blocks, self.bytes, self.links) = (HashMap::new(), 0, 0);
        }
        let links: Vec<Link> = block.txs.iter().flat_map(|tx| tx.links.iter().copied()).collect();
        self.links += links.len();
        let bytes = block.txs.iter().map(|tx| tx.size).sum();
        let room = self.keeps && self.bytes + bytes <= KEPT_BYTES;
        let bytes = if room { bytes } else { 0 };
        self.bytes += bytes;
        let recent = Recent { id: block.id, slot: block.slot, links };
        self.blocks.insert(block.id, Kept { recent, parent: block.parent, txs: room.then_some(block.txs), bytes });
    }

    /// What lies before the last irreversible block is on no branch any more.
    fn forget(&mut self, lib_slot: u64) {
        self.blocks.retain(|_, kept| kept.recent.slot > lib_slot);
        self.bytes = self.blocks.values().map(|kept| kept.bytes).sum();
        self.links = self.blocks.values().map(|kept| kept.recent.links.len()).sum();
    }
}
