//! Reports: one file for each format, all of them consumers of a [`Verdict`](crate::verdict::Verdict).
//!
//! Names, log lines and error texts come from a module, an image or a registry. None of them
//! reaches a terminal or a log as it is: see [`escape`].

pub mod bench;
pub mod cache;
pub mod escape;
pub mod explain;
pub mod html;
pub mod human;
pub mod inspect;
pub mod json;
pub mod matrix;
mod stages;
pub mod targets;
pub mod trace;
pub mod units;
pub mod yaml;
