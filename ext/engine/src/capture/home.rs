//! On which channel a file is published, and where it lay: noted in the file itself (`_logos_state`).
//!
//! Who has no sidecar reads it here: another process that wants to know the channel, and a publisher that finds no identity where
//! there should be one. A copy of the file brings the note along, and is told by it: neither path nor file are those that it names.
//!
//! Invariants
//! - Nothing of it tells a stranger who gets the file where it lay: path and file are digests.

use logos_log::ids::ChannelId;
use rusqlite::{Connection, OptionalExtension};

use crate::host::database::Database;

/// The context of the digests (BLAKE3's key derivation), and how many bytes of them are kept.
const CONTEXT: &str = "sqlite-logos 2026 where a published database lies";
const KEPT: usize = 8;

/// The note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The channel.
    pub channel: ChannelId,
    path: String,
    /// Empty where files have no number of their own.
    file: String,
}

impl Home {
    /// Of a database as it is now.
    pub fn of(channel: ChannelId, database: &Database) -> Self {
        let path = digest(database.path().as_os_str().as_encoded_bytes());
        let file = database.file().map(|(device, inode)| digest(format!("{device}:{inode}").as_bytes()));
        Self { channel, path, file: file.unwrap_or_default() }
    }

    /// What is noted; nothing where somebody has emptied or dropped our tables, or a former build made them.
    pub fn noted(conn: &Connection) -> rusqlite::Result<Option<Self>> {
        let columns =
            "SELECT count(*) FROM pragma_table_info('_logos_state') WHERE name IN ('channel', 'path', 'file')";
        if conn.query_row(columns, [], |row| row.get::<_, i64>(0))? < 3 {
            return Ok(None);
        }
        let noted = conn
            .query_row("SELECT channel, path, file FROM _logos_state WHERE channel IS NOT NULL", [], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
            })
            .optional()?;
        Ok(noted.and_then(|(channel, path, file)| Some(Self { channel: channel.parse().ok()?, path, file })))
    }

    /// Notes it. The caller has an open write transaction, and `capture::set_up` has been there.
    pub fn note(&self, conn: &Connection) -> rusqlite::Result<()> {
        conn.execute(
            "UPDATE _logos_state SET channel = ?1, path = ?2, file = ?3",
            (self.channel.to_string(), &self.path, &self.file),
        )
        .map(drop)
    }

    /// Whether both may be about one file: it was renamed, or another was put in its place. A copy elsewhere is neither.
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.path == other.path || (!self.file.is_empty() && self.file == other.file)
    }
}

fn digest(of: &[u8]) -> String {
    hex::encode(&blake3::derive_key(CONTEXT, of)[..KEPT])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_file_is_at_home_and_a_copy_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b, c) = (folder.path().join("a.db"), folder.path().join("b.db"), folder.path().join("c.db"));
        std::fs::write(&a, "x").unwrap();
        let channel = ChannelId([7; 32]);
        let before = Home::of(channel, &Database::at(&a));
        std::fs::copy(&a, &b).unwrap();
        assert!(!before.is_same_place(&Home::of(channel, &Database::at(&b))));
        std::fs::rename(&a, &c).unwrap();
        assert!(before.is_same_place(&Home::of(channel, &Database::at(&c))));
        std::fs::rename(&b, &a).unwrap();
        assert!(before.is_same_place(&Home::of(channel, &Database::at(&a))), "restored to its path");
    }
}
