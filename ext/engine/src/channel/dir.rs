//! The directory channel: a folder with one folder a channel and one immutable file an entry.
//!
//! `PATH/<channel id>/<index, 16 hex digits>.entry` holds one signed transaction with one inscription, exactly the bytes
//! that a Logos node would be sent (FORMAT.md "Directory channel").
//!
//! Invariants
//! - A file appears under its name only when it is whole and on disk: written aside, synced, renamed, folder synced.
//! - A file is never changed or replaced. If another entry has its name already, there are two writers: stop.
//! - Readers ask for the next index only, so order does not depend on how a file-sync tool delivers. A gap means
//!   "not there yet".

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use logos_log::entry::SignedTx;
use logos_log::ids::{ChannelId, MsgId};
use logos_log::limits::SIGNED_ENTRY_BYTES_MAX;
use notify::Watcher;

use super::{Fetched, Known, Reader, Store, Writer};
use crate::entry::{Place, StoredEntry};
use crate::error::{Doing, Error, Result};
use crate::threads;

/// A reader gets at most this much at a time.
const FETCH_BYTES: usize = 4 * 1024 * 1024;

/// A writer records how far it has come at least as often.
const SEND_BYTES: u64 = 4 * 1024 * 1024;

/// How often to look where the file system cannot tell us (or loses an event, as network folders do).
const POLL: Duration = Duration::from_millis(250);

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
    let mut ids: Vec<ChannelId> =
        entries.flatten().filter_map(|e| e.file_name().to_str().and_then(|name| name.parse().ok())).collect();
    match (ids.pop(), ids.len()) {
        (Some(id), 0) => Ok(id),
        (None, _) => Err(Error::retry(
            format!("there is no channel in {}", path.display()),
            "nothing was changed; publish to it first, or check the path",
        )),
        (Some(_), more) => Err(Error::fix(
            format!("there are {} channels in {}", more + 1, path.display()),
            "nothing was changed; name the one you mean, as logos_publish returned it: dir:PATH/<64 hex digits>",
        )),
    }
}

/// Writes entries as files.
pub struct DirWriter {
    folder: PathBuf,
}

impl DirWriter {
    /// The writing end of `channel` below `path`; nothing is made before the first entry.
    pub fn new(path: &Path, channel: ChannelId) -> Self {
        Self { folder: folder_of(path, channel) }
    }

    fn write(&self, entry: &StoredEntry, bytes: &[u8]) -> Result<()> {
        let file = file_of(&self.folder, entry.index);
        let doing = || format!("writing entry {} to {}", entry.index, file.display());
        let mut aside = tempfile::Builder::new().prefix(".").suffix(".part").tempfile_in(&self.folder).doing(doing)?;
        aside.write_all(bytes).doing(doing)?;
        #[cfg(unix)]
        fs::set_permissions(aside.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).doing(doing)?;
        aside.as_file().sync_data().doing(doing)?;
        match aside.persist_noclobber(&file) {
            Ok(_) => Ok(()),
            Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => self.check_same(&file, bytes, entry),
            Err(e) => Err(e.error).doing(doing),
        }
    }

    /// An entry that is there already is ours, sent before a crash, or there are two writers.
    fn check_same(&self, file: &Path, bytes: &[u8], entry: &StoredEntry) -> Result<()> {
        // Whatever is larger than an entry is not ours.
        if read_bounded(file).is_ok_and(|there| there.is_some_and(|there| there == bytes)) {
            return Ok(());
        }
        Err(Error::resync(
            format!(
                "another writer has entry {} of this channel ({}): this database or its sidecar was copied, or restored \
                 from a backup, and both were published",
                entry.index,
                file.display()
            ),
            "nothing of ours was written over it and the changes stay in this database; stop one of the writers. To go on \
             from this one, SELECT logos_resync(): it compares the database with the channel and undoes there what only the \
             channel has",
        ))
    }
}

impl Writer for DirWriter {
    fn send(&mut self, entries: &[StoredEntry], store: &dyn Store) -> Result<Known> {
        let mut known = Known::default();
        let Some(first) = entries.first() else { return Ok(known) };
        match first.index.checked_sub(1).map(|before| file_of(&self.folder, before)) {
            None => {
                make_folder(&self.folder).doing(|| format!("making the folder {}", self.folder.display()))?;
            }
            Some(before) if !before.exists() => {
                return Err(Error::retry(
                    format!("the channel has lost what was sent before: {} is not there", before.display()),
                    "nothing was lost here, and nothing is sent after a gap; check that the folder is mounted, or bring its \
                     files back",
                ));
            }
            Some(_) => {}
        }
        let mut written = 0;
        for entry in entries {
            if written >= SEND_BYTES {
                known.again = Some(Duration::ZERO);
                break;
            }
            self.write(entry, &store.entry(entry.index)?.encode())?;
            written += entry.size;
            known.settled.places.push(Place::default());
        }
        sync_folder(&self.folder).doing(|| format!("syncing the folder {}", self.folder.display()))?;
        known.settled.finals = known.settled.places.len();
        Ok(known)
    }
}

/// Makes a folder and those it lies in, each durably: a name is on disk when the folder that holds it was synced.
fn make_folder(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(above) = folder.parent() else { return fs::create_dir(folder) };
    make_folder(above)?;
    match fs::create_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        made => made?,
    }
    match sync_folder(above) {
        // Whoever may write there need not be allowed to read it; then the system decides when the name is on disk.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Reads entries from files.
pub struct DirReader {
    folder: PathBuf,
    watch: Option<(notify::RecommendedWatcher, Receiver<()>)>,
}

impl DirReader {
    /// The reading end of `channel` below `path`.
    pub fn new(path: &Path, channel: ChannelId) -> Self {
        Self { folder: folder_of(path, channel), watch: None }
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
        if !self.folder.is_dir() {
            return Err(Error::retry(
                format!("the channel's folder {} is not there", self.folder.display()),
                "nothing was changed and the position is kept; check the path, or that the folder is mounted",
            ));
        }
        let first = index_of(bookmark)?;
        let mut fetched = Vec::new();
        let mut size = 0;
        for index in first.. {
            let file = file_of(&self.folder, index);
            let read = read_bounded(&file).and_then(|bytes| {
                let doing = || format!("reading entry {index} ({})", file.display());
                bytes.map(|bytes| Ok((bytes.len(), SignedTx::decode(&bytes).doing(doing)?))).transpose()
            });
            let (length, tx) = match read {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                // What is good before it comes first; then reading starts here.
                Err(_) if !fetched.is_empty() => break,
                Err(e) => return Err(e),
            };
            size += length;
            let place = file.display().to_string();
            fetched.push(Fetched { tx: tx.into(), bookmark: (index + 1).to_string(), place });
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

/// Entries from a bookmark on, and their bytes.
pub fn ahead(path: &Path, channel: ChannelId, bookmark: &str) -> Option<(u64, u64)> {
    let (first, folder) = (index_of(bookmark).ok()?, folder_of(path, channel));
    let sizes = (first..).map_while(|index| fs::metadata(file_of(&folder, index)).ok().map(|m| m.len()));
    Some(sizes.take(AHEAD_MAX).fold((0, 0), |(n, bytes), size| (n + 1, bytes + size)))
}

/// Whether the folder has this entry of the channel.
pub fn holds(path: &Path, channel: ChannelId, index: u64, id: MsgId) -> bool {
    let read = read_bounded(&file_of(&folder_of(path, channel), index));
    let entry = read.ok().flatten().and_then(|bytes| SignedTx::decode(&bytes).ok());
    entry.is_some_and(|tx| tx.inscriptions().any(|inscription| inscription.id() == id))
}

/// A bookmark is the index of the next entry.
fn index_of(bookmark: &str) -> Result<u64> {
    match bookmark {
        "" => Ok(0),
        index => index.parse().map_err(|_| Error::bug(format!("bookmark {index:?} is not an index"))),
    }
}

/// A whole entry file; `None` if there is none. Larger than any entry is refused unread.
fn read_bounded(file: &Path) -> Result<Option<Vec<u8>>> {
    let doing = || format!("reading {}", file.display());
    let open = match fs::File::open(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        open => open.doing(doing)?,
    };
    let mut bytes = Vec::new();
    open.take(SIGNED_ENTRY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).doing(doing)?;
    if bytes.len() > SIGNED_ENTRY_BYTES_MAX {
        return Err(Error::fix(
            format!("{} is larger than any entry ({SIGNED_ENTRY_BYTES_MAX} bytes)", file.display()),
            "nothing was applied and the position is kept; fetch the channel again from a good copy",
        ));
    }
    Ok(Some(bytes))
}
