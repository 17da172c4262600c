//! Other processes of the application: this program once more, which runs what it is told over a pipe.
//!
//! Each is started once and then used by one program after another. One kind has loaded the extension, the other one
//! surely not. Both host the same SQLite as the tester, so that their outcomes can be compared with the shadow's.
//!
//! Invariants
//! - One request, one answer: whoever asks waits. Nothing is concurrent but what works in the background.
//! - A request is a line of fields, and so is an answer; `escape` keeps fields apart.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use crate::client::{Client, Outcome};
use crate::program::Actor;

const WITHOUT: &str = "--helper";
const LOADED: &str = "--loaded-helper";

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
static IDLE: Mutex<Vec<(bool, Helper)>> = Mutex::new(Vec::new());

/// Says which file the program is, where the current one is another (a test).
pub fn set_program(path: &str) {
    let _ = PROGRAM.set(path.into());
}

/// A running process.
pub struct Helper {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Helper {
    /// One that nobody uses, or a new one. `loaded`: with the extension.
    pub fn take(loaded: bool) -> Self {
        let mut idle = IDLE.lock().unwrap();
        if let Some(at) = idle.iter().position(|(kind, _)| *kind == loaded) {
            return idle.swap_remove(at).1;
        }
        drop(idle);
        let program = PROGRAM.get().cloned().unwrap_or_else(|| std::env::current_exe().unwrap());
        let mut child = Command::new(program)
            .arg(if loaded { LOADED } else { WITHOUT })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program once more");
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, stdin, stdout }
    }

    /// Closes its connections and gives it to whoever wants it next.
    pub fn give_back(mut self, loaded: bool) {
        if self.try_ask(&["close"]).is_ok() {
            IDLE.lock().unwrap().push((loaded, self));
        }
    }

    /// Opens the connection of an actor.
    pub fn open(&mut self, actor: Actor, path: &Path, patience: Duration) {
        let millis = patience.as_millis().to_string();
        self.ask(&["open", &key(actor), path.to_str().unwrap(), &millis]);
    }

    /// Runs a statement there.
    pub fn execute(&mut self, actor: Actor, sql: &str) -> (Outcome, String) {
        let answer = self.ask(&["run", &key(actor), sql]);
        let number = |at: usize| answer[at].parse::<i64>().unwrap();
        match answer[0].as_str() {
            "done" => (Outcome::Done(answer[3..].to_vec(), number(1), number(2)), String::new()),
            "failed" => (Outcome::Failed(number(1) as i32), answer[2].clone()),
            other => panic!("the helper said {other}"),
        }
    }

    fn ask(&mut self, fields: &[&str]) -> Vec<String> {
        self.try_ask(fields).unwrap_or_else(|error| panic!("the other process ended: {error}; {:?}", self.child.wait()))
    }

    fn try_ask(&mut self, fields: &[&str]) -> std::io::Result<Vec<String>> {
        writeln!(self.stdin, "{}", line(fields))?;
        let mut answer = String::new();
        if self.stdout.read_line(&mut answer)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(fields_of(&answer))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn key(actor: Actor) -> String {
    format!("{actor:?}")
}

/// Serves if the arguments say so; returns whether they did.
pub fn serve(args: &[String]) -> bool {
    match args.first().map(String::as_str) {
        Some(WITHOUT) => {}
        // What is loaded once is there for every connection of the process.
        Some(LOADED) => drop(harness::open(Path::new(":memory:"))),
        _ => return false,
    }
    let mut clients: HashMap<String, Client> = HashMap::new();
    for request in std::io::stdin().lines().map_while(Result::ok) {
        let fields = fields_of(&request);
        let answer = match fields.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["open", key, path, patience] => {
                let patience = Duration::from_millis(patience.parse().unwrap());
                clients.insert((*key).to_string(), Client::open(Path::new(path), patience));
                line(&["opened"])
            }
            ["run", key, sql] => said(clients.get_mut(*key).unwrap().execute(sql)),
            ["close"] => {
                clients.clear();
                line(&["closed"])
            }
            other => panic!("not a request: {other:?}"),
        };
        println!("{answer}");
    }
    true
}

fn said((outcome, error): (Outcome, String)) -> String {
    match outcome {
        Outcome::Done(rows, changes, rowid) => {
            let (changes, rowid) = (changes.to_string(), rowid.to_string());
            let mut fields = vec!["done", &changes, &rowid];
            fields.extend(rows.iter().map(String::as_str));
            line(&fields)
        }
        Outcome::Failed(code) => line(&["failed", &code.to_string(), &error]),
    }
}

fn line(fields: &[&str]) -> String {
    fields.iter().map(|field| escape(field)).collect::<Vec<_>>().join("\t")
}

fn escape(field: &str) -> String {
    field.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r").replace('\t', "\\t")
}

fn fields_of(line: &str) -> Vec<String> {
    line.trim_end_matches('\n').split('\t').map(unescape).collect()
}

fn unescape(field: &str) -> String {
    let mut text = String::new();
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        text.push(match (c, if c == '\\' { chars.next() } else { None }) {
            (_, Some('n')) => '\n',
            (_, Some('r')) => '\r',
            (_, Some('t')) => '\t',
            (_, Some(other)) => other,
            (c, None) => c,
        });
    }
    text
}
