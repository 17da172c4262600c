//! Goal: a primary and a replica meet on a node. Method: both in this process, the node's chain made block by block.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use logos_devnode::{Abandoned, NodeConfig, Shape};
use node_tests::*;

#[test]
fn a_change_travels_over_the_chain_and_is_pending_then_included_then_final() {
    // Deep enough that nothing is final by the time that it is seen to be included.
    let scene = Scene::new(NodeConfig { k: 200, ..NodeConfig::default() });
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), QUICK);
    assert!(url.starts_with(&format!("{}/channel/", scene.node.url())));
    primary.run("INSERT INTO item VALUES(1, 'lamp', x'00')");
    primary.text("SELECT logos_position()");
    let state = || primary.text("SELECT group_concat(DISTINCT state) FROM logos_log");
    wait_until("a post", || !scene.node.node().pending().is_empty());
    assert_eq!(state(), "pending");
    scene.settle(&primary);
    assert_eq!(state(), "included");
    assert!(primary.number("SELECT min(slot) FROM logos_log") > 0);
    let replica = scene.assert_replicates(&primary, &url, "r.db");
    assert_eq!(replica.number("SELECT count(*) FROM item"), 1);
    scene.node.node().mine(200);
    // The log says it first, the status a moment later.
    wait_until("finality", || primary.of_status("final_position") == primary.of_status("position"));
    assert_eq!(state(), "final");
    assert_once(&scene.node, channel_of(&url));
    assert!(primary.of_status("requests").parse::<u64>().unwrap() > 0);
}

#[test]
fn a_reorganisation_takes_included_back_to_pending_and_the_same_bytes_land_again() {
    for abandoned in [Abandoned::Return, Abandoned::Drop, Abandoned::Keep, Abandoned::Reorder] {
        let scene = Scene::new(NodeConfig { k: 10, ..NodeConfig::default() });
        let primary = scene.primary("p.db");
        let url = primary.publish(&scene.node.url(), QUICK);
        let replica = scene.db("r.db");
        for n in 0..4 {
            primary.run(&format!("INSERT INTO item VALUES({n}, 'n', NULL)"));
            scene.settle(&primary);
        }
        replica.pull(&url, "{}");
        let before: Vec<_> = scene.node.node().inscriptions(&channel_of(&url)).iter().map(|one| one.id()).collect();
        scene.node.node().reorganise(3, abandoned).unwrap();
        assert_eq!(replica.pull(&url, "{}"), 0, "{abandoned:?}");
        primary.run("INSERT INTO item VALUES(100, 'after', NULL)");
        scene.settle(&primary);
        let after: Vec<_> = scene.node.node().inscriptions(&channel_of(&url)).iter().map(|one| one.id()).collect();
        assert_eq!(after[..before.len()], before, "{abandoned:?}");
        assert_once(&scene.node, channel_of(&url));
        replica.pull(&url, "{}");
        assert_eq!(replica.dump(), primary.dump());
        scene.assert_replicates(&primary, &url, "late.db");
    }
}

#[test]
fn t36_a_large_transaction_becomes_parts_that_fit_blocks_old_and_new() {
    for shape in [Shape::August, Shape::June] {
        let scene = Scene::new(NodeConfig { k: 3, shape, ..NodeConfig::default() });
        let primary = scene.primary("p.db");
        let url = primary.publish(&scene.node.url(), QUICK);
        primary.run(
            "WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 12) INSERT INTO item SELECT value, 'x', randomblob(300000) FROM n",
        );
        scene.settle(&primary);
        assert!(primary.number("SELECT max(entries) FROM logos_log") > 6);
        assert_once(&scene.node, channel_of(&url));
        scene.assert_replicates(&primary, &url, "r.db");
    }
}

#[test]
fn t56_offline_for_long_then_back_on_both_sides() {
    let scene = Scene::running();
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), QUICK);
    primary.run("INSERT INTO item VALUES(1, 'one', NULL)");
    primary.text("SELECT logos_flush()");
    let replica = scene.assert_replicates(&primary, &url, "r.db");
    primary.text("SELECT logos_stop()");
    for n in 2..200 {
        primary.run(&format!("INSERT INTO item VALUES({n}, 'offline', NULL)"));
    }
    let height = scene.node.node().tip().height;
    wait_until("blocks without us", || scene.node.node().tip().height > height + 20);
    assert_eq!(primary.publish(&scene.node.url(), QUICK), url);
    primary.text("SELECT logos_flush()");
    replica.pull(&url, "{}");
    assert_eq!(replica.dump(), primary.dump());
    assert_once(&scene.node, channel_of(&url));
}

#[test]
fn messages_that_were_in_flight_when_the_publisher_stopped_are_found_again_and_not_doubled() {
    for mine in [false, true] {
        let scene = Scene::by_hand();
        let primary = scene.primary("p.db");
        let url = primary.publish(&scene.node.url(), QUICK);
        primary.run("INSERT INTO item VALUES(1, 'in flight', NULL)");
        primary.text("SELECT logos_position()");
        wait_until("a post", || !scene.node.node().pending().is_empty());
        primary.text("SELECT logos_stop()");
        if mine {
            scene.node.node().mine(10);
        }
        primary.run("INSERT INTO item VALUES(2, 'later', NULL)");
        primary.publish(&scene.node.url(), QUICK);
        scene.settle(&primary);
        assert_once(&scene.node, channel_of(&url));
        scene.assert_replicates(&primary, &url, "r.db");
    }
}

#[test]
fn confirm_final_applies_only_what_is_irreversible() {
    let scene = Scene::new(NodeConfig { k: 4, ..NodeConfig::default() });
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), QUICK);
    scene.settle(&primary);
    let replica = scene.db("r.db");
    assert_eq!(replica.pull(&url, r#"{"confirm": "final"}"#), 0);
    scene.node.node().mine(4);
    assert!(replica.pull(&url, r#"{"confirm": "final"}"#) > 0);
    assert_eq!(replica.dump(), primary.dump());
}

#[test]
fn a_follower_in_the_background_keeps_up() {
    let scene = Scene::running();
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), QUICK);
    primary.text("SELECT logos_flush()");
    let replica = scene.db("r.db");
    replica.pull(&url, r#"{"follow": true, "poll_ms": 5}"#);
    for n in 0..50 {
        primary.run(&format!("INSERT INTO item VALUES({n}, 'x', NULL)"));
    }
    let position = primary.text("SELECT logos_flush()");
    assert_eq!(replica.number(&format!("SELECT logos_wait('{position}', 60)")), 1, "{}", replica.status());
    assert_eq!(replica.dump(), primary.dump());
}

#[test]
fn any_node_of_the_same_chain_will_do() {
    let folder = tempfile::tempdir().unwrap();
    let (state, copy) = (folder.path().join("node"), folder.path().join("other"));
    let config = |state| NodeConfig { k: 3, state: Some(state), ..NodeConfig::default() };
    let scene = Scene::new(config(state.clone()));
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), QUICK);
    primary.run("INSERT INTO item VALUES(1, 'on the first node', NULL)");
    scene.settle(&primary);
    scene.node.node().mine(4);
    let replica = scene.assert_replicates(&primary, &url, "r.db");
    primary.run("INSERT INTO item VALUES(2, 'read from the second', NULL)");
    scene.settle(&primary);
    primary.text("SELECT logos_stop()");
    std::fs::copy(&state, &copy).unwrap();
    let other = Scene::new(config(copy));
    assert_eq!(other.node.node().tip().id, scene.node.node().tip().id);
    let moved = url.replace(&scene.node.url(), &other.node.url());
    assert_eq!(replica.pull(&moved, "{}"), 1);
    assert_eq!(replica.dump(), primary.dump());
    // And the publisher goes on there, on the same channel.
    assert_eq!(primary.publish(&other.node.url(), QUICK), moved);
    primary.run("INSERT INTO item VALUES(3, 'sent to the second', NULL)");
    other.settle(&primary);
    replica.pull(&moved, "{}");
    assert_eq!(replica.dump(), primary.dump());
    assert_once(&other.node, channel_of(&url));
}

#[test]
fn an_unknown_option_and_a_node_without_a_channel_are_refused() {
    let scene = Scene::by_hand();
    let primary = scene.primary("p.db");
    for options in [r#"{"walet_key": "00"}"#, r#"{"confirm": "final"}"#] {
        assert!(primary.try_publish(&scene.node.url(), options).unwrap_err().to_string().contains("unknown field"));
    }
    assert!(scene.db("r.db").try_pull("http://127.0.0.1:9", "{}").unwrap_err().contains("no channel on it"));
}
