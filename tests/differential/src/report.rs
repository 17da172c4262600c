//! What a failing seed prints: the difference, the one command that repeats it, and a short script.

use crate::generate;
use crate::habits::Habits;
use crate::program::Program;
use crate::reduce::reduce;
use crate::run::{run, Failure, Kind};

/// Runs that a reduction may take.
const RUNS_MAX: usize = 400;

/// Runs a seed; the report if it fails.
pub fn check_seed(seed: u64) -> Result<(), String> {
    let program = generate::program(seed, Habits::chosen());
    let Err(failure) = run(&program) else { return Ok(()) };
    // A transaction can begin to read between our last look and our COMMIT, a few microseconds (the README tells how
    // often). Whoever meets us twice in four runs does not meet us by chance.
    if failure.kind == Kind::Busy && (0..3).all(|_| run(&program).is_ok()) {
        eprintln!("seed {seed} met the background once: {failure}");
        return Ok(());
    }
    Err(describe(&program, &failure, &command(seed)))
}

/// The command that repeats a seed.
pub fn command(seed: u64) -> String {
    let host = if cfg!(feature = "bundled") { "" } else { " --no-default-features" };
    let habits = Habits::chosen().option().map_or_else(String::new, |list| format!("--habits {list} "));
    format!("cargo run --release --manifest-path tests/Cargo.toml -p differential{host} -- {habits}--seed {seed}")
}

/// Reduces a failure and says everything about it; the script also goes to the temporary folder.
pub fn describe(program: &Program, failure: &Failure, again: &str) -> String {
    let (short, found) = reduce(program, failure, RUNS_MAX);
    let text = format!("-- {}\n-- {again}\n{short}", found.to_string().replace('\n', "\n-- "));
    let number = again.rsplit(' ').next().unwrap_or("").replace(['/', '.'], "_");
    let file = std::env::temp_dir().join(format!("logos-differential-{number}.script"));
    let written = std::fs::write(&file, &text).map_or_else(|e| e.to_string(), |()| file.display().to_string());
    format!("FAILED {failure}\n  again: {again}\n  reduced to {} steps, in {written}:\n{text}", short.steps.len())
}
