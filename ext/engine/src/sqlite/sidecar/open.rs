//! Which sidecars this process has open, or is opening or closing: their lock says "held", and not by whom.
//!
//! Invariants
//! - A mark is there before the lock can be taken, and until it is given back.
//! - A forked child has none of its parent's: the locks are not its either.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

type Marks = HashMap<(u32, PathBuf), usize>;

/// How many by process and path; held for one question or change.
static MARKS: LazyLock<Mutex<Marks>> = LazyLock::new(Mutex::default);

fn marks() -> MutexGuard<'static, Marks> {
    MARKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One sidecar that is open.
pub(super) struct Mark(u32, PathBuf);

impl Mark {
    pub(super) fn new(sidecar: &Path) -> Self {
        let mark = Self(std::process::id(), sidecar.to_path_buf());
        *marks().entry((mark.0, mark.1.clone())).or_default() += 1;
        mark
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let key = (self.0, std::mem::take(&mut self.1));
        let mut marks = marks();
        match marks.get_mut(&key) {
            Some(more) if *more > 1 => *more -= 1,
            _ => drop(marks.remove(&key)),
        }
    }
}

/// Whether this process has a sidecar open.
pub(super) fn is_open_here(sidecar: &Path) -> bool {
    marks().contains_key(&(std::process::id(), sidecar.to_path_buf()))
}
