//! Goal: no difference between a primary, a database without us and a replica, whatever an application does.
//!
//! Method: seeds of the differential tester, 500 unless `LOGOS_SEEDS` says how many, from `LOGOS_SEED` on, with
//! the habits of `LOGOS_HABITS` (all). A failing
//! seed prints one command that repeats it, and a reduced script.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicU64, Ordering};

use differential::report::check_seed;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn random_programs_leave_primary_shadow_and_replica_equal() {
    let (first, count) = (number("LOGOS_SEED", 1), number("LOGOS_SEEDS", 500));
    differential::helper::set_program(env!("CARGO_BIN_EXE_differential"));
    if let Ok(list) = std::env::var("LOGOS_HABITS") {
        differential::habits::Habits::choose(&list).unwrap();
    }
    let next = AtomicU64::new(first);
    let work = || {
        let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < first + count);
        std::iter::from_fn(take).filter_map(|seed| check_seed(seed).err()).collect::<Vec<_>>()
    };
    let reports = std::thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(reports.is_empty(), "{} of {count} seeds failed\n{}", reports.len(), reports.join("\n\n"));
}
