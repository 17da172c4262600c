//! `sim SEED [COUNT]`: plays one seed and prints its trace, or so many seeds from there and says which of them fail.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::ExitCode;

fn main() -> ExitCode {
    // Whatever is no number makes it a call that is not understood.
    let numbers: Result<Vec<u64>, _> = std::env::args().skip(1).map(|arg| arg.parse()).collect();
    match numbers.as_deref().unwrap_or_default() {
        [seed] => {
            let outcome = sim::run(*seed);
            outcome.trace.iter().for_each(|line| println!("{line}"));
            match &outcome.fault {
                Some(fault) => println!("FAILED {fault}"),
                None => println!("trace {}", outcome.digest()),
            }
            ExitCode::from(u8::from(outcome.fault.is_some()))
        }
        [first, count] => {
            let mut failed = 0;
            for seed in *first..first + count {
                let (one, two) = (sim::run(seed), sim::run(seed));
                let fault = one.fault.clone().or_else(|| {
                    let differing = one.trace.iter().zip(&two.trace).position(|(a, b)| a != b);
                    (one.trace != two.trace).then(|| format!("two runs differ from step {differing:?} on"))
                });
                if let Some(fault) = fault {
                    failed += 1;
                    println!("seed {seed}: {fault}\n  again: make sim SEED={seed}");
                }
            }
            println!("{count} seeds, each played twice, {failed} failed");
            ExitCode::from(u8::from(failed > 0))
        }
        _ => {
            eprintln!("usage: sim SEED [COUNT]");
            ExitCode::from(2)
        }
    }
}
