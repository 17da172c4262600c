//! Goal: every misbehaviour happens when asked for, as often as asked for, and not otherwise.
//! Method: ask over HTTP, as tests in any language would, and look at what a client sees.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use logos_log::entry::SignedTx;
use logos_log::error::LogError;
use logos_log::ids::MsgId;
use serde_json::{json, Value};

fn admin(node: &logos_devnode::DevNode, verb: &str, body: Value) -> Value {
    let reply = post(node, &format!("/dev/{verb}"), &body);
    assert_eq!(reply.status, 200, "{verb}: {}", reply.text);
    reply.json()
}

const INFO: &str = "/cryptarchia/info";

#[test]
fn a_wire_fault_hits_its_path_only_so_often_and_after_what_it_skips() {
    let node = free();
    admin(&node, "fault", json!({"kind": "status", "code": 500, "path": INFO, "skip": 1, "times": 2}));
    assert_eq!(get(&node, "/time/info").status, 200);
    let statuses: Vec<u16> = (0..4).map(|_| get(&node, INFO).status).collect();
    assert_eq!(statuses, [200, 500, 500, 200]);
    admin(&node, "fault", json!({"kind": "status", "code": 503}));
    assert_eq!(get(&node, INFO).status, 503);
    admin(&node, "clear_faults", json!({}));
    assert_eq!(get(&node, INFO).status, 200);
}

#[test]
fn answers_break_off_stall_lie_and_swell() {
    let node = free();
    let fault = |body: Value| admin(&node, "fault", body);
    fault(json!({"kind": "close", "times": 1}));
    assert!(try_get(&node, INFO).is_err());
    fault(json!({"kind": "truncate", "bytes": 10, "times": 1}));
    assert!(try_get(&node, INFO).is_err());
    fault(json!({"kind": "stall", "ms": 200, "times": 1}));
    let begun = Instant::now();
    assert!(try_get(&node, INFO).is_err());
    assert!(begun.elapsed() >= Duration::from_millis(200));
    fault(json!({"kind": "drip", "bytes": 50, "ms": 10, "times": 1}));
    let begun = Instant::now();
    assert_eq!(get(&node, INFO).json()["phase"], "Following");
    assert!(begun.elapsed() >= Duration::from_millis(60));
    fault(json!({"kind": "garbage", "times": 1}));
    assert!(raw(&node, &format!("GET {INFO} HTTP/1.1\r\nConnection: close\r\n\r\n")).ends_with(b"\xfe{]"));
    fault(json!({"kind": "wrong_json", "times": 1}));
    assert!(get(&node, INFO).json()["cryptarchia_info"].is_null());
    fault(json!({"kind": "redirect", "to": "http://127.0.0.1:9/", "times": 1}));
    assert_eq!(get(&node, INFO).status, 307);
    for chunked in [false, true] {
        fault(json!({"kind": "huge", "bytes": 1_000_000, "chunked": chunked, "times": 1}));
        assert_eq!(get(&node, INFO).text.len(), 1_000_000);
    }
    assert_eq!(get(&node, INFO).status, 200);
}

#[test]
fn a_post_can_take_effect_although_its_answer_is_lost() {
    let node = free();
    admin(&node, "fault", json!({"kind": "status", "path": "/mempool", "times": 1, "after": true}));
    assert_eq!(post_tx(&node, &entry(MsgId::ROOT, "x").1).status, 500);
    assert_eq!(node.node().pending().len(), 1);
    admin(&node, "mine", json!({"n": 1}));
    assert_eq!(on_channel(&node), ["x"]);
}

#[test]
fn a_lost_post_is_answered_with_200_and_forgotten() {
    let node = free();
    admin(&node, "lose_posts", json!({"n": 1}));
    let (_, tx) = entry(MsgId::ROOT, "x");
    assert_eq!(post_tx(&node, &tx).status, 200);
    assert!(node.node().pending().is_empty());
    assert_eq!(post_tx(&node, &tx).status, 200);
    assert_eq!(node.node().pending().len(), 1);
}

#[test]
fn funds_are_refused_as_often_as_asked() {
    let node = with_fees(&[1_000_000]);
    admin(&node, "refuse_funds", json!({"n": 1}));
    let write = json!({"seed": "11".repeat(32), "channel": "c4".repeat(32), "data": "x"});
    let mut request = vectors()["http_bodies"]["POST /wallet/fund"]["request"].clone();
    request["funding_public_keys"] = json!([hex::encode(node.node().config().wallet)]);
    assert_eq!(post(&node, "/wallet/fund", &request).status, 500);
    assert_eq!(post(&node, "/wallet/fund", &request).status, 200);
    // The single note is promised now, so nobody else can write.
    assert_eq!(post(&node, "/dev/write", &write).status, 400);
}

#[test]
fn a_block_can_be_out_of_reach_for_a_while() {
    let node = free();
    let id = node.node().mine(1)[0];
    let path = format!("/cryptarchia/blocks/{id}");
    admin(&node, "fault", json!({"kind": "status", "code": 404, "path": path, "times": 2}));
    let statuses: Vec<u16> = (0..3).map(|_| get(&node, &path).status).collect();
    assert_eq!(statuses, [404, 404, 200]);
}

#[test]
fn streams_repeat_events_when_asked_and_a_slow_reader_loses_the_oldest() {
    let node = free();
    let mut events = Lines::open(&node, "/cryptarchia/events/blocks/stream");
    admin(&node, "duplicate_events", json!({"n": 1}));
    node.node().mine(1);
    let first = events.next();
    assert_eq!(first, events.next());
    node.node().mine(1);
    assert_ne!(first, events.next());

    // While the server waits to send more to this reader, the node makes 40 blocks: 16 are kept.
    admin(
        &node,
        "fault",
        json!({"kind": "drip", "bytes": 1_000_000, "ms": 1000, "path": "/cryptarchia/events", "times": 1}),
    );
    let mut lagging = Lines::open(&node, "/cryptarchia/events/blocks/stream");
    node.node().mine(1);
    lagging.next();
    let before = node.node().tip().height;
    node.node().mine(40);
    let next = lagging.next()["block"]["header"]["slot"].as_u64().unwrap() / 20;
    assert_eq!(next, before + 40 - 16 + 1);
}

#[test]
fn lines_of_a_stream_come_joined_when_asked() {
    let node = free();
    admin(&node, "fault", json!({"kind": "join", "lines": 2, "path": "/cryptarchia/events", "times": 1}));
    let events = Lines::open(&node, "/cryptarchia/events/blocks/stream");
    node.node().mine(4);
    node.node().reset(1).unwrap();
    assert!(events.rest().len() <= 4);
    let blocks =
        "GET /cryptarchia/blocks_range?slot_from=0&slot_to=80&order=ascending HTTP/1.1\r\nConnection: close\r\n\r\n";
    node.node().mine(3);
    admin(&node, "fault", json!({"kind": "join", "lines": 3, "path": "/cryptarchia/blocks_range", "times": 1}));
    let chunks = |answer: Vec<u8>| String::from_utf8(answer).unwrap().matches("}\n\r\n").count();
    assert_eq!(chunks(raw(&node, blocks)), 2, "three lines, then one");
    assert_eq!(chunks(raw(&node, blocks)), 4);
}

#[test]
fn blocks_carry_transactions_of_unknown_kinds_when_asked() {
    let node = free();
    let foreign = json!({
        "mantle_tx": {"hash": "ab".repeat(32), "ops": [{"opcode": 0x30, "payload": {"rewards_root": "00"}}]},
        "ops_proofs": [{"ZkSig": null}],
    });
    let hash = admin(&node, "forge", json!({"foreign": foreign}));
    assert_eq!(hash["tx_hash"], "ab".repeat(32));
    post_tx(&node, &entry(MsgId::ROOT, "x").1);
    let id = node.node().mine(1)[0];
    let block = get(&node, &format!("/cryptarchia/blocks/{id}")).json();
    assert_eq!(block["transactions"][1], foreign);
    assert!(matches!(SignedTx::from_json(&foreign), Err(LogError::UnknownOp { opcode: 0x30 })));
    assert_eq!(on_channel(&node), ["x"]);
}

#[test]
fn what_is_withheld_is_in_no_answer_until_it_is_revealed() {
    let node = free();
    let (id, tx) = entry(MsgId::ROOT, "x");
    post_tx(&node, &tx);
    let mut events = Lines::open(&node, "/cryptarchia/events/blocks/stream");
    admin(&node, "withhold", json!({"id": id.to_string()}));
    assert_eq!(get(&node, "/mempool/view").json(), json!([]));
    let block = node.node().mine(1)[0];
    let path = format!("/cryptarchia/blocks/{block}");
    assert_eq!(events.next()["block"]["transactions"], json!([]));
    assert_eq!(get(&node, &path).json()["transactions"], json!([]));
    assert_eq!(get(&node, &format!("/cryptarchia/transaction/{}", tx.hash())).status, 404);
    admin(&node, "withhold", json!({"id": block.to_string()}));
    assert_eq!(get(&node, &path).status, 404);
    node.node().mine(5);
    let range = "/cryptarchia/blocks?slot_from=1&slot_to=40";
    assert_eq!(get(&node, range).json().as_array().unwrap().len(), 1);
    admin(&node, "reveal", json!({"id": block.to_string()}));
    admin(&node, "reveal", json!({"id": id.to_string()}));
    assert_eq!(get(&node, range).json()[0]["transactions"].as_array().unwrap().len(), 1);
}

/// The transactions of the newest block, as a client reads them.
fn newest(node: &logos_devnode::DevNode) -> Vec<SignedTx> {
    let block = get(node, &format!("/cryptarchia/blocks/{}", node.node().tip().id)).json();
    block["transactions"].as_array().unwrap().iter().map(|tx| SignedTx::from_json(tx).unwrap()).collect()
}

#[test]
fn forged_entries_stand_in_blocks_and_the_ledger_does_not_believe_them() {
    let node = free();
    let (first, tx) = entry(MsgId::ROOT, "honest");
    post_tx(&node, &tx);
    node.node().mine(1);
    let forge = |more: Value| {
        let mut body = json!({"channel": "c4".repeat(32), "seed": "22".repeat(32), "data": "forged"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        admin(&node, "forge", body);
        node.node().mine(1);
        assert_eq!(node.node().channel(&CHANNEL).unwrap().tip, first);
        newest(&node).remove(0)
    };
    let wrong_signer = forge(json!({}));
    assert_eq!(wrong_signer.verify(), Ok(()));
    assert_eq!(wrong_signer.inscriptions().next().unwrap().parent, first);
    for bad in [json!({"corrupt": true}), json!({"signer": key().public_key().to_string()})] {
        assert!(matches!(forge(bad).verify(), Err(LogError::BadSignature { .. })));
    }
    let wrong_parent = forge(json!({"seed": "11".repeat(32), "parent": "05".repeat(32)}));
    assert_eq!(wrong_parent.verify(), Ok(()));
    assert_eq!(wrong_parent.inscriptions().next().unwrap().parent, MsgId([5; 32]));
    admin(&node, "forge", json!({"replay": tx.hash().to_string()}));
    node.node().mine(1);
    assert_eq!(newest(&node), std::slice::from_ref(&tx));
    admin(&node, "forge", json!({"tx": tx.to_json()}));
    node.node().mine(1);
    assert_eq!(newest(&node), [tx]);
    assert_eq!(on_channel(&node), ["honest"]);
}

#[test]
fn another_writer_with_the_same_key_takes_the_parent_first() {
    let node = free();
    let write = |data: &str, first: bool| {
        let body = json!({"seed": "11".repeat(32), "channel": "c4".repeat(32), "data": data, "first": first});
        admin(&node, "write", body)
    };
    write("one", false);
    let tip = admin(&node, "write", json!({"seed": "11".repeat(32), "channel": "c4".repeat(32), "data_hex": "74776f"}));
    node.node().mine(1);
    assert_eq!(on_channel(&node), ["one", "two"]);
    let parent = MsgId(logos_devnode::node::parse_id(tip["msg_id"].as_str().unwrap()).unwrap());
    post_tx(&node, &entry(parent, "ours").1);
    let body = json!({
        "seed": "11".repeat(32), "channel": "c4".repeat(32), "data": "theirs",
        "parent": parent.to_string(), "first": true,
    });
    admin(&node, "write", body);
    node.node().mine(1);
    assert_eq!(on_channel(&node), ["one", "two", "theirs"]);
}

#[test]
fn a_reset_begins_another_chain_and_ends_the_streams() {
    let node = free();
    let events = Lines::open(&node, "/cryptarchia/events/blocks/stream");
    post_tx(&node, &entry(MsgId::ROOT, "x").1);
    node.node().mine(2);
    let genesis = get(&node, INFO).json()["cryptarchia_info"]["genesis_id"].clone();
    let fresh = admin(&node, "reset", json!({"genesis": 7}));
    assert_ne!(genesis, fresh);
    let info = get(&node, INFO).json();
    assert_eq!((&info["cryptarchia_info"]["genesis_id"], &info["cryptarchia_info"]["height"]), (&fresh, &json!(0)));
    assert_eq!(get(&node, &format!("/channel/{CHANNEL}")).status, 404);
    assert!(events.rest().len() <= 2);
}

#[test]
fn requests_are_counted_by_route() {
    let node = free();
    let id = node.node().mine(1)[0];
    get(&node, &format!("/cryptarchia/blocks/{id}"));
    get(&node, &format!("/cryptarchia/blocks/0x{id}"));
    get(&node, INFO);
    let counters = get(&node, "/dev/counters").json();
    assert_eq!(counters, json!({"GET /cryptarchia/blocks/{id}": 2, "GET /cryptarchia/info": 1}));
    assert_eq!(node.node().requests("GET /cryptarchia/blocks/{id}"), 2);
    assert_eq!(get(&node, "/dev/state").json()["height"], 1);
}

#[test]
fn nonsense_over_the_socket_does_not_stop_the_node() {
    let node = free();
    for nonsense in ["\r\n\r\n", "GET\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", "\0\0\0\0"] {
        let mut stream = std::net::TcpStream::connect(node.url().trim_start_matches("http://")).unwrap();
        std::io::Write::write_all(&mut stream, nonsense.as_bytes()).unwrap();
    }
    let large = format!("POST /mempool/add/tx HTTP/1.1\r\nContent-Length: {}\r\n\r\n", 11 * 1024 * 1024);
    assert!(raw(&node, &large).starts_with(b"HTTP/1.1 413 "));
    let chunked = "POST /dev/mine HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n4\r\n{\"n\"\r\n3\r\n:1}\r\n0\r\n\r\n";
    assert!(raw(&node, chunked).starts_with(b"HTTP/1.1 200 "));
    assert_eq!(node.node().tip().height, 1);
    assert_eq!(get(&node, INFO).status, 200);
}
