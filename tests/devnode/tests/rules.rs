//! Goal: the node keeps the rules of channels, pool, fees, forks and finality that a real node keeps.
//! Method: drive it block by block, with time standing still in between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Instant;

use common::*;
use logos_devnode::ledger::Refusal;
use logos_devnode::wallet::FundRequest;
use logos_devnode::{Abandoned, NodeConfig, Prices, SlotGap};
use logos_log::crypto::SigningKey;
use logos_log::entry::{sign_entry, sign_ops, ChannelConfig, Inscription, Op, Proof, SignedTx};
use logos_log::ids::{ChannelId, MsgId};
use serde_json::{json, Value};

#[test]
fn a_child_alone_at_assembly_is_evicted_for_good_and_with_its_parent_it_lands() {
    let node = free();
    let (first, parent) = entry(MsgId::ROOT, "parent");
    let (_, child) = entry(first, "child");
    assert_eq!(post_tx(&node, &child).status, 200);
    node.node().mine(1);
    assert!(matches!(node.node().evictions()[..], [(_, Refusal::InvalidParent { .. })]));
    post_tx(&node, &parent);
    node.node().mine(1);
    assert_eq!(on_channel(&node), ["parent"]);
    // Both there, the child first: both land in one block.
    node.node().reset(1).unwrap();
    post_tx(&node, &child);
    post_tx(&node, &parent);
    node.node().mine(1);
    assert_eq!(on_channel(&node), ["parent", "child"]);
    assert_eq!(node.node().tip().txs.len(), 2);
}

#[test]
fn a_second_writer_and_a_second_child_are_refused() {
    let node = free();
    let (first, tx) = entry(MsgId::ROOT, "first");
    post_tx(&node, &tx);
    node.node().mine(1);
    node.node().write(&[0x22; 32], CHANNEL, b"intruder".to_vec(), None, false).unwrap();
    node.node().mine(1);
    assert!(matches!(node.node().evictions()[..], [(_, Refusal::UnauthorizedSigner { .. })]));
    post_tx(&node, &entry(first, "one").1);
    post_tx(&node, &entry(first, "other").1);
    node.node().mine(1);
    assert_eq!(on_channel(&node), ["first", "one"]);
    // What is mined already may be posted again: 200, and gone at the next block.
    assert_eq!(post_tx(&node, &tx).status, 200);
    node.node().mine(1);
    assert_eq!(on_channel(&node), ["first", "one"]);
    assert!(node.node().pending().is_empty());
}

#[test]
fn a_transaction_of_several_inscriptions_applies_whole_or_not_at_all() {
    let node = free();
    let one =
        |parent, data: &[u8]| Inscription { channel: CHANNEL, data: data.to_vec(), parent, signer: key().public_key() };
    let first = one(MsgId::ROOT, b"a");
    let second = one(first.id(), b"b");
    let stray = one(MsgId([9; 32]), b"c");
    post_tx(&node, &sign_ops(&key(), vec![Op::Inscribe(first.clone()), Op::Inscribe(stray)], None));
    node.node().mine(1);
    assert!(node.node().channel(&CHANNEL).is_none());
    post_tx(&node, &sign_ops(&key(), vec![Op::Inscribe(first), Op::Inscribe(second)], None));
    node.node().mine(1);
    assert_eq!(on_channel(&node), ["a", "b"]);
}

#[test]
fn the_same_transaction_is_pending_once() {
    let node = free();
    let (_, tx) = entry(MsgId::ROOT, "x");
    assert_eq!(post_tx(&node, &tx).status, 200);
    assert_eq!(post_tx(&node, &tx).status, 200);
    assert_eq!(node.node().pending(), [tx.hash()]);
}

#[test]
fn a_full_block_ends_at_the_first_transaction_that_does_not_fit_and_the_rest_stays() {
    let node = free();
    let channel = |byte| ChannelId([byte; 32]);
    let sized = |byte, size| sign_entry(&key(), channel(byte), MsgId::ROOT, vec![0; size]);
    for (byte, size) in [(1, 1_200_000), (2, 1_200_000), (3, 10)] {
        assert_eq!(post_tx(&node, &sized(byte, size)).status, 200);
    }
    node.node().mine(1);
    assert_eq!(node.node().tip().txs.len(), 1);
    assert_eq!(node.node().pending().len(), 2);
    node.node().mine(1);
    assert_eq!(node.node().tip().txs.len(), 2);
    assert!(node.node().evictions().is_empty());
    // The largest inscription passes; one byte more is refused at the door.
    assert_eq!(post_tx(&node, &sized(4, 1_835_008)).status, 200);
    assert_eq!(post_tx(&node, &sized(5, 1_835_009)).status, 500);
}

#[test]
fn a_block_holds_1024_transactions() {
    let node = free();
    let mut parent = MsgId::ROOT;
    for number in 0..1025 {
        let (id, tx) = entry(parent, &number.to_string());
        node.node().post(tx).unwrap();
        parent = id;
    }
    node.node().mine(1);
    assert_eq!((node.node().tip().txs.len(), node.node().pending().len()), (1024, 1));
    node.node().mine(1);
    assert_eq!(on_channel(&node).len(), 1025);
}

#[test]
fn a_configuration_is_a_link_of_the_chain_and_kills_what_was_pending_on_the_old_tip() {
    let node = free();
    let (first, tx) = entry(MsgId::ROOT, "first");
    post_tx(&node, &tx);
    node.node().mine(1);
    let config = ChannelConfig {
        channel: CHANNEL,
        keys: vec![key().public_key()],
        posting_timeframe: 0,
        posting_timeout: 0,
        configuration_threshold: 1,
        transfer_threshold: 1,
    };
    let (link, _) = node.node().configure(&[0x11; 32], config.clone()).unwrap();
    post_tx(&node, &entry(first, "dead").1);
    post_tx(&node, &entry(link, "alive").1);
    node.node().mine(1);
    assert_eq!(on_channel(&node), ["first", "alive"]);
    // A stranger's signature does not do.
    let stranger = sign_ops(&SigningKey::from_seed(&[0x22; 32]), vec![Op::Config(config)], None);
    post_tx(&node, &stranger);
    node.node().mine(1);
    assert!(node.node().evictions().iter().any(|(_, why)| matches!(why, Refusal::InvalidConfig(_))));
}

/// Keys of two seeds, in that order, with the timing given.
fn shared_channel(node: &logos_devnode::DevNode, timeframe: u32, timeout: u32) {
    let keys = [[0x11; 32], [0x22; 32]].map(|seed| SigningKey::from_seed(&seed).public_key()).to_vec();
    let config = ChannelConfig {
        channel: CHANNEL,
        keys,
        posting_timeframe: timeframe,
        posting_timeout: timeout,
        configuration_threshold: 1,
        transfer_threshold: 1,
    };
    node.node().configure(&[0x11; 32], config).unwrap();
    node.node().mine(1);
}

/// Whether this key may write in the block mined next.
fn lands(node: &logos_devnode::DevNode, seed: u8, text: &str) -> bool {
    let before = on_channel(node).len();
    node.node().write(&[seed; 32], CHANNEL, text.into(), None, false).unwrap();
    node.node().mine(1);
    on_channel(node).len() > before
}

#[test]
fn accredited_keys_take_turns_by_timeframe() {
    let node = start(NodeConfig { gap: SlotGap::Fixed(10), ..NodeConfig::default() });
    shared_channel(&node, 40, 0);
    // The configuration is in slot 10: the first turn is 10..50, the second 50..90, then the first again.
    assert!(lands(&node, 0x11, "slot 20"));
    assert!(!lands(&node, 0x22, "slot 30"));
    node.node().advance(10);
    assert!(!lands(&node, 0x11, "slot 50"));
    assert!(lands(&node, 0x22, "slot 60"));
    let channel = node.node().channel(&CHANNEL).unwrap();
    assert_eq!((channel.sequencer, channel.sequencer_start, channel.tip_slot), (1, 50, 60));
    node.node().advance(20);
    assert!(lands(&node, 0x11, "slot 90"));
}

#[test]
fn silence_passes_the_turn_on_by_timeout() {
    let node = start(NodeConfig { gap: SlotGap::Fixed(10), ..NodeConfig::default() });
    shared_channel(&node, 0, 30);
    assert!(!lands(&node, 0x22, "slot 20"));
    assert!(!lands(&node, 0x22, "slot 30"));
    assert!(lands(&node, 0x22, "slot 40"));
    assert!(!lands(&node, 0x11, "slot 50"));
    assert!(lands(&node, 0x22, "slot 60"));
}

#[test]
fn without_timing_only_the_first_key_ever_writes() {
    let node = free();
    shared_channel(&node, 0, 0);
    node.node().advance(1_000_000);
    assert!(!lands(&node, 0x22, "never"));
    assert!(lands(&node, 0x11, "always"));
}

#[test]
fn lib_is_the_kth_ancestor_online_and_stands_still_while_bootstrapping() {
    let node = start(NodeConfig { k: 3, online: false, ..NodeConfig::default() });
    node.node().mine(5);
    assert_eq!(node.node().lib().height, 0);
    let mut finals = Lines::open(&node, "/cryptarchia/lib-stream");
    node.node().set_online(true);
    assert_eq!(node.node().lib().height, 2);
    let heights = [finals.next()["height"].clone(), finals.next()["height"].clone()];
    assert_eq!(heights, [json!(1), json!(2)]);
    node.node().mine(1);
    assert_eq!(node.node().lib().height, 3);
    let info = get(&node, "/cryptarchia/info").json();
    assert_eq!(info["cryptarchia_info"]["lib_slot"], 60);
    // Only what is final is in the immutable range, however far it is asked.
    let blocks = get(&node, "/cryptarchia/blocks?slot_from=1&slot_to=100000").json();
    let slots: Vec<u64> = blocks.as_array().unwrap().iter().map(|b| b["header"]["slot"].as_u64().unwrap()).collect();
    assert_eq!(slots, [20, 40, 60]);
}

#[test]
fn a_reorganisation_puts_transactions_back_and_the_next_block_has_them_again() {
    let node = free();
    let (first, tx) = entry(MsgId::ROOT, "one");
    post_tx(&node, &tx);
    node.node().mine(1);
    post_tx(&node, &entry(first, "two").1);
    node.node().mine(1);
    let (old_tip, old_height) = (node.node().tip().id, node.node().tip().height);
    let mut events = Lines::open(&node, "/cryptarchia/events/blocks/stream");
    let made = node.node().reorganise(2, Abandoned::Return).unwrap();
    assert_eq!(made.len(), 3);
    // Side branch first: reported, while the tip is still the old one.
    for (number, id) in made.iter().enumerate() {
        let event = events.next();
        assert_eq!(event["block"]["header"]["id"], id.to_string());
        let tip = if number < 2 { old_tip } else { *id };
        assert_eq!(event["tip"], tip.to_string());
    }
    assert_eq!(node.node().tip().height, old_height + 1);
    assert!(on_channel(&node).is_empty());
    assert_eq!(get(&node, &format!("/channel/{CHANNEL}")).status, 404);
    assert_eq!(node.node().pending().len(), 2);
    assert_eq!(get(&node, &format!("/cryptarchia/blocks/{old_tip}")).status, 200);
    node.node().mine(1);
    assert_eq!(on_channel(&node), ["one", "two"]);
    // A longer branch from before LIB is refused.
    node.node().mine(5);
    assert!(node.node().reorganise(4, Abandoned::Return).is_err());
}

#[test]
fn a_reorganisation_can_keep_drop_or_reorder_transactions() {
    let post_two = |node: &logos_devnode::DevNode| {
        let (first, tx) = entry(MsgId::ROOT, "one");
        post_tx(node, &tx);
        node.node().mine(1);
        post_tx(node, &entry(first, "two").1);
        node.node().write(&[0x33; 32], ChannelId([0x33; 32]), b"other".to_vec(), None, false).unwrap();
        node.node().mine(1);
    };
    let node = free();
    post_two(&node);
    node.node().reorganise(2, Abandoned::Keep).unwrap();
    assert_eq!(on_channel(&node), ["one", "two"]);
    node.node().reset(1).unwrap();
    post_two(&node);
    node.node().reorganise(2, Abandoned::Drop).unwrap();
    assert!(on_channel(&node).is_empty() && node.node().pending().is_empty());
    node.node().reset(2).unwrap();
    post_two(&node);
    node.node().reorganise(2, Abandoned::Reorder).unwrap();
    let channels: Vec<ChannelId> =
        node.node().tip().txs.iter().flat_map(|tx| tx.signed.inscriptions()).map(|one| one.channel).collect();
    assert_eq!(channels, [ChannelId([0x33; 32]), CHANNEL, CHANNEL]);
    assert_eq!(on_channel(&node), ["one", "two"]);
}

#[test]
fn a_side_block_is_reported_and_changes_nothing() {
    let node = free();
    node.node().mine(2);
    let tip = node.node().tip().id;
    let mut events = Lines::open(&node, "/cryptarchia/events/blocks/stream");
    let side = node.node().mine_side(1).unwrap();
    let event = events.next();
    assert_eq!((&event["block"]["header"]["id"], &event["tip"]), (&json!(side.to_string()), &json!(tip.to_string())));
    assert_eq!(node.node().tip().id, tip);
}

fn fund(node: &logos_devnode::DevNode, tx: &SignedTx, percent: u64) -> Result<SignedTx, String> {
    let wallet = node.node().config().wallet;
    let request =
        FundRequest { ops: tx.ops.clone(), change: wallet, funding: vec![wallet], max_fee: 1_000_000, percent };
    let (ops, proof) = node.node().fund(&request)?.unwrap();
    Ok(sign_ops(&key(), ops, Some(proof)))
}

fn balance(node: &logos_devnode::DevNode) -> Value {
    get(node, &format!("/wallet/{}/balance", hex::encode(node.node().config().wallet))).json()
}

#[test]
fn a_funded_entry_pays_what_the_protocol_says_and_an_unpaid_one_is_evicted() {
    let node = with_fees(&[1_000_000]);
    let (_, unpaid) = entry(MsgId::ROOT, "12345");
    assert_eq!(post_tx(&node, &unpaid).status, 200);
    node.node().mine(1);
    assert!(matches!(node.node().evictions()[..], [(_, Refusal::InsufficientFee { paid: 0, fee: 227 })]));
    // n + 1015 at prices 1 and 1, plus 12 percent rounded up.
    let paid = fund(&node, &unpaid, 12).unwrap();
    assert_eq!(paid.execution_gas() + paid.storage_gas(), 1020);
    post_tx(&node, &paid);
    node.node().mine(1);
    assert_eq!(on_channel(&node), ["12345"]);
    assert_eq!(balance(&node)["balance"], 1_000_000 - 1020 - 123);
    assert_eq!(balance(&node)["notes"].as_object().unwrap().len(), 1);
}

#[test]
fn a_single_note_funds_one_transaction_at_a_time() {
    let node = with_fees(&[1_000_000]);
    let (first, one) = entry(MsgId::ROOT, "one");
    let (_, two) = entry(first, "two");
    let paid = fund(&node, &one, 0).unwrap();
    assert!(fund(&node, &two, 0).unwrap_err().contains("insufficient funds"));
    post_tx(&node, &paid);
    node.node().mine(1);
    post_tx(&node, &fund(&node, &two, 0).unwrap());
    node.node().mine(1);
    assert_eq!(on_channel(&node), ["one", "two"]);
}

#[test]
fn a_reserved_note_that_is_never_spent_is_free_again_ten_final_blocks_later() {
    let node = with_fees(&[1_000_000]);
    let (_, tx) = entry(MsgId::ROOT, "one");
    fund(&node, &tx, 0).unwrap();
    node.node().mine(12);
    assert_eq!(node.node().lib().height, 9);
    assert!(fund(&node, &tx, 0).is_err());
    node.node().mine(1);
    assert!(fund(&node, &tx, 0).is_ok());
}

#[test]
fn a_rising_price_makes_a_funded_transaction_unaffordable_and_it_is_evicted() {
    let node = with_fees(&[1_000_000]);
    let paid = fund(&node, &entry(MsgId::ROOT, "one").1, 12).unwrap();
    node.node().set_prices(Prices { execution: 2, storage: 1 });
    post_tx(&node, &paid);
    node.node().mine(1);
    assert!(matches!(node.node().evictions()[..], [(_, Refusal::InsufficientFee { .. })]));
}

#[test]
fn the_proof_of_a_transfer_belongs_to_its_transaction_alone() {
    let node = with_fees(&[1_000_000, 1_000_000]);
    let mut paid = fund(&node, &entry(MsgId::ROOT, "one").1, 0).unwrap();
    paid.proofs[1] = Proof::Zk([3; 128]);
    assert_eq!(post_tx(&node, &paid).status, 200);
    node.node().mine(1);
    assert!(matches!(node.node().evictions()[..], [(_, Refusal::InvalidProof)]));
}

#[test]
fn a_fund_request_beyond_its_maximum_or_for_an_unknown_tip_is_refused_with_500() {
    let node = with_fees(&[1_000_000]);
    let wallet = hex::encode(node.node().config().wallet);
    let mut request = vectors()["http_bodies"]["POST /wallet/fund"]["request"].clone();
    request["funding_public_keys"] = json!([wallet]);
    request["max_tx_fee"] = json!(10);
    let refused = post(&node, "/wallet/fund", &request);
    assert_eq!((refused.status, &refused.json()["code"]), (500, &json!(500)));
    request["max_tx_fee"] = json!(10_000);
    request["tip"] = json!("ab".repeat(32));
    assert_eq!(post(&node, "/wallet/fund", &request).status, 500);
    request["tip"] = json!(node.node().tip().id.to_string());
    assert_eq!(post(&node, "/wallet/fund", &request).status, 200);
}

#[test]
fn blocks_range_keeps_order_limit_filter_and_bounds() {
    let node = free();
    node.node().mine(10);
    let slots = |query: &str| -> Vec<u64> {
        let events = Lines::open(&node, &format!("/cryptarchia/blocks_range?{query}")).rest();
        events.iter().map(|event| event["block"]["header"]["slot"].as_u64().unwrap()).collect()
    };
    assert_eq!(slots("blocks_limit=2"), [200, 180]);
    assert_eq!(slots("slot_from=30&slot_to=90&order=ascending"), [40, 60, 80]);
    assert_eq!(slots("block_filter=immutable_only&blocks_limit=1"), [140]);
    assert_eq!(slots("slot_from=100&slot_to=100000&order=ascending").len(), 6);
    assert_eq!(get(&node, "/cryptarchia/blocks_range?slot_from=5&slot_to=4").status, 400);
    let headers = get(&node, "/cryptarchia/headers").json();
    assert_eq!(headers.as_array().unwrap().len(), 4, "from the tip back to LIB");
}

#[test]
fn a_node_by_the_clock_makes_blocks_by_itself() {
    let node = start(NodeConfig { block_ms: Some(20), ..NodeConfig::default() });
    let mut events = Lines::open(&node, "/cryptarchia/events/blocks/stream");
    post_tx(&node, &entry(MsgId::ROOT, "x").1);
    while events.next()["block"]["transactions"].as_array().unwrap().is_empty() {}
    assert_eq!(on_channel(&node), ["x"]);
}

#[test]
fn fifty_thousand_empty_blocks_are_made_in_seconds_at_the_density_asked() {
    let node = free();
    let begun = Instant::now();
    let made = post(&node, "/dev/mine_empty", &json!({"n": 50_000, "density": 0.05}));
    assert_eq!(made.json(), 50_000);
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    let tip = node.node().tip();
    assert_eq!(tip.height, 50_000);
    let slots_per_block = tip.slot as f64 / 50_000.0;
    assert!((19.0..21.0).contains(&slots_per_block), "{slots_per_block}");
    let some = get(&node, "/cryptarchia/blocks?slot_from=500000&slot_to=500100").json();
    assert!(some.as_array().unwrap().len() < 20);
}

#[test]
fn a_restarted_node_resumes_from_its_state_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.state");
    let config = || NodeConfig { k: 3, state: Some(path.clone()), ..NodeConfig::default() };
    let (first, one) = entry(MsgId::ROOT, "one");
    let (second, two) = entry(first, "two");
    let (before, lib) = {
        let node = start(config());
        post_tx(&node, &one);
        node.node().mine(2);
        post_tx(&node, &two);
        node.node().mine(1);
        node.node().reorganise(2, Abandoned::Return).unwrap();
        node.node().forge_inscription(logos_devnode::Forgery {
            channel: CHANNEL,
            seed: [0x22; 32],
            data: b"forged".to_vec(),
            parent: None,
            signer: None,
            corrupt: false,
        });
        node.node().include_foreign(json!({"anything": 1}));
        node.node().mine(4);
        post_tx(&node, &entry(second, "three").1);
        (node.node().tip().id, node.node().lib().id)
    };
    // Whatever a crash leaves of the last line is dropped.
    use std::io::Write;
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"block\":{\"par").unwrap();
    let node = start(config());
    assert_eq!((node.node().tip().id, node.node().lib().id), (before, lib));
    assert_eq!(on_channel(&node), ["one", "two"]);
    assert_eq!(node.node().pending().len(), 1);
    node.node().mine(1);
    assert_eq!(on_channel(&node), ["one", "two", "three"]);
}
