//! Goal: whatever a node, a wallet or another writer does, entries land once, or the publisher stops and says why.
//! Method: faults of the development node, blocks made by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use logos_devnode::{Fault, NodeConfig, Prices, Rule, Shape};
use logos_log::ids::MsgId;
use node_tests::*;

const WALLET: &str = "0707070707070707070707070707070707070707070707070707070707070707";

fn paying(more: &str) -> String {
    format!(r#"{{"poll_ms": 10, "batch_ms": 0, "wallet_key": "{WALLET}"{more}}}"#)
}

#[test]
fn t30_every_misbehaviour_of_the_wire_is_survived_by_writer_and_reader() {
    let faults = [
        Fault::Status { code: 500, body: None },
        Fault::Status { code: 503, body: Some("<html>busy</html>".into()) },
        Fault::Stall { ms: 100 },
        Fault::Close,
        Fault::Truncate { bytes: 20 },
        Fault::Drip { bytes: 40, ms: 1 },
        Fault::Garbage,
        Fault::WrongJson,
        Fault::Redirect { to: "http://127.0.0.1:9/".into() },
        Fault::Huge { bytes: 10_000_000_000, chunked: true },
        Fault::Huge { bytes: 10_000_000_000, chunked: false },
    ];
    for fault in faults {
        let scene = Scene::by_hand();
        let primary = scene.primary("p.db");
        scene.node.node().fault(Rule::new(fault.clone(), "/", 2));
        let url = primary.publish(&scene.node.url(), QUICK);
        for (n, path) in ["/cryptarchia/blocks", "/mempool", "/channel"].into_iter().enumerate() {
            primary.run(&format!("INSERT INTO item VALUES({n}, 'x', NULL)"));
            scene.node.node().fault(Rule::new(fault.clone(), path, 1));
            scene.settle(&primary);
        }
        scene.node.node().clear_faults();
        let paths = ["/cryptarchia/info", "/cryptarchia/blocks/", "/cryptarchia/blocks?slot", "/channel"];
        for (n, path) in paths.into_iter().enumerate() {
            let replica = scene.db(&format!("r{n}.db"));
            scene.node.node().fault(Rule::new(fault.clone(), path, 1));
            if let Err(e) = replica.try_pull(&url, "{}") {
                assert!(e.contains("hint:"), "{fault:?}: {e}");
            }
            assert!(scene.node.node().with_faults(|faults| faults.rules.is_empty()), "{fault:?} did not hit {path}");
            replica.pull(&url, "{}");
            assert_eq!(replica.dump(), primary.dump(), "{fault:?} {path}");
        }
        assert_once(&scene.node, channel_of(&url));
    }
}

#[test]
fn t31_t39_posts_that_the_node_loses_are_posted_again_parents_first() {
    let scene = Scene::by_hand();
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), QUICK);
    scene.settle(&primary);
    for n in 0..6 {
        // The parent is lost, the children are alone in the pool, and the next block throws them out.
        scene.node.node().with_faults(|faults| faults.lose_posts = 1);
        for m in 0..3 {
            primary.run(&format!("INSERT INTO item VALUES({n} * 10 + {m}, 'x', NULL)"));
            primary.text("SELECT logos_position()");
        }
        scene.settle(&primary);
    }
    assert_once(&scene.node, channel_of(&url));
    scene.assert_replicates(&primary, &url, "r.db");
}

#[test]
fn an_answer_that_is_lost_after_the_post_took_effect_does_no_harm() {
    let scene = Scene::by_hand();
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), QUICK);
    let rule = Rule { after: true, ..Rule::new(Fault::Status { code: 500, body: None }, "/mempool/add", 2) };
    scene.node.node().fault(rule);
    scene.settle(&primary);
    assert_once(&scene.node, channel_of(&url));
    scene.assert_replicates(&primary, &url, "r.db");
}

#[test]
fn t34_a_copied_database_makes_two_writers_and_the_second_one_stops() {
    let scene = Scene::by_hand();
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), QUICK);
    scene.settle(&primary);
    primary.text("SELECT logos_stop()");
    copy(&primary.path, &scene.path("copy.db"));
    let second = scene.db("copy.db");
    second.run("INSERT INTO item VALUES(1, 'from the copy', NULL)");
    second.publish(&scene.node.url(), MOVED);
    scene.settle(&second);
    second.text("SELECT logos_stop()");
    let entries = assert_once(&scene.node, channel_of(&url));
    primary.run("INSERT INTO item VALUES(1, 'from the original', NULL)");
    primary.publish(&scene.node.url(), QUICK);
    // "Another writer has entry n", or "is ahead", if it looked before its own change was in a message.
    let error = primary.wait_for_error("was copied, or restored from a backup");
    assert!(error.contains("in block"), "{error}");
    assert!(primary.of_status("hint").contains("stop the other writer"));
    scene.node.node().mine(3);
    assert_eq!(assert_once(&scene.node, channel_of(&url)), entries, "the stopped writer sent something");
    scene.assert_replicates(&second, &url, "r.db");
}

#[test]
fn t35_a_restored_backup_finds_the_channel_ahead_and_stops_and_one_command_resumes() {
    let scene = Scene::by_hand();
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), QUICK);
    scene.settle(&primary);
    primary.text("SELECT logos_stop()");
    copy(&primary.path, &scene.path("backup.db"));
    primary.publish(&scene.node.url(), QUICK);
    primary.run("INSERT INTO item VALUES(1, 'after the backup', NULL)");
    scene.settle(&primary);
    primary.text("SELECT logos_stop()");
    for blocks in [0, 10] {
        scene.node.node().mine(blocks);
        let restored = scene.db("backup.db");
        assert_eq!(restored.publish(&scene.node.url(), MOVED), url);
        restored.wait_for_error("is ahead of this database");
        restored.text("SELECT logos_stop()");
    }
    let restored = scene.db("backup.db");
    restored.run("INSERT INTO item VALUES(2, 'on the older state', NULL)");
    restored.publish(&scene.node.url(), MOVED);
    // "Is ahead", or "another writer has entry n", if its own change was in a message by then.
    restored.wait_for_error("was copied, or restored from a backup");
    let hint = restored.of_status("hint");
    assert!(hint.contains("SELECT logos_resync()"), "{hint}");
    let replica = scene.db("r.db");
    replica.pull(&url, "{}");
    assert_ne!(replica.dump(), restored.dump());
    // What is included may still be undone: it is kept, and sent again if need be.
    let entries = assert_once(&scene.node, channel_of(&url));
    restored.text("SELECT logos_resync()");
    scene.node.node().reorganise(2, logos_devnode::Abandoned::Drop).unwrap();
    scene.settle(&restored);
    replica.pull(&url, "{}");
    assert_eq!(replica.dump(), restored.dump());
    scene.assert_replicates(&restored, &url, "late.db");
    assert!(assert_once(&scene.node, channel_of(&url)) > entries);
}

#[test]
fn a_channel_that_somebody_else_took_first_is_refused() {
    let scene = Scene::by_hand();
    let primary = scene.primary("p.db");
    scene.node.node().fault(Rule { times: None, ..Rule::new(Fault::Close, "/", 1) });
    let url = primary.publish(&scene.node.url(), QUICK);
    scene.node.node().write(&[9; 32], channel_of(&url), b"mine now".to_vec(), None, false).unwrap();
    scene.node.node().mine(1);
    scene.node.node().clear_faults();
    let error = primary.wait_for_error("belongs to");
    assert!(error.contains("not to the key of this database"), "{error}");
    assert!(scene.node.node().pending().is_empty());
}

#[test]
fn t37_funds_that_run_out_are_named_and_publishing_goes_on_when_they_are_back() {
    let scene = Scene::with_fees(&[1_000_000_000]);
    let primary = scene.primary("p.db");
    // From the first message on: while one is paid and in no block, the only note is taken, and nobody asks for another.
    scene.node.node().with_faults(|faults| faults.refuse_funds = 3);
    let url = primary.publish(&scene.node.url(), &paying(""));
    primary.run("INSERT INTO item VALUES(1, 'x', NULL)");
    primary.wait_for_error("does not pay");
    assert!(primary.of_status("hint").contains("more funds"));
    scene.settle(&primary);
    scene.assert_replicates(&primary, &url, "r.db");
}

#[test]
fn t37_a_wrong_key_a_missing_key_and_a_low_cap_are_named_with_the_next_step() {
    for (options, says) in [
        (QUICK.to_string(), "asks for fees"),
        (r#"{"poll_ms": 10, "wallet_key": "12"}"#.to_string(), "64 hex digits"),
        (paying("").replace(WALLET, &"05".repeat(32)), "insufficient funds"),
        (paying(r#", "fee_cap": 10"#), "exceeds the maximum"),
    ] {
        let scene = Scene::with_fees(&[1_000_000]);
        let primary = scene.primary("p.db");
        primary.publish(&scene.node.url(), &options);
        let error = primary.wait_for_error(says);
        assert_ne!(primary.of_status("hint"), "NULL", "{error}");
    }
}

#[test]
fn t39_a_wallet_with_one_note_carries_many_messages_one_transaction_at_a_time() {
    let scene = Scene::with_fees(&[1_000_000_000]);
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), &paying(r#", "in_flight": 8"#));
    for n in 0..8 {
        primary.run(&format!("INSERT INTO item VALUES({n}, 'x', NULL)"));
        primary.text("SELECT logos_position()");
    }
    scene.settle(&primary);
    assert_once(&scene.node, channel_of(&url));
    scene.assert_replicates(&primary, &url, "r.db");
}

#[test]
fn fees_are_shown_a_message_and_add_up_to_what_the_wallet_has_spent() {
    let notes = [1_000_000_000, 1_000_000_000, 1_000_000_000];
    let scene = Scene::with_fees(&notes);
    let primary = scene.primary("p.db");
    primary.publish(&scene.node.url(), &paying(""));
    for n in 0..6 {
        primary.run(&format!("INSERT INTO item VALUES({n}, 'x', randomblob(1000))"));
        primary.text("SELECT logos_position()");
    }
    scene.settle(&primary);
    assert_eq!(primary.number("SELECT count(*) FROM logos_log WHERE fee IS NULL OR fee < bytes"), 0);
    let spent = primary.number("SELECT sum(fee) FROM logos_log");
    let url = format!("{}/wallet/{WALLET}/balance", scene.node.url());
    let balance = get(&url)["balance"].as_u64().unwrap();
    assert_eq!(notes.iter().sum::<u64>() - balance, spent as u64);
}

#[test]
fn a_transaction_that_became_too_cheap_is_paid_for_anew_and_keeps_its_entry() {
    let scene = Scene::with_fees(&[1_000_000_000, 1_000_000_000]);
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), &paying(""));
    primary.text("SELECT logos_position()");
    wait_until("a post", || !scene.node.node().pending().is_empty());
    let ids = || primary.text("SELECT group_concat(id) FROM logos_log");
    let before = ids();
    scene.node.node().set_prices(Prices { execution: 10, storage: 10 });
    scene.settle(&primary);
    assert_eq!(ids(), before);
    assert!(!scene.node.node().evictions().is_empty());
    scene.assert_replicates(&primary, &url, "r.db");
}

#[test]
fn a_node_of_june_serves_writer_and_reader() {
    let scene = Scene::new(NodeConfig { k: 3, shape: Shape::June, ..NodeConfig::default() });
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), &paying(""));
    for n in 0..5 {
        primary.run(&format!("INSERT INTO item VALUES({n}, 'x', NULL)"));
        scene.settle(&primary);
    }
    scene.mine_until("finality", || primary.number("SELECT count(*) FROM logos_log WHERE state <> 'final'") == 0);
    scene.assert_replicates(&primary, &url, "r.db");
}

#[test]
fn t41_a_publisher_does_not_go_on_after_a_reset_of_the_network() {
    let scene = Scene::by_hand();
    let primary = scene.primary("p.db");
    primary.publish(&scene.node.url(), QUICK);
    scene.settle(&primary);
    scene.node.node().reset(7).unwrap();
    primary.run("INSERT INTO item VALUES(1, 'x', NULL)");
    primary.wait_for_error("is on another chain");
}

#[test]
fn a_post_is_what_the_example_of_a_real_node_says_by_an_encoder_of_its_own() {
    // Not the product's encoder: the bytes of the transaction are put together here, from PROTOCOL.md section 1.
    let scene = Scene::by_hand();
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), QUICK);
    scene.settle(&primary);
    let tip = scene.node.node().tip();
    let blocks = get(&format!("{}/cryptarchia/blocks/{}", scene.node.url(), tip.id));
    let mut block = blocks;
    while block["transactions"].as_array().unwrap().is_empty() {
        let parent = block["header"]["parent_block"].as_str().unwrap().to_string();
        block = get(&format!("{}/cryptarchia/blocks/{parent}", scene.node.url()));
    }
    let tx = &block["transactions"][0];
    let op = &tx["mantle_tx"]["ops"][0];
    let bytes = |name: &str| hex::decode(op["payload"][name].as_str().unwrap()).unwrap();
    let data = bytes("inscription");
    let mut payload = bytes("channel_id");
    payload.extend((data.len() as u32).to_le_bytes());
    payload.extend(&data);
    payload.extend(bytes("parent"));
    payload.extend(bytes("signer"));
    let id = MsgId(logos_log::crypto::blake2b256(&[&payload]));
    assert_eq!(primary.text("SELECT id FROM logos_log WHERE seq = 1"), id.to_string());
    let mut ops = vec![1, 0x11];
    ops.extend(&payload);
    let hash = logos_log::crypto::blake2b256(&[b"MANTLE_TXHASH_V1", &ops]);
    assert_eq!(tx["mantle_tx"]["hash"].as_str().unwrap(), hex::encode(hash));
    let signature: [u8; 64] =
        hex::decode(tx["ops_proofs"][0]["Ed25519Sig"].as_str().unwrap()).unwrap().try_into().unwrap();
    let signer = logos_log::ids::PublicKey(channel_of(&url).0);
    assert!(logos_log::crypto::verify(&signer, &hash, &signature));
}

#[test]
fn what_somebody_has_to_mend_does_not_end_the_sender() {
    let scene = Scene::by_hand();
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), QUICK);
    scene.settle(&primary);
    scene.node.node().fault(Rule { times: None, ..Rule::new(Fault::Status { code: 401, body: None }, "/", 1) });
    primary.run("INSERT INTO item VALUES(1, 'x', NULL)");
    primary.wait_for_error("does not let us in");
    assert_eq!(primary.of_status("state"), "refused");
    scene.node.node().clear_faults();
    scene.settle(&primary);
    assert_eq!(primary.of_status("error"), "NULL");
    scene.assert_replicates(&primary, &url, "r.db");
}

#[test]
fn a_configuration_by_another_program_is_named_for_what_it_is_and_resync_refuses_it() {
    let stage = Stage::new(3);
    let says = "was reconfigured with the key of this database by another program";
    stage.scene.node.node().configure(&stage.seed, config(&stage.url, &[None])).unwrap();
    stage.scene.node.node().mine(1);
    stage.primary.run("INSERT INTO item VALUES(7, 'x', NULL)");
    let error = stage.primary.wait_for_error(says);
    assert!(error.contains("in block") && stage.primary.of_status("hint").contains("a new channel"), "{error}");
    let resync = || stage.primary.try_text("SELECT logos_resync()").unwrap_err();
    assert!(resync().contains(says), "{}", resync());
    // The replica steps over it, and would go on with whatever followed.
    assert_eq!(stage.replica.pull(&stage.url, "{}"), 0);
    // It is named as well once it is final.
    stage.scene.node.node().mine(5);
    stage.stop();
    stage.primary.publish(&stage.scene.node.url(), QUICK);
    stage.primary.wait_for_error(says);
}

#[test]
fn resync_does_not_overtake_messages_that_are_on_their_way() {
    let scene = Scene::new(NodeConfig { k: 5, ..NodeConfig::default() });
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), QUICK);
    for settled in [false, true] {
        primary.run(&format!("INSERT INTO item VALUES({settled}, 'x', NULL)"));
        let position = primary.text("SELECT logos_position()");
        wait_until("a post", || !scene.node.node().pending().is_empty());
        let error = primary.try_text("SELECT logos_resync()").unwrap_err();
        assert!(error.contains("on their way") && error.contains("logos_flush()"), "{error}");
        assert_eq!(primary.text("SELECT logos_position()"), position);
        scene.settle(&primary);
    }
    primary.text("SELECT logos_resync()");
    scene.settle(&primary);
    assert_once(&scene.node, channel_of(&url));
    scene.assert_replicates(&primary, &url, "r.db");
}

#[test]
fn t37_a_node_that_has_no_wallet_is_not_taken_for_one_without_fees() {
    for code in [404, 405] {
        let scene = Scene::with_fees(&[1_000_000_000]);
        let none = Fault::Status { code, body: None };
        scene.node.node().fault(Rule { times: None, ..Rule::new(none, "/wallet/fund", 1) });
        let primary = scene.primary("p.db");
        let url = primary.publish(&scene.node.url(), &paying(""));
        primary.wait_for_error("has no wallet that pays");
        assert!(scene.node.node().pending().is_empty());
        scene.node.node().clear_faults();
        scene.settle(&primary);
        scene.assert_replicates(&primary, &url, "r.db");
    }
}

#[test]
fn a_proxy_that_cannot_reach_the_wallet_is_not_the_wallets_refusal() {
    for code in [502, 503, 408] {
        let scene = Scene::with_fees(&[1_000_000_000]);
        let away = Fault::Status { code, body: Some("<html>busy</html>".into()) };
        scene.node.node().fault(Rule { times: None, ..Rule::new(away, "/wallet/fund", 1) });
        let primary = scene.primary("p.db");
        primary.publish(&scene.node.url(), &paying(""));
        primary.wait_for_error(&format!("status {code}"));
        assert_eq!(primary.of_status("state"), "offline");
        scene.node.node().clear_faults();
        scene.settle(&primary);
    }
}

#[test]
fn t37_funds_that_are_lacking_for_paying_anew_are_named_too() {
    let scene = Scene::with_fees(&[10_000]);
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), &paying(""));
    primary.text("SELECT logos_position()");
    wait_until("a post", || !scene.node.node().pending().is_empty());
    scene.node.node().set_prices(Prices { execution: 100, storage: 100 });
    scene.mine_until("it is named", || primary.of_status("error").contains("does not pay for entries"));
    // It stays named while it is so, and what was paid is good again when the prices are what they were.
    scene.node.node().mine(1);
    assert!(primary.of_status("error").contains("does not pay for entries"));
    scene.node.node().set_prices(Prices::GENESIS);
    scene.settle(&primary);
    assert_eq!(primary.of_status("error"), "NULL");
    scene.assert_replicates(&primary, &url, "r.db");
}

#[test]
fn t39_a_wallet_without_further_notes_is_not_asked_at_every_look() {
    let notes = vec![1_000_000_000];
    let scene = Scene::new(NodeConfig { k: 60, prices: Prices::GENESIS, notes, ..NodeConfig::default() });
    let primary = scene.primary("p.db");
    primary.publish(&scene.node.url(), &paying(r#", "in_flight": 8"#));
    let node = scene.node.node();
    // Included and not final, these are on their way no longer.
    for n in 0..6 {
        primary.run(&format!("INSERT INTO item VALUES({n}, 'x', NULL)"));
        scene.settle(&primary);
    }
    for n in 10..13 {
        primary.run(&format!("INSERT INTO item VALUES({n}, 'x', NULL)"));
        primary.text("SELECT logos_position()");
    }
    let looks = || node.requests("GET /cryptarchia/info");
    let until = |looked: u64| wait_until("more looks", || looks() > looked + 30);
    wait_until("a post", || !node.pending().is_empty());
    until(looks());
    let asked = node.requests("POST /wallet/fund");
    until(looks());
    assert_eq!(node.requests("POST /wallet/fund"), asked);
    assert_eq!(node.pending().len(), 1);
    scene.settle(&primary);
}
