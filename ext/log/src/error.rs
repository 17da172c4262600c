//! Every way in which bytes can be wrong, one sentence each.
//!
//! The sentence says what and where; the layer that knows the channel and the database adds what to do.

use crate::ids::{ChannelId, MsgId, PublicKey};

/// Wrong bytes: an entry, a payload or an identifier that must not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// An identifier that is not in its one text or byte form.
    #[error("{found:?} is not a {what}")]
    BadId {
        /// Which identifier was expected.
        what: &'static str,
        /// What stood there instead, cut short.
        found: String,
    },
    /// The bytes end before the value does.
    #[error("{what} ends too early, at byte {at}")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Offset from the start of that thing.
        at: u64,
    },
    /// Bytes are left over after the last value.
    #[error("{what} has bytes left over, from byte {at} on")]
    Trailing {
        /// What was being read.
        what: &'static str,
        /// Offset of the first byte too many.
        at: u64,
    },
    /// A value that the format does not allow.
    #[error("{what} is malformed at byte {at}: {why}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// Offset from the start of that thing.
        at: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A length or count beyond its limit.
    #[error("{what} is too large: {found}, at most {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// A payload of a format that this build does not read.
    #[error("format {found} is newer than this build, which reads up to {newest}")]
    NewerFormat {
        /// The version byte found.
        found: u8,
        /// The newest version this build reads.
        newest: u8,
    },
    /// The signature does not belong to the signer and the bytes.
    #[error("entry {id} carries a signature that is not its signer's")]
    BadSignature {
        /// The entry.
        id: MsgId,
    },
    /// A JSON value of another shape than the node protocol has.
    #[error("{path} is not what the node protocol says: {why}")]
    Json {
        /// Where in the document.
        path: String,
        /// What is wrong there.
        why: String,
    },
    /// A transaction carries an operation that we cannot encode, so its hash and signatures cannot be checked.
    #[error("operation {opcode:#04x} is unknown to this build, so its transaction cannot be checked")]
    UnknownOp {
        /// The operation's code.
        opcode: u64,
    },
    /// The proofs of a transaction are not the ones its operations need.
    #[error("the proof of operation {op} does not fit: {why}")]
    WrongProof {
        /// Index of the operation.
        op: usize,
        /// What does not fit.
        why: String,
    },
    /// The entry belongs to another channel.
    #[error("entry {id} belongs to channel {found}, not to {expected}")]
    WrongChannel {
        /// The entry.
        id: MsgId,
        /// Its channel.
        found: ChannelId,
        /// The channel being read.
        expected: ChannelId,
    },
    /// The signer is not the author of the channel.
    #[error("entry {id} was signed by {found}, which is not the author of this channel ({expected})")]
    WrongSigner {
        /// The entry.
        id: MsgId,
        /// Who signed.
        found: PublicKey,
        /// Who may sign.
        expected: PublicKey,
    },
    /// A configuration gives the channel to other keys than its author's.
    #[error("configuration {id} gives this channel to the keys {keys}, and its author is no longer its only writer")]
    KeysChanged {
        /// The configuration.
        id: MsgId,
        /// Who may write from then on.
        keys: String,
    },
    /// The entry does not follow the one before it.
    #[error("entry {id} follows {found}, but the entry before it is {expected}")]
    WrongParent {
        /// The entry.
        id: MsgId,
        /// The parent it names.
        found: MsgId,
        /// The tip it should name.
        expected: MsgId,
    },
    /// The author's entry, but not the one that is due here: an older one shown again, or one of later.
    #[error("entry {id} is {found}, and {expected} is due")]
    Misplaced {
        /// The entry.
        id: MsgId,
        /// What it is a part of.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// The payload does not follow the payload before it, or its parts do not fit together.
    #[error("message {seq} does not follow the one before it: {why}")]
    WrongSequence {
        /// The sequence number found.
        seq: u64,
        /// What does not fit.
        why: String,
    },
    /// Reading or writing the underlying stream failed.
    #[error("reading or writing {what} failed: {why}")]
    Stream {
        /// What was being read or written.
        what: &'static str,
        /// The cause.
        why: String,
    },
}
