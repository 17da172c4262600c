//! Runs seeds, in as many processes as there are processors, and reduces what fails.
//!
//! `differential --from 1 --count 20000 [--jobs N]`   a range of seeds
//! `differential --seed 17`                           one seed; reduced if it fails
//! `differential --script FILE [--reduce]`            a program as a failure left it
//! `differential --show 17`                           prints the program of a seed
//!
//! `--habits all`, `--habits none`, `--habits virtual,turns`: what programs may do besides ordinary statements (`habits.rs`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use differential::habits::Habits;
use differential::report::{check_seed, describe};
use differential::{generate, helper, run, Program};

/// A long run says how far it is whenever it has begun so many seeds.
const SAY_EVERY: u64 = 1_000;

fn main() -> ExitCode {
    // Failures are reported by themselves; a panic's own lines would only repeat them.
    std::panic::set_hook(Box::new(|_| {}));
    let args: Vec<String> = std::env::args().skip(1).collect();
    if helper::serve(&args) {
        return ExitCode::SUCCESS;
    }
    let value =
        |name: &str| args.iter().position(|a| a == name).map(|at| args.get(at + 1).unwrap_or_else(usage).as_str());
    let number = |name: &str| value(name).map(|text| text.parse::<u64>().unwrap_or_else(|_| usage()));
    if let Some(Err(error)) = value("--habits").map(Habits::choose) {
        eprintln!("{error}");
        return ExitCode::from(2);
    }
    if let Some(seed) = number("--show") {
        print!("{}", generate::program(seed, Habits::chosen()));
        return ExitCode::SUCCESS;
    }
    if let Some(file) = value("--script") {
        return script(file, args.iter().any(|a| a == "--reduce"));
    }
    if let Some(seed) = number("--seed") {
        return seeds(seed, 1, 1);
    }
    let from = number("--from").unwrap_or(1);
    let count = number("--count").unwrap_or(500);
    match number("--step") {
        Some(step) => seeds(from, count, step),
        None => parallel(from, count, number("--jobs").unwrap_or_else(processors)),
    }
}

fn usage<T>() -> T {
    eprintln!("usage: differential [--from N] [--count N] [--jobs N] [--habits LIST] | --seed N | --script FILE [--reduce] | --show N");
    std::process::exit(2)
}

fn processors() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64)
}

fn script(file: &str, reduced: bool) -> ExitCode {
    let text = std::fs::read_to_string(file).expect("the script");
    let program: Program = text.parse().expect("a script as this program writes them");
    match run(&program) {
        Ok(()) => {
            println!("no difference");
            ExitCode::SUCCESS
        }
        Err(failure) if reduced => {
            println!("{}", describe(&program, &failure, file));
            ExitCode::FAILURE
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Every `step`th seed of a range, one after the other in this process.
fn seeds(from: u64, count: u64, step: u64) -> ExitCode {
    let mut failed = false;
    for seed in (from..from + count).step_by(step as usize) {
        println!("seed {seed}");
        if let Err(report) = check_seed(seed) {
            failed = true;
            println!("{report}");
        }
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// A process a job: a crash of one names its seed and leaves the others alone.
fn parallel(from: u64, count: u64, jobs: u64) -> ExitCode {
    let started = std::time::Instant::now();
    let begun = AtomicU64::new(0);
    let note: &(dyn Fn() + Sync) = &|| {
        let n = begun.fetch_add(1, Ordering::Relaxed);
        if n > 0 && n.is_multiple_of(SAY_EVERY) {
            eprintln!("{n} of {count} seeds, {} s", started.elapsed().as_secs());
        }
    };
    let failures: Vec<u64> = std::thread::scope(|scope| {
        let jobs: Vec<_> =
            (0..jobs.min(count)).map(|job| scope.spawn(move || child(from + job, from + count, jobs, note))).collect();
        jobs.into_iter().flat_map(|job| job.join().unwrap()).collect()
    });
    println!("{count} seeds from {from} in {} s: {} failed {failures:?}", started.elapsed().as_secs(), failures.len());
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs a child until the end of its seeds, again after a crash. Returns the seeds that failed. `note` is told of each.
fn child(mut from: u64, end: u64, step: u64, note: &(dyn Fn() + Sync)) -> Vec<u64> {
    let mut failed = Vec::new();
    while from < end {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--from", &from.to_string(), "--count", &(end - from).to_string(), "--step", &step.to_string()])
            .args(Habits::chosen().option().into_iter().flat_map(|list| ["--habits".to_string(), list]))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut seed = from;
        for line in BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap) {
            match line.strip_prefix("seed ").and_then(|n| n.parse().ok()) {
                Some(next) => {
                    seed = next;
                    note();
                }
                None => {
                    println!("{line}");
                    if failed.last() != Some(&seed) {
                        failed.push(seed);
                    }
                }
            }
        }
        let status = process.wait().unwrap();
        if status.code().is_some() {
            return failed;
        }
        println!("seed {seed} ended its process: {status}");
        failed.push(seed);
        from = seed + step;
    }
    failed
}
