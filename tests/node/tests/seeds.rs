//! Goal: after any mixture of faults the replica equals the primary and nothing is on the channel twice.
//! Method: 200 seeds; each decides on fifty steps (writes, blocks, reorganisations, lost posts, wire faults, blocks
//! withheld for a while, restarts, fees), then everything is healed and compared.
//!
//! One seed: LOGOS_SEED=17 cargo test --manifest-path tests/node/Cargo.toml --test seeds
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use logos_devnode::{Abandoned, Fault, Node, NodeConfig, Prices, Rule, Shape};
use node_tests::*;

const SEEDS: u64 = 200;

struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

fn wire_fault(dice: &mut Dice) -> Fault {
    match dice.roll(9) {
        0 => Fault::Status { code: 500, body: None },
        1 => Fault::Stall { ms: 5 },
        2 => Fault::Close,
        3 => Fault::Truncate { bytes: dice.roll(300) as usize },
        4 => Fault::Drip { bytes: 100, ms: 1 },
        5 => Fault::Garbage,
        6 => Fault::WrongJson,
        7 => Fault::Redirect { to: "http://127.0.0.1:9/".into() },
        _ => Fault::Huge { bytes: 20_000_000, chunked: dice.roll(2) == 0 },
    }
}

fn abandoned(dice: &mut Dice) -> Abandoned {
    [Abandoned::Return, Abandoned::Drop, Abandoned::Keep, Abandoned::Reorder][dice.roll(4) as usize]
}

fn disturb(dice: &mut Dice, node: &Node) {
    match dice.roll(6) {
        0 | 1 => {
            let depth = node.tip().height - node.lib().height;
            if depth > 0 {
                node.reorganise(1 + dice.roll(depth), abandoned(dice)).unwrap();
            }
        }
        2 => node.with_faults(|faults| faults.lose_posts += 1),
        3 => node.with_faults(|faults| faults.refuse_funds += 1),
        4 => {
            let path = ["/", "/cryptarchia", "/mempool", "/channel", "/wallet"][dice.roll(5) as usize];
            node.fault(Rule { after: dice.roll(2) == 0, ..Rule::new(wire_fault(dice), path, 1 + dice.roll(2)) });
        }
        _ => {
            let tip = node.tip().id.0;
            match dice.roll(2) {
                0 => node.withhold(tip),
                _ => node.with_faults(|faults| faults.withheld.clear()),
            }
        }
    }
}

fn write(dice: &mut Dice, primary: &Db, step: u64) {
    let id = dice.roll(20);
    match dice.roll(5) {
        0 => primary.run(&format!("DELETE FROM item WHERE id = {id}")),
        1 => primary.run(&format!("UPDATE item SET name = 'step {step}' WHERE id <= {id}")),
        2 => primary.run(&format!("REPLACE INTO item VALUES({id}, 'large', zeroblob(1000))")),
        3 => primary.run(&format!("CREATE TABLE IF NOT EXISTS t{id}(a, b); INSERT INTO t{id} VALUES({step}, 1.5)")),
        _ => primary.run(&format!("REPLACE INTO item VALUES({id}, 'step {step}', randomblob(100))")),
    }
}

fn run(seed: u64) {
    let mut dice = Dice(seed);
    let fees = dice.roll(2) == 0;
    let config = NodeConfig {
        k: 2 + dice.roll(5),
        prices: if fees { Prices::GENESIS } else { Prices::FREE },
        notes: vec![1_000_000_000; 1 + dice.roll(4) as usize],
        shape: if !fees && dice.roll(3) == 0 { Shape::June } else { Shape::August },
        ..NodeConfig::default()
    };
    let options = format!(
        r#"{{"poll_ms": 5, "batch_ms": 0, "in_flight": {}, "wallet_key": "{}"}}"#,
        1 + dice.roll(5),
        "07".repeat(32)
    );
    let scene = Scene::new(config);
    let node = scene.node.node();
    let primary = scene.primary("p.db");
    let url = primary.publish(&scene.node.url(), &options);
    let replica = scene.db("r.db");
    let confirm = if dice.roll(4) == 0 { r#"{"confirm": "final"}"# } else { "{}" };
    for step in 0..50 {
        match dice.roll(10) {
            0..=2 => write(&mut dice, &primary, step),
            3 => drop(primary.text("SELECT logos_position()")),
            4 => drop(node.mine(1 + dice.roll(2))),
            5..=7 => disturb(&mut dice, node),
            8 => drop(replica.try_pull(&url, confirm)),
            _ if dice.roll(3) == 0 => {
                primary.text("SELECT logos_stop()");
                primary.publish(&scene.node.url(), &options);
            }
            _ => std::thread::sleep(std::time::Duration::from_millis(dice.roll(20))),
        }
    }
    node.clear_faults();
    // A back-off may be long by now; who publishes anew begins anew.
    primary.text("SELECT logos_stop()");
    primary.publish(&scene.node.url(), &options);
    scene.settle(&primary);
    let position = primary.text("SELECT logos_position()");
    scene.mine_until("the replica's position", || {
        replica.pull(&url, confirm);
        replica.of_status("position") == position
    });
    assert_eq!(replica.dump(), primary.dump());
    scene.assert_replicates(&primary, &url, "late.db");
    assert_once(&scene.node, channel_of(&url));
}

#[test]
fn two_hundred_mixtures_of_faults_end_with_equal_databases_and_nothing_twice() {
    if let Ok(seed) = std::env::var("LOGOS_SEED") {
        return run(seed.parse().unwrap());
    }
    let next = std::sync::atomic::AtomicU64::new(0);
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| loop {
                let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if seed >= SEEDS {
                    return;
                }
                if std::panic::catch_unwind(|| run(seed)).is_err() {
                    failed.lock().unwrap().push(seed);
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    for seed in &failed {
        println!("LOGOS_SEED={seed} cargo test --manifest-path tests/node/Cargo.toml --test seeds");
    }
    assert!(failed.is_empty(), "{} of {SEEDS} seeds failed: {failed:?}", failed.len());
}
