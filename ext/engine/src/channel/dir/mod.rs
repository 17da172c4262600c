//! The directory channel: a folder with one folder a channel and one immutable file an entry.
//!
//! `PATH/<channel id>/<index, 16 hex digits>.entry` holds one signed transaction with one inscription, exactly the bytes
//! that a Logos node would be sent (FORMAT.md "Directory channel").
//!
//! Invariants
//! - A file appears under its name only when it is whole and on disk: written aside, synced, renamed, folder synced. Where the file
//!   system cannot rename without replacing, it is made under its name, exclusively, and written there. What a kill leaves aside is
//!   removed by the next writer of that entry.
//! - So whatever stands in an entry's place is believed only on the author's signature. Anything else is "not there yet, or
//!   damaged", for the reader and for the writer: named, waited for, looked at again. It proves no other writer.
//! - A file is never replaced. If the author has signed another entry that has its name already, there are two writers: stop.
//! - Readers ask for the next index only, so order does not depend on how a file-sync tool delivers. A gap means
//!   "not there yet". Files of other names (a sync tool's, half ones, copies of conflicts) are not looked at.
//!
//! Not here: how a file is opened, believed and written (`file`).

mod file;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use logos_log::chain::{CheckedTx, Link};
use logos_log::ids::{ChannelId, MsgId};
use logos_log::part::Part;
use notify::Watcher;

use self::file::{Flaw, Written};
use crate::channel::entry::{Place, StoredEntry};
use crate::channel::{Author, Fetched, Known, Reader, Store, Writer};
use crate::error::{Doing, Error, Result};
use crate::host::threads;

/// A reader gets at most this much at a time.
const FETCH_BYTES: usize = 4 * 1024 * 1024;

/// A writer records how far it has come at least as often.
const SEND_BYTES: u64 = 4 * 1024 * 1024;

/// How often to look where the file system cannot tell us (or loses an event, as network folders do).
const POLL: Duration = Duration::from_millis(250);

/// Channels that an error names.
const CHANNELS_NAMED: usize = 8;

/// Entries counted at most for the lag that a status shows.
const AHEAD_MAX: usize = 100_000;

fn folder_of(path: &Path, channel: ChannelId) -> PathBuf {
    path.join(channel.to_string())
}

fn file_of(folder: &Path, index: u64) -> PathBuf {
    folder.join(format!("{index:016x}.entry"))
}

/// The id of the only channel in a folder; with none or several the user must say which.
pub fn only_channel(path: &Path) -> Result<ChannelId> {
    let entries = fs::read_dir(path).doing(|| format!("looking for a channel in {}", path.display()))?;
    let folders = entries.flatten().filter(|e| e.path().is_dir());
    let ids: Vec<ChannelId> = folders.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    match ids.as_slice() {
        [id] => Ok(*id),
        [] => Err(Error::retry(
            format!("there is no channel in {}", path.display()),
            "nothing was changed; publish to it first, or check the path",
        )),
        several => {
            let named: Vec<String> =
                several.iter().take(CHANNELS_NAMED).map(|id| format!("dir:{}/{id}", path.display())).collect();
            Err(Error::fix(
                format!("there are {} channels in {}: {}", several.len(), path.display(), named.join(", ")),
                "nothing was changed; name the one you mean, as logos_publish returned it: dir:PATH/<64 hex digits>",
            ))
        }
    }
}

/// What a writer's memo says once entries of it may have been written in place.
const IN_PLACE: &str = "in place";

/// Writes entries as files.
pub struct DirWriter {
    folder: PathBuf,
    channel: ChannelId,
    /// The folder's file system needs entries to be written in place.
    in_place: bool,
    /// The sidecar knows it, so what is unfinished in the place of the next entry may be ours.
    noted: bool,
}

impl DirWriter {
    /// The writing end of the author's channel below `path`; nothing is made before the first entry.
    pub fn new(path: &Path, author: &Author) -> Self {
        let channel = ChannelId(author.key.public_key().0);
        let noted = author.memo.as_deref() == Some(IN_PLACE);
        Self { folder: folder_of(path, channel), channel, in_place: false, noted }
    }

    /// What was sent before must be there: nothing is sent after a gap.
    fn check_before(&self, first: &StoredEntry, store: &dyn Store) -> Result<()> {
        let Some(before) = first.index.checked_sub(1) else {
            return file::make_folder(&self.folder).doing(|| format!("making the folder {}", self.folder.display()));
        };
        let place = file_of(&self.folder, before);
        let hint =
            "nothing was lost here, and nothing is sent after a gap; check that the folder is mounted, or bring its \
                    files back: the rest goes by itself";
        let why = match read_entry(&place, self.channel) {
            Ok(None) => {
                let message = format!("the channel has lost what was sent before: {} is not there", place.display());
                return Err(Error::retry(message, hint));
            }
            Ok(Some(tx)) if tx.links(self.channel).any(|link| link.id() == first.parent) => return Ok(()),
            // It belongs to the message of the first entry, or to the one before that.
            Ok(Some(tx)) if self.is_rival(&tx, first.seq.saturating_sub(1), store)? => {
                return Err(another_writer(before, &place))
            }
            Ok(Some(_)) => "it is another entry of this channel, copied there".to_string(),
            Err(flaw) => flaw.why,
        };
        let message =
            format!("entry {before} of this channel was sent, and is damaged now: {}: {why}", place.display());
        Err(Error::waiting(message, hint))
    }

    /// Whether only another writer can have made a signed transaction, that is, with our key. The sidecar forgets entries of long
    /// ago, which anybody may have copied here; so it must be one of message `seq` or later.
    fn is_rival(&self, tx: &CheckedTx, seq: u64, store: &dyn Store) -> Result<bool> {
        for link in tx.links(self.channel) {
            let recent = match link {
                Link::Entry(entry) => Part::decode(&entry.data).map_or(true, |part| part.seq >= seq),
                Link::Config(_) => true,
            };
            if recent && store.index_of(&link.id())?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `None`: it can be written in place only, and that was not known.
    fn write(&mut self, entry: &StoredEntry, store: &dyn Store) -> Result<Option<()>> {
        let (place, bytes) = (file_of(&self.folder, entry.index), store.entry(entry.index)?.encode());
        let doing = || format!("writing entry {} to {}", entry.index, place.display());
        let mut written = Written::InPlaceOnly;
        if !self.in_place {
            written = file::write_aside(&self.folder, &place, &bytes).doing(doing)?;
        }
        if matches!(written, Written::InPlaceOnly) {
            self.in_place = true;
            if !self.noted {
                return Ok(None);
            }
            written = file::write_in_place(&place, &bytes).doing(doing)?;
        }
        match written {
            Written::Taken => self.check_there(&place, &bytes, entry, store)?,
            Written::Whole | Written::InPlaceOnly => {}
        }
        Ok(Some(()))
    }

    /// What has an entry's place already is ours, sent before a crash; or another writer's; or in the way.
    fn check_there(&self, place: &Path, bytes: &[u8], entry: &StoredEntry, store: &dyn Store) -> Result<()> {
        let there = file::read(place);
        if let Ok(Some(there)) = &there {
            if there == bytes {
                return Ok(());
            }
            if self.noted && file::is_unfinished(there, bytes) {
                return file::finish_in_place(place, bytes).map_err(|flaw| in_the_way(entry.index, place, &flaw.why));
            }
        }
        let believed = there.and_then(|there| there.map(|there| file::believe(&there, self.channel)).transpose());
        let why = match believed {
            Ok(Some(tx)) if tx.links(self.channel).any(|link| link.id() == entry.id) => return Ok(()),
            Ok(Some(tx)) if self.is_rival(&tx, entry.seq, store)? => return Err(another_writer(entry.index, place)),
            Ok(Some(_)) => "it is another entry of this channel, copied there".to_string(),
            Ok(None) => "it was there a moment ago".to_string(),
            Err(flaw) => flaw.why,
        };
        Err(in_the_way(entry.index, place, &why))
    }
}

fn another_writer(index: u64, place: &Path) -> Error {
    Error::resync(
        format!(
            "another writer has entry {index} of this channel ({}): this database or its sidecar was copied, or restored \
             from a backup, and both were published",
            place.display()
        ),
        "nothing of ours was written over it and the changes stay in this database; stop one of the writers. To go on \
         from this one, SELECT logos_resync(): it compares the database with the channel and undoes there what only the \
         channel has",
    )
}

fn in_the_way(index: u64, place: &Path, why: &str) -> Error {
    Error::waiting(
        format!(
            "something that nobody signed, or that is damaged, has the place of entry {index}: {}: {why}",
            place.display()
        ),
        "nothing was written over it and nothing was lost; remove that file, or put it right: the rest goes by itself",
    )
}

impl Writer for DirWriter {
    fn send(&mut self, entries: &[StoredEntry], store: &dyn Store) -> Result<Known> {
        let mut known = Known::default();
        let Some(first) = entries.first() else { return Ok(known) };
        self.check_before(first, store)?;
        let mut written = 0;
        for entry in entries {
            if written >= SEND_BYTES {
                known.again = Some(Duration::ZERO);
                break;
            }
            match self.write(entry, store) {
                Ok(Some(())) => {}
                Ok(None) => {
                    // Known for good before the first is begun: a kill in the midst of it leaves half an entry of ours.
                    known.settled.memo = Some(IN_PLACE.into());
                    known.again = Some(Duration::ZERO);
                    self.noted = true;
                    break;
                }
                // What was written before it counts.
                Err(e) => {
                    known.trouble = Some(e);
                    break;
                }
            }
            written += entry.size;
            known.settled.places.push(Place::default());
        }
        file::sync_folder(&self.folder).doing(|| format!("syncing the folder {}", self.folder.display()))?;
        known.settled.finals = known.settled.places.len();
        Ok(known)
    }

    fn longest_pause(&self) -> Duration {
        // Looking into a folder costs little, and whoever has just mended it waits.
        Duration::from_secs(1)
    }
}

/// Reads entries from files.
pub struct DirReader {
    folder: PathBuf,
    channel: ChannelId,
    watch: Option<(notify::RecommendedWatcher, Receiver<()>)>,
}

impl DirReader {
    /// The reading end of `channel` below `path`.
    pub fn new(path: &Path, channel: ChannelId) -> Self {
        Self { folder: folder_of(path, channel), channel, watch: None }
    }

    fn check_folder(&self) -> Result<()> {
        match fs::metadata(&self.folder) {
            Ok(found) if found.is_dir() => Ok(()),
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                Err(e).doing(|| format!("reading the channel's folder {}", self.folder.display()))
            }
            _ => Err(Error::retry(
                format!("the channel's folder {} is not there", self.folder.display()),
                "nothing was changed and the position is kept; check the path, or that the folder is mounted",
            )),
        }
    }

    /// Starts watching. Without it (no such folder yet, no watches left) there is polling.
    fn watch(&mut self) {
        let (sender, receiver) = mpsc::sync_channel(1);
        let on_event = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|e| !matches!(e.kind, notify::EventKind::Access(_))) {
                // Full means that a wake-up is waiting already.
                let _ = sender.try_send(());
            }
        };
        // The watcher has a thread of its own.
        let watcher = threads::without_signals(|| {
            let mut watcher = notify::recommended_watcher(on_event)?;
            watcher.watch(&self.folder, notify::RecursiveMode::NonRecursive).map(|()| watcher)
        });
        if let Ok(watcher) = watcher {
            self.watch = Some((watcher, receiver));
        }
    }
}

impl Reader for DirReader {
    fn fetch(&mut self, bookmark: &str) -> Result<Vec<Fetched>> {
        self.check_folder()?;
        let first = index_of(bookmark)?;
        let mut fetched = Vec::new();
        let mut size = 0;
        for index in first.. {
            let place = file_of(&self.folder, index);
            let read = file::read(&place).and_then(|bytes| {
                bytes.map(|bytes| Ok((bytes.len(), file::believe(&bytes, self.channel)?))).transpose()
            });
            let (length, tx) = match read {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                // What is good before it comes first; then reading starts here.
                Err(_) if !fetched.is_empty() => break,
                Err(flaw) => return Err(not_yet(index, &place, &flaw)),
            };
            size += length;
            fetched.push(Fetched { tx, bookmark: (index + 1).to_string(), place: place.display().to_string() });
            if size >= FETCH_BYTES {
                break;
            }
        }
        Ok(fetched)
    }

    fn wait(&mut self, timeout: Duration) -> bool {
        if self.watch.is_none() {
            self.watch();
            // Something may have come before the watch was set: let the caller look.
            if self.watch.is_some() {
                return true;
            }
        }
        match &self.watch {
            Some((_, events)) => {
                if events.recv_timeout(timeout.min(POLL)) == Err(RecvTimeoutError::Disconnected) {
                    self.watch = None;
                }
            }
            None => std::thread::sleep(timeout.min(POLL)),
        }
        if !self.folder.is_dir() {
            self.watch = None;
        }
        true
    }
}

/// What a reader says of what is not believed.
fn not_yet(index: u64, place: &Path, flaw: &Flaw) -> Error {
    let place = place.display();
    match flaw.denied {
        true => Error::waiting(
            format!("this process has no permission to read entry {index} ({place}): {}", flaw.why),
            "nothing was changed and the position is kept; the umask of the publisher decides who may read its entries. Let this \
             process read the folder and the files in it: it goes on by itself",
        ),
        false => Error::waiting(
            format!("entry {index} is not there yet, or damaged: {place}: {}", flaw.why),
            "nothing was changed and the position is kept; it may still be on its way, and it goes on by itself once the file is \
             whole. If it stays so, fetch that file again from a good copy of the channel",
        ),
    }
}

/// The entry in a file, if the author of the channel has signed it; `None` if there is no file.
fn read_entry(place: &Path, channel: ChannelId) -> std::result::Result<Option<CheckedTx>, Flaw> {
    file::read(place)?.map(|bytes| file::believe(&bytes, channel)).transpose()
}

/// Entries from a bookmark on, and their bytes.
pub fn ahead(path: &Path, channel: ChannelId, bookmark: &str) -> Option<(u64, u64)> {
    let (first, folder) = (index_of(bookmark).ok()?, folder_of(path, channel));
    let size = |index| fs::metadata(file_of(&folder, index)).ok().filter(fs::Metadata::is_file).map(|m| m.len());
    let sizes = (first..).map_while(size);
    Some(sizes.take(AHEAD_MAX).fold((0, 0), |(n, bytes), size| (n + 1, bytes + size)))
}

/// Whether the folder has this entry of the channel.
pub fn holds(path: &Path, channel: ChannelId, index: u64, id: MsgId) -> bool {
    let entry = read_entry(&file_of(&folder_of(path, channel), index), channel).ok().flatten();
    entry.is_some_and(|tx| tx.links(channel).any(|link| link.id() == id))
}

/// A bookmark is the index of the next entry.
fn index_of(bookmark: &str) -> Result<u64> {
    match bookmark {
        "" => Ok(0),
        index => index.parse().map_err(|_| Error::bug(format!("bookmark {index:?} is not an index"))),
    }
}
