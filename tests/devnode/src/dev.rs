//! Administration under `/dev/`, for tests in other languages: the methods of [`Node`] as POST with a JSON body,
//! and what it knows as GET. Answers 200 with JSON, or 400 with the reason as text.
//!
//! | POST | body |
//! |---|---|
//! | `mine` | `n` |
//! | `mine_empty` | `n`, `density` (blocks a slot, default 1/20) |
//! | `reorganise` | `n`, `txs`: return, drop, keep, reorder |
//! | `side` | `depth`: a block beside the chain |
//! | `advance` | `slots` |
//! | `online` | `online`: true or false |
//! | `prices` | `execution`, `storage` |
//! | `reset` | `genesis`: a number |
//! | `write` | `channel`, `seed`, `data` or `data_hex`, optional `parent`, `first` (before all that is pending) |
//! | `configure` | `seed`, `config`: the payload of a ChannelConfig |
//! | `forge` | as `write`, with optional `signer`, `corrupt`; or `tx`: a signed transaction; or `replay`: a hash; or `foreign`: any JSON, shown as a transaction |
//! | `fault` | `kind`: status, stall, close, truncate, drip, join, garbage, wrong_json, redirect, huge, with their numbers; optional `path`, `skip`, `times`, `after` |
//! | `lose_posts`, `refuse_funds`, `duplicate_events` | `n` |
//! | `withhold`, `reveal` | `id` of a block, transaction or message |
//! | `clear_faults` | |
//!
//! GET: `state`, `counters`, `evictions`, `inscriptions/{channel}`.

use logos_log::entry::{ChannelConfig, Op, SignedTx};
use logos_log::ids::{ChannelId, MsgId, PublicKey, TxHash};
use serde::de::DeserializeOwned;
use serde::Deserialize;
use serde_json::{json, Value};

use crate::faults::Rule;
use crate::http::{JSON, TEXT};
use crate::ledger::Prices;
use crate::node::{parse_id, Abandoned, Forgery, Node};
use crate::server::{Request, Response};

/// Answer an administrator.
pub fn answer(node: &Node, request: &Request, parts: &[&str]) -> Response {
    let answer = match (request.method.as_str(), parts) {
        ("GET", [what, rest @ ..]) => ask(node, what, rest),
        ("POST", [verb]) => match request.body.is_empty() {
            true => Ok(json!({})),
            false => serde_json::from_slice(&request.body).map_err(|error| error.to_string()),
        }
        .and_then(|body| act(node, verb, body)),
        _ => Err("no such question".into()),
    };
    match answer {
        Ok(value) => Response::full(200, JSON, value.to_string()),
        Err(why) => Response::full(400, TEXT, why),
    }
}

#[derive(Deserialize)]
struct Count {
    n: u64,
    #[serde(default = "twentieth")]
    density: f64,
    txs: Option<Abandoned>,
}

fn twentieth() -> f64 {
    0.05
}

#[derive(Deserialize)]
struct Writing {
    channel: String,
    seed: String,
    data: Option<String>,
    data_hex: Option<String>,
    parent: Option<String>,
    signer: Option<String>,
    #[serde(default)]
    first: bool,
    #[serde(default)]
    corrupt: bool,
}

impl Writing {
    fn data(&self) -> Result<Vec<u8>, String> {
        match (&self.data, &self.data_hex) {
            (Some(text), None) => Ok(text.clone().into_bytes()),
            (None, Some(digits)) => hex::decode(digits).map_err(|error| error.to_string()),
            _ => Err("needs either data or data_hex".into()),
        }
    }

    fn parent(&self) -> Result<Option<MsgId>, String> {
        self.parent.as_deref().map(|text| id(text).map(MsgId)).transpose()
    }
}

fn parsed<T: DeserializeOwned>(body: Value) -> Result<T, String> {
    serde_json::from_value(body).map_err(|error| error.to_string())
}

fn id(text: &str) -> Result<[u8; 32], String> {
    parse_id(text).ok_or_else(|| format!("{text:?} is not 32 bytes in hex"))
}

fn field(body: &Value, name: &str) -> Result<[u8; 32], String> {
    id(body[name].as_str().ok_or_else(|| format!("{name} is missing"))?)
}

fn number(body: &Value, name: &str) -> Result<u64, String> {
    body[name].as_u64().ok_or_else(|| format!("{name} is missing or no whole number"))
}

fn sent((message, tx): (MsgId, TxHash)) -> Value {
    json!({"msg_id": message.to_string(), "tx_hash": tx.to_string()})
}

fn act(node: &Node, verb: &str, body: Value) -> Result<Value, String> {
    let count = || parsed::<Count>(body.clone());
    let ids = |blocks: Vec<crate::chain::BlockId>| json!(blocks.iter().map(ToString::to_string).collect::<Vec<_>>());
    match verb {
        "mine" => Ok(ids(node.mine(count()?.n))),
        "mine_empty" => Ok(json!(node.mine_empty(count()?.n, count()?.density).len())),
        "reorganise" => Ok(ids(node.reorganise(count()?.n, count()?.txs.unwrap_or(Abandoned::Return))?)),
        "side" => Ok(json!(node.mine_side(number(&body, "depth")?)?.to_string())),
        "advance" => {
            node.advance(number(&body, "slots")?);
            Ok(json!(node.slot()))
        }
        "online" => {
            node.set_online(body["online"].as_bool().ok_or("online is missing")?);
            Ok(Value::Null)
        }
        "prices" => {
            node.set_prices(Prices { execution: number(&body, "execution")?, storage: number(&body, "storage")? });
            Ok(Value::Null)
        }
        "reset" => Ok(json!(node.reset(number(&body, "genesis")?)?.to_string())),
        "write" => {
            let writing: Writing = parsed(body)?;
            let (seed, channel) = (id(&writing.seed)?, ChannelId(id(&writing.channel)?));
            node.write(&seed, channel, writing.data()?, writing.parent()?, writing.first).map(sent)
        }
        "configure" => match Op::from_json(&json!({"opcode": 0x10, "payload": body["config"]})) {
            Ok(Op::Config(config)) => configure(node, &body, config),
            Ok(_) => Err("config is missing".into()),
            Err(error) => Err(error.to_string()),
        },
        "forge" => forge(node, body),
        "fault" => {
            node.fault(parsed::<Rule>(body)?);
            Ok(Value::Null)
        }
        "lose_posts" | "refuse_funds" | "duplicate_events" => {
            let n = count()?.n;
            node.with_faults(|faults| match verb {
                "lose_posts" => faults.lose_posts = n,
                "refuse_funds" => faults.refuse_funds = n,
                _ => faults.duplicate_events = n,
            });
            Ok(Value::Null)
        }
        "withhold" => {
            node.withhold(field(&body, "id")?);
            Ok(Value::Null)
        }
        "reveal" => {
            node.reveal(&field(&body, "id")?);
            Ok(Value::Null)
        }
        "clear_faults" => {
            node.clear_faults();
            Ok(Value::Null)
        }
        _ => Err(format!("{verb}: no such verb")),
    }
}

fn configure(node: &Node, body: &Value, config: ChannelConfig) -> Result<Value, String> {
    node.configure(&field(body, "seed")?, config).map(sent)
}

fn forge(node: &Node, body: Value) -> Result<Value, String> {
    if body.get("tx").is_some() {
        let tx = SignedTx::from_json(&body["tx"]).map_err(|error| error.to_string())?;
        return Ok(json!({"tx_hash": node.forge(tx).to_string()}));
    }
    if body.get("replay").is_some() {
        node.replay(&TxHash(field(&body, "replay")?))?;
        return Ok(Value::Null);
    }
    if let Some(foreign) = body.get("foreign") {
        return Ok(json!({"tx_hash": node.include_foreign(foreign.clone()).to_string()}));
    }
    let writing: Writing = parsed(body)?;
    Ok(sent(node.forge_inscription(Forgery {
        channel: ChannelId(id(&writing.channel)?),
        seed: id(&writing.seed)?,
        data: writing.data()?,
        parent: writing.parent()?,
        signer: writing.signer.as_deref().map(|text| id(text).map(PublicKey)).transpose()?,
        corrupt: writing.corrupt,
    })))
}

fn ask(node: &Node, what: &str, rest: &[&str]) -> Result<Value, String> {
    match (what, rest) {
        ("state", []) => {
            let state = node.state();
            let (tip, lib) = (state.chain.tip(), state.chain.lib());
            let channels = state.chain.tip_ledger().channels.keys().map(ToString::to_string).collect::<Vec<_>>();
            Ok(json!({
                "genesis": state.chain.genesis().id.to_string(),
                "tip": tip.id.to_string(), "slot": tip.slot, "height": tip.height,
                "lib": lib.id.to_string(), "lib_slot": lib.slot, "lib_height": lib.height,
                "pending": state.pool.pending().len(),
                "streams": node.block_events.len(),
                "channels": channels,
                "wallet": hex::encode(node.config().wallet),
            }))
        }
        ("counters", []) => Ok(json!(node.state().counters.all())),
        ("evictions", []) => {
            let evictions = node.evictions();
            let shown =
                evictions.iter().map(|(hash, why)| json!({"tx_hash": hash.to_string(), "why": why.to_string()}));
            Ok(shown.collect())
        }
        ("inscriptions", [channel]) => {
            let all = node.inscriptions(&ChannelId(id(channel)?));
            Ok(all
                .iter()
                .map(|one| json!({"msg_id": one.id().to_string(), "parent": one.parent.to_string(), "data": hex::encode(&one.data)}))
                .collect())
        }
        _ => Err("no such question".into()),
    }
}
