//! The entry: an inscription and the signed transaction that carries it, as bytes and (in `json`) as JSON.
//!
//! Speaks the Logos node protocol of August 2026 (testnet 0.2.1) and reads that of June 2026.
//!
//! Invariants
//! - One encoding per meaning: what decodes encodes back to the same bytes, and nothing is left over.
//! - A count or length is checked against its limit and against the bytes at hand before anything is allocated.
//! - A signature covers the whole transaction: every operation must be one we can encode, or nothing is verified.
//!
//! Not here: whether an entry may follow another (`chain`), what its data means (`payload`), and whether
//! transfers and configurations are valid (only a ledger knows notes and current keys).

use crate::crypto::{blake2b256, verify, Signature, SigningKey};
use crate::error::LogError;
use crate::ids::{ChannelId, MsgId, PublicKey, TxHash};
use crate::limits::{INSCRIPTION_BYTES_MAX, INSCRIPTION_OVERHEAD, OPS_MAX, TX_BYTES_MAX};

mod json;

const OP_TRANSFER: u8 = 0x00;
const OP_CONFIG: u8 = 0x10;
const OP_INSCRIBE: u8 = 0x11;

const TX_HASH_TAG: &[u8] = b"MANTLE_TXHASH_V1";
const OP_ID_TAG: &[u8] = b"OPERATION_ID_V1";

const INSCRIBE_EXECUTION_GAS: u64 = 56;
const SIGNATURE_EXECUTION_GAS: u64 = 56;
const TRANSFER_EXECUTION_GAS: u64 = 590;

/// What the bytes of a signed transaction are called in errors.
const TX: &str = "transaction";

/// One message on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inscription {
    /// The channel it is appended to.
    pub channel: ChannelId,
    /// The message itself.
    pub data: Vec<u8>,
    /// The message before it, or [`MsgId::ROOT`].
    pub parent: MsgId,
    /// Who appends it.
    pub signer: PublicKey,
}

impl Inscription {
    /// Canonical bytes, without opcode.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.data.len() + INSCRIPTION_OVERHEAD);
        self.encode_into(&mut out);
        out
    }

    /// The inverse of [`Self::encode`]; anything left over is an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        let mut reader = Reader::new("inscription", bytes);
        let inscription = Self::read(&mut reader)?;
        reader.finish()?;
        Ok(inscription)
    }

    /// Identifier: depends on channel, data, parent and signer only, not on signature, fee or block.
    pub fn id(&self) -> MsgId {
        MsgId(blake2b256(&[&self.encode()]))
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.channel.as_bytes());
        out.extend_from_slice(&(self.data.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.data);
        out.extend_from_slice(self.parent.as_bytes());
        out.extend_from_slice(self.signer.as_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, LogError> {
        let channel = ChannelId(reader.array()?);
        let length = u32::from_le_bytes(reader.array()?) as usize;
        check_data_length(length)?;
        let data = reader.take(length)?.to_vec();
        Ok(Self { channel, data, parent: MsgId(reader.array()?), signer: PublicKey(reader.array()?) })
    }
}

/// New keys and rules of a channel. It is a link of the channel's chain: its id becomes the tip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelConfig {
    /// The channel.
    pub channel: ChannelId,
    /// Who may write, in the order of their turns.
    pub keys: Vec<PublicKey>,
    /// Slots of a turn; 0 = turns do not end by time.
    pub posting_timeframe: u32,
    /// Slots of silence after which the turn passes on; 0 = never.
    pub posting_timeout: u32,
    /// Signatures that the next configuration needs.
    pub configuration_threshold: u16,
    /// Signatures that a transfer out of the channel needs.
    pub transfer_threshold: u16,
}

impl ChannelConfig {
    /// Canonical bytes, without opcode.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    /// Identifier, made like that of an inscription.
    pub fn id(&self) -> MsgId {
        MsgId(blake2b256(&[&self.encode()]))
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.channel.as_bytes());
        out.extend_from_slice(&(self.keys.len() as u16).to_le_bytes());
        for key in &self.keys {
            out.extend_from_slice(key.as_bytes());
        }
        out.extend_from_slice(&self.posting_timeframe.to_le_bytes());
        out.extend_from_slice(&self.posting_timeout.to_le_bytes());
        out.extend_from_slice(&self.configuration_threshold.to_le_bytes());
        out.extend_from_slice(&self.transfer_threshold.to_le_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, LogError> {
        let channel = ChannelId(reader.array()?);
        let count = u16::from_le_bytes(reader.array()?);
        let keys = reader.many(count.into(), 32, |reader| Ok(PublicKey(reader.array()?)))?;
        Ok(Self {
            channel,
            keys,
            posting_timeframe: u32::from_le_bytes(reader.array()?),
            posting_timeout: u32::from_le_bytes(reader.array()?),
            configuration_threshold: u16::from_le_bytes(reader.array()?),
            transfer_threshold: u16::from_le_bytes(reader.array()?),
        })
    }
}

/// Spends notes and makes new ones; what the inputs exceed the outputs by is the fee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Ids of the notes spent.
    pub inputs: Vec<[u8; 32]>,
    /// Value and owner of each new note.
    pub outputs: Vec<(u64, [u8; 32])>,
}

impl Transfer {
    /// Canonical bytes, without opcode.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    /// Identifier of the operation (not a message of any channel).
    pub fn op_id(&self) -> [u8; 32] {
        blake2b256(&[OP_ID_TAG, &self.encode()])
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(self.inputs.len() as u8);
        for input in &self.inputs {
            out.extend_from_slice(input);
        }
        out.push(self.outputs.len() as u8);
        for (value, owner) in &self.outputs {
            out.extend_from_slice(&value.to_le_bytes());
            out.extend_from_slice(owner);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, LogError> {
        let [count] = reader.array()?;
        let inputs = reader.many(count.into(), 32, Reader::array)?;
        let [count] = reader.array()?;
        let outputs =
            reader.many(count.into(), 40, |reader| Ok((u64::from_le_bytes(reader.array()?), reader.array()?)))?;
        Ok(Self { inputs, outputs })
    }
}

/// One operation of a transaction: those that we can encode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Append a message to a channel.
    Inscribe(Inscription),
    /// Change who may write to a channel.
    Config(ChannelConfig),
    /// Move money, here to pay the fee.
    Transfer(Transfer),
}

impl Op {
    /// The code that stands before the payload.
    pub fn opcode(&self) -> u8 {
        match self {
            Self::Inscribe(_) => OP_INSCRIBE,
            Self::Config(_) => OP_CONFIG,
            Self::Transfer(_) => OP_TRANSFER,
        }
    }

    /// Canonical bytes: opcode, then payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        out.push(self.opcode());
        match self {
            Self::Inscribe(inscription) => inscription.encode_into(out),
            Self::Config(config) => config.encode_into(out),
            Self::Transfer(transfer) => transfer.encode_into(out),
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, LogError> {
        let [opcode] = reader.array()?;
        match opcode {
            OP_INSCRIBE => Inscription::read(reader).map(Self::Inscribe),
            OP_CONFIG => ChannelConfig::read(reader).map(Self::Config),
            OP_TRANSFER => Transfer::read(reader).map(Self::Transfer),
            unknown => Err(LogError::UnknownOp { opcode: unknown.into() }),
        }
    }
}

/// A signature of several: the signature and the index of its key.
pub type IndexedSignature = (Signature, u16);

/// What makes one operation valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Of an inscription: its signer's signature over the transaction hash.
    Ed25519(Signature),
    /// Of a channel configuration: signatures over the transaction hash, key indices strictly increasing.
    MultiSig(Vec<IndexedSignature>),
    /// Of a transfer: a zero-knowledge proof, which only a node can make or check.
    Zk([u8; 128]),
}

impl Proof {
    fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ed25519(signature) => out.extend_from_slice(signature),
            Self::MultiSig(signatures) => {
                out.extend_from_slice(&(signatures.len() as u16).to_le_bytes());
                for (signature, key) in signatures {
                    out.extend_from_slice(signature);
                    out.extend_from_slice(&key.to_le_bytes());
                }
            }
            Self::Zk(proof) => out.extend_from_slice(proof),
        }
    }

    /// The operation decides which kind stands here: nothing in the bytes says it.
    fn read(op: &Op, reader: &mut Reader<'_>) -> Result<Self, LogError> {
        match op {
            Op::Inscribe(_) => reader.array().map(Self::Ed25519),
            Op::Transfer(_) => reader.array().map(Self::Zk),
            Op::Config(_) => {
                let count = u16::from_le_bytes(reader.array()?);
                let signatures = reader
                    .many(count.into(), 66, |reader| Ok((reader.array()?, u16::from_le_bytes(reader.array()?))))?;
                match strictly_increasing(&signatures) {
                    true => Ok(Self::MultiSig(signatures)),
                    false => Err(reader.malformed("key indices do not increase")),
                }
            }
        }
    }
}

fn strictly_increasing(signatures: &[IndexedSignature]) -> bool {
    signatures.windows(2).all(|pair| pair[0].1 < pair[1].1)
}

/// A transaction: operations that are applied together or not at all, and a proof for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedTx {
    /// The operations, in the order in which they are applied.
    pub ops: Vec<Op>,
    /// One proof an operation, in the same order.
    pub proofs: Vec<Proof>,
}

impl SignedTx {
    /// Canonical bytes. Ops and proofs beyond the limits, or that do not match, give bytes that never decode
    /// back; [`Self::verify`] names what is wrong with such a transaction.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = encode_ops(&self.ops);
        for proof in &self.proofs {
            proof.encode_into(&mut out);
        }
        out
    }

    /// The inverse of [`Self::encode`]; anything left over is an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, LogError> {
        check_size("signed transaction", bytes.len(), TX_BYTES_MAX)?;
        let mut reader = Reader::new(TX, bytes);
        let [count] = reader.array()?;
        let ops = reader.many(count.into(), 1, Op::read)?;
        let proofs = ops.iter().map(|op| Proof::read(op, &mut reader)).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { ops, proofs })
    }

    /// The hash that is signed. Proofs are not part of it.
    pub fn hash(&self) -> TxHash {
        hash_ops(&self.ops)
    }

    /// Whether the proofs are of the right number and kinds, and every inscription is signed by its signer.
    ///
    /// Transfer proofs and configuration signatures are checked for shape only: the notes and the keys they
    /// belong to are known to a ledger alone.
    pub fn verify(&self) -> Result<(), LogError> {
        check_size("number of operations", self.ops.len(), OPS_MAX)?;
        if self.ops.len() != self.proofs.len() {
            let why = format!("{} operations have {} proofs", self.ops.len(), self.proofs.len());
            return Err(LogError::WrongProof { op: self.ops.len().min(self.proofs.len()), why });
        }
        let hash = self.hash();
        for (index, (op, proof)) in self.ops.iter().zip(&self.proofs).enumerate() {
            let wrong = |why: &str| Err(LogError::WrongProof { op: index, why: why.into() });
            match (op, proof) {
                (Op::Inscribe(inscription), Proof::Ed25519(signature)) => {
                    check_data_length(inscription.data.len())?;
                    if !verify(&inscription.signer, hash.as_bytes(), signature) {
                        return Err(LogError::BadSignature { id: inscription.id() });
                    }
                }
                (Op::Config(_), Proof::MultiSig(signatures)) if !strictly_increasing(signatures) => {
                    return wrong("key indices do not increase");
                }
                (Op::Config(_), Proof::MultiSig(_)) | (Op::Transfer(_), Proof::Zk(_)) => {}
                (Op::Inscribe(_), _) => return wrong("an inscription needs one signature"),
                (Op::Config(_), _) => return wrong("a channel configuration needs a list of signatures"),
                (Op::Transfer(_), _) => return wrong("a transfer needs a zero-knowledge proof"),
            }
        }
        Ok(())
    }

    /// The inscriptions, of whatever channel, in order.
    pub fn inscriptions(&self) -> impl Iterator<Item = &Inscription> {
        self.ops.iter().filter_map(|op| match op {
            Op::Inscribe(inscription) => Some(inscription),
            Op::Config(_) | Op::Transfer(_) => None,
        })
    }

    /// Execution gas, paid at the execution price of the block.
    pub fn execution_gas(&self) -> u64 {
        let gas = |(index, op): (usize, &Op)| match (op, self.proofs.get(index)) {
            (Op::Inscribe(_), _) => INSCRIBE_EXECUTION_GAS,
            (Op::Config(_), Some(Proof::MultiSig(signatures))) => SIGNATURE_EXECUTION_GAS * signatures.len() as u64,
            (Op::Config(_), _) => 0,
            (Op::Transfer(_), _) => TRANSFER_EXECUTION_GAS,
        };
        self.ops.iter().enumerate().map(gas).sum()
    }

    /// Storage gas, paid at the storage price of the epoch: one a byte.
    pub fn storage_gas(&self) -> u64 {
        self.encode().len() as u64
    }
}

/// One inscription, signed: what the directory channel stores as one file.
pub fn sign_entry(key: &SigningKey, channel: ChannelId, parent: MsgId, data: Vec<u8>) -> SignedTx {
    sign_ops(key, vec![Op::Inscribe(Inscription { channel, data, parent, signer: key.public_key() })], None)
}

/// Sign operations that are final: every inscription and configuration gets `key`'s signature (as key number 0
/// of the channel), the transfer, if any, gets `transfer_proof`.
pub fn sign_ops(key: &SigningKey, ops: Vec<Op>, transfer_proof: Option<Proof>) -> SignedTx {
    let signature = key.sign(hash_ops(&ops).as_bytes());
    let proof = |op: &Op| match op {
        Op::Inscribe(_) => Some(Proof::Ed25519(signature)),
        Op::Config(_) => Some(Proof::MultiSig(vec![(signature, 0)])),
        Op::Transfer(_) => transfer_proof.clone(),
    };
    SignedTx { proofs: ops.iter().filter_map(proof).collect(), ops }
}

fn encode_ops(ops: &[Op]) -> Vec<u8> {
    let mut out = vec![ops.len() as u8];
    for op in ops {
        op.encode_into(&mut out);
    }
    out
}

fn hash_ops(ops: &[Op]) -> TxHash {
    TxHash(blake2b256(&[TX_HASH_TAG, &encode_ops(ops)]))
}

fn check_data_length(length: usize) -> Result<(), LogError> {
    check_size("inscription data", length, INSCRIPTION_BYTES_MAX)
}

fn check_size(what: &'static str, found: usize, limit: usize) -> Result<(), LogError> {
    match found <= limit {
        true => Ok(()),
        false => Err(LogError::TooLarge { what, found: found as u64, limit: limit as u64 }),
    }
}

/// Reads a slice front to back and never past its end.
struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], LogError> {
        let taken = self.at.checked_add(count).and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or(LogError::Truncated { what: self.what, at: self.bytes.len() as u64 })?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], LogError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// `count` things of at least `size` bytes each: refused before allocating if the bytes cannot hold them.
    fn many<T>(
        &mut self,
        count: usize,
        size: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, LogError>,
    ) -> Result<Vec<T>, LogError> {
        if count * size > self.bytes.len() - self.at {
            return Err(LogError::Truncated { what: self.what, at: self.bytes.len() as u64 });
        }
        (0..count).map(|_| read(self)).collect()
    }

    fn malformed(&self, why: &str) -> LogError {
        LogError::Malformed { what: self.what, at: self.at as u64, why: why.into() }
    }

    fn finish(self) -> Result<(), LogError> {
        match self.at == self.bytes.len() {
            true => Ok(()),
            false => Err(LogError::Trailing { what: self.what, at: self.at as u64 }),
        }
    }
}
