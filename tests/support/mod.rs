//! What the suites that need a program of this machine have in common.

use std::io::Write as _;

/// The value of an environment variable that a test cannot do without. Without it the test says so,
/// past the capture of libtest, and is over.
pub fn needs(variable: &str, what: &str) -> Option<String> {
    if let Some(value) = std::env::var(variable).ok().filter(|value| !value.is_empty()) {
        return Some(value);
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // A direct write: libtest hides what `eprintln!` prints in a test that passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: set {variable} to {what}");
    None
}
