//! Imports, exports, memories and sizes of a module, read in one pass without its function bodies.

use wasmparser::{
    AbstractHeapType, BinaryReader, CompositeInnerType, Encoding, ExternalKind, HeapType, Parser,
    Payload, RefType, TypeRef, ValType,
};

use crate::abi::{FuncType, ValueType};

/// What is imported or exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExternKind {
    /// A function of this type.
    Func(FuncType),
    /// A memory.
    Memory(MemoryFacts),
    /// A table.
    Table(TableFacts),
    /// A global of this type.
    Global(ValueType),
    /// An exception tag.
    Tag,
}

impl ExternKind {
    /// The type, where this is a function.
    pub fn func(&self) -> Option<&FuncType> {
        match self {
            Self::Func(ty) => Some(ty),
            _ => None,
        }
    }

    /// The word of the text format.
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::Func(_) => "func",
            Self::Memory(_) => "memory",
            Self::Table(_) => "table",
            Self::Global(_) => "global",
            Self::Tag => "tag",
        }
    }
}

/// An import of the module, in the order of the import section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Import module.
    pub module: String,
    /// Import name.
    pub name: String,
    /// What is imported.
    pub kind: ExternKind,
}

impl Import {
    /// Module and name, as Envoy's messages have them: `env.proxy_log`.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.module, self.name)
    }
}

/// An export of the module, in the order of the export section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Export name.
    pub name: String,
    /// What is exported.
    pub kind: ExternKind,
}

/// A memory's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryFacts {
    /// Pages of 64 KiB at the start.
    pub initial_pages: u64,
    /// The most pages it may grow to.
    pub maximum_pages: Option<u64>,
    /// A 64-bit memory.
    pub memory64: bool,
    /// A shared memory.
    pub shared: bool,
}

/// A table's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableFacts {
    /// Elements at the start.
    pub initial: u64,
    /// The most elements it may grow to.
    pub maximum: Option<u64>,
    /// Type of its elements.
    pub element: ValueType,
}

/// What the module's sections say.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Imports in order.
    pub imports: Vec<Import>,
    /// Exports in order.
    pub exports: Vec<Export>,
    /// All memories, imported ones first.
    pub memories: Vec<MemoryFacts>,
    /// All tables, imported ones first.
    pub tables: Vec<TableFacts>,
    /// Number of function bodies.
    pub functions: u32,
    /// Bytes of the code section: what compile time goes with.
    pub code_bytes: u64,
    /// Names of the custom sections in order.
    pub custom_sections: Vec<String>,
    /// `producers`: language, processed-by and SDK entries as `(field, name, version)`.
    pub producers: Vec<(String, String, String)>,
}

/// Why the sections cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A component, which Envoy's engine does not run.
    #[error("this is a component, not a core module")]
    Component,
    /// Anything else.
    #[error("{message} (at offset {offset:#x})")]
    Malformed {
        /// The parser's words.
        message: String,
        /// Where in the file.
        offset: usize,
    },
}

impl From<wasmparser::BinaryReaderError> for ParseError {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Malformed { message: error.message().to_owned(), offset: error.offset() }
    }
}

impl Facts {
    /// The function export called `name`.
    pub fn exported_func(&self, name: &str) -> Option<&FuncType> {
        self.exports
            .iter()
            .filter(|export| export.name == name)
            .find_map(|export| export.kind.func())
    }

    /// Whether any function is imported.
    pub fn imports_functions(&self) -> bool {
        self.imports.iter().any(|import| import.kind.func().is_some())
    }

    /// Whether any memory is imported or exported, so that a host can reach it.
    pub fn has_reachable_memory(&self) -> bool {
        self.exports.iter().any(|export| matches!(export.kind, ExternKind::Memory(_)))
            || self.imports.iter().any(|import| matches!(import.kind, ExternKind::Memory(_)))
    }
}

/// What an export with an index out of range counts as: the validator refuses it by and by.
const NO_MEMORY: MemoryFacts =
    MemoryFacts { initial_pages: 0, maximum_pages: None, memory64: false, shared: false };
const NO_TABLE: TableFacts = TableFacts { initial: 0, maximum: None, element: ValueType::FuncRef };

struct Types {
    types: Vec<Option<FuncType>>,
    /// Type index of each function, imported ones first.
    funcs: Vec<u32>,
    globals: Vec<ValueType>,
}

impl Types {
    fn func_type(&self, type_index: u32, offset: usize) -> Result<FuncType, ParseError> {
        self.types.get(type_index as usize).cloned().flatten().ok_or_else(|| {
            ParseError::Malformed {
                message: format!("type {type_index} is no function type"),
                offset,
            }
        })
    }

    fn func(&self, index: u32, offset: usize) -> Result<FuncType, ParseError> {
        let type_index = self.funcs.get(index as usize).ok_or_else(|| ParseError::Malformed {
            message: format!("there is no function {index}"),
            offset,
        })?;
        self.func_type(*type_index, offset)
    }
}

/// Reads the sections of `bytes`. Function bodies are skipped, so that this costs next to nothing
/// and says nothing of their validity.
///
/// # Errors
///
/// Where the bytes are no core module, or its sections cannot be read.
pub fn parse(bytes: &[u8]) -> Result<Facts, ParseError> {
    let mut facts = Facts::default();
    let mut types = Types { types: Vec::new(), funcs: Vec::new(), globals: Vec::new() };
    let mut parser = Parser::new(0);
    let mut rest = bytes;
    loop {
        let (consumed, payload) = match parser.parse(rest, true)? {
            wasmparser::Chunk::Parsed { consumed, payload } => (consumed, payload),
            wasmparser::Chunk::NeedMoreData(_) => {
                return Err(ParseError::Malformed {
                    message: "unexpected end of file".to_owned(),
                    offset: bytes.len(),
                });
            }
        };
        match payload {
            Payload::Version { encoding: Encoding::Component, .. } => {
                return Err(ParseError::Component);
            }
            Payload::CodeSectionStart { size, count, .. } => {
                facts.functions = count;
                facts.code_bytes = u64::from(size);
                parser.skip_section();
                rest = &rest[consumed..];
                let skip = usize::try_from(size).unwrap_or(usize::MAX);
                rest = rest.get(skip..).ok_or_else(|| ParseError::Malformed {
                    message: "the code section is longer than the file".to_owned(),
                    offset: bytes.len(),
                })?;
                continue;
            }
            Payload::End(_) => return Ok(facts),
            payload => section(payload, &mut facts, &mut types)?,
        }
        rest = &rest[consumed..];
    }
}

fn section(payload: Payload<'_>, facts: &mut Facts, types: &mut Types) -> Result<(), ParseError> {
    match payload {
        Payload::TypeSection(reader) => {
            for group in reader {
                for ty in group?.into_types() {
                    types.types.push(match &ty.composite_type.inner {
                        CompositeInnerType::Func(func) => Some(FuncType {
                            params: func.params().iter().map(|ty| value_type(*ty)).collect(),
                            results: func.results().iter().map(|ty| value_type(*ty)).collect(),
                        }),
                        _ => None,
                    });
                }
            }
        }
        Payload::ImportSection(reader) => {
            let offset = reader.range().start;
            for import in reader.into_imports() {
                let import = import?;
                let kind = match import.ty {
                    TypeRef::Func(index) | TypeRef::FuncExact(index) => {
                        types.funcs.push(index);
                        ExternKind::Func(types.func_type(index, offset)?)
                    }
                    TypeRef::Memory(ty) => {
                        let memory = memory_facts(&ty);
                        facts.memories.push(memory);
                        ExternKind::Memory(memory)
                    }
                    TypeRef::Table(ty) => {
                        let table = table_facts(&ty);
                        facts.tables.push(table);
                        ExternKind::Table(table)
                    }
                    TypeRef::Global(ty) => {
                        let ty = value_type(ty.content_type);
                        types.globals.push(ty);
                        ExternKind::Global(ty)
                    }
                    TypeRef::Tag(_) => ExternKind::Tag,
                };
                facts.imports.push(Import {
                    module: import.module.to_owned(),
                    name: import.name.to_owned(),
                    kind,
                });
            }
        }
        Payload::FunctionSection(reader) => {
            for index in reader {
                types.funcs.push(index?);
            }
        }
        Payload::TableSection(reader) => {
            for table in reader {
                facts.tables.push(table_facts(&table?.ty));
            }
        }
        Payload::MemorySection(reader) => {
            for memory in reader {
                facts.memories.push(memory_facts(&memory?));
            }
        }
        Payload::GlobalSection(reader) => {
            for global in reader {
                types.globals.push(value_type(global?.ty.content_type));
            }
        }
        Payload::ExportSection(reader) => {
            let offset = reader.range().start;
            for export in reader {
                let export = export?;
                let index = export.index as usize;
                let kind = match export.kind {
                    ExternalKind::Func | ExternalKind::FuncExact => {
                        ExternKind::Func(types.func(export.index, offset)?)
                    }
                    ExternalKind::Memory => {
                        ExternKind::Memory(facts.memories.get(index).copied().unwrap_or(NO_MEMORY))
                    }
                    ExternalKind::Table => {
                        ExternKind::Table(facts.tables.get(index).copied().unwrap_or(NO_TABLE))
                    }
                    ExternalKind::Global => ExternKind::Global(
                        types.globals.get(index).copied().unwrap_or(ValueType::I32),
                    ),
                    ExternalKind::Tag => ExternKind::Tag,
                };
                facts.exports.push(Export { name: export.name.to_owned(), kind });
            }
        }
        Payload::CustomSection(reader) => {
            // A module may hold any number of custom sections; the first are enough for a report.
            if facts.custom_sections.len() < 64 {
                facts.custom_sections.push(reader.name().to_owned());
            }
            if reader.name() == "producers" {
                facts.producers = producers(&reader);
            }
        }
        _ => {}
    }
    Ok(())
}

/// Malformed producers are no fault of the module: nobody but this report reads them.
fn producers(section: &wasmparser::CustomSectionReader<'_>) -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    let reader = BinaryReader::new(section.data(), section.data_offset());
    let Ok(fields) = wasmparser::ProducersSectionReader::new(reader) else { return all };
    for field in fields.into_iter().flatten() {
        for value in field.values.into_iter().flatten().take(16) {
            all.push((field.name.to_owned(), value.name.to_owned(), value.version.to_owned()));
        }
    }
    all
}

fn memory_facts(ty: &wasmparser::MemoryType) -> MemoryFacts {
    MemoryFacts {
        initial_pages: ty.initial,
        maximum_pages: ty.maximum,
        memory64: ty.memory64,
        shared: ty.shared,
    }
}

fn table_facts(ty: &wasmparser::TableType) -> TableFacts {
    TableFacts { initial: ty.initial, maximum: ty.maximum, element: ref_type(ty.element_type) }
}

fn value_type(ty: ValType) -> ValueType {
    match ty {
        ValType::I32 => ValueType::I32,
        ValType::I64 => ValueType::I64,
        ValType::F32 => ValueType::F32,
        ValType::F64 => ValueType::F64,
        ValType::V128 => ValueType::V128,
        ValType::Ref(ty) => ref_type(ty),
    }
}

fn ref_type(ty: RefType) -> ValueType {
    match ty.heap_type() {
        HeapType::Abstract { shared: false, ty: AbstractHeapType::Func } => ValueType::FuncRef,
        HeapType::Abstract { shared: false, ty: AbstractHeapType::Extern } => ValueType::ExternRef,
        _ => ValueType::OtherRef,
    }
}
