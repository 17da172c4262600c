//! Columns: what became of them between two messages.
//!
//! Texts do not tell: DROP b and RENAME c TO b may leave the same table as DROP c. So each captured table carries one trigger
//! that never fires and names all columns in its UPDATE OF list. ALTER TABLE RENAME COLUMN rewrites the names there, DROP COLUMN
//! leaves them alone, and nothing else touches them: a name's *place* in the list says what its column is called now, if it
//! is still there. Columns that came later are appended; places never change.
//!
//! Whether a column is still there, or was dropped and another one of its name added, only data can tell: where every row
//! whose key is not in the log holds what ADD COLUMN would have put there, both histories come to the same.
//!
//! Invariants
//! - ALTER TABLE only ever drops columns and adds them at the end, so those that are still there come first, in their old order.
//! - A fate is told only if no other history of the same names and data leads to other rows; else the table is sent whole.
//!
//! Not here: the statements (`diff`), reading the rows (`reset`).

use crate::catalog::schema::Table;
use crate::catalog::{quote, OURS};

/// What the trigger's name ends with.
pub(super) const ROLE: &str = "columns";

/// The statement that makes a table's list of names.
pub(super) fn trigger(table: &Table, id: i64, names: &[String]) -> String {
    let list = names.iter().map(|n| quote(n)).collect::<Vec<_>>().join(",");
    let on = quote(&table.name);
    format!("CREATE TRIGGER \"{OURS}{id}_{ROLE}\" BEFORE UPDATE OF {list} ON {on} WHEN 0 BEGIN SELECT 1; END")
}

/// A list with the columns that it does not have yet.
pub(super) fn extended(list: &[String], columns: &[String]) -> Vec<String> {
    let more = columns.iter().filter(|c| !list.contains(c));
    list.iter().chain(more).cloned().collect()
}

/// What each column that a list named then is called now, if it is still there.
pub fn called(then: &[String], now: &[String]) -> Vec<(String, String)> {
    then.iter().cloned().zip(now.iter().cloned()).collect()
}

/// A table's columns, then and now.
pub struct Columns<'a> {
    /// Names at the last message.
    pub old: &'a [String],
    /// For each of these, what it is called now if it is still there; `None`: nobody knows.
    pub called: &'a [Option<String>],
    /// Names now.
    pub new: &'a [String],
    /// Whether an old and a new column are of one type, default and so on: one that is still there is.
    pub alike: &'a dyn Fn(usize, usize) -> bool,
}

/// What became of the columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is known, or makes no difference.
    Told {
        /// The first of the new columns, as places among the old ones. All other old ones are gone, all other new ones were added.
        kept: Vec<usize>,
        /// Those of the kept (as places among the new ones) that may have been dropped and added again: every row that was not
        /// written to holds their default.
        reset: Vec<usize>,
    },
    /// It cannot be told.
    Untold,
}

impl Columns<'_> {
    /// The new columns that may be old ones, as far as names tell; `None`: they do not.
    pub fn kept(&self) -> Option<Vec<usize>> {
        if self.called.iter().any(Option::is_none) {
            // Added and not in the list yet. Where nothing looks changed, nothing is taken for changed.
            return (self.old == self.new).then(|| (0..self.old.len()).collect());
        }
        let mut kept: Vec<usize> = Vec::new();
        for (i, name) in self.new.iter().enumerate() {
            let is_it = |&j: &usize| self.called[j].as_ref() == Some(name) && (self.alike)(j, i);
            match (0..self.old.len()).filter(is_it).collect::<Vec<_>>().as_slice() {
                [j] if kept.last().is_none_or(|last| last < j) => kept.push(*j),
                // A column that was dropped leaves its name in the list, where a later one of that name is renamed with it.
                [_, _, ..] => return None,
                _ => break,
            }
        }
        Some(kept)
    }

    /// How many statements at least must have led here, if these were kept.
    pub fn steps(&self, kept: &[usize]) -> i64 {
        let renamed = kept.iter().enumerate().filter(|(i, &j)| self.old[j] != self.new[*i]).count();
        (self.old.len() - kept.len() + self.new.len() - kept.len() + renamed) as i64
    }

    /// Decides. `own` looks whether a row that was not written to holds something else than the default of a new column (`None`:
    /// nobody can tell); `may_be_reset`: whether this column and all behind it can have been dropped and added again, so many of
    /// which are there already.
    pub fn fate(
        &self,
        may_be_reset: &mut dyn FnMut(usize, usize) -> bool,
        own: &mut dyn FnMut(usize) -> Option<bool>,
    ) -> Fate {
        let Some(kept) = self.kept() else { return Fate::Untold };
        // Somebody who edits the schema by hand can change names and types under the values.
        if (kept.len()..self.new.len()).any(|i| own(i) != Some(false)) {
            return Fate::Untold;
        }
        let listed = self.called.iter().all(Option::is_some);
        let mut reset = Vec::new();
        for i in (0..kept.len()).rev() {
            if !may_be_reset(i, kept.len() - i) {
                break;
            }
            match own(i) {
                Some(true) => break,
                Some(false) if listed => reset.push(i),
                _ => return Fate::Untold,
            }
        }
        Fate::Told { kept, reset }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<String> {
        list.split_whitespace().map(String::from).collect()
    }

    /// `own`: the new columns in which a row that was not written to holds something of its own.
    fn fate(old: &str, called: &str, new: &str, own: &str) -> Fate {
        let (old, new, own) = (names(old), names(new), names(own));
        let called: Vec<_> = names(called).into_iter().map(|name| Some(name).filter(|n| n != "?")).collect();
        let columns = Columns { old: &old, called: &called, new: &new, alike: &|_, _| true };
        columns.fate(&mut |i, _| i > 0, &mut |i| Some(own.contains(&new[i])))
    }

    fn told(kept: &[usize], reset: &[usize]) -> Fate {
        Fate::Told { kept: kept.to_vec(), reset: reset.to_vec() }
    }

    #[test]
    fn a_renamed_column_is_told_from_one_dropped_and_added() {
        assert_eq!(fate("id a b", "id a c", "id a c", "c"), told(&[0, 1, 2], &[]));
        assert_eq!(fate("id a b", "id a b", "id a c", "a"), told(&[0, 1], &[]));
    }

    #[test]
    fn dropping_one_column_and_giving_another_its_name_is_told_from_dropping_the_other() {
        assert_eq!(fate("id a b c", "id a b c", "id a b", "b"), told(&[0, 1, 2], &[]));
        assert_eq!(fate("id a b c", "id a x b", "id a b", "b"), told(&[0, 1, 3], &[]));
        // The list cannot tell here: b was dropped, and c took its name along.
        assert_eq!(fate("id a b c", "id a b b", "id a b", "b"), Fate::Untold);
    }

    #[test]
    fn names_that_were_swapped_stay_with_their_values() {
        assert_eq!(fate("id a b", "id b a", "id b a", "a b"), told(&[0, 1, 2], &[]));
    }

    #[test]
    fn the_last_columns_may_have_been_dropped_and_added_as_they_were_if_no_row_says_otherwise() {
        assert_eq!(fate("id a b c", "id a b c", "id a b c", "a"), told(&[0, 1, 2, 3], &[3, 2]));
        assert_eq!(fate("id a b c", "id a b c", "id a b c", "a c"), told(&[0, 1, 2, 3], &[]));
        assert_eq!(fate("id a b", "id a b", "id a b c", "a"), told(&[0, 1, 2], &[2]));
    }

    #[test]
    fn a_column_that_moved_behind_another_was_added_anew() {
        assert_eq!(fate("id a b", "id a b", "id b a", "b"), told(&[0, 2], &[]));
        // Unless its rows say otherwise, which no ALTER can bring about.
        assert_eq!(fate("id a b", "id a b", "id b a", "a b"), Fate::Untold);
        assert_eq!(fate("id a", "id a", "id c", "c"), Fate::Untold);
    }

    #[test]
    fn a_column_that_is_not_in_the_list_yet_makes_a_changed_table_uncertain() {
        assert_eq!(fate("id a b", "id a ?", "id a b", "a b"), told(&[0, 1, 2], &[]));
        assert_eq!(fate("id a b", "id a ?", "id a b", "a"), Fate::Untold);
        assert_eq!(fate("id a b", "id a ?", "id a", "a"), Fate::Untold);
    }

    #[test]
    fn a_list_only_grows_and_keeps_the_places_of_its_names() {
        let list = extended(&names("id b a a"), &names("id a d"));
        assert_eq!(list, names("id b a a d"));
        assert_eq!(called(&names("id a"), &names("id b d")), [("id".into(), "id".into()), ("a".into(), "b".into())]);
    }
}
