//! Goal: credentials come from the environment, reach the node, and appear nowhere else.
//! Method: one test in a process of its own, because the environment is the whole process's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use logos_devnode::NodeConfig;
use node_tests::*;

#[test]
fn credentials_come_from_the_environment_and_are_in_no_url_file_or_message() {
    let auth = Some("alice:open sesame".to_string());
    let scene = Scene::new(NodeConfig { k: 3, block_ms: Some(20), auth, ..NodeConfig::default() });
    let primary = scene.primary("p.db");
    let with = scene.node.url().replace("http://", "http://alice:open-sesame@");
    let refused = primary.try_publish(&with, QUICK).unwrap_err().to_string();
    assert!(refused.contains("LOGOS_NODE_PASSWORD") && !refused.contains("sesame"), "{refused}");
    primary.publish(&scene.node.url(), QUICK);
    let error = primary.wait_for_error("does not let us in");
    assert!(!error.contains("sesame"), "{error}");
    primary.text("SELECT logos_stop()");
    std::env::set_var("LOGOS_NODE_USER", "alice");
    std::env::set_var("LOGOS_NODE_PASSWORD", "open sesame");
    let url = primary.publish(&scene.node.url(), QUICK);
    primary.text("SELECT logos_flush()");
    scene.assert_replicates(&primary, &url, "r.db");
    for file in std::fs::read_dir(scene.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"sesame"));
    }
}
