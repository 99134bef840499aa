// add-header: one module with two root_ids that behave differently.
// `add_request_header` adds `x-filtergate-request` to every request;
// `add_response_header` adds `x-filtergate-response` to every response.
// The value is the plugin configuration as plain text, or `hello` without one.
// An unknown or empty root_id is logged as a warning and changes nothing.

use log::{error, info, warn};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};
use std::rc::Rc;

const DEFAULT_VALUE: &str = "hello";

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| {
        Box::new(Root {
            role: Role::PassThrough,
            value: DEFAULT_VALUE.into(),
        })
    });
}}

/// What the plugin's `root_id` asks for.
#[derive(Clone, Copy)]
enum Role {
    AddRequestHeader,
    AddResponseHeader,
    PassThrough,
}

impl Role {
    fn of(root_id: &[u8]) -> Self {
        match root_id {
            b"add_request_header" => Self::AddRequestHeader,
            b"add_response_header" => Self::AddResponseHeader,
            _ => Self::PassThrough,
        }
    }
}

struct Root {
    role: Role,
    value: Rc<str>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let root_id = self.get_property(vec!["plugin_root_id"]).unwrap_or_default();
        self.role = Role::of(&root_id);
        let shown = String::from_utf8_lossy(&root_id);
        if let Role::PassThrough = self.role {
            warn!("unknown root_id `{shown}`: requests and responses pass unchanged");
        } else {
            info!("configured as `{shown}`");
        }

        let configuration = self.get_plugin_configuration().unwrap_or_default();
        match header_value(&configuration) {
            Ok(value) => self.value = value.into(),
            Err(reason) => {
                error!("invalid configuration: {reason}");
                return false;
            }
        }
        true
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { role: self.role, value: Rc::clone(&self.value) }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// The header value that a plugin configuration stands for.
fn header_value(configuration: &[u8]) -> Result<&str, &'static str> {
    let text = std::str::from_utf8(configuration).map_err(|_| "not UTF-8 text")?;
    match text.trim() {
        "" => Ok(DEFAULT_VALUE),
        value if value.contains(char::is_control) => Err("a header value is a single line"),
        value => Ok(value),
    }
}

struct Stream {
    role: Role,
    value: Rc<str>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        if let Role::AddRequestHeader = self.role {
            self.add_http_request_header("x-filtergate-request", &self.value);
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        if let Role::AddResponseHeader = self.role {
            self.add_http_response_header("x-filtergate-response", &self.value);
        }
        Action::Continue
    }
}
