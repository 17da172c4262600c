//! Goal: the answers have the shapes that the real node's answers have.
//! Method: every answer is compared with the example body that the node's own types made: the same keys, the same
//! types, hex of the same length. Nothing of our own encoder is used to judge it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use logos_devnode::{NodeConfig, Shape};
use logos_log::ids::{ChannelId, MsgId};
use serde_json::{json, Value};

fn is_hex(text: &str) -> bool {
    text.len() >= 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Data of an inscription has any length; everything else in hex has one.
fn assert_same_shape(example: &Value, actual: &Value, place: &str) {
    match (example, actual) {
        (Value::Object(example), Value::Object(actual)) => {
            let keys: Vec<_> = example.keys().collect();
            assert_eq!(keys, actual.keys().collect::<Vec<_>>(), "{place}");
            for (key, value) in example {
                assert_same_shape(value, &actual[key], &format!("{place}.{key}"));
            }
        }
        (Value::Array(example), Value::Array(actual)) => {
            if !example.is_empty() {
                assert!(!actual.is_empty(), "{place} is empty");
            }
            for (index, (example, actual)) in example.iter().zip(actual).enumerate() {
                assert_same_shape(example, actual, &format!("{place}[{index}]"));
            }
        }
        (Value::String(example), Value::String(actual)) if is_hex(example) && !place.ends_with(".inscription") => {
            assert!(is_hex(actual), "{place}: {actual}");
            assert_eq!(example.len(), actual.len(), "{place}");
        }
        (Value::Number(example), Value::Number(actual)) => {
            assert_eq!(example.is_u64(), actual.is_u64(), "{place}: {actual}");
        }
        (Value::String(_), Value::String(_)) | (Value::Bool(_), Value::Bool(_)) | (Value::Null, Value::Null) => {}
        _ => panic!("{place}: {actual} has not the type of {example}"),
    }
}

fn examples() -> Value {
    vectors()["http_bodies"].clone()
}

/// A transaction of the example's shape, an inscription with a fee transfer, posted with the wallet's help.
fn post_funded(node: &logos_devnode::DevNode) -> Value {
    let mut request = examples()["POST /wallet/fund"]["request"].clone();
    let wallet = json!(hex::encode(node.node().config().wallet));
    request["change_public_key"] = wallet.clone();
    request["funding_public_keys"] = json!([wallet]);
    let (_, tx) = entry(MsgId::ROOT, "in a block");
    request["tx_builder"]["mantle_tx"]["ops"] = tx.to_json()["mantle_tx"]["ops"].clone();
    let funded = post(node, "/wallet/fund", &request);
    assert_eq!(funded.status, 200, "{}", funded.text);
    let funded = funded.json();
    let op = |index: usize| logos_log::entry::Op::from_json(&funded["funded_tx"]["ops"][index]).unwrap();
    let proof = logos_log::entry::Proof::from_json(&funded["transfer_proof"]).unwrap();
    let tx = logos_log::entry::sign_ops(&key(), vec![op(0), op(1)], Some(proof));
    let posted = post_tx(node, &tx);
    assert_eq!((posted.status, posted.json()), (200, Value::Null));
    funded
}

#[test]
fn every_answer_has_the_shape_of_the_nodes_example() {
    let examples = examples();
    let node = with_fees(&[1_000_000]);
    let mut events = Lines::open(&node, "/cryptarchia/events/blocks/stream");
    let mut finals = Lines::open(&node, "/cryptarchia/lib-stream");
    let funded = post_funded(&node);
    assert_same_shape(&examples["POST /wallet/fund"]["response"]["body"], &funded, "fund");
    node.node().mine(1);
    let block = node.node().tip();
    assert_eq!(block.txs.len(), 1);

    let event: Value =
        serde_json::from_str(examples["GET /cryptarchia/events/blocks/stream"]["line"].as_str().unwrap()).unwrap();
    assert_same_shape(&event, &events.next(), "event");
    let range = format!("/cryptarchia/blocks_range?slot_from={0}&slot_to={0}", block.slot);
    assert_same_shape(&event, &Lines::open(&node, &range).next(), "blocks_range");

    node.node().mine(3);
    let line: Value = serde_json::from_str(examples["GET /cryptarchia/lib-stream"]["line"].as_str().unwrap()).unwrap();
    let last = finals.next();
    assert_same_shape(&line, &last, "lib-stream");
    assert_eq!(last["header_id"], block.id.to_string());

    let asked = [
        ("GET /cryptarchia/info", "/cryptarchia/info".to_string()),
        ("GET /time/info", "/time/info".to_string()),
        ("GET /channel/:id", format!("/channel/{CHANNEL}")),
        ("GET /cryptarchia/blocks/:id", format!("/cryptarchia/blocks/0x{}", block.id)),
        (
            "GET /cryptarchia/blocks?slot_from=&slot_to=",
            format!("/cryptarchia/blocks?slot_from={0}&slot_to={0}", block.slot),
        ),
        ("GET /mantle/gas-prices", "/mantle/gas-prices".to_string()),
        ("GET /version", "/version".to_string()),
    ];
    for (name, path) in asked {
        let reply = get(&node, &path);
        assert_eq!((reply.status, reply.content_type.as_str()), (200, "application/json"), "{name}");
        assert!(examples[name]["status"].is_number(), "{name} is an example");
        assert_same_shape(&examples[name]["body"], &reply.json(), name);
    }
    node.node().set_online(false);
    let info = get(&node, "/cryptarchia/info").json();
    assert_eq!(info["cryptarchia_info"]["state"], "Bootstrapping");
    assert_same_shape(&examples["GET /cryptarchia/info"]["bootstrapping"], &info, "info");
}

#[test]
fn a_node_without_fees_funds_with_null_as_in_the_example() {
    let example = &examples()["POST /wallet/fund"];
    let funded = post(&free(), "/wallet/fund", &example["request"]).json();
    let expected = &example["response_without_transfer"]["body"];
    assert_same_shape(expected, &funded, "fund");
    assert_eq!(expected["funded_tx"], funded["funded_tx"]);
    assert_eq!(expected["funded_tx"]["ops"], example["request"]["tx_builder"]["mantle_tx"]["ops"]);
}

#[test]
fn what_is_not_there_is_told_in_the_examples_words() {
    let examples = examples();
    let node = free();
    let nobody = "ab".repeat(32);
    for (name, path) in [
        ("GET /channel/:id", format!("/channel/{nobody}")),
        ("GET /cryptarchia/blocks/:id", format!("/cryptarchia/blocks/{nobody}")),
    ] {
        let reply = get(&node, &path);
        assert_eq!(examples[name]["not_found"]["status"], reply.status);
        assert_eq!(examples[name]["not_found"]["body"], reply.json());
    }
    assert_eq!(get(&node, &format!("/cryptarchia/blocks/{nobody}/events")).json()["message"], "Block not found");
    assert_eq!(get(&node, &format!("/cryptarchia/transaction/{nobody}")).status, 404);
    let unknown = get(&node, "/no/such/route");
    assert_eq!((unknown.status, unknown.text.as_str()), (404, ""));
}

#[test]
fn refusals_of_the_web_framework_are_plain_text_with_its_statuses() {
    let node = free();
    let (_, mut tx) = entry(MsgId::ROOT, "x");
    let good = tx.to_json();
    let mut short = good.clone();
    short["ops_proofs"] = json!([]);
    let mut wrong = good.clone();
    wrong["mantle_tx"]["ops"][0]["payload"]["parent"] = json!(5);
    tx.proofs[0] = logos_log::entry::Proof::Ed25519([1; 64]);
    let path = "/mempool/add/tx";
    for (reply, status) in [
        (post_text(&node, path, "{\"mantle_tx\":"), 400),
        (post(&node, path, &json!({})), 422),
        (post(&node, path, &wrong), 422),
        (post(&node, path, &short), 422),
        (post(&node, path, &tx.to_json()), 422),
        (get(&node, "/cryptarchia/blocks?slot_from=1"), 400),
        (get(&node, "/cryptarchia/blocks?slot_from=1&slot_to=x"), 400),
        (get(&node, "/channel/xyz"), 400),
    ] {
        assert_eq!((reply.status, reply.content_type.as_str()), (status, "text/plain"), "{}", reply.text);
    }
    let untyped = "POST /mempool/add/tx HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    assert!(raw(&node, untyped).starts_with(b"HTTP/1.1 415 "));
    assert!(node.node().pending().is_empty());
}

#[test]
fn vectors_posted_get_the_nodes_hash_and_message_id_on_the_channel() {
    let vectors = vectors();
    let node = free();
    let all = vectors["inscriptions"].as_array().unwrap();
    let small: Vec<&Value> = all.iter().filter(|vector| vector["signed_tx_json"].is_string()).collect();
    assert_eq!(small.len(), 24);
    for vector in &small {
        assert_eq!(post_text(&node, "/mempool/add/tx", vector["signed_tx_json"].as_str().unwrap()).status, 200);
    }
    let hashes: Vec<Value> = small.iter().map(|vector| vector["tx_hash"].clone()).collect();
    assert_eq!(get(&node, "/mempool/view").json(), json!(hashes));
    assert_eq!(post(&node, "/mantle/status", &json!([hashes[0]])).json(), json!(["Pending"]));
    node.node().mine(1);
    // The first two of each key are chained from the root; the parents of the others are nowhere.
    for pair in small.chunks(6) {
        let channel = get(&node, &format!("/channel/{}", pair[0]["channel_id"].as_str().unwrap())).json();
        assert_eq!(channel["tip_message"], pair[1]["msg_id"]);
        assert_eq!(channel["accredited_keys"], json!([pair[0]["public_key"]]));
        let path = format!("/cryptarchia/transaction/{}", pair[1]["tx_hash"].as_str().unwrap());
        let mut expected: Value = serde_json::from_str(pair[1]["signed_tx_json"].as_str().unwrap()).unwrap();
        expected["mantle_tx"]["hash"] = pair[1]["tx_hash"].clone();
        assert_eq!(get(&node, &path).json(), expected);
    }
    assert_eq!(node.node().evictions().len(), 16);
    assert_eq!(post(&node, "/mantle/status", &json!(hashes)).json(), json!(vec!["Unknown"; 24]));
}

#[test]
fn the_configuration_and_the_double_inscription_of_the_vectors_apply() {
    let vectors = vectors();
    let (two, config) = (&vectors["two_inscriptions_one_tx"], &vectors["channel_config"]);
    let node = free();
    let path = format!("/channel/{}", two["channel_id"].as_str().unwrap());
    assert_eq!(post_text(&node, "/mempool/add/tx", two["signed_tx_json"].as_str().unwrap()).status, 200);
    node.node().mine(1);
    assert_eq!(get(&node, &path).json()["tip_message"], two["msg_ids"][1]);
    // Its signer is not accredited on the channel as it is now.
    assert_eq!(post_text(&node, "/mempool/add/tx", config["signed_tx_json"].as_str().unwrap()).status, 200);
    node.node().mine(1);
    assert_eq!(get(&node, &path).json()["tip_message"], two["msg_ids"][1]);
    // On a fresh channel nobody's signature is needed.
    node.node().reset(1).unwrap();
    assert_eq!(post_text(&node, "/mempool/add/tx", config["signed_tx_json"].as_str().unwrap()).status, 200);
    node.node().mine(1);
    let channel = get(&node, &path).json();
    assert_eq!(channel["tip_message"], config["config_msg_id"]);
    assert_eq!(channel["accredited_keys"], config["op_json"]["payload"]["keys"]);
    assert_eq!(channel["posting_timeframe"], 30);
    assert_eq!(channel["transfer_threshold"], 2);
}

#[test]
fn june_answers_in_its_own_shapes() {
    let node = start(NodeConfig { shape: Shape::June, ..NodeConfig::default() });
    for path in ["/version", "/mantle/gas-prices"] {
        assert_eq!(get(&node, path).status, 404, "{path}");
    }
    assert_eq!(post(&node, "/wallet/fund", &json!({})).status, 404);
    let info = get(&node, "/cryptarchia/info").json();
    assert_eq!(info["mode"], json!({"Started": "Online"}));
    assert!(info["cryptarchia_info"]["genesis_id"].is_null() && info["phase"].is_null());
    let unknown = get(&node, &format!("/channel/{}", ChannelId([1; 32])));
    assert_eq!((unknown.status, unknown.text.as_str()), (500, "channel not found"));
    post_tx(&node, &entry(MsgId::ROOT, "x").1);
    let id = node.node().mine(1)[0];
    let block = get(&node, &format!("/cryptarchia/blocks/{id}")).json();
    assert!(block["header"]["block_root"].is_string() && block["header"]["body_root"].is_null());
    assert!(block["uncle_headers"].is_null());
    assert_eq!(block["transactions"].as_array().unwrap().len(), 1);
    let channel = get(&node, &format!("/channel/{CHANNEL}")).json();
    assert_eq!(channel["withdraw_threshold"], 1);
    assert!(channel["transfer_threshold"].is_null() && channel["balance"].is_number());
    let config = vectors()["channel_config"]["signed_tx_json"].as_str().unwrap().to_string();
    assert_eq!(post_text(&node, "/mempool/add/tx", &config).status, 200);
    let id = node.node().mine(1)[0];
    let tx = get(&node, &format!("/cryptarchia/blocks/{id}")).json()["transactions"][0].clone();
    assert_eq!(tx["mantle_tx"]["ops"][0]["payload"]["withdraw_threshold"], 2);
    assert!(tx["ops_proofs"][0]["ZkAndEd25519Sigs"]["signatures"].is_array());
    assert_eq!(post(&node, "/mempool/add/tx", &tx).status, 200);
    let large = "x".repeat(917_505);
    assert_eq!(post_tx(&node, &entry(MsgId::ROOT, &large).1).status, 500);
}

#[test]
fn basic_auth_is_asked_of_every_request_when_configured() {
    let node = start(NodeConfig { auth: Some("reader:secret".into()), ..NodeConfig::default() });
    assert_eq!(get(&node, "/cryptarchia/info").status, 401);
    let ask = |credentials: &str| {
        let request = format!(
            "GET /cryptarchia/info HTTP/1.1\r\nConnection: close\r\nAuthorization: Basic {credentials}\r\n\r\n"
        );
        String::from_utf8(raw(&node, &request)).unwrap()
    };
    assert!(ask("cmVhZGVyOnNlY3JldA==").starts_with("HTTP/1.1 200 "));
    assert!(ask("cmVhZGVyOndyb25n").starts_with("HTTP/1.1 401 "));
    let stream = "GET /cryptarchia/events/blocks/stream HTTP/1.1\r\nConnection: close\r\n\r\n";
    assert!(raw(&node, stream).starts_with(b"HTTP/1.1 401 "));
}

#[test]
fn the_genesis_block_is_in_the_range_and_carries_the_largest_value_there_is() {
    let node = free();
    let blocks = get(&node, "/cryptarchia/blocks?slot_from=0&slot_to=0").json();
    let genesis = &blocks[0];
    assert_eq!(genesis["header"]["parent_block"], "00".repeat(32));
    assert_eq!(get(&node, "/cryptarchia/info").json()["cryptarchia_info"]["genesis_id"], genesis["header"]["id"]);
    assert_eq!(genesis["transactions"][0]["mantle_tx"]["ops"][1]["payload"]["outputs"][0]["value"], u64::MAX);
    assert_eq!(genesis["transactions"][0]["mantle_tx"]["ops"][0]["opcode"], 17);
}
