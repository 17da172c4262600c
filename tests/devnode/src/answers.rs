//! The shapes of the node's answers, as of August 2026 or of June 2026. Nothing but shapes.
//!
//! Invariants
//! - What is withheld appears in none of them.
//! - Numbers are whole u64; identifiers are lower-case hex.

use std::sync::Arc;

use serde_json::{json, Map, Value};

use crate::chain::{Block, BlockId, Chain, Tx};
use crate::faults::Faults;
use crate::ledger::{Channel, Ledger, NoteKey};

/// Which version of the node answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Master of August 2026, testnet 0.2.1.
    August,
    /// Commit 8784b837 of June 2026: no fees, plain text errors.
    June,
}

impl Shape {
    /// Whether it is the older one.
    pub fn is_june(self) -> bool {
        self == Self::June
    }
}

/// `GET /cryptarchia/info`.
pub fn info(chain: &Chain, shape: Shape) -> Value {
    let (tip, lib) = (chain.tip(), chain.lib());
    let state = if chain.online() { "Online" } else { "Bootstrapping" };
    let mut info = json!({
        "lib": lib.id.to_string(),
        "lib_slot": lib.slot,
        "tip": tip.id.to_string(),
        "slot": tip.slot,
        "height": tip.height,
    });
    if shape.is_june() {
        return json!({"cryptarchia_info": info, "mode": {"Started": state}});
    }
    info["genesis_id"] = json!(chain.genesis().id.to_string());
    info["state"] = json!(state);
    let phase = if chain.online() { "Following" } else { "InitialBlockDownload" };
    json!({"cryptarchia_info": info, "phase": phase})
}

/// `GET /channel/{id}`.
pub fn channel(channel: &Channel, shape: Shape) -> Value {
    let mut state = json!({
        "accredited_keys": channel.keys.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "configuration_threshold": channel.configuration_threshold,
        "tip_message": channel.tip.to_string(),
        "tip_slot": channel.tip_slot,
        "tip_sequencer": channel.sequencer,
        "tip_sequencer_starting_slot": channel.sequencer_start,
        "posting_timeframe": channel.timeframe,
        "posting_timeout": channel.timeout,
    });
    if shape.is_june() {
        state["withdraw_threshold"] = json!(channel.transfer_threshold);
        state["withdrawal_nonce"] = json!(0);
        state["balance"] = json!(0);
    } else {
        state["transfer_threshold"] = json!(channel.transfer_threshold);
    }
    state
}

/// A transaction as it stands in a block.
pub fn tx(tx: &Tx, shape: Shape) -> Value {
    if let Some(shown) = &tx.shown {
        return shown.clone();
    }
    let mut json = tx.signed.to_json();
    json["mantle_tx"]["hash"] = json!(tx.hash.to_string());
    if shape.is_june() {
        json["mantle_tx"]["ops"].as_array_mut().into_iter().flatten().for_each(|op| {
            rename(&mut op["payload"], "transfer_threshold", "withdraw_threshold");
        });
        json["ops_proofs"].as_array_mut().into_iter().flatten().for_each(|proof| {
            rename(proof, "ChannelMultiSigProof", "ZkAndEd25519Sigs");
        });
    }
    json
}

fn rename(object: &mut Value, from: &str, to: &str) {
    if let Some(fields) = object.as_object_mut() {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.into(), value);
        }
    }
}

/// A block, without what is withheld.
pub fn block(block: &Block, faults: &Faults, shape: Shape) -> Value {
    let mut header = json!({
        "id": block.id.to_string(),
        "parent_block": block.parent.to_string(),
        "slot": block.slot,
        "proof_of_leadership": {
            "proof": "00".repeat(128),
            "entropy_contribution": format!("{:0<64}", hex::encode(block.entropy.to_le_bytes())),
            "leader_key": "00".repeat(32),
            "voucher_cm": "00".repeat(32),
        },
    });
    let root = if shape.is_june() { "block_root" } else { "body_root" };
    header[root] = json!(hex::encode(block.body_root));
    let shown: Vec<Value> = block.txs.iter().filter(|tx| faults.shows_tx(tx)).map(|shown| tx(shown, shape)).collect();
    let mut json = json!({"header": header, "transactions": shown});
    if !shape.is_june() {
        json["uncle_headers"] = json!([]);
    }
    json
}

/// Blocks, without those withheld.
pub fn blocks<'a>(blocks: impl IntoIterator<Item = &'a Arc<Block>>, faults: &Faults, shape: Shape) -> Value {
    blocks.into_iter().filter(|b| faults.shows_block(b)).map(|b| block(b, faults, shape)).collect()
}

/// A line of the block streams.
pub fn event(processed: &Block, chain: &Chain, faults: &Faults, shape: Shape) -> Value {
    let (tip, lib) = (chain.tip(), chain.lib());
    json!({
        "block": block(processed, faults, shape),
        "tip": tip.id.to_string(),
        "tip_slot": tip.slot,
        "lib": lib.id.to_string(),
        "lib_slot": lib.slot,
    })
}

/// A line of the LIB stream.
pub fn finalized(block: &Block) -> Value {
    json!({"height": block.height, "header_id": block.id.to_string()})
}

/// `GET /wallet/{pk}/balance`.
pub fn balance(ledger: &Ledger, owner: &NoteKey, tip: BlockId) -> Value {
    let own = ledger.notes.iter().filter(|(_, note)| note.owner == *owner);
    let notes: Map<String, Value> = own.map(|(id, note)| (hex::encode(id), json!(note.value))).collect();
    let balance: u64 = notes.values().filter_map(Value::as_u64).fold(0, u64::saturating_add);
    json!({"tip": tip.to_string(), "balance": balance, "notes": notes, "address": hex::encode(owner)})
}
