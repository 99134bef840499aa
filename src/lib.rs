//! filtergate.
pub mod abi;
pub mod bench;
pub mod host;
pub mod module;
pub mod target;
pub mod verdict;
pub mod vm;
