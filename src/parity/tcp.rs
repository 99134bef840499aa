//! The two ends of a TCP connection through a real Envoy.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::exercise::{Received, Step, TcpUpstream};

use super::{ANSWER_LIMIT, server::Server};

/// Most bytes kept of what an end gets.
const MAX_RECEIVED: usize = 1 << 20;
/// An echo ends its side this long after the data before, so that Envoy sees them apart.
const BEFORE_END: Duration = Duration::from_millis(60);

/// One end, which notes what it gets.
#[derive(Debug)]
pub(super) struct End {
    stream: TcpStream,
    received: Arc<Mutex<Received>>,
    breaks_off: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl End {
    /// A client of Envoy.
    pub fn connect(address: &SocketAddr) -> io::Result<Self> {
        Self::of(TcpStream::connect_timeout(address, ANSWER_LIMIT)?, false)
    }

    fn of(stream: TcpStream, echoes: bool) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let received = Arc::new(Mutex::new(Received::default()));
        let breaks_off = Arc::new(AtomicBool::new(false));
        let reading = stream.try_clone()?;
        let reader = std::thread::spawn({
            let (received, breaks_off) = (Arc::clone(&received), Arc::clone(&breaks_off));
            move || {
                read(&reading, &received, echoes);
                if echoes && !breaks_off.load(Ordering::SeqCst) {
                    std::thread::sleep(BEFORE_END);
                    let _ = reading.shutdown(Shutdown::Write);
                }
            }
        });
        Ok(Self { stream, received, breaks_off, reader: Some(reader) })
    }

    /// What it got so far.
    pub fn received(&self) -> Received {
        lock(&self.received).clone()
    }

    // Envoy may be gone, or have closed: what it got shows that.

    pub fn send(&mut self, text: &str) {
        let _ = self.stream.write_all(text.as_bytes());
    }

    pub fn end(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Breaks the connection off. This end has seen its end then, too.
    pub fn reset(mut self) -> Received {
        self.breaks_off.store(true, Ordering::SeqCst);
        self.stop_reading();
        let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
        self.received()
    }

    /// The reader has the socket, too: it would keep it open.
    fn stop_reading(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Read);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.stop_reading();
    }
}

fn read(mut stream: &TcpStream, received: &Mutex<Received>, echoes: bool) {
    let mut buffer = [0; 16 << 10];
    while let Ok(size @ 1..) = stream.read(&mut buffer) {
        let mut received = lock(received);
        let room = MAX_RECEIVED.saturating_sub(received.data.len());
        received.data.extend_from_slice(&buffer[..size.min(room)]);
        drop(received);
        if echoes && stream.write_all(&buffer[..size]).is_err() {
            break;
        }
    }
    lock(received).ended = true;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a TCP connection through Envoy came to.
#[derive(Debug)]
pub struct Connected {
    /// Its name.
    pub name: String,
    /// What the client got.
    pub client: Received,
    /// What the upstream got; `None` where no connection reached it.
    pub upstream: Option<Received>,
}

/// The two ends of a connection, or what one that is gone had got.
pub(super) struct Ends {
    pub client: Result<End, Option<Received>>,
    pub upstream: Result<End, Option<Received>>,
}

impl Ends {
    /// A client that connects.
    pub fn of_client(address: &SocketAddr) -> io::Result<Self> {
        Ok(Self { client: Ok(End::connect(address)?), upstream: Err(None) })
    }

    pub fn into_connected(self, name: &str) -> Connected {
        let client = match self.client {
            Ok(end) => end.received(),
            Err(gone) => gone.unwrap_or_default(),
        };
        let upstream = match self.upstream {
            Ok(end) => Some(end.received()),
            Err(gone) => gone,
        };
        Connected { name: name.to_owned(), client, upstream }
    }

    pub fn step(&mut self, step: &Step) {
        let end = match step {
            Step::ClientSends(_) | Step::ClientEnds | Step::ClientResets => &mut self.client,
            Step::UpstreamSends(_) | Step::UpstreamEnds | Step::UpstreamResets => {
                &mut self.upstream
            }
        };
        match (step, end) {
            (Step::ClientSends(text) | Step::UpstreamSends(text), Ok(end)) => end.send(text),
            (Step::ClientEnds | Step::UpstreamEnds, Ok(end)) => end.end(),
            (Step::ClientResets | Step::UpstreamResets, end) => {
                if let Ok(there) = std::mem::replace(end, Err(None)) {
                    *end = Err(Some(there.reset()));
                }
            }
            (_, Err(_)) => {}
        }
    }
}

/// What connections of Envoy the upstream has, and what it does with the next one.
#[derive(Debug, Default)]
struct Accepting {
    behaviour: TcpUpstream,
    last: Option<End>,
}

/// A server on loopback that keeps its last connection.
#[derive(Debug)]
pub(super) struct Peer {
    server: Server,
    accepting: Arc<Mutex<Accepting>>,
}

impl Peer {
    pub fn start() -> io::Result<Self> {
        let accepting = Arc::new(Mutex::new(Accepting::default()));
        let shared = Arc::clone(&accepting);
        let server = Server::start(move |stream| {
            let mut accepting = lock(&shared);
            let echoes = accepting.behaviour == TcpUpstream::Echo;
            accepting.last = stream.and_then(|stream| End::of(stream, echoes)).ok();
        })?;
        Ok(Self { server, accepting })
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Forgets the connection before, and says what becomes of the next one.
    pub fn expect(&self, behaviour: TcpUpstream) {
        *lock(&self.accepting) = Accepting { behaviour, last: None };
    }

    /// The connection that Envoy made, if it has made one.
    pub fn take(&self) -> Option<End> {
        lock(&self.accepting).last.take()
    }
}
