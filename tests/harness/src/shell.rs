//! The stock `sqlite3` shell: a process that surely runs without the extension, or loads it as a user would.
//!
//! Method: an open shell reads statements from a pipe. For an answer its output goes to a file of its own
//! (`.output`), whose end is marked by another file, because the shell buffers what it writes to a pipe.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::files::{extension, TempDir};
use crate::PATIENCE;

/// What a shell said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Standard output, without the last newline.
    pub out: String,
    /// Standard error, without the last newline.
    pub err: String,
}

/// An open shell. Dropping it kills it.
pub struct Shell {
    child: Child,
    stdin: ChildStdin,
    dir: TempDir,
    asked: usize,
    err_read: usize,
}

impl Shell {
    /// Opens a shell without the extension.
    pub fn open(database: &Path) -> Self {
        Self::with_env(database, &[])
    }

    /// The same with environment variables.
    pub fn with_env(database: &Path, env: &[(&str, &str)]) -> Self {
        let dir = TempDir::new();
        let err = fs::File::create(dir.file("err")).unwrap();
        let mut child = command(database)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(err)
            .spawn()
            .expect("the sqlite3 shell (run `make setup`)");
        let stdin = child.stdin.take().unwrap();
        let mut shell = Self { child, stdin, dir, asked: 0, err_read: 0 };
        shell.send(".timeout 30000");
        shell
    }

    /// Opens a shell that has loaded the extension.
    pub fn open_with_logos(database: &Path) -> Self {
        let mut shell = Self::open(database);
        let answer = shell.ask(&load_command(&extension()));
        assert_eq!(answer.err, "", "the shell could not load the extension");
        shell
    }

    /// One shell from start to end, without the extension.
    pub fn run(database: &Path, script: &str) -> Answer {
        let mut child = command(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the sqlite3 shell (run `make setup`)");
        child.stdin.take().unwrap().write_all(format!(".timeout 30000\n{script}\n").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        Answer { out: said(&output.stdout), err: said(&output.stderr) }
    }

    /// The same with the extension loaded first.
    pub fn run_with_logos(database: &Path, script: &str) -> Answer {
        Self::run(database, &format!("{}\n{script}", load_command(&extension())))
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has ended, by itself or by a signal.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Hands over statements without waiting for them.
    pub fn send(&mut self, script: &str) {
        writeln!(self.stdin, "{script}").expect("the shell still reads");
        self.stdin.flush().unwrap();
    }

    /// Runs statements and returns what was said in answer to them.
    pub fn ask(&mut self, script: &str) -> Answer {
        assert!(script.starts_with('.') || script.trim_end().ends_with(';'), "unfinished: {script}");
        self.asked += 1;
        let out = self.dir.file(&format!("out-{}", self.asked));
        let done = self.dir.file(&format!("done-{}", self.asked));
        self.send(&format!(
            ".output '{}'\n{script}\n.output\n.output '{}'\n.print done\n.output",
            out.display(),
            done.display()
        ));
        self.wait_for(&done);
        let err = fs::read(self.dir.file("err")).unwrap();
        let answer = Answer { out: said(&fs::read(&out).unwrap()), err: said(&err[self.err_read..]) };
        self.err_read = err.len();
        answer
    }

    /// Runs statements that must not fail; returns the output.
    pub fn must(&mut self, script: &str) -> String {
        let answer = self.ask(script);
        assert_eq!(answer.err, "", "the shell refused: {script}");
        answer.out
    }

    fn wait_for(&mut self, done: &PathBuf) {
        let deadline = Instant::now() + PATIENCE;
        while !fs::read(done).is_ok_and(|text| text.ends_with(b"\n")) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the shell ended ({status}): {}", said(&fs::read(self.dir.file("err")).unwrap()));
            }
            assert!(Instant::now() < deadline, "the shell gave no answer in {} s", PATIENCE.as_secs());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills it with SIGKILL, whatever it is doing.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends its input and waits for it to leave by itself.
    pub fn close(mut self) -> ExitStatus {
        self.send(".quit");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the shell did not leave in {} s", PATIENCE.as_secs());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

fn command(database: &Path) -> Command {
    let mut command = Command::new("sqlite3");
    command.args(["-batch", "-init", "/dev/null"]).arg(database);
    command
}

fn load_command(extension: &Path) -> String {
    format!(".load '{}'", extension.with_extension("").display())
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned()
}
