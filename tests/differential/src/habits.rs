//! Habits: what a program may do besides ordinary statements. Each is on in a share of the seeds.
//!
//! Invariant: the same seed with the same habits is the same program.

use std::str::FromStr;
use std::sync::OnceLock;

/// A habit of applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Habit {
    /// Tables and indexes that are made and dropped again in one transaction.
    Scratch,
    /// SELECTs that stay unfinished.
    Cursors,
    /// Backups that are restored, and a process that starts again.
    Restore,
    /// Backups from before publishing that are restored.
    Older,
    /// FTS and rtree tables.
    Virtual,
    /// FTS5 options in the short forms that SQLite takes as well.
    Short,
    /// FTS indexes that are renamed, maybe while they do not fit their table.
    Misfit,
    /// Schema texts with comments and SQLite's other quirks.
    Texts,
    /// Processes that read, think, and write in one deferred transaction.
    Turns,
    /// Connections with triggers switched off.
    Silent,
}

impl Habit {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::Scratch, "scratch"),
        (Self::Cursors, "cursors"),
        (Self::Restore, "restore"),
        (Self::Older, "older"),
        (Self::Virtual, "virtual"),
        (Self::Short, "short"),
        (Self::Misfit, "misfit"),
        (Self::Texts, "texts"),
        (Self::Turns, "turns"),
        (Self::Silent, "silent"),
    ];
}

/// Some habits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habits(u32);

/// What is on unless somebody says otherwise.
const DEFAULT: &str = "all";

static CHOSEN: OnceLock<Habits> = OnceLock::new();

impl Habits {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// Those that this process was told to have.
    pub fn chosen() -> Self {
        *CHOSEN.get_or_init(|| DEFAULT.parse().unwrap())
    }

    /// Tells this process.
    pub fn choose(list: &str) -> Result<(), String> {
        let habits: Self = list.parse()?;
        CHOSEN.set(habits).map_err(|_| "the habits were chosen before".into())
    }

    /// The option that makes another process do the same.
    pub fn option(self) -> Option<String> {
        if Ok(self) == DEFAULT.parse() {
            return None;
        }
        let names: Vec<&str> = Habit::ALL.iter().filter(|(habit, _)| self.has(*habit)).map(|(_, name)| *name).collect();
        Some(if names.is_empty() { "none".into() } else { names.join(",") })
    }

    /// Whether it is one of them.
    pub fn has(self, habit: Habit) -> bool {
        self.0 & (1 << habit as u32) != 0
    }

    /// With this one too.
    pub fn with(self, habit: Habit) -> Self {
        Self(self.0 | (1 << habit as u32))
    }

    /// What both have.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromStr for Habits {
    type Err = String;

    /// `all`, `none`, or names with commas between.
    fn from_str(list: &str) -> Result<Self, String> {
        match list {
            "all" => Ok(Habit::ALL.iter().fold(Self::NONE, |all, (habit, _)| all.with(*habit))),
            "none" => Ok(Self::NONE),
            _ => list.split(',').try_fold(Self::NONE, |some, word| {
                let found = Habit::ALL.iter().find(|(_, name)| *name == word);
                found.map(|(habit, _)| some.with(*habit)).ok_or_else(|| format!("no habit is called {word}"))
            }),
        }
    }
}
