//! The upstream behind a real Envoy. It answers as the canned one of an exchange does.

use std::{
    io::{self, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::json;

use crate::exercise::{Exchange, spaced_json};

use super::{
    http1::{self, Message},
    http2,
    server::Server,
};

/// A server on loopback that answers 200 with the request as JSON.
#[derive(Debug)]
pub(super) struct Upstream {
    server: Server,
    seen: Arc<Mutex<Vec<Message>>>,
    /// The exchange whose request is to come, for its METADATA frames.
    expected: Arc<Mutex<Option<Exchange>>>,
}

impl Upstream {
    pub fn start(is_http2: bool) -> io::Result<Self> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        let expected = Arc::new(Mutex::new(None));
        let awaited = Arc::clone(&expected);
        let server = Server::start(move |stream| {
            let (Ok(stream), seen) = (stream, Arc::clone(&all)) else { return };
            let expected = Arc::clone(&awaited);
            // Ends when Envoy closes the connection, at the latest by its own end.
            std::thread::spawn(move || match is_http2 {
                true => drop(serve_http2(stream, &seen, &expected)),
                false => serve(stream, &seen),
            });
        })?;
        Ok(Self { server, seen, expected })
    }

    /// Is told whose request comes next.
    pub fn expect(&self, exchange: &Exchange) {
        *lock(&self.expected) = Some(exchange.clone());
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// The whole requests that arrived since the last call.
    pub fn take_seen(&self) -> Vec<Message> {
        std::mem::take(&mut lock(&self.seen))
    }
}

/// Most requests kept until they are taken.
const MAX_SEEN: usize = 100;

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(seen: &Mutex<Vec<Message>>, request: Message) {
    let mut seen = lock(seen);
    if seen.len() < MAX_SEEN {
        seen.push(request);
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Message>>) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut reader = BufReader::new(reading);
    while let Ok(Some(request)) = http1::read(&mut reader) {
        let answer = answer(&request);
        note(seen, request);
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn serve_http2(
    stream: TcpStream,
    seen: &Mutex<Vec<Message>>,
    expected: &Mutex<Option<Exchange>>,
) -> io::Result<()> {
    let mut connection = http2::Connection::server(stream)?;
    loop {
        match connection.arrival()? {
            http2::Arrived::Message { stream, message: request } => {
                let exchange = lock(expected).clone();
                let answer = http2_answer(&request);
                let is_head = request.start.starts_with("HEAD ");
                note(seen, request);
                if let Some(exchange) = exchange {
                    connection.send(&http2::answer(stream, &answer, &exchange, is_head))?;
                }
            }
            http2::Arrived::Reset => {}
            http2::Arrived::Closed => return Ok(()),
        }
    }
}

/// The same answer over HTTP/2, which has no framing in its headers.
fn http2_answer(request: &Message) -> Message {
    let body = echo(request);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut headers = vec![pair("content-type", "application/json")];
    let mut trailers = Vec::new();
    if request.trailers.is_empty() {
        headers.push(pair("content-length", &body.len().to_string()));
        headers.push(pair("x-up", "yes"));
    } else {
        headers.push(pair("trailer", "x-up-trailer"));
        trailers.push(pair("x-up-trailer", "yes"));
    }
    Message { start: "HTTP/2 200".to_owned(), headers, body: body.into_bytes(), trailers }
}

/// 200 with the request as JSON; chunked and with a trailer if the request had trailers.
fn answer(request: &Message) -> String {
    let mut body = echo(request);
    let length = body.len();
    if request.start.starts_with("HEAD ") {
        body.clear();
    }
    let mut out = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n".to_owned();
    if request.trailers.is_empty() {
        out.push_str(&format!("content-length: {length}\r\nx-up: yes\r\n\r\n{body}"));
    } else {
        out.push_str("transfer-encoding: chunked\r\ntrailer: x-up-trailer\r\n\r\n");
        http1::push_chunk(&mut out, &body);
        out.push_str("0\r\nx-up-trailer: yes\r\n\r\n");
    }
    out
}

/// The request as JSON.
fn echo(request: &Message) -> String {
    let mut seen = json!({
        "body": String::from_utf8_lossy(&request.body),
        "headers": request.headers,
        "line": request_line(request),
    });
    if !request.trailers.is_empty() {
        seen["trailers"] = json!(request.trailers);
    }
    spaced_json(&seen)
}

/// `GET /`.
pub(super) fn request_line(request: &Message) -> &str {
    request.start.rsplit_once(" HTTP/").map_or("", |(line, _)| line)
}
