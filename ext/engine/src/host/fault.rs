//! Fault points: named places where a process can be killed, to prove that being killed there does no harm.
//!
//! Without the feature `sim` they are nothing. With it, `LOGOS_FAULT=name[:n]` in the environment sends this process
//! SIGKILL when it passes the named point for the n-th time; `logos_faults()` lists the names.

/// All fault points, in the order in which a change passes them.
#[cfg(feature = "sim")]
pub const POINTS: [&str; 12] = [
    "enrol.before_commit",
    "build.synced",
    "build.before_store",
    "build.stored",
    "send.before",
    "send.before_record",
    "send.recorded",
    "forget.before_commit",
    "forget.done",
    "apply.before",
    "apply.before_commit",
    "apply.done",
];

/// Passes a fault point.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub fn point(_name: &'static str) {}

/// Passes a fault point.
#[cfg(feature = "sim")]
pub fn point(name: &'static str) {
    use std::sync::atomic::{AtomicU64, Ordering};
    static PASSED: AtomicU64 = AtomicU64::new(0);
    debug_assert!(POINTS.contains(&name));
    let Ok(wanted) = std::env::var("LOGOS_FAULT") else { return };
    let (at, nth) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if at == name && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == nth.parse().unwrap_or(1) {
        // The real thing: no destructors, no flushing.
        let _ = std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
        loop {
            std::thread::park();
        }
    }
}
