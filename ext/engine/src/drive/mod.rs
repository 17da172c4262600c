//! What moves messages: the publisher (a builder and a sender), who stands by for it, and the follower.
//!
//! Each is a machine that takes one step at a time and says what it waits for; a thread does nothing but let it step (`threads`). Time and
//! chance come from `env`, so that a simulation can play them.
//!
//! Not here: what a call of the application means (`service`).

pub mod env;
pub mod follower;
pub mod following;
pub mod patience;
pub mod publisher;
pub mod puller;
pub mod standby;
pub mod workers;
