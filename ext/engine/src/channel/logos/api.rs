//! Requests to a node: every one timed, bounded and counted, and every failure a sentence.
//!
//! Invariants
//! - No answer takes more memory than its bound, however long or slow it is. None is unpacked: compression is neither offered nor
//!   accepted.
//! - Redirects are not followed: credentials go where the user said and nowhere else.
//! - Credentials come from `LOGOS_NODE_USER` and `LOGOS_NODE_PASSWORD` and appear in no error.
//! - "Not there" (404) is told from "cannot be asked now".
//!
//! Proxies: as ureq takes them from the environment (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY).

use std::io::Read;
use std::sync::mpsc;
use std::time::Duration;

use base64::prelude::{Engine, BASE64_STANDARD as BASE64};
use logos_log::entry::{Op, SignedTx};
use logos_log::ids::{ChannelId, TxHash};
use serde::de::DeserializeOwned;
use serde_json::json;
use ureq::http::Response;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body};

use super::shape::{self, Block, BlockId, ChannelState, GasPrices, Info, Time};
use crate::error::{Error, Result};
use crate::host::threads;

/// Largest answer with blocks: a full one is about 4 MiB in hex.
const BLOCKS_BYTES: u64 = 16 * 1024 * 1024;

/// Largest other answer.
const ANSWER_BYTES: u64 = 4 * 1024 * 1024;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Funding proves a transfer, which takes a node seconds.
const TIMEOUT_FUND: Duration = Duration::from_secs(120);
const TIMEOUT_CONNECT: Duration = Duration::from_secs(10);

/// One node, asked by one thread.
pub struct Api {
    base: String,
    agent: Agent,
    authorization: Option<String>,
    requests: u64,
}

/// An answer that came through.
struct Answer {
    status: u16,
    bytes: Vec<u8>,
}

/// A range of blocks, or too many of them for one answer.
pub enum Range {
    /// The blocks, and the size of the answer.
    Blocks(Vec<Block>, usize),
    /// Ask for less.
    TooLarge,
}

/// What became of a request for funds.
pub enum Funds {
    /// The operations with the transfer behind them, its proof, and the block at which it is good.
    Paid(Vec<Op>, logos_log::entry::Proof, BlockId),
    /// Nothing is to be paid.
    Free,
    /// The node has no wallet that pays.
    NoWallet,
    /// The wallet refuses, in the node's words.
    Refused(String),
}

impl Api {
    /// A client; nothing is asked yet.
    pub fn new(base: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(TIMEOUT))
            .timeout_connect(Some(TIMEOUT_CONNECT))
            .user_agent(concat!("sqlite-logos/", env!("CARGO_PKG_VERSION")));
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let authorization = variable("LOGOS_NODE_USER").map(|user| {
            let password = variable("LOGOS_NODE_PASSWORD").unwrap_or_default();
            format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
        });
        Self {
            base: base.into(),
            agent: Agent::with_parts(config.build(), DefaultConnector::default(), Lookup),
            authorization,
            requests: 0,
        }
    }

    /// Where it is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Requests made so far.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    fn failed(&self, path: &str, why: &str) -> Error {
        Error::retry(
            format!("asking {}{path} failed: {why}", self.base),
            "nothing was lost and the position is kept; it is tried again, check that the node runs and can be reached",
        )
    }

    /// An answer that is not what the protocol says.
    fn strange(&self, path: &str, why: &str) -> Error {
        Error::retry(
            format!("{}{path} answered something that a Logos node does not: {why}", self.base),
            "nothing was applied and the position is kept; it is asked again, check that the URL is that of a node and not of \
             something before it",
        )
    }

    fn refused(&self, path: &str, answer: &Answer) -> Error {
        let why = shape::complaint(&answer.bytes);
        match answer.status {
            401 | 403 => Error::fix(
                format!("{} does not let us in (status {})", self.base, answer.status),
                "nothing was lost; set LOGOS_NODE_USER and LOGOS_NODE_PASSWORD in the environment of this process and start again",
            ),
            status @ 300..=399 => Error::retry(
                format!("{}{path} sends us somewhere else (status {status}), and redirects are not followed", self.base),
                "nothing was lost; give the URL of the node itself",
            ),
            status => self.failed(path, &format!("status {status}: {why}")),
        }
    }

    /// `None`: larger than the bound.
    fn read(
        &self,
        path: &str,
        response: std::result::Result<Response<Body>, ureq::Error>,
        bound: u64,
    ) -> Result<Option<Answer>> {
        let mut response = response.map_err(|e| self.failed(path, &reason(&e)))?;
        let status = response.status().as_u16();
        let encoding = response.headers().get("content-encoding").filter(|encoding| !encoding.is_empty());
        if let Some(encoding) = encoding.filter(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(
                self.strange(path, &format!("a body packed as {encoding:?} (status {status}), which was not offered"))
            );
        }
        let mut bytes = Vec::new();
        let read = response.body_mut().as_reader().take(bound + 1).read_to_end(&mut bytes);
        read.map_err(|e| self.failed(path, &reason(&e.into())))?;
        Ok((bytes.len() as u64 <= bound).then_some(Answer { status, bytes }))
    }

    fn too_large(&self, path: &str, bound: u64) -> Error {
        self.strange(path, &format!("more than {bound} bytes"))
    }

    /// `None`: larger than the bound.
    fn get_bounded(&mut self, path: &str, bound: u64) -> Result<Option<Answer>> {
        self.requests += 1;
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        self.read(path, request.call(), bound)
    }

    fn get(&mut self, path: &str) -> Result<Answer> {
        self.get_bounded(path, ANSWER_BYTES)?.ok_or_else(|| self.too_large(path, ANSWER_BYTES))
    }

    fn post(&mut self, path: &str, body: &serde_json::Value, timeout: Duration) -> Result<Answer> {
        self.requests += 1;
        let mut request = self.agent.post(format!("{}{path}", self.base)).content_type("application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let request = request.config().timeout_global(Some(timeout)).build();
        let answer = self.read(path, request.send(body.to_string()), ANSWER_BYTES)?;
        answer.ok_or_else(|| self.too_large(path, ANSWER_BYTES))
    }

    fn parsed<T: DeserializeOwned>(&self, path: &str, answer: &Answer) -> Result<T> {
        match answer.status {
            200 => serde_json::from_slice(&answer.bytes).map_err(|e| self.strange(path, &e.to_string())),
            _ => Err(self.refused(path, answer)),
        }
    }

    /// The same for a call that some nodes do not have.
    fn optional<T: DeserializeOwned>(&mut self, path: &str) -> Result<Option<T>> {
        let answer = self.get(path)?;
        match answer.status {
            404 | 405 => Ok(None),
            _ => self.parsed(path, &answer).map(Some),
        }
    }

    /// Tip, last irreversible block, and how the node is.
    pub fn info(&mut self) -> Result<Info> {
        let answer = self.get("/cryptarchia/info")?;
        self.parsed("/cryptarchia/info", &answer)
    }

    /// Length of a slot.
    pub fn time(&mut self) -> Result<Option<Time>> {
        self.optional("/time/info")
    }

    /// What gas costs; nodes of June 2026 have no prices.
    pub fn prices(&mut self) -> Result<Option<GasPrices>> {
        self.optional("/mantle/gas-prices")
    }

    /// The channel at the tip; nothing if there is no such channel, which is said in several ways.
    pub fn channel(&mut self, id: ChannelId) -> Result<Option<ChannelState>> {
        let path = format!("/channel/{id}");
        let answer = self.get(&path)?;
        if answer.status != 200 && shape::complaint(&answer.bytes).to_ascii_lowercase().contains("channel not found") {
            return Ok(None);
        }
        self.parsed(&path, &answer).map(Some)
    }

    /// One block of any branch; nothing if the node does not have it.
    pub fn block(&mut self, id: BlockId, channel: ChannelId) -> Result<Option<Block>> {
        let path = format!("/cryptarchia/blocks/{id}");
        let answer = self.get_bounded(&path, BLOCKS_BYTES)?.ok_or_else(|| self.too_large(&path, BLOCKS_BYTES))?;
        match answer.status {
            200 => {}
            404 => return Ok(None),
            // June 2026 says it in words.
            _ if shape::complaint(&answer.bytes).to_ascii_lowercase().contains("not found") => return Ok(None),
            _ => return Err(self.refused(&path, &answer)),
        }
        let block = shape::block(&answer.bytes, channel).map_err(|why| self.strange(&path, &why))?;
        match block.id == id {
            true => Ok(Some(block)),
            false => Err(self.strange(&path, &format!("it is block {}", block.id))),
        }
    }

    /// The irreversible blocks of a range of slots, both ends included, as far as the node has them.
    pub fn blocks(&mut self, from: u64, to: u64, channel: ChannelId) -> Result<Range> {
        // The node computes with unsigned numbers here.
        if from > to {
            return Ok(Range::Blocks(Vec::new(), 0));
        }
        let path = format!("/cryptarchia/blocks?slot_from={from}&slot_to={to}");
        let Some(answer) = self.get_bounded(&path, BLOCKS_BYTES)? else { return Ok(Range::TooLarge) };
        if answer.status != 200 {
            return Err(self.refused(&path, &answer));
        }
        let blocks = shape::blocks(&answer.bytes, channel).map_err(|why| self.strange(&path, &why))?;
        Ok(Range::Blocks(blocks, answer.bytes.len()))
    }

    /// Transactions that wait in this node; nothing if it does not say, or they are too many to be told.
    pub fn pool(&mut self) -> Result<Option<Vec<TxHash>>> {
        let path = "/mempool/view";
        let Some(answer) = self.get_bounded(path, ANSWER_BYTES)? else { return Ok(None) };
        match answer.status {
            200 => shape::hashes(&answer.bytes).map(Some).map_err(|why| self.strange(path, &why)),
            404 | 405 => Ok(None),
            _ => Err(self.refused(path, &answer)),
        }
    }

    /// Hands a transaction to the node. That it is taken means only that it is well formed.
    pub fn add(&mut self, tx: &SignedTx) -> Result<()> {
        let path = "/mempool/add/tx";
        let answer = self.post(path, &tx.to_json(), TIMEOUT)?;
        match answer.status {
            200..=299 => Ok(()),
            400 | 413 | 415 | 422 => Err(Error::retry(
                format!("{} refuses our transaction: {}", self.base, shape::complaint(&answer.bytes)),
                "nothing was lost; the node may be of a version that this build does not know: try another, or upgrade",
            )),
            _ => Err(self.refused(path, &answer)),
        }
    }

    /// Asks the node's wallet to pay for these operations.
    pub fn fund(&mut self, ops: &[Op], wallet: &str, cap: u64, percent: u64) -> Result<Funds> {
        let path = "/wallet/fund";
        let body = json!({
            "tip": null,
            "tx_builder": {
                "mantle_tx": {"ops": ops.iter().map(Op::to_json).collect::<Vec<_>>()},
                "ledger_inputs": [],
                "pending_transfer": {"inputs": [], "outputs": []},
                "channel_multi_sig_proofs": {},
            },
            "change_public_key": wallet,
            "funding_public_keys": [wallet],
            "max_tx_fee": cap,
            "priority_fee_percent": percent,
        });
        let answer = self.post(path, &body, TIMEOUT_FUND)?;
        match answer.status {
            200 => {}
            404 | 405 => return Ok(Funds::NoWallet),
            // Whoever stands before the node, or a node that has no time.
            401 | 403 | 408 | 429 => return Err(self.refused(path, &answer)),
            400..=500 if !answer.bytes.is_empty() => return Ok(Funds::Refused(shape::complaint(&answer.bytes))),
            _ => return Err(self.refused(path, &answer)),
        }
        let (tip, funded, proof) = shape::funded(&answer.bytes).map_err(|why| self.strange(path, &why))?;
        let kept = funded.get(..ops.len()) == Some(ops);
        match (kept, &funded[ops.len().min(funded.len())..], proof) {
            (true, [], None) => Ok(Funds::Free),
            (true, [Op::Transfer(_)], Some(proof)) => Ok(Funds::Paid(funded, proof, tip)),
            _ => Err(self.strange(path, "the operations came back changed; they were not signed")),
        }
    }

    /// The values of a wallet's notes at a block.
    pub fn notes(&mut self, wallet: &str, tip: BlockId) -> Result<Vec<([u8; 32], u64)>> {
        let path = format!("/wallet/{wallet}/balance?tip={tip}");
        let answer = self.get(&path)?;
        match answer.status {
            200 => shape::notes(&answer.bytes).map_err(|why| self.strange(&path, &why)),
            _ => Err(self.refused(&path, &answer)),
        }
    }
}

/// Looks names up as ureq does, which cannot be given up in time but from another thread; that one is started as all of ours are.
#[derive(Debug)]
struct Lookup;

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> std::result::Result<ResolvedSocketAddrs, ureq::Error> {
        let (sender, found) = mpsc::sync_channel(1);
        let (uri, config) = (uri.clone(), config.clone());
        // Without a timeout of its own it starts no thread.
        let look = move || drop(sender.send(DefaultResolver::default().resolve(&uri, &config, NextTimeout::default())));
        threads::spawn("logos-lookup", look).map_err(|e| ureq::Error::Io(std::io::Error::other(e.message)))?;
        found.recv_timeout(*timeout.after).unwrap_or(Err(ureq::Error::Timeout(timeout.reason)))
    }
}

/// A cause without the words that ureq puts around it.
fn reason(e: &ureq::Error) -> String {
    match e {
        ureq::Error::Timeout(_) => "it took too long".into(),
        ureq::Error::HostNotFound => "the host is unknown".into(),
        ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::TimedOut => "it took too long".into(),
        ureq::Error::Io(e) => e.to_string(),
        e => e.to_string(),
    }
}
