//! filtergate.
pub mod image;
