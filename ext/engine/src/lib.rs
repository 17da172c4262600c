//! The engine of sqlite-logos: capture, publish, pull and apply.
//!
//! | room | what it is for | may use |
//! |---|---|---|
//! | `sqlite` | everything that touches a database | `logos_log`, `entry` |
//! | `entry` | what the sidecar stores and a channel sends | `logos_log` |
//! | `channel` | the trait and its transports | `logos_log`, `entry` |
//! | `publish`, `replica` | the threads that move messages | `sqlite`, `channel` |
//! | `registry`, `fork` | what this process has open; what a fork of it waits for | all of these |
//! | `patience` | how long a caller waits | `error` |
//! | `threads` | starting threads | `error` |
//! | `sql` | the SQL surface | all of these |
//!
//! `unsafe` is only in `sqlite::{api, hooks, hosthooks}`, `sql` and `threads`: where SQLite calls us, or where we call
//! what rusqlite and std do not wrap.

pub mod channel;
pub mod entry;
pub mod error;
mod fault;
mod fork;
mod patience;
pub mod publish;
mod registry;
pub mod replica;
pub mod sql;
pub mod sqlite;
mod threads;

pub use rusqlite::ffi;
