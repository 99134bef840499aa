//! As much of an HTTP server as a registry needs: one request for each connection, on a thread, unless
//! an answer keeps it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The same request for another path.
    pub fn with_path(&self, path: &str) -> Self {
        Self { path: path.into(), ..self.clone() }
    }

    /// A header's value, empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        let mut headers = self.headers.iter();
        headers.find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }
}

pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    with_length: bool,
    keep_alive: bool,
    cut: Option<usize>,
    rest: Option<Rest>,
}

/// What is sent behind a body, piece by piece.
struct Rest {
    piece: Vec<u8>,
    pieces: usize,
    pause: Duration,
    sent: Option<Sender<usize>>,
}

impl Answer {
    pub fn new(status: u16, body: impl AsRef<[u8]>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.as_ref().into(),
            with_length: true,
            keep_alive: false,
            cut: None,
            rest: None,
        }
    }

    /// An error as the distribution specification words it.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
        Self::new(status, body.to_string())
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The body ends with the connection.
    pub fn without_length(mut self) -> Self {
        self.with_length = false;
        self
    }

    /// The connection is for further requests.
    pub fn keep_alive(mut self) -> Self {
        self.keep_alive = true;
        self
    }

    /// The connection ends in the middle of the body.
    pub fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    /// `piece` is sent again and again behind the body, until the client has had enough. Then its
    /// receiver is told how often that was.
    pub fn endless(mut self, piece: impl AsRef<[u8]>, sent: &Sender<usize>) -> Self {
        let (piece, sent) = (piece.as_ref().into(), Some(sent.clone()));
        self.rest = Some(Rest { piece, pieces: usize::MAX, pause: Duration::ZERO, sent });
        self.without_length()
    }

    /// `piece` is sent so many times behind the body, with a pause before each. The length that is
    /// announced counts them all.
    pub fn followed_by(mut self, piece: impl AsRef<[u8]>, pieces: usize, pause: Duration) -> Self {
        self.rest = Some(Rest { piece: piece.as_ref().into(), pieces, pause, sent: None });
        self
    }

    fn write(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        let mut head = format!("HTTP/1.1 {} X\r\nConnection: {connection}\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.with_length {
            let rest = self.rest.as_ref().map_or(0, |rest| rest.piece.len() * rest.pieces);
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len() + rest));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(&self.body[..self.cut.unwrap_or(self.body.len())])?;
        if let Some(Rest { piece, pieces, pause, sent }) = &self.rest {
            let is_refused = |_: &usize| {
                std::thread::sleep(*pause);
                stream.write_all(piece).is_err()
            };
            let count = (0..*pieces).find(is_refused).unwrap_or(*pieces);
            if let Some(sent) = sent {
                let _ = sent.send(count);
            }
        }
        Ok(())
    }
}

/// A server that stops when it is dropped.
pub struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::on(listener, handler)
    }

    pub fn on(
        listener: TcpListener,
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let handler = Arc::new(handler);
        let (log, stopped, accepted) = (requests.clone(), stop.clone(), connections.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                accepted.fetch_add(1, Ordering::SeqCst);
                let (log, handler) = (log.clone(), handler.clone());
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    while let Some(request) = read(&stream) {
                        log.lock().unwrap().push(request.clone());
                        let answer = handler(&request);
                        // A client that goes away early is a client's business.
                        if answer.write(&mut stream).is_err() || !answer.keep_alive {
                            break;
                        }
                    }
                });
            }
        });
        Self { address, requests, connections, stop, thread: Some(thread) }
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn host(&self) -> String {
        self.address.to_string()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub fn count(&self, which: impl Fn(&Request) -> bool) -> usize {
        self.requests().iter().filter(|r| which(r)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned())
    };
    let first = line()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request { method, path, headers, body: Vec::new() };
    request.body = vec![0; request.header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}
