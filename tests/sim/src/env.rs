//! Clock and chance of one engine.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use logos_engine::drive::env::Env;

/// When simulations begin, in milliseconds since 1970.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// The time that passes for all, in microseconds.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    /// Since the beginning.
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// What one engine sees of it.
#[derive(Debug)]
pub struct Simulated {
    clock: Clock,
    /// How much faster its clock goes, in thousandths.
    drift: u32,
    chance: Mutex<fastrand::Rng>,
}

impl Simulated {
    /// With a clock that goes so wrong, and chance that comes from the seed.
    pub fn new(clock: &Clock, drift: u32, seed: u64) -> Arc<Self> {
        Arc::new(Self { clock: clock.clone(), drift, chance: Mutex::new(fastrand::Rng::with_seed(seed)) })
    }
}

impl Env for Simulated {
    fn now(&self) -> Duration {
        self.clock.now() * (1_000 + self.drift) / 1_000
    }

    fn wall_ms(&self) -> i64 {
        EPOCH_MS + self.now().as_millis() as i64
    }

    fn fill(&self, bytes: &mut [u8]) -> std::io::Result<()> {
        self.chance.lock().unwrap().fill(bytes);
        Ok(())
    }

    fn tells_times_of_files(&self) -> bool {
        false
    }
}
