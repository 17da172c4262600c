//! Goal: a proxy that the environment names is asked for the node, and NO_PROXY excepts from it.
//! Method: one test in a process of its own, because the environment is the whole process's; the proxy is a socket that notes what it
//! is asked for and passes nothing on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::sync::mpsc;

use node_tests::*;

#[test]
fn a_proxy_of_the_environment_is_asked_and_no_proxy_excepts() {
    let scene = Scene::running();
    let node = scene.node.url();
    let primary = scene.primary("p.db");
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    std::env::set_var("HTTP_PROXY", format!("http://{}", proxy.local_addr().unwrap()));
    let (asked, questions) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in proxy.incoming() {
            let mut line = String::new();
            BufReader::new(stream.unwrap()).read_line(&mut line).unwrap();
            let _ = asked.send(line);
        }
    });
    primary.publish(&node, QUICK);
    let question = questions.recv_timeout(PATIENCE).unwrap();
    assert!(question.contains(node.strip_prefix("http://").unwrap()), "{question}");
    primary.wait_for_error("failed");
    primary.text("SELECT logos_stop()");
    std::env::set_var("NO_PROXY", "127.0.0.1");
    let url = primary.publish(&node, QUICK);
    primary.text("SELECT logos_flush()");
    scene.assert_replicates(&primary, &url, "r.db");
}
