//! The node: chain, pool and wallet under one lock, and everything that tests may do to them.
//!
//! Invariants
//! - Every change of the preferred branch puts the abandoned transactions back into the pool and takes the adopted
//!   ones out; subscribers hear of every block, on side branches too.
//! - Time is simulated: slots pass when blocks are made (or when a test says so), never by themselves.
//! - Rules are bent only where a method says so: [`Node::forge`], and what `faults` holds.
//!
//! Not here: HTTP (`http`, `server`), the rules themselves (`ledger`, `chain`, `mempool`, `wallet`).

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use logos_log::crypto::{blake2b256, SigningKey};
use logos_log::entry::{sign_ops, ChannelConfig, Inscription, Op, Proof, SignedTx, Transfer};
use logos_log::error::LogError;
use logos_log::ids::{ChannelId, MsgId, PublicKey, TxHash};
use serde::Deserialize;

use crate::answers;
use crate::chain::{Block, BlockId, Chain, Tx};
use crate::clock::Clock;
use crate::config::{NodeConfig, SlotGap};
use crate::faults::{take_one, Counters, Faults, Rule};
use crate::journal::{Happened, Journal};
use crate::ledger::{transfer_proof, Channel, Ledger, Prices, Refusal};
use crate::mempool::{Assembly, Mempool};
use crate::streams::Hub;
use crate::wallet::{FundRequest, Wallet};

/// Evictions that are remembered for tests to look at.
const EVICTIONS_MAX: usize = 1000;

/// Everything that changes.
pub(crate) struct State {
    pub(crate) chain: Chain,
    pub(crate) pool: Mempool,
    pub(crate) wallet: Wallet,
    pub(crate) prices: Prices,
    pub(crate) faults: Faults,
    pub(crate) counters: Counters,
    pub(crate) evictions: VecDeque<(TxHash, Refusal)>,
    clock: Clock,
    entropy: u64,
    forged: Vec<Arc<Tx>>,
    journal: Option<Journal>,
}

impl State {
    fn begin(config: &NodeConfig, genesis: u64) -> Result<Self, String> {
        let block = Block::genesis(genesis, Tx::new(genesis_tx(config, genesis)));
        Ok(Self {
            chain: Chain::new(config.k, config.online, block).map_err(|refusal| refusal.to_string())?,
            pool: Mempool::default(),
            wallet: Wallet::default(),
            prices: config.prices,
            faults: Faults::default(),
            counters: Counters::default(),
            evictions: VecDeque::new(),
            clock: Clock { slot: 0, random: genesis },
            entropy: 0,
            forged: Vec::new(),
            journal: None,
        })
    }

    /// Put a block into the tree and set the pool right. Returns what became final.
    fn attach(&mut self, block: Arc<Block>, ledger: Arc<Ledger>) -> Result<Vec<Arc<Block>>, String> {
        self.entropy = self.entropy.max(block.entropy);
        self.clock.slot = self.clock.slot.max(block.slot);
        let change = self.chain.attach(block, ledger)?;
        let adopted: HashSet<TxHash> = change.adopted.iter().map(|tx| tx.hash).collect();
        for tx in change.abandoned.into_iter().filter(|tx| !tx.forged && !adopted.contains(&tx.hash)) {
            self.pool.add(tx);
        }
        self.pool.remove(&adopted);
        Ok(change.finalized)
    }

    fn record(&mut self, happened: impl FnOnce() -> Happened) {
        if let Some(journal) = &mut self.journal {
            if let Err(error) = journal.write(&happened()) {
                eprintln!("logos-devnode: the state file cannot be written: {error}");
            }
        }
    }

    fn flush(&mut self) {
        if let Some(Err(error)) = self.journal.as_mut().map(Journal::flush) {
            eprintln!("logos-devnode: the state file cannot be written: {error}");
        }
    }

    fn replay(&mut self, happened: Happened, config: &NodeConfig) -> Result<(), String> {
        let tx = |json: &serde_json::Value| SignedTx::from_json(json).map_err(|error| error.to_string());
        match happened {
            Happened::Genesis(genesis) => *self = Self::begin(config, genesis)?,
            Happened::Block { parent, slot, entropy, prices, txs } => {
                let txs = txs.iter().map(|(json, forged)| match (tx(json), forged) {
                    (signed, false) => signed.map(Tx::new),
                    (Ok(signed), true) => Ok(Tx::forged(signed)),
                    (Err(_), true) => Ok(Tx::foreign(json.clone())),
                });
                let parent = parse_id(&parent).and_then(|id| self.chain.block(&BlockId(id)));
                let parent = parent.ok_or("a block without its parent")?;
                let block = Block::after(parent, slot, entropy, txs.collect::<Result<_, _>>()?);
                let prices = Prices { execution: prices.0, storage: prices.1 };
                let ledger = self.chain.replay(&block, &prices)?;
                self.attach(block, ledger)?;
                self.prices = prices;
            }
            Happened::Pending(json) => {
                self.pool.add(Tx::new(tx(&json)?));
            }
            Happened::Evicted(hashes) => {
                self.pool.remove(&hashes.iter().filter_map(|hash| parse_id(hash)).map(TxHash).collect());
            }
            Happened::Online(online) => {
                self.chain.set_online(online);
            }
        }
        Ok(())
    }

    /// The newest message of a channel, pending ones included.
    fn pending_tip(&self, channel: ChannelId) -> MsgId {
        let mut tip = self.chain.tip_ledger().channels.get(&channel).map_or(MsgId::ROOT, |channel| channel.tip);
        let inscriptions = || self.pool.pending().iter().flat_map(|tx| tx.signed.inscriptions());
        while let Some(next) = inscriptions().find(|next| next.channel == channel && next.parent == tip) {
            tip = next.id();
        }
        tip
    }
}

/// Creates the notes, and a channel of its own as real genesis blocks do.
fn genesis_tx(config: &NodeConfig, genesis: u64) -> SignedTx {
    let key = SigningKey::from_seed(&blake2b256(&[b"devnode genesis"]));
    let inscription = Inscription {
        channel: ChannelId(key.public_key().0),
        data: format!("genesis {genesis}").into_bytes(),
        parent: MsgId::ROOT,
        signer: key.public_key(),
    };
    // The faucet's note has the largest value there is: whoever reads values as floats will notice.
    let mut outputs = vec![(u64::MAX, [0xfa; 32])];
    outputs.extend(config.notes.iter().take(200).map(|value| (*value, config.wallet)));
    let ops = vec![Op::Inscribe(inscription), Op::Transfer(Transfer { inputs: Vec::new(), outputs })];
    let hash = SignedTx { ops: ops.clone(), proofs: Vec::new() }.hash();
    sign_ops(&key, ops, Some(transfer_proof(hash)))
}

/// A transaction as the state file has it.
fn stored(tx: &Tx) -> serde_json::Value {
    tx.shown.clone().unwrap_or_else(|| tx.signed.to_json())
}

/// 32 bytes in hex of either case, with or without 0x.
pub fn parse_id(text: &str) -> Option<[u8; 32]> {
    let mut id = [0; 32];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut id).ok().map(|()| id)
}

/// What happens to the transactions of abandoned blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Abandoned {
    /// They go back to the pool, as in a real node: the next block may have them.
    Return,
    /// They are forgotten.
    Drop,
    /// The new branch has them in its first block.
    Keep,
    /// The new branch has them in its last block, as far as the rules allow in reverse order of arrival.
    Reorder,
}

/// Why a posted transaction is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostRefused {
    /// 422: proofs or signatures are wrong.
    Unprocessable(String),
    /// 500: it can never fit a block.
    TooLarge(String),
}

/// An inscription that breaks the rules; see [`Node::forge_inscription`].
#[derive(Clone, Debug)]
pub struct Forgery {
    /// The channel.
    pub channel: ChannelId,
    /// Seed of the key that signs.
    pub seed: [u8; 32],
    /// What it says.
    pub data: Vec<u8>,
    /// Its parent; none = the tip of the channel.
    pub parent: Option<MsgId>,
    /// Who it says has signed; none = who signs.
    pub signer: Option<PublicKey>,
    /// Spoil the signature.
    pub corrupt: bool,
}

/// A node.
pub struct Node {
    config: NodeConfig,
    state: Mutex<State>,
    genesis_time_ms: u64,
    pub(crate) block_events: Hub,
    pub(crate) lib_events: Hub,
}

impl Node {
    /// A node at genesis, or where its state file says.
    pub fn new(config: NodeConfig) -> io::Result<Self> {
        let mut state = State::begin(&config, config.genesis).map_err(io::Error::other)?;
        if let Some(path) = &config.state {
            let (mut journal, happened) = Journal::open(path)?;
            if happened.is_empty() {
                journal.write(&Happened::Genesis(config.genesis))?;
                journal.flush()?;
            }
            for (line, happened) in happened.into_iter().enumerate() {
                let context = |why| io::Error::other(format!("{}, line {}: {why}", path.display(), line + 1));
                state.replay(happened, &config).map_err(context)?;
            }
            state.journal = Some(journal);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let genesis_time_ms = now.saturating_sub(state.clock.slot * config.slot_ms());
        let state = Mutex::new(state);
        Ok(Self { config, state, genesis_time_ms, block_events: Hub::new(16), lib_events: Hub::new(128) })
    }

    /// What kind of node this is.
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // --- What the node does by itself

    /// Make blocks from the pool. Returns their ids.
    pub fn mine(&self, count: u64) -> Vec<BlockId> {
        self.mine_with(count, self.config.gap, true)
    }

    /// Make blocks without looking at the pool, at this density of blocks in slots: many of them, fast.
    pub fn mine_empty(&self, count: u64, density: f64) -> Vec<BlockId> {
        self.mine_with(count, SlotGap::Density(density), false)
    }

    fn mine_with(&self, count: u64, gap: SlotGap, fill: bool) -> Vec<BlockId> {
        let mut state = self.state();
        let mut made = Vec::new();
        for _ in 0..count {
            let slot = state.clock.next(gap);
            let (parent, before) = (state.chain.tip().clone(), state.chain.tip_ledger());
            let mut block = Assembly { txs: Vec::new(), ledger: before.clone(), evicted: Vec::new() };
            if fill {
                block = state.pool.assemble(&before, slot, &state.prices, &self.config.limits());
                block.txs.append(&mut state.forged);
            }
            match self.attach(&mut state, &parent, slot, block.txs, block.ledger) {
                Ok(block) => made.push(block.id),
                Err(why) => eprintln!("logos-devnode: a block on the tip was refused: {why}"),
            }
            Self::evict(&mut state, block.evicted);
        }
        state.flush();
        made
    }

    fn evict(state: &mut State, evicted: Vec<(TxHash, Refusal)>) {
        if evicted.is_empty() {
            return;
        }
        let hashes: HashSet<TxHash> = evicted.iter().map(|(hash, _)| *hash).collect();
        state.record(|| Happened::Evicted(hashes.iter().map(TxHash::to_string).collect()));
        state.pool.remove(&hashes);
        state.evictions.extend(evicted);
        let too_many = state.evictions.len().saturating_sub(EVICTIONS_MAX);
        state.evictions.drain(..too_many);
    }

    /// Make a block of these, record it, attach it, tell everybody.
    fn attach(
        &self,
        state: &mut State,
        parent: &Block,
        slot: u64,
        txs: Vec<Arc<Tx>>,
        ledger: Arc<Ledger>,
    ) -> Result<Arc<Block>, String> {
        let block = Block::after(parent, slot, state.entropy + 1, txs);
        let prices = (state.prices.execution, state.prices.storage);
        let finalized = state.attach(block.clone(), ledger)?;
        state.record(|| Happened::Block {
            parent: block.parent.to_string(),
            slot,
            entropy: block.entropy,
            prices,
            txs: block.txs.iter().map(|tx| (stored(tx), tx.forged)).collect(),
        });
        self.announce(state, &block);
        self.announce_final(state, &finalized);
        Ok(block)
    }

    fn announce(&self, state: &mut State, block: &Block) {
        if self.block_events.is_empty() || !state.faults.shows_block(block) {
            return;
        }
        state.flush();
        let event = answers::event(block, &state.chain, &state.faults, self.config.shape);
        let line = event.to_string().into();
        self.block_events.publish(&line);
        if take_one(&mut state.faults.duplicate_events) {
            self.block_events.publish(&line);
        }
    }

    fn announce_final(&self, state: &State, finalized: &[Arc<Block>]) {
        if self.lib_events.is_empty() {
            return;
        }
        for block in finalized.iter().filter(|block| state.faults.shows_block(block)) {
            self.lib_events.publish(&answers::finalized(block).to_string().into());
        }
    }

    /// Take a transaction into the pool, after the checks that need no ledger.
    pub fn post(&self, signed: SignedTx) -> Result<(), PostRefused> {
        let limits = self.config.limits();
        let tx = Tx::new(signed);
        if tx.size > limits.bytes {
            return Err(PostRefused::TooLarge(format!("{} bytes, a block holds {}", tx.size, limits.bytes)));
        }
        if let Some(large) = tx.signed.inscriptions().find(|one| one.data.len() > limits.inscription()) {
            let (found, limit) = (large.data.len(), limits.inscription());
            return Err(PostRefused::TooLarge(format!("an inscription of {found} bytes, at most {limit}")));
        }
        tx.signed.verify().map_err(|error: LogError| PostRefused::Unprocessable(error.to_string()))?;
        let mut state = self.state();
        if !take_one(&mut state.faults.lose_posts) {
            Self::add_to_pool(&mut state, tx, false);
        }
        Ok(())
    }

    fn add_to_pool(state: &mut State, tx: Arc<Tx>, first: bool) {
        let stored = tx.clone();
        if if first { state.pool.add_first(tx) } else { state.pool.add(tx) } {
            state.record(|| Happened::Pending(stored.signed.to_json()));
            state.flush();
        }
    }

    /// Pay for a transaction from the wallet; nothing if it costs nothing.
    pub fn fund(&self, request: &FundRequest) -> Result<Option<(Vec<Op>, Proof)>, String> {
        let mut state = self.state();
        if take_one(&mut state.faults.refuse_funds) {
            return Err("insufficient funds".into());
        }
        let (ledger, lib, prices) = (state.chain.tip_ledger(), state.chain.lib().height, state.prices);
        state.wallet.fund(&ledger, lib, &prices, request)
    }

    // --- What a test does to the chain

    /// Abandon the newest blocks for a branch that is longer by one.
    pub fn reorganise(&self, depth: u64, abandoned: Abandoned) -> Result<Vec<BlockId>, String> {
        let mut state = self.state();
        let height = state.chain.tip().height;
        if depth == 0 || depth > height - state.chain.lib().height {
            return Err(format!("{depth} blocks: at most {} are not final", height - state.chain.lib().height));
        }
        let branch = |height| state.chain.at_height(height).cloned();
        let fork = branch(height - depth).ok_or("no such block")?;
        let old: Vec<Arc<Tx>> =
            (height - depth + 1..=height).filter_map(branch).flat_map(|block| block.txs.clone()).collect();
        let mut pool = Mempool::default();
        for tx in old.iter().filter(|tx| !tx.forged) {
            match abandoned {
                Abandoned::Keep => pool.add(tx.clone()),
                Abandoned::Reorder => pool.add_first(tx.clone()),
                Abandoned::Return | Abandoned::Drop => false,
            };
        }
        let carrying = if abandoned == Abandoned::Keep { 0 } else { depth };
        let mut parent = fork.clone();
        let mut made = Vec::new();
        for number in 0..=depth {
            let slot = if number < depth { fork.slot + number + 1 } else { state.clock.next(self.config.gap) };
            let before = state.chain.ledger(&parent.id).cloned().ok_or("no ledger")?;
            let (txs, ledger) = if number == carrying {
                let block = pool.assemble(&before, slot, &state.prices, &self.config.limits());
                (block.txs, block.ledger)
            } else {
                (Vec::new(), before)
            };
            parent = self.attach(&mut state, &parent, slot, txs, ledger)?;
            made.push(parent.id);
        }
        if abandoned == Abandoned::Drop {
            let hashes: HashSet<TxHash> = old.iter().map(|tx| tx.hash).collect();
            state.record(|| Happened::Evicted(hashes.iter().map(TxHash::to_string).collect()));
            state.pool.remove(&hashes);
        }
        state.flush();
        Ok(made)
    }

    /// Make an empty block beside the chain, this deep: it does not become preferred.
    pub fn mine_side(&self, depth: u64) -> Result<BlockId, String> {
        self.mine_side_with(depth, Vec::new())
    }

    /// The same with these in it, against every rule. The ledger does not believe them.
    pub fn mine_side_with(&self, depth: u64, txs: Vec<SignedTx>) -> Result<BlockId, String> {
        let mut state = self.state();
        let height = state.chain.tip().height;
        if depth == 0 || depth > height - state.chain.lib().height {
            return Err(format!("depth {depth} is not between LIB and tip"));
        }
        let parent = state.chain.at_height(height - depth).cloned().ok_or("no such block")?;
        let ledger = state.chain.ledger(&parent.id).cloned().ok_or("no ledger")?;
        let block =
            self.attach(&mut state, &parent, parent.slot + 1, txs.into_iter().map(Tx::forged).collect(), ledger)?;
        state.flush();
        Ok(block.id)
    }

    /// Let slots pass without blocks.
    pub fn advance(&self, slots: u64) {
        self.state().clock.slot += slots;
    }

    /// Go online, or back to bootstrapping.
    pub fn set_online(&self, online: bool) {
        let mut state = self.state();
        let finalized = state.chain.set_online(online);
        state.record(|| Happened::Online(online));
        state.flush();
        self.announce_final(&state, &finalized);
    }

    /// Change what gas costs from the next block on.
    pub fn set_prices(&self, prices: Prices) {
        self.state().prices = prices;
    }

    /// Begin another chain, as a test network does after a reset. Streams end, faults and counts stay.
    pub fn reset(&self, genesis: u64) -> Result<BlockId, String> {
        let mut state = self.state();
        let mut fresh = State::begin(&self.config, genesis)?;
        (fresh.prices, fresh.journal) = (state.prices, state.journal.take());
        (fresh.faults, fresh.counters) = (std::mem::take(&mut state.faults), std::mem::take(&mut state.counters));
        *state = fresh;
        if let Some(Err(error)) = state.journal.as_mut().map(Journal::clear) {
            return Err(error.to_string());
        }
        state.record(|| Happened::Genesis(genesis));
        state.flush();
        self.block_events.close();
        self.lib_events.close();
        Ok(state.chain.genesis().id)
    }

    // --- Other writers

    /// Another writer appends to a channel by the rules, after what is pending (or after `parent`), and pays.
    pub fn write(
        &self,
        seed: &[u8; 32],
        channel: ChannelId,
        data: Vec<u8>,
        parent: Option<MsgId>,
        first: bool,
    ) -> Result<(MsgId, TxHash), String> {
        let signer = SigningKey::from_seed(seed).public_key();
        let parent = parent.unwrap_or_else(|| self.state().pending_tip(channel));
        let inscription = Inscription { channel, data, parent, signer };
        let id = inscription.id();
        Ok((id, self.submit(seed, Op::Inscribe(inscription), first)?))
    }

    /// The holder of a channel's key number 0 changes its configuration.
    pub fn configure(&self, seed: &[u8; 32], config: ChannelConfig) -> Result<(MsgId, TxHash), String> {
        let id = config.id();
        Ok((id, self.submit(seed, Op::Config(config), false)?))
    }

    fn submit(&self, seed: &[u8; 32], op: Op, first: bool) -> Result<TxHash, String> {
        let mut state = self.state();
        let wallet = self.config.wallet;
        let request =
            FundRequest { ops: vec![op.clone()], change: wallet, funding: vec![wallet], max_fee: u64::MAX, percent: 0 };
        let (ledger, lib, prices) = (state.chain.tip_ledger(), state.chain.lib().height, state.prices);
        let (ops, proof) = match state.wallet.fund(&ledger, lib, &prices, &request)? {
            Some((ops, proof)) => (ops, Some(proof)),
            None => (vec![op], None),
        };
        let tx = Tx::new(sign_ops(&SigningKey::from_seed(seed), ops, proof));
        let hash = tx.hash;
        Self::add_to_pool(&mut state, tx, first);
        Ok(hash)
    }

    /// Put anything at all into the next block, against every rule. The ledger does not believe it.
    pub fn forge(&self, tx: SignedTx) -> TxHash {
        let tx = Tx::forged(tx);
        let hash = tx.hash;
        self.state().forged.push(tx);
        hash
    }

    /// Put somebody else's transaction into the next block: any JSON, such as operations nobody here knows.
    pub fn include_foreign(&self, json: serde_json::Value) -> TxHash {
        let tx = Tx::foreign(json);
        let hash = tx.hash;
        self.state().forged.push(tx);
        hash
    }

    /// Put an inscription into the next block that is signed by the wrong key, signed wrongly, or out of place.
    pub fn forge_inscription(&self, forgery: Forgery) -> (MsgId, TxHash) {
        let key = SigningKey::from_seed(&forgery.seed);
        let parent = forgery.parent.unwrap_or_else(|| self.state().pending_tip(forgery.channel));
        let signer = forgery.signer.unwrap_or_else(|| key.public_key());
        let inscription = Inscription { channel: forgery.channel, data: forgery.data, parent, signer };
        let id = inscription.id();
        let mut tx = sign_ops(&key, vec![Op::Inscribe(inscription)], None);
        if let (true, Some(Proof::Ed25519(signature))) = (forgery.corrupt, tx.proofs.first_mut()) {
            signature[0] ^= 1;
        }
        (id, self.forge(tx))
    }

    /// Put a transaction that is on the chain already into the next block once more.
    pub fn replay(&self, hash: &TxHash) -> Result<(), String> {
        let tx = self.state().chain.tx(hash).cloned().ok_or("no such transaction")?;
        self.forge(tx.signed.clone());
        Ok(())
    }

    // --- Faults

    /// Add a fault of the wire.
    pub fn fault(&self, rule: Rule) {
        self.state().faults.rules.push(rule);
    }

    /// End all faults, of whatever kind.
    pub fn clear_faults(&self) {
        self.state().faults = Faults::default();
    }

    /// Change the other faults.
    pub fn with_faults<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        change(&mut self.state().faults)
    }

    /// Leave a block, transaction or message out of all answers.
    pub fn withhold(&self, id: [u8; 32]) {
        self.state().faults.withheld.insert(id);
    }

    /// Show again what was withheld.
    pub fn reveal(&self, id: &[u8; 32]) {
        self.state().faults.withheld.remove(id);
    }

    // --- What a test wants to know

    /// The newest block.
    pub fn tip(&self) -> Arc<Block> {
        self.state().chain.tip().clone()
    }

    /// The last irreversible block.
    pub fn lib(&self) -> Arc<Block> {
        self.state().chain.lib().clone()
    }

    /// A block of any branch.
    pub fn block(&self, id: &BlockId) -> Option<Arc<Block>> {
        self.state().chain.block(id).cloned()
    }

    /// State of a channel at the tip.
    pub fn channel(&self, id: &ChannelId) -> Option<Channel> {
        self.state().chain.tip_ledger().channels.get(id).cloned()
    }

    /// Every inscription of a channel on the preferred branch, oldest first: what a follower should see.
    pub fn inscriptions(&self, channel: &ChannelId) -> Vec<Inscription> {
        let state = self.state();
        let blocks = state.chain.range(0, u64::MAX, false).iter();
        let honest = blocks.flat_map(|block| &block.txs).filter(|tx| !tx.forged);
        let all = honest.flat_map(|tx| tx.signed.inscriptions());
        all.filter(|inscription| inscription.channel == *channel).cloned().collect()
    }

    /// Hashes of the pending transactions.
    pub fn pending(&self) -> Vec<TxHash> {
        self.state().pool.pending().iter().map(|tx| tx.hash).collect()
    }

    /// What was thrown out of the pool, and why.
    pub fn evictions(&self) -> Vec<(TxHash, Refusal)> {
        self.state().evictions.iter().cloned().collect()
    }

    /// How often a route was asked, as in `GET /cryptarchia/blocks/{id}`.
    pub fn requests(&self, route: &str) -> u64 {
        self.state().counters.all().get(route).copied().unwrap_or(0)
    }

    /// The current slot.
    pub fn slot(&self) -> u64 {
        self.state().clock.slot
    }

    /// When slot 0 was, in milliseconds since 1970.
    pub fn genesis_time_ms(&self) -> u64 {
        self.genesis_time_ms
    }
}
