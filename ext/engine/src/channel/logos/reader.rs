//! The reading end: follows the blocks from genesis, or from a bookmark, and delivers the channel's transactions in order.
//!
//! Irreversible blocks are read by ranges of slots, the others by walking from the tip back to the last irreversible one.
//!
//! Invariants
//! - Never past a block that could not be read: every block must name the one before it as its parent. What a range leaves
//!   out is fetched by its id, or it is an error and the bookmark stays.
//! - Links of the channel must follow each other. A link whose parent was not seen means that the node withholds or makes up.
//! - What was delivered and is not final yet is looked for again on the branch preferred now: missing, it is waited for (the
//!   same bytes come back); another link in its place is a fork.
//! - "Nothing more" is said only when the node's own state of the channel agrees.
//! - Memory is bounded, whatever a node answers; and a failure costs what was not read yet, not what was.
//!
//! A bookmark is JSON: how far irreversible blocks were read, the last link in them, and the links delivered after it.
//!
//! Not here: signatures and keys of what is new (`logos_log::chain`, in `drive::puller`).

use std::collections::VecDeque;
use std::time::Duration;

use logos_log::ids::{ChannelId, MsgId};
use serde::{Deserialize, Serialize};

use super::api::{Api, Range};
use super::shape::{id32, Block, BlockId, ChannelTx, Info, Link};
use super::tree::{not_given, Tree};
use super::{check_node, inconsistent, Confirm, ReadOptions, LIED};
use crate::channel::{Fetched, Reader};
use crate::error::{Error, Result};

/// A reader gets at most this much at a time.
const FETCH_BYTES: usize = 4 * 1024 * 1024;

/// Slots asked for at first; then as many as give answers of comfortable size.
const SPAN_FIRST: u64 = 100;
const SPAN_MAX: u64 = 1 << 20;
const ANSWER_SMALL: usize = 1024 * 1024;
const ANSWER_LARGE: usize = 4 * 1024 * 1024;

/// Blocks fetched one by one for a hole in a range, at most; and how much of them is held, in bytes as the node sent them.
const HOLE_MAX: usize = 5_000;
const HOLE_BYTES: usize = 16 * 1024 * 1024;

/// What a block without transactions takes here.
const BLOCK_BYTES: usize = 200;

/// Slots without any block after which a node is not believed: two years of seconds.
const VOID_MAX: u64 = 1 << 26;

/// A bookmark is worth a write when so many blocks were read since.
const WORTH_BLOCKS: u64 = 1_000;

/// Delivered links that are remembered by id until they are final.
const RECENT_MAX: usize = 32;

/// Default of `poll_ms`.
const POLL: Duration = Duration::from_secs(1);

/// Where reading stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Mark {
    genesis: Option<BlockId>,
    /// The last irreversible block that was read, and its slot.
    block: Option<(BlockId, u64)>,
    /// Slots asked for; at least the slot of `block`.
    asked: Option<u64>,
    /// The last link up to that block.
    base: Option<MsgId>,
    /// Links delivered after it.
    count: u64,
    /// The newest of these.
    recent: VecDeque<MsgId>,
    /// Irreversible blocks read since a link was delivered, or a later bookmark given out.
    quiet: u64,
}

#[derive(Serialize, Deserialize)]
struct Written {
    genesis: Option<String>,
    block: Option<(String, u64)>,
    base: String,
    count: u64,
    recent: Vec<String>,
}

impl Mark {
    fn parse(bookmark: &str) -> Result<Self> {
        if bookmark.is_empty() {
            return Ok(Self::default());
        }
        let read = || -> Option<Self> {
            let written: Written = serde_json::from_str(bookmark).ok()?;
            let block = match written.block {
                Some((id, slot)) => Some((BlockId(id32(&id)?), slot)),
                None => None,
            };
            Some(Self {
                genesis: written.genesis.as_deref().and_then(id32).map(BlockId),
                block,
                asked: block.map(|(_, slot)| slot),
                base: Some(written.base.parse().ok()?),
                count: written.count,
                recent: written.recent.iter().map(|id| id.parse().ok()).collect::<Option<_>>()?,
                quiet: 0,
            })
        };
        read().ok_or_else(|| {
            Error::fix(
                "this replica's bookmark is not one of a Logos node",
                "nothing was changed; a replica stays with the kind of channel it began with: attach a new file to this one",
            )
        })
    }

    fn text(&self) -> String {
        let written = Written {
            genesis: self.genesis.map(|id| id.to_string()),
            block: self.block.map(|(id, slot)| (id.to_string(), slot)),
            base: self.base().to_string(),
            count: self.count,
            recent: self.recent.iter().map(MsgId::to_string).collect(),
        };
        serde_json::to_string(&written).unwrap_or_default()
    }

    fn base(&self) -> MsgId {
        self.base.unwrap_or(MsgId::ROOT)
    }

    /// The delivered link at a place after `base`, if it is remembered.
    fn delivered(&self, place: u64) -> Option<MsgId> {
        let first = self.count - self.recent.len() as u64;
        place.checked_sub(first).and_then(|n| self.recent.get(n as usize)).copied()
    }

    fn deliver(&mut self, id: MsgId) {
        self.quiet = 0;
        self.count += 1;
        self.recent.push_back(id);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
    }

    /// The slot from which on blocks were not asked for.
    fn next(&self) -> u64 {
        self.asked.map_or(0, |slot| slot.saturating_add(1))
    }

    /// A block was read whole and is irreversible.
    fn pass(&mut self, id: BlockId, slot: u64, links: &[Link]) {
        self.quiet += 1;
        self.block = Some((id, slot));
        self.asked = self.asked.max(Some(slot));
        if let Some(last) = links.last() {
            self.base = Some(last.id);
        }
        self.count = self.count.saturating_sub(links.len() as u64);
        while self.recent.len() as u64 > self.count {
            self.recent.pop_front();
        }
    }
}

/// Going along the links after `Mark::base`.
struct Trace {
    /// How many were seen.
    seen: u64,
    /// The last of them.
    last: MsgId,
}

/// What one call delivers.
#[derive(Default)]
struct Delivery {
    fetched: Vec<Fetched>,
    bytes: usize,
}

/// Blocks that follow each other.
struct Run {
    blocks: Vec<Block>,
    /// Whether they are all that were meant; if not, they are the oldest of them.
    whole: bool,
}

/// Reads one channel through one node.
pub struct LogosReader {
    api: Api,
    channel: ChannelId,
    options: ReadOptions,
    tree: Tree,
    /// Read farther than this bookmark says, without finding more to deliver.
    ahead: Option<(String, Mark)>,
    /// There was nothing after this bookmark at this tip.
    nothing: Option<(String, BlockId)>,
    span: u64,
    /// Since the last look.
    waited: Duration,
}

impl LogosReader {
    /// The reading end of a channel.
    pub fn new(base: &str, channel: ChannelId, options: &ReadOptions) -> Self {
        Self {
            api: Api::new(base),
            channel,
            options: options.clone(),
            tree: Tree::new(channel, options.confirm == Confirm::Included),
            ahead: None,
            nothing: None,
            span: SPAN_FIRST,
            waited: Duration::ZERO,
        }
    }

    /// Reads irreversible blocks until there are no more, or enough is found. As long as nothing is found, what was read is kept
    /// as read, whatever comes next.
    fn read_final(&mut self, bookmark: &str, mark: &mut Mark, info: &Info, out: &mut Delivery) -> Result<()> {
        while mark.block.map(|(id, _)| id) != Some(info.lib) && out.bytes < FETCH_BYTES {
            let (blocks, to) = self.range(mark.next(), info.lib_slot)?;
            let run = self.joined(mark, blocks, (to >= info.lib_slot).then_some(info)).inspect_err(|_| {
                // What was left out before may be shown when it is asked for again.
                if let Some((_, ahead)) = &mut self.ahead {
                    ahead.asked = ahead.block.map(|(_, slot)| slot);
                }
            })?;
            for block in run.blocks {
                let links: Vec<Link> = block.txs.iter().flat_map(|tx| tx.links.iter().copied()).collect();
                let mut trace = Trace { seen: 0, last: mark.base() };
                let place = format!("block {} (slot {}) of {}", block.id, block.slot, self.api.base());
                self.deliver(mark, &mut trace, block.txs, &place, out)?;
                mark.pass(block.id, block.slot, &links);
            }
            if run.whole {
                mark.asked = mark.asked.max(Some(to));
            }
            if out.fetched.is_empty() {
                self.ahead = Some((bookmark.into(), mark.clone()));
            }
        }
        Ok(())
    }

    /// One answer of comfortable size. Returns the last slot that it covers.
    fn range(&mut self, from: u64, last: u64) -> Result<(Vec<Block>, u64)> {
        loop {
            let to = last.min(from.saturating_add(self.span - 1)).max(from);
            match self.api.blocks(from, to, self.channel) {
                Ok(Range::Blocks(blocks, size)) => {
                    if size < ANSWER_SMALL {
                        self.span = (self.span * 2).min(SPAN_MAX);
                    } else if size > ANSWER_LARGE {
                        self.span = (self.span / 2).max(1);
                    }
                    return Ok((blocks, to));
                }
                Ok(Range::TooLarge) if self.span > 1 => self.span = (self.span / 4).max(1),
                Ok(Range::TooLarge) => {
                    return Err(Error::retry(
                        format!("{} answers with more than any block holds for slot {from}", self.api.base()),
                        "nothing was applied and the position is kept; it is asked again, use another node if it stays like this",
                    ))
                }
                Err(e) => {
                    // Maybe it was too much for the node.
                    self.span = (self.span / 4).max(1);
                    return Err(e);
                }
            }
        }
    }

    /// The blocks of a range up to its first hole, and that filled: each the parent of the next, the first the child of the
    /// last one read, and at the end of all the last irreversible block itself. What is behind the hole is asked for again, so
    /// that not more than one answer and one hole are held.
    fn joined(&mut self, mark: &Mark, blocks: Vec<Block>, end: Option<&Info>) -> Result<Run> {
        let mut joined: Vec<Block> = Vec::with_capacity(blocks.len());
        for block in blocks {
            let before = joined.last().map(|b| (b.id, b.slot)).or(mark.block);
            if before.is_some_and(|(id, _)| id == block.id) {
                continue;
            }
            let follows = match before {
                Some((id, _)) => block.parent == id,
                None => mark.genesis.map_or(block.slot == 0, |genesis| genesis == block.id),
            };
            if !follows {
                let hole = self.hole(mark, before, block.parent, block.slot)?;
                joined.extend(hole.blocks);
                return Ok(Run { blocks: joined, whole: false });
            }
            if let Some((id, slot)) = before.filter(|(_, slot)| *slot >= block.slot) {
                return Err(self.out_of_time(&block, &format!("the one before it, {id}, of slot {slot}")));
            }
            joined.push(block);
        }
        if let Some(info) = end {
            let before = joined.last().map(|b| (b.id, b.slot)).or(mark.block);
            if before.map(|(id, _)| id) != Some(info.lib) {
                let hole = self.hole(mark, before, info.lib, info.lib_slot.saturating_add(1))?;
                joined.extend(hole.blocks);
                return Ok(Run { blocks: joined, whole: hole.whole });
            }
        } else if joined.is_empty() && mark.next() > mark.block.map_or(0, |(_, slot)| slot).saturating_add(VOID_MAX) {
            let since = mark.block.map_or(0, |(_, slot)| slot);
            return Err(inconsistent(
                self.api.base(),
                &format!("it shows no block for {VOID_MAX} slots from {since} on"),
            ));
        }
        Ok(Run { blocks: joined, whole: true })
    }

    fn out_of_time(&self, block: &Block, other: &str) -> Error {
        let Block { id, slot, .. } = block;
        inconsistent(
            self.api.base(),
            &format!("block {id} (slot {slot}) cannot have been made when it says, beside {other}"),
        )
    }

    /// The blocks after `before` (exclusive; none: from genesis on) up to `last`, which was made before slot `until`, fetched
    /// one by one from the end. As many of the oldest as there is room for.
    fn hole(&mut self, mark: &Mark, before: Option<(BlockId, u64)>, last: BlockId, until: u64) -> Result<Run> {
        let mut found: VecDeque<Block> = VecDeque::new();
        let (mut at, mut until, mut count, mut bytes) = (last, until, 0, 0);
        let size = |block: &Block| BLOCK_BYTES + block.txs.iter().map(|tx| tx.size).sum::<usize>();
        while before.is_none_or(|(id, _)| id != at) {
            let block = self.api.block(at, self.channel)?.ok_or_else(|| not_given(&self.api, at))?;
            if let Some((id, slot)) = before.filter(|(_, slot)| block.slot <= *slot) {
                // Unless the bookmark says so too, that block is not believed any more.
                self.ahead = None;
                return Err(Error::fix(
                    format!(
                        "block {id} (slot {slot}) was final when it was read, and on {} the final chain has block {at} (slot {}) in \
                         its place",
                        self.api.base(),
                        block.slot
                    ),
                    format!(
                        "nothing was changed and the position is kept; this node is on another chain: use another one. {LIED}"
                    ),
                ));
            }
            if block.slot >= until {
                return Err(self.out_of_time(&block, &format!("one after it, made before slot {until}")));
            }
            let first = before.is_none() && mark.genesis.map_or(block.slot == 0, |genesis| genesis == block.id);
            (at, until) = (block.parent, block.slot);
            bytes += size(&block);
            count += 1;
            found.push_back(block);
            while bytes > HOLE_BYTES && found.len() > 1 {
                bytes -= found.pop_front().as_ref().map_or(0, size);
            }
            if first {
                break;
            }
            if count >= HOLE_MAX {
                return Err(not_given(&self.api, at));
            }
        }
        Ok(Run { whole: found.len() == count, blocks: found.into_iter().rev().collect() })
    }

    /// Looks through the blocks that are not final.
    fn read_recent(&mut self, mark: &mut Mark, info: &Info, out: &mut Delivery) -> Result<Trace> {
        let mut trace = Trace { seen: 0, last: mark.base() };
        for recent in self.tree.walk(&mut self.api, info)? {
            if recent.links.is_empty() {
                continue;
            }
            if out.bytes >= FETCH_BYTES {
                break;
            }
            let place = format!("block {} (slot {}) of {}", recent.id, recent.slot, self.api.base());
            let txs = self.tree.txs(&mut self.api, recent.id)?;
            self.deliver(mark, &mut trace, txs, &place, out)?;
        }
        Ok(trace)
    }

    /// Goes along the links of a block's transactions: what was delivered must be the same, what is new is delivered.
    fn deliver(
        &self,
        mark: &mut Mark,
        trace: &mut Trace,
        txs: Vec<ChannelTx>,
        place: &str,
        out: &mut Delivery,
    ) -> Result<()> {
        for tx in txs {
            let before = mark.count;
            for link in &tx.links {
                if trace.seen < mark.count {
                    let expected = mark.delivered(trace.seen);
                    if let Some(expected) = expected.filter(|expected| *expected != link.id) {
                        // Signed is not enough: an old entry shown again in a new place is, too.
                        self.check_parent(mark, trace, link, place)?;
                        return Err(self.replaced(&tx, link, expected, place));
                    }
                } else {
                    self.check_parent(mark, trace, link, place)?;
                    mark.deliver(link.id);
                }
                trace.seen += 1;
                trace.last = link.id;
            }
            if mark.count > before {
                out.bytes += tx.size + 1000;
                out.fetched.push(Fetched { tx: tx.tx, bookmark: mark.text(), place: place.to_string() });
            }
        }
        Ok(())
    }

    /// A new link must follow the one before it.
    fn check_parent(&self, mark: &Mark, trace: &Trace, link: &Link, place: &str) -> Result<()> {
        let Some(parent) = link.parent.filter(|parent| *parent != trace.last) else { return Ok(()) };
        let base = self.api.base();
        let known = |id: &MsgId| *id == mark.base() || mark.recent.contains(id);
        let (message, why) = if known(&link.id) {
            (format!("{place} holds entry {} a second time", link.id), "a replay, which no honest block holds")
        } else if known(&parent) || parent == MsgId::ROOT {
            (
                format!(
                    "{place} holds entry {}, which follows {parent} and not the newest entry {}",
                    link.id, trace.last
                ),
                "it was forged, or taken from another history of this channel",
            )
        } else {
            (
                format!(
                    "{place} holds entry {}, which follows {parent}, and that entry is in none of the blocks that {base} shows: \
                     the newest before it is {}",
                    link.id, trace.last
                ),
                "the node withholds an entry, or made this one up",
            )
        };
        Err(Error::fix(
            format!("{message}: {why}"),
            "nothing of it was applied and the position is kept; it is looked at again, use another node if it stays like this",
        ))
    }

    /// Another link stands where one was delivered.
    fn replaced(&self, tx: &ChannelTx, link: &Link, delivered: MsgId, place: &str) -> Error {
        let ours = tx.tx.links(self.channel).find(|op| op.id() == link.id);
        let signed = ours.is_some_and(|link| tx.tx.check_author(link).is_ok());
        if !signed {
            return Error::fix(
                format!(
                    "{place} holds entry {}, which is not signed by the author of this channel: it was forged",
                    link.id
                ),
                "nothing of it was applied and the position is kept; use another node",
            );
        }
        Error::resync(
            format!(
                "the channel has forked: entry {delivered} was applied here, and {place} has entry {} of the same author in its \
                 place",
                link.id
            ),
            "nothing more is applied, and this replica keeps what it has as evidence; find out which of two writers is right, then \
             attach a new file to the channel",
        )
    }

    /// The node's state of the channel must not know more than its blocks have shown.
    fn check_whole(&mut self, info: &Info, last: MsgId) -> Result<()> {
        let state = self.api.channel(self.channel)?;
        let told = state.as_ref().map_or(MsgId::ROOT, |state| state.tip);
        let beyond =
            self.options.confirm == Confirm::Final && state.as_ref().is_some_and(|s| s.tip_slot > info.lib_slot);
        if told == last || beyond || self.api.info()?.tip != info.tip {
            return Ok(());
        }
        let Some(state) = state else {
            let what = format!(
                "its blocks hold entry {last} of channel {}, and it says that there is no such channel",
                self.channel
            );
            return Err(inconsistent(self.api.base(), &what));
        };
        Err(Error::fix(
            format!(
                "{} knows entry {} (slot {}) as the newest of the channel, and its blocks do not show it: the newest there is {last}; \
                 the node withholds an entry",
                self.api.base(),
                state.tip,
                state.tip_slot
            ),
            "what was shown is applied and the position is kept; it is looked for again, use another node if it stays like this",
        ))
    }
}

impl Reader for LogosReader {
    fn fetch(&mut self, bookmark: &str) -> Result<Vec<Fetched>> {
        self.waited = Duration::ZERO;
        let mut mark = match &self.ahead {
            Some((of, mark)) if of == bookmark => mark.clone(),
            _ => Mark::parse(bookmark)?,
        };
        let info = self.api.info()?;
        check_node(self.api.base(), &info, mark.genesis)?;
        mark.genesis = mark.genesis.or(info.genesis);
        if self.nothing.as_ref().is_some_and(|(of, tip)| of == bookmark && *tip == info.tip) {
            return Ok(Vec::new());
        }
        if let Some((_, slot)) = mark.block.filter(|(_, slot)| *slot > info.lib_slot) {
            return Err(Error::retry(
                format!(
                    "{} is behind: blocks are final up to slot {} there, and up to {slot} here",
                    self.api.base(),
                    info.lib_slot
                ),
                format!("nothing was changed and the position is kept; it goes on when the node has caught up. {LIED}"),
            ));
        }
        let mut out = Delivery::default();
        let read = self.read(bookmark, &mut mark, &info, &mut out);
        match (read, out.fetched.last()) {
            (Err(e), None) => return Err(e),
            // What came before the fault is good; the fault shows again when that is dealt with.
            (Err(_), Some(_)) => self.ahead = None,
            (Ok(()), Some(last)) => self.ahead = Some((last.bookmark.clone(), mark)),
            (Ok(()), None) => self.nothing = Some((bookmark.to_string(), info.tip)),
        }
        Ok(out.fetched)
    }

    fn later(&mut self) -> Option<String> {
        let (nothing_after, _) = self.nothing.as_mut()?;
        let (of, mark) = self.ahead.as_mut().filter(|(of, mark)| of == nothing_after && mark.quiet >= WORTH_BLOCKS)?;
        mark.quiet = 0;
        *of = mark.text();
        nothing_after.clone_from(of);
        Some(of.clone())
    }

    fn wait(&mut self, timeout: Duration) -> bool {
        let poll = self.options.poll_ms.map_or(POLL, |ms| Duration::from_millis(ms.max(1)));
        let nap = timeout.min(poll.saturating_sub(self.waited));
        std::thread::sleep(nap);
        self.waited += nap;
        self.waited >= poll
    }

    fn requests(&self) -> u64 {
        self.api.requests()
    }
}

impl LogosReader {
    fn read(&mut self, bookmark: &str, mark: &mut Mark, info: &Info, out: &mut Delivery) -> Result<()> {
        self.read_final(bookmark, mark, info, out)?;
        if out.bytes >= FETCH_BYTES {
            return Ok(());
        }
        let last = match self.options.confirm {
            Confirm::Final => mark.base(),
            Confirm::Included => self.read_recent(mark, info, out)?.last,
        };
        if out.fetched.is_empty() {
            self.check_whole(info, last)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn reader(poll_ms: u64) -> LogosReader {
        let options = ReadOptions { poll_ms: Some(poll_ms), ..ReadOptions::default() };
        LogosReader::new("http://127.0.0.1:9", ChannelId([1; 32]), &options)
    }

    #[test]
    fn it_is_not_time_to_look_before_poll_ms_have_passed_in_however_many_waits() {
        let mut reader = reader(60_000);
        assert!((0..1000).all(|_| !reader.wait(Duration::from_micros(1))));
        // As if the rest had passed.
        reader.waited = Duration::from_millis(59_999);
        assert!(reader.wait(Duration::from_secs(1)));
        // Whoever looks waits anew.
        reader.fetch("no bookmark").unwrap_err();
        assert!(!reader.wait(Duration::from_micros(1)));
        assert!(self::reader(1).wait(Duration::from_secs(1)));
    }
}
