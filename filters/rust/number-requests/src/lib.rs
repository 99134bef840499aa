// number-requests: a filter on the oldest ABI, 0.1.0, as built in 2020.
// It numbers the requests of its VM: `x-request-number` on the request that
// goes upstream and on the response that goes back. Header callbacks have no
// end-of-stream parameter in this ABI, and the entry point is `_start`.
// It takes no configuration and behaves the same under any root_id.

use log::info;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};
use std::cell::Cell;

const HEADER: &str = "x-request-number";

#[no_mangle]
pub extern "C" fn _start() {
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { served: Cell::new(0) }));
}

struct Root {
    served: Cell<u64>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        info!("numbering requests from 1");
        true
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        self.served.set(self.served.get() + 1);
        Some(Box::new(Stream { number: self.served.get().to_string() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    number: String,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize) -> Action {
        self.set_http_request_header(HEADER, Some(&self.number));
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize) -> Action {
        self.set_http_response_header(HEADER, Some(&self.number));
        Action::Continue
    }
}
