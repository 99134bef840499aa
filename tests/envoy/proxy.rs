//! A real Envoy with one Wasm filter between a listener and an upstream.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Condvar, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use filtergate::exercise::Exchange;
use serde_json::json;

use crate::{
    http1::{self, Message},
    upstream::Upstream,
};

/// The longest that Envoy may take to be ready, or to end.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The longest that an answer, or a line in the log, may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How many Envoys run at the same time.
const SLOTS: usize = 2;

static RUNNING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// The right to run an Envoy.
struct Slot;

impl Slot {
    fn wait() -> Self {
        let (running, freed) = &RUNNING;
        let running = running.lock().unwrap();
        *freed.wait_while(running, |running| *running >= SLOTS).unwrap() += 1;
        Self
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let (running, freed) = &RUNNING;
        *running.lock().unwrap() -= 1;
        freed.notify_one();
    }
}

/// The filter that Envoy is given.
#[derive(Debug, Clone)]
pub struct Plugin {
    pub module: PathBuf,
    pub root_id: String,
    pub configuration: String,
}

/// What an exchange through Envoy came to.
#[derive(Debug)]
pub struct Exchanged {
    pub name: String,
    /// `None` where the client got no whole answer in time.
    pub response: Option<Message>,
    /// The requests that reached the upstream whole.
    pub upstream: Vec<Message>,
}

/// A running Envoy, or one that refused its configuration. It is killed when this goes.
pub struct Envoy {
    child: Child,
    reader: Option<JoinHandle<()>>,
    receiver: mpsc::Receiver<String>,
    lines: Vec<String>,
    listener: SocketAddr,
    ready: bool,
    upstream: Upstream,
    _scratch: tempfile::TempDir,
    _slot: Slot,
}

impl Envoy {
    /// Starts Envoy and waits until it serves or has ended.
    pub fn start(binary: &Path, plugin: &Plugin) -> Self {
        // Another process may take the free port first.
        for _ in 0..5 {
            let mut envoy = Self::spawn(binary, plugin);
            envoy.wait_until_decided();
            if envoy.ready
                || !envoy.lines.iter().any(|line| line.contains("Address already in use"))
            {
                return envoy;
            }
        }
        panic!("no port is free for Envoy");
    }

    fn spawn(binary: &Path, plugin: &Plugin) -> Self {
        let slot = Slot::wait();
        let scratch = tempfile::tempdir().unwrap();
        let upstream = Upstream::start();
        let listener = free_address();
        let config = scratch.path().join("envoy.json");
        std::fs::write(&config, configuration(plugin, listener, upstream.address).to_string())
            .unwrap();
        let mut child = Command::new(binary)
            .arg("-c")
            .arg(&config)
            .args(["--concurrency", "1", "--disable-hot-restart", "-l", "info"])
            .args(["--log-format", "[%l] %v"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start `{}`: {error}", binary.display()));
        let stderr = child.stderr.take().unwrap();
        let (sender, receiver) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            // Modules log any bytes.
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            reader: Some(reader),
            receiver,
            lines: Vec::new(),
            listener,
            ready: false,
            upstream,
            _scratch: scratch,
            _slot: slot,
        }
    }

    /// The log ends when the process does.
    fn wait_until_decided(&mut self) {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.receiver.recv_timeout(left) {
                Ok(line) => {
                    self.ready = line.contains("starting main dispatch loop");
                    self.lines.push(line);
                    if self.ready {
                        return;
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("Envoy neither serves nor ends:\n{}", self.lines.join("\n"))
                }
            }
        }
    }

    /// Whether Envoy took its configuration.
    pub fn loads(&self) -> bool {
        self.ready
    }

    /// Sends a request, on a connection of its own, and waits for the answer.
    pub fn exchange(&mut self, exchange: &Exchange) -> Exchanged {
        let response = self.send(exchange).ok().flatten();
        Exchanged { name: exchange.name.clone(), response, upstream: self.upstream.take_seen() }
    }

    fn send(&self, exchange: &Exchange) -> std::io::Result<Option<Message>> {
        let mut stream = TcpStream::connect_timeout(&self.listener, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(&http1::request(&exchange.request))?;
        http1::read(&mut BufReader::new(stream))
    }

    /// Shows each line once, from the first, until one `is_last`, or no further one comes before
    /// long. Whether there was a last one.
    pub fn read_until(&mut self, mut is_last: impl FnMut(&str) -> bool) -> bool {
        if self.lines.iter().any(|line| is_last(line)) {
            return true;
        }
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.receiver.recv_timeout(left) else { return false };
            self.lines.push(line);
            if self.lines.last().is_some_and(|line| is_last(line)) {
                return true;
            }
        }
    }

    /// All lines so far.
    pub fn lines(&mut self) -> &[String] {
        self.lines.extend(self.receiver.try_iter());
        &self.lines
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // SIGKILL: a filter in an endless loop keeps Envoy from ending otherwise.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn configuration(plugin: &Plugin, listener: SocketAddr, upstream: SocketAddr) -> serde_json::Value {
    let address = |address: SocketAddr| {
        json!({ "socket_address": {
            "address": address.ip().to_string(), "port_value": address.port(),
        } })
    };
    let extension = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let wasm = json!({
        "@type": extension("filters.http.wasm.v3.Wasm"),
        "config": {
            "name": "filtergate",
            "root_id": plugin.root_id,
            "configuration": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": plugin.configuration,
            },
            "vm_config": {
                "runtime": "envoy.wasm.runtime.v8",
                "code": { "local": { "filename": plugin.module } },
            },
        },
    });
    let manager = json!({
        "@type": extension("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "ingress",
        "http_protocol_options": { "enable_trailers": true },
        "http_filters": [
            { "name": "wasm", "typed_config": wasm },
            { "name": "router", "typed_config": { "@type": extension("filters.http.router.v3.Router") } },
        ],
        "route_config": { "virtual_hosts": [{
            "name": "upstream",
            "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "upstream" } }],
        }] },
    });
    let upstream_options = json!({
        "@type": extension("upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": { "http_protocol_options": { "enable_trailers": true } },
    });
    json!({ "static_resources": {
        "listeners": [{
            "address": address(listener),
            // Else two Envoys could share a port.
            "enable_reuse_port": false,
            "filter_chains": [{ "filters": [{
                "name": "envoy.filters.network.http_connection_manager", "typed_config": manager,
            }] }],
        }],
        "clusters": [{
            "name": "upstream",
            "connect_timeout": "5s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": upstream_options,
            },
            "load_assignment": {
                "cluster_name": "upstream",
                "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(upstream) } }] }],
            },
        }],
    } })
}
