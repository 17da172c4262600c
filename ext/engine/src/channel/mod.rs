//! Channels: where entries go to and come from. One trait, one implementation a transport.
//!
//! Invariants
//! - A transport moves entries and says where they are; it decides nothing about their truth. Signature, author and
//!   parents are checked by the one who reads (`logos_log::chain`), with the same code for every transport. What nobody signed
//!   is never more than "not there yet, or damaged".
//! - Sending is idempotent: the same entries may be sent again at any time.
//! - "Nothing more" is only ever said when it is known; anything else is an error.
//!
//! Not here: who calls when (`drive`), SQLite.

pub mod dir;
pub mod entry;
pub mod logos;
pub mod mem;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use logos_log::chain::CheckedTx;
use logos_log::crypto::SigningKey;
use logos_log::entry::SignedTx;
use logos_log::ids::{ChannelId, MsgId};

use entry::{Settled, StoredEntry};

use crate::error::{Error, Result};

/// The publisher's stored entries, as a writer sees them.
pub trait Store {
    /// The signed entry of an index that is not final.
    fn entry(&self, index: u64) -> Result<SignedTx>;

    /// The index of an entry that this database has made, final ones included.
    fn index_of(&self, id: &MsgId) -> Result<Option<u64>>;
}

/// What a writer knows of the entries that it was offered.
#[derive(Debug, Default)]
pub struct Known {
    /// How far they have come.
    pub settled: Settled,
    /// When to ask again, even if there is nothing new to send; not at all if there is no reason to.
    pub again: Option<Duration>,
    /// How long the channel takes for an entry, as far as known: more messages than one in this time are waste.
    pub pace: Option<Duration>,
    /// What keeps the rest from being sent.
    pub trouble: Option<Error>,
}

/// What a reader gets: one signed transaction with entries of the channel, and the bookmark for reading on after it.
#[derive(Debug)]
pub struct Fetched {
    /// The transaction as it was signed. Nothing of it has been checked.
    pub tx: CheckedTx,
    /// What to read on from once all entries of `tx` are dealt with.
    pub bookmark: String,
    /// Where it was found, for messages to people: a file, a block.
    pub place: String,
}

/// The writing end.
pub trait Writer: Send {
    /// Brings entries to the channel. They are all that are not final (or the first of them), oldest first, without a
    /// gap; sent or not, they are offered until they are final. Without any, it only checks that the channel is ours.
    fn send(&mut self, entries: &[StoredEntry], store: &dyn Store) -> Result<Known>;

    /// How long to rest at most before it is tried again after an error.
    fn longest_pause(&self) -> Duration {
        Duration::from_secs(30)
    }

    /// Requests made so far, where there is a network.
    fn requests(&self) -> u64 {
        0
    }
}

/// The reading end.
pub trait Reader: Send {
    /// The transactions that follow `bookmark` (empty: from the beginning), at least one if there is any, and no more than
    /// fit comfortably in memory. An empty answer means that the channel has no more at this moment.
    fn fetch(&mut self, bookmark: &str) -> Result<Vec<Fetched>>;

    /// A bookmark as good as that of the last fetch, which found nothing: from there on much need not be read again. Nothing
    /// if it is not worth a write. The next fetch gets it, kept or not.
    fn later(&mut self) -> Option<String> {
        None
    }

    /// Returns when something new may be there, or after `timeout`. Says whether it is time to look; looking for nothing is
    /// allowed, looking too early is what the user did not want.
    fn wait(&mut self, timeout: Duration) -> bool;

    /// Requests made so far, where there is a network.
    fn requests(&self) -> u64 {
        0
    }
}

/// What a writer is made for.
#[derive(Debug, Clone)]
pub struct Author {
    /// The key that signs; its public half is the channel's id.
    pub key: SigningKey,
    /// What the former writer asked to be told.
    pub memo: Option<String>,
}

/// Which transport, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// A folder.
    Dir(PathBuf),
    /// In memory, for a simulation; no text names it.
    Mem(mem::Mem),
    /// A Logos node: scheme, host and port (and a path, behind a proxy), without a slash at the end.
    Node(String),
}

/// A channel's URL: transport, and the channel's id once it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Where it is.
    pub transport: Transport,
    /// Its id.
    pub channel: Option<ChannelId>,
}

fn unknown(text: &str, why: &str) -> Error {
    // A password may stand before an @, and none may get into a message.
    let text = if text.contains('@') { "(not repeated, it has an @ in it)".into() } else { format!("{text:?}") };
    Error::fix(
        format!("{text} is not the URL of a channel: {why}"),
        "nothing was changed; name a folder as in dir:/path/to/folder, or a Logos node as in http://127.0.0.1:8080",
    )
}

impl Url {
    /// Reads `dir:PATH` or `http://HOST:PORT`, with the channel's id (`/<64 hex>`, `/channel/<64 hex>`) or without. A
    /// relative path is relative to the process's folder now, and made absolute.
    pub fn parse(text: &str) -> Result<Self> {
        // Schemes are the same in either case.
        let scheme = ["http", "https"].into_iter().find_map(|scheme| {
            let (given, rest) = text.split_once("://")?;
            given.eq_ignore_ascii_case(scheme).then_some((scheme, rest))
        });
        if let Some((scheme, rest)) = scheme {
            return Self::parse_node(text, scheme, rest);
        }
        let unknown = |why: &str| unknown(text, why);
        let Some(path) = text.strip_prefix("dir:") else {
            return Err(unknown("it does not begin with dir:, http:// or https://"));
        };
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return Err(unknown("it names no folder"));
        }
        let (path, channel) = match path.rsplit_once('/') {
            Some((folder, last)) if last.len() == 64 => match last.parse::<ChannelId>() {
                Ok(id) => (folder, Some(id)),
                Err(_) => (path, None),
            },
            _ => (path, None),
        };
        let path = std::path::absolute(path).map_err(|e| unknown(&e.to_string()))?;
        Ok(Self { transport: Transport::Dir(path), channel })
    }

    fn parse_node(text: &str, scheme: &str, rest: &str) -> Result<Self> {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // Anywhere: a password with a slash in it would end the host.
        if rest.contains('@') {
            // The text is not repeated: a password may be in it.
            return Err(Error::fix(
                "the URL of the node has a user name or password in it",
                "nothing was changed; leave them out, and set LOGOS_NODE_USER and LOGOS_NODE_PASSWORD in the environment of \
                 this process: they are kept out of databases and messages that way",
            ));
        }
        if host.is_empty() || host.starts_with(':') {
            return Err(unknown(text, "it names no host"));
        }
        if text.contains(['?', '#']) || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(unknown(text, "a node's URL has no query, fragment or blanks"));
        }
        let rest = rest.trim_end_matches('/');
        let (base, channel) = match rest.rsplit_once("/channel/") {
            Some((base, id)) => (base, Some(id.parse().map_err(|_| unknown(text, "its id is not 64 hex digits"))?)),
            None => (rest, None),
        };
        Ok(Self { transport: Transport::Node(format!("{scheme}://{}", base.trim_end_matches('/'))), channel })
    }

    /// The writing end of this channel.
    pub fn writer(&self, author: Author, options: &logos::WriteOptions) -> Box<dyn Writer> {
        match &self.transport {
            Transport::Dir(path) => Box::new(dir::DirWriter::new(path, &author)),
            Transport::Mem(mem) => Box::new(mem::MemWriter::new(mem)),
            Transport::Node(base) => Box::new(logos::LogosWriter::new(base, author, options)),
        }
    }

    /// The reading end of this channel.
    pub fn reader(&self, channel: ChannelId, options: &logos::ReadOptions) -> Box<dyn Reader> {
        match &self.transport {
            Transport::Dir(path) => Box::new(dir::DirReader::new(path, channel)),
            Transport::Mem(mem) => Box::new(mem::MemReader::new(mem)),
            Transport::Node(base) => Box::new(logos::LogosReader::new(base, channel, options)),
        }
    }

    /// How much lies after a reader's bookmark, as far as that is known without asking anybody: entries and their bytes.
    pub fn ahead(&self, bookmark: &str) -> Option<(u64, u64)> {
        match &self.transport {
            Transport::Dir(path) => dir::ahead(path, self.channel?, bookmark),
            Transport::Mem(_) | Transport::Node(_) => None,
        }
    }

    /// Whether each entry has a place of its own, which is read again until it holds the right one.
    pub fn has_a_place_for_each(&self) -> bool {
        matches!(self.transport, Transport::Dir(_))
    }

    /// How many messages may be on their way at a time before commits gather for the next one.
    pub fn in_flight(&self, options: &logos::WriteOptions) -> usize {
        match &self.transport {
            Transport::Dir(_) => 1,
            Transport::Mem(_) => mem::IN_FLIGHT,
            Transport::Node(_) => options.in_flight(),
        }
    }

    /// Whether what was sent to the `former` transport can be found on this one: any node leads to the same chain (that
    /// it is the same is checked there), while two folders have nothing in common.
    pub fn continues(&self, former: &str) -> bool {
        match &self.transport {
            Transport::Dir(_) | Transport::Mem(_) => self.transport.to_string() == former,
            Transport::Node(_) => former.starts_with("http"),
        }
    }

    /// Whether an entry of this channel is there, as far as that can be known without asking anybody.
    pub fn holds(&self, index: u64, id: MsgId) -> bool {
        match (&self.transport, self.channel) {
            (Transport::Dir(path), Some(channel)) => dir::holds(path, channel, index, id),
            _ => false,
        }
    }

    /// The channel's id: given in the URL, or the only one there is.
    pub fn resolve(&self) -> Result<ChannelId> {
        match (&self.channel, &self.transport) {
            (Some(id), _) => Ok(*id),
            (None, Transport::Dir(path)) => dir::only_channel(path),
            (None, Transport::Mem(mem)) => mem.channel(),
            (None, Transport::Node(base)) => Err(Error::fix(
                format!("{base} names a node, but no channel on it"),
                "nothing was changed; add the channel's id as logos_publish returned it: http://HOST:PORT/channel/<64 hex digits>",
            )),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(path) => write!(f, "dir:{}", path.display()),
            Self::Mem(mem) => write!(f, "mem:{}", mem.name()),
            Self::Node(base) => f.write_str(base),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.transport)?;
        match (&self.transport, self.channel) {
            (_, None) => Ok(()),
            (Transport::Dir(_) | Transport::Mem(_), Some(id)) => write!(f, "/{id}"),
            (Transport::Node(_), Some(id)) => write!(f, "/channel/{id}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_url_reads_back_as_it_was_written() {
        let id = "ab".repeat(32);
        let node = format!("http://127.0.0.1:8080/channel/{id}");
        for text in [&format!("dir:/tmp/x y/{id}"), "dir:/tmp/x", &node, "https://node.example/logos", "http://[::1]:1"]
        {
            assert_eq!(Url::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Url::parse("http://h:1/").unwrap().to_string(), "http://h:1");
        assert_eq!(Url::parse("HTTPS://h:1/x").unwrap().to_string(), "https://h:1/x");
        assert_eq!(Url::parse("dir:/tmp/x/").unwrap().to_string(), "dir:/tmp/x");
    }

    #[test]
    fn what_is_no_url_is_refused_with_the_reason() {
        for text in
            ["", "dir:", "dir:/", "/tmp/x", "ftp://x", "http://", "http://:1", "http://h/?q", "https://h/channel/12"]
        {
            assert!(Url::parse(text).unwrap_err().message.contains("is not the URL of a channel"), "{text}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        for text in ["http://me:hunter2@node:8080", "HTTP://me:hunter2@node", "http://me:1/hunter2@node"] {
            let e = Url::parse(text).unwrap_err();
            assert!(e.hint.contains("LOGOS_NODE_PASSWORD") && !e.to_string().contains("hunter2"), "{e}");
        }
        for text in ["htp://me:hunter2@node:8080", "me:hunter2@node", "http//me:hunter2@node"] {
            let e = Url::parse(text).unwrap_err();
            assert!(e.message.contains("not the URL of a channel") && !e.to_string().contains("hunter2"), "{e}");
        }
    }
}
