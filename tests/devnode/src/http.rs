//! The routes of a node: which question gets which answer, with the statuses and texts of a real one.
//!
//! Invariants
//! - Refusals by the web framework (bad JSON, wrong type, wrong shape) are text/plain with 400, 415, 422; refusals
//!   by the node are `{"code","message"}`, or plain text 500 as of June 2026.
//! - Nothing here changes the chain, except that a post fills the pool.
//!
//! Not here: `/wallet/sign/ed25519` (this node holds no channel keys) and everything about deposits and staking.

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine as _;
use logos_log::entry::{Op, SignedTx};
use logos_log::ids::{ChannelId, TxHash};
use serde_json::{json, Value};

use crate::answers::{self, Shape};
use crate::chain::{Block, BlockId};
use crate::config::SlotGap;
use crate::dev;
use crate::faults::Rule;
use crate::ledger::Prices;
use crate::node::{parse_id, Node, PostRefused, State};
use crate::server::{Body, Request, Response};
use crate::wallet::FundRequest;

/// Type of JSON answers.
pub const JSON: &str = "application/json";
/// Type of the web framework's refusals.
pub const TEXT: &str = "text/plain; charset=utf-8";
const NDJSON: &str = "application/x-ndjson";

/// A refusal by the node.
pub fn error(shape: Shape, status: u16, message: &str) -> Response {
    match shape {
        Shape::August => Response::full(status, JSON, json!({"code": status, "message": message}).to_string()),
        Shape::June if status == 400 => Response::full(400, TEXT, message),
        Shape::June => Response::full(500, TEXT, message),
    }
}

/// A refusal by the web framework.
fn refused(status: u16, why: impl Into<String>) -> Response {
    Response::full(status, TEXT, why.into())
}

fn json(value: &Value) -> Response {
    Response::full(200, JSON, value.to_string())
}

impl Node {
    /// Count a request and see which fault it meets.
    pub(crate) fn observe(&self, request: &Request) -> Option<Rule> {
        let mut state = self.state();
        state.counters.count(&request.method, &request.path);
        state.faults.next(&request.target)
    }

    fn shape(&self) -> Shape {
        self.config().shape
    }
}

/// Either way it is an answer.
type Answer = Result<Response, Response>;

/// Answer a request.
pub fn answer(node: &Node, request: &Request) -> Response {
    let parts: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    if parts.first() == Some(&"dev") {
        return dev::answer(node, request, &parts[1..]);
    }
    if !authorised(node, request) {
        return Response::empty(401).with_header("WWW-Authenticate", "Basic realm=\"node\"");
    }
    let answer = match request.method.as_str() {
        "GET" => get(node, request, &parts),
        "POST" => post(node, request, &parts),
        _ => Err(Response::empty(405)),
    };
    answer.unwrap_or_else(|refusal| refusal)
}

fn authorised(node: &Node, request: &Request) -> bool {
    let Some(expected) = &node.config().auth else { return true };
    let given = request.headers.get("authorization").and_then(|value| value.strip_prefix("Basic "));
    let given = given.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
    given.as_deref() == Some(expected.as_bytes())
}

fn get(node: &Node, request: &Request, parts: &[&str]) -> Answer {
    let shape = node.shape();
    match parts {
        ["version"] if !shape.is_june() => Ok(json(&json!("0.1.2 (logos-devnode)"))),
        ["cryptarchia", "info"] => Ok(json(&answers::info(&node.state().chain, shape))),
        ["time", "info"] => Ok(json(&time(node))),
        ["channel", id] => channel(node, &ChannelId(path_id(id)?)),
        ["cryptarchia", "blocks"] => immutable_blocks(node, request),
        ["cryptarchia", "blocks", id] => {
            let block = shown_block(node, &node.state(), id, "Not found")?;
            Ok(json(&answers::block(&block, &node.state().faults, shape)))
        }
        ["cryptarchia", "blocks", id, "events"] => {
            shown_block(node, &node.state(), id, "Block not found").map(|_| json(&json!([])))
        }
        ["cryptarchia", "events", "blocks", "stream"] => Ok(lines(node.block_events.subscribe())),
        ["cryptarchia", "lib-stream"] => Ok(lines(node.lib_events.subscribe())),
        ["cryptarchia", "blocks_range"] => blocks_range(node, request),
        ["cryptarchia", "headers"] => headers(node, request),
        ["cryptarchia", "transaction", hash] => {
            let hash = TxHash(path_id(hash)?);
            let state = node.state();
            let found = state.chain.tx(&hash).filter(|tx| state.faults.shows_tx(tx));
            found.map(|tx| json(&answers::tx(tx, shape))).ok_or_else(|| error(shape, 404, "Not found"))
        }
        ["mempool", "view"] => {
            let state = node.state();
            let shown = state.pool.pending().iter().filter(|tx| state.faults.shows_tx(tx));
            Ok(json(&shown.map(|tx| tx.hash.to_string()).collect()))
        }
        ["mantle", "gas-prices"] if !shape.is_june() => {
            let state = node.state();
            let Prices { execution, storage } = state.prices;
            let tip = known_tip(node, &state, query(request, "tip"))?;
            Ok(json(&json!({
                "tip": tip.to_string(), "execution_base_gas_price": execution, "storage_gas_price": storage,
            })))
        }
        ["wallet", owner, "balance"] => {
            let owner = path_id(owner)?;
            let state = node.state();
            let tip = known_tip(node, &state, query(request, "tip"))?;
            let ledger = state.chain.ledger(&tip).cloned().unwrap_or_default();
            Ok(json(&answers::balance(&ledger, &owner, tip)))
        }
        _ => Err(Response::empty(404)),
    }
}

fn post(node: &Node, request: &Request, parts: &[&str]) -> Answer {
    match parts {
        ["mempool", "add", "tx"] => {
            let tx = posted_tx(node, &body(request)?)?;
            node.post(tx).map_err(|refusal| match refusal {
                PostRefused::Unprocessable(why) => refused(422, why),
                PostRefused::TooLarge(why) => error(node.shape(), 500, &why),
            })?;
            Ok(json(&Value::Null))
        }
        ["mantle", "status"] => {
            let body = body(request)?;
            let hashes: Option<Vec<TxHash>> =
                body.as_array().and_then(|all| all.iter().map(|one| parse_id(one.as_str()?).map(TxHash)).collect());
            let hashes = hashes.ok_or_else(|| refused(422, "not an array of hashes"))?;
            let state = node.state();
            let status = |hash| if state.pool.contains(hash) { "Pending" } else { "Unknown" };
            Ok(json(&hashes.iter().map(status).collect()))
        }
        ["wallet", "fund"] if !node.shape().is_june() => fund(node, &body(request)?),
        _ => Err(Response::empty(404)),
    }
}

fn path_id(text: &str) -> Result<[u8; 32], Response> {
    parse_id(text).ok_or_else(|| refused(400, format!("Invalid URL: {text:?} is not 32 bytes in hex")))
}

fn query<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.query.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
}

fn number(request: &Request, name: &str) -> Result<Option<u64>, Response> {
    let wrong = |_| refused(400, format!("Failed to deserialize query string: {name}: invalid digit found in string"));
    query(request, name).map(|text| text.parse().map_err(wrong)).transpose()
}

fn body(request: &Request) -> Result<Value, Response> {
    let content_type = request.headers.get("content-type").map(String::as_str).unwrap_or_default();
    if !content_type.starts_with(JSON) {
        return Err(refused(415, "Expected request with `Content-Type: application/json`"));
    }
    serde_json::from_slice(&request.body)
        .map_err(|error| refused(400, format!("Failed to parse the request body as JSON: {error}")))
}

fn wrong_shape(why: impl std::fmt::Display) -> Response {
    refused(422, format!("Failed to deserialize the JSON body into the target type: {why}"))
}

fn lines(lines: impl Iterator<Item = Arc<str>> + Send + 'static) -> Response {
    Response { status: 200, content_type: Some(NDJSON), header: None, body: Body::Lines(Box::new(lines)) }
}

fn time(node: &Node) -> Value {
    let config = node.config();
    let slot = node.slot();
    let slots_per_block = match config.gap {
        SlotGap::Fixed(slots) => slots.max(1),
        SlotGap::Density(density) => (1.0 / density).max(1.0) as u64,
    };
    json!({
        "slot_duration_ms": config.slot_ms(),
        "genesis_time_unix_ms": node.genesis_time_ms(),
        "current_slot": slot,
        "current_epoch": slot / (10 * config.k.max(1) * slots_per_block),
    })
}

fn channel(node: &Node, id: &ChannelId) -> Answer {
    match (node.channel(id), node.shape()) {
        (Some(channel), shape) => Ok(json(&answers::channel(&channel, shape))),
        (None, Shape::August) => Err(error(Shape::August, 404, "Channel not found")),
        (None, Shape::June) => Err(error(Shape::June, 500, "channel not found")),
    }
}

fn shown_block(node: &Node, state: &State, id: &str, missing: &str) -> Result<Arc<Block>, Response> {
    let found = state.chain.block(&BlockId(path_id(id)?)).filter(|block| state.faults.shows_block(block));
    found.cloned().ok_or_else(|| error(node.shape(), 404, missing))
}

/// The block that a query names, or the tip.
fn known_tip(node: &Node, state: &State, given: Option<&str>) -> Result<BlockId, Response> {
    let Some(given) = given else { return Ok(state.chain.tip().id) };
    let known = parse_id(given).map(BlockId).filter(|id| state.chain.ledger(id).is_some());
    known.ok_or_else(|| error(node.shape(), 500, &format!("unknown tip {given}")))
}

fn immutable_blocks(node: &Node, request: &Request) -> Answer {
    let missing = |name: &str| refused(400, format!("Failed to deserialize query string: missing field `{name}`"));
    let from = number(request, "slot_from")?.ok_or_else(|| missing("slot_from"))?;
    let to = number(request, "slot_to")?.ok_or_else(|| missing("slot_to"))?;
    if from > to {
        // A real node computes with unsigned numbers here and answers whatever comes out: never ask.
        return Err(error(node.shape(), 500, "slot_from is greater than slot_to"));
    }
    let state = node.state();
    Ok(json(&answers::blocks(state.chain.range(from, to, true), &state.faults, node.shape())))
}

fn blocks_range(node: &Node, request: &Request) -> Answer {
    let (from, to) = (number(request, "slot_from")?, number(request, "slot_to")?);
    let batch = number(request, "server_batch_size")?.unwrap_or(1);
    if from.unwrap_or(0) > to.unwrap_or(u64::MAX) || !(1..=1000).contains(&batch) {
        return Err(error(node.shape(), 400, "invalid query: slot_from, slot_to or server_batch_size"));
    }
    let immutable = match query(request, "block_filter") {
        None | Some("mutable_and_immutable") => false,
        Some("immutable_only") => true,
        Some(_) => return Err(refused(400, "Failed to deserialize query string: block_filter: unknown variant")),
    };
    let ascending = match query(request, "order") {
        None | Some("descending") => false,
        Some("ascending") => true,
        Some(_) => return Err(refused(400, "Failed to deserialize query string: order: unknown variant")),
    };
    let unlimited = from.is_some() && to.is_some();
    let limit = number(request, "blocks_limit")?.unwrap_or(if unlimited { u64::MAX } else { 100 });
    let state = node.state();
    let mut blocks = state.chain.range(from.unwrap_or(0), to.unwrap_or(u64::MAX), immutable).to_vec();
    if !ascending {
        blocks.reverse();
    }
    blocks.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let event = |block: &Arc<Block>| answers::event(block, &state.chain, &state.faults, node.shape());
    let shown = blocks.iter().filter(|block| state.faults.shows_block(block));
    let events: Vec<Arc<str>> = shown.map(|block| event(block).to_string().into()).collect();
    Ok(lines(events.into_iter()))
}

/// Ids from a block back to another one, both included.
fn headers(node: &Node, request: &Request) -> Answer {
    let state = node.state();
    let start = query(request, "from").map(path_id).transpose()?.map_or(state.chain.tip().id, BlockId);
    let end = query(request, "to").map(path_id).transpose()?.map_or(state.chain.lib().id, BlockId);
    let mut ids = Vec::new();
    let mut next = state.chain.block(&start);
    while let Some(block) = next {
        ids.push(block.id.to_string());
        next = if block.id == end { None } else { state.chain.block(&block.parent) };
    }
    Ok(json(&json!(ids)))
}

fn posted_tx(node: &Node, body: &Value) -> Result<SignedTx, Response> {
    let limit = node.config().limits().inscription();
    let ops = body["mantle_tx"]["ops"].as_array().into_iter().flatten();
    let mut lengths = ops.filter_map(|op| op["payload"]["inscription"].as_str()).map(|digits| digits.len() / 2);
    if let Some(found) = lengths.find(|length| *length > limit) {
        let why = format!("an inscription of {found} bytes, at most {limit}");
        return Err(error(node.shape(), 500, &why));
    }
    SignedTx::from_json(body).map_err(wrong_shape)
}

fn fund(node: &Node, body: &Value) -> Answer {
    let id = |value: &Value| value.as_str().and_then(parse_id);
    let request = || -> Option<(Option<&str>, FundRequest)> {
        let tip = match &body["tip"] {
            Value::Null => None,
            tip => Some(tip.as_str()?),
        };
        let request = FundRequest {
            ops: body["tx_builder"]["mantle_tx"]["ops"]
                .as_array()?
                .iter()
                .map(|op| Op::from_json(op).ok())
                .collect::<Option<_>>()?,
            change: id(&body["change_public_key"])?,
            funding: body["funding_public_keys"].as_array()?.iter().map(id).collect::<Option<_>>()?,
            max_fee: body["max_tx_fee"].as_u64()?,
            percent: match &body["priority_fee_percent"] {
                Value::Null => 0,
                percent => percent.as_u64()?,
            },
        };
        Some((tip, request))
    };
    let (tip, request) = request().ok_or_else(|| wrong_shape("not a request for funds"))?;
    let builder = &body["tx_builder"];
    let known: HashSet<&str> =
        HashSet::from(["mantle_tx", "ledger_inputs", "pending_transfer", "channel_multi_sig_proofs"]);
    if let Some(missing) = known.iter().find(|field| builder.get(**field).is_none()) {
        return Err(wrong_shape(format!("missing field `{missing}`")));
    }
    let tip = known_tip(node, &node.state(), tip)?;
    let funded = node.fund(&request).map_err(|why| error(node.shape(), 500, &why))?;
    let (ops, proof) = match funded {
        Some((ops, proof)) => (ops, proof.to_json()),
        None => (request.ops, Value::Null),
    };
    let ops: Vec<Value> = ops.iter().map(Op::to_json).collect();
    Ok(json(&json!({"tip": tip.to_string(), "funded_tx": {"ops": ops}, "transfer_proof": proof})))
}
