//! A real Envoy with one Wasm filter between a listener and an upstream, all on loopback.

use std::{
    io::{self, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::JoinHandle,
};

use serde_json::{Value, json};

use crate::envoy_config::{
    Code, PluginConfig, address, extension, load_assignment, router, tcp_proxy,
};
use crate::exercise::{Connection, Exchange, FRAME_GAP, FailurePolicy, Filter, Step};
use crate::host::Plugin;

use super::{
    ANSWER_LIMIT, ParityError, QUIET, QUIET_LIMIT, START_LIMIT,
    http1::{self, Message},
    http2,
    log::{Entry, Log},
    tcp::{Connected, Ends, Peer},
    upstream::Upstream,
};

/// What Envoy is given.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// Where the module runs.
    pub filter: Filter,
    /// The module; without one there is no filter.
    pub module: Option<Vec<u8>>,
    /// The plugin. Its name is filtergate's.
    pub plugin: Plugin,
    /// The most bytes of a body that is buffered for a filter; 0 is Envoy's default.
    pub buffer_limit_bytes: usize,
    /// What becomes of requests whose VM failed.
    pub failure_policy: FailurePolicy,
    /// Whether its upstream speaks HTTP/2.
    pub http2: bool,
    /// Whether every call across the boundary is logged.
    pub trace: bool,
}

/// What an exchange through Envoy came to.
#[derive(Debug)]
pub struct Exchanged {
    /// Its name.
    pub name: String,
    /// `None` where the client got no whole answer in time.
    pub response: Option<Message>,
    /// Whether it waited for all the time that there is.
    pub timed_out: bool,
    /// The requests that reached the upstream whole.
    pub upstream: Vec<Message>,
}

/// A running Envoy, or one that refused its configuration. It is killed when this goes.
#[derive(Debug)]
pub struct Envoy {
    child: Child,
    reader: Option<JoinHandle<()>>,
    log: Arc<Log>,
    listener: SocketAddr,
    admin: SocketAddr,
    ready: bool,
    upstream: Upstream,
    peer: Peer,
    _scratch: tempfile::TempDir,
}

/// How often another process may take a free port first.
const ATTEMPTS: usize = 5;

impl Envoy {
    /// Starts Envoy and waits until it serves, has ended, or has had all the time that there is: a
    /// module may hang it.
    ///
    /// # Errors
    ///
    /// Where it cannot be run at all. An Envoy that refuses the module is none.
    pub fn start(binary: &Path, setup: &Setup) -> Result<Self, ParityError> {
        let mut reason = String::new();
        for _ in 0..ATTEMPTS {
            let mut envoy = Self::spawn(binary, setup)?;
            envoy.ready = envoy.log.wait(START_LIMIT, |entries| {
                entries.iter().any(|entry| {
                    entry.logger == "main" && entry.text.contains("starting main dispatch loop")
                })
            });
            let entries = envoy.entries(0);
            let port_taken =
                entries.iter().find(|entry| entry.text.contains("Address already in use"));
            match port_taken {
                Some(entry) if !envoy.ready => reason.clone_from(&entry.text),
                _ => return Ok(envoy),
            }
        }
        Err(ParityError::NoStart { reason })
    }

    fn spawn(binary: &Path, setup: &Setup) -> Result<Self, ParityError> {
        let failed = |what| move |source| ParityError::Io { what, source };
        let scratch =
            tempfile::tempdir().map_err(failed("cannot make a directory for Envoy's files"))?;
        let upstream = Upstream::start(setup.http2).map_err(failed("cannot start an upstream"))?;
        let peer = Peer::start().map_err(failed("cannot start an upstream"))?;
        let listener = free_address().map_err(failed("no port is free for Envoy"))?;
        let admin = free_address().map_err(failed("no port is free for Envoy"))?;
        let token = token().map_err(failed("no random numbers"))?;
        let module = scratch.path().join("filter.wasm");
        let config = scratch.path().join("envoy.json");
        let behind = match setup.filter {
            Filter::Http => upstream.address(),
            Filter::Network => peer.address(),
        };
        let addresses = Addresses { listener, admin, upstream: behind };
        let configuration = configuration(setup, &module, &addresses, &token);
        std::fs::write(&config, configuration.to_string())
            .and_then(|()| std::fs::write(&module, setup.module.as_deref().unwrap_or_default()))
            .map_err(failed("cannot write Envoy's files"))?;
        let mut command = Command::new(binary);
        command
            .arg("-c")
            .arg(&config)
            .args(["--concurrency", "1", "--disable-hot-restart", "-l", "info"])
            // The access log, too, is to be there soon.
            .args(["--file-flush-interval-msec", "10"])
            .args(["--log-format", &format!("{token}%E.%F [%l][%n] %v")]);
        if setup.trace {
            command.args(["--component-log-level", "wasm:trace"]);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| ParityError::Binary { binary: binary.to_owned(), source })?;
        let log = Arc::new(Log::default());
        let reader = child.stderr.take().map(|stderr| {
            let log = Arc::clone(&log);
            std::thread::spawn(move || log.read(BufReader::new(stderr), &token))
        });
        Ok(Self {
            child,
            reader,
            log,
            listener,
            admin,
            ready: false,
            upstream,
            peer,
            _scratch: scratch,
        })
    }

    /// Whether Envoy took its configuration.
    pub fn loads(&self) -> bool {
        self.ready
    }

    /// Whether Envoy neither serves nor ends.
    pub fn hangs(&self) -> bool {
        !self.ready && !self.log.has_ended()
    }

    /// Whether the process is gone.
    pub fn has_ended(&self) -> bool {
        self.log.has_ended()
    }

    /// Sends a request, on a connection of its own, and waits for the answer.
    pub fn exchange(&mut self, exchange: &Exchange) -> Exchanged {
        // A request of an earlier exchange may have come late.
        self.upstream.take_seen();
        self.upstream.expect(exchange);
        let sent = self.send(exchange);
        let timed_out = sent.as_ref().is_err_and(|error| {
            matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
        });
        let response = sent.ok().flatten();
        Exchanged {
            name: exchange.name.clone(),
            response,
            timed_out,
            upstream: self.upstream.take_seen(),
        }
    }

    fn send(&self, exchange: &Exchange) -> io::Result<Option<Message>> {
        let mut stream = TcpStream::connect_timeout(&self.listener, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let pieces = match exchange.is_http2() {
            true => http2::request(exchange),
            false => http1::request(&exchange.request),
        };
        for (at, piece) in pieces.iter().enumerate() {
            if at > 0 {
                // What arrives together reaches a filter as one frame.
                std::thread::sleep(FRAME_GAP);
            }
            // An Envoy that has answered already may have closed the connection.
            if stream.write_all(piece).is_err() {
                break;
            }
        }
        if exchange.request.abandoned {
            std::thread::sleep(FRAME_GAP);
            return Ok(None);
        }
        if exchange.is_http2() {
            return Ok(match http2::Connection::client(stream).arrival()? {
                http2::Arrived::Message { message, .. } => Some(message),
                http2::Arrived::Reset | http2::Arrived::Closed => None,
            });
        }
        let reader = &mut BufReader::new(stream);
        if exchange.request.method == "HEAD" {
            http1::read_head(reader)
        } else {
            http1::read(reader)
        }
    }

    /// Runs a connection: each step when the one before has had all its consequences, as far as the
    /// log tells.
    ///
    /// # Errors
    ///
    /// Where Envoy takes no connection.
    pub fn connection(&mut self, connection: &Connection) -> io::Result<Connected> {
        self.peer.expect(connection.upstream);
        let mut ends = Ends::of_client(&self.listener)?;
        let implied = [Step::ClientEnds, Step::UpstreamEnds];
        self.rest();
        for step in connection.steps.iter().chain(&implied) {
            if let Some(upstream) = self.peer.take() {
                ends.upstream = Ok(upstream);
            }
            ends.step(step);
            self.rest();
        }
        Ok(ends.into_connected(&connection.name))
    }

    /// The counters and gauges that modules defined, `name: value` in the order of their names.
    pub fn metrics(&self) -> Vec<String> {
        let text = self.admin("/stats?filter=%5Ewasmcustom").unwrap_or_default();
        let metric = |line: &str| {
            let line = line.strip_prefix("wasmcustom.")?;
            // What is no number is a histogram.
            line.rsplit_once(": ")?.1.parse::<u64>().ok().map(|_| line.to_owned())
        };
        let mut metrics: Vec<_> = text.lines().filter_map(metric).collect();
        metrics.sort();
        metrics
    }

    fn admin(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.admin, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")?;
        let answer =
            http1::read(&mut BufReader::new(stream))?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// How many entries the log has.
    pub fn log_count(&self) -> usize {
        self.log.count()
    }

    /// The log's entries from one on.
    pub fn entries(&self, from: usize) -> Vec<Entry> {
        self.log.from(from)
    }

    /// Waits until the log says nothing more, within bounds.
    pub fn rest(&self) {
        self.log.rest(QUIET, QUIET_LIMIT);
    }

    /// Waits until the entries are what is wanted, within bounds. Whether they are.
    pub fn wait(&self, is_there: impl FnMut(&[Entry]) -> bool) -> bool {
        self.log.wait(ANSWER_LIMIT, is_there)
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

/// What begins each entry of the log, so that no module's text can pass for one.
fn token() -> io::Result<String> {
    let number = getrandom::u64().map_err(io::Error::other)?;
    Ok(format!("{number:016x} "))
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn wasm(setup: &Setup, module: &Path) -> Value {
    let plugin = Plugin { name: crate::PLUGIN_NAME.to_owned(), ..setup.plugin.clone() };
    let config =
        PluginConfig { filter: setup.filter, plugin, failure_policy: setup.failure_policy };
    config.filter("wasm", &Code::File(&module.to_string_lossy()))
}

/// The addresses of an Envoy.
struct Addresses {
    listener: SocketAddr,
    admin: SocketAddr,
    upstream: SocketAddr,
}

/// What the access log says of a stream: the fields that a filter has a part in.
const ACCESS_LOG: &str =
    "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% bytes in, %BYTES_SENT% out";

/// The network filter that speaks HTTP, with its filters.
fn connection_manager(filters: &[Value], token: &str) -> Value {
    // It is a line of the log like any other.
    let line = format!("{token}[info][access] {ACCESS_LOG}\n");
    let access_log = json!({ "name": "access", "typed_config": {
        "@type": extension("access_loggers.stream.v3.StderrAccessLog"),
        "log_format": { "text_format_source": { "inline_string": line } },
    } });
    let manager = json!({
        "access_log": [access_log],
        "@type": extension("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "ingress",
        "http_protocol_options": { "enable_trailers": true },
        "http2_protocol_options": { "allow_metadata": true },
        "http_filters": filters,
        "route_config": { "virtual_hosts": [{
            "name": "upstream",
            "domains": ["*"],
            "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "upstream" } }],
        }] },
    });
    json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager })
}

fn configuration(setup: &Setup, module: &Path, addresses: &Addresses, token: &str) -> Value {
    let mut filters: Vec<_> = setup.module.iter().map(|_| wasm(setup, module)).collect();
    let network_filters = match setup.filter {
        Filter::Http => {
            filters.push(router());
            vec![connection_manager(&filters, token)]
        }
        Filter::Network => {
            filters.push(tcp_proxy("upstream"));
            filters
        }
    };
    let protocol = match setup.http2 {
        true => json!({ "http2_protocol_options": { "allow_metadata": true } }),
        false => json!({ "http_protocol_options": { "enable_trailers": true } }),
    };
    let upstream_options = json!({
        "@type": extension("upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": protocol,
    });
    let mut listener = json!({
        "address": address(addresses.listener),
        // Else two Envoys could share a port.
        "enable_reuse_port": false,
        "filter_chains": [{ "filters": network_filters }],
    });
    if setup.buffer_limit_bytes > 0 {
        listener["per_connection_buffer_limit_bytes"] = json!(setup.buffer_limit_bytes);
    }
    json!({ "admin": { "address": address(addresses.admin) }, "static_resources": {
        "listeners": [listener],
        "clusters": [{
            "name": "upstream",
            "connect_timeout": "5s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": upstream_options,
            },
            "load_assignment": load_assignment("upstream", &address(addresses.upstream)),
        }],
    } })
}
