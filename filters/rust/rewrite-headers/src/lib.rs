// rewrite-headers: rewrites headers by rules from a JSON plugin configuration:
// {"request": [RULE...], "response": [RULE...]}, where a RULE is
// {"op": "set" | "append" | "remove" | "rename", "name": "...", "value": "..."};
// for "rename" the value is the new name. Rules apply in order. No configuration
// is no rules; an invalid one is logged as an error and on_configure fails.

use log::{error, info};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, Bytes, ContextType, LogLevel};
use serde::Deserialize;
use std::rc::Rc;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::<Root>::default());
}}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    #[serde(default)]
    request: Vec<Rule>,
    #[serde(default)]
    response: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    op: Op,
    name: String,
    value: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Op {
    Set,
    Append,
    Remove,
    Rename,
}

impl Rules {
    fn parse(configuration: &[u8]) -> Result<Self, String> {
        if configuration.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let rules: Self = serde_json::from_slice(configuration).map_err(|e| e.to_string())?;
        for rule in rules.request.iter().chain(&rules.response) {
            rule.check()?;
        }
        Ok(rules)
    }
}

impl Rule {
    /// Refuses what a proxy would not take, before the first request does.
    fn check(&self) -> Result<(), String> {
        let pseudo = self.name.starts_with(':');
        if !is_header_name(self.name.strip_prefix(':').unwrap_or(&self.name)) {
            return Err(format!("`{}` is no header name in lower case", self.name));
        }
        if pseudo && self.op != Op::Set {
            return Err(format!("`{}` can only be set", self.name));
        }
        match (self.op, &self.value) {
            (Op::Remove, None) => Ok(()),
            (Op::Remove, Some(_)) => Err(format!("remove `{}`: takes no value", self.name)),
            (_, None) => Err(format!("`{}`: the value is missing", self.name)),
            (Op::Rename, Some(value)) if !is_header_name(value) => {
                Err(format!("`{value}` is no header name in lower case"))
            }
            (_, Some(value)) if value.contains(char::is_control) => {
                Err(format!("`{}`: a value is a single line", self.name))
            }
            _ => Ok(()),
        }
    }
}

fn is_header_name(name: &str) -> bool {
    let is_token =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(is_token)
}

#[derive(Default)]
struct Root {
    rules: Rc<Rules>,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        match Rules::parse(&self.get_plugin_configuration().unwrap_or_default()) {
            Ok(rules) => {
                info!(
                    "{} request rules, {} response rules",
                    rules.request.len(),
                    rules.response.len()
                );
                self.rules = Rc::new(rules);
                true
            }
            Err(reason) => {
                error!("invalid configuration: {reason}");
                false
            }
        }
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { rules: Rc::clone(&self.rules) }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Stream {
    rules: Rc<Rules>,
}

impl Context for Stream {}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        for rule in &self.rules.request {
            let (name, value) = (&rule.name, rule.value.as_deref().unwrap_or_default());
            match rule.op {
                Op::Set => self.set_http_request_header(name, Some(value)),
                Op::Append => self.add_http_request_header(name, value),
                Op::Remove => self.remove_http_request_header(name),
                Op::Rename => {
                    let values = values_of(name, self.get_http_request_headers_bytes());
                    self.remove_http_request_header(name);
                    for bytes in &values {
                        self.add_http_request_header_bytes(value, bytes);
                    }
                }
            }
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        for rule in &self.rules.response {
            let (name, value) = (&rule.name, rule.value.as_deref().unwrap_or_default());
            match rule.op {
                Op::Set => self.set_http_response_header(name, Some(value)),
                Op::Append => self.add_http_response_header(name, value),
                Op::Remove => self.remove_http_response_header(name),
                Op::Rename => {
                    let values = values_of(name, self.get_http_response_headers_bytes());
                    self.remove_http_response_header(name);
                    for bytes in &values {
                        self.add_http_response_header_bytes(value, bytes);
                    }
                }
            }
        }
        Action::Continue
    }
}

/// All values of a header. As bytes: the string getters of the SDK panic on a
/// value that is not UTF-8.
fn values_of(name: &str, headers: Vec<(String, Bytes)>) -> Vec<Bytes> {
    headers.into_iter().filter_map(|(key, value)| (key == name).then_some(value)).collect()
}
