//! The ledger: what commits of this process have written besides captured tables.
//!
//! Invariants
//! - It says that tables were left alone only if it knows of every commit in between, and saw all that each wrote. An
//!   unseen one (of another process, of a connection whose hooks are not ours, VACUUM) means looking.

use std::collections::{BTreeMap, BTreeSet};

/// Separate stretches of commits that the ledger remembers; beyond that it forgets them all, which means looking.
const STRETCHES_MAX: usize = 1_000;

/// What the commits of this process have written besides captured tables. Commits are known by the count that the file itself keeps
/// of them.
#[derive(Debug, Default)]
pub struct Ledger {
    /// First and last commit of each stretch that was seen whole.
    stretches: BTreeMap<u32, u32>,
    /// Tables that are not under capture, in lower case, and the last commit that wrote to them.
    written: BTreeMap<String, u32>,
}

impl Ledger {
    /// A commit is about to get this number, and has written to these tables besides captured ones.
    pub fn note(&mut self, commit: u32, tables: impl IntoIterator<Item = String>) {
        for table in tables {
            let last = self.written.entry(table).or_insert(commit);
            *last = commit.max(*last);
        }
        // Nearly every commit of a busy application: the one after the last.
        if let Some(mut last) = self.stretches.last_entry().filter(|last| last.get().checked_add(1) == Some(commit)) {
            *last.get_mut() = commit;
            return;
        }
        let before = commit.checked_sub(1).and_then(|last| self.stretch_with(last));
        let known = self.stretch_with(commit).is_some();
        match before {
            _ if known => {}
            Some(first) => drop(self.stretches.insert(first, commit)),
            None => drop(self.stretches.insert(commit, commit)),
        }
        if self.stretches.len() > STRETCHES_MAX {
            self.stretches.clear();
        }
    }

    /// The commit of this number did not come about, or may not have.
    pub fn withdraw(&mut self, commit: u32) {
        let Some(first) = self.stretch_with(commit) else { return };
        let last = self.stretches.remove(&first).unwrap_or(commit);
        if first < commit {
            self.stretches.insert(first, commit - 1);
        }
        if commit < last {
            self.stretches.insert(commit + 1, last);
        }
    }

    /// Counting began anew: nothing is known of what was before.
    pub fn forget(&mut self) {
        self.stretches.clear();
        self.written.clear();
    }

    fn stretch_with(&self, commit: u32) -> Option<u32> {
        let (&first, &last) = self.stretches.range(..=commit).next_back()?;
        (commit <= last).then_some(first)
    }

    /// The tables that the commits after `from` and up to `to` wrote to, if all of them are known; others may be named. What was
    /// before `to` is forgotten.
    pub fn written(&mut self, from: u32, to: u32) -> Option<BTreeSet<String>> {
        let seen: u32 = self
            .stretches
            .iter()
            .map(|(&first, &last)| (last.min(to) + 1).saturating_sub(first.max(from.saturating_add(1))))
            .sum();
        let all = to.checked_sub(from) == Some(seen);
        let written = all.then(|| self.written.iter().filter(|(_, &at)| at > from).map(|(t, _)| t.clone()).collect());
        self.written.retain(|_, at| *at > to);
        self.stretches = std::mem::take(&mut self.stretches)
            .into_iter()
            .filter(|&(_, last)| last > to)
            .map(|(first, last)| (first.max(to + 1), last))
            .collect();
        written
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> BTreeSet<String> {
        of.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn the_ledger_answers_only_when_it_knows_every_commit() {
        let mut ledger = Ledger::default();
        (11..=20).for_each(|n| ledger.note(n, (n == 15).then(|| "d_content".to_string())));
        assert_eq!(ledger.written(10, 14), Some(names(&["d_content"])), "it may name what comes later");
        assert_eq!(ledger.written(14, 20), Some(names(&["d_content"])));
        ledger.note(22, []);
        assert_eq!(ledger.written(20, 22), None, "21 was somebody else's");
        assert_eq!(ledger.written(22, 22), Some(names(&[])));
        assert_eq!(ledger.written(22, 3), None, "counting began anew");
    }

    #[test]
    fn a_commit_that_did_not_come_about_is_not_known() {
        let mut ledger = Ledger::default();
        (1..=5).for_each(|n| ledger.note(n, []));
        ledger.withdraw(3);
        assert_eq!(ledger.written(0, 5), None);
        ledger.note(6, []);
        ledger.withdraw(6);
        ledger.note(6, ["t".to_string()]);
        ledger.note(6, []);
        assert_eq!(ledger.written(5, 6), Some(names(&["t"])));
    }

    #[test]
    fn the_ledger_stays_small() {
        let mut ledger = Ledger::default();
        (0..10_000).for_each(|n| ledger.note(2 * n, []));
        assert!(ledger.stretches.len() <= STRETCHES_MAX);
    }
}
