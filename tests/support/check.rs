//! Checking an image from a test.

use filtergate::{
    CheckOptions,
    image::{NoProgress, Source},
    verdict::Verdict,
};

pub fn check(reference: &str, options: &CheckOptions) -> Verdict {
    let source = Source::parse(reference).unwrap_or_else(|error| panic!("{reference}: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(filtergate::check(&source, reference, options, &NoProgress))
}
