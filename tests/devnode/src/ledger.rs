//! The ledger: what a transaction may do to channels and notes, and what it does to them.
//!
//! Invariants
//! - A transaction is applied whole or not at all, each operation against the state left by the one before it.
//! - An inscription's parent is the channel's tip, and its signer the key whose turn it is.
//! - Inputs minus outputs pay at least the mandatory fee at the prices given.
//!
//! The one fake thing: the zero-knowledge proof of a transfer is not a proof but 128 bytes hashed from the
//! transaction ([`transfer_proof`]). It is bound to its transaction as a real one is, and anybody can make it.
//!
//! Not here: deposits, withdrawals, channel transfers, staking, rewards. A transaction carrying them is refused
//! at the door.

use std::collections::BTreeMap;

use logos_log::crypto::{blake2b256, verify};
use logos_log::entry::{ChannelConfig, Inscription, Op, Proof, SignedTx, Transfer};
use logos_log::ids::{ChannelId, MsgId, PublicKey, TxHash};

/// Identifier of a note.
pub type NoteId = [u8; 32];
/// Public key of a note's owner.
pub type NoteKey = [u8; 32];

/// What a unit of gas costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    /// Per unit of execution gas.
    pub execution: u64,
    /// Per byte stored.
    pub storage: u64,
}

impl Prices {
    /// Nothing costs anything, as in June 2026.
    pub const FREE: Self = Self { execution: 0, storage: 0 };
    /// The prices at genesis of August 2026.
    pub const GENESIS: Self = Self { execution: 1, storage: 1 };

    /// The mandatory fee of a transaction.
    pub fn fee(&self, tx: &SignedTx) -> u128 {
        u128::from(tx.execution_gas()) * u128::from(self.execution)
            + u128::from(tx.storage_gas()) * u128::from(self.storage)
    }
}

/// State of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Who may write, in the order of turns.
    pub keys: Vec<PublicKey>,
    /// Signatures that a configuration needs.
    pub configuration_threshold: u16,
    /// Signatures that a transfer needs.
    pub transfer_threshold: u16,
    /// The newest message or configuration.
    pub tip: MsgId,
    /// Slot of the block that carried it.
    pub tip_slot: u64,
    /// Index of the key that wrote it.
    pub sequencer: u64,
    /// Slot in which that key's turn began.
    pub sequencer_start: u64,
    /// Slots of a turn, 0 = no end by time.
    pub timeframe: u32,
    /// Slots of silence after which the turn passes on, 0 = never.
    pub timeout: u32,
}

impl Channel {
    fn created(signer: PublicKey, slot: u64) -> Self {
        Self {
            keys: vec![signer],
            configuration_threshold: 1,
            transfer_threshold: 1,
            tip: MsgId::ROOT,
            tip_slot: slot,
            sequencer: 0,
            sequencer_start: slot,
            timeframe: 0,
            timeout: 0,
        }
    }

    /// Index of the key whose turn it is in `slot`, and when its turn began.
    pub fn turn(&self, slot: u64) -> (u64, u64) {
        let (timeframe, timeout) = (u64::from(self.timeframe), u64::from(self.timeout));
        let silent = slot.saturating_sub(self.tip_slot);
        let held = slot.saturating_sub(self.sequencer_start);
        let by_timeout = silent.checked_div(timeout).filter(|turns| *turns > 0);
        let by_timeframe = held.checked_div(timeframe);
        let (passed, start) = match (by_timeout, by_timeframe) {
            (Some(turns), _) => (turns, self.tip_slot + turns * timeout),
            (None, Some(turns)) => (turns, self.sequencer_start + turns * timeframe),
            (None, None) => (0, self.sequencer_start),
        };
        ((self.sequencer + passed) % self.keys.len().max(1) as u64, start)
    }
}

/// A coin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Its value.
    pub value: u64,
    /// Who may spend it.
    pub owner: NoteKey,
}

/// Why a transaction cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The parent is not the tip of the channel.
    #[error("InvalidParent: message {id} follows {found}, the tip of the channel is {tip}")]
    InvalidParent {
        /// The message.
        id: MsgId,
        /// Its parent.
        found: MsgId,
        /// The tip.
        tip: MsgId,
    },
    /// It is another key's turn, or the key is not accredited.
    #[error("UnauthorizedSigner: {signer} in slot {slot}")]
    UnauthorizedSigner {
        /// Who signed.
        signer: PublicKey,
        /// In which slot.
        slot: u64,
    },
    /// A configuration without the signatures or numbers it needs.
    #[error("InvalidConfig: {0}")]
    InvalidConfig(&'static str),
    /// A note that does not exist, or is spent.
    #[error("UnknownNote: {}", hex::encode(.0))]
    UnknownNote(NoteId),
    /// The proof of a transfer is not this transaction's.
    #[error("InvalidProof")]
    InvalidProof,
    /// The fee is not paid.
    #[error("InsufficientFee: {paid} paid, {fee} needed")]
    InsufficientFee {
        /// Inputs minus outputs.
        paid: i128,
        /// The mandatory fee.
        fee: u128,
    },
}

/// All channels and notes after some block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The channels.
    pub channels: BTreeMap<ChannelId, Channel>,
    /// The unspent notes.
    pub notes: BTreeMap<NoteId, Note>,
}

impl Ledger {
    /// The ledger after the genesis transaction, which makes money from nothing.
    pub fn genesis(tx: &SignedTx) -> Result<Self, Refusal> {
        Ok(Self::default().apply_ops(tx, 0)?.0)
    }

    /// The ledger after one more transaction.
    pub fn apply(&self, tx: &SignedTx, slot: u64, prices: &Prices) -> Result<Self, Refusal> {
        let (after, paid) = self.apply_ops(tx, slot)?;
        let fee = prices.fee(tx);
        match u128::try_from(paid).is_ok_and(|paid| paid >= fee) {
            true => Ok(after),
            false => Err(Refusal::InsufficientFee { paid, fee }),
        }
    }

    fn apply_ops(&self, tx: &SignedTx, slot: u64) -> Result<(Self, i128), Refusal> {
        let mut after = self.clone();
        let mut paid = 0;
        let hash = tx.hash();
        for (op, proof) in tx.ops.iter().zip(&tx.proofs) {
            match op {
                Op::Inscribe(inscription) => after.inscribe(inscription, slot)?,
                Op::Config(config) => after.configure(config, proof, hash, slot)?,
                Op::Transfer(transfer) => paid += after.transfer(transfer, proof, hash)?,
            }
        }
        Ok((after, paid))
    }

    fn inscribe(&mut self, inscription: &Inscription, slot: u64) -> Result<(), Refusal> {
        let fresh = || Channel::created(inscription.signer, slot);
        let channel = self.channels.entry(inscription.channel).or_insert_with(fresh);
        let id = inscription.id();
        if inscription.parent != channel.tip {
            return Err(Refusal::InvalidParent { id, found: inscription.parent, tip: channel.tip });
        }
        let (turn, start) = channel.turn(slot);
        if channel.keys.get(turn as usize) != Some(&inscription.signer) {
            return Err(Refusal::UnauthorizedSigner { signer: inscription.signer, slot });
        }
        (channel.sequencer, channel.sequencer_start) = (turn, start);
        (channel.tip, channel.tip_slot) = (id, slot);
        Ok(())
    }

    fn configure(&mut self, config: &ChannelConfig, proof: &Proof, hash: TxHash, slot: u64) -> Result<(), Refusal> {
        if config.keys.is_empty() || config.configuration_threshold == 0 || config.transfer_threshold == 0 {
            return Err(Refusal::InvalidConfig("no keys, or a threshold of zero"));
        }
        if let Some(current) = self.channels.get(&config.channel) {
            let Proof::MultiSig(signatures) = proof else { return Err(Refusal::InvalidConfig("no signatures")) };
            if signatures.len() != usize::from(current.configuration_threshold) {
                return Err(Refusal::InvalidConfig("not as many signatures as the threshold says"));
            }
            let holds = |(signature, key): &([u8; 64], u16)| {
                current.keys.get(usize::from(*key)).is_some_and(|key| verify(key, hash.as_bytes(), signature))
            };
            if !signatures.iter().all(holds) {
                return Err(Refusal::InvalidConfig("a signature is not a current key's"));
            }
        }
        let channel = Channel {
            keys: config.keys.clone(),
            configuration_threshold: config.configuration_threshold,
            transfer_threshold: config.transfer_threshold,
            tip: config.id(),
            tip_slot: slot,
            sequencer: 0,
            sequencer_start: slot,
            timeframe: config.posting_timeframe,
            timeout: config.posting_timeout,
        };
        self.channels.insert(config.channel, channel);
        Ok(())
    }

    /// Returns inputs minus outputs.
    fn transfer(&mut self, transfer: &Transfer, proof: &Proof, hash: TxHash) -> Result<i128, Refusal> {
        if *proof != transfer_proof(hash) {
            return Err(Refusal::InvalidProof);
        }
        let mut paid = 0;
        for input in &transfer.inputs {
            paid += i128::from(self.notes.remove(input).ok_or(Refusal::UnknownNote(*input))?.value);
        }
        let op_id = transfer.op_id();
        for (index, &(value, owner)) in transfer.outputs.iter().enumerate() {
            paid -= i128::from(value);
            self.notes.insert(note_id(&op_id, index), Note { value, owner });
        }
        Ok(paid)
    }
}

/// What stands in for the zero-knowledge proof of a transfer.
pub fn transfer_proof(hash: TxHash) -> Proof {
    let mut proof = [0; 128];
    for (part, bytes) in proof.chunks_exact_mut(32).enumerate() {
        bytes.copy_from_slice(&blake2b256(&[b"DEVNODE_TRANSFER_PROOF", &[part as u8], hash.as_bytes()]));
    }
    Proof::Zk(proof)
}

/// A field element in the node: the topmost bits are clear.
fn note_id(op_id: &[u8; 32], index: usize) -> NoteId {
    let mut id = blake2b256(&[b"DEVNODE_NOTE", op_id, &(index as u64).to_le_bytes()]);
    id[31] &= 0x0f;
    id
}
