//! Bytes and logic of the replication log: identifiers, payloads, entries, the chain rule.
//!
//! Invariants
//! - No I/O, no clock, no randomness, no SQLite: every function is a pure one of its arguments (readers and
//!   writers work on whatever stream they are handed), so tests drive them one byte at a time.
//! - Every decoder is strict (one encoding per meaning) and bounded (nothing is allocated before it is paid for).
//!
//! Not here: where bytes come from (`logos_engine::channel`) and what rows mean (`logos_engine::sqlite`).
#![forbid(unsafe_code)]

pub mod chain;
mod codec;
pub mod crypto;
pub mod entry;
pub mod error;
pub mod ids;
pub mod limits;
pub mod part;
pub mod payload;
pub mod value;
