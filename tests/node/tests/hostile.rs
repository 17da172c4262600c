//! Goal: a node that lies, or answers with more than there is, ends nothing that could go on with an honest one, has nothing thrown
//! away that is still needed, and gets no more memory than a bound.
//! Method: a development node that lies on request, whose lies are then undone; sockets that answer what no node does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use logos_devnode::{Abandoned, Fault, Forgery, NodeConfig, Rule};
use logos_log::entry::{Op, Proof, SignedTx};
use logos_log::ids::MsgId;
use node_tests::*;

/// As long as it is not cleared.
fn always(code: u16, body: &str, path: &str) -> Rule {
    Rule { times: None, ..Rule::new(Fault::Status { code, body: Some(body.into()) }, path, 1) }
}

fn unsigned(op: Op) -> SignedTx {
    SignedTx { ops: vec![op], proofs: vec![Proof::MultiSig(Vec::new())] }
}

/// A replica that follows in the background, and a publisher that has stopped.
fn followed() -> Stage {
    let stage = Stage::new(20);
    stage.insert(1);
    stage.insert(2);
    stage.replica.pull(&stage.url, r#"{"follow": true, "poll_ms": 5}"#);
    assert_eq!(stage.replica.dump(), stage.primary.dump());
    stage.stop();
    stage
}

/// The newest entry goes, with all blocks from its own on.
fn undo_newest(stage: &Stage) {
    let node = stage.scene.node.node();
    let (newest, mut block) = (stage.newest().id(), node.tip());
    while !block.txs.iter().any(|tx| tx.signed.inscriptions().any(|entry| entry.id() == newest)) {
        block = node.block(&block.parent).unwrap();
    }
    node.reorganise(node.tip().height - block.height + 1, Abandoned::Drop).unwrap();
    assert_ne!(stage.newest().id(), newest);
}

/// The follower names the lie, and has everything once the node is honest.
fn recovers(stage: &Stage, says: &str) {
    let error = stage.replica.wait_for_error(says);
    assert_eq!(stage.replica.of_status("state"), "refused", "{error}");
    stage.scene.node.node().reorganise(1, Abandoned::Drop).unwrap();
    stage.primary.publish(&stage.scene.node.url(), QUICK);
    stage.insert(50);
    wait_until("the follower goes on", || stage.replica.dump() == stage.primary.dump());
    wait_until("no error is left", || stage.replica.of_status("error") == "NULL");
    assert_eq!(stage.replica.of_status("state"), "following");
}

#[test]
fn an_unsigned_configuration_with_other_keys_does_not_end_a_follower() {
    let stage = followed();
    stage.scene.node.node().forge(unsigned(Op::Config(config(&stage.url, &[Some([5; 32])]))));
    stage.scene.node.node().mine(1);
    recovers(&stage, "carries a signature that is not its signer's");
}

#[test]
fn an_old_entry_shown_in_the_place_of_an_applied_one_does_not_end_a_follower() {
    let stage = followed();
    let node = stage.scene.node.node();
    let mut block = node.tip();
    let mut carriers = Vec::new();
    while block.height > 0 {
        carriers.extend(block.txs.iter().map(|tx| tx.hash));
        block = node.block(&block.parent).unwrap();
    }
    // The newest goes, and the one before it stands there once more.
    undo_newest(&stage);
    node.replay(&carriers[1]).unwrap();
    node.mine(1);
    recovers(&stage, "a second time");
}

#[test]
fn an_unsigned_configuration_in_the_place_of_an_applied_entry_does_not_end_a_follower() {
    let stage = followed();
    let node = stage.scene.node.node();
    undo_newest(&stage);
    node.forge(unsigned(Op::Config(config(&stage.url, &[None]))));
    node.mine(1);
    recovers(&stage, "which is not signed by the author of this channel");
}

#[test]
fn a_forged_entry_does_not_stop_the_publisher() {
    let stage = Stage::new(5);
    let node = stage.scene.node.node();
    let channel = channel_of(&stage.url);
    let forgery = Forgery { channel, seed: [9; 32], data: b"x".to_vec(), parent: None, signer: None, corrupt: true };
    node.forge_inscription(forgery);
    node.mine(1);
    stage.primary.run("INSERT INTO item VALUES(1, 'x', NULL)");
    stage.primary.wait_for_error("it was forged");
    assert_eq!(stage.primary.of_status("state"), "offline");
    node.reorganise(1, Abandoned::Drop).unwrap();
    stage.scene.settle(&stage.primary);
    // Nor does one that is only told of.
    let state = format!(r#"{{"accredited_keys":["{channel}"],"tip_message":"{}","tip_slot":1}}"#, "ab".repeat(32));
    node.mine(10);
    node.fault(always(200, &state, "/channel"));
    stage.primary.run("INSERT INTO item VALUES(2, 'x', NULL)");
    stage.primary.wait_for_error("has no final block of slot 1 that holds it");
    node.clear_faults();
    stage.scene.settle(&stage.primary);
    assert_once(&stage.scene.node, channel);
    stage.replica.pull(&stage.url, "{}");
    assert_eq!(stage.replica.dump(), stage.primary.dump());
}

#[test]
fn an_entry_that_a_node_hides_in_its_blocks_is_not_taken_for_final() {
    let stage = Stage::new(3);
    let node = stage.scene.node.node();
    let state = || stage.primary.text("SELECT group_concat(DISTINCT state) FROM logos_log");
    stage.scene.mine_until("finality", || state() == "final");
    node.mine(3);
    stage.primary.run("INSERT INTO item VALUES(1, 'x', NULL)");
    stage.primary.text("SELECT logos_position()");
    wait_until("a post", || !node.pending().is_empty());
    let id = stage.primary.text("SELECT id FROM logos_log ORDER BY seq DESC LIMIT 1");
    node.withhold(id.parse::<MsgId>().unwrap().0);
    node.mine(1);
    stage.primary.wait_for_error("and its blocks do not show it");
    assert_eq!(stage.primary.text("SELECT state FROM logos_log WHERE seq = 2"), "pending");
    // Its bytes are still there when it is undone.
    node.reorganise(1, Abandoned::Drop).unwrap();
    node.clear_faults();
    stage.scene.settle(&stage.primary);
    stage.replica.pull(&stage.url, "{}");
    assert_eq!(stage.replica.dump(), stage.primary.dump());
}

#[test]
fn a_node_that_denies_a_channel_whose_entries_it_shows_is_not_believed() {
    let stage = Stage::new(3);
    stage.insert(1);
    stage.scene.node.node().withhold(stage.newest().id().0);
    stage.scene.node.node().fault(always(404, "channel not found", "/channel"));
    stage.refused("it says that there is no such channel");
}

#[test]
fn a_block_that_is_left_out_of_ranges_is_fetched_and_more_than_fits_at_a_time_is_fetched_in_rounds() {
    let stage = Stage::new(2);
    for n in 0..14 {
        stage.primary.run(&format!("INSERT INTO item VALUES({n}, 'x', randomblob(800000))"));
        stage.scene.settle(&stage.primary);
    }
    let node = stage.scene.node.node();
    node.mine(3);
    let blocks = node.lib().height;
    node.fault(always(200, "[]", "/cryptarchia/blocks?slot"));
    let late = stage.scene.db("late.db");
    let by_id = || node.requests("GET /cryptarchia/blocks/{id}");
    let before = by_id();
    late.pull(&stage.url, "{}");
    assert_eq!(late.dump(), stage.primary.dump());
    assert!(by_id() - before > blocks + 10, "{} for {blocks} blocks: it was all held at a time", by_id() - before);
}

#[test]
fn a_chain_without_blocks_and_blocks_out_of_time_are_refused() {
    let stage = Stage::new(3);
    let node = stage.scene.node.node();
    let info = |lib: &str, lib_slot: u64, tip: &str, slot: u64| {
        format!(
            r#"{{"cryptarchia_info":{{"lib":"{lib}","lib_slot":{lib_slot},"tip":"{tip}","slot":{slot},"state":"Online"}}}}"#
        )
    };
    let far = "ab".repeat(32);
    node.fault(always(200, &info(&far, 1_000_000_000_000_000, &far, 1_000_000_000_000_000), "/cryptarchia/info"));
    node.fault(always(200, "[]", "/cryptarchia/blocks?slot"));
    stage.refused("it shows no block for 67108864 slots");
    node.clear_faults();
    // A block that was made after the one that follows it.
    node.mine(1);
    let (tip, lib) = (node.tip(), node.lib());
    node.fault(always(
        200,
        &info(&lib.id.to_string(), lib.slot, &tip.id.to_string(), tip.slot - 1),
        "/cryptarchia/info",
    ));
    stage.refused("is not between its tip and its last irreversible block");
}

/// Answers every request with these bytes. What it was asked, as it came.
fn serve(answer: Vec<u8>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, questions) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap();
            let _ = asked.send(String::from_utf8_lossy(&head[..length]).to_ascii_lowercase());
            // Fails when the other side has read enough.
            let _ = stream.write_all(&answer);
        }
    });
    (url, questions)
}

#[test]
fn a_packed_answer_is_neither_asked_for_nor_unpacked() {
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n".to_vec();
    answer.extend(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff");
    let (url, questions) = serve(answer);
    let scene = Scene::new(NodeConfig::default());
    let error = scene.db("r.db").try_pull(&format!("{url}/channel/{}", "ab".repeat(32)), "{}").unwrap_err();
    assert!(error.contains("packed as \"gzip\""), "{error}");
    let question = questions.recv_timeout(PATIENCE).unwrap();
    assert!(question.starts_with("get /cryptarchia/info") && !question.contains("accept-encoding"), "{question}");
}

#[test]
fn an_answer_without_end_is_read_up_to_the_bound_of_its_kind() {
    let mut answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
    answer.resize(20 * 1024 * 1024, b' ');
    let (url, _questions) = serve(answer);
    let scene = Scene::new(NodeConfig::default());
    let error = scene.db("r.db").try_pull(&format!("{url}/channel/{}", "ab".repeat(32)), "{}").unwrap_err();
    assert!(error.contains("more than 4194304 bytes"), "{error}");
}
