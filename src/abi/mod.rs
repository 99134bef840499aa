//! Tables of the Proxy-Wasm ABI as Envoy implements it. Data only.
//!
//! Sources: proxy-wasm-cpp-host `src/exports.cc`, `src/wasm.cc`, `include/proxy-wasm/wasm.h` at the
//! revision that Envoy 1.39 and 1.40 pin, and the older revisions that older releases pin.

mod callbacks;
mod declared;
mod functions;
mod parameters;

use std::fmt;

pub use callbacks::{ALLOCATORS, CALLBACKS, Callback, LIFECYCLE};
pub use declared::{DeclaredAbi, declared_abi};
pub use functions::HOST_FUNCTIONS;
pub use parameters::{HOST_FUNCTION_PARAMETERS, Parameter, ParameterKind, callback_parameters};

/// A version of the Proxy-Wasm ABI that Envoy accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AbiVersion {
    /// `proxy_abi_version_0_1_0`.
    V0_1_0,
    /// `proxy_abi_version_0_2_0`.
    V0_2_0,
    /// `proxy_abi_version_0_2_1`.
    V0_2_1,
}

impl AbiVersion {
    /// All versions, oldest first.
    pub const ALL: [Self; 3] = [Self::V0_1_0, Self::V0_2_0, Self::V0_2_1];

    /// The version as people write it, `0.2.1`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_2_1 => "0.2.1",
        }
    }

    /// The function export by which a module says that it is of this version.
    pub fn marker(self) -> &'static str {
        match self {
            Self::V0_1_0 => "proxy_abi_version_0_1_0",
            Self::V0_2_0 => "proxy_abi_version_0_2_0",
            Self::V0_2_1 => "proxy_abi_version_0_2_1",
        }
    }

    /// The version whose marker is `export`.
    pub fn from_marker(export: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.marker() == export)
    }
}

impl fmt::Display for AbiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The ABI versions for which a function or callback exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbiSet(u8);

impl AbiSet {
    /// Every version.
    pub const ALL: Self = Self(0b111);
    /// 0.1.0 only.
    pub const V0_1_0: Self = Self(0b001);
    /// 0.2.0 and 0.2.1.
    pub const V0_2_X: Self = Self(0b110);
    /// 0.2.1 only.
    pub const V0_2_1: Self = Self(0b100);

    /// Whether `version` is in the set.
    pub fn contains(self, version: AbiVersion) -> bool {
        self.0 & (1 << version as u8) != 0
    }

    /// The versions in the set, oldest first.
    pub fn iter(self) -> impl Iterator<Item = AbiVersion> {
        AbiVersion::ALL.into_iter().filter(move |version| self.contains(*version))
    }
}

impl fmt::Display for AbiSet {
    /// `0.2.0 and 0.2.1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions: Vec<_> = self.iter().map(AbiVersion::as_str).collect();
        f.write_str(&versions.join(" and "))
    }
}

/// The import modules under which a host function is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// `env`.
    Env,
    /// `wasi_unstable` and `wasi_snapshot_preview1`, the same function under both names.
    Wasi,
}

impl Namespace {
    /// The import module of this name, if it is one of these.
    pub fn module(self, name: &str) -> Option<&'static str> {
        self.modules().iter().find(|module| **module == name).copied()
    }

    /// The names of the import modules.
    pub fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Env => &["env"],
            Self::Wasi => &["wasi_unstable", "wasi_snapshot_preview1"],
        }
    }
}

/// "In no release", for the release columns of [`HostFunction`].
pub const NEVER: u8 = u8::MAX;

/// A function that Envoy offers to a module. Releases are the minor number of Envoy 1.x.
#[derive(Debug, PartialEq, Eq)]
pub struct HostFunction {
    /// Where it is imported from.
    pub namespace: Namespace,
    /// Its import name.
    pub name: &'static str,
    /// Parameters and results, `i` for i32 and `I` for i64: `iiI>i`.
    pub signature: &'static str,
    /// The ABI versions for which it is linked.
    pub abis: AbiSet,
    /// The first release that links it (17 where it is older than the table).
    pub since: u8,
    /// The first release that lets a module call it in `_initialize`, `_start` and `main`.
    pub in_start: u8,
    /// The first release that lets a module call it in an allocation that the host asked for.
    pub in_malloc: u8,
}

impl HostFunction {
    /// Its parameter and result types.
    pub fn func_type(&self) -> FuncType {
        FuncType::parse(self.signature)
    }
}

/// The host function that an import names, with its index in [`HOST_FUNCTIONS`].
pub fn find_host_function(module: &str, name: &str) -> Option<(usize, &'static HostFunction)> {
    HOST_FUNCTIONS
        .iter()
        .enumerate()
        .find(|(_, f)| f.name == name && f.namespace.modules().contains(&module))
}

/// A value type, as far as Envoy's messages name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// i32.
    I32,
    /// i64.
    I64,
    /// f32.
    F32,
    /// f64.
    F64,
    /// v128.
    V128,
    /// `funcref` and its kin.
    FuncRef,
    /// `externref` and its kin.
    ExternRef,
    /// Any other reference.
    OtherRef,
}

impl ValueType {
    /// The name in Envoy's messages (`printValTypes` in proxy-wasm-cpp-host `src/v8/v8.cc`).
    pub fn envoy_name(self) -> &'static str {
        match self {
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::FuncRef => "funcref",
            Self::ExternRef => "anyref",
            Self::V128 | Self::OtherRef => "unknown",
        }
    }
}

/// The type of a function.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct FuncType {
    /// Parameters in order.
    pub params: Vec<ValueType>,
    /// Results in order.
    pub results: Vec<ValueType>,
}

impl FuncType {
    /// Reads the notation of [`HostFunction::signature`].
    pub fn parse(signature: &str) -> Self {
        let (params, results) = signature.split_once('>').unwrap_or((signature, ""));
        let types = |text: &str| {
            text.chars().map(|c| if c == 'I' { ValueType::I64 } else { ValueType::I32 }).collect()
        };
        Self { params: types(params), results: types(results) }
    }
}

impl fmt::Display for FuncType {
    /// As Envoy prints it: `i32 i32 -> i32`, `void -> void`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |f: &mut fmt::Formatter<'_>, types: &[ValueType]| {
            if types.is_empty() {
                return f.write_str("void");
            }
            for (i, ty) in types.iter().enumerate() {
                if i > 0 {
                    f.write_str(" ")?;
                }
                f.write_str(ty.envoy_name())?;
            }
            Ok(())
        };
        side(f, &self.params)?;
        f.write_str(" -> ")?;
        side(f, &self.results)
    }
}

/// Result codes of host functions (`WasmResult`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "the names are the ABI's own")]
pub enum Status {
    Ok = 0,
    NotFound = 1,
    BadArgument = 2,
    SerializationFailure = 3,
    ParseFailure = 4,
    BadExpression = 5,
    InvalidMemoryAccess = 6,
    Empty = 7,
    CasMismatch = 8,
    ResultMismatch = 9,
    InternalFailure = 10,
    BrokenConnection = 11,
    Unimplemented = 12,
}

impl Status {
    /// The result code with this number.
    pub fn from_code(code: u32) -> Option<Self> {
        use Status::*;
        [
            Ok,
            NotFound,
            BadArgument,
            SerializationFailure,
            ParseFailure,
            BadExpression,
            InvalidMemoryAccess,
            Empty,
            CasMismatch,
            ResultMismatch,
            InternalFailure,
            BrokenConnection,
            Unimplemented,
        ]
        .into_iter()
        .find(|status| *status as u32 == code)
    }
}
