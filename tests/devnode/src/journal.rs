//! The state file: what happened, one JSON line each, so that a restarted node resumes where it stopped.
//!
//! Invariants
//! - A line is written before anybody is told. A last line cut short by a crash is dropped when read.
//! - Reading replays through the same rules; nothing derived (ledger, preferred branch, LIB) is stored.
//!
//! Not here: faults, reservations of notes and subscribers, which do not survive a restart.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One thing that happened.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    /// A chain began.
    Genesis(u64),
    /// A block was made.
    Block {
        /// Its parent.
        parent: String,
        /// Its slot.
        slot: u64,
        /// Its entropy.
        entropy: u64,
        /// Prices at which it was made.
        prices: (u64, u64),
        /// Its transactions, and whether each is forged.
        txs: Vec<(Value, bool)>,
    },
    /// A transaction became pending.
    Pending(Value),
    /// Transactions are pending no longer.
    Evicted(Vec<String>),
    /// The node went online, or back to bootstrapping.
    Online(bool),
}

/// The file.
pub struct Journal(BufWriter<File>);

impl Journal {
    /// Open or create, and read what happened so far.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<Happened>)> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut happened = Vec::new();
        let mut reader = BufReader::new(&file);
        let mut whole = 0;
        let mut line = String::new();
        loop {
            line.clear();
            let length = reader.read_line(&mut line)?;
            if !line.ends_with('\n') {
                break;
            }
            happened.push(serde_json::from_str(&line)?);
            whole += length as u64;
        }
        file.set_len(whole)?;
        file.seek(SeekFrom::Start(whole))?;
        Ok((Self(BufWriter::new(file)), happened))
    }

    /// Add a line.
    pub fn write(&mut self, happened: &Happened) -> io::Result<()> {
        serde_json::to_writer(&mut self.0, happened)?;
        self.0.write_all(b"\n")
    }

    /// Hand everything to the operating system.
    pub fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }

    /// Forget everything: a new chain begins.
    pub fn clear(&mut self) -> io::Result<()> {
        self.0.flush()?;
        self.0.get_mut().set_len(0)?;
        self.0.seek(SeekFrom::Start(0)).map(drop)
    }
}
