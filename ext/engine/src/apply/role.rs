//! What a database is to us: nothing yet, a primary, or a replica and where that stands.
//!
//! Invariants
//! - A replica's position is in the file itself, in the table `_logos_replica`, and moves with the rows (`apply`).

use logos_log::chain::Chain;
use logos_log::ids::{ChannelId, Digest, MsgId, Position};
use rusqlite::{Connection, OptionalExtension};

use crate::catalog::OURS;
use crate::error::{Doing, Result};
use crate::host::fork;

/// Where a replica stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The last message applied.
    pub position: Position,
    /// The chain up to the last entry of that message.
    pub chain: Chain,
    /// The channel's own bookmark for reading on (`channel::Reader`).
    pub bookmark: String,
    /// URL of the channel as it was last attached.
    pub url: String,
    /// Whether the last message called what the channel has incomplete.
    pub incomplete: bool,
}

impl Standing {
    /// Before the first message.
    pub fn start(channel: ChannelId, url: &str) -> Self {
        Self {
            position: Position::START,
            chain: Chain::new(channel),
            bookmark: String::new(),
            url: url.to_string(),
            incomplete: false,
        }
    }
}

/// What kind of database a file is, to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Nothing is in it.
    Empty,
    /// An ordinary database.
    Plain,
    /// One under capture.
    Primary,
    /// A replica.
    Replica(Box<Standing>),
}

/// Finds out what a database is.
pub fn role(conn: &Connection) -> Result<Role> {
    let doing = || "looking at the database".to_string();
    let mut statement = conn.prepare("SELECT name FROM sqlite_schema WHERE name NOT GLOB 'sqlite_*'").doing(doing)?;
    // A name may be no UTF-8: then it is none of ours.
    let names = statement.query_map([], |row| Ok(String::from_utf8_lossy(row.get_ref(0)?.as_bytes()?).into_owned()));
    let names: Vec<String> = names.and_then(Iterator::collect).doing(doing)?;
    if names.is_empty() {
        return Ok(Role::Empty);
    }
    if names.iter().any(|n| n == "_logos_replica") {
        return Ok(Role::Replica(Box::new(standing(conn).doing(doing)?)));
    }
    // Whatever of ours is left: a tool may have dropped some of it.
    Ok(if names.iter().any(|n| n.starts_with(OURS)) { Role::Primary } else { Role::Plain })
}

fn standing(conn: &Connection) -> rusqlite::Result<Standing> {
    conn.query_row("SELECT * FROM _logos_replica", [], |row| {
        let seq = row.get::<_, i64>("seq")? as u64;
        Ok(Standing {
            position: Position { seq, digest: Digest(row.get("digest")?) },
            chain: Chain {
                channel: ChannelId(row.get("channel")?),
                tip: MsgId(row.get("tip")?),
                entries: row.get::<_, i64>("entries")? as u64,
                seq: seq + 1,
                index: 0,
            },
            bookmark: row.get("bookmark")?,
            url: row.get("url")?,
            // A former build had no such column.
            incomplete: row.get("incomplete").unwrap_or(false),
        })
    })
}

/// Writes it.
pub(super) fn store_standing(tx: &Connection, standing: &Standing) -> rusqlite::Result<()> {
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS _logos_replica(id INTEGER PRIMARY KEY CHECK (id = 1), channel BLOB, seq INTEGER, \
         digest BLOB, tip BLOB, entries INTEGER, bookmark TEXT, url TEXT, incomplete INTEGER)",
    )?;
    let has = "SELECT count(*) FROM pragma_table_info('_logos_replica') WHERE name = 'incomplete'";
    if tx.query_row(has, [], |row| row.get::<_, i64>(0))? == 0 {
        tx.execute_batch("ALTER TABLE _logos_replica ADD COLUMN incomplete INTEGER")?;
    }
    let s = standing;
    tx.execute(
        "INSERT OR REPLACE INTO _logos_replica VALUES(1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        rusqlite::params![
            &s.chain.channel.0[..],
            s.position.seq as i64,
            &s.position.digest.0[..],
            &s.chain.tip.0[..],
            s.chain.entries as i64,
            s.bookmark,
            s.url,
            s.incomplete
        ],
    )
    .map(drop)
}

/// Moves the bookmark of a replica, and the tip that goes with it, while the position stays. Nothing if another process has
/// applied a message meanwhile, or none was ever applied here.
pub fn keep_bookmark(conn: &Connection, standing: &Standing) -> Result<()> {
    let _inside = fork::enter();
    let doing = || "keeping the replica's bookmark".to_string();
    if position(conn)?.is_none() {
        return Ok(());
    }
    let s = standing;
    conn.execute(
        "UPDATE _logos_replica SET bookmark = ?1, tip = ?2 WHERE seq = ?3 AND digest = ?4",
        (&s.bookmark, &s.chain.tip.0[..], s.position.seq as i64, &s.position.digest.0[..]),
    )
    .doing(doing)
    .map(drop)
}

/// The role of a database as a word, for errors.
pub fn describe(role: &Role) -> Option<String> {
    match role {
        Role::Empty => None,
        Role::Plain => Some("has tables of its own".into()),
        Role::Primary => Some("is a primary itself".into()),
        Role::Replica(standing) => Some(format!("is a replica of channel {}", standing.chain.channel)),
    }
}

/// Position and channel of a replica, if the database is one.
pub fn position(conn: &Connection) -> Result<Option<Standing>> {
    let _inside = fork::enter();
    let doing = || "reading the replica's position".to_string();
    let is_replica = conn
        .query_row("SELECT 1 FROM sqlite_schema WHERE name = '_logos_replica'", [], |_| Ok(()))
        .optional()
        .doing(doing)?;
    is_replica.map(|()| standing(conn).doing(doing)).transpose()
}
