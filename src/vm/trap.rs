//! Why a call into a guest ended early, in wasmtime's terms and in Envoy's words.

use wasmtime::{Trap as WasmtimeTrap, WasmBacktrace};

use crate::host::HostTrap;

/// What ended a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrapKind {
    /// The guest's own trap, with V8's text for it.
    Guest(String),
    /// A host function was called while it is not allowed.
    Restricted {
        /// `env.proxy_get_property`.
        function: String,
    },
    /// The callback ran over its time.
    Timeout,
    /// Envoy itself would die here.
    CrashesEnvoy(String),
    /// A limit that keeps filtergate itself safe.
    Limit(String),
}

/// A call into a guest that ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trap {
    /// The export that was called.
    pub function: String,
    /// Why it ended.
    pub kind: TrapKind,
    /// Frames, innermost first: code offset and name.
    pub backtrace: Vec<String>,
}

impl Trap {
    /// Reads what wasmtime says of a call of `function`.
    pub fn new(function: &str, error: &wasmtime::Error) -> Self {
        let kind = match HostTrap::beyond_the_guest(error) {
            Some(HostTrap::Interrupted) => TrapKind::Timeout,
            Some(HostTrap::CrashesEnvoy(why)) => TrapKind::CrashesEnvoy(why),
            Some(HostTrap::Limit(what)) => TrapKind::Limit(what),
            Some(HostTrap::Restricted { function }) => TrapKind::Restricted { function },
            None => match error.downcast_ref::<HostTrap>() {
                Some(HostTrap::Restricted { function }) => {
                    TrapKind::Restricted { function: function.clone() }
                }
                _ => TrapKind::Guest(v8_text(error)),
            },
        };
        let backtrace = error
            .downcast_ref::<WasmBacktrace>()
            .map(|backtrace| backtrace.frames().iter().map(frame).collect())
            .unwrap_or_default();
        Self { function: function.to_owned(), kind, backtrace }
    }

    /// Envoy dies of what `function` asked for.
    pub fn crash(function: &str, why: &str) -> Self {
        let kind = TrapKind::CrashesEnvoy(why.to_owned());
        Self { function: function.to_owned(), kind, backtrace: Vec::new() }
    }

    /// Whether the guest itself trapped or was refused: what Envoy logs and goes on from.
    pub fn is_the_guests(&self) -> bool {
        matches!(self.kind, TrapKind::Guest(_) | TrapKind::Restricted { .. })
    }

    /// The reason as Envoy would log it, or filtergate's own where Envoy would say nothing.
    pub fn reason(&self) -> String {
        match &self.kind {
            TrapKind::Guest(text) => text.clone(),
            TrapKind::Restricted { .. } => "Uncaught Error: restricted_callback".to_owned(),
            TrapKind::Timeout => "it ran over its time".to_owned(),
            TrapKind::CrashesEnvoy(why) => why.clone(),
            TrapKind::Limit(what) => format!("filtergate's limit reached: {what}"),
        }
    }

    /// The lines that Envoy logs for this trap; none where it would die or hang instead. Envoy adds
    /// a backtrace only for modules with function names.
    pub fn envoy_messages(&self, has_function_names: bool) -> Vec<String> {
        if !self.is_the_guests() {
            return Vec::new();
        }
        let mut lines = vec![format!("Function: {} failed: {}", self.function, self.reason())];
        if has_function_names {
            lines.push("Proxy-Wasm plugin in-VM backtrace:".to_owned());
            lines.extend(
                self.backtrace.iter().enumerate().map(|(i, frame)| format!("{i:>3}:  {frame}")),
            );
        }
        lines
    }
}

fn frame(frame: &wasmtime::FrameInfo) -> String {
    let offset = frame.module_offset().unwrap_or_default();
    let name =
        frame.symbols().first().and_then(|symbol| symbol.name()).or_else(|| frame.func_name());
    match name {
        Some(name) => format!("{offset:#x} - {name}"),
        None => format!("{offset:#x} - unknown(function index:{})", frame.func_index()),
    }
}

/// V8's words for a trap (`src/common/message-template.h`).
fn v8_text(error: &wasmtime::Error) -> String {
    use WasmtimeTrap as T;
    let Some(trap) = error.downcast_ref::<WasmtimeTrap>() else {
        return if error.is::<wasmtime::ThrownException>() {
            "Uncaught #<Exception>".to_owned()
        } else {
            format!("Uncaught RuntimeError: {}", error.root_cause())
        };
    };
    let text = match trap {
        T::StackOverflow => {
            return "Uncaught RangeError: Maximum call stack size exceeded".to_owned();
        }
        T::UnreachableCodeReached => "unreachable",
        T::MemoryOutOfBounds => "memory access out of bounds",
        T::HeapMisaligned => "operation does not support unaligned accesses",
        T::TableOutOfBounds => "table index is out of bounds",
        T::IndirectCallToNull | T::BadSignature => "function signature mismatch",
        T::IntegerOverflow => "divide result unrepresentable",
        T::IntegerDivisionByZero => "divide by zero",
        T::BadConversionToInteger => "float unrepresentable in integer range",
        T::NullReference => "dereferencing a null pointer",
        T::ArrayOutOfBounds => "array element access out of bounds",
        T::CastFailure => "illegal cast",
        T::AllocationTooLarge => "requested new array is too large",
        other => return format!("Uncaught RuntimeError: {other}"),
    };
    format!("Uncaught RuntimeError: {text}")
}
