//! Goal: a replica believes nothing that a node says and cannot prove, skips nothing, and names each lie.
//! Method: a development node that lies on request; the replica pulls, and its message is read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use logos_devnode::{Abandoned, Fault, NodeConfig, Rule};
use logos_log::crypto::SigningKey;
use logos_log::entry::sign_entry;
use logos_log::ids::{Digest, Position, PublicKey};
use logos_log::part::PartWriter;
use logos_log::payload::{Encoding, Header, Kind, PayloadWriter};
use node_tests::*;
use serde_json::json;

#[test]
fn t33_a_forged_signature_is_named() {
    let stage = Stage::new(3);
    stage.forge(|forgery| forgery.corrupt = true);
    stage.refused("carries a signature that is not its signer's");
    stage.scene.node.node().mine(5);
    stage.refused("carries a signature that is not its signer's");
}

/// The bytes of a message that changes the schema by these statements, as an author with other intentions would make it.
fn message_with(statements: &[&str], after: &str) -> Vec<u8> {
    let after: Position = after.parse().unwrap();
    let mut data = Vec::new();
    let parts = PartWriter::new(after.seq + 1, |_, part| {
        data = part;
        Ok(())
    });
    let header = Header {
        kind: Kind::Changes,
        encoding: Encoding::Utf8,
        incomplete: false,
        seq: after.seq + 1,
        previous: after.digest,
        time_ms: 0,
        schema: Digest([0; 32]),
    };
    let mut writer = PayloadWriter::new(parts, &header).unwrap();
    writer.schema(&statements.iter().map(|sql| sql.to_string()).collect::<Vec<_>>()).unwrap();
    writer.finish().unwrap().0.finish().unwrap();
    data
}

#[test]
fn a_publisher_that_sends_anything_but_single_changes_of_the_schema_is_refused() {
    for (statement, says) in [
        ("DELETE FROM item", "no change of the schema"),
        ("UPDATE \"item\" SET \"v\" = load_extension('x')", "no change of the schema"),
        ("ATTACH '/tmp/stolen' AS x", "no change of the schema"),
        ("PRAGMA writable_schema = 1", "no change of the schema"),
        ("WITH x AS (SELECT 1) INSERT INTO item SELECT 5, 'x', 1 FROM x", "no change of the schema"),
        ("/* CREATE */ SELECT load_extension('x')", "no change of the schema"),
        ("CREATE VIRTUAL TABLE f USING csv(filename='/etc/passwd')", "no change of the schema"),
        ("CREATE TABLE x(a); DELETE FROM item", "changing the schema by"),
    ] {
        let stage = Stage::new(3);
        stage.insert(1);
        stage.replica.pull(&stage.url, "{}");
        let position = stage.replica.text("SELECT logos_position()");
        stage.forge(|forgery| forgery.data = message_with(&[statement], &position));
        stage.refused(says);
    }
}

#[test]
fn t33_a_wrong_signer_is_named() {
    let stage = Stage::new(3);
    stage.forge(|forgery| forgery.seed = [9; 32]);
    stage.refused("which is not the author of this channel");
}

#[test]
fn t33_a_signer_who_lies_about_who_signed_is_named() {
    let stage = Stage::new(3);
    let author = PublicKey(channel_of(&stage.url).0);
    stage.forge(|forgery| (forgery.seed, forgery.signer) = ([9; 32], Some(author)));
    stage.refused("carries a signature that is not its signer's");
}

#[test]
fn t33_a_wrong_parent_is_named() {
    let stage = Stage::new(3);
    stage.insert(1);
    stage.replica.pull(&stage.url, "{}");
    let parent = stage.newest().parent;
    stage.forge(|forgery| forgery.parent = Some(parent));
    stage.refused("and not the newest entry");
}

#[test]
fn t33_a_replay_is_named() {
    let stage = Stage::new(3);
    stage.insert(1);
    stage.replica.pull(&stage.url, "{}");
    stage.stop();
    let node = stage.scene.node.node();
    let mut block = node.tip();
    while block.txs.is_empty() {
        block = node.block(&block.parent).unwrap();
    }
    node.replay(&block.txs[0].hash).unwrap();
    node.mine(1);
    stage.refused("a replay");
}

#[test]
fn t33_a_withheld_entry_is_named_at_the_tip_and_in_the_middle() {
    let stage = Stage::new(3);
    stage.insert(1);
    let withheld = stage.newest().id();
    stage.scene.node.node().withhold(withheld.0);
    stage.refused(&format!("knows entry {withheld}"));
    stage.insert_despite(2);
    stage.refused("withholds an entry");
    stage.scene.node.node().reveal(&withheld.0);
    stage.replica.pull(&stage.url, "{}");
    assert_eq!(stage.replica.dump(), stage.primary.dump());
}

#[test]
fn t32_a_block_that_cannot_be_read_is_never_passed_whether_final_or_not() {
    for blocks_after in [0, 10] {
        let stage = Stage::new(3);
        let node = stage.scene.node.node();
        let before = node.tip().id;
        stage.insert(1);
        stage.insert_despite(2);
        node.mine(blocks_after);
        let mut block = node.tip();
        while block.parent != before {
            block = node.block(&block.parent).unwrap();
        }
        stage.scene.node.node().withhold(block.id.0);
        stage.refused(&format!("does not give out block {}", block.id));
        stage.scene.node.node().reveal(&block.id.0);
        stage.replica.pull(&stage.url, "{}");
        assert_eq!(stage.replica.dump(), stage.primary.dump(), "{blocks_after}");
    }
}

#[test]
fn t33_entries_of_other_channels_and_operations_nobody_knows_are_skipped() {
    let stage = Stage::new(3);
    let node = stage.scene.node.node();
    node.write(&[9; 32], logos_log::ids::ChannelId([8; 32]), b"other".to_vec(), None, false).unwrap();
    node.include_foreign(
        json!({"mantle_tx": {"ops": [{"opcode": 48, "payload": {"x": 1}}]}, "ops_proofs": [{"New": 1}]}),
    );
    stage.insert(1);
    node.mine(5);
    stage.replica.pull(&stage.url, "{}");
    assert_eq!(stage.replica.dump(), stage.primary.dump());
}

#[test]
fn a_different_entry_in_the_place_of_an_applied_one_is_a_fork_and_stops_the_replica_with_the_evidence() {
    let stage = Stage::new(10);
    stage.insert(1);
    stage.replica.pull(&stage.url, "{}");
    let applied = stage.newest();
    stage.stop();
    let node = stage.scene.node.node();
    let depth = node.tip().height - 1;
    node.reorganise(depth.min(9), Abandoned::Drop).unwrap();
    let tip = node.inscriptions(&channel_of(&stage.url)).pop().map_or(logos_log::ids::MsgId::ROOT, |one| one.id());
    let (other, _) =
        node.write(&stage.seed, channel_of(&stage.url), b"another history".to_vec(), Some(tip), false).unwrap();
    node.mine(1);
    let mut error = stage.replica.try_pull(&stage.url, "{}");
    if error == Ok(0) {
        // The new history is shorter than the old one: as long as it could still be the same it is waited for.
        node.write(&stage.seed, channel_of(&stage.url), b"and more".to_vec(), None, false).unwrap();
        node.mine(1);
        error = stage.replica.try_pull(&stage.url, "{}");
    }
    let error = error.unwrap_err();
    assert!(error.contains("has forked") && error.contains("block"), "{error}");
    assert!(error.contains(&other.to_string()) || error.contains(&applied.id().to_string()), "{error}");
}

#[test]
fn a_configuration_that_keeps_the_key_is_a_link_and_one_that_changes_keys_stops_the_replica() {
    for (keys, refused) in [(vec![None], false), (vec![None, Some([5; 32])], true), (vec![Some([5; 32])], true)] {
        let stage = Stage::new(3);
        stage.stop();
        stage.scene.node.node().configure(&stage.seed, config(&stage.url, &keys)).unwrap();
        stage.scene.node.node().mine(1);
        match refused {
            true => drop(stage.refused("gives this channel to the keys")),
            false => assert_eq!(stage.replica.pull(&stage.url, "{}"), 0),
        }
    }
}

#[test]
fn t41_a_reset_network_is_noticed_and_the_position_kept() {
    let stage = Stage::new(3);
    stage.stop();
    stage.scene.node.node().reset(5).unwrap();
    let error = stage.refused("is on another chain");
    assert!(error.contains("network was reset"), "{error}");
}

#[test]
fn t40_a_bootstrapping_node_is_waited_for_and_finality_that_jumps_skips_nothing() {
    let stage = Stage::new(3);
    let node = stage.scene.node.node();
    node.set_online(false);
    node.mine(20);
    stage.refused("Bootstrapping");
    node.set_online(true);
    stage.insert(1);
    stage.replica.pull(&stage.url, "{}");
    assert_eq!(stage.replica.dump(), stage.primary.dump());
}

#[test]
fn blocks_on_side_branches_are_not_followed() {
    let stage = Stage::new(6);
    for n in 1..5 {
        stage.insert(n);
        // Whoever looked into it would find a second history, signed by the author.
        let (key, parent) = (SigningKey::from_seed(&stage.seed), stage.newest().parent);
        let rival = sign_entry(&key, channel_of(&stage.url), parent, b"another history".to_vec());
        stage.scene.node.node().mine_side_with(1, vec![rival]).unwrap();
        stage.replica.pull(&stage.url, "{}");
    }
    assert_eq!(stage.replica.dump(), stage.primary.dump());
}

#[test]
fn a_node_that_is_behind_is_waited_for() {
    let ahead = Stage::new(3);
    ahead.scene.node.node().mine(10);
    ahead.insert(1);
    ahead.replica.pull(&ahead.url, "{}");
    // The same chain, from its beginning.
    let behind = Scene::new(NodeConfig { k: 3, ..NodeConfig::default() });
    let url = ahead.url.replace(&ahead.scene.node.url(), &behind.node.url());
    let error = ahead.replica.try_pull(&url, "{}").unwrap_err();
    assert!(error.contains("is behind"), "{error}");
}

#[test]
fn a_follower_from_genesis_over_50_000_blocks_takes_few_requests() {
    let stage = Stage::new(3);
    let node = stage.scene.node.node();
    for n in 1..=10 {
        node.mine_empty(5_000, 0.05);
        stage.insert(n);
    }
    node.mine(4);
    let late = stage.scene.db("late.db");
    late.pull(&stage.url, "{}");
    assert_eq!(late.dump(), stage.primary.dump());
    let ranges = late.of_status("requests");
    println!("50 000 blocks in {ranges} requests, {} of them of ranges", node.requests("GET /cryptarchia/blocks"));
    assert!(ranges.parse::<u64>().unwrap() < 200, "{ranges} requests");
    assert_eq!(late.pull(&stage.url, "{}"), 0);
}

/// Asked for by ranges so far.
fn ranges(stage: &Stage) -> u64 {
    stage.scene.node.node().requests("GET /cryptarchia/blocks")
}

#[test]
fn many_messages_in_one_transaction_are_read_once() {
    let scene = Scene::by_hand();
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), r#"{"poll_ms": 10, "batch_ms": 0, "in_flight": 64}"#);
    scene.settle(&primary);
    // While the node is away, messages gather, and then go in one transaction.
    scene.node.node().fault(Rule { times: None, ..Rule::new(Fault::Close, "/", 1) });
    for n in 0..40 {
        primary.run(&format!("INSERT INTO item VALUES({n}, 'x', NULL)"));
        primary.text("SELECT logos_position()");
    }
    scene.node.node().clear_faults();
    scene.settle(&primary);
    assert_eq!(primary.number("SELECT count(DISTINCT slot) FROM logos_log WHERE seq > 1"), 1);
    scene.node.node().mine_empty(2_000, 0.05);
    let late = scene.db("late.db");
    assert_eq!(late.pull(&url, "{}"), primary.number("SELECT count(*) FROM logos_log"));
    assert_eq!(late.dump(), primary.dump());
    // Once through the blocks, and twice the question whether there is more.
    let requests = late.of_status("requests").parse::<u64>().unwrap();
    assert!(requests < 40, "{requests} requests");
}

#[test]
fn a_quiet_channel_is_not_read_again_by_every_pull_and_an_idle_replica_writes_nothing() {
    let stage = Stage::new(3);
    stage.stop();
    stage.scene.node.node().mine_empty(5_000, 0.05);
    let kept = || stage.replica.text("SELECT bookmark FROM _logos_replica");
    let (before, position) = (kept(), stage.replica.text("SELECT logos_position()"));
    assert_eq!(stage.replica.pull(&stage.url, "{}"), 0);
    let after = kept();
    assert_ne!(after, before);
    assert_eq!(stage.replica.text("SELECT logos_position()"), position);
    let asked = ranges(&stage);
    for _ in 0..3 {
        stage.scene.node.node().mine_empty(10, 0.05);
        assert_eq!(stage.replica.pull(&stage.url, "{}"), 0);
    }
    assert!(ranges(&stage) - asked < 20, "{} ranges", ranges(&stage) - asked);
    assert_eq!(kept(), after, "a few blocks are not worth a write");
    // And it goes on from there.
    stage.primary.publish(&stage.scene.node.url(), QUICK);
    stage.insert(1);
    stage.replica.pull(&stage.url, "{}");
    assert_eq!(stage.replica.dump(), stage.primary.dump());
}

#[test]
fn a_configuration_is_kept_with_the_bookmark_that_is_after_it() {
    let stage = Stage::new(3);
    stage.stop();
    let node = stage.scene.node.node();
    let (config, _) = node.configure(&stage.seed, config(&stage.url, &[None])).unwrap();
    node.mine(1);
    node.mine_empty(2_000, 0.05);
    assert_eq!(stage.replica.pull(&stage.url, "{}"), 0);
    let tip = stage.replica.text("SELECT lower(hex(tip)) FROM _logos_replica");
    assert_eq!(tip, config.to_string());
    assert_eq!(stage.replica.pull(&stage.url, "{}"), 0);
}

#[test]
fn a_long_way_is_gone_although_every_fifth_request_fails() {
    let stage = Stage::new(3);
    stage.replica.pull(&stage.url, r#"{"follow": true, "poll_ms": 5}"#);
    for _ in 0..200 {
        let fault = Fault::Status { code: 500, body: None };
        stage.scene.node.node().fault(Rule { skip: 4, ..Rule::new(fault, "/cryptarchia/blocks?slot", 1) });
    }
    stage.scene.node.node().mine_empty(10_000, 0.05);
    stage.insert(1);
    wait_until("the row beyond the quiet time", || stage.replica.number("SELECT count(*) FROM item") == 1);
    assert!(stage.scene.node.node().with_faults(|faults| faults.rules.len()) < 200, "no request failed");
}

#[test]
fn logos_wait_pulls_as_the_replica_was_attached() {
    let stage = Stage::new(5);
    let options = r#"{"confirm": "final", "poll_ms": 5}"#;
    stage.scene.node.node().mine(6);
    let replica = stage.scene.db("final.db");
    replica.pull(&stage.url, options);
    stage.insert(1);
    let position = stage.primary.text("SELECT logos_position()");
    assert_eq!(replica.number(&format!("SELECT logos_wait('{position}', 1)")), 0);
    assert_eq!(replica.number("SELECT count(*) FROM item"), 0, "an entry that is not final was applied");
    stage.scene.node.node().mine(6);
    assert_eq!(replica.number(&format!("SELECT logos_wait('{position}', 60)")), 1);
    assert_eq!(replica.dump(), stage.primary.dump());
}
