//! Simulated time: slots, and the dice that decide which of them have a block.
//!
//! Invariants
//! - A slot passes only when somebody says so. The same beginning gives the same slots on every run.

use crate::config::SlotGap;

/// The clock and the dice.
pub(crate) struct Clock {
    /// The current slot.
    pub(crate) slot: u64,
    /// State of the dice; any number will do to begin with.
    pub(crate) random: u64,
}

impl Clock {
    /// The slot of the next block.
    pub(crate) fn next(&mut self, gap: SlotGap) -> u64 {
        self.slot += match gap {
            SlotGap::Fixed(slots) => slots.max(1),
            SlotGap::Density(density) => {
                let uniform = (self.dice() >> 11) as f64 / (1u64 << 53) as f64;
                1 + ((1.0 - uniform).ln() / (1.0 - density.clamp(0.000_001, 0.999_999)).ln()) as u64
            }
        };
        self.slot
    }

    /// SplitMix64.
    fn dice(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
