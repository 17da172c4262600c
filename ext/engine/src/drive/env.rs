//! What a worker takes from the world besides files and channels: the time, and chance.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Clock and randomness. A simulation gives its own, and the same run comes out again.
pub trait Env: Debug + Send + Sync {
    /// Time since some fixed moment; it never goes back.
    fn now(&self) -> Duration;

    /// Milliseconds since 1970, as messages carry them.
    fn wall_ms(&self) -> i64;

    /// Fills a buffer with what nobody can foretell.
    fn fill(&self, bytes: &mut [u8]) -> std::io::Result<()>;

    /// Whether a file that changes has another time then. It has not where steps are closer together than the times of files can tell:
    /// then a publisher never lets go of its file, since it would not see the next commit.
    fn tells_times_of_files(&self) -> bool {
        true
    }
}

/// The machine's own.
#[derive(Debug)]
pub struct System {
    start: Instant,
}

impl Default for System {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Env for System {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall_ms(&self) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
    }

    fn fill(&self, bytes: &mut [u8]) -> std::io::Result<()> {
        getrandom::fill(bytes).map_err(|e| std::io::Error::other(e.to_string()))
    }
}
