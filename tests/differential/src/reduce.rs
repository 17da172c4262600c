//! Reduction: the shortest program that still fails in the same way, by leaving out stretches of steps.

use crate::program::Program;
use crate::run::{run, Failure};

/// Leaves out whatever can be left out, with at most `runs_max` runs.
pub fn reduce(program: &Program, failure: &Failure, runs_max: usize) -> (Program, Failure) {
    let mut best = program.clone();
    let mut found = failure.clone();
    best.steps.truncate(found.step + 1);
    if run(&best).err().is_none_or(|f| f.kind != failure.kind) {
        best = program.clone();
    }
    let mut runs = 1;
    let mut stretch = best.steps.len().div_ceil(2).max(1);
    loop {
        let before = best.steps.len();
        let mut at = 0;
        while at < best.steps.len() && runs < runs_max {
            let mut shorter = best.clone();
            shorter.steps.drain(at..(at + stretch).min(best.steps.len()));
            runs += 1;
            match run(&shorter) {
                Err(f) if f.kind == failure.kind => (best, found) = (shorter, f),
                _ => at += stretch,
            }
        }
        let shrank = best.steps.len() < before;
        if runs >= runs_max || (stretch == 1 && !shrank) {
            return (best, found);
        }
        stretch = if stretch > 1 { stretch / 2 } else { 1 };
    }
}
