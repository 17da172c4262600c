//! The block tree: which branch is preferred, and what is irreversible.
//!
//! Invariants
//! - The preferred branch is the longest; of two equally long ones the one seen first.
//! - Online, the last irreversible block (LIB) is the k-th ancestor of the tip, and never moves back: a branch
//!   that leaves the chain before it is refused. While bootstrapping it does not move at all.
//! - Slots increase along every branch.
//! - A block is small: an empty one costs some hundred bytes, and shares its ledger with its parent.
//!
//! Not here: making blocks (`mempool`, `node`), telling anybody about them (`node`, `http`).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use logos_log::crypto::blake2b256;
use logos_log::entry::SignedTx;
use logos_log::ids::TxHash;
use serde_json::Value;

use crate::ledger::{Ledger, Prices, Refusal};

/// Identifier of a block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub [u8; 32]);

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockId({self})")
    }
}

/// A transaction, with what is asked of it over and over.
#[derive(Debug, PartialEq, Eq)]
pub struct Tx {
    /// The transaction.
    pub signed: SignedTx,
    /// Its hash.
    pub hash: TxHash,
    /// Its encoded length.
    pub size: usize,
    /// It stands in its block against the rules and changes nothing in the ledger.
    pub forged: bool,
    /// What answers show in place of it: a transaction of kinds that this node does not know.
    pub shown: Option<Value>,
}

impl Tx {
    /// A transaction that obeys the rules.
    pub fn new(signed: SignedTx) -> Arc<Self> {
        Arc::new(Self { hash: signed.hash(), size: signed.encode().len(), signed, forged: false, shown: None })
    }

    /// A transaction that a dishonest node puts into a block.
    pub fn forged(signed: SignedTx) -> Arc<Self> {
        Arc::new(Self { hash: signed.hash(), size: signed.encode().len(), signed, forged: true, shown: None })
    }

    /// Somebody else's business that a block carries: any JSON at all.
    pub fn foreign(shown: Value) -> Arc<Self> {
        let signed = SignedTx { ops: Vec::new(), proofs: Vec::new() };
        let given = shown["mantle_tx"]["hash"].as_str().and_then(|text| text.parse().ok());
        let hash = given.unwrap_or_else(|| TxHash(blake2b256(&[shown.to_string().as_bytes()])));
        Arc::new(Self { hash, size: 0, signed, forged: true, shown: Some(shown) })
    }
}

/// A block.
#[derive(Debug)]
pub struct Block {
    /// Identifier.
    pub id: BlockId,
    /// The block before it.
    pub parent: BlockId,
    /// When it was made.
    pub slot: u64,
    /// Distance from genesis.
    pub height: u64,
    /// Makes blocks with equal content different, as the leader's entropy does in a real one.
    pub entropy: u64,
    /// Hash of its content.
    pub body_root: [u8; 32],
    /// What it carries.
    pub txs: Vec<Arc<Tx>>,
}

impl Block {
    /// The first block of a chain.
    pub fn genesis(entropy: u64, tx: Arc<Tx>) -> Arc<Self> {
        Self::build(BlockId([0; 32]), 0, 0, entropy, vec![tx])
    }

    /// The block after `parent`.
    pub fn after(parent: &Self, slot: u64, entropy: u64, txs: Vec<Arc<Tx>>) -> Arc<Self> {
        Self::build(parent.id, slot, parent.height + 1, entropy, txs)
    }

    fn build(parent: BlockId, slot: u64, height: u64, entropy: u64, txs: Vec<Arc<Tx>>) -> Arc<Self> {
        let hashes: Vec<u8> = txs.iter().flat_map(|tx| tx.hash.0).collect();
        let body_root = blake2b256(&[b"BODY_ROOT_V1", &hashes]);
        let (slot_bytes, entropy_bytes) = (slot.to_le_bytes(), entropy.to_le_bytes());
        let id = blake2b256(&[b"BLOCK_ID_V1", &[1], &parent.0, &slot_bytes, &body_root, &entropy_bytes]);
        Arc::new(Self { id: BlockId(id), parent, slot, height, entropy, body_root, txs })
    }
}

/// What attaching a block changed.
#[derive(Debug, Default)]
pub struct Change {
    /// Transactions of blocks that are no longer on the preferred branch.
    pub abandoned: Vec<Arc<Tx>>,
    /// Transactions of blocks that are on it now.
    pub adopted: Vec<Arc<Tx>>,
    /// Blocks that became irreversible.
    pub finalized: Vec<Arc<Block>>,
}

/// The tree of blocks.
pub struct Chain {
    k: u64,
    online: bool,
    blocks: HashMap<BlockId, Arc<Block>>,
    /// Of blocks that may still get children.
    ledgers: HashMap<BlockId, Arc<Ledger>>,
    /// The preferred branch, by height.
    preferred: Vec<Arc<Block>>,
    lib: u64,
    txs: HashMap<TxHash, Arc<Tx>>,
}

impl Chain {
    /// A chain of one block.
    pub fn new(k: u64, online: bool, genesis: Arc<Block>) -> Result<Self, Refusal> {
        let mut ledger = Ledger::default();
        for tx in &genesis.txs {
            ledger = Ledger::genesis(&tx.signed)?;
        }
        Ok(Self {
            k,
            online,
            ledgers: HashMap::from([(genesis.id, Arc::new(ledger))]),
            blocks: HashMap::from([(genesis.id, genesis.clone())]),
            txs: genesis.txs.iter().map(|tx| (tx.hash, tx.clone())).collect(),
            preferred: vec![genesis],
            lib: 0,
        })
    }

    /// The first block.
    pub fn genesis(&self) -> &Arc<Block> {
        &self.preferred[0]
    }

    /// The newest block of the preferred branch.
    pub fn tip(&self) -> &Arc<Block> {
        &self.preferred[self.preferred.len() - 1]
    }

    /// The last irreversible block.
    pub fn lib(&self) -> &Arc<Block> {
        &self.preferred[self.lib as usize]
    }

    /// The block of the preferred branch at a height.
    pub fn at_height(&self, height: u64) -> Option<&Arc<Block>> {
        self.preferred.get(height as usize)
    }

    /// A block of any branch.
    pub fn block(&self, id: &BlockId) -> Option<&Arc<Block>> {
        self.blocks.get(id)
    }

    /// A transaction of any stored block.
    pub fn tx(&self, hash: &TxHash) -> Option<&Arc<Tx>> {
        self.txs.get(hash)
    }

    /// The ledger after a block, if the block may still get children.
    pub fn ledger(&self, id: &BlockId) -> Option<&Arc<Ledger>> {
        self.ledgers.get(id)
    }

    /// The ledger at the tip.
    pub fn tip_ledger(&self) -> Arc<Ledger> {
        self.ledgers.get(&self.tip().id).cloned().unwrap_or_default()
    }

    /// Whether the node follows the chain, rather than bootstrapping.
    pub fn online(&self) -> bool {
        self.online
    }

    /// Blocks of the preferred branch with slots in the range, oldest first, up to LIB or up to the tip.
    pub fn range(&self, from: u64, to: u64, immutable_only: bool) -> &[Arc<Block>] {
        let last = if immutable_only { self.lib as usize + 1 } else { self.preferred.len() };
        let start = self.preferred[..last].partition_point(|block| block.slot < from);
        let end = self.preferred[..last].partition_point(|block| block.slot <= to);
        &self.preferred[start..end.max(start)]
    }

    /// The ledger after a block that is being replayed.
    pub fn replay(&self, block: &Block, prices: &Prices) -> Result<Arc<Ledger>, String> {
        let before = self.ledgers.get(&block.parent).ok_or("its parent is unknown or too old")?;
        let mut ledger = before.clone();
        for tx in block.txs.iter().filter(|tx| !tx.forged) {
            ledger = Arc::new(ledger.apply(&tx.signed, block.slot, prices).map_err(|refusal| refusal.to_string())?);
        }
        Ok(ledger)
    }

    /// Add a block whose parent is known, with the ledger after it.
    pub fn attach(&mut self, block: Arc<Block>, ledger: Arc<Ledger>) -> Result<Change, String> {
        let parent = self.blocks.get(&block.parent).ok_or("the parent is not known")?;
        if block.slot <= parent.slot {
            return Err(format!("slot {} does not follow slot {}", block.slot, parent.slot));
        }
        let branch = self.branch_to(&block);
        let fork = branch.first().map_or(block.height, |first| first.height) - 1;
        if fork < self.lib {
            return Err(format!("the branch leaves the chain at height {fork}, LIB is at {}", self.lib));
        }
        self.txs.extend(block.txs.iter().map(|tx| (tx.hash, tx.clone())));
        self.blocks.insert(block.id, block.clone());
        self.ledgers.insert(block.id, ledger);
        let mut change = Change::default();
        if block.height > self.tip().height {
            let abandoned = self.preferred.split_off(fork as usize + 1);
            change.abandoned = abandoned.iter().flat_map(|block| block.txs.clone()).collect();
            change.adopted = branch.iter().flat_map(|block| block.txs.clone()).collect();
            self.preferred.extend(branch);
            change.finalized = self.move_lib();
        }
        Ok(change)
    }

    /// Leave or re-enter the bootstrapping state; going online moves LIB at once, maybe by many blocks.
    pub fn set_online(&mut self, online: bool) -> Vec<Arc<Block>> {
        self.online = online;
        self.move_lib()
    }

    /// The blocks from the preferred branch (exclusive) to `block` (inclusive), which need not be stored yet.
    fn branch_to(&self, block: &Arc<Block>) -> Vec<Arc<Block>> {
        let mut branch = vec![block.clone()];
        let mut parent = self.blocks.get(&block.parent);
        while let Some(block) = parent {
            if self.at_height(block.height).is_some_and(|preferred| preferred.id == block.id) {
                break;
            }
            branch.push(block.clone());
            parent = self.blocks.get(&block.parent);
        }
        branch.reverse();
        branch
    }

    fn move_lib(&mut self) -> Vec<Arc<Block>> {
        let target = self.tip().height.saturating_sub(self.k);
        if !self.online || target <= self.lib {
            return Vec::new();
        }
        let finalized = self.preferred[self.lib as usize + 1..=target as usize].to_vec();
        for block in &self.preferred[self.lib as usize..target as usize] {
            self.ledgers.remove(&block.id);
        }
        self.lib = target;
        finalized
    }
}
