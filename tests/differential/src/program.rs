//! A program: who runs which statement, and when databases are compared. It has a text form, a step a line.
//!
//! A statement that begins with a dot is for its connection (`client.rs`). A newline within a statement is written `␊`.
//!
//! Invariant: parsing what `Display` wrote gives the same program.

use std::fmt;
use std::str::FromStr;

/// Who runs a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Actor {
    /// A connection of this process, which has loaded the extension.
    Local,
    /// Another one, used from other threads.
    Thread,
    /// A stock shell without the extension.
    Shell,
    /// Another process of that kind.
    OtherShell,
    /// Another process without the extension, of the same version of SQLite as this one, that answers (`helper.rs`).
    Process,
    /// The same with the extension loaded.
    LoadedProcess,
}

impl Actor {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Local, Self::Thread, Self::Shell, Self::OtherShell, Self::Process, Self::LoadedProcess];

    fn word(self) -> &'static str {
        match self {
            Self::Local => "c0",
            Self::Thread => "t1",
            Self::Shell => "s2",
            Self::OtherShell => "s3",
            Self::Process => "p4",
            Self::LoadedProcess => "q5",
        }
    }

    /// Whether it is a stock shell.
    pub fn is_shell(self) -> bool {
        matches!(self, Self::Shell | Self::OtherShell)
    }
}

/// Which replica is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one that is there, or the first one.
    Same,
    /// The same file, opened anew.
    Reopened,
    /// A new one, made from the channel alone.
    Fresh,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// One statement.
    Sql(Actor, String),
    /// `logos_publish`, unless it runs.
    Publish,
    /// `logos_stop`.
    Stop,
    /// `logos_flush`: a message ends here.
    Flush,
    /// Flush, pull, compare.
    Check(Which),
    /// Nobody does anything for as many milliseconds.
    Think(u64),
    /// This process closes all its connections, opens the file again and publishes again.
    Restart,
    /// The backup API copies the database aside.
    Backup,
    /// The backup API brings the copy back.
    Restore,
    /// `logos_resync`.
    Resync,
}

/// A whole program.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Program {
    /// What every database runs first, before WAL mode and before anything is in it.
    pub settings: String,
    /// Options of `logos_publish`.
    pub options: String,
    /// The steps.
    pub steps: Vec<Step>,
}

impl Program {
    /// Whether some of it is run by shells.
    pub fn has_shells(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Sql(actor, _) if actor.is_shell()))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sql(actor, sql) => write!(f, "{}: {}", actor.word(), sql.replace('\n', "␊")),
            Self::Publish => write!(f, "publish"),
            Self::Stop => write!(f, "stop"),
            Self::Flush => write!(f, "flush"),
            Self::Check(Which::Same) => write!(f, "check"),
            Self::Check(Which::Reopened) => write!(f, "check reopened"),
            Self::Check(Which::Fresh) => write!(f, "check fresh"),
            Self::Think(ms) => write!(f, "think {ms}"),
            Self::Restart => write!(f, "restart"),
            Self::Backup => write!(f, "backup"),
            Self::Restore => write!(f, "restore"),
            Self::Resync => write!(f, "resync"),
        }
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        Ok(match line.trim() {
            "publish" => Self::Publish,
            "stop" => Self::Stop,
            "flush" => Self::Flush,
            "check" => Self::Check(Which::Same),
            "check reopened" => Self::Check(Which::Reopened),
            "check fresh" => Self::Check(Which::Fresh),
            "restart" => Self::Restart,
            "backup" => Self::Backup,
            "restore" => Self::Restore,
            "resync" => Self::Resync,
            think if think.starts_with("think ") => Self::Think(think[6..].parse().map_err(|_| line.to_string())?),
            statement => {
                let actor = Actor::ALL.into_iter().find(|a| statement.starts_with(&format!("{}: ", a.word())));
                let actor = actor.ok_or_else(|| format!("not a step: {statement}"))?;
                Self::Sql(actor, statement[4..].replace('␊', "\n"))
            }
        })
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "settings {}", self.settings)?;
        writeln!(f, "options {}", self.options)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl FromStr for Program {
    type Err = String;

    /// Empty lines and lines that start with `--` say nothing.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut program = Self { options: "{}".into(), ..Self::default() };
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("--")) {
            if let Some(settings) = line.strip_prefix("settings") {
                program.settings = settings.trim().to_string();
            } else if let Some(options) = line.strip_prefix("options") {
                program.options = options.trim().to_string();
            } else {
                program.steps.push(line.parse()?);
            }
        }
        Ok(program)
    }
}
