//! The channel of a Logos node: entries are inscriptions on the Logos blockchain, written and read through the HTTP API of
//! any node.
//!
//! | module | what it is for |
//! |---|---|
//! | `api` | requests: bounded, timed, counted |
//! | `shape` | the node's answers, read leniently and checked |
//! | `tree` | the blocks that are not final, from the tip back to the last irreversible one |
//! | `writer` | fund, sign, post, post again, know what is included and final |
//! | `reader` | follow the blocks, notice whatever is missing, forged or replaced |
//!
//! Invariants
//! - No node is believed about entries: a reader delivers what the blocks hold, in their order, and names a gap. Whether
//!   the key of the channel has signed it is checked by whoever applies it.
//! - The bytes of an inscription are stored once and never change; a payload never gets a second parent.
//! - Secrets (the password of a proxy) come from the environment and appear in no URL, file or message.
//!
//! Speaks the protocol of August 2026 (testnet 0.2.1) and that of June 2026.

mod api;
mod carrier;
mod reader;
mod shape;
mod tree;
mod writer;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use logos_log::ids::ChannelId;
use shape::{BlockId, Info};

pub use reader::LogosReader;
pub use writer::LogosWriter;

/// Options of `logos_publish` for a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct WriteOptions {
    /// Public key, 64 hex digits, of the node wallet's notes that pay; only needed where there are fees.
    pub wallet_key: Option<String>,
    /// Most that one transaction may cost.
    pub fee_cap: Option<u64>,
    /// What to add to the fee, in percent, so that the transaction stays affordable while it waits. Default 12.
    pub reserve_percent: Option<u64>,
    /// Most transactions on their way at a time. Default 4; fewer when the wallet has fewer notes.
    pub in_flight: Option<usize>,
    /// Milliseconds between two looks at the node. Default: by its block time, at most 2000.
    pub poll_ms: Option<u64>,
}

impl WriteOptions {
    /// Most transactions on their way at a time.
    pub fn in_flight(&self) -> usize {
        self.in_flight.unwrap_or(4).clamp(1, 64)
    }
}

/// Options of `attach_replica` for a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ReadOptions {
    /// When to apply an entry.
    #[serde(default)]
    pub confirm: Confirm,
    /// Milliseconds between two looks at the node. Default 1000.
    pub poll_ms: Option<u64>,
}

/// When an entry counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confirm {
    /// Once it is in a block of the preferred chain.
    #[default]
    Included,
    /// Once that block is irreversible.
    Final,
}

/// For a database that believed a node what it could not prove: which chain is the right one, and what of it is final.
const LIED: &str = "If every node says so, the one that was asked before lied: attach a new file";

/// A node that cannot be used now, or ever, for this channel.
fn check_node(base: &str, info: &Info, genesis: Option<BlockId>) -> Result<(), Error> {
    if let (Some(known), Some(found)) = (genesis, info.genesis) {
        if known != found {
            return Err(Error::fix(
                format!(
                    "{base} is on another chain: its first block is {found}, and this channel began on a chain whose first \
                     block is {known}; the network was reset, or this is a node of another network"
                ),
                format!(
                    "nothing was changed and the position is kept; use a node of the network on which the channel began, or begin \
                     a new channel (new replicas on new files). {LIED}"
                ),
            ));
        }
    }
    if info.online {
        return Ok(());
    }
    Err(Error::retry(
        format!("{base} is still bootstrapping (Bootstrapping, tip at slot {})", info.tip_slot),
        "nothing was lost; it goes on by itself once the node follows the chain",
    ))
}

/// A configuration that the author's key has signed, and that no publisher makes.
pub fn reconfigured(channel: ChannelId, which: &str) -> Error {
    Error::resync(
        format!(
            "channel {channel} was reconfigured with the key of this database by another program: configuration {which} is the link \
             that the next entry would have to follow"
        ),
        "nothing is lost and the changes stay in this database, but this channel cannot be continued: SELECT logos_remove(), \
         then logos_publish begins a new channel",
    )
}

/// A node that says one thing here and another there.
fn inconsistent(base: &str, what: &str) -> Error {
    Error::retry(
        format!("{base} contradicts itself: {what}"),
        "nothing was changed and the position is kept; it is asked again, if it stays like this use another node",
    )
}
