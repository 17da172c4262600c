//! SQLite's C interface, our connections to it, and what belongs to the process: the connections that have loaded us, forks, threads.
//!
//! Invariants
//! - Knows nobody above it. What others want to be told of, it takes as a value or a trait.
//! - The only room with `unsafe` besides the doors, and with statics.

pub mod api;
pub mod blame;
pub mod claims;
pub mod collations;
pub mod connection;
pub mod connections;
pub mod database;
pub mod fault;
pub mod fork;
pub mod hooks;
pub mod idle;
#[cfg(feature = "loadable")]
pub mod library;
pub mod process;
#[cfg(feature = "loadable")]
pub mod standins;
pub mod threads;
