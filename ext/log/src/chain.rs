//! The chain rule: decides whether the next entry may follow the last one.
//!
//! Invariants
//! - `next.parent == tip`; an entry names exactly one parent, and the first names the root.
//! - Every entry is of this channel and signed by its author: the key that *is* the channel id.
//! - Parts of a message follow each other without gap, messages likewise: seq counts 1, 2, 3, …
//! - Order of checks: channel, signer, signature, parent, part; of a configuration: channel, signature, keys, so that what
//!   nobody signed is never believed: half a file that looks like another parent is damage, and no fork. A refused link leaves
//!   the chain as it was.
//! - Two histories are proven by the author's signature under the part that is due, with another parent. Any other entry
//!   of the author's at this place proves nothing: whoever can copy files can put it there.
//! - The signatures of a transaction are checked once, however many links it holds.
//!
//! Not here: reading the channel, joining pieces (`engine::replica`), the digest chain of payloads (checked by
//! whoever joined the pieces, since only then the digest is known).

use std::cell::OnceCell;

use crate::crypto::verify;
use crate::entry::{ChannelConfig, Inscription, Op, Proof, SignedTx};
use crate::error::LogError;
use crate::ids::{ChannelId, MsgId, PublicKey, TxHash};
use crate::part::Part;

/// One operation that moves a channel's tip.
#[derive(Debug, Clone, Copy)]
pub enum Link<'a> {
    /// An entry; it names its parent.
    Entry(&'a Inscription),
    /// A configuration; it names none.
    Config(&'a ChannelConfig),
}

impl<'a> Link<'a> {
    /// The operation as a link of `channel`, if it is one.
    pub fn of(op: &'a Op, channel: ChannelId) -> Option<Self> {
        match op {
            Op::Inscribe(inscription) if inscription.channel == channel => Some(Self::Entry(inscription)),
            Op::Config(config) if config.channel == channel => Some(Self::Config(config)),
            Op::Inscribe(_) | Op::Config(_) | Op::Transfer(_) => None,
        }
    }

    /// Its id: what the next link is appended to.
    pub fn id(&self) -> MsgId {
        match self {
            Self::Entry(inscription) => inscription.id(),
            Self::Config(config) => config.id(),
        }
    }

    /// The channel that it is a link of.
    pub fn channel(&self) -> ChannelId {
        match self {
            Self::Entry(inscription) => inscription.channel,
            Self::Config(config) => config.channel,
        }
    }
}

/// A transaction whose proofs are checked when that is first asked for, and then never again.
#[derive(Debug, Clone)]
pub struct CheckedTx {
    tx: SignedTx,
    verified: OnceCell<Result<TxHash, LogError>>,
}

impl From<SignedTx> for CheckedTx {
    fn from(tx: SignedTx) -> Self {
        Self { tx, verified: OnceCell::new() }
    }
}

impl CheckedTx {
    /// The transaction, whether it holds or not.
    pub fn tx(&self) -> &SignedTx {
        &self.tx
    }

    /// The links of a channel in it, in order.
    pub fn links(&self, channel: ChannelId) -> impl Iterator<Item = Link<'_>> {
        self.tx.ops.iter().filter_map(move |op| Link::of(op, channel))
    }

    /// Its hash, if its proofs hold.
    fn verified(&self) -> Result<TxHash, LogError> {
        self.verified.get_or_init(|| self.tx.verify().map(|()| self.tx.hash())).clone()
    }

    /// Whether a link in it is signed by the author of its channel: the key that is the channel's id. An entry names its
    /// signer; a configuration names none and may be signed by several, of whom the author must be one.
    pub fn check_author(&self, link: Link<'_>) -> Result<(), LogError> {
        let author = PublicKey(link.channel().0);
        match link {
            Link::Entry(inscription) if inscription.signer != author => {
                Err(LogError::WrongSigner { id: link.id(), found: inscription.signer, expected: author })
            }
            Link::Entry(_) => self.verified().map(drop),
            Link::Config(config) => {
                let hash = self.verified()?;
                let by_author = |(op, proof): (&Op, &Proof)| match (op, proof) {
                    (Op::Config(found), Proof::MultiSig(signatures)) => {
                        found == config && signatures.iter().any(|(s, _)| verify(&author, hash.as_bytes(), s))
                    }
                    _ => false,
                };
                match self.tx.ops.iter().zip(&self.tx.proofs).any(by_author) {
                    true => Ok(()),
                    false => Err(LogError::BadSignature { id: link.id() }),
                }
            }
        }
    }
}

/// Where a reader stands on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The channel; its id is the author's public key.
    pub channel: ChannelId,
    /// Id of the last accepted entry; the root before the first.
    pub tip: MsgId,
    /// How many entries were accepted.
    pub entries: u64,
    /// The message that the next part belongs to.
    pub seq: u64,
    /// The index of that part.
    pub index: u32,
}

impl Chain {
    /// Before the first entry.
    pub fn new(channel: ChannelId) -> Self {
        Self { channel, tip: MsgId::ROOT, entries: 0, seq: 1, index: 0 }
    }

    /// Who may write on this channel.
    pub fn author(&self) -> PublicKey {
        PublicKey(self.channel.0)
    }

    /// Checks one inscription of a transaction and steps over it. The signature is checked over the whole transaction.
    pub fn accept<'a>(&mut self, tx: &CheckedTx, inscription: &'a Inscription) -> Result<Part<'a>, LogError> {
        let id = inscription.id();
        if inscription.channel != self.channel {
            return Err(LogError::WrongChannel { id, found: inscription.channel, expected: self.channel });
        }
        tx.check_author(Link::Entry(inscription))?;
        if inscription.parent != self.tip {
            return Err(self.not_next(inscription));
        }
        let part = Part::decode(&inscription.data)?;
        if (part.seq, part.index) != (self.seq, self.index) {
            let why = format!(
                "part {} of message {} came where part {} of message {} was due",
                part.index, part.seq, self.index, self.seq
            );
            return Err(LogError::WrongSequence { seq: part.seq, why });
        }
        self.tip = id;
        self.entries += 1;
        if part.last {
            self.seq += 1;
            self.index = 0;
        } else {
            self.index += 1;
        }
        Ok(part)
    }

    /// What is wrong with an entry of the author's that follows another one.
    fn not_next(&self, inscription: &Inscription) -> LogError {
        let id = inscription.id();
        let name = |seq: u64, index: u32| format!("part {index} of message {seq}");
        match Part::decode(&inscription.data) {
            Ok(part) if (part.seq, part.index) == (self.seq, self.index) => {
                LogError::WrongParent { id, found: inscription.parent, expected: self.tip }
            }
            part => LogError::Misplaced {
                id,
                found: part.map_or_else(|_| "no part that this build can read".into(), |p| name(p.seq, p.index)),
                expected: name(self.seq, self.index),
            },
        }
    }

    /// Checks a configuration of the channel and steps over it: it is a link, but no entry. Only one that the author signed
    /// and that leaves him the only writer is accepted.
    pub fn accept_config(&mut self, tx: &CheckedTx, config: &ChannelConfig) -> Result<(), LogError> {
        let id = config.id();
        if config.channel != self.channel {
            return Err(LogError::WrongChannel { id, found: config.channel, expected: self.channel });
        }
        tx.check_author(Link::Config(config))?;
        if config.keys != [self.author()] {
            let keys = config.keys.iter().map(PublicKey::to_string).collect::<Vec<_>>().join(", ");
            return Err(LogError::KeysChanged { id, keys });
        }
        self.tip = id;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::crypto::SigningKey;
    use crate::entry::{sign_entry, sign_ops};

    fn key(n: u8) -> SigningKey {
        SigningKey::from_seed(&[n; 32])
    }

    fn channel() -> ChannelId {
        ChannelId(key(1).public_key().0)
    }

    fn entry(key: &SigningKey, channel: ChannelId, parent: MsgId, seq: u64, index: u32, last: bool) -> SignedTx {
        sign_entry(key, channel, parent, Part { seq, index, last, piece: b"x" }.encode())
    }

    fn accept(chain: &mut Chain, tx: &SignedTx) -> Result<(), LogError> {
        chain.accept(&tx.clone().into(), tx.inscriptions().next().unwrap()).map(drop)
    }

    /// A chain that has accepted one message of two parts.
    fn chain() -> Chain {
        let mut chain = Chain::new(channel());
        for (index, last) in [(0, false), (1, true)] {
            let tip = chain.tip;
            accept(&mut chain, &entry(&key(1), channel(), tip, 1, index, last)).unwrap();
        }
        chain
    }

    fn refusal(tx: &SignedTx) -> LogError {
        let mut chain = chain();
        let before = chain.clone();
        let error = accept(&mut chain, tx).unwrap_err();
        assert_eq!(chain, before, "a refused entry leaves the chain as it was");
        error
    }

    #[test]
    fn entries_that_follow_are_accepted() {
        let chain = chain();
        assert_eq!((chain.entries, chain.seq, chain.index), (2, 2, 0));
    }

    #[test]
    fn an_entry_of_another_channel_is_refused() {
        let other = ChannelId([7; 32]);
        assert!(matches!(refusal(&entry(&key(1), other, chain().tip, 2, 0, true)), LogError::WrongChannel { .. }));
    }

    #[test]
    fn a_replayed_or_skipped_entry_is_misplaced_and_proves_no_fork() {
        let replay = entry(&key(1), channel(), MsgId::ROOT, 1, 0, false);
        assert!(matches!(refusal(&replay), LogError::Misplaced { .. }));
        let later = entry(&key(1), channel(), MsgId([9; 32]), 3, 0, true);
        assert!(matches!(refusal(&later), LogError::Misplaced { .. }));
    }

    #[test]
    fn the_part_that_is_due_after_another_entry_is_a_fork_if_the_author_signed_it() {
        let fork = entry(&key(1), channel(), MsgId([9; 32]), 2, 0, true);
        assert!(matches!(refusal(&fork), LogError::WrongParent { .. }));
        let mut unsigned = fork;
        unsigned.proofs = vec![Proof::Ed25519([0; 64])];
        assert!(matches!(refusal(&unsigned), LogError::BadSignature { .. }));
    }

    #[test]
    fn an_entry_signed_by_another_key_is_refused() {
        assert!(matches!(refusal(&entry(&key(2), channel(), chain().tip, 2, 0, true)), LogError::WrongSigner { .. }));
    }

    #[test]
    fn an_entry_with_another_ones_signature_is_refused() {
        let mut forged = entry(&key(1), channel(), chain().tip, 2, 0, true);
        forged.proofs = entry(&key(1), channel(), chain().tip, 2, 0, false).proofs;
        assert!(matches!(refusal(&forged), LogError::BadSignature { .. }));
    }

    #[test]
    fn a_configuration_is_a_link_if_the_author_signed_it_and_stays_the_only_writer() {
        let config = |channel, keys: &[u8]| ChannelConfig {
            channel,
            keys: keys.iter().map(|n| key(*n).public_key()).collect(),
            posting_timeframe: 0,
            posting_timeout: 0,
            configuration_threshold: 1,
            transfer_threshold: 1,
        };
        let accept = |signer: u8, config: &ChannelConfig| {
            let mut chain = chain();
            let tx = sign_ops(&key(signer), vec![Op::Config(config.clone())], None);
            chain.accept_config(&tx.into(), config).map(|()| chain)
        };
        let good = config(channel(), &[1]);
        assert_eq!(accept(1, &good).unwrap().tip, good.id());
        assert!(matches!(accept(2, &good).unwrap_err(), LogError::BadSignature { .. }));
        assert!(matches!(accept(1, &config(channel(), &[1, 2])).unwrap_err(), LogError::KeysChanged { .. }));
        assert!(matches!(accept(1, &config(channel(), &[2])).unwrap_err(), LogError::KeysChanged { .. }));
        assert!(matches!(accept(1, &config(ChannelId([7; 32]), &[1])).unwrap_err(), LogError::WrongChannel { .. }));
        // What it says is only looked at if the author signed it.
        assert!(matches!(accept(2, &config(channel(), &[2])).unwrap_err(), LogError::BadSignature { .. }));
        let unsigned = SignedTx { ops: vec![Op::Config(good.clone())], proofs: vec![Proof::MultiSig(Vec::new())] };
        assert!(matches!(chain().accept_config(&unsigned.into(), &good).unwrap_err(), LogError::BadSignature { .. }));
    }

    #[test]
    fn parts_out_of_turn_are_refused() {
        for (seq, index) in [(1, 2), (2, 1), (3, 0)] {
            let error = refusal(&entry(&key(1), channel(), chain().tip, seq, index, true));
            assert!(matches!(error, LogError::WrongSequence { .. }), "{error}");
        }
    }

    #[test]
    fn an_entry_that_is_no_part_is_refused() {
        let tx = sign_entry(&key(1), channel(), chain().tip, Vec::new());
        assert!(matches!(refusal(&tx), LogError::Truncated { .. }));
    }
}
