//! The writing end: brings stored entries into blocks, and knows which of them are included and which are final.
//!
//! Invariants
//! - The channel is ours alone, or nothing is sent: its only key is the author's and its tip one of our entries.
//! - Entries are posted one after another, parents first. What is neither on the chain nor in the node's pool is posted again
//!   with the same bytes; only the transfer that pays may be made anew, and then the entry keeps its id and parent.
//! - "Included" and "final" follow from the blocks between the tip and the last irreversible block and from the channel's
//!   state at that tip, which must agree.
//! - The publisher stops for another writer only when the author's signature proves one.
//! - That a node accepts a post means nothing; only a block does.
//!
//! Not here: when to try again after an error (`drive::publisher::sending`), storing anything.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use logos_log::chain::Link as ChainLink;
use logos_log::crypto::SigningKey;
use logos_log::entry::{sign_ops, Op, SignedTx};
use logos_log::ids::{ChannelId, MsgId, PublicKey, TxHash};

use super::api::{Api, Funds, Range};
use super::carrier::{pack, Carrier, Memo};
use super::shape::{id32, BlockId, ChannelState, ChannelTx, Info, Link};
use super::tree::{Recent, Tree};
use super::{check_node, inconsistent, reconfigured, WriteOptions};
use crate::channel::entry::{Place, Settled, StoredEntry};
use crate::channel::{Author, Known, Store, Writer};
use crate::error::{Error, Result};

/// A transaction that should be pending is looked for in the pool when the tip has moved, or after this time.
const LOOK: Duration = Duration::from_secs(5);

/// Where the node does not show its pool, a transaction counts as lost after this time.
const LOST: Duration = Duration::from_secs(60);

/// Default of `reserve_percent`.
const RESERVE: u64 = 12;

/// How often to ask for tip and channel until both are of the same moment.
const TRIES: usize = 10;

/// Writes one channel through one node.
pub struct LogosWriter {
    api: Api,
    channel: ChannelId,
    key: SigningKey,
    options: WriteOptions,
    genesis: Option<BlockId>,
    tree: Tree,
    /// The channel at a tip.
    seen: Option<(BlockId, Option<ChannelState>)>,
    /// In the order of entries.
    carriers: Vec<Carrier>,
    /// Transactions that may be on their way: less than the option says when notes are lacking.
    allowed: usize,
    included_before: Option<u64>,
    slot_ms: Option<u64>,
}

/// How far the offered entries have come.
struct Reached {
    included: usize,
    finals: usize,
}

impl LogosWriter {
    /// The writing end of the author's channel.
    pub fn new(base: &str, author: Author, options: &WriteOptions) -> Self {
        let channel = ChannelId(author.key.public_key().0);
        let memo: Memo = serde_json::from_str(&author.memo.unwrap_or_default()).unwrap_or_default();
        Self {
            api: Api::new(base),
            channel,
            key: author.key,
            allowed: options.in_flight(),
            options: options.clone(),
            genesis: memo.genesis.as_deref().and_then(id32).map(BlockId),
            carriers: memo.flying.iter().filter_map(Carrier::restored).collect(),
            tree: Tree::new(channel, false),
            seen: None,
            included_before: None,
            slot_ms: None,
        }
    }

    /// Tip and channel at one and the same moment.
    fn look(&mut self) -> Result<(Info, Option<ChannelState>)> {
        let mut info = self.api.info()?;
        for _ in 0..TRIES {
            check_node(self.api.base(), &info, self.genesis)?;
            self.genesis = self.genesis.or(info.genesis);
            if let Some((_, state)) = self.seen.as_ref().filter(|(tip, _)| *tip == info.tip) {
                return Ok((info, state.clone()));
            }
            let state = self.api.channel(self.channel)?;
            let again = self.api.info()?;
            if again.tip == info.tip {
                self.seen = Some((info.tip, state.clone()));
                return Ok((again, state));
            }
            info = again;
        }
        Err(inconsistent(self.api.base(), "its tip moves faster than it can be asked"))
    }

    /// The only key of the channel must be ours.
    fn check_owner(&self, state: Option<&ChannelState>) -> Result<()> {
        match state {
            Some(state) if state.keys != [PublicKey(self.channel.0)] => {
                let keys = state.keys.iter().map(PublicKey::to_string).collect::<Vec<_>>().join(", ");
                Err(Error::fix(
                    format!("channel {} belongs to {keys}, and not to the key of this database alone", self.channel),
                    "nothing was sent and nothing is lost; somebody took the channel's id or its keys were changed: \
                     SELECT logos_remove(), then logos_publish begins a new channel",
                ))
            }
            _ => Ok(()),
        }
    }

    /// Finds out how far the entries have come; whatever on the channel is not ours is an error.
    fn locate(
        &mut self,
        entries: &[StoredEntry],
        store: &dyn Store,
        state: Option<&ChannelState>,
        info: &Info,
        path: &[Recent],
    ) -> Result<Reached> {
        let links = || path.iter().flat_map(|block| block.links.iter().map(move |link| (link, block)));
        for (link, block) in links() {
            if store.index_of(&link.id)?.is_none() {
                let txs = self.tree.txs(&mut self.api, block.id)?;
                let place = format!("block {} (slot {})", block.id, block.slot);
                return Err(self.stranger(link.id, &txs, &place, entries));
            }
        }
        let tip = state.map_or(MsgId::ROOT, |state| state.tip);
        if links().last().is_some_and(|(last, _)| last.id != tip) {
            return Err(inconsistent(
                self.api.base(),
                "its blocks end with another entry than its state of the channel",
            ));
        }
        if let Some(hidden) =
            state.filter(|state| path.iter().all(|b| b.links.is_empty()) && state.tip_slot > info.lib_slot)
        {
            let what =
                format!("it knows entry {tip} (slot {}) as the newest, and its blocks do not show it", hidden.tip_slot);
            return Err(inconsistent(self.api.base(), &what));
        }
        if let Some(state) = state.filter(|_| tip != MsgId::ROOT) {
            if store.index_of(&tip)?.is_none() && entries.first().is_none_or(|first| first.parent != tip) {
                return Err(self.stranger_of_old(tip, state.tip_slot, entries));
            }
        }
        let included = self.count_to(&tip, entries, store)?;
        let finals = match links().next().map(|(first, _)| first.parent) {
            Some(Some(parent)) => self.count_to(&parent, entries, store)?.min(included),
            // A configuration does not say what it follows.
            Some(None) => 0,
            None => included,
        };
        Ok(Reached { included, finals })
    }

    /// How many of the entries are at or before an entry of ours.
    fn count_to(&self, id: &MsgId, entries: &[StoredEntry], store: &dyn Store) -> Result<usize> {
        let Some(first) = entries.first() else { return Ok(0) };
        if first.parent == *id {
            return Ok(0);
        }
        match store.index_of(id)? {
            Some(index) if index >= first.index => Ok(entries.len().min((index - first.index + 1) as usize)),
            _ => Err(Error::retry(
                format!(
                    "{} does not know entries of this channel that were final before: it stands at {id}, and {} is final",
                    self.api.base(),
                    first.parent
                ),
                "nothing was sent and nothing is lost; the node is catching up, or it is on another network: it goes on by itself \
                 when the node knows them. If every node says so, the one that called them final lied: SELECT logos_resync() sends \
                 what the channel lacks",
            )),
        }
    }

    /// The newest link of the channel is not one that this database has made, and it lies in an irreversible block.
    fn stranger_of_old(&mut self, id: MsgId, slot: u64, entries: &[StoredEntry]) -> Error {
        let blocks = match self.api.blocks(slot, slot, self.channel) {
            Ok(Range::Blocks(blocks, _)) => blocks,
            Ok(Range::TooLarge) => Vec::new(),
            Err(e) => return e,
        };
        let holds = |txs: &[ChannelTx]| txs.iter().any(|tx| tx.links.iter().any(|link| link.id == id));
        match blocks.iter().find(|block| holds(&block.txs)) {
            Some(block) => self.stranger(id, &block.txs, &format!("block {} (slot {slot})", block.id), entries),
            None => inconsistent(
                self.api.base(),
                &format!("it knows entry {id} as the newest of the channel, and has no final block of slot {slot} that holds it"),
            ),
        }
    }

    /// A link on our channel that this database has not made. Only if the author has signed it there is another writer.
    fn stranger(&self, id: MsgId, txs: &[ChannelTx], place: &str, entries: &[StoredEntry]) -> Error {
        let links = txs.iter().flat_map(|tx| tx.tx.links(self.channel).map(move |link| (tx, link)));
        let mut signed = links.filter(|(tx, link)| link.id() == id && tx.tx.check_author(*link).is_ok());
        let Some((_, link)) = signed.next() else {
            let what =
                format!("{place} holds entry {id}, which the author of this channel has not signed: it was forged");
            return inconsistent(self.api.base(), &what);
        };
        let parent = match link {
            ChainLink::Entry(entry) => entry.parent,
            ChainLink::Config(_) => return reconfigured(self.channel, &format!("{id} in {place}")),
        };
        let what = match entries.iter().find(|entry| entry.parent == parent) {
            Some(ours) => format!(
                "another writer has entry {} of channel {}: {id} in {place} stands where {} of this database belongs",
                ours.index, self.channel, ours.id
            ),
            None => format!("channel {} is ahead of this database: {id} in {place} was not made here", self.channel),
        };
        Error::resync(
            format!(
                "{what}; this database or its sidecar was copied, or restored from a backup, and more was published since with \
                 the same key"
            ),
            "nothing was sent over it and the changes stay in this database; stop the other writer, or restore the newest copy \
             with its sidecar. To go on from this one, SELECT logos_resync(): it compares the database with the channel and \
             undoes there what only the channel has",
        )
    }

    /// Where each included entry is and what it has cost.
    fn places(
        &self,
        entries: &[StoredEntry],
        reached: &Reached,
        path: &[Recent],
        state: Option<&ChannelState>,
    ) -> Vec<Place> {
        let found: HashMap<MsgId, (u64, Link)> =
            path.iter().flat_map(|block| block.links.iter().map(move |link| (link.id, (block.slot, *link)))).collect();
        let place = |entry: &StoredEntry| match found.get(&entry.id) {
            Some((slot, link)) => {
                Place { slot: Some(*slot as i64), fee: self.fee_of(entry, Some(link.tx), entries).or(entry.place.fee) }
            }
            None => {
                let tip = state.filter(|state| state.tip == entry.id).map(|state| state.tip_slot as i64);
                Place { slot: entry.place.slot.or(tip), fee: entry.place.fee.or(self.fee_of(entry, None, entries)) }
            }
        };
        entries[..reached.included].iter().map(place).collect()
    }

    /// The part of a transaction's fee that falls to one of its entries, by their sizes. Without a transaction: of the one posted
    /// last, since the entry became final between two looks.
    fn fee_of(&self, entry: &StoredEntry, tx: Option<TxHash>, entries: &[StoredEntry]) -> Option<i64> {
        let n = self.carriers.partition_point(|carrier| carrier.last < entry.index);
        let carrier = self.carriers.get(n).filter(|carrier| carrier.first <= entry.index)?;
        let fee = u128::from(carrier.fee.filter(|_| tx.is_none_or(|tx| tx == carrier.hash))?);
        // Indices follow each other without a gap.
        let begin = entries.first()?.index;
        let at = |index: u64| (index.saturating_sub(begin) as usize).min(entries.len());
        let (mut before, mut all) = (0, 0);
        for other in &entries[at(carrier.first)..at(carrier.last + 1)] {
            if other.index < entry.index {
                before += u128::from(other.size);
            }
            all += u128::from(other.size);
        }
        let up_to = |bytes: u128| fee * bytes / all.max(1);
        i64::try_from(up_to(before + u128::from(entry.size)) - up_to(before)).ok()
    }

    /// Posts again what was lost, and then what is new, as far as notes and limits go.
    fn advance(&mut self, entries: &[StoredEntry], included: usize, store: &dyn Store, info: &Info) -> Result<()> {
        let Some(next) = entries.get(included).map(|entry| entry.index) else { return Ok(()) };
        self.order_carriers(next);
        let flying = self.carriers.iter().position(|carrier| carrier.first >= next).unwrap_or(self.carriers.len());
        self.repost(flying, store, info)?;
        let mut offered = entries[included..]
            .iter()
            .skip_while(|entry| self.carriers.last().is_some_and(|carrier| entry.index <= carrier.last));
        let mut rest: Vec<&StoredEntry> = offered.by_ref().collect();
        while !rest.is_empty() && self.carriers.len() - flying < self.allowed {
            let count = pack(&rest);
            let (first, last) = (rest[0].index, rest[count - 1].index);
            let before = self.carriers.len() - flying;
            let Some(carrier) = self.make(first, last, store, before)? else { break };
            self.carriers.push(carrier);
            rest.drain(..count);
            self.post(self.carriers.len() - 1, store, info)?;
        }
        Ok(())
    }

    /// Keeps the carriers that still make sense: whole, and those not included without a gap.
    fn order_carriers(&mut self, next: u64) {
        self.carriers.retain(|carrier| carrier.last < next || carrier.first >= next);
        let mut want = next;
        let gap = self.carriers.iter().position(|carrier| {
            let fits = carrier.last < next || carrier.first == want;
            want = want.max(carrier.last + 1);
            !fits
        });
        self.carriers.truncate(gap.unwrap_or(self.carriers.len()));
    }

    /// Posts again what should be pending and is not.
    fn repost(&mut self, flying: usize, store: &dyn Store, info: &Info) -> Result<()> {
        let unsure = |carrier: &Carrier| carrier.pending_at != Some(info.tip) || carrier.posted.elapsed() > LOOK;
        if !self.carriers[flying..].iter().any(unsure) {
            return self.unpaid(flying);
        }
        let pool = self.api.pool()?;
        for n in flying..self.carriers.len() {
            let carrier = &mut self.carriers[n];
            let pending = match &pool {
                Some(pool) => pool.contains(&carrier.hash),
                None => carrier.pending_at.is_some() && carrier.posted.elapsed() < LOST,
            };
            if pending {
                carrier.pending_at = Some(info.tip);
                continue;
            }
            if n == flying && carrier.pending_at != Some(info.tip) {
                carrier.missed += 1;
            }
            if carrier.missed > 2 && carrier.transfer.is_some() {
                // Blocks came without it although nothing was before it: what it pays with is spent, or too little by now.
                let (first, last) = (carrier.first, carrier.last);
                match self.make(first, last, store, n - flying) {
                    Ok(Some(fresh)) => self.carriers[n] = fresh,
                    Ok(None) => self.carriers[n].missed = 1,
                    // It is posted as it is, since what was paid may be enough again, and asked for with the next block.
                    Err(e) => self.carriers[n].unpaid = Some(e),
                }
            }
            self.post(n, store, info)?;
        }
        self.unpaid(flying)
    }

    /// What keeps the first one on its way from being paid for anew, until it is, or is included all the same.
    fn unpaid(&self, flying: usize) -> Result<()> {
        self.carriers.get(flying).and_then(|carrier| carrier.unpaid.clone()).map_or(Ok(()), Err)
    }

    fn ops(&self, first: u64, last: u64, store: &dyn Store) -> Result<Vec<Op>> {
        let mut ops = Vec::new();
        for index in first..=last {
            ops.extend(store.entry(index)?.ops);
        }
        Ok(ops)
    }

    fn post(&mut self, n: usize, store: &dyn Store, info: &Info) -> Result<()> {
        let carrier = &self.carriers[n];
        let mut ops = self.ops(carrier.first, carrier.last, store)?;
        let (transfer, proof) = carrier.transfer.clone().unzip();
        ops.extend(transfer);
        let tx: SignedTx = sign_ops(&self.key, ops, proof);
        self.api.add(&tx)?;
        let carrier = &mut self.carriers[n];
        carrier.pending_at = Some(info.tip);
        carrier.posted = Instant::now();
        Ok(())
    }

    /// Pays for entries. Nothing when the wallet has no more notes now but will have when those on their way `before` these are
    /// included.
    fn make(&mut self, first: u64, last: u64, store: &dyn Store, before: usize) -> Result<Option<Carrier>> {
        let ops = self.ops(first, last, store)?;
        let mut carrier = Carrier {
            first,
            last,
            hash: SignedTx { ops: ops.clone(), proofs: Vec::new() }.hash(),
            transfer: None,
            fee: None,
            pending_at: None,
            posted: Instant::now(),
            missed: 0,
            unpaid: None,
        };
        let Some(wallet) = self.options.wallet_key.clone() else {
            return self.check_free(true).map(|()| Some(carrier));
        };
        let cap = self.options.fee_cap.unwrap_or(u64::MAX);
        match self.api.fund(&ops, &wallet, cap, self.options.reserve_percent.unwrap_or(RESERVE))? {
            Funds::Free => Ok(Some(carrier)),
            Funds::NoWallet => self.check_free(false).map(|()| Some(carrier)),
            Funds::Paid(funded, proof, tip) => {
                carrier.hash = SignedTx { ops: funded.clone(), proofs: Vec::new() }.hash();
                let transfer = funded.into_iter().next_back();
                carrier.fee = transfer.as_ref().and_then(|transfer| self.price_of(transfer, &wallet, tip));
                carrier.transfer = transfer.map(|transfer| (transfer, proof));
                Ok(Some(carrier))
            }
            Funds::Refused(_) if before > 0 => {
                self.allowed = before.min(self.allowed).max(1);
                Ok(None)
            }
            Funds::Refused(why) => Err(Error::retry(
                format!("the wallet of {} does not pay for entries {first} to {last}: {why}", self.api.base()),
                "nothing was lost and the changes wait here; give the key named as wallet_key more funds, or raise fee_cap: it \
                 goes on by itself then",
            )),
        }
    }

    /// Without a wallet there must not be fees. It is the publisher who named none, or the node that has none.
    fn check_free(&mut self, unnamed: bool) -> Result<()> {
        let prices = self.api.prices()?;
        if !prices.is_some_and(|prices| prices.execution_base_gas_price > 0 || prices.storage_gas_price > 0) {
            return Ok(());
        }
        let base = self.api.base();
        Err(match unnamed {
            true => Error::fix(
                format!("the chain of {base} asks for fees, and nobody was named who pays"),
                "nothing was lost and the changes wait here; SELECT logos_stop(), then publish again with the option \
                 {\"wallet_key\": \"<public key of the node's wallet, 64 hex digits>\"}",
            ),
            false => Error::fix(
                format!("the chain of {base} asks for fees, and this node has no wallet that pays them"),
                "nothing was lost and the changes wait here; SELECT logos_stop(), then publish again to a node with a wallet: the \
                 channel stays the same",
            ),
        })
    }

    /// What a transfer spends more than it makes, if the wallet tells.
    fn price_of(&mut self, transfer: &Op, wallet: &str, tip: BlockId) -> Option<u64> {
        let Op::Transfer(transfer) = transfer else { return None };
        let notes: HashMap<_, _> = self.api.notes(wallet, tip).ok()?.into_iter().collect();
        let spent =
            transfer.inputs.iter().map(|id| notes.get(id).map(|value| u128::from(*value))).sum::<Option<u128>>()?;
        let made: u128 = transfer.outputs.iter().map(|(value, _)| u128::from(*value)).sum();
        u64::try_from(spent.checked_sub(made)?).ok()
    }

    /// Forgets carriers of final entries, and dares more when something got through.
    fn account(&mut self, entries: &[StoredEntry], reached: &Reached) {
        let first_open = entries.get(reached.finals).map_or(u64::MAX, |entry| entry.index);
        self.carriers.retain(|carrier| carrier.last >= first_open);
        let included = entries.get(reached.included.wrapping_sub(1)).map(|entry| entry.index);
        if included > self.included_before {
            self.allowed = (self.allowed + 1).min(self.options.in_flight());
        }
        self.included_before = included;
    }

    /// Mean time between blocks.
    fn pace(&mut self, path: &[Recent]) -> Option<Duration> {
        if self.slot_ms.is_none() {
            self.slot_ms = self.api.time().ok().flatten().map(|time| time.slot_duration_ms);
        }
        let (first, last) = (path.first()?, path.last()?);
        let slots = last.slot.saturating_sub(first.slot).checked_div(path.len() as u64 - 1)?;
        Some(Duration::from_millis(self.slot_ms?.saturating_mul(slots).min(120_000)))
    }

    /// What a restarted writer needs: transactions paid for but not included yet.
    fn memo(&self, next: Option<u64>) -> Option<String> {
        let flying = self.carriers.iter().filter(|carrier| next.is_some_and(|next| carrier.first >= next));
        let memo =
            Memo { genesis: self.genesis.map(|id| id.to_string()), flying: flying.map(Carrier::stored).collect() };
        serde_json::to_string(&memo).ok()
    }

    /// When to look again.
    fn again(&self, entries: &[StoredEntry], reached: &Reached, pace: Option<Duration>) -> Option<Duration> {
        let (floor, ceiling) = (Duration::from_millis(50), Duration::from_secs(2));
        let poll = self.options.poll_ms.map(|ms| Duration::from_millis(ms.max(1)));
        if reached.included < entries.len() {
            return Some(
                poll.unwrap_or_else(|| pace.map_or(Duration::from_secs(1), |pace| pace / 8).clamp(floor, ceiling)),
            );
        }
        let slow = || pace.unwrap_or(ceiling).clamp(floor, Duration::from_secs(15));
        (reached.finals < entries.len()).then(|| poll.unwrap_or_else(slow))
    }
}

impl Writer for LogosWriter {
    fn send(&mut self, entries: &[StoredEntry], store: &dyn Store) -> Result<Known> {
        if self.options.wallet_key.as_deref().is_some_and(|key| id32(key).is_none()) {
            return Err(Error::fix(
                "the option wallet_key is not a public key of 64 hex digits",
                "nothing was sent and nothing is lost; SELECT logos_stop(), then publish again with the key of the node's wallet",
            ));
        }
        let (info, state) = self.look()?;
        self.check_owner(state.as_ref())?;
        let path = self.tree.walk(&mut self.api, &info)?;
        let reached = self.locate(entries, store, state.as_ref(), &info, &path)?;
        let places = self.places(entries, &reached, &path, state.as_ref());
        self.account(entries, &reached);
        let trouble = self.advance(entries, reached.included, store, &info).err();
        let pace = self.pace(&path);
        Ok(Known {
            again: self.again(entries, &reached, pace),
            settled: Settled {
                places,
                finals: reached.finals,
                memo: self.memo(entries.get(reached.included).map(|entry| entry.index)),
            },
            pace,
            trouble,
        })
    }

    fn requests(&self) -> u64 {
        self.api.requests()
    }
}
