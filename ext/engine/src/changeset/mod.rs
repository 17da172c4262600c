//! What the next message says: a plan made of what the log, the schema and the settings say in one snapshot, then its rows.
//!
//! Not here: when to take a snapshot, where its message is stored (`drive`, `outbox`).

pub mod compare;
pub mod diff;
pub mod plan;
pub mod reset;
pub mod rows;
pub mod stamps;
