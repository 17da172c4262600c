//! The engine of sqlite-logos: capture, publish, pull and apply.
//!
//! From the ground up; each room may use those above it in this table, and `tests/tidy` says which.
//!
//! | room | what it is for |
//! |---|---|
//! | `error` | one error for all: what happened, what to do |
//! | `host` | SQLite's C interface, our connections, the listed ones, forks, threads |
//! | `channel` | the trait and its transports |
//! | `catalog` | what a schema is: objects, tables and their keys, texts, virtual tables |
//! | `outbox` | the sidecar: identity, messages, what was published |
//! | `capture` | what is in the user's file, and what its writers tell us |
//! | `changeset` | what the next message says: a plan, then its rows |
//! | `apply` | one message, one transaction |
//! | `drive` | publisher, standby, follower; clock and chance |
//! | `service` | use cases, for every door |
//! | `sql` | the SQL door: names and types |
//!
//! `unsafe` is only in `host` and `sql`: where SQLite calls us, or where we call what rusqlite and std do not wrap.

pub mod apply;
pub mod capture;
pub mod catalog;
pub mod changeset;
pub mod channel;
pub mod drive;
pub mod error;
pub mod host;
pub mod outbox;
pub mod service;
#[cfg(feature = "loadable")]
pub mod sql;

pub use rusqlite::ffi;
