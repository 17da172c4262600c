//! Patience: how long a caller waits for a background thread. Until a time, or until somebody interrupts the caller's
//! connection (`sqlite3_interrupt`, Ctrl-C in the shell).

use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How often to look for an interrupt.
const LOOK: Duration = Duration::from_millis(100);

/// How long to wait, from now on.
pub struct Patience<'i> {
    total: Duration,
    deadline: Instant,
    interrupted: &'i dyn Fn() -> bool,
}

impl Patience<'static> {
    /// Only the time ends it.
    pub fn of(total: Duration) -> Self {
        Self::unless(total, &|| false)
    }
}

impl<'i> Patience<'i> {
    /// `interrupted` ends it as well; it is asked on the caller's thread, with no lock of ours held.
    pub fn unless(total: Duration, interrupted: &'i dyn Fn() -> bool) -> Self {
        Self { total, deadline: Instant::now() + total, interrupted }
    }

    /// What it was in the beginning, in whole seconds.
    pub fn seconds(&self) -> u64 {
        self.total.as_secs()
    }

    /// Whether the time is up.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// How long to sleep before looking again.
    pub fn step(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).min(LOOK)
    }

    /// An error if the caller was interrupted.
    pub fn check(&self) -> Result<()> {
        match (self.interrupted)() {
            false => Ok(()),
            true => Err(Error::retry(
                "it was interrupted while it waited",
                "nothing was lost, and what was waited for goes on in the background; ask again, or see logos_status",
            )),
        }
    }
}
