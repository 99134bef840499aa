//! Crate `proxy-wasm` 0.1 does not say that its host functions are imports; the
//! linker used to take any undefined symbol for one, and now has to be asked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=--allow-undefined");
}
