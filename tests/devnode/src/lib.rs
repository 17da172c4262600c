//! A development Logos node: speaks the HTTP API of a real one by the real channel rules, on a simulated clock, and
//! misbehaves on demand.
//!
//! In-process: [`DevNode::start`], then the methods of [`Node`] through [`DevNode::node`]. As a program:
//! `logos-devnode --help`, and POST to `/dev/…` (see [`dev`]).
//!
//! Invariants
//! - It listens on 127.0.0.1 only and keeps nothing unless told where.
//! - By default it tells the truth and keeps the rules; a lie is always somebody's explicit wish.
//!
//! Refuses to be: a real node. No peers, no consensus, no proofs; the proof of a transfer is 128 hashed bytes.

pub mod answers;
pub mod chain;
mod clock;
pub mod config;
pub mod dev;
pub mod faults;
pub mod http;
mod journal;
pub mod ledger;
pub mod mempool;
pub mod node;
pub mod server;
mod streams;
pub mod wallet;

pub use answers::Shape;
pub use config::{NodeConfig, SlotGap};
pub use faults::{Fault, Rule};
pub use ledger::Prices;
pub use node::{Abandoned, Forgery, Node};
pub use server::DevNode;
