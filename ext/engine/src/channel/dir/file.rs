//! One file of a channel's folder, and what file systems and neighbours make of it.
//!
//! Invariants
//! - Whatever stands in an entry's place may have been put there by anybody. It is looked at without blocking (a FIFO), without
//!   side effects (a device) and within the bounds of an entry, and it is believed only if the channel's author has signed it.
//! - Anything else, damaged, half arrived or foreign, is a `Flaw`: a reason in words, and nothing to decide by.
//! - Nothing of anybody's is replaced, changed or removed, but for what a killed publisher left aside: a file with the name that
//!   it would have, the beginning of the very entry that is about to be written, which no living writer holds locked.
//!
//! Not here: which entry is due, and whose it is (`super`, `logos_log::chain`).

use std::fs::{self, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use logos_log::chain::CheckedTx;
use logos_log::entry::SignedTx;
use logos_log::ids::ChannelId;
use logos_log::limits::SIGNED_ENTRY_BYTES_MAX;

/// Why what stands in an entry's place is not believed.
pub(super) struct Flaw {
    /// In words.
    pub why: String,
    /// It may be good, but this process has no permission to read it.
    pub denied: bool,
}

impl Flaw {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), denied: false }
    }
}

impl From<io::Error> for Flaw {
    fn from(e: io::Error) -> Self {
        Self { denied: e.kind() == ErrorKind::PermissionDenied, why: format!("it cannot be read ({e})") }
    }
}

/// Opens a regular file. Looked at before as well, since opening alone can move a device, and after, since it may have been
/// exchanged; a FIFO that came in between does not block.
fn open(file: &Path, options: &mut fs::OpenOptions) -> Result<fs::File, Flaw> {
    let no_file = || Flaw::new("it is no regular file");
    if !fs::metadata(file)?.is_file() {
        return Err(no_file());
    }
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, libc::O_NONBLOCK | libc::O_NOCTTY);
    let open = options.open(file)?;
    match open.metadata()?.is_file() {
        true => Ok(open),
        false => Err(no_file()),
    }
}

/// All bytes of a file; `None` if there is none. Larger than any entry is refused unread.
pub(super) fn read(file: &Path) -> Result<Option<Vec<u8>>, Flaw> {
    match fs::symlink_metadata(file) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    let open = open(file, fs::OpenOptions::new().read(true))?;
    let too_large = || Flaw::new(format!("it is larger than any entry ({SIGNED_ENTRY_BYTES_MAX} bytes)"));
    if open.metadata()?.len() > SIGNED_ENTRY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    open.take(SIGNED_ENTRY_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    match bytes.len() > SIGNED_ENTRY_BYTES_MAX {
        true => Err(too_large()),
        false => Ok(Some(bytes)),
    }
}

/// The transaction in these bytes, if the author of the channel has signed what it says of it.
pub(super) fn believe(bytes: &[u8], channel: ChannelId) -> Result<CheckedTx, Flaw> {
    let tx = CheckedTx::from(SignedTx::decode(bytes).map_err(|e| Flaw::new(e.to_string()))?);
    let mut links = tx.links(channel).peekable();
    if links.peek().is_none() {
        return Err(Flaw::new("it holds no entry of this channel"));
    }
    links.try_for_each(|link| tx.check_author(link)).map_err(|e| Flaw::new(e.to_string()))?;
    drop(links);
    Ok(tx)
}

/// How a file was written, or why not.
pub(super) enum Written {
    /// It is there, whole and synced; its name may not be on disk yet.
    Whole,
    /// Another one has its name.
    Taken,
    /// This file system cannot give a finished file its name without replacing another.
    InPlaceOnly,
}

/// Writes a file aside, syncs it and gives it its name. It gets the permissions that the process's umask leaves.
pub(super) fn write_aside(folder: &Path, file: &Path, bytes: &[u8]) -> io::Result<Written> {
    let mut aside = make_aside(folder, file, bytes)?;
    // Whoever finds it knows that its writer lives. Where files cannot be locked, its bytes must tell.
    let _ = aside.as_file().try_lock();
    aside.write_all(bytes)?;
    aside.as_file().sync_data()?;
    match aside.persist_noclobber(file) {
        Ok(_) => Ok(Written::Whole),
        Err(e) if e.error.kind() == ErrorKind::AlreadyExists => Ok(Written::Taken),
        Err(e) if is_unsupported(&e.error) => Ok(Written::InPlaceOnly),
        Err(e) => Err(e.error),
    }
}

/// Makes the file that is written aside: `.NAME.part`, and with a number where somebody's has that name. An entry whose writer was
/// killed is the first that the next one writes, so what was left is found by its name, without a look through the folder.
fn make_aside(folder: &Path, file: &Path, bytes: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let entry = file.file_stem().unwrap_or_default().to_string_lossy();
    let mut tried = 0;
    loop {
        let name = if tried == 0 { format!(".{entry}.part") } else { format!(".{entry}.{tried}.part") };
        let mut builder = tempfile::Builder::new();
        builder.prefix(&name).suffix("").rand_bytes(0);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        match builder.tempfile_in(folder) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                if !remove_left(&folder.join(name), bytes) {
                    tried += 1;
                }
            }
            made => return made,
        }
    }
}

/// Removes what a killed writer left of these bytes. Returns whether it has: anything else is somebody's, and stays.
fn remove_left(aside: &Path, bytes: &[u8]) -> bool {
    let is_left = || -> Result<bool, Flaw> {
        if fs::symlink_metadata(aside)?.is_symlink() {
            return Ok(false);
        }
        // Some file systems lock only what may be written.
        let mut open = open(aside, fs::OpenOptions::new().read(true).write(true))?;
        if matches!(open.try_lock(), Err(TryLockError::WouldBlock)) {
            return Ok(false);
        }
        let mut there = Vec::new();
        (&mut open).take(bytes.len() as u64 + 1).read_to_end(&mut there)?;
        Ok(is_unfinished(&there, bytes))
    };
    is_left().unwrap_or(false) && fs::remove_file(aside).is_ok()
}

/// Makes a file under its name, which must be free, and writes it there. Readers wait for the rest of it meanwhile.
pub(super) fn write_in_place(file: &Path, bytes: &[u8]) -> io::Result<Written> {
    match fs::OpenOptions::new().write(true).create_new(true).open(file) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(Written::Taken),
        open => fill(open?, bytes)?,
    }
    Ok(Written::Whole)
}

/// Whether a file is the beginning of what would be written there, with nothing or zeros behind it: what a kill or a loss of
/// power leaves of writing in place.
pub(super) fn is_unfinished(there: &[u8], bytes: &[u8]) -> bool {
    let same = there.iter().zip(bytes).take_while(|(a, b)| a == b).count();
    there.len() <= bytes.len() && there[same..].iter().all(|&byte| byte == 0)
}

/// Writes such a file to its end.
pub(super) fn finish_in_place(file: &Path, bytes: &[u8]) -> Result<(), Flaw> {
    // Through a link it would be another file than the one that was begun.
    if fs::symlink_metadata(file)?.is_symlink() {
        return Err(Flaw::new("it is a symbolic link"));
    }
    fill(open(file, fs::OpenOptions::new().write(true))?, bytes)?;
    Ok(())
}

fn fill(mut file: fs::File, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_data()
}

/// Makes a folder and those it lies in, each durably: a name is on disk when the folder that holds it was synced.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let Some(above) = folder.parent() else { return fs::create_dir(folder) };
    make_folder(above)?;
    match fs::create_dir(folder) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists && folder.is_dir() => {}
        made => made?,
    }
    sync_folder(above)
}

/// Puts the names in a folder on disk. Where the file system cannot do that (network folders), or whoever may write there must
/// not read it, the system decides when they are.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    match fs::File::open(folder).and_then(|open| open.sync_all()) {
        Err(e) if is_unsupported(&e) => Ok(()),
        synced => synced,
    }
}

/// Whether an error says that a file system lacks something, in one of the many ways in which they say it.
#[cfg(unix)]
fn is_unsupported(e: &io::Error) -> bool {
    use libc::{EACCES, EBADF, EINVAL, EISDIR, EMLINK, ENOSYS, ENOTSUP, ENOTTY, EOPNOTSUPP, EPERM, EXDEV};
    let all = [EACCES, EBADF, EINVAL, EISDIR, EMLINK, ENOSYS, ENOTSUP, ENOTTY, EOPNOTSUPP, EPERM, EXDEV];
    e.raw_os_error().is_some_and(|code| all.contains(&code))
}

#[cfg(not(unix))]
fn is_unsupported(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput)
}
