//! Goal: a primary killed at any moment while it publishes through a node loses nothing and sends nothing twice (T2 over a node).
//! Method: the stock shell publishes and writes, and gets SIGKILL after a random time; blocks keep coming, some undone. Then
//! everything is compared.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use logos_devnode::Abandoned;
use node_tests::*;

const ROUNDS: u64 = 30;

/// Publishes and writes until it is killed.
fn killed_after(pause: Duration, database: &std::path::Path, node: &str, round: u64) {
    let mut shell = Command::new("sqlite3")
        .args(["-batch", "-init", "/dev/null"])
        .arg(database)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the sqlite3 shell");
    let mut input = shell.stdin.take().unwrap();
    let mut script = format!(".load '{}'\nSELECT logos_publish('{node}', '{QUICK}');\n", extension().display());
    for n in 0..2_000 {
        script.push_str(&format!("INSERT INTO item VALUES(NULL, 'round {round}, {n}', randomblob({}));\n", n % 50));
        script.push_str(&format!("UPDATE item SET name = name || '!' WHERE id % 40 = {};\n", n % 40));
    }
    // Fails when the shell is killed before it has read all.
    let writer = std::thread::spawn(move || drop(input.write_all(script.as_bytes())));
    std::thread::sleep(pause);
    shell.kill().unwrap();
    shell.wait().unwrap();
    writer.join().unwrap();
}

#[test]
fn t2_a_primary_killed_thirty_times_over_a_node_loses_nothing_and_sends_nothing_twice() {
    let scene = Scene::running();
    let path = scene.primary("p.db").path;
    let mut random: u64 = 1;
    for round in 0..ROUNDS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        killed_after(Duration::from_millis(5 + (random >> 33) % 300), &path, &scene.node.url(), round);
        if round % 7 == 3 {
            scene.node.node().reorganise(1, Abandoned::Return).unwrap();
        }
    }
    let primary = scene.db("p.db");
    let url = primary.publish(&scene.node.url(), QUICK);
    primary.text("SELECT logos_flush(100)");
    let replica = scene.assert_replicates(&primary, &url, "r.db");
    assert!(
        replica.number("SELECT count(DISTINCT substr(name, 1, 8)) FROM item") > 5,
        "hardly any round wrote anything"
    );
    assert!(assert_once(&scene.node, channel_of(&url)) > 20);
}
