//! Assembles a filter written in the WebAssembly text format:
//! `wat2wasm IN.wat OUT.wasm`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = arguments.as_slice() else {
        eprintln!("usage: wat2wasm IN.wat OUT.wasm");
        return ExitCode::from(2);
    };
    let wasm = match wat::parse_file(input) {
        Ok(wasm) => wasm,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = std::fs::write(output, wasm) {
        eprintln!("cannot write `{output}`: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
