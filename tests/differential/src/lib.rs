//! The differential tester: random schemas, random programs, several writers, and three databases that must agree.
//!
//! The *primary* is published. The *shadow* runs the same statements in the same order and knows nothing of logos: what
//! differs there, we did to the application. The *replica* is made from the channel alone: what differs there, we lost.
//!
//! Invariants
//! - A program follows from its seed and the version of SQLite; its text says all of it and can be run again.
//! - Only a difference is a failure. Statements that SQLite refuses are part of the game: both must refuse them.
//!
//! Not here: claims about single behaviours (`tests/harness/tests`, `tests/differential/tests/regressions.rs`); crashes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod actors;
pub mod client;
pub mod generate;
pub mod habits;
pub mod helper;
pub mod program;
pub mod reduce;
pub mod report;
pub mod run;
pub mod shadow;
pub mod virtuals;

pub use program::{Actor, Program, Step};
pub use run::{run, Failure, Kind};
