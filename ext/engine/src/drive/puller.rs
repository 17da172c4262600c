//! The replica: pulls entries from a channel, checks them, joins them to messages and applies those.
//!
//! Invariants
//! - Nothing is applied that is not proven: every entry passes the chain rule, every message the digest chain.
//! - A message is applied when it is whole, in order, once; the position moves with it (`apply`).
//! - Memory is bounded: a large message is joined in a temporary file.
//!
//! Not here: transports (`channel`), rows (`apply`).

use std::io::{BufReader, Seek, SeekFrom, Write};

use logos_log::chain::{Chain, Link};
use logos_log::entry::Inscription;
use logos_log::ids::{ChannelId, Digest, MsgId, Position};
use serde::{Deserialize, Serialize};
use tempfile::SpooledTempFile;

use crate::apply::role::{self, Role, Standing};
use crate::apply::{self, left_out, Applied, Message};
use crate::catalog::collation::{self, StandIns};
use crate::channel::logos::ReadOptions;
use crate::channel::{Fetched, Reader, Url};
use crate::error::{Doing, Error, Result};
use crate::host::database::Database;
use crate::host::idle::{self, Background};
use crate::host::{connection, connections};

/// Options of `attach_replica`, one JSON object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "one JSON object")]
pub struct Options {
    /// Keep pulling in the background.
    #[serde(default)]
    pub follow: bool,
    /// What stands for collations that only the application's own connections have.
    #[serde(default)]
    pub collations: StandIns,
    /// What only a Logos node needs; a folder ignores it.
    #[serde(flatten)]
    pub node: ReadOptions,
}

/// Pages of the write-ahead log of a replica that are worth a checkpoint: SQLite's own default.
const CHECKPOINT_PAGES: i64 = 1000;

/// A message stays in memory up to this size.
const SPOOL_BYTES: usize = 8 * 1024 * 1024;

/// Is told of an entry and its message's number.
pub type Hearing<'h> = &'h mut dyn FnMut(u64, &Inscription);

/// Pulls one channel into one database.
pub struct Puller {
    database: Database,
    url: Url,
    channel: ChannelId,
    conn: Background,
    reader: Box<dyn Reader>,
    /// What is applied.
    standing: Standing,
    /// What is read: `standing`'s chain and the entries of the message being joined.
    chain: Chain,
    bookmark: String,
    /// A transaction in the middle of which a message ended: what follows there is next.
    begun: Option<Fetched>,
    fetched: std::vec::IntoIter<Fetched>,
    joined: Joined,
    /// What of the primary is left out, each with the reason.
    left_out: Vec<String>,
    /// Stand-ins that are not kept in the file yet.
    collations: StandIns,
}

/// Pieces of the message that is being joined.
struct Joined {
    pieces: SpooledTempFile,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Joined {
    fn new() -> Self {
        Self { pieces: SpooledTempFile::new(SPOOL_BYTES), hasher: blake3::Hasher::new(), bytes: 0 }
    }

    fn add(&mut self, piece: &[u8]) -> std::io::Result<()> {
        self.pieces.write_all(piece)?;
        self.hasher.update(piece);
        self.bytes += piece.len() as u64;
        Ok(())
    }
}

impl Puller {
    /// Opens the database as a replica of the channel; it must be empty or already that.
    pub fn open(database: &Database, url: &Url, options: &Options) -> Result<Self> {
        idle::check_shareable(database)?;
        let path = database.path();
        // A message that is lost with the power is pulled again: rows and position go together.
        let conn = Background::open(database)?;
        let role = role::role(&conn)?;
        let channel = match (&role, url.channel) {
            // A replica knows its channel, whatever else has come into the folder since.
            (Role::Replica(standing), None) => standing.chain.channel,
            _ => url.resolve()?,
        };
        let full = Url { channel: Some(channel), ..url.clone() };
        // Nobody else writes here, so nobody else would ever bring the log into the database.
        conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)
            .doing(|| format!("opening {}", path.display()))?;
        let standing = match role {
            Role::Empty => Standing::start(channel, &full.to_string()),
            Role::Replica(standing) if standing.chain.channel == channel => *standing,
            other => {
                return Err(Error::fix(
                    format!(
                        "{} {}; it cannot become a replica of channel {channel}",
                        path.display(),
                        role::describe(&other).unwrap_or_default()
                    ),
                    "nothing was changed; attach to a new file instead",
                ))
            }
        };
        if connection::journal_mode(&conn).doing(|| format!("opening {}", path.display()))? != "wal" {
            connection::switch_to_wal(&conn, path)?;
        }
        let mut puller = Self {
            database: database.clone(),
            reader: full.reader(channel, &options.node),
            url: full,
            channel,
            conn,
            chain: standing.chain.clone(),
            bookmark: standing.bookmark.clone(),
            standing,
            begun: None,
            fetched: Vec::new().into_iter(),
            joined: Joined::new(),
            left_out: Vec::new(),
            collations: options.collations.clone(),
        };
        puller.standing.url = puller.url.to_string();
        collation::use_stand_ins(&puller.conn, &options.collations)?;
        puller.keep_collations()?;
        apply::bring_back(&mut puller.conn)?;
        puller.left_out = left_out::warnings(&puller.conn)?;
        Ok(puller)
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The channel, in full.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Where reading goes on.
    pub fn bookmark(&self) -> &str {
        &self.standing.bookmark
    }

    /// The last message applied.
    pub fn position(&self) -> Position {
        self.standing.position
    }

    /// Keeps the stand-ins in the file once it is a replica: before that, nothing may be written to it.
    fn keep_collations(&mut self) -> Result<()> {
        if self.collations.is_empty() || role::position(&self.conn)?.is_none() {
            return Ok(());
        }
        collation::keep(&self.conn, &std::mem::take(&mut self.collations))
    }

    /// What of the primary is left out here, each with the reason.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Whether its primary says that what the channel has may be incomplete.
    pub fn is_incomplete(&self) -> bool {
        self.standing.incomplete
    }

    /// Requests made to a node so far.
    pub fn requests(&self) -> u64 {
        self.reader.requests()
    }

    /// Waits until something may have come, or for `timeout`. Returns whether it is time to pull.
    pub fn wait(&mut self, timeout: std::time::Duration) -> bool {
        self.reader.wait(timeout)
    }

    /// Ends pulling in the background.
    pub fn close(self) {
        connections::close(&self.database, self.conn);
    }

    /// Whether what was read ends with parts of a message whose rest is not there.
    pub fn is_amid_message(&self) -> bool {
        self.chain.index > 0
    }

    /// The last link that was read.
    pub fn tip(&self) -> MsgId {
        self.chain.tip
    }

    /// Pulls until one message is applied; `None` when the channel has no more at this moment.
    pub fn pull(&mut self) -> Result<Option<Applied>> {
        self.pull_hearing(&mut |_, _| {})
    }

    /// The same; `heard` is told every entry that was accepted, and the message it is a part of. After an error it may be told
    /// some again.
    pub fn pull_hearing(&mut self, heard: Hearing<'_>) -> Result<Option<Applied>> {
        self.database.check_in_place()?;
        self.catch_up_with_others()?;
        loop {
            let Some(fetched) = self.begun.take().or_else(|| self.fetched.next()) else {
                self.fetched = self.reader.fetch(&self.bookmark)?.into_iter();
                if self.fetched.len() == 0 {
                    self.keep_bookmark();
                    return Ok(None);
                }
                continue;
            };
            match self.take(&fetched, heard) {
                Ok(None) => {}
                Ok(Some((applied, whole))) => {
                    if !whole {
                        self.begun = Some(fetched);
                    }
                    return Ok(Some(applied));
                }
                Err(e) => {
                    // Whatever was read ahead is read again: the fault may be mended by then. Where an entry only stands in
                    // another's place, what was read before it is good and may be much.
                    match e.waits {
                        true => (self.begun, self.fetched) = (None, Vec::new().into_iter()),
                        false => self.rewind(),
                    }
                    if !self.catch_up_with_others()? {
                        return Err(e);
                    }
                }
            }
        }
    }

    fn rewind(&mut self) {
        self.chain = self.standing.chain.clone();
        self.bookmark = self.standing.bookmark.clone();
        self.begun = None;
        self.fetched = Vec::new().into_iter();
        self.joined = Joined::new();
    }

    /// A quiet channel is long too: what was read without finding anything need not be read again by the next one who attaches.
    /// Only between two messages, since a position is one.
    fn keep_bookmark(&mut self) {
        if self.is_amid_message() {
            return;
        }
        let Some(later) = self.reader.later() else { return };
        self.bookmark.clone_from(&later);
        self.standing.bookmark = later;
        self.standing.chain = self.chain.clone();
        // A disk that is full or a lock that is held costs only that it is read again.
        let _ = role::keep_bookmark(&self.conn, &self.standing);
    }

    /// Another process or thread may have applied messages here: then go on from there. Returns whether it has.
    fn catch_up_with_others(&mut self) -> Result<bool> {
        let found = role::position(&self.conn)?.filter(|found| found.position != self.standing.position);
        let Some(found) = found else { return Ok(false) };
        self.standing = Standing { url: self.url.to_string(), ..found };
        self.rewind();
        Ok(true)
    }

    /// Deals with the entries of one transaction; returns what was applied if a message ended in it, and whether that was all
    /// of the transaction.
    fn take(&mut self, fetched: &Fetched, heard: Hearing<'_>) -> Result<Option<(Applied, bool)>> {
        let reading = || format!("reading {}", fetched.place);
        let ours: Vec<Link<'_>> = fetched.tx.links(self.channel).collect();
        if ours.is_empty() {
            // A transport offered what it should not have.
            return Err(Error::fix(
                format!("{} holds no entry of channel {}", fetched.place, self.channel),
                "nothing was applied and the position is kept; the channel was mixed with another: get a good copy of it",
            ));
        }
        // A message may have ended in the middle of this transaction when it was read before.
        let done = ours.iter().position(|link| link.id() == self.chain.tip).map_or(0, |last| last + 1);
        if done == ours.len() && self.url.has_a_place_for_each() {
            // Passed over, the place would not be read again when the right entry comes.
            return Err(Error::waiting(
                format!("{} holds the entry that stands before it, once more", fetched.place),
                "nothing was changed and the position is kept; it goes on by itself once the entry that is due is there",
            ));
        }
        for (n, link) in ours.iter().enumerate().skip(done) {
            let seq = self.chain.seq;
            let inscription = match link {
                Link::Entry(inscription) => *inscription,
                Link::Config(config) => {
                    self.chain.accept_config(&fetched.tx, config).doing(reading)?;
                    continue;
                }
            };
            let part = self.chain.accept(&fetched.tx, inscription).doing(reading)?;
            heard(seq, inscription);
            self.joined.add(part.piece).doing(|| format!("joining message {seq}"))?;
            if part.last {
                let whole = n + 1 == ours.len();
                let bookmark = if whole { fetched.bookmark.clone() } else { self.bookmark.clone() };
                let applied = self.apply(seq, bookmark)?;
                if whole {
                    self.bookmark.clone_from(&fetched.bookmark);
                }
                return Ok(Some((applied, whole)));
            }
        }
        self.bookmark.clone_from(&fetched.bookmark);
        Ok(None)
    }

    fn apply(&mut self, seq: u64, bookmark: String) -> Result<Applied> {
        let doing = || format!("joining message {seq}");
        let mut joined = std::mem::replace(&mut self.joined, Joined::new());
        joined.pieces.seek(SeekFrom::Start(0)).doing(doing)?;
        let position = Position { seq, digest: Digest(*joined.hasher.finalize().as_bytes()) };
        let after = Standing { position, chain: self.chain.clone(), bookmark, ..self.standing.clone() };
        let message =
            Message { after: &after, previous: self.standing.position, payload: BufReader::new(joined.pieces) };
        let (header, counts) = apply::apply(&mut self.conn, message)?;
        self.standing = Standing { incomplete: header.incomplete, ..after };
        self.keep_collations()?;
        self.left_out = left_out::warnings(&self.conn)?;
        Ok(Applied {
            position,
            kind: header.kind.word(),
            tables: counts.tables,
            changes: counts.keys,
            bytes: joined.bytes,
            created: header.time_ms,
        })
    }
}
