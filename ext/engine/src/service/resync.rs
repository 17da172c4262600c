//! Resync: makes what a database holds now the next state of its channel, whatever the channel holds.
//!
//! For a primary that was restored from a backup: its channel has messages that it does not know, so its publisher stops. The
//! channel is read into a scratch replica, every entry checked as any replica checks it; the database is compared with that;
//! the sidecar then continues the channel as it is, and the next message carries the differences.
//!
//! Invariants
//! - Nothing is written before the whole channel has been read and found to be ours.
//! - Messages of this database that are on their way are not overtaken: they and their repetition would both arrive.
//! - What the channel alone has stays on it for ever, and is undone by the next message.
//! - The scratch replica is in a folder that is locked while it is used. One that a kill left is removed by the channel's next resync.
//!
//! Not here: a second writer that goes on. It forks the channel again, and then both stop.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use logos_log::entry::{sign_entry, Inscription};
use logos_log::ids::{ChannelId, MsgId, Position};
use tempfile::TempDir;

use super::{Caller, Service};
use crate::apply::{left_out, role};
use crate::changeset::compare::{self, Compared, Held};
use crate::channel::logos::reconfigured;
use crate::drive::publisher::{end, Publisher};
use crate::drive::puller::{self, Puller};
use crate::error::{Doing, Error, Result};
use crate::host::connection;
use crate::host::database::Database;
use crate::outbox::{Found, FoundEntry, FoundMessage};

/// How long the publisher's threads are waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// The newest entries may be undone by a reorganisation and are kept to be sent again: as many as this, and as much.
const KEPT_ENTRIES: usize = 1_000;
const KEPT_BYTES: usize = 64 * 1024 * 1024;

impl Service {
    /// Compares the published database with its channel and publishes the differences. Returns what was found.
    ///
    /// The publisher is stopped, and running again afterwards, also after an error.
    pub fn resync(&self, caller: Caller<'_>) -> Result<String> {
        caller.may_write("logos_resync")?;
        caller.outside_transaction("logos_resync")?;
        caller.not_a_replica()?;
        let publisher = self.publisher(caller)?;
        let (database, url, options) =
            (publisher.database().clone(), publisher.channel_url().clone(), publisher.options().clone());
        publisher.stop(PATIENCE);
        if !publisher.has_ended_wholly() {
            return Err(Error::retry(
                format!("the publisher of {} is in the middle of a request", database.path().display()),
                "nothing was changed and publishing is stopped; call logos_resync again",
            ));
        }
        let found = take_over(&publisher);
        self.workers.remove::<Publisher>(&database);
        end(publisher, PATIENCE);
        // The home was checked when publishing began, and may have been said to be another one.
        let published = self.publish_database(&database, &url, &options);
        let found = found?;
        published?;
        Ok(match found.differing.as_slice() {
            [] => format!("{}: all {} tables are as the channel has them", found.published.position, found.tables),
            some => format!(
                "{}: {} of {} tables differ from the channel and are sent: {}",
                found.published.position,
                some.len(),
                found.tables,
                some.join(", ")
            ),
        })
    }
}

/// A folder for a replica of this channel.
struct Scratch {
    folder: TempDir,
    /// Held as long as it lives, where folders can be locked: the next resync then leaves it alone.
    _lock: Option<File>,
}

impl Scratch {
    fn new(channel: ChannelId) -> Result<Self> {
        let prefix = format!("logos-resync-{}-", &channel.to_string()[..16]);
        remove_left(&prefix);
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().doing(|| "making a folder".into())?;
        let _lock = lock(folder.path());
        Ok(Self { folder, _lock })
    }
}

/// Removes the folders of resyncs that were killed. Whatever goes wrong is no news: they are only in the way of the disk.
fn remove_left(prefix: &str) {
    let Ok(found) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in found.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(prefix)) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && lock(&entry.path()).is_some() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Locks a folder; `None` where somebody has, or where folders cannot be locked.
fn lock(folder: &Path) -> Option<File> {
    File::open(folder).ok().filter(|open| open.try_lock().is_ok())
}

fn take_over(publisher: &Publisher) -> Result<Compared> {
    let scratch = Scratch::new(publisher.channel())?;
    let file = scratch.folder.path().join("replica.db");
    connection::create(&file)?;
    let replica = Database::at(&file);
    let read = read_channel(publisher, &replica)?;
    let (primary, replica) = (connection::open(publisher.database())?, connection::open(&replica)?);
    let held = Held {
        position: read.position,
        incomplete: role::position(&replica)?.is_some_and(|standing| standing.incomplete),
        schema: left_out::schema(&replica)?,
    };
    let compared = compare::compare(&primary, &replica, held)?;
    publisher.sidecar().take_over(&Found { entries: read.entries, messages: read.messages }, &compared.published)?;
    Ok(compared)
}

/// What the channel holds.
struct ChannelRead {
    position: Position,
    entries: Vec<FoundEntry>,
    messages: Vec<FoundMessage>,
}

fn read_channel(publisher: &Publisher, scratch: &Database) -> Result<ChannelRead> {
    let key = publisher.author()?.key;
    let mut entries: Vec<FoundEntry> = Vec::new();
    let mut messages = Vec::new();
    let (mut kept, mut bytes) = (0, 0);
    let mut heard = |seq: u64, entry: &Inscription| {
        // The same bytes: signing is deterministic, and the key is ours.
        let signed = sign_entry(&key, entry.channel, entry.parent, entry.data.clone()).encode();
        bytes += signed.len();
        entries.push(FoundEntry { seq, id: entry.id(), parent: entry.parent, signed: Some(signed) });
        while entries.len() - kept > KEPT_ENTRIES || bytes > KEPT_BYTES {
            bytes -= entries[kept].signed.take().map_or(0, |signed| signed.len());
            kept += 1;
        }
    };
    let mut puller = Puller::open(scratch, publisher.channel_url(), &puller::Options::default())?;
    while let Some(applied) = puller.pull_hearing(&mut heard)? {
        messages.push(FoundMessage {
            position: applied.position,
            kind: applied.kind,
            tables: applied.tables,
            changes: applied.changes,
            bytes: applied.bytes,
            created: applied.created,
        });
    }
    let tip = puller.tip();
    check_continuous(publisher, &entries, tip)?;
    check_arrived(publisher, tip)?;
    if puller.is_amid_message() {
        return Err(Error::fix(
            format!("channel {} ends in the middle of a message, whose rest was never sent", publisher.channel()),
            "nothing was changed; let the other writer finish it, or SELECT logos_remove(): then \
             logos_publish begins a new channel",
        ));
    }
    let position = puller.position();
    Ok(ChannelRead { position, entries, messages })
}

/// Whatever else is a link of the channel (a configuration) can be followed by nothing that a sidecar knows.
fn check_continuous(publisher: &Publisher, entries: &[FoundEntry], tip: MsgId) -> Result<()> {
    let ids = std::iter::once(MsgId::ROOT).chain(entries.iter().map(|entry| entry.id));
    let parents = entries.iter().map(|entry| entry.parent).chain(std::iter::once(tip));
    match ids.zip(parents).find(|(id, parent)| id != parent) {
        Some((_, other)) => Err(reconfigured(publisher.channel(), &other.to_string())),
        None => Ok(()),
    }
}

/// If the channel ends with an entry of ours, or has none, what we have after it is on its way and needs no resync; unless it
/// was there for good already, and the channel has lost it.
fn check_arrived(publisher: &Publisher, tip: MsgId) -> Result<()> {
    match publisher.sidecar().waits_after(&tip)? {
        true => Err(Error::retry(
            format!("messages of this database are on their way to channel {}, which is as this database has it", publisher.channel()),
            "nothing was changed, and no resync is needed for what is only late; SELECT logos_flush() first, then call \
             logos_resync again if it is still needed",
        )),
        false => Ok(()),
    }
}
