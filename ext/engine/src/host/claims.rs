//! Which files this process has locked, or is locking or letting go: a lock says "held", and not by whom.
//!
//! Invariants
//! - A claim is there before the lock can be taken, and until it is given back.
//! - A forked child has none of its parent's: the locks are not its either.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

type Claims = HashMap<(u32, PathBuf), usize>;

/// How many by process and path; held for one question or change.
static CLAIMS: LazyLock<Mutex<Claims>> = LazyLock::new(Mutex::default);

fn claims() -> MutexGuard<'static, Claims> {
    CLAIMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One file, until dropped.
pub struct Claim(u32, PathBuf);

impl Claim {
    /// Claims it.
    pub fn new(file: &Path) -> Self {
        let claim = Self(std::process::id(), file.to_path_buf());
        *claims().entry((claim.0, claim.1.clone())).or_default() += 1;
        claim
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let key = (self.0, std::mem::take(&mut self.1));
        let mut claims = claims();
        match claims.get_mut(&key) {
            Some(more) if *more > 1 => *more -= 1,
            _ => drop(claims.remove(&key)),
        }
    }
}

/// Whether this process has claimed a file.
pub fn is_claimed(file: &Path) -> bool {
    claims().contains_key(&(std::process::id(), file.to_path_buf()))
}
