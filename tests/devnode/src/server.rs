//! HTTP/1.1 on sockets: reads requests, writes answers, and breaks them as the faults say. A thread a connection.
//!
//! Invariants
//! - Listens on 127.0.0.1 only. It is a tool for tests and must not be reached from outside.
//! - Head and body of a request are bounded before they are read.
//! - A stopped server leaves no thread behind that holds a socket.
//!
//! Why sockets and not a server crate: an answer that breaks off in the middle, drips, or never comes needs the
//! socket itself; `httparse` reads the heads.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::config::NodeConfig;
use crate::faults::Fault;
use crate::http;
use crate::node::Node;

const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 64;

/// A request.
#[derive(Debug)]
pub struct Request {
    /// GET, POST.
    pub method: String,
    /// As it was asked for, with the query.
    pub target: String,
    /// Without the query.
    pub path: String,
    /// Name and value, decoded.
    pub query: Vec<(String, String)>,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// The body of an answer.
pub enum Body {
    /// Known at once.
    Full(Vec<u8>),
    /// Lines as they come, each a chunk.
    Lines(Box<dyn Iterator<Item = Arc<str>> + Send>),
    /// So many spaces, with or without a length announced.
    Huge(u64, bool),
}

/// An answer.
pub struct Response {
    /// The status.
    pub status: u16,
    /// The type of the body, if it has one.
    pub content_type: Option<&'static str>,
    /// One further header.
    pub header: Option<(&'static str, String)>,
    /// The body.
    pub body: Body,
}

impl Response {
    /// An answer whose body is known.
    pub fn full(status: u16, content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status, content_type: Some(content_type), header: None, body: Body::Full(body.into()) }
    }

    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self { status, content_type: None, header: None, body: Body::Full(Vec::new()) }
    }

    /// The same with a header.
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.header = Some((name, value.into()));
        self
    }
}

struct Shared {
    node: Arc<Node>,
    stopping: AtomicBool,
    stop: (Mutex<bool>, Condvar),
    connections: Mutex<HashMap<u64, TcpStream>>,
    next_connection: AtomicU64,
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Wait, but not beyond the end. Returns whether it goes on.
    fn pause(&self, time: Duration) -> bool {
        let stopped = self.stop.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.stop.1.wait_timeout_while(stopped, time, |stopped| !*stopped);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A running node: it answers until it is dropped.
pub struct DevNode {
    shared: Arc<Shared>,
    address: SocketAddr,
    threads: Vec<JoinHandle<()>>,
}

impl DevNode {
    /// Start a node and wait until it listens.
    pub fn start(config: NodeConfig) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port))?;
        let address = listener.local_addr()?;
        let block_ms = config.block_ms;
        let shared = Arc::new(Shared {
            node: Arc::new(Node::new(config)?),
            stopping: AtomicBool::new(false),
            stop: (Mutex::new(false), Condvar::new()),
            connections: Mutex::default(),
            next_connection: AtomicU64::new(0),
        });
        let mut threads = Vec::new();
        let acceptor = shared.clone();
        threads.push(thread::spawn(move || accept(&acceptor, &listener)));
        if let Some(ms) = block_ms {
            let miner = shared.clone();
            threads.push(thread::spawn(move || {
                while miner.pause(Duration::from_millis(ms)) {
                    miner.node.mine(1);
                }
            }));
        }
        Ok(Self { shared, address, threads })
    }

    /// Where it listens, as `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The node behind the wire.
    pub fn node(&self) -> &Arc<Node> {
        &self.shared.node
    }

    /// Close every open connection, streams included; new ones are welcome.
    pub fn cut_connections(&self) {
        for connection in self.shared.connections().values() {
            // A connection that is closed already needs no closing.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for DevNode {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        *self.shared.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.stop.1.notify_all();
        self.shared.node.block_events.close();
        self.shared.node.lib_events.close();
        self.cut_connections();
        // Wakes the acceptor; if that fails it is gone already.
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    for stream in listener.incoming() {
        if shared.stopping() {
            return;
        }
        let Ok(stream) = stream else { continue };
        let number = shared.next_connection.fetch_add(1, Ordering::Relaxed);
        if let Ok(clone) = stream.try_clone() {
            shared.connections().insert(number, clone);
        }
        let shared = shared.clone();
        thread::spawn(move || {
            // The other side went away, or sent what is no HTTP: nobody is left to tell.
            let _ = converse(&shared, &stream);
            let _ = stream.shutdown(Shutdown::Both);
            shared.connections().remove(&number);
        });
    }
}

/// Answer requests on one connection until either side has enough.
fn converse(shared: &Shared, stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let body_bytes_max = shared.node.config().body_bytes_max;
    while !shared.stopping() {
        let Some(mut request) = read_head(&mut reader)? else { return Ok(()) };
        let whole = read_body(&mut reader, stream, &mut request, body_bytes_max)?;
        if !whole {
            let refused = Response::full(413, http::TEXT, "length limit exceeded");
            return write_response(shared, stream, refused, None);
        }
        let admin = request.path.starts_with("/dev/");
        let rule = if admin { None } else { shared.node.observe(&request) };
        let (mut response, mut shaping) = (None, None);
        if let Some(rule) = rule {
            if rule.fault.shapes_the_true_answer() {
                shaping = Some(rule.fault);
            } else {
                if rule.after {
                    http::answer(&shared.node, &request);
                }
                match broken(shared, &rule.fault) {
                    Some(answer) => response = Some(answer),
                    None => return Ok(()),
                }
            }
        }
        let response = response.unwrap_or_else(|| http::answer(&shared.node, &request));
        let close = request.headers.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        write_response(shared, stream, response, shaping.as_ref())?;
        if close {
            return Ok(());
        }
    }
    Ok(())
}

/// What a fault answers in place of the truth; nothing = hang up.
fn broken(shared: &Shared, fault: &Fault) -> Option<Response> {
    match fault {
        Fault::Status { code, body: Some(body) } => Some(Response::full(*code, http::TEXT, body.clone())),
        Fault::Status { code, body: None } => {
            let shape = shared.node.config().shape;
            Some(http::error(shape, *code, "a fault on demand"))
        }
        Fault::Stall { ms } => {
            shared.pause(Duration::from_millis(*ms));
            None
        }
        Fault::Garbage => Some(Response::full(200, http::JSON, b"\x00\xff<html>\xfe{]".to_vec())),
        Fault::WrongJson => Some(Response::full(200, http::JSON, r#"{"unexpected":[true,null,1.5]}"#)),
        Fault::Redirect { to } => Some(Response::empty(307).with_header("Location", to.clone())),
        Fault::Huge { bytes, chunked } => Some(Response {
            status: 200,
            content_type: Some(http::JSON),
            header: None,
            body: Body::Huge(*bytes, *chunked),
        }),
        Fault::Close | Fault::Truncate { .. } | Fault::Drip { .. } | Fault::Join { .. } => None,
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The request line and headers; nothing if the client closed the connection instead.
fn read_head(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Request>> {
    let mut head = Vec::new();
    loop {
        let room = (HEAD_BYTES_MAX - head.len()) as u64;
        let before = head.len();
        reader.by_ref().take(room).read_until(b'\n', &mut head)?;
        let line = &head[before..];
        if line.is_empty() && before == 0 {
            return Ok(None);
        }
        if !line.ends_with(b"\n") {
            return Err(invalid("the head is too long or cut short"));
        }
        if before > 0 && (line == b"\r\n" || line == b"\n") {
            break;
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(&head).map_err(|error| invalid(&error.to_string()))?;
    let target = parsed.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decoded(name), percent_decoded(value))
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Some(Request {
        method: parsed.method.unwrap_or_default().into(),
        target: target.into(),
        path: path.into(),
        query: query.split('&').filter(|part| !part.is_empty()).map(pair).collect(),
        headers: parsed.headers.iter().map(|h| (h.name.to_ascii_lowercase(), text(h.value))).collect(),
        body: Vec::new(),
    }))
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        let escaped = (*byte == b'%').then(|| tail.get(..2)).flatten().and_then(|digits| hex::decode(digits).ok());
        match escaped {
            Some(escaped) => {
                bytes.extend(escaped);
                rest = &tail[2..];
            }
            None => {
                bytes.push(if *byte == b'+' { b' ' } else { *byte });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Read the body into the request; false if it is larger than we take.
fn read_body(
    reader: &mut BufReader<&TcpStream>,
    mut stream: &TcpStream,
    request: &mut Request,
    limit: usize,
) -> io::Result<bool> {
    if request.headers.get("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let chunked = request.headers.get("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let mut add = |reader: &mut BufReader<&TcpStream>, length: usize| -> io::Result<bool> {
        if length > limit - request.body.len() {
            return Ok(false);
        }
        let start = request.body.len();
        request.body.resize(start + length, 0);
        reader.read_exact(&mut request.body[start..])?;
        Ok(true)
    };
    if !chunked {
        let length = request.headers.get("content-length").map_or(Ok(0), |value| value.trim().parse());
        return add(reader, length.map_err(|_| invalid("content-length is no number"))?);
    }
    loop {
        let mut line = String::new();
        reader.by_ref().take(1024).read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16);
        let size = size.map_err(|_| invalid("a chunk without a size"))?;
        if !add(reader, size)? {
            return Ok(false);
        }
        line.clear();
        reader.by_ref().take(1024).read_line(&mut line)?;
        if size == 0 {
            return Ok(true);
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Payload Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

fn write_response(
    shared: &Shared,
    mut stream: &TcpStream,
    response: Response,
    shaping: Option<&Fault>,
) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} {}\r\n", response.status, reason(response.status));
    if let Some(content_type) = response.content_type {
        head += &format!("Content-Type: {content_type}\r\n");
    }
    if let Some((name, value)) = response.header {
        head += &format!("{name}: {value}\r\n");
    }
    match &response.body {
        Body::Full(body) => head += &format!("Content-Length: {}\r\n\r\n", body.len()),
        Body::Huge(bytes, false) => head += &format!("Content-Length: {bytes}\r\n\r\n"),
        Body::Lines(_) | Body::Huge(_, true) => head += "Transfer-Encoding: chunked\r\n\r\n",
    }
    stream.write_all(head.as_bytes())?;
    let mut out = Shaped { shared, stream, shaping, left: usize::MAX };
    if let Some(Fault::Truncate { bytes }) = shaping {
        out.left = *bytes;
    }
    match response.body {
        Body::Full(body) => out.write(&body),
        Body::Lines(lines) => {
            let together = if let Some(Fault::Join { lines }) = shaping { (*lines).max(1) } else { 1 };
            let mut lines = lines.peekable();
            while lines.peek().is_some() {
                let chunk: String = lines.by_ref().take(together).map(|line| format!("{line}\n")).collect();
                out.write(format!("{:x}\r\n{chunk}\r\n", chunk.len()).as_bytes())?;
            }
            out.write(b"0\r\n\r\n")
        }
        Body::Huge(bytes, chunked) => {
            let block = vec![b' '; 64 * 1024];
            let mut left = bytes;
            while left > 0 {
                let part = &block[..left.min(block.len() as u64) as usize];
                match chunked {
                    true => out.write(&[format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat())?,
                    false => out.write(part)?,
                }
                left -= part.len() as u64;
            }
            out.write(if chunked { b"0\r\n\r\n" } else { b"" })
        }
    }
}

/// The body's way to the client.
struct Shaped<'a> {
    shared: &'a Shared,
    stream: &'a TcpStream,
    shaping: Option<&'a Fault>,
    left: usize,
}

impl Shaped<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let passing = &bytes[..bytes.len().min(self.left)];
        if let Some(Fault::Drip { bytes, ms }) = self.shaping {
            for drop in passing.chunks((*bytes).max(1)) {
                self.stream.write_all(drop)?;
                if !self.shared.pause(Duration::from_millis(*ms)) {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
        } else {
            self.stream.write_all(passing)?;
        }
        self.left = self.left.saturating_sub(passing.len());
        match passing.len() == bytes.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}
