//! filtergate.
