// auth-callout: asks an auth service about each request before it goes upstream.
// JSON configuration, every field optional: {"cluster": "auth", "authority":
// "auth", "path": "/check", "timeout_ms": 1000}. 200 from the service lets the
// request through, with the service's `x-auth-user`; any other answer is a 403.
// If the call cannot be sent: 500 (no such cluster) or 503 (no healthy host).

use log::{error, info, warn};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, Status};
use serde::Deserialize;
use std::rc::Rc;
use std::time::Duration;

const USER: &str = "x-auth-user";

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::<Root>::default());
}}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    cluster: String,
    authority: String,
    path: String,
    timeout_ms: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster: "auth".into(),
            authority: "auth".into(),
            path: "/check".into(),
            timeout_ms: 1000,
        }
    }
}

impl Settings {
    fn parse(configuration: &[u8]) -> Result<Self, String> {
        if configuration.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(configuration).map_err(|e| e.to_string())
    }
}

#[derive(Default)]
struct Root {
    settings: Rc<Settings>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        match Settings::parse(&self.get_plugin_configuration().unwrap_or_default()) {
            Ok(settings) => {
                info!("asking cluster `{}`", settings.cluster);
                self.settings = Rc::new(settings);
                true
            }
            Err(reason) => {
                error!("invalid configuration: {reason}");
                false
            }
        }
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { settings: Rc::clone(&self.settings) }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    settings: Rc<Settings>,
}

impl Stream {
    fn refuse(&self, status: u32, body: &str) {
        self.send_http_response(
            status,
            vec![("content-type", "text/plain")],
            Some(body.as_bytes()),
        );
    }

    /// A request header as text; one that is not UTF-8 does not count.
    fn request_text(&self, name: &str) -> Option<String> {
        String::from_utf8(self.get_http_request_header_bytes(name)?).ok()
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        // Only the auth service says who somebody is.
        self.remove_http_request_header(USER);

        let settings = &*self.settings;
        let original_method = self.request_text(":method").unwrap_or_default();
        let original_path = self.request_text(":path").unwrap_or_default();
        let authorization = self.request_text("authorization");
        let mut headers = vec![
            (":method", "GET"),
            (":path", settings.path.as_str()),
            (":authority", settings.authority.as_str()),
            ("x-original-method", original_method.as_str()),
            ("x-original-path", original_path.as_str()),
        ];
        if let Some(value) = &authorization {
            headers.push(("authorization", value));
        }

        let timeout = Duration::from_millis(settings.timeout_ms.into());
        match self.dispatch_http_call(&settings.cluster, headers, None, vec![], timeout) {
            Ok(_token) => {}
            Err(Status::BadArgument) => {
                error!("no cluster `{}`", settings.cluster);
                self.refuse(500, "auth-callout: no such auth cluster\n");
            }
            Err(status) => {
                error!("call to cluster `{}` failed: {status:?}", settings.cluster);
                self.refuse(503, "auth-callout: auth service unavailable\n");
            }
        }
        Action::Pause
    }
}

impl Context for Stream {
    fn on_http_call_response(
        &mut self,
        _token: u32,
        headers: usize,
        _body_size: usize,
        _trailers: usize,
    ) {
        if headers == 0 {
            // Reset: there is no header map to read.
            warn!("the auth service did not answer");
            self.refuse(503, "auth-callout: auth service unavailable\n");
            return;
        }
        let status = self.get_http_call_response_header_bytes(":status").unwrap_or_default();
        if status != b"200" {
            info!("refused with {}", String::from_utf8_lossy(&status));
            self.refuse(403, "auth-callout: access denied\n");
            return;
        }
        if let Some(user) = self.get_http_call_response_header_bytes(USER) {
            self.set_http_request_header_bytes(USER, Some(&user));
        }
        self.resume_http_request();
    }
}
