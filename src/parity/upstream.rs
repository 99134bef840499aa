//! The upstream behind a real Envoy. It answers as the canned one of an exchange does.

use std::{
    io::{self, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::json;

use crate::exercise::spaced_json;

use super::{
    http1::{self, Message},
    server::Server,
};

/// An HTTP/1.1 server on loopback that answers 200 with the request as JSON.
#[derive(Debug)]
pub(super) struct Upstream {
    server: Server,
    seen: Arc<Mutex<Vec<Message>>>,
}

impl Upstream {
    pub fn start() -> io::Result<Self> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        let server = Server::start(move |stream| {
            let (Ok(stream), seen) = (stream, Arc::clone(&all)) else { return };
            // Ends when Envoy closes the connection, at the latest by its own end.
            std::thread::spawn(move || serve(stream, &seen));
        })?;
        Ok(Self { server, seen })
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

fn lock(seen: &Mutex<Vec<Message>>) -> MutexGuard<'_, Vec<Message>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Message>>) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut reader = BufReader::new(reading);
    while let Ok(Some(request)) = http1::read(&mut reader) {
        let answer = answer(&request);
        {
            let mut seen = lock(seen);
            if seen.len() < MAX_SEEN {
                seen.push(request);
            }
        }
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
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
    request.start.trim_end_matches(" HTTP/1.1")
}
