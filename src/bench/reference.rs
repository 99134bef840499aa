//! A piece of work that is always the same, to tell how fast the machine is meanwhile: a module made
//! here and compiled by the engine of the gate. What it takes at two times tells a slower machine from
//! a slower module.

use wasm_encoder::{
    BlockType, CodeSection, Function, FunctionSection, MemArg, MemorySection, MemoryType, Module,
    TypeSection, ValType,
};
use wasmtime::Engine;

use crate::{
    timing::Stopwatch,
    vm::{Compiler, build_engine},
};

/// Functions of the module.
const FUNCTIONS: u32 = 60;
/// Loads, stores and branches of each function.
const STEPS: u32 = 24;

/// The work, ready to be done.
pub struct Reference {
    engine: Engine,
    wasm: Vec<u8>,
}

impl Reference {
    /// Makes the module. `None` where this machine runs no guests, which the loads then tell.
    pub fn new() -> Option<Self> {
        Some(Self { engine: build_engine(Compiler::Winch, false).ok()?, wasm: module() })
    }

    /// Does the work once; CPU time of this thread, nanoseconds.
    pub fn run(&self) -> u64 {
        let watch = Stopwatch::thread();
        let compiled = wasmtime::Module::from_binary(&self.engine, &self.wasm);
        let time = watch.elapsed_ns();
        drop(compiled);
        time
    }
}

fn module() -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I32, ValType::I32], [ValType::I32]);
    let mut functions = FunctionSection::new();
    let mut code = CodeSection::new();
    for index in 0..FUNCTIONS {
        functions.function(0);
        code.function(&function(index));
    }
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&memories).section(&code);
    module.finish()
}

/// What compilers see most: locals, loads, stores, arithmetic, branches and calls.
fn function(index: u32) -> Function {
    let mut function = Function::new([(4, ValType::I32)]);
    let mut body = function.instructions();
    for step in 0..STEPS {
        let place = MemArg { offset: u64::from(step) * 4, align: 2, memory_index: 0 };
        let local = 2 + (step + index) % 4;
        body.local_get(0).i32_load(place).local_get(1).i32_add().i32_const(7).i32_mul();
        body.local_set(local);
        body.local_get(local).i32_const(3).i32_and();
        body.if_(BlockType::Empty);
        body.local_get(1).local_get(local).i32_store(place);
        body.end();
        if step % 8 == 7 {
            body.local_get(local).local_get(0).call((index + step) % FUNCTIONS).local_set(1);
        }
    }
    body.local_get(1).end();
    function
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_is_a_module_that_compiles() {
        let reference = Reference::new().unwrap();
        assert!(wasmtime::Module::validate(&reference.engine, &reference.wasm).is_ok());
        assert!(reference.wasm.len() > 10_000);
        assert!(reference.run() > 0);
    }
}
