//! What the tests share: a plain HTTP client, the example bodies, and writers of inscriptions.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use logos_devnode::{DevNode, NodeConfig, Prices};
use logos_log::crypto::SigningKey;
use logos_log::entry::{sign_entry, SignedTx};
use logos_log::ids::{ChannelId, MsgId};
use serde_json::Value;

pub const CHANNEL: ChannelId = ChannelId([0xc4; 32]);

pub fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../../ext/log/tests/data/vectors.json")).unwrap()
}

pub fn start(config: NodeConfig) -> DevNode {
    DevNode::start(config).unwrap()
}

pub fn free() -> DevNode {
    start(NodeConfig { k: 3, ..NodeConfig::default() })
}

pub fn with_fees(notes: &[u64]) -> DevNode {
    start(NodeConfig { k: 3, prices: Prices::GENESIS, notes: notes.to_vec(), ..NodeConfig::default() })
}

pub fn key() -> SigningKey {
    SigningKey::from_seed(&[0x11; 32])
}

pub fn entry(parent: MsgId, data: &str) -> (MsgId, SignedTx) {
    let tx = sign_entry(&key(), CHANNEL, parent, data.as_bytes().to_vec());
    let id = tx.inscriptions().next().unwrap().id();
    (id, tx)
}

/// What is on the channel, as text.
pub fn on_channel(node: &DevNode) -> Vec<String> {
    let all = node.node().inscriptions(&CHANNEL);
    all.into_iter().map(|one| String::from_utf8(one.data).unwrap()).collect()
}

pub struct Reply {
    pub status: u16,
    pub content_type: String,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
    config.timeout_global(Some(Duration::from_secs(20))).build().into()
}

fn reply(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Reply, ureq::Error> {
    let mut response = result?;
    Ok(Reply {
        status: response.status().as_u16(),
        content_type: response.body().mime_type().unwrap_or_default().into(),
        text: response.body_mut().read_to_string()?,
    })
}

pub fn try_get(node: &DevNode, path: &str) -> Result<Reply, ureq::Error> {
    reply(agent().get(format!("{}{path}", node.url())).call())
}

pub fn get(node: &DevNode, path: &str) -> Reply {
    try_get(node, path).unwrap()
}

pub fn post_text(node: &DevNode, path: &str, body: &str) -> Reply {
    let request = agent().post(format!("{}{path}", node.url())).content_type("application/json");
    reply(request.send(body)).unwrap()
}

pub fn post(node: &DevNode, path: &str, body: &Value) -> Reply {
    post_text(node, path, &body.to_string())
}

pub fn post_tx(node: &DevNode, tx: &SignedTx) -> Reply {
    post(node, "/mempool/add/tx", &tx.to_json())
}

/// Ask over a bare socket and return all that comes until the connection closes.
pub fn raw(node: &DevNode, request: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(node.url().trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A connection that is reset has still delivered what came before.
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// A stream of lines that has begun.
pub struct Lines(BufReader<ureq::BodyReader<'static>>);

impl Lines {
    pub fn open(node: &DevNode, path: &str) -> Self {
        let response = agent().get(format!("{}{path}", node.url())).call().unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.body().mime_type(), Some("application/x-ndjson"));
        Self(BufReader::new(response.into_body().into_reader()))
    }

    pub fn next(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    pub fn rest(self) -> Vec<Value> {
        self.0.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    }
}
