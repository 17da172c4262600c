//! The node's answers: what we take from them, in the spelling of August 2026 or of June 2026.
//!
//! Invariants
//! - Unknown fields are ignored; missing ones that we need are an error that names them.
//! - Values are whole u64, never floats. Ids are hex of either case, with or without `0x`.
//! - A transaction that does not concern our channel is not looked into: it may hold operations nobody here knows.
//! - Memory stays near the size of the answer: what is not needed is passed over as text, lists are bounded, and a tree of values
//!   is only made of one transaction of our channel at a time, and only of as many values as any real one has.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use logos_log::chain::{CheckedTx, Link as ChainLink};
use logos_log::entry::{Op, Proof, SignedTx};
use logos_log::ids::{ChannelId, MsgId, PublicKey, TxHash};
use logos_log::limits::OPS_MAX;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::Value;

/// Most transactions of a block; a real one of 2 MiB has no room for half as many.
const TXS_MAX: usize = 65_536;

/// Most commas and brackets of a transaction that is made into values, each of which may take some hundred bytes then.
const VALUES_MAX: usize = 200_000;

/// As much of an error body is looked at.
const COMPLAINT_BYTES: usize = 64 * 1024;

/// 32 bytes in any of the node's spellings.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockId(pub [u8; 32]);

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockId({self})")
    }
}

/// Reads 32 bytes of hex.
pub fn id32(text: &str) -> Option<[u8; 32]> {
    let mut id = [0; 32];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut id).ok().map(|()| id)
}

impl<'de> Deserialize<'de> for BlockId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        id32(&text).map(Self).ok_or_else(|| D::Error::custom("an id that is not 32 bytes in hex"))
    }
}

/// `GET /cryptarchia/info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// The first block, where the node says it.
    pub genesis: Option<BlockId>,
    /// The last irreversible block.
    pub lib: BlockId,
    /// Its slot.
    pub lib_slot: u64,
    /// The newest block.
    pub tip: BlockId,
    /// Its slot.
    pub tip_slot: u64,
    /// Whether the node follows the chain.
    pub online: bool,
}

impl<'de> Deserialize<'de> for Info {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            cryptarchia_info: Inner,
            mode: Option<Box<RawValue>>,
        }
        #[derive(Deserialize)]
        struct Mode {
            #[serde(rename = "Started")]
            started: String,
        }
        #[derive(Deserialize)]
        struct Inner {
            genesis_id: Option<BlockId>,
            lib: BlockId,
            lib_slot: u64,
            tip: BlockId,
            slot: u64,
            state: Option<String>,
        }
        let Raw { cryptarchia_info: info, mode } = Raw::deserialize(deserializer)?;
        // June 2026: "mode": "AwaitingStart" or {"Started": state}.
        let started = |mode: Box<RawValue>| serde_json::from_str(mode.get()).map(|mode: Mode| mode.started);
        let june = mode.map(|mode| started(mode).unwrap_or_else(|_| "AwaitingStart".into()));
        let state = info.state.or(june);
        Ok(Self {
            genesis: info.genesis_id,
            lib: info.lib,
            lib_slot: info.lib_slot,
            tip: info.tip,
            tip_slot: info.slot,
            online: state.is_none_or(|state| state.eq_ignore_ascii_case("online")),
        })
    }
}

/// `GET /channel/{id}`: what the ledger knows of the channel at the tip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelState {
    /// Who may write.
    pub keys: Vec<PublicKey>,
    /// The newest message or configuration.
    pub tip: MsgId,
    /// Slot of its block.
    pub tip_slot: u64,
}

impl<'de> Deserialize<'de> for ChannelState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            accredited_keys: Vec<BlockId>,
            tip_message: BlockId,
            tip_slot: u64,
        }
        let raw = Raw::deserialize(deserializer)?;
        Ok(Self {
            keys: raw.accredited_keys.into_iter().map(|key| PublicKey(key.0)).collect(),
            tip: MsgId(raw.tip_message.0),
            tip_slot: raw.tip_slot,
        })
    }
}

/// A block, with only what concerns one channel read out of it.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its id.
    pub id: BlockId,
    /// The block before it.
    pub parent: BlockId,
    /// When it was made.
    pub slot: u64,
    /// Its transactions that concern the channel, in order.
    pub txs: Vec<ChannelTx>,
}

/// A transaction with links of our channel.
#[derive(Debug, Clone)]
pub struct ChannelTx {
    /// The transaction.
    pub tx: CheckedTx,
    /// The links in it.
    pub links: Vec<Link>,
    /// Bytes that it took in the answer, and never less than it takes here.
    pub size: usize,
}

/// One link of the channel's chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its id.
    pub id: MsgId,
    /// What it says it follows; a configuration says nothing.
    pub parent: Option<MsgId>,
    /// The transaction that carries it.
    pub tx: TxHash,
}

#[derive(Deserialize)]
struct RawBlock<'a> {
    header: RawHeader,
    #[serde(borrow)]
    transactions: Texts<'a, TXS_MAX>,
}

#[derive(Deserialize)]
struct RawHeader {
    id: BlockId,
    parent_block: BlockId,
    slot: u64,
}

/// A list of at most so many values, left as text.
struct Texts<'a, const MAX: usize>(Vec<&'a RawValue>);

impl<'de: 'a, 'a, const MAX: usize> Deserialize<'de> for Texts<'a, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(TextsVisitor(PhantomData))
    }
}

struct TextsVisitor<'a, const MAX: usize>(PhantomData<&'a ()>);

impl<'de: 'a, 'a, const MAX: usize> Visitor<'de> for TextsVisitor<'a, MAX> {
    type Value = Texts<'a, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element::<&'a RawValue>()? {
            if texts.len() == MAX {
                return Err(A::Error::custom(format!("a list of more than {MAX}")));
            }
            texts.push(text);
        }
        Ok(Texts(texts))
    }
}

/// Reads blocks one after another, so that the texts of only one are held.
struct Blocks(ChannelId);

impl<'de> Visitor<'de> for Blocks {
    type Value = Vec<Block>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of blocks")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut blocks = Vec::new();
        while let Some(raw) = list.next_element::<RawBlock<'de>>()? {
            blocks.push(read_block(&raw, self.0).map_err(A::Error::custom)?);
        }
        Ok(blocks)
    }
}

/// Reads one block, or says what is wrong with it.
pub fn block(bytes: &[u8], channel: ChannelId) -> Result<Block, String> {
    let raw: RawBlock<'_> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    read_block(&raw, channel)
}

/// Reads an array of blocks.
pub fn blocks(bytes: &[u8], channel: ChannelId) -> Result<Vec<Block>, String> {
    let mut answer = serde_json::Deserializer::from_slice(bytes);
    let blocks = answer.deserialize_seq(Blocks(channel)).map_err(|e| e.to_string())?;
    answer.end().map(|()| blocks).map_err(|e| e.to_string())
}

fn read_block(raw: &RawBlock<'_>, channel: ChannelId) -> Result<Block, String> {
    let RawHeader { id, parent_block: parent, slot } = raw.header;
    let mut txs = Vec::new();
    for text in raw.transactions.0.iter().map(|text| text.get()).filter(|text| concerns(text, channel)) {
        let why = |e: String| format!("a transaction of this channel in block {id}: {e}");
        let tx = SignedTx::from_json(&values(text).map_err(why)?).map_err(|e| why(e.to_string()))?;
        let hash = tx.hash();
        let link = |op: &Op| {
            ChainLink::of(op, channel).map(|link| Link {
                id: link.id(),
                parent: match link {
                    ChainLink::Entry(inscription) => Some(inscription.parent),
                    ChainLink::Config(_) => None,
                },
                tx: hash,
            })
        };
        let links = tx.ops.iter().filter_map(link).collect();
        txs.push(ChannelTx { tx: tx.into(), links, size: text.len() });
    }
    Ok(Block { id, parent, slot, txs })
}

/// A tree of values, if it is one of a size that anything real has.
fn values(text: &str) -> Result<Value, String> {
    let count = text.bytes().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    match count <= VALUES_MAX {
        true => serde_json::from_str(text).map_err(|e| e.to_string()),
        false => Err(format!("it has {count} values and more, at most {VALUES_MAX}")),
    }
}

/// Whether a transaction holds an inscription or a configuration of the channel. One of any other shape does not.
fn concerns(tx: &str, channel: ChannelId) -> bool {
    #[derive(Deserialize)]
    struct Tx<'a> {
        #[serde(borrow)]
        mantle_tx: Ops<'a>,
    }
    #[derive(Deserialize)]
    struct Ops<'a> {
        #[serde(borrow)]
        ops: Texts<'a, OPS_MAX>,
    }
    #[derive(Deserialize)]
    struct Operation<'a> {
        opcode: u64,
        #[serde(borrow)]
        payload: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Inscription<'a> {
        #[serde(borrow)]
        channel_id: Cow<'a, str>,
    }
    #[derive(Deserialize)]
    struct Config<'a> {
        #[serde(borrow)]
        channel: Cow<'a, str>,
    }
    let ops = serde_json::from_str::<Tx<'_>>(tx).map_or_else(|_| Vec::new(), |tx| tx.mantle_tx.ops.0);
    ops.into_iter().any(|op| {
        let Ok(Operation { opcode, payload }) = serde_json::from_str(op.get()) else { return false };
        let named = match opcode {
            0x11 => serde_json::from_str(payload.get()).map(|op: Inscription<'_>| op.channel_id),
            0x10 => serde_json::from_str(payload.get()).map(|op: Config<'_>| op.channel),
            _ => return false,
        };
        named.ok().and_then(|named| id32(&named)) == Some(channel.0)
    })
}

/// `POST /wallet/fund`: the operations as they are to be signed, and the proof of the transfer that pays.
pub fn funded(bytes: &[u8]) -> Result<(BlockId, Vec<Op>, Option<Proof>), String> {
    #[derive(Deserialize)]
    struct Raw<'a> {
        tip: BlockId,
        #[serde(borrow)]
        funded_tx: Ops<'a>,
        #[serde(borrow)]
        transfer_proof: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Ops<'a> {
        #[serde(borrow)]
        ops: Texts<'a, OPS_MAX>,
    }
    let raw: Raw<'_> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let op = |text: &&RawValue| Op::from_json(&values(text.get())?).map_err(|e| e.to_string());
    let proof = |text: &RawValue| Proof::from_json(&values(text.get())?).map_err(|e| e.to_string());
    let ops = raw.funded_tx.ops.0.iter().map(op).collect::<Result<_, _>>()?;
    Ok((raw.tip, ops, raw.transfer_proof.map(proof).transpose()?))
}

/// `GET /wallet/{key}/balance`: the value of each note.
pub fn notes(bytes: &[u8]) -> Result<Vec<([u8; 32], u64)>, String> {
    #[derive(Deserialize)]
    struct Raw {
        notes: std::collections::HashMap<String, u64>,
    }
    let raw: Raw = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    Ok(raw.notes.iter().filter_map(|(id, value)| Some((id32(id)?, *value))).collect())
}

/// `GET /mantle/gas-prices`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct GasPrices {
    /// Of a unit of execution.
    pub execution_base_gas_price: u64,
    /// Of a byte.
    pub storage_gas_price: u64,
}

/// `GET /time/info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Time {
    /// Length of a slot.
    pub slot_duration_ms: u64,
}

/// `GET /mempool/view`.
pub fn hashes(bytes: &[u8]) -> Result<Vec<TxHash>, String> {
    let raw: Vec<BlockId> = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    Ok(raw.into_iter().map(|id| TxHash(id.0)).collect())
}

/// What an error body says: the node's JSON, or plain text, cut short.
pub fn complaint(bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Raw {
        message: String,
    }
    let bytes = &bytes[..bytes.len().min(COMPLAINT_BYTES)];
    let message = serde_json::from_slice(bytes)
        .map_or_else(|_| String::from_utf8_lossy(bytes).into_owned(), |raw: Raw| raw.message);
    message.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    //! Goal: the client reads what real nodes write. Method: bodies made with the node's own types (vectors.json), and
    //! June's spellings of the same, written out by hand. Nothing here is made with our own encoder.
    use super::*;

    fn bodies() -> Value {
        let text = include_str!("../../../../log/tests/data/vectors.json");
        serde_json::from_str::<Value>(text).unwrap()["http_bodies"].clone()
    }

    fn body(of: &str) -> Vec<u8> {
        bodies()[of]["body"].to_string().into_bytes()
    }

    #[test]
    fn info_of_august_and_of_june_is_read() {
        let info: Info = serde_json::from_slice(&body("GET /cryptarchia/info")).unwrap();
        assert_eq!((info.lib_slot, info.tip_slot, info.online), (1200, 1234, true));
        assert!(info.genesis.unwrap().to_string().starts_with("63622915"));
        assert!(info.lib.to_string().starts_with("8b89f8cb") && info.tip.to_string().starts_with("b0ccee47"));
        let ids =
            format!(r#""lib":"{}","lib_slot":5,"tip":"0x{}","slot":9,"height":2"#, "aa".repeat(32), "BB".repeat(32));
        for (mode, online) in [
            (r#"{"Started":"Online"}"#, true),
            (r#"{"Started":"Bootstrapping"}"#, false),
            (r#""AwaitingStart""#, false),
        ] {
            let june = format!(r#"{{"cryptarchia_info":{{{ids}}},"mode":{mode}}}"#);
            let info: Info = serde_json::from_str(&june).unwrap();
            assert_eq!((info.genesis, info.lib_slot, info.online), (None, 5, online), "{mode}");
            assert_eq!(info.tip.0, [0xbb; 32]);
        }
        let null = format!(
            r#"{{"cryptarchia_info":{{{ids},"genesis_id":null,"state":"Bootstrapping"}},"phase":"Following"}}"#
        );
        assert!(!serde_json::from_str::<Info>(&null).unwrap().online);
    }

    #[test]
    fn the_state_of_a_channel_is_read() {
        let state: ChannelState = serde_json::from_slice(&body("GET /channel/:id")).unwrap();
        assert_eq!((state.keys.len(), state.tip_slot), (1, 1234));
        assert!(state.tip.to_string().starts_with("f3b3f4b1"));
        assert!(serde_json::from_str::<ChannelState>("{}").unwrap_err().to_string().contains("accredited_keys"));
    }

    #[test]
    fn a_block_gives_the_links_of_its_channel_and_nothing_of_others() {
        let bytes = body("GET /cryptarchia/blocks/:id");
        let raw: Value = serde_json::from_slice(&bytes).unwrap();
        let ops =
            raw["transactions"].as_array().unwrap().iter().flat_map(|tx| tx["mantle_tx"]["ops"].as_array().unwrap());
        let named = ops.filter_map(|op| op["payload"]["channel_id"].as_str()).next().unwrap().to_string();
        let ours = block(&bytes, ChannelId(id32(&named).unwrap())).unwrap();
        assert_eq!((ours.slot, ours.txs.len()), (1234, 1));
        assert!(ours.id.to_string().starts_with("b0ccee47") && ours.parent.to_string().starts_with("8b89f8cb"));
        // The hash that the node's own code computed is the one that we compute.
        let said = raw["transactions"][0]["mantle_tx"]["hash"].as_str().unwrap();
        assert_eq!(ours.txs[0].tx.tx().hash().to_string(), said);
        assert_eq!(ours.txs[0].size, raw["transactions"][0].to_string().len());
        assert!(block(&bytes, ChannelId([1; 32])).unwrap().txs.is_empty());
        assert_eq!(blocks(&body("GET /cryptarchia/blocks?slot_from=&slot_to="), ChannelId([1; 32])).unwrap().len(), 1);
    }

    #[test]
    fn foreign_operations_are_skipped_and_named_where_our_channel_is_with_them() {
        let channel = ChannelId([0xcc; 32]);
        let with = |ops: &str| {
            let id = "11".repeat(32);
            format!(
                r#"{{"header":{{"id":"{id}","parent_block":"{id}","slot":1,"block_root":"{id}"}},
                "transactions":[{{"mantle_tx":{{"ops":[{ops}]}},"ops_proofs":[]}}]}}"#
            )
        };
        let unknown = r#"{"opcode":48,"payload":{"any":1}}"#;
        assert!(block(with(unknown).as_bytes(), channel).unwrap().txs.is_empty());
        let ours = format!(r#"{unknown},{{"opcode":17,"payload":{{"channel_id":"{channel}"}}}}"#);
        assert!(block(with(&ours).as_bytes(), channel).unwrap_err().contains("0x30"));
    }

    #[test]
    fn answers_that_would_take_many_times_their_size_in_memory_are_refused() {
        let channel = ChannelId([0xcc; 32]);
        let id = "11".repeat(32);
        let with = |txs: String| {
            format!(r#"{{"header":{{"id":"{id}","parent_block":"{id}","slot":1}},"transactions":[{txs}]}}"#)
        };
        let many = |n: usize| with(vec!["0"; n].join(","));
        assert!(block(many(TXS_MAX).as_bytes(), channel).unwrap().txs.is_empty());
        assert!(block(many(TXS_MAX + 1).as_bytes(), channel).unwrap_err().contains("more than 65536"));
        assert!(blocks(format!("[{}]", many(TXS_MAX + 1)).as_bytes(), channel)
            .unwrap_err()
            .contains("more than 65536"));
        // Values that nobody looks at cost nothing, in a transaction of our channel too many are refused.
        let stuffed = |of: &str| {
            let values = vec![r#"{"":0}"#; VALUES_MAX].join(",");
            with(format!(
                r#"{{"mantle_tx":{{"ops":[{{"opcode":17,"payload":{{"channel_id":"{of}"}}}}]}},"x":[{values}]}}"#
            ))
        };
        assert!(block(stuffed(&id).as_bytes(), channel).unwrap().txs.is_empty());
        assert!(block(stuffed(&channel.to_string()).as_bytes(), channel).unwrap_err().contains("at most 200000"));
        let funds = format!(
            r#"{{"tip":"{id}","funded_tx":{{"ops":[]}},"transfer_proof":[{}]}}"#,
            vec!["0"; VALUES_MAX + 1].join(",")
        );
        assert!(funded(funds.as_bytes()).unwrap_err().contains("at most 200000"));
    }

    #[test]
    fn a_funded_transaction_and_prices_are_read() {
        let answer = |name: &str| bodies()["POST /wallet/fund"][name]["body"].to_string();
        let (_, ops, proof) = funded(answer("response").as_bytes()).unwrap();
        assert!(matches!(ops.as_slice(), [Op::Inscribe(_), Op::Transfer(_)]) && matches!(proof, Some(Proof::Zk(_))));
        let (_, ops, proof) = funded(answer("response_without_transfer").as_bytes()).unwrap();
        assert!(matches!(ops.as_slice(), [Op::Inscribe(_)]) && proof.is_none());
        let prices: GasPrices = serde_json::from_slice(&body("GET /mantle/gas-prices")).unwrap();
        assert_eq!((prices.execution_base_gas_price, prices.storage_gas_price), (1, 1));
        let time: Time = serde_json::from_slice(&body("GET /time/info")).unwrap();
        assert_eq!(time.slot_duration_ms, 1000);
        // The largest value is no float.
        let largest = format!(r#"{{"tip":"","balance":0,"notes":{{"{}":18446744073709551615}}}}"#, "01".repeat(32));
        assert_eq!(notes(largest.as_bytes()).unwrap(), [([1; 32], u64::MAX)]);
    }

    #[test]
    fn errors_are_understood_as_json_or_text() {
        assert_eq!(complaint(bodies()["errors"]["404"].to_string().as_bytes()), "Not found");
        assert_eq!(complaint(b"channel not found"), "channel not found");
    }
}
