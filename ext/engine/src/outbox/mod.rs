//! The sidecar: `<database>-logos`, a small SQLite file with what the publisher must not forget.
//!
//! It holds the identity (channel, signing key), how far the log has been read, the last published schema, and every
//! message until the channel has it for good.
//!
//! Invariants
//! - Mode 0600: the signing key is in it.
//! - One publisher per database on this machine: the file is held under SQLite's exclusive lock, so a second process is
//!   told so. Everybody else in this process goes through the publisher's own handle.
//! - A message and the new cursor are stored in one durable transaction, before the first byte is sent. What is sent
//!   again after a crash is therefore the same bytes.
//!
//! Not here: what a message says (`changeset`), sending it (`drive`).

mod published;
mod removal;
mod sending;
mod storing;

use std::path::{Path, PathBuf};
use std::time::Duration;

use logos_log::crypto::SigningKey;
use logos_log::ids::{ChannelId, Digest, MsgId, Position};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use crate::error::{Doing, Error, Result};
use crate::host::claims::{self, Claim};
use crate::host::connection;
use crate::host::database::Database;

pub use published::{Base, Published};
pub use removal::Removal;
pub use sending::{Backlog, MessageRow};
pub use storing::{Found, FoundEntry, FoundMessage, Message, Storing};

/// The open sidecar of one database.
pub struct Sidecar {
    // Closed first: the claim says that it may be locked by us.
    conn: Connection,
    path: PathBuf,
    key: SigningKey,
    _claim: Claim,
}

/// Version of the tables below.
const FORMAT: i64 = 2;

const TABLES: &str = "
    CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE schema(n INTEGER PRIMARY KEY, kind TEXT, name TEXT, tbl TEXT, sql TEXT);
    CREATE TABLE base(id INTEGER PRIMARY KEY, name TEXT, intact INTEGER, columns TEXT DEFAULT '[]');
    CREATE TABLE stamp(name TEXT PRIMARY KEY, digest BLOB) WITHOUT ROWID;
    CREATE TABLE sequence(name TEXT PRIMARY KEY, seq INTEGER) WITHOUT ROWID;
    CREATE TABLE message(seq INTEGER PRIMARY KEY, digest BLOB, kind TEXT, tables INTEGER, changes INTEGER,
        bytes INTEGER, parts INTEGER, cursor INTEGER, state INTEGER, slot INTEGER, fee INTEGER, created INTEGER, accepted INTEGER);
    CREATE INDEX message_state ON message(state, seq);
    CREATE TABLE entry(n INTEGER PRIMARY KEY, seq INTEGER, state INTEGER, slot INTEGER, fee INTEGER, size INTEGER,
        id BLOB, parent BLOB, tx BLOB);
    CREATE INDEX entry_state ON entry(state, n);
    CREATE INDEX entry_id ON entry(id);
    CREATE INDEX entry_seq ON entry(seq);";

/// From format 1 to 2.
const UPGRADE: &str =
    "BEGIN IMMEDIATE; ALTER TABLE base ADD COLUMN columns TEXT DEFAULT '[]'; PRAGMA user_version = 2; COMMIT";

/// Endings of the sidecar and of what SQLite keeps beside it.
const FILES: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Path of a database's sidecar.
pub fn path_of(database: &Path) -> PathBuf {
    with_suffix(database, "-logos")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether another process publishes a database: then nobody else can read its sidecar.
pub fn is_held(database: &Path) -> bool {
    let Ok(conn) = connection::open_flags(&path_of(database), OpenFlags::SQLITE_OPEN_READ_WRITE) else { return false };
    let look = conn.busy_timeout(Duration::ZERO).and_then(|()| conn.prepare("SELECT 1 FROM sqlite_schema")?.exists([]));
    look.is_err_and(|e| matches!(e.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)))
}

/// Whether this process has the sidecar of a database open, or is closing it.
pub fn is_open_here(database: &Path) -> bool {
    claims::is_claimed(&path_of(database))
}

impl Sidecar {
    /// Opens the sidecar of `database`. Where there is none, or an empty one, it is made with a fresh key if `may_begin` allows it.
    /// `fill` gives the random bytes of that key.
    pub fn open(
        database: &Path,
        may_begin: impl Fn() -> Result<()>,
        fill: impl Fn(&mut [u8]) -> std::io::Result<()>,
    ) -> Result<Self> {
        let path = path_of(database);
        let doing = || format!("opening the sidecar {}", path.display());
        if std::fs::metadata(&path).map_or(0, |found| found.len()) == 0 {
            // Where it may not, nothing is left behind.
            may_begin()?;
        }
        create_private(&path)?;
        let claim = Claim::new(&path);
        let conn = connection::open_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        let held = |e: rusqlite::Error| {
            match e.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::fix(
                format!("another process publishes {} already", database.display()),
                "nothing was changed, and this process's commits are captured and published by that one; to go on when it ends, publish \
                 with {\"standby\": true}",
            )
            .with_code(rusqlite::ffi::SQLITE_LOCKED),
            _ => Err::<(), _>(e).doing(doing).err().unwrap_or_else(|| Error::bug("an error without a reason")),
        }
        };
        conn.busy_timeout(Duration::from_millis(500)).doing(doing)?;
        conn.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = FULL; PRAGMA auto_vacuum = INCREMENTAL;",
        )
        .map_err(held)?;
        // Writing takes the exclusive lock, which locking_mode then keeps.
        conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA journal_size_limit = 1048576; BEGIN EXCLUSIVE; COMMIT;")
            .map_err(held)?;
        let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).doing(doing)?;
        if version == 0 {
            may_begin()?;
            let mut seed = [0; 32];
            fill(&mut seed).map_err(|e| {
                Error::fix(
                    format!("the system gives no random bytes: {e}"),
                    "nothing was changed; a signing key needs them",
                )
            })?;
            conn.execute_batch("BEGIN IMMEDIATE").doing(doing)?;
            conn.execute_batch(TABLES).doing(doing)?;
            conn.execute("INSERT INTO meta VALUES('key', ?1)", [&seed[..]]).doing(doing)?;
            conn.pragma_update(None, "user_version", FORMAT).doing(doing)?;
            conn.execute_batch("COMMIT").doing(doing)?;
        } else if version == 1 {
            conn.execute_batch(UPGRADE).doing(doing)?;
        } else if version != FORMAT {
            return Err(Error::fix(
                format!("the sidecar {} has format {version}; this build knows {FORMAT}", path.display()),
                "nothing was changed; use the version of logos that wrote it, or a newer one",
            ));
        }
        let seed: Vec<u8> =
            conn.query_row("SELECT value FROM meta WHERE name = 'key'", [], |row| row.get(0)).doing(doing)?;
        let seed: [u8; 32] = seed.try_into().map_err(|_| {
            Error::fix(
                format!("the signing key in {} is damaged", path.display()),
                "nothing was changed; restore the sidecar from a backup. If there is none, SELECT logos_remove(): then logos_publish begins a new channel",
            )
        })?;
        // Somebody who moves the file may leave its write-ahead log behind; the identity must not be in there.
        conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").doing(doing)?;
        Ok(Self { conn, path, key: SigningKey::from_seed(&seed), _claim: claim })
    }

    fn doing(&self, what: &str) -> String {
        format!("{what} the sidecar {}", self.path.display())
    }

    /// The channel that belongs to this database.
    pub fn channel(&self) -> ChannelId {
        ChannelId(self.key.public_key().0)
    }

    fn meta<T: rusqlite::types::FromSql>(&self, name: &str) -> Result<Option<T>> {
        self.conn
            .query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .doing(|| self.doing("reading"))
            .map(Option::flatten)
    }

    /// A database that was copied together with its sidecar would publish under the original's identity, and the channel
    /// would have two writers. So the sidecar knows its database's path and file; one of the two must be as it was (a
    /// renamed database keeps its file, one restored from a backup its path), or the user must say that it was moved. Returns
    /// whether it is the file that it was.
    pub fn check_home(&self, database: &Database, moved: bool) -> Result<bool> {
        let doing = || self.doing("writing");
        let (path, file) = (database.path(), database.file().map(|(device, inode)| format!("{device}:{inode}")));
        let now = (path.display().to_string(), file);
        let before: (Option<String>, Option<String>) = (self.meta("home_path")?, self.meta("home_file")?);
        let known = before.0.is_some();
        let same = before.0.as_ref() == Some(&now.0) || (now.1.is_some() && before.1 == now.1);
        if known && !same && !moved {
            return Err(Error::fix(
                format!(
                    "{} looks like a copy: its sidecar belongs to {}",
                    path.display(),
                    before.0.unwrap_or_default()
                ),
                "nothing was published. For a copy, remove its sidecar (the file with -logos at its end): it then gets a channel \
                 of its own. If the original is gone for good, say {\"moved\": true} in the options",
            ));
        }
        self.conn
            .execute("INSERT OR REPLACE INTO meta VALUES('home_path', ?1), ('home_file', ?2)", (&now.0, &now.1))
            .doing(doing)?;
        Ok(!known || before.1 == now.1)
    }

    /// The transport that messages were last sent to.
    pub fn transport(&self) -> Result<Option<String>> {
        self.meta("transport")
    }

    /// Remembers the transport.
    pub fn set_transport(&self, url: &str) -> Result<()> {
        self.conn
            .execute("INSERT OR REPLACE INTO meta VALUES('transport', ?1)", [url])
            .doing(|| self.doing("writing"))
            .map(drop)
    }

    /// The key that signs.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// What the writer wants to be told after a restart.
    pub fn memo(&self) -> Result<Option<String>> {
        self.meta("memo")
    }
}

fn id_of(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<MsgId> {
    let bytes: [u8; 32] = row.get(column)?;
    Ok(MsgId(bytes))
}

fn position_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Position> {
    Ok(Position { seq: row.get::<_, i64>(0)? as u64, digest: Digest(row.get(1)?) })
}

/// Makes the file for its owner's eyes only, before SQLite opens it. One that is there already, and what SQLite keeps beside it,
/// becomes so.
fn create_private(path: &Path) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
        other => return other.map(drop).doing(|| format!("making the sidecar {}", path.display())),
    }
    #[cfg(unix)]
    for file in FILES.map(|suffix| with_suffix(path, suffix)) {
        make_private(&file)?;
    }
    Ok(())
}

/// Takes everybody else's permissions from a file, if there is one.
#[cfg(unix)]
fn make_private(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let Ok(found) = std::fs::metadata(file) else { return Ok(()) };
    if found.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).map_err(|e| {
        Error::fix(
            format!("{} can be read by others, and that cannot be changed: {e}", file.display()),
            "nothing was published; the signing key is in it: make this process's user its owner, or move it away to publish \
             on a new channel",
        )
    })
}
