//! A simulation: a primary whose application commits at random, two replicas, and a channel in memory whose weather delays, loses and repeats.
//!
//! Everything is the product's own but threads, clocks, chance and the channel: each machine is let step when the dice say so, each engine
//! has its own clock, which goes a little wrong, and nothing waits. Files and SQLite are real.
//!
//! Invariants
//! - One seed is one run: the trace holds what every step came to, and two runs of a seed have the same.
//! - At the end the sky clears, all that was committed arrives, and both replicas equal the primary, row by row.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod application;
pub mod env;
pub mod run;

pub use run::{run, Outcome};
