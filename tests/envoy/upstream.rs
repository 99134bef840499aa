//! The upstream behind a real Envoy. It answers as the canned one of an exchange does.

use std::{
    io::{BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use crate::http1::{self, Message};

/// An HTTP/1.1 server on loopback that answers 200 with the request as JSON.
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Message>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let (Ok(stream), seen) = (stream, Arc::clone(&seen)) else { continue };
                    // Ends when Envoy closes the connection, at the latest by its own end.
                    std::thread::spawn(move || serve(stream, &seen));
                }
            }
        });
        Self { address, seen, stop, thread: Some(thread) }
    }

    /// The whole requests that arrived since the last call.
    pub fn take_seen(&self) -> Vec<Message> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Message>>) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut reader = BufReader::new(reading);
    while let Ok(Some(request)) = http1::read(&mut reader) {
        let answer = answer(&request);
        seen.lock().unwrap().push(request);
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// 200 with the request as JSON; chunked and with a trailer if the request had trailers.
fn answer(request: &Message) -> String {
    let body = echo(request);
    let mut out = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n".to_owned();
    if request.trailers.is_empty() {
        out.push_str(&format!("content-length: {}\r\nx-up: yes\r\n\r\n{body}", body.len()));
    } else {
        out.push_str("trailer: x-up-trailer\r\ntransfer-encoding: chunked\r\n\r\n");
        http1::push_chunk(&mut out, &body);
        out.push_str("0\r\nx-up-trailer: yes\r\n\r\n");
    }
    out
}

/// The request as JSON, with a space behind each comma and colon.
fn echo(request: &Message) -> String {
    let text = |text: &str| serde_json::to_string(text).unwrap();
    let list = |pairs: &http1::Pairs| {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| format!("[{}, {}]", text(name), text(value)))
            .collect();
        format!("[{}]", pairs.join(", "))
    };
    let line = request.start.trim_end_matches(" HTTP/1.1");
    let body = String::from_utf8_lossy(&request.body);
    let mut out = format!(
        r#"{{"body": {}, "headers": {}, "line": {}"#,
        text(&body),
        list(&request.headers),
        text(line)
    );
    if !request.trailers.is_empty() {
        out.push_str(&format!(r#", "trailers": {}"#, list(&request.trailers)));
    }
    out.push('}');
    out
}
